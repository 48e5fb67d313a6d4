"""One batch of a curve: does it pass its limits in every repetition, does it fail, or can nobody say?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.metrics.drift import (
    COUNT_LEAST,
    COUNT_RATIO,
    ERROR_RATIO,
    FEWEST_ERRORS,
    LATENCY_LEAST_S,
    LATENCY_RATIO,
    MEMORY_LEAST_BYTES,
    MEMORY_RATIO,
    WARM_UP_SHARE,
    drift,
)
from pytest_openenv_scale.metrics.summary import CellSummary, split_attempts
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.results.cell import CUT_OFF, TRANSIENT_FINDINGS
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, Reason

SERVER_ERRORS = frozenset({"capacity", "environment", "handshake_status", "protocol", "refused"})
"""Failures the server answered for: a busy client does not cause them."""

BEFORE_OPEN = frozenset({"connect", "reset", "hold"})
"""Phases in which a held session can end without ever having been open together with all the others."""

STOCK_PONG_TIMEOUT_S = 20.0
"""How long the stock client waits for the answer to a ping before it ends the session, in seconds."""


def judge_cell(batch: int, summaries: Sequence[CellSummary], slo: Slo, repetitions: int) -> CellVerdict:
    """Judge one batch by all its repetitions: it passes if all pass, and fails if one definitely fails.

    Attempts that were set aside are told and count for nothing.
    """
    counted, set_aside = split_attempts(summaries)
    cases = [_judge_repetition(summary, slo, repetitions) for summary in counted]
    breaches = tuple(breach for case in cases for breach in case.breaches)
    reasons = [reason for case in cases for reason in case.doubts]
    if len(counted) < repetitions:
        figures = {"measured": len(counted)}
        reasons.append(Reason("incomplete", batch, repetitions=repetitions, figures=figures))
    passed = False if breaches else None if reasons else True
    reasons += [remark for case in cases for remark in case.remarks]
    reasons += [case.reason("note", words=note) for case in cases for note in case.summary.notes]
    reasons += [set_aside_reason(summary, repetitions) for summary in set_aside]
    distinct = [reason for number, reason in enumerate(reasons) if reason not in reasons[:number]]
    return CellVerdict(batch, passed, breaches, tuple(distinct), tuple(case.passed for case in cases))


def doubted_for_the_client(summary: CellSummary, slo: Slo) -> bool:
    """Say whether a repetition is in doubt for nothing but what the client may do better when it is measured again."""
    kinds = {finding.kind for finding in summary.findings}
    if kinds - TRANSIENT_FINDINGS or (summary.client_limited and "process_died" not in kinds):
        return False
    case = _judge_repetition(summary, slo, 1)
    doubts = {reason.kind for reason in case.doubts}
    return case.passed is None and doubts <= _DOUBTS_OF_THE_CLIENT and (bool(kinds) or "late" in doubts)


_DOUBTS_OF_THE_CLIENT = frozenset({"client", "hold", "late", "queue", "no_data", "stopped_early"})


def set_aside_reason(summary: CellSummary, repetitions: int) -> Reason:
    """Tell that an attempt at a repetition was set aside, with what was amiss."""
    case, client = _CellEvidence(summary, repetitions), summary.client
    amiss = {name: client.get(name) for name in ("loop_lag_max_s", "busy_share", "answer_lag_p99_s", "steal_share")}
    cause = summary.findings[0].kind if summary.findings else "http_lag"
    return case.reason("set_aside", cause, figures={"attempt": summary.attempt, **amiss})


@dataclass
class _CellEvidence:
    """One repetition under judgement: definite breaches, doubts, and remarks, which decide nothing, are collected here.

    Where the client was in trouble (`client_troubled`), slow or lost sessions may be its own doing.
    """

    summary: CellSummary
    repetitions: int
    breaches: list[Breach] = field(default_factory=list[Breach])
    doubts: list[Reason] = field(default_factory=list[Reason])
    remarks: list[Reason] = field(default_factory=list[Reason])
    client_troubled: bool = False

    @property
    def passed(self) -> bool | None:
        """What this repetition says alone."""
        return False if self.breaches else None if self.doubts else True

    def reason(
        self,
        kind: str,
        cause: str = "",
        *,
        limit: Limit | None = None,
        figures: Mapping[str, float | int | str | None] | None = None,
        words: str | None = None,
    ) -> Reason:
        summary = self.summary
        place = Reason(kind, summary.batch, summary.repetition, self.repetitions, cause, limit)
        return replace(place, figures=figures or {}, words=words)

    def breach(self, limit: Limit, observed: float, *, allowed: float | None = None) -> None:
        kind = limit.kind
        self.breaches.append(
            Breach(
                batch=self.summary.batch,
                repetition=self.summary.repetition,
                limit=limit.name,
                phase=kind.phase,
                statistic=kind.statistic,
                observed=observed,
                allowed=limit.allowed if allowed is None else allowed,
            )
        )


def _judge_repetition(summary: CellSummary, slo: Slo, repetitions: int) -> _CellEvidence:
    case = _CellEvidence(summary, repetitions)
    _judge_server(case)
    for reason in _client_doubts(case):
        case.doubts.append(reason)
        case.client_troubled = True
    for limit in slo.cell_limits:
        _JUDGES[limit.kind.family](case, limit)
    if summary.not_started:
        _note_early_stop(case)
    if case.passed is None and _passes_whichever_way(case, slo.cell_limits):
        case.remarks, case.doubts = [*case.doubts], []
    if late := summary.seen_late:
        case.remarks.append(case.reason("client", late.kind, words=late.message))
    case.remarks += (*_host_reasons(case), *_answer_reasons(case), *_pong_reasons(case))
    if not any(reason.kind == "clock" for reason in case.doubts):
        case.remarks += _clock_reasons(case)
    case.remarks += _drift_reasons(case)
    return case


def _judge_server(case: _CellEvidence) -> None:
    """A server that died misses the cell, whatever the sessions say."""
    summary = case.summary
    if summary.server_exit is None:
        return
    case.breaches.append(Breach(summary.batch, summary.repetition, "server"))
    died = case.reason("server_died")
    case.remarks.append(replace(died, exit=summary.server_exit, detail=summary.log_tail))


def _client_doubts(case: _CellEvidence) -> Iterator[Reason]:
    """Yield what on the client's side keeps this repetition from speaking for the server."""
    summary = case.summary
    for finding in summary.findings:
        if finding.kind == CUT_OFF:
            yield case.reason("cut_off", finding.kind, words=finding.message)
        elif finding != summary.seen_late:
            yield case.reason("hold" if finding.kind == "hold" else "client", finding.kind, words=finding.message)
    if summary.client_limited:
        error = next((error for error in summary.errors if error.type == "client_limit" and error.message), None)
        figures = {"sessions": summary.client_limited, "asked": summary.asked, "code": error.code if error else None}
        yield case.reason("client", "client_limit", figures=figures, words=error.message if error else None)
    early = (error.count for error in summary.errors if error.phase in BEFORE_OPEN and error.type != "client_limit")
    reached = summary.held + sum(early) + summary.client_limited
    if summary.cell.arrival == "hold" and reached < summary.asked and summary.successful:
        figures = {"open": summary.held, "asked": summary.asked, "failed": summary.failed}
        yield case.reason("hold", "not_all_open", figures=figures)


