"""Refusals by the platform a Space runs on: its limits are not the server's, and are told apart from those."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import format as text_of
from .evidence import Evidence, total
from .outcome import Refusal
from .summary import ErrorCount

SPACE = "the Space "
"""How an endpoint's exit status begins that tells the stage of a Space."""

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
    if ending is None or not ending.startswith(SPACE):
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
    return f"with {text_of.count_of(evidence.summary.held, 'session')} open"


def _slots(evidence: Evidence) -> int | None:
    """Return how many sessions the server was set to hold; None where that is not known."""
    each, workers = evidence.summary.limits.get("max_envs"), evidence.workers
    return int(each) * workers if workers is not None and each is not None and str(each).isdecimal() else None
