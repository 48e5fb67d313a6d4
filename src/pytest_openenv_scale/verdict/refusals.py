"""Which limit refused the sessions: evidence from rows, log and samples becomes a cause; a rule for each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import SERVICE_RESTART
from pytest_openenv_scale.results.outcome import ErrorCount, Refusal

from .remedies import Setter, Split, remedy_steps, room_per_worker, split_seen

NO_CLOSE_FRAME = "1006"
"""The code of a WebSocket that ended without a close frame, which nobody sends."""

BROKEN_OFF = frozenset({"closed_early", "connection_reset", "refused", "timeout"})
"""Failures that do not say why: the connection went away, was turned down or stayed silent."""


@dataclass
class Evidence:
    """One repetition of a cell; rules claim the failures they explain, so that no failure has two causes.

    `needed` is how many sessions the server should hold, for the arithmetic of the remedy, and `split` how the largest
    batch that was let in was spread over its workers.
    """

    summary: CellSummary
    needed: int
    split: Split | None = None
    unclaimed: list[ErrorCount] = field(init=False)

    def __post_init__(self) -> None:
        self.unclaimed = [error for error in self.summary.errors if error.type != "client_limit"]

    @property
    def batch(self) -> int:
        """How many sessions were asked for."""
        return self.summary.batch

    @property
    def workers(self) -> int | None:
        """How many processes answer: as the endpoint says, else as many as told their pid; None if unknown.

        The endpoint tells `workers` of each of its `replicas` or `nodes`.
        """
        limits = self.summary.limits
        workers, servers = limits.get("workers"), limits.get("replicas", limits.get("nodes", 1))
        if workers is not None and str(workers).isdecimal():
            return int(workers) * (int(servers) if str(servers).isdecimal() else 1)
        return self.summary.pids

    @property
    def is_space(self) -> bool:
        """Whether the server is a Hugging Face Space, behind the platform's own proxy."""
        return self.summary.cell.target.startswith("spaces")

    @property
    def is_uvicorn(self) -> bool:
        """Whether the server is known to be uvicorn: by its settings, its log or its answers."""
        answers = any("uvicorn" in (error.message or "").lower() for error in self.summary.errors)
        return self.summary.limits.get("server") == "uvicorn" or answers or self.search_log("uvicorn") is not None

    def search_log(self, pattern: str) -> re.Match[str] | None:
        """Search what the server logged during the cell, as far as that is known, case ignored."""
        log, new = self.summary.log_tail or "", self.summary.log_lines
        if new is not None:
            log = "\n".join(log.splitlines()[-new:]) if new else ""
        return re.search(pattern, log, re.IGNORECASE)

    def any_message_matches(self, pattern: str) -> bool:
        """Whether a failure's message matches, case ignored."""
        return any(re.search(pattern, error.message or "", re.IGNORECASE) for error in self.unclaimed)

    def claim(self, fits: Callable[[ErrorCount], object]) -> list[ErrorCount]:
        """Take the failures that fit out of the unclaimed ones and return them."""
        claimed = [error for error in self.unclaimed if fits(error)]
        self.unclaimed = [error for error in self.unclaimed if not fits(error)]
        return claimed

    def refusal(
        self,
        cause: str,
        claimed: Sequence[ErrorCount],
        *,
        words: str | None = None,
        **figures: float | int | str | bool | None,
    ) -> Refusal:
        """Return what refused the claimed sessions; `needed` joins its figures."""
        count = sum(error.count for error in claimed)
        return Refusal(cause, count, self.batch, {"needed": self.needed, **figures}, words)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many sessions fit on a server: `held` of them were open at once, all let in by an answer to their reset.

    Each of `workers` holds `limit`; None where that is not known. `at_least` says that the workers were deduced: so
    many are needed to hold these sessions, and there may be more.
    """

    held: int
    limit: int | None
    workers: int | None
    at_least: bool = False

    @property
    def slots(self) -> int | None:
        """How many sessions fit where connections split evenly over the workers."""
        return None if self.limit is None or self.workers is None else self.workers * self.limit

    @property
    def full(self) -> bool:
        """Whether every slot is known to have been taken."""
        return self.slots == self.held and not self.at_least

    def __str__(self) -> str:
        """Return what makes up the slots, where that is known: "at least 2 workers × 64"."""
        return f"{'at least ' if self.at_least else ''}{count_of(self.workers or 0, 'worker')} × {self.limit or 0:,}"


def capacity_of(held: int, *, limit: int | None, workers: int | None) -> Capacity:
    """Return how many sessions fit where `held` were open when others were turned away.

    That `workers` of `limit` sessions each could not have held them shows that there are more.
    """
    least = math.ceil(held / limit) if limit else 0
    if least > max(1, workers or 0):
        return Capacity(held, limit, least, at_least=True)
    return Capacity(held, limit, workers)


_ACTIVE_OF_MAX = re.compile(r"(\d+)\s*/\s*(\d+)\s+sessions", re.IGNORECASE)
_MAX_SESSIONS = re.compile(r"max(?:imum)?[_ ]sessions\D{0,4}(\d+)", re.IGNORECASE)


def sessions_per_worker(evidence: Evidence) -> Refusal | None:
    """MAX_CONCURRENT_ENVS, named by the server itself: CAPACITY_REACHED."""
    claimed = evidence.claim(lambda error: error.type == "capacity" or error.code == "CAPACITY_REACHED")
    if not claimed:
        return None
    summary = evidence.summary
    # Elsewhere than in a hold a slot may have had its next session before its last one was seen to have ended.
    at_once = summary.held if summary.cell.arrival == "hold" else 0
    fits = capacity_of(at_once, limit=_limit_per_worker(claimed, evidence), workers=evidence.workers)
    limit, workers = fits.limit, fits.workers
    count = sum(error.count for error in claimed)
    splits = (split_seen(summary, workers=workers, limit=limit, refused=count), evidence.split)
    split = max(filter(None, splits), key=lambda seen: seen.total, default=None)
    return evidence.refusal(
        "one_session" if limit == 1 else "capacity",
        claimed,
        limit=limit,
        workers=workers,
        at_least=fits.at_least,
        held=summary.peak_concurrency,
        successful=summary.successful,
        is_key_of_target=Setter(summary.cell.target).has_keys,
        room=room_per_worker(evidence.needed, workers, split),
        busiest=split.busiest if split else None,
        of=split.total if split else None,
    )


def _limit_per_worker(errors: list[ErrorCount], evidence: Evidence) -> int | None:
    """Return the limit per worker as the server's refusal or the endpoint's settings tell it."""
    for error in errors:
        message = error.message or ""
        if match := _ACTIVE_OF_MAX.search(message):
            return int(match[2])
        if match := _MAX_SESSIONS.search(message):
            return int(match[1])
    max_envs = evidence.summary.limits.get("max_envs")
    return int(max_envs) if max_envs is not None and str(max_envs).isdecimal() else None


_OWN_503 = re.compile(r"HTTP 503[^:]*(: Service Unavailable)?", re.DOTALL)
"""What uvicorn says at its limit: these words and no `Retry-After`. An application has words of its own."""


def connections_per_worker(evidence: Evidence) -> Refusal | None:
    """Uvicorn's `--limit-concurrency`, by its log, or over HTTP by its answer.

    It counts WebSockets but never refuses one: a handshake that is answered like that was refused by the application,
    unless the log says otherwise.
    """
    logged = evidence.search_log("exceeded concurrency limit") is not None
    answers = evidence.summary.cell.mode == "http" and evidence.is_uvicorn
    if not logged and not answers:
        return None
    claimed = evidence.claim(lambda error: error.code == "503" and _OWN_503.fullmatch(error.message or "HTTP 503"))
    if not claimed:
        return None
    limit = evidence.summary.limits.get("limit_concurrency")
    workers = evidence.workers or 1
    room = room_per_worker(evidence.needed, workers, evidence.split)
    words = _first_words(claimed)
    return evidence.refusal("limit_concurrency", claimed, words=words, limit=limit, workers=workers, room=room)


def _first_words(errors: Sequence[ErrorCount]) -> str:
    """Return what the first of these failures was answered, else its status."""
    message = next((error.message for error in errors if error.message), None)
    return (message or f"HTTP {errors[0].code}").strip()


def lost_host(evidence: Evidence) -> Refusal | None:
    """A host behind the proxy died or stopped answering, and its sessions with it."""
    summary = evidence.summary
    incidents = [incident for incident in summary.proxy.mishaps if incident.kind != "back"] if summary.proxy else []
    if summary.proxy is None or not incidents:
        return None
    unknown = summary.failed - sum(summary.failed_hosts.values())
    if not unknown and not any(incident.host in summary.failed_hosts for incident in incidents):
        return None
    claimed = evidence.claim(lambda error: error.type in BROKEN_OFF or error.code in ("502", "503", "504"))
    if not claimed:
        return None
    refusal = evidence.refusal("host_lost", claimed, proxy=summary.proxy.name)
    return replace(refusal, incidents=tuple(incidents))


def circuit_breaker(evidence: Evidence) -> Refusal | None:
    """The proxy's circuit breakers, by its own counters; a handshake that waits for a connection times out."""
    summary = evidence.summary
    if summary.proxy is None or not summary.proxy.overflows:
        return None
    claimed = evidence.claim(
        lambda error: error.code in ("503", "504") or (error.phase == "connect" and error.type == "timeout")
    )
    if not claimed:
        return None
    return evidence.refusal(
        "proxy",
        claimed,
        proxy=summary.proxy.name,
        held=summary.held,
        is_key_of_target=summary.cell.target.startswith("envoy"),
        words=", ".join(f"{name} {count:,}" for name, count in summary.proxy.overflows.items()),
    )


