"""What refused the sessions of a check, in the words of a sweep's verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pytest_openenv_scale.core.counting import ErrorCount
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.outcome import Refusal
from pytest_openenv_scale.core.plan import Cell
from pytest_openenv_scale.core.refusals import name_refusals
from pytest_openenv_scale.core.summary import CellSummary

from .answer import Answer
from .holding import Failure, Held

_LOG_LINES = 200
_BUSY = "see the server's log; one that is busy answers late: more workers or cores"
"""The remedy for silence that a longer timeout would not have ended: no answer was waited for as long as that."""

_BY_ERRNO = {
    "ECONNREFUSED": "refused",
    "EHOSTUNREACH": "refused",
    "ENETUNREACH": "refused",
    "ECONNRESET": "connection_reset",
    "EPIPE": "connection_reset",
    "ETIMEDOUT": "timeout",
}


def refusals(endpoint: Endpoint, found: Held) -> tuple[Refusal, ...]:
    """Name what kept sessions from being held, the remedy sized to those that were asked for."""
    failures = [failure for failure in found.failures if not failure.by_client]
    stepped = len(found.step_s)
    summary = CellSummary(
        run_id="",
        sweep_id="",
        cell=Cell("check", endpoint.target, endpoint.label, "ws", None, found.asked, 1, "hold"),
        repetition=1,
        asked=found.asked,
        successful=stepped,
        failed=len(failures),
        client_limited=len(found.failures) - len(failures),
        success_rate=stepped / (stepped + len(failures)) if stepped or failures else None,
        wall_s=found.opened_s,
        started_at=datetime.now(UTC),
        phases={},
        requests_per_second=None,
        effective_concurrency=None,
        peak_concurrency=found.held,
        pids=found.pids,
        errors=_counted(failures),
        server_exit=endpoint.exit_status(),
        log_tail=endpoint.log_tail(_LOG_LINES),
        limits=endpoint.limits,
    )
    causes = name_refusals([summary], needed=found.asked)
    if found.cut_short or all(failure.answer.kind != "silence" for failure in failures):
        return causes
    return tuple(replace(cause, remedy=_BUSY) if cause.cause == "unnamed" else cause for cause in causes)


def _counted(failures: Sequence[Failure]) -> tuple[ErrorCount, ...]:
    ways = Counter((failure.phase, _type(failure.answer), failure.answer.code) for failure in failures)
    first = {
        (failure.phase, _type(failure.answer), failure.answer.code): failure.answer.message
        for failure in reversed(failures)
    }
    return tuple(ErrorCount(*way, count, first[way]) for way, count in ways.most_common())


def _type(answer: Answer) -> str:
    """Return the `error_type` a row has for this answer."""
    match answer.kind:
        case "error":
            return "capacity" if answer.code == "CAPACITY_REACHED" else "environment"
        case "silence":
            return "timeout"
        case "closed":
            return "closed_early"
        case "lost" if (answer.code or "").isdecimal():
            return "handshake_status"
        case "lost":
            return _BY_ERRNO.get(answer.code or "", "protocol" if answer.code else "closed_early")
        case _:
            return "protocol"
