"""Judging held sessions: whether they fit, whether slots come back, and what refused those that do not fit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pytest_openenv_scale.checks.background import SingleSession
from pytest_openenv_scale.checks.subject import Figures
from pytest_openenv_scale.client.stock_client import CONNECT_S, MAX_MESSAGE_BYTES, PONG_S, REPLY_S
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.text import LOG_LINES
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
    if answer is None and result.cut is not None:
        return _OUT_OF_TIME
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
    if result.cut in ("opening", "stepping") and not result.refused:
        done, what = (result.held, "let in") if result.cut == "opening" else (result.fitting, "stepped")
        headline = f"{done:,} of {requested} {what} when no time was left, and none refused"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline, figures=figures)
    if result.cut in ("opening", "stepping"):
        # Those that were let in had no time to step: only the others failed.
        result = replace(result, asked_to_step=False)
        summary = summarise_held(endpoint, result)
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
    if closed is None and result.cut is not None:
        return _OUT_OF_TIME
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


_OUT_OF_TIME = CheckResult(CheckOutcome.SKIPPED, "not asked: no time was left", unmet="time")


def quiet_sessions(result: HoldResult) -> CheckResult:
    """Judge whether sessions that were left quiet for a while are still there."""
    quiet = result.quiet
    if quiet is None and result.cut is not None:
        return _OUT_OF_TIME
    if quiet is None:
        return CheckResult(CheckOutcome.SKIPPED, "no session was left quiet")
    figures: Figures = {"quiet": quiet.count, "quiet_s": quiet.quiet_s, "gone": len(quiet.gone)}
    sessions, idle = formatting.count_of(quiet.count, "session"), f"{quiet.quiet_s:g} s"
    missed = CheckResult(
        CheckOutcome.MISSED,
        f"while all its sessions were quiet for {idle} the server let another one in: it gives their slots away",
        "raise what ends quiet sessions above the longest pause of a trainer: session_timeout of ConcurrencyConfig "
        "(None: never), idle timeouts of proxies",
        figures=figures,
        transcripts=(quiet.transcript,) if quiet.transcript is not None else (),
    )
    if quiet.gone:
        gone = f"{len(quiet.gone):,} of {sessions} {'was' if len(quiet.gone) == 1 else 'were'} gone"
        return replace(missed, headline=f"{gone} after {idle} without a message: {quiet.gone[0]}")
    if quiet.slots_given_away:
        return missed
    verb = "was" if quiet.count == 1 else "were"
    return CheckResult(
        CheckOutcome.MET, f"{sessions} {verb} still there after {idle} without a message", figures=figures
    )


def within_stock_limits(result: HoldResult, single: SingleSession) -> CheckResult:
    """Judge whether the stock client would have waited for what was answered here, and read it."""
    connects = [single.connect, *(session.connect for session in result.sessions if session.held)]
    replies = [reply for _, reply in single.replies]
    replies += [reply for s in result.sessions if s.held for reply in (s.reset, s.step) if reply is not None]
    connect_s = max(answer.latency_s or 0.0 for answer in connects)
    reply_s = max((answer.latency_s or 0.0 for answer in replies if answer.good), default=0.0)
    largest = max((answer.size_bytes for answer in replies), default=0)
    unanswered = sum(pong is None for pong in result.pongs)
    pong_s = max((pong for pong in result.pongs if pong is not None), default=None)
    seconds = formatting.seconds
    faults = [
        text
        for broken, text in (
            (connect_s > CONNECT_S, f"a connection took {seconds(connect_s)} (it waits {CONNECT_S:g} s)"),
            (reply_s > REPLY_S, f"an answer took {seconds(reply_s)} (it waits {REPLY_S:g} s)"),
            ((pong_s or 0.0) > PONG_S, f"a ping was answered after {seconds(pong_s)} (it waits {PONG_S:g} s)"),
            (unanswered > 0, f"{unanswered:,} of {len(result.pongs):,} pings got no answer in {PONG_S:g} s"),
            (
                largest > MAX_MESSAGE_BYTES,
                f"an answer has {formatting.format_observed('bytes', largest, MAX_MESSAGE_BYTES)} (it reads 100 MiB)",
            ),
        )
        if broken
    ]
    figures: Figures = {
        "slowest_connect_s": connect_s,
        "slowest_reply_s": reply_s,
        "slowest_pong_s": pong_s,
        "unanswered_pings": unanswered,
        "largest_reply_bytes": largest,
    }
    if faults:
        return CheckResult(
            CheckOutcome.MISSED,
            f"the stock client would give up: {'; '.join(faults)}",
            "ask for fewer sessions at once, make resets and steps faster, or keep them off the event loop; else give "
            "each client more: connect_timeout_s, message_timeout_s, websocket_ping_timeout_s, max_message_size_mb",
            figures=figures,
        )
    times = [f"connections {seconds(connect_s)} of {CONNECT_S:g} s", f"answers {seconds(reply_s)} of {REPLY_S:g} s"]
    times += [f"pings {seconds(pong_s)} of {PONG_S:g} s"] if pong_s is not None else []
    return CheckResult(CheckOutcome.MET, f"the stock client has the patience: {', '.join(times)}", figures=figures)


def _lost_slots_text(slots: SlotsReturned) -> str:
    if slots.released == 1:
        return f"no slot came back within {SLOT_RETURN_S:g} s"
    return f"only {slots.returned:,} of {slots.released:,} slots came back within {SLOT_RETURN_S:g} s"


_PHASES = ("connect", "reset", "step")


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
        log_tail=endpoint.log_tail(LOG_LINES),
        session_settings=endpoint.session_settings,
    )
    rows = [session.row(number, asked_to_step=result.asked_to_step) for number, session in enumerate(result.sessions)]
    return summarise(rows_to_table(rows, meta), meta)