ENVOY_DEFAULT = 1024
"""Envoy's circuit breakers open at exactly this many connections and requests unless they are raised."""


_BREAKER_WORDS = re.compile(r"reset reason: overflow|\boverflow\b.*\bupstream|upstream.*\boverflow\b", re.IGNORECASE)
_NO_WORDS = re.compile(r"HTTP 50[34][^:]*(: upstream request timeout)?", re.IGNORECASE | re.DOTALL)


def by_proxy(evidence: Evidence) -> Refusal | None:
    """Envoy's circuit breakers: its own word "overflow", or 503 and 504 at exactly its default number of connections.

    A server behind it answers in words of its own, and may do so at any number of sessions; Envoy's other answers (no
    healthy upstream, a connection that failed) are of no breaker.
    """
    summary = evidence.summary
    at_default = summary.held == ENVOY_DEFAULT
    if summary.proxy is not None:
        return None  # Its breakers are known to have refused nothing.

    def by_breaker(error: ErrorCount) -> bool:
        message = error.message or ""
        by_default = at_default and not _by_server(error) and (not message or _NO_WORDS.fullmatch(message) is not None)
        return error.code in ("503", "504") and (by_default or _BREAKER_WORDS.search(message) is not None)

    claimed = evidence.claim(by_breaker)
    if not claimed:
        return None
    codes = " and ".join(sorted({str(error.code) for error in claimed}))
    words = _first_words(claimed)
    return evidence.refusal("proxy", claimed, held=summary.held, codes=codes, at_default=at_default, words=words)


