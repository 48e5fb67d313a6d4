"""One rule per limit that refuses sessions: the server's numbers, an HTTP status, the platform of a Space."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import SPACE_STATUS_PREFIX
from pytest_openenv_scale.metrics.errors import ErrorCount
from pytest_openenv_scale.results.outcome import Refusal

from .evidence import Evidence, total

_SPARE_CONNECTIONS = 10
"""Room for connections besides sessions: health checks, browsers."""

_ACTIVE_OF_MAX = re.compile(r"(\d+)\s*/\s*(\d+)\s+sessions", re.IGNORECASE)
_MAX = re.compile(r"max(?:imum)?[_ ]sessions\D{0,4}(\d+)", re.IGNORECASE)


def sessions_per_worker(evidence: Evidence) -> Refusal | None:
    """MAX_CONCURRENT_ENVS, named by the server itself: CAPACITY_REACHED."""
    claimed = evidence.claim(lambda error: error.type == "capacity" or error.code == "CAPACITY_REACHED")
    if not claimed:
        return None
    limit = _limit_told(claimed, evidence)
    if limit == 1:
        return _one_session(evidence, total(claimed))
    text, remedy = _capacity_words(evidence, limit)
    return Refusal("capacity", total(claimed), evidence.batch, text, remedy)


def _limit_told(errors: list[ErrorCount], evidence: Evidence) -> int | None:
    """Return the limit per worker as the server's refusal or the endpoint's settings tell it."""
    for error in errors:
        message = error.message or ""
        if found := _ACTIVE_OF_MAX.search(message):
            return int(found[2])
        if found := _MAX.search(message):
            return int(found[1])
    told = evidence.summary.limits.get("max_envs")
    return int(told) if told is not None and str(told).isdecimal() else None


def _one_session(evidence: Evidence, refused: int) -> Refusal:
    workers = evidence.workers or 1
    each = -(-evidence.needed // workers)
    per_worker = f" per worker ({workers} workers)" if workers > 1 else ""
    return Refusal(
        "one_session",
        refused,
        evidence.batch,
        f"CAPACITY_REACHED: the environment is configured for one session{per_worker or ' at a time'} "
        "(max_concurrent_envs=1)",
        f"in the app's file write create_app(..., max_concurrent_envs={each}){per_worker}",
    )


def _capacity_words(evidence: Evidence, limit: int | None) -> tuple[str, str]:
    """Return what refused, with the arithmetic workers × limit, and the setting that would hold `needed`."""
    workers, needed = evidence.workers, evidence.needed
    held = f"CAPACITY_REACHED at {formatting.count_of(evidence.summary.held, 'session')}"
    if evidence.summary.peak_concurrency is None:
        held = f"CAPACITY_REACHED; {formatting.count_of(evidence.summary.successful, 'session')} got in"
    if limit is None or workers is None:
        known = "" if limit is None else f"; each worker holds {limit:,}"
        return f"{held}{known}", _setting(needed, "per worker (capacity is workers × limit)", evidence)
    slots = workers * limit
    counted = f"{formatting.count_of(workers, 'worker')} × {limit:,}"
    equals = "=" if evidence.summary.held == slots else "of"
    if workers == 1:
        return f"{held} {equals} {counted}", _setting(needed, "", evidence)
    if slots < needed:
        more = f"per worker ({workers} workers; somewhat more, as connections split unevenly over them)"
        return f"{held} {equals} {counted}", _setting(-(-needed // workers), more, evidence)
    uneven = "connections split unevenly over workers, and one was full"
    text = f"{held}, though {counted} = {slots:,} slots are enough for {evidence.batch:,}: {uneven}"
    return text, _setting(needed, "per worker (any one may have to hold most of them), or one worker", evidence)


def _setting(wanted: int, words: str, evidence: Evidence) -> str:
    """Name the setting: the target's key where the plugin starts the server, else the variable and the line."""
    setting = f"MAX_CONCURRENT_ENVS ≥ {wanted} {words}".rstrip()
    if "max_envs" in evidence.summary.limits:
        return f"{setting}: max_envs={wanted} in the target"
    return f"{setting}; where the app does not read it, create_app(..., max_concurrent_envs={wanted})"