def _note_early_stop(case: _CellEvidence) -> None:
    """Tell that sessions were not begun: by the limits they stopped for the cell is missed, by others in doubt.

    How many slots of a steady state are held is judged apart.
    """
    summary = case.summary
    if summary.is_steady:
        slots = {"begun": summary.batch - summary.not_started, "batch": summary.batch}
        case.remarks.append(case.reason("stopped_early", "slots", figures=slots))
        return
    figures = {"begun": summary.begun, "batch": summary.batch, "failed": summary.failed}
    (case.remarks if case.breaches else case.doubts).append(case.reason("stopped_early", figures=figures))


def _judge_success(case: _CellEvidence, limit: Limit) -> None:
    summary = case.summary
    rate = limit.kind.measure(summary)
    if rate is None:
        case.doubts.append(case.reason("no_data"))
        return
    if _holds(limit, rate):
        return
    blamed = sum(error.count for error in summary.errors if error.type in SERVER_ERRORS)
    certain = 0 if summary.doubtful is None else summary.failed - summary.doubtful.failed
    sessions = summary.asked + summary.not_started
    at_best = (sessions - max(blamed, certain)) / sessions
    if case.client_troubled and _holds(limit, at_best):
        return
    case.breach(limit, rate)


def _judge_latency(case: _CellEvidence, limit: Limit) -> None:
    """Judge one percentile; one that only the client breaks, by its own queue or by seeing answers late, is in doubt.

    Both make a latency longer and never shorter, so that a limit that holds does so in spite of them.
    """
    summary = case.summary
    if not summary.successful:
        return
    measured, allowed = limit.kind.measure(summary), _allowed_seconds(limit, summary)
    if summary.clock_moved_s:
        case.doubts += _clock_reasons(case, limit)
        return
    if allowed is None or measured is None:
        without_wait = limit.kind.needs_wait and summary.cell.wait is None
        cause = "no_wait" if without_wait else "no_phase" if summary.phases else "none_ended"
        case.doubts.append(case.reason("unmeasurable", cause, limit=limit))
        return
    if _within(measured, allowed):
        return
    phase, statistic = limit.kind.phase or "", limit.kind.statistic or ""
    unqueued = summary.phase(f"{phase}_unqueued")
    without = measured if unqueued is None else float(getattr(unqueued, statistic))
    late = summary.lateness(phase)
    figures = {"observed": measured, "allowed": allowed, "samples": _samples(summary, limit)}
    if _within(without, allowed):
        case.doubts.append(case.reason("queue", limit=limit, figures={**figures, "unqueued": without}))
    elif _within(without - late, allowed):
        known = {} if math.isinf(late) else {"late": late}
        case.doubts.append(case.reason("late", limit=limit, figures={**figures, **known}))
    elif not case.client_troubled or not _within(_latency_bounds(summary, limit)[0], allowed):
        case.breach(limit, measured, allowed=allowed)