def by_status(evidence: Evidence) -> Iterator[Refusal]:
    """Every other status of the opening handshake."""
    claimed = evidence.claim(lambda error: error.type == "handshake_status")
    for code in sorted({error.code or "" for error in claimed}):
        errors = [error for error in claimed if (error.code or "") == code]
        status = int(code) if code.isdecimal() else 0
        cause = "redirect" if 300 <= status < 400 else f"http_{code}" if code else "http"
        yield evidence.refusal(cause, errors, status=status, words=_first_words(errors))


_TURNED_AWAY = frozenset({"connection_reset", "closed_early", "refused"})
_NO_SERVER = frozenset({"502", "503", "504"})
_NOT_SERVED = frozenset({"403", "404", "405"})
_FROM_SERVER = re.compile(r"\bfrom (uvicorn|hypercorn|granian|daphne|gunicorn|python/)", re.IGNORECASE)
"""The Server header of what runs in a Space, which its proxy passes on: such an answer is not the platform's."""


def space_stopped(evidence: Evidence) -> Refusal | None:
    """A Space that left its stage RUNNING while it was measured: asleep, paused, restarted; or its server died."""
    status = evidence.summary.server_exit
    if status is None or status.kind != "stage":
        return None
    claimed = evidence.claim(
        lambda error: error.type in (*_TURNED_AWAY, "timeout") or error.code in (_NO_SERVER | _NOT_SERVED)
    )
    cause = "server_died" if status.stage == "RUNTIME_ERROR" else "platform_stage"
    return replace(evidence.refusal(cause, claimed), exit=status)


