"""One batch of a curve: does it pass its limits in every repetition, does it fail, or can nobody say?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS, Limit, Slo
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import SPACE_STATUS_PREFIX
from pytest_openenv_scale.core.formatting import format_value
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, Reason

from .evidence import failures, idle_words, mishap_reasons

SERVER_ERRORS = frozenset({"capacity", "environment", "handshake_status", "protocol", "refused"})
"""Failures the server answered for: a busy client does not cause them."""

BEFORE_OPEN = frozenset({"connect", "reset", "hold"})
"""Phases in which a held session can end without ever having been open together with all the others."""

_REMEDIES = {
    "EADDRINUSE": "widen net.ipv4.ip_local_port_range, or spread the sessions over several URLs",
    "EADDRNOTAVAIL": "widen net.ipv4.ip_local_port_range, or spread the sessions over several URLs",
    "EMFILE": "use more load processes with --openenv-processes, or raise ulimit -Hn",
    "ENFILE": "raise fs.file-max",
}

LATENCY_ALLOWANCE_S = 0.5
"""`latency_factor=F` means total p99 ≤ F × (steps × wait + this)."""


def judge_cell(batch: int, summaries: Sequence[CellSummary], slo: Slo, repetitions: int) -> CellVerdict:
    """Judge one batch by all its repetitions: it passes if all pass, and fails if one definitely fails."""
    cases = [_judge_repetition(summary, slo, repetitions) for summary in summaries]
    breaches = tuple(breach for case in cases for breach in case.breaches)
    reasons = [reason for case in cases for reason in case.reasons]
    if len(summaries) < repetitions:
        text = f"batch {batch} was measured in {len(summaries)} of {repetitions} repetitions"
        reasons.append(Reason("incomplete", text))
    reasons += [Reason("note", f"{note}, at {case.where}") for case in cases for note in case.summary.notes]
    doubtful = any(case.doubtful for case in cases) or len(summaries) < repetitions
    passed = False if breaches else None if doubtful else True
    return CellVerdict(batch, passed, breaches, tuple(dict.fromkeys(reasons)))


@dataclass
class _CellEvidence:
    """One repetition under judgement: definite breaches and doubts are collected here.

    Where the client was in trouble (`client_troubled`), slow or lost sessions may be its own doing.
    """

    summary: CellSummary
    repetitions: int
    breaches: list[Breach] = field(default_factory=list[Breach])
    reasons: list[Reason] = field(default_factory=list[Reason])
    doubtful: bool = False
    client_troubled: bool = False

    @property
    def where(self) -> str:
        """The place, for messages: "batch 256" or "batch 256, repetition 2 of 3"."""
        batch = f"batch {self.summary.batch}"
        one = self.repetitions == 1
        return batch if one else f"{batch}, repetition {self.summary.repetition} of {self.repetitions}"

    def doubt(self, kind: str, text: str) -> None:
        self.doubtful = True
        self.reasons.append(Reason(kind, text))

    def breach(self, limit: Limit, observed: float, text: str, *, allowed: float | None = None) -> None:
        kind = limit.kind
        bound = limit.allowed if allowed is None else allowed
        place = (self.summary.batch, self.summary.repetition)
        self.breaches.append(Breach(*place, limit.name, kind.phase, kind.statistic, observed, bound, text))


def _judge_repetition(summary: CellSummary, slo: Slo, repetitions: int) -> _CellEvidence:
    case = _CellEvidence(summary, repetitions)
    _judge_server(case)
    for kind, text in _client_doubts(summary):
        case.doubt(kind, f"{text} ({case.where})")
        case.client_troubled = True
    _judge_success(case, slo.limit("success") or Limit("success", DEFAULT_SUCCESS, "default"))
    if summary.successful:
        for limit in slo.limits:
            if limit.kind.phase is not None:
                _judge_latency(case, limit)
        hosts = slo.limit("hosts")
        if hosts is not None and summary.batch >= hosts.allowed:
            _judge_hosts(case, hosts)
    case.reasons += mishap_reasons(summary, case.where)
    return case


def _judge_server(case: _CellEvidence) -> None:
    """A server that died misses the cell, whatever the sessions say."""
    summary = case.summary
    if summary.server_exit is None:
        return
    ending = summary.server_exit
    text = (
        f"{ending} at {case.where}"
        if ending.startswith(SPACE_STATUS_PREFIX)
        else f"the server died at {case.where}: {ending}"
    )
    place = (summary.batch, summary.repetition)
    case.breaches.append(Breach(*place, "server", None, None, None, None, text))
    case.reasons.append(Reason("server_died", text, summary.log_tail))


def _client_doubts(summary: CellSummary) -> Iterator[tuple[str, str]]:
    """Yield what on the client's side keeps this repetition from speaking for the server."""
    for finding in summary.findings:
        yield ("hold" if finding.kind == "hold" else "client"), finding.message
    if summary.client_limited:
        few = formatting.count_of(summary.client_limited, "session")
        yield "client", f"{few} of {summary.asked:,} could not be started by the client{_why_limited(summary)}"
    kept = (error.count for error in summary.errors if error.phase in BEFORE_OPEN and error.type != "client_limit")
    reached = summary.held + sum(kept) + summary.client_limited
    if summary.cell.arrival == "hold" and reached < summary.asked and summary.successful:
        peak = f"{summary.held:,} of {summary.asked:,} sessions ({summary.failed:,} failed)"
        yield "hold", f"only {peak} were open at once"