def connections_per_worker(evidence: Evidence) -> Refusal | None:
    """Uvicorn's `--limit-concurrency`: HTTP 503 where its log, its settings or its answers tell who speaks."""
    limit = evidence.summary.limits.get("limit_concurrency")
    told = evidence.log("exceeded concurrency limit") or evidence.said("exceeded concurrency limit|from uvicorn")
    # A Space's proxy answers 503 too, whatever serves behind it, but not in the server's name.
    if not told and limit is None and (evidence.is_space or not evidence.is_uvicorn):
        return None
    claimed = evidence.claim(lambda error: error.code == "503")
    if not claimed:
        return None
    workers = evidence.workers or 1
    setting = "--limit-concurrency" if limit is None else f"--limit-concurrency {limit}"
    each = f" in each of {workers} workers" if workers > 1 else ""
    room = -(-evidence.needed // workers) + _SPARE_CONNECTIONS
    return Refusal(
        "limit_concurrency",
        total(claimed),
        evidence.batch,
        f"HTTP 503 from uvicorn: {setting}{each} (it counts every connection, WebSockets too)",
        f"start uvicorn without --limit-concurrency, or with {room} or more",
    )


ENVOY_DEFAULT = 1024
"""Envoy's circuit breakers open at exactly this many connections and requests unless they are raised."""

_STATUSES = {
    401: ("it asks for credentials", "give them with --openenv-header 'Authorization: Bearer …'"),
    403: (
        "it forbids the request",
        "check the token, and that /ws exists below this URL; behind Envoy the route needs upgrade_configs",
    ),
    404: (
        "nothing answers at this path",
        "check the URL and its prefix; /ws exists from openenv-core 0.2.0 on",
    ),
    429: (
        "it limits the rate of requests",
        "ask the platform for a higher limit, or start fewer sessions at once",
    ),
    502: ("a proxy could not reach the server behind it", "check that the server runs where the proxy looks"),
    503: ("it has no room, or a proxy in front of it has none", "see the log of the server and of the proxy"),
    504: (
        "a proxy gave up waiting for the server behind it",
        "raise the proxy's connection limits and timeouts, or give the server more workers",
    ),
}


def by_proxy(evidence: Evidence) -> Refusal | None:
    """Envoy's circuit breakers: 503 or 504 from Envoy, or at exactly its default number of connections."""
    at_default = evidence.summary.held == ENVOY_DEFAULT
    is_envoy = evidence.summary.cell.target.startswith("envoy") or evidence.said(r"\benvoy\b|upstream")
    counted = evidence.summary.proxy is not None  # Then its breakers are known to have refused nothing.
    if counted or (not at_default and not is_envoy):
        return None
    claimed = evidence.claim(lambda error: error.code in ("503", "504"))
    if not claimed:
        return None
    held = formatting.count_of(evidence.summary.held, "session")
    default = ", the default of Envoy's circuit breakers" if at_default else ""
    codes = " and ".join(sorted({str(error.code) for error in claimed}))
    return Refusal(
        "proxy",
        total(claimed),
        evidence.batch,
        f"HTTP {codes} from a proxy with {held} open{default}",
        f"raise max_connections and max_requests together, to {evidence.needed} or more"
        " (and max_pending_requests for bursts)",
    )


def by_status(evidence: Evidence) -> Iterator[Refusal]:
    """Every other status, each with what it usually means."""
    told = evidence.claim(lambda error: error.type == "handshake_status")
    for status in sorted({error.code or "" for error in told}):
        yield _explain(status, [error for error in told if (error.code or "") == status], evidence)


def _explain(code: str, errors: list[ErrorCount], evidence: Evidence) -> Refusal:
    status = int(code) if code.isdecimal() else 0
    message = (errors[0].message or f"HTTP {code}").strip()[:200]
    if 300 <= status < 400:
        remedy = "write the URL it redirects to as the target"
        return Refusal("redirect", total(errors), evidence.batch, message, remedy)
    meaning, remedy = _STATUSES.get(status, ("no session can begin", "see the server's log"))
    cause = f"http_{code}" if code else "http"
    return Refusal(cause, total(errors), evidence.batch, f"{message}: {meaning}", remedy)


_TURNED_AWAY = frozenset({"connection_reset", "closed_early", "refused"})
_NO_SERVER = frozenset({"502", "503", "504"})
_NOT_SERVED = frozenset({"403", "404", "405"})
_FROM_SERVER = re.compile(r"\bfrom (uvicorn|hypercorn|granian|daphne|gunicorn|python/)", re.IGNORECASE)
"""The Server header of what runs in a Space, which its proxy passes on: such an answer is not the platform's."""

_REMEDIES = {
    "SLEEPING": "give it a longer sleep_time= (cpu-basic has a fixed one), and measure again",
    "PAUSED": "restart it, and measure again",
    "RUNTIME_ERROR": "see the last lines of its log",
}


def space_stopped(evidence: Evidence) -> Refusal | None:
    """A Space that left its stage RUNNING while it was measured: asleep, paused, restarted; or its server died."""
    ending = evidence.summary.server_exit
    if ending is None or not ending.startswith(SPACE_STATUS_PREFIX):
        return None
    claimed = evidence.claim(lambda error: error.type in (*_TURNED_AWAY, "timeout") or _answered(error))
    stage = re.search(r"stage (\w+)", ending)
    remedy = _REMEDIES.get(stage[1] if stage else "", "measure again once it runs; nobody may change it meanwhile")
    if stage and stage[1] == "RUNTIME_ERROR":
        return Refusal("server_died", total(claimed), evidence.batch, f"the server died: {ending}", remedy)
    return Refusal("platform_stage", total(claimed), evidence.batch, ending, remedy)


def by_space(evidence: Evidence) -> Iterator[Refusal]:
    """What a Space's platform does to clients, where the evidence says that it was not the server."""
    if not evidence.is_space:
        return
    for rule in (_rate, _connections, _http):
        if (refusal := rule(evidence)) is not None:
            yield refusal


def _rate(evidence: Evidence) -> Refusal | None:
    """429: no OpenEnv server answers that."""
    claimed = evidence.claim(lambda error: error.code == "429" and not _by_server(error))
    if not claimed:
        return None
    said = (claimed[0].message or "HTTP 429").strip()[:200]
    return Refusal(
        "platform_rate",
        total(claimed),
        evidence.batch,
        f"{said}, from the platform in front of the Space, {_open(evidence)}",
        "start sessions more slowly (--openenv-arrival rate=R), or keep to fewer on one Space",
    )


def _connections(evidence: Evidence) -> Refusal | None:
    """Handshakes turned away while others were held, by something that named no limit of the server's."""
    if not evidence.summary.held:
        return None
    claimed = evidence.claim(
        lambda error: (
            error.phase == "connect"
            and (error.type in _TURNED_AWAY or error.code in _NO_SERVER)
            and not _by_server(error)
        )
    )
    if not claimed:
        return None
    held = evidence.summary.held
    how = ", ".join(sorted({_how(error) for error in claimed}))
    slots = _slots(evidence)
    more = f", whose own limit is {slots:,}," if slots is not None and slots > held else ""
    return Refusal(
        "platform_connections",
        total(claimed),
        evidence.batch,
        f"connections to the Space were turned away in the handshake ({how}) {_open(evidence)}; "
        f"the server{more} did not say it was full",
        f"keep to {held:,} sessions on one Space, or spread them over several: their URLs, joined by commas",
    )


def _http(evidence: Evidence) -> Refusal | None:
    """HTTP mode where nothing serves the endpoints it needs."""
    if evidence.summary.cell.mode != "http" or evidence.summary.successful:
        return None
    claimed = evidence.claim(lambda error: error.code in _NOT_SERVED)
    if not claimed:
        return None
    return Refusal(
        "http_unreachable",
        total(claimed),
        evidence.batch,
        f"the HTTP endpoints of this Space cannot be reached (POST /reset was answered {claimed[0].code})",
        "measure it over its WebSocket: --openenv-modes ws",
    )


def _answered(error: ErrorCount) -> bool:
    return error.code in _NO_SERVER or error.code in _NOT_SERVED


def _by_server(error: ErrorCount) -> bool:
    return _FROM_SERVER.search(error.message or "") is not None


def _how(error: ErrorCount) -> str:
    return f"HTTP {error.code}" if error.type == "handshake_status" else str(error.type).replace("_", " ")


def _open(evidence: Evidence) -> str:
    return f"with {formatting.count_of(evidence.summary.held, 'session')} open"


def _slots(evidence: Evidence) -> int | None:
    """Return how many sessions the server was set to hold; None where that is not known."""
    each, workers = evidence.summary.limits.get("max_envs"), evidence.workers
    return int(each) * workers if workers is not None and each is not None and str(each).isdecimal() else None