def by_space(evidence: Evidence) -> Iterator[Refusal]:
    """What a Space's platform does to clients, where the evidence says that it was not the server."""
    if not evidence.is_space:
        return
    for rule in (_rate_limit, _connection_limit, _http_not_served):
        if (refusal := rule(evidence)) is not None:
            yield refusal


def _rate_limit(evidence: Evidence) -> Refusal | None:
    """429: no OpenEnv server answers that."""
    claimed = evidence.claim(lambda error: error.code == "429" and not _by_server(error))
    if not claimed:
        return None
    return evidence.refusal("platform_rate", claimed, held=evidence.summary.held, words=_first_words(claimed))


def _connection_limit(evidence: Evidence) -> Refusal | None:
    """Handshakes turned away while others were held, by something that named no limit of the server's."""
    held = evidence.summary.held
    if not held:
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
    ways = sorted(
        {
            f"HTTP {error.code}" if error.type == "handshake_status" else str(error.type).replace("_", " ")
            for error in claimed
        }
    )
    return evidence.refusal("platform_connections", claimed, held=held, slots=_slots(evidence), words=", ".join(ways))


def _http_not_served(evidence: Evidence) -> Refusal | None:
    """HTTP mode where nothing serves the endpoints it needs."""
    if evidence.summary.cell.mode != "http" or evidence.summary.successful:
        return None
    claimed = evidence.claim(lambda error: error.code in _NOT_SERVED)
    if not claimed:
        return None
    return evidence.refusal("http_unreachable", claimed, status=claimed[0].code)


def _by_server(error: ErrorCount) -> bool:
    return _FROM_SERVER.search(error.message or "") is not None


def _slots(evidence: Evidence) -> int | None:
    """Return how many sessions the server was set to hold; None where that is not known."""
    each, workers = evidence.summary.limits.get("max_envs"), evidence.workers
    return int(each) * workers if workers is not None and each is not None and str(each).isdecimal() else None


def name_refusals(
    summaries: Sequence[CellSummary], *, needed: int | None = None, batches: Collection[int] = ()
) -> tuple[Refusal, ...]:
    """Name what refused sessions, one refusal per cause, each told of the smallest batch where it happened.

    Errors of the environment are told apart by their code and phase: it is not made, not reset, or does not step.

    `batches` are those that did not pass: what is named is theirs, and not of one that passed although a few sessions
    failed; where all passed, it is that of any. `needed` is how many sessions the server should hold (a `max_batch`
    limit); remedies are sized to it, or to the batch that was refused if that is larger.
    """
    refusals: dict[tuple[object, ...], Refusal] = {}
    split = _largest_split(summaries)
    named = [summary for summary in summaries if not batches or summary.batch in batches]
    for summary in sorted(named, key=lambda item: (item.batch, -item.failed)):
        for refusal in _apply_rules(Evidence(summary, max(needed or 0, summary.batch), split)):
            named_apart = refusal.cause == "environment"
            kind = (refusal.figures.get("code"), refusal.figures.get("phase")) if named_apart else ()
            refusals.setdefault((refusal.cause, *kind), _with_remedy(refusal, summary))
    return tuple(refusals.values())


_OF_SESSIONS = ("capacity", "one_session", "environment", "unnamed")
"""Causes that may follow from what sessions share."""