def _why_limited(summary: CellSummary) -> str:
    """Say in the system's own words what kept most of those sessions from being started, and what helps."""
    why = next((error for error in summary.errors if error.type == "client_limit" and error.message), None)
    if why is None:
        return ""
    remedy = _REMEDIES.get(why.code or "")
    return f" ({why.code + ': ' if why.code else ''}{why.message})" + (f": {remedy}" if remedy else "")


def _judge_success(case: _CellEvidence, limit: Limit) -> None:
    summary = case.summary
    rate = summary.success_rate
    if rate is None:
        case.doubt("no_data", f"no session was measured at {case.where}, and no sample must not pass")
        return
    if _holds(limit, rate):
        return
    blamed = sum(error.count for error in summary.errors if error.type in SERVER_ERRORS)
    at_best = (summary.asked - blamed) / summary.asked
    if case.client_troubled and _holds(limit, at_best):
        return
    allowed = format_value("fraction", limit.allowed)
    text = f"success {formatting.percent(rate)} < {allowed} at {case.where} ({failures(summary)})"
    case.breach(limit, rate, text)


def _judge_latency(case: _CellEvidence, limit: Limit) -> None:
    """Judge one percentile; one that only the client's own queue breaks is in doubt."""
    summary, phase, statistic = case.summary, limit.kind.phase or "", limit.kind.statistic or ""
    allowed = _allowed_seconds(limit, summary)
    stats = summary.phase(phase)
    if allowed is None or stats is None:
        lack = "the curve has no wait" if summary.cell.wait is None else f"no {phase} time was measured"
        case.doubt("unmeasurable", f"{limit.text} cannot be judged at {case.where}: {lack}")
        return
    measured: float = getattr(stats, statistic)
    if _within(measured, allowed):
        return
    few = formatting.small_sample_note(stats.count, statistic)
    text = f"{_name(limit)} {formatting.format_observed('seconds', measured, allowed)}{few}"
    text = f"{text} > {_bound(limit, allowed)} at {case.where}"
    unqueued = summary.phase(f"{phase}_unqueued")
    without = None if unqueued is None else float(getattr(unqueued, statistic))
    if without is not None and _within(without, allowed):
        own = f"without the client's own queue it is {formatting.seconds(without)}"
        case.doubt("queue", f"{text}, but {own}: the client was too slow")
    elif not case.client_troubled:
        case.breach(limit, measured, text, allowed=allowed)


def _allowed_seconds(limit: Limit, summary: CellSummary) -> float | None:
    if limit.name != "latency_factor":
        return limit.allowed
    wait = summary.cell.wait
    return None if wait is None else limit.allowed * (summary.cell.steps * wait + LATENCY_ALLOWANCE_S)


def _name(limit: Limit) -> str:
    return "total_p99" if limit.name == "latency_factor" else limit.name


def _bound(limit: Limit, allowed: float) -> str:
    shown = format_value("seconds", allowed)
    return f"{shown} ({limit.text})" if limit.name == "latency_factor" else shown


def _judge_hosts(case: _CellEvidence, limit: Limit) -> None:
    summary = case.summary
    by_proxy = not summary.hosts_known and summary.proxy is not None
    seen = summary.proxy.hosts if by_proxy and summary.proxy else summary.hosts or 0
    if seen >= limit.allowed:
        return
    if not summary.hosts_known and not by_proxy:
        text = f"{limit.text} cannot be judged at {case.where}: the environment does not tell its host"
        case.doubt("hosts", text)
    elif not case.client_troubled:
        counts = summary.proxy.requests if by_proxy and summary.proxy else summary.host_counts
        listed = ", ".join(host for host, count in counts.items() if count)
        text = f"hosts {seen} < {limit.allowed:.0f} at {case.where} (seen: {listed}){idle_words(summary)}"
        case.breach(limit, seen, text)


def _holds(limit: Limit, observed: float) -> bool:
    return limit.holds(observed) or math.isclose(observed, limit.allowed, rel_tol=1e-9)


def _within(measured: float, allowed: float) -> bool:
    return measured <= allowed or math.isclose(measured, allowed, rel_tol=1e-9)
