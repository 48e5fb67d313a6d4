"""Judging held sessions: whether they fit, whether slots come back, and what refused those that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.checks.subject import Figures
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.metrics.percentiles import phase_stats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.refusals import refusal_words
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, ErrorCount, Refusal
from pytest_openenv_scale.verdict.refusals import name_refusals

from .hold import SLOT_RETURN_S, HoldResult, OpenFailure, SlotsReturned

_LATE_SHARE = 0.5
"""Where a reset took this share of the timeout, those without an answer may just have been queued behind it."""


def second_session(result: HoldResult) -> CheckResult:
    """Judge whether the server takes a second session while it holds one."""
    figures: Figures = {"held": result.held, "limit": result.limit}
    answer = result.extra_answer or next((failure.answer for failure in result.refused), None)
    if result.held > 1 or (result.extra_answer is not None and result.extra_answer.good):
        return CheckResult(CheckOutcome.MET, "a second session is accepted beside the first", figures=figures)
    if result.held == 0 or answer is None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"no session is let in any more: {answer}", figures=figures)
    return CheckResult(CheckOutcome.MISSED, f"the second session is refused: {answer}", figures=figures)


def sessions_fit(result: HoldResult, endpoint: Endpoint) -> CheckResult:
    """Judge whether all requested sessions are held and step at once; else name what refused the rest."""
    requested = formatting.count_of(result.requested, "session")
    figures = _figures(result)
    transcripts = (result.refused_transcript,) if result.refused_transcript else ()
    client_limited = [failure for failure in result.failures if failure.client_limited]
    stepped = len(result.step_s)
    if min(stepped, result.requested) == result.requested:
        verb = "fits" if result.requested == 1 else "fit"
        more = ", and no more" if result.full else ""
        return CheckResult(CheckOutcome.MET, f"{requested} {verb}{more}: {_latency_text(result)}", figures=figures)
    if client_limited:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"this machine opened only {result.held:,} of {requested}: {client_limited[0].answer}",
            "raise `ulimit -n` where openenv-scale runs, or ask for fewer --sessions",
            figures=figures,
        )
    text, remedy = _cause_and_remedy(result, endpoint)
    details = [_latency_text(result)] if result.held else []
    if result.taken_by_others and result.limit is not None:
        details.insert(
            0,
            f"the server counts {result.limit:,} as active, {result.taken_by_others:,} more than are held here: "
            "other clients', or slots that leaked",
        )
        if result.limit >= result.requested:
            remedy = "end the other clients; slots that nobody holds come back with a restart only"
    if result.untried:
        details.append(f"{result.untried:,} were not tried, as the server had gone silent")
    count = min(stepped, result.held, result.requested)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{count:,} of {requested} fit: {text}",
        remedy,
        tuple(details),
        figures,
        transcripts=transcripts,
    )


def _cause_and_remedy(result: HoldResult, endpoint: Endpoint) -> tuple[str, str]:
    """Return what kept sessions from being held, and the remedy."""
    kinds = {(failure.phase, failure.answer.kind) for failure in result.failures}
    late = max(result.reset_s, default=0.0) >= _LATE_SHARE * result.patience_s
    if kinds == {("reset", "silence")} and not late:
        return (
            f"the next ones are neither let in nor refused ({result.failures[0].answer})",
            f"raise the limit to {result.requested:,} sessions, and let the server refuse at once what does not fit, "
            "as OpenEnv does (CAPACITY_REACHED)",
        )
    causes = refusals(endpoint, result)
    words = [refusal_words(cause) for cause in causes]
    return "; ".join(text for text, _ in words), "; ".join(dict.fromkeys(remedy for _, remedy in words))


def slots_returned(result: HoldResult) -> CheckResult:
    """Judge whether the slots of closed sessions, and of one that was dropped, could be used again, and how soon."""
    closed, dropped = result.closed, result.dropped
    if closed is None:
        return CheckResult(CheckOutcome.SKIPPED, "no session was held whose slot could come back")
    figures: Figures = {
        "closed": closed.released,
        "closed_back": closed.returned,
        "closed_back_s": closed.took_s,
        "dropped_back": None if dropped is None else dropped.returned,
        "dropped_back_s": None if dropped is None else dropped.took_s,
    }
    lost = [
        f"{_lost_slots_text(returned)} after {ending}"
        for returned, ending in ((closed, "all were closed"), (dropped, "one was dropped without goodbye"))
        if returned is not None and returned.returned < returned.released
    ]
    if lost:
        return CheckResult(
            CheckOutcome.MISSED,
            f"{' and '.join(lost)}",
            "give the slot back however a session ends, in a finally; see that the environment's close() returns and "
            "raises nothing (the server's log tells)",
            figures=figures,
        )
    sessions = formatting.count_of(closed.released, "session")
    headline = f"{sessions} closed and as many new ones in after {formatting.seconds(closed.took_s)}"
    if dropped is not None:
        headline += f"; one dropped without goodbye made room after {formatting.seconds(dropped.took_s)}"
    elif result.limit is None and not result.refused:
        headline += " (its limit was not reached)"
    return CheckResult(CheckOutcome.MET, headline, figures=figures)


def _lost_slots_text(slots: SlotsReturned) -> str:
    if slots.released == 1:
        return f"no slot came back within {SLOT_RETURN_S:g} s"
    return f"only {slots.returned:,} of {slots.released:,} slots came back within {SLOT_RETURN_S:g} s"


def _latency_text(result: HoldResult) -> str:
    phases = (("connect", result.connect_s), ("reset", result.reset_s), ("step", result.step_s))
    parts = [f"{name} {formatting.seconds_pair(*_p50_p99(values))}" for name, values in phases if values]
    return f"opened in {formatting.seconds(result.opened_s)}, all stepping at once; p50 / p99: {', '.join(parts)}"


def _figures(result: HoldResult) -> Figures:
    figures: Figures = {
        "asked": result.requested,
        "held": result.held,
        "stepped": len(result.step_s),
        "refused": len(result.refused),
        "untried": result.untried,
        "limit": result.limit,
        "others": result.taken_by_others,
        "pids": result.pids,
        "opened_s": result.opened_s,
    }
    for name, values in (("connect", result.connect_s), ("reset", result.reset_s), ("step", result.step_s)):
        figures[f"{name}_p50_s"], figures[f"{name}_p99_s"] = _p50_p99(values)
    return figures


def _p50_p99(values: Sequence[float]) -> tuple[float | None, float | None]:
    stats = phase_stats(pa.array(values, pa.float64()))
    return (stats.p50, stats.p99) if stats else (None, None)


_LOG_LINES = 200
_BY_ERRNO = {
    "ECONNREFUSED": "refused",
    "EHOSTUNREACH": "refused",
    "ENETUNREACH": "refused",
    "ECONNRESET": "connection_reset",
    "EPIPE": "connection_reset",
    "ETIMEDOUT": "timeout",
}


def refusals(endpoint: Endpoint, result: HoldResult) -> tuple[Refusal, ...]:
    """Name what kept sessions from being held, with remedies for the number of sessions requested."""
    failures = [failure for failure in result.failures if not failure.client_limited]
    stepped = len(result.step_s)
    summary = CellSummary(
        run_id="",
        sweep_id="",
        cell=Cell(
            test="check",
            target=endpoint.target,
            infrastructure=endpoint.label,
            mode="ws",
            wait=None,
            batch=result.requested,
            steps=1,
            arrival="hold",
        ),
        repetition=1,
        asked=result.requested,
        successful=stepped,
        failed=len(failures),
        client_limited=len(result.failures) - len(failures),
        success_rate=stepped / (stepped + len(failures)) if stepped or failures else None,
        wall_s=result.opened_s,
        started_at=datetime.now(UTC),
        phases={},
        requests_per_second=None,
        effective_concurrency=None,
        peak_concurrency=result.held,
        pids=result.pids,
        errors=_error_counts(failures),
        server_exit=endpoint.exit_status(),
        log_tail=endpoint.log_tail(_LOG_LINES),
        limits=endpoint.limits,
    )
    causes = name_refusals([summary], needed=result.requested)
    if result.cut_short or all(failure.answer.kind != "silence" for failure in failures):
        return causes
    # The patience was shorter than the timeout the user set: raising that would not have helped.
    return tuple(
        replace(cause, figures={**cause.figures, "patience_ended": True}) if cause.cause == "unnamed" else cause
        for cause in causes
    )


def _error_counts(failures: Sequence[OpenFailure]) -> tuple[ErrorCount, ...]:
    counts = Counter((failure.phase, _error_type(failure.answer), failure.answer.code) for failure in failures)
    first_messages = {
        (failure.phase, _error_type(failure.answer), failure.answer.code): failure.answer.message
        for failure in reversed(failures)
    }
    return tuple(ErrorCount(*key, count, first_messages[key]) for key, count in counts.most_common())


def _error_type(answer: Answer) -> str:
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
