"""Judging held sessions: whether they fit, whether slots come back, and what refused those that do not fit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pytest_openenv_scale.checks.subject import Figures
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.metrics.summary import CellSummary, summarise
from pytest_openenv_scale.reporting.content.refusals import refusal_words
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Step
from pytest_openenv_scale.results.parts import rows_to_table
from pytest_openenv_scale.verdict.refusals import name_refusals

from .hold import SLOT_RETURN_S, HoldResult, SlotsReturned

_LATE_SHARE = 0.5
"""Where a reset took this share of the timeout, those without an answer may just have been queued behind it."""


def second_session(result: HoldResult) -> CheckResult:
    """Judge whether the server takes a second session while it holds one."""
    figures: Figures = {"held": result.held, "limit": result.limit}
    answer = result.extra_answer or next((session.last_answer for session in result.refused), None)
    if result.held > 1 or (result.extra_answer is not None and result.extra_answer.good):
        return CheckResult(CheckOutcome.MET, "a second session is accepted beside the first", figures=figures)
    if result.held == 0 or answer is None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"no session is let in any more: {answer}", figures=figures)
    verb = "is refused" if answer.error_type in ("capacity", "handshake_status") else "does not get in"
    return CheckResult(CheckOutcome.MISSED, f"the second session {verb}: {answer}", figures=figures)


def sessions_fit(result: HoldResult, endpoint: Endpoint) -> CheckResult:
    """Judge whether all requested sessions are held and step at once; else name what refused the rest."""
    requested = formatting.count_of(result.requested, "session")
    summary = summarise_held(endpoint, result)
    figures = _figures(result, summary)
    client_limited = [session.last_answer for session in result.failures if session.last_answer.client_limited]
    if result.fitting == result.requested:
        verb = "fits" if result.requested == 1 else "fit"
        more = ", and no more" if result.full else ""
        headline = f"{requested} {verb}{more}: {_latency_text(result, summary)}"
        return CheckResult(CheckOutcome.MET, headline, figures=figures)
    if client_limited:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"this machine opened only {result.held:,} of {requested}: {client_limited[0]}",
            "raise `ulimit -n` where openenv-scale runs, or ask for fewer --sessions",
            figures=figures,
        )
    text, remedy, steps = _cause_and_remedy(result, summary)
    details = [_latency_text(result, summary)] if result.held else []
    if result.taken_by_others and result.limit is not None:
        details.insert(
            0,
            f"the server counts {result.limit:,} as active, {result.taken_by_others:,} more than are held here: "
            "other clients', or slots that leaked",
        )
        if result.limit >= result.requested:
            remedy, steps = "end the other clients; slots that nobody holds come back with a restart only", ()
    if result.untried:
        details.append(f"{result.untried:,} were not tried, as the server had gone silent")
    return CheckResult(
        CheckOutcome.MISSED,
        f"{_fit_words(result)}: {text}",
        remedy,
        tuple(details),
        figures,
        transcripts=(result.refused_transcript,) if result.refused_transcript else (),
        steps=steps,
    )


def _fit_words(result: HoldResult) -> str:
    """Return how many sessions were let in, which is how many fit, and how many of them did not step."""
    requested, let_in = formatting.count_of(result.requested, "session"), min(result.held, result.requested)
    silent = result.held - result.fitting
    if let_in == result.requested:
        return f"{requested} {'fits' if let_in == 1 else 'fit'}, but {silent:,} did not step"
    return f"{let_in:,} of {requested} fit" + (f", and {silent:,} of them did not step" if silent else "")


def _cause_and_remedy(result: HoldResult, summary: CellSummary) -> tuple[str, str, tuple[Step, ...]]:
    """Return what kept sessions from being held, and the remedy, with its steps, for the number of those requested."""
    answers = [session.last_answer for session in result.failures]
    resets = [session.reset.latency_s or 0.0 for session in result.sessions if session.held and session.reset]
    late = max(resets, default=0.0) >= _LATE_SHARE * result.patience_s
    silent_resets = all(s.last_phase == "reset" and s.last_answer.kind == "silence" for s in result.failures)
    if silent_resets and not late:
        return (
            f"the next ones are neither let in nor refused ({answers[0]})",
            f"raise the limit to {result.requested:,} sessions, and let the server refuse at once what does not fit, "
            "as OpenEnv does (CAPACITY_REACHED)",
            (),
        )
    causes = name_refusals([summary], needed=result.requested)
    if not result.cut_short and any(answer.kind == "silence" for answer in answers):
        # The patience was shorter than the timeout the user set: raising that would not have helped.
        causes = [
            replace(cause, figures={**cause.figures, "patience_ended": True}) if cause.cause == "unnamed" else cause
            for cause in causes
        ]
    words = [refusal_words(cause) for cause in causes]
    steps = tuple(step for cause in causes for step in cause.steps)
    return "; ".join(text for text, _ in words), "; ".join(dict.fromkeys(remedy for _, remedy in words)), steps


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
    headline = f"{sessions} closed, {closed.returned:,} new in after {formatting.seconds(closed.took_s)}"
    if dropped is not None:
        headline += f"; one dropped without goodbye made room after {formatting.seconds(dropped.took_s)}"
    elif result.limit is None and not result.refused:
        headline += " (its limit was not reached)"
    return CheckResult(CheckOutcome.MET, headline, figures=figures)


def _lost_slots_text(slots: SlotsReturned) -> str:
    if slots.released == 1:
        return f"no slot came back within {SLOT_RETURN_S:g} s"
    return f"only {slots.returned:,} of {slots.released:,} slots came back within {SLOT_RETURN_S:g} s"


_PHASES = ("connect", "reset", "step")
_LOG_LINES = 200


def _latency_text(result: HoldResult, summary: CellSummary) -> str:
    stats = {name: summary.phases[name] for name in _PHASES if name in summary.phases}
    latencies = ", ".join(f"{name} {formatting.seconds_pair(phase.p50, phase.p99)}" for name, phase in stats.items())
    opened = f"opened in {formatting.seconds(result.opened_s)}"
    opened += ", all stepping at once" if result.asked_to_step else ", without a step"
    return f"{opened}; p50 / p99: {latencies}" if latencies else opened


def _figures(result: HoldResult, summary: CellSummary) -> Figures:
    figures: Figures = {
        "asked": result.requested,
        "held": result.held,
        "stepped": result.fitting if result.asked_to_step else None,
        "refused": len(result.refused),
        "untried": result.untried,
        "limit": result.limit,
        "others": result.taken_by_others,
        "pids": summary.pids,
        "opened_s": result.opened_s,
    }
    for name in _PHASES:
        stats = summary.phases.get(name)
        figures |= {f"{name}_p50_s": stats and stats.p50, f"{name}_p99_s": stats and stats.p99}
    return figures


def summarise_held(endpoint: Endpoint, result: HoldResult) -> CellSummary:
    """Return the summary of the sessions that were held and of those that were not, as of a cell."""
    cell = Cell(
        test="check",
        target=endpoint.target,
        infrastructure=endpoint.label,
        mode="ws",
        wait=None,
        batch=result.requested,
        steps=1,
        arrival="hold",
    )
    meta = CellMeta(
        run_id="",
        sweep_id="",
        cell=cell,
        repetition=1,
        wall_s=result.opened_s,
        started_at=datetime.now(UTC),
        limits=endpoint.limits,
        server_exit=endpoint.exit_status(),
        log_tail=endpoint.log_tail(_LOG_LINES),
        session_settings=endpoint.session_settings,
    )
    rows = [session.row(number, asked_to_step=result.asked_to_step) for number, session in enumerate(result.sessions)]
    return summarise(rows_to_table(rows, cell=cell, run_id="", repetition=1), meta)
