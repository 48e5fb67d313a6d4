"""What held sessions tell: whether they fit, whether slots come back, and what refused those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.metrics.percentiles import phase_stats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, ErrorCount, Refusal
from pytest_openenv_scale.verdict.refusals import name_refusals

from .hold import BACK_S, HoldResult, OpenFailure, SlotsReturned

_LATE_SHARE = 0.5
"""A reset that took this share of the patience was late: those that got no answer may just have been behind it."""

Figures = dict[str, float | int | str | bool | None]


def second_session(found: HoldResult) -> CheckResult:
    """Say whether the server takes a second session while it holds one."""
    figures: Figures = {"held": found.held, "limit": found.limit}
    said = found.beyond or next((failure.answer for failure in found.refused), None)
    if found.held > 1 or (found.beyond is not None and found.beyond.good):
        return CheckResult(CheckOutcome.MET, "a second session is accepted beside the first", figures=figures)
    if found.held == 0 or said is None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"no session is let in any more: {said}", figures=figures)
    return CheckResult(CheckOutcome.MISSED, f"the second session is refused: {said}", figures=figures)


def fits(found: HoldResult, endpoint: Endpoint) -> CheckResult:
    """Say whether as many sessions as were asked for are held and step at once, and what refused the rest."""
    wanted = formatting.count_of(found.asked, "session")
    figures = _figures(found)
    shown = (found.shown,) if found.shown else ()
    by_client = [failure for failure in found.failures if failure.by_client]
    stepped = len(found.step_s)
    if min(stepped, found.asked) == found.asked:
        verb = "fits" if found.asked == 1 else "fit"
        more = ", and no more" if found.full else ""
        return CheckResult(CheckOutcome.MET, f"{wanted} {verb}{more}: {_latencies(found)}", figures=figures)
    if by_client:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"this machine opened only {found.held:,} of {wanted}: {by_client[0].answer}",
            "raise `ulimit -n` where openenv-scale runs, or ask for fewer --sessions",
            figures=figures,
        )
    text, remedy = _why(found, endpoint)
    details = [_latencies(found)] if found.held else []
    if found.others and found.limit is not None:
        details.insert(
            0,
            f"the server counts {found.limit:,} as active, {found.others:,} more than are held here: "
            "other clients', or slots that leaked",
        )
        if found.limit >= found.asked:
            remedy = "end the other clients; slots that nobody holds come back with a restart only"
    if found.untried:
        details.append(f"{found.untried:,} were not tried, as the server had gone silent")
    count = min(stepped, found.held, found.asked)
    return CheckResult(
        CheckOutcome.MISSED, f"{count:,} of {wanted} fit: {text}", remedy, tuple(details), figures, transcripts=shown
    )


def _why(found: HoldResult, endpoint: Endpoint) -> tuple[str, str]:
    """Return what kept sessions from being held, and what to do about it."""
    kinds = {(failure.phase, failure.answer.kind) for failure in found.failures}
    late = max(found.reset_s, default=0.0) >= _LATE_SHARE * found.patience_s
    if kinds == {("reset", "silence")} and not late:
        return (
            f"the next ones are neither let in nor refused ({found.failures[0].answer})",
            f"raise the limit to {found.asked:,} sessions, and let the server refuse at once what does not fit, as "
            "OpenEnv does (CAPACITY_REACHED)",
        )
    causes = refusals(endpoint, found)
    return "; ".join(cause.text for cause in causes), "; ".join(dict.fromkeys(cause.remedy for cause in causes))


def slots_back(found: HoldResult) -> CheckResult:
    """Say whether the slots of closed sessions, and of one that was dropped, could be used again, and how soon."""
    closed, dropped = found.closed, found.dropped
    if closed is None:
        return CheckResult(CheckOutcome.SKIPPED, "no session was held whose slot could come back")
    figures: Figures = {
        "closed": closed.given_up,
        "closed_back": closed.back,
        "closed_back_s": closed.took_s,
        "dropped_back": None if dropped is None else dropped.back,
        "dropped_back_s": None if dropped is None else dropped.took_s,
    }
    lost = [
        f"{_lost(back)} after {how}"
        for back, how in ((closed, "all were closed"), (dropped, "one was dropped without goodbye"))
        if back is not None and back.back < back.given_up
    ]
    if lost:
        return CheckResult(
            CheckOutcome.MISSED,
            f"{' and '.join(lost)}",
            "give the slot back however a session ends, in a finally; see that the environment's close() returns and "
            "raises nothing (the server's log tells)",
            figures=figures,
        )
    sessions = formatting.count_of(closed.given_up, "session")
    said = f"{sessions} closed and as many new ones in after {formatting.seconds(closed.took_s)}"
    if dropped is not None:
        said += f"; one dropped without goodbye made room after {formatting.seconds(dropped.took_s)}"
    elif found.limit is None and not found.refused:
        said += " (its limit was not reached)"
    return CheckResult(CheckOutcome.MET, said, figures=figures)


def _lost(back: SlotsReturned) -> str:
    if back.given_up == 1:
        return f"no slot came back within {BACK_S:g} s"
    return f"only {back.back:,} of {back.given_up:,} slots came back within {BACK_S:g} s"


def _latencies(found: HoldResult) -> str:
    phases = (("connect", found.connect_s), ("reset", found.reset_s), ("step", found.step_s))
    told = [f"{name} {formatting.seconds_pair(*_p50_p99(values))}" for name, values in phases if values]
    return f"opened in {formatting.seconds(found.opened_s)}, all stepping at once; p50 / p99: {', '.join(told)}"


def _figures(found: HoldResult) -> Figures:
    figures: Figures = {
        "asked": found.asked,
        "held": found.held,
        "stepped": len(found.step_s),
        "refused": len(found.refused),
        "untried": found.untried,
        "limit": found.limit,
        "others": found.others,
        "pids": found.pids,
        "opened_s": found.opened_s,
    }
    for name, values in (("connect", found.connect_s), ("reset", found.reset_s), ("step", found.step_s)):
        figures[f"{name}_p50_s"], figures[f"{name}_p99_s"] = _p50_p99(values)
    return figures


def _p50_p99(values: Sequence[float]) -> tuple[float | None, float | None]:
    stats = phase_stats(pa.array(values, pa.float64()))
    return (stats.p50, stats.p99) if stats else (None, None)


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


def refusals(endpoint: Endpoint, found: HoldResult) -> tuple[Refusal, ...]:
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


def _counted(failures: Sequence[OpenFailure]) -> tuple[ErrorCount, ...]:
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