def _latency_bounds(summary: CellSummary, limit: Limit) -> tuple[float, float | None]:
    """Return the least and the most that a latency can be, in seconds, whichever way the doubtful sessions had gone."""
    phase, statistic = limit.kind.phase or "", limit.kind.statistic or ""
    if summary.doubtful is None or phase not in summary.doubtful.bounds:
        return 0.0, None
    return summary.doubtful.bounds[phase].get(statistic, (0.0, None))


def _passes_whichever_way(case: _CellEvidence, limits: Sequence[Limit]) -> bool:
    """Say whether a repetition passes, had all of its doubtful sessions failed or taken for ever as well as not.

    Success is least where all of them fail, each percentile is largest where all take for ever, and the fewest are open
    where all of them would have been.
    """
    summary, doubtful = case.summary, case.summary.doubtful
    if doubtful is None or any(reason.kind != "client" for reason in case.doubts):
        return False
    certain = summary.successful - doubtful.successful
    for limit in limits:
        if limit.kind.family == "share" and not _holds(limit, certain / summary.asked):
            return False
        if limit.kind.family == "latency":
            allowed, most = _allowed_seconds(limit, summary), _latency_bounds(summary, limit)[1]
            if allowed is None or most is None or not _within(most, allowed):
                return False
        if limit.kind.family == "open" and summary.batch >= limit.allowed:
            least = limit.kind.measure(summary)
            if least is None or least - doubtful.count < limit.allowed:
                return False
        if limit.kind.family == "hosts" or (limit.kind.family == "memory" and doubtful.lost):
            return False
    return True


def _samples(summary: CellSummary, limit: Limit) -> int:
    stats = summary.phase(limit.kind.phase or "")
    return stats.count if stats else 0


def _allowed_seconds(limit: Limit, summary: CellSummary) -> float | None:
    return limit.allowed_seconds(summary.cell.steps, summary.cell.wait)


def _judge_open(case: _CellEvidence, limit: Limit) -> None:
    """Judge how many sessions were open all the time; whatever holds up the client makes that fewer, never more."""
    summary = case.summary
    if summary.batch < limit.allowed:
        return
    least = limit.kind.measure(summary)
    if least is None:
        case.doubts.append(case.reason("unmeasurable", "not_steady", limit=limit))
    elif least < limit.allowed:
        if late := summary.seen_late:
            case.doubts.append(case.reason("client", late.kind, words=late.message))
        elif not case.client_troubled:
            case.breach(limit, least)


def _judge_hosts(case: _CellEvidence, limit: Limit) -> None:
    summary = case.summary
    if not summary.successful or summary.batch < limit.allowed:
        return
    used = limit.kind.measure(summary)
    if used is not None and used >= limit.allowed:
        return
    if not summary.hosts_known and summary.proxy is None:
        case.doubts.append(case.reason("hosts", "unknown", limit=limit))
    elif not case.client_troubled:
        case.breach(limit, used or 0)


def _judge_memory(case: _CellEvidence, limit: Limit) -> None:
    used = limit.kind.measure(case.summary)
    if used is None:
        case.doubts.append(case.reason("unmeasurable", "unseen", limit=limit))
    elif not _holds(limit, used):
        case.breach(limit, used)