def _with_remedy(refusal: Refusal, summary: CellSummary) -> Refusal:
    """Return the refusal with the settings to change, and with the object that all sessions share, if there is one."""
    settings = summary.session_settings
    shared = settings.shared if settings is not None and refusal.cause in _OF_SESSIONS else None
    figures = {**refusal.figures, "shared": shared} if shared else refusal.figures
    return replace(refusal, figures=figures, steps=remedy_steps(refusal, summary))


def _largest_split(summaries: Sequence[CellSummary]) -> Split | None:
    let_in = [summary for summary in summaries if not summary.failed]
    splits = [split_seen(summary, workers=Evidence(summary, summary.batch).workers) for summary in let_in]
    return max(filter(None, splits), key=lambda split: (split.total, split.busiest), default=None)


def _apply_rules(evidence: Evidence) -> Iterator[Refusal]:
    """Apply the rules in order: what the server names itself comes first, what nobody names last."""
    rules: tuple[Callable[[Evidence], Refusal | None], ...] = (
        sessions_per_worker,
        connections_per_worker,
        lost_host,
        circuit_breaker,
        space_stopped,
        _server_died,
        _out_of_descriptors,
        _worker_killed,
        _restarted,
    )
    for rule in rules:
        if (refusal := rule(evidence)) is not None:
            yield refusal
    yield from by_space(evidence)
    if (refusal := by_proxy(evidence)) is not None:
        yield refusal
    yield from by_status(evidence)
    yield from _by_close(evidence)
    yield from _environment(evidence)
    for rule in (_not_listening, _cut_off, _unnamed):
        if (refusal := rule(evidence)) is not None:
            yield refusal


def _broken_off(error: ErrorCount) -> bool:
    return error.type in BROKEN_OFF


def _server_died(evidence: Evidence) -> Refusal | None:
    status = evidence.summary.server_exit
    if status is None or status.kind == "stage":
        return None
    claimed = evidence.claim(_broken_off)
    if not claimed and evidence.summary.proxy is not None:
        return None  # One of several hosts, and told as such.
    return replace(evidence.refusal("server_died", claimed), exit=status)


def _out_of_descriptors(evidence: Evidence) -> Refusal | None:
    """The server's process may open no more files: its log says so, or a sample was at the limit."""
    logged = evidence.search_log(r"too many open files|EMFILE|out of system resource")
    in_message = evidence.any_message_matches("too many open files|EMFILE")
    peak = evidence.summary.server.peak
    used, limit = (peak.descriptors, peak.descriptor_limit) if peak else (None, None)
    exhausted = used is not None and limit is not None and used >= limit - 1
    if not (logged or in_message or exhausted):
        return None
    claimed = evidence.claim(
        lambda error: (
            _broken_off(error)
            or (error.code in ("500", "503") and not _by_server(error))
            or "open files" in (error.message or "").lower()
        )
    )
    if not claimed and not logged:
        return None
    return evidence.refusal("descriptors", claimed, used=used, limit=limit, words=logged[0] if logged else None)


def _cut(error: ErrorCount) -> bool:
    """Whether the connection of a session that was in went away without a close frame."""
    without_close = error.type == "closed_early" and error.code in (None, NO_CLOSE_FRAME)
    return error.phase != "connect" and (without_close or error.type == "connection_reset")


def _worker_killed(evidence: Evidence) -> Refusal | None:
    """One process of several ended and took all its sessions with it: its supervisor says so, or it is seen to be gone.

    All sessions of a process are cut as well by a proxy that cuts all there are, or that has them on one connection.
    """
    summary = evidence.summary
    others_went_on = bool(summary.pids)
    lost = [worker for worker in _gone(summary) if others_went_on]
    died = evidence.search_log(r"child process \[\d+\] died")
    if not lost and not died:
        return None
    claimed = evidence.claim(_cut)
    if not claimed:
        return None
    out_of_memory = evidence.search_log(r"the container was out of memory [^\n]*")
    quoted = out_of_memory or died
    return evidence.refusal(
        "worker_killed",
        claimed,
        pid=lost[0].pid if lost else None,
        sessions=lost[0].sessions if lost else None,
        workers=len(lost),
        out_of_memory=out_of_memory is not None,
        supervised=died is not None or evidence.is_uvicorn,
        words=quoted[0] if quoted else None,
    )