_JUDGES: Mapping[str, Callable[[_CellEvidence, Limit], None]] = {
    "share": _judge_success,
    "memory": _judge_memory,
    "latency": _judge_latency,
    "hosts": _judge_hosts,
    "open": _judge_open,
}
"""How each family of limits is judged on a repetition of a cell; a limit of a new one has to come in here."""


def _host_reasons(case: _CellEvidence) -> Iterator[Reason]:
    """Yield a reason for every host that died, was taken out or came back; the end of its log is the detail."""
    summary, proxy = case.summary, case.summary.proxy
    if proxy is None:
        return
    logs = {trouble.host: trouble.log for trouble in proxy.troubles}
    for incident in proxy.mishaps:
        figures = {
            "proxy": proxy.name,
            "failed": summary.failed,
            "failed_there": summary.failed_hosts.get(incident.host, 0),
        }
        reason = case.reason("hosts", incident.kind, figures=figures)
        yield replace(reason, incident=incident, detail=logs.get(incident.host) or None)
    if not proxy.mishaps and len(summary.failed_hosts) == 1 and len(proxy.requests) > 1:
        (host, count), failed = next(iter(summary.failed_hosts.items())), summary.failed
        if count == failed > 1:
            yield case.reason("hosts", "all_failed", figures={"failed": failed}, words=host)


def _answer_reasons(case: _CellEvidence) -> Iterator[Reason]:
    """Yield that sessions were answered with errors; where those count as failures, success has been judged by them."""
    errors = case.summary.answered_errors
    if errors is not None:
        figures = {"sessions": errors.count, "asked": case.summary.begun}
        figures |= {"alone": errors.alone, "errors_alone": errors.errors_alone}
        cause = "under_load" if errors.under_load else "game"
        yield case.reason("answers", cause, figures=figures, words=errors.words)


def _pong_reasons(case: _CellEvidence) -> Iterator[Reason]:
    """Yield that pings were not answered in time: no failure, but the stock client may end such sessions."""
    client = case.summary.client
    if missed := client.get("missed_pongs"):
        after = client.get("ping_s")
        cause = "ended" if after is not None and after >= STOCK_PONG_TIMEOUT_S else "late"
        yield case.reason("pongs", cause, figures={"missed": missed, "after": after})


def _clock_reasons(case: _CellEvidence, limit: Limit | None = None) -> Iterator[Reason]:
    """Yield that the wall clock was set, because of which a latency limit cannot be judged."""
    figures = {"moved": case.summary.clock_moved_s, "unstamped": case.summary.client.get("impossible_arrivals") or 0}
    if any(figures.values()):
        yield case.reason("clock", limit=limit, figures=figures)


def _drift_reasons(case: _CellEvidence) -> Iterator[Reason]:
    """Yield what went up in the windows of a steady state, as the endurance check tells it; a cause of its own each.

    A first part of the time is left out. Latencies tell nothing of the server where the client was in trouble.
    """
    windows = [window for window in case.summary.windows if window.judged]
    if not windows or case.summary.open_least is None:
        return
    start, end = windows[0].start_s, windows[-1].end_s
    warm = [window for window in windows if window.start_s >= start + WARM_UP_SHARE * (end - start)]
    failures = sum(window.failed for window in warm)
    for cause, values, ratio, least in (
        ("latency", [window.step_p50_s for window in warm], LATENCY_RATIO, LATENCY_LEAST_S),
        ("memory", [window.rss_bytes for window in warm], MEMORY_RATIO, MEMORY_LEAST_BYTES),
        ("threads", [window.threads for window in warm], COUNT_RATIO, COUNT_LEAST),
        ("descriptors", [window.descriptors for window in warm], COUNT_RATIO, COUNT_LEAST),
        ("failures", [_failure_rate(window) for window in warm], 0.0, ERROR_RATIO),
    ):
        trend = drift([window.end_s for window in warm], values)
        if trend is None or not trend.rises(end - start, ratio=ratio, least=least):
            continue
        if (cause == "latency" and case.client_troubled) or (cause == "failures" and failures < FEWEST_ERRORS):
            continue
        figures = {"start": trend.start, "slope": trend.slope, "low": trend.low, "high": trend.high}
        yield case.reason("drift", cause, figures={**figures, "per_hour": 3600 * trend.slope, "length": end - start})


def _failure_rate(window: Window) -> float | None:
    return window.failed / window.begun if window.begun else None


def _holds(limit: Limit, observed: float) -> bool:
    return limit.holds(observed) or math.isclose(observed, limit.allowed, rel_tol=1e-9)


def _within(measured: float, allowed: float) -> bool:
    return measured <= allowed or math.isclose(measured, allowed, rel_tol=1e-9)