def _gone(summary: CellSummary) -> list[LostWorker]:
    """Return the processes that lost all their sessions and run no more, as far as that can be seen from here."""
    return [worker for worker in summary.lost_workers if worker.pid in (summary.ended_pids or ())]


def _restarted(evidence: Evidence) -> Refusal | None:
    """The server was started again: it said so (1012), its process was replaced, or all that answered are gone."""
    summary = evidence.summary
    gone = _gone(summary)
    ended = bool(gone) or summary.listens_again
    claimed = evidence.claim(
        lambda error: _closed_with(error) == SERVICE_RESTART or (ended and (_cut(error) or error.type == "refused"))
    )
    if not claimed:
        return None
    says_so = any(error.code == SERVICE_RESTART for error in claimed)
    return evidence.refusal(
        "restarted",
        claimed,
        words=next((error.message for error in claimed if error.message), None),
        pid=gone[0].pid if gone else None,
        code=int(SERVICE_RESTART) if says_so else None,
        listens_again=summary.listens_again,
    )


def _closed_with(error: ErrorCount) -> str | None:
    """Return the code of the server's close frame; None where none came."""
    return error.code if error.type == "closed_early" and error.code != NO_CLOSE_FRAME else None


def _by_close(evidence: Evidence) -> Iterator[Refusal]:
    """Sessions that the server closed with a close frame, by its code."""
    claimed = evidence.claim(lambda error: _closed_with(error) is not None)
    for code in sorted({error.code or "" for error in claimed}):
        errors = [error for error in claimed if error.code == code]
        words = next((error.message for error in errors if error.message), None)
        yield evidence.refusal(
            f"closed_{code}",
            errors,
            words=words,
            code=int(code) if code.isdecimal() else None,
            phase=errors[0].phase,
            held=evidence.summary.peak_concurrency,
        )


def _cut_off(evidence: Evidence) -> Refusal | None:
    """Sessions that were in, and whose connection went away: the server did it, or something in front of it."""
    claimed = evidence.claim(_cut)
    if not claimed:
        return None
    summary = evidence.summary
    lost = summary.lost_workers[0] if summary.lost_workers else None
    return evidence.refusal(
        "cut",
        claimed,
        words=next((error.message for error in claimed if error.message), None),
        phase=claimed[0].phase,
        pid=lost and lost.pid,
        sessions=lost and lost.sessions,
        others=bool(summary.pids),
        lives=lost is not None and summary.ended_pids is not None and lost.pid not in summary.ended_pids,
    )


def _not_listening(evidence: Evidence) -> Refusal | None:
    claimed = evidence.claim(lambda error: error.type == "refused")
    if not claimed:
        return None
    summary = evidence.summary
    return evidence.refusal(
        "not_listening",
        claimed,
        words=claimed[0].message,
        code=claimed[0].code,
        successful=summary.successful,
        held=summary.peak_concurrency,
    )


def _environment(evidence: Evidence) -> Iterator[Refusal]:
    """The environment answered with an error of its own: it was not made, not reset, or did not step."""
    kinds: dict[tuple[str | None, str | None], list[ErrorCount]] = {}
    for error in evidence.claim(lambda error: error.type == "environment"):
        kinds.setdefault((error.phase, error.code if error.code in _ENVIRONMENT_CODES else None), []).append(error)
    for errors in kinds.values():
        first = errors[0]
        yield evidence.refusal("environment", errors, code=first.code, phase=first.phase, words=first.message)


_ENVIRONMENT_CODES = frozenset({"FACTORY_ERROR", "VALIDATION_ERROR", "EXECUTION_ERROR", "400", "422", "500"})
"""The codes that say what failed; servers may make up any others."""


def _unnamed(evidence: Evidence) -> Refusal | None:
    """Failures whose cause nothing tells: counted, not explained."""
    claimed = evidence.claim(lambda error: True)
    if not claimed:
        return None
    message = next((error.message for error in claimed if error.message), None)
    silent = any(error.type == "timeout" for error in claimed)
    return replace(evidence.refusal("unnamed", claimed, silent=silent, words=message), errors=tuple(claimed[:4]))
