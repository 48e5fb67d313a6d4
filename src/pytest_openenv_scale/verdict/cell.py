"""One batch of a curve: whether it passes its limits in every repetition, fails, or is inconclusive."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS, Limit, Slo
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import SPACE
from pytest_openenv_scale.core.formatting import format_value
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, Reason

from .evidence import describe_failures, describe_idle_hosts, host_incident_reasons

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
    judged = [_judge_repetition(summary, slo, repetitions) for summary in summaries]
    breaches = tuple(breach for evidence in judged for breach in evidence.breaches)
    reasons = [reason for evidence in judged for reason in evidence.reasons]
    if len(summaries) < repetitions:
        text = f"batch {batch} was measured in {len(summaries)} of {repetitions} repetitions"
        reasons.append(Reason("incomplete", text))
    reasons += [
        Reason("note", f"{note}, at {evidence.location}") for evidence in judged for note in evidence.summary.notes
    ]
    doubtful = any(evidence.doubtful for evidence in judged) or len(summaries) < repetitions
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
    def location(self) -> str:
        """Where it was, for messages: "batch 256" or "batch 256, repetition 2 of 3"."""
        batch = f"batch {self.summary.batch}"
        single = self.repetitions == 1
        return batch if single else f"{batch}, repetition {self.summary.repetition} of {self.repetitions}"

    def doubt(self, kind: str, text: str) -> None:
        self.doubtful = True
        self.reasons.append(Reason(kind, text))

    def breach(self, limit: Limit, observed: float, text: str, *, allowed: float | None = None) -> None:
        kind = limit.kind
        bound = limit.allowed if allowed is None else allowed
        position = (self.summary.batch, self.summary.repetition)
        self.breaches.append(Breach(*position, limit.name, kind.phase, kind.statistic, observed, bound, text))


def _judge_repetition(summary: CellSummary, slo: Slo, repetitions: int) -> _CellEvidence:
    evidence = _CellEvidence(summary, repetitions)
    _judge_server(evidence)
    for kind, text in _client_doubts(summary):
        evidence.doubt(kind, f"{text} ({evidence.location})")
        evidence.client_troubled = True
    _judge_success(evidence, slo.limit("success") or Limit("success", DEFAULT_SUCCESS, "default"))
    if summary.successful:
        for limit in slo.limits:
            if limit.kind.phase is not None:
                _judge_latency(evidence, limit)
        hosts = slo.limit("hosts")
        if hosts is not None and summary.batch >= hosts.allowed:
            _judge_hosts(evidence, hosts)
    evidence.reasons += host_incident_reasons(summary, evidence.location)
    return evidence


def _judge_server(evidence: _CellEvidence) -> None:
    """Add a breach if the server died, whatever became of the sessions."""
    summary = evidence.summary
    if summary.server_exit is None:
        return
    ending = summary.server_exit
    text = (
        f"{ending} at {evidence.location}"
        if ending.startswith(SPACE)
        else f"the server died at {evidence.location}: {ending}"
    )
    position = (summary.batch, summary.repetition)
    evidence.breaches.append(Breach(*position, "server", None, None, None, None, text))
    evidence.reasons.append(Reason("server_died", text, summary.log_tail))


def _client_doubts(summary: CellSummary) -> Iterator[tuple[str, str]]:
    """Yield what on the client's side keeps this repetition from speaking for the server."""
    for finding in summary.findings:
        yield ("hold" if finding.kind == "hold" else "client"), finding.message
    if summary.client_limited:
        limited = formatting.count_of(summary.client_limited, "session")
        yield (
            "client",
            f"{limited} of {summary.asked:,} could not be started by the client{_client_limit_note(summary)}",
        )
    ended_before_open = (
        error.count for error in summary.errors if error.phase in BEFORE_OPEN and error.type != "client_limit"
    )
    reached = summary.held + sum(ended_before_open) + summary.client_limited
    if summary.cell.arrival == "hold" and reached < summary.asked and summary.successful:
        peak = f"{summary.held:,} of {summary.asked:,} sessions ({summary.failed:,} failed)"
        yield "hold", f"only {peak} were open at once"


def _client_limit_note(summary: CellSummary) -> str:
    """Return the system's error that kept most of those sessions from being started, and its remedy, as a suffix."""
    error = next((error for error in summary.errors if error.type == "client_limit" and error.message), None)
    if error is None:
        return ""
    remedy = _REMEDIES.get(error.code or "")
    return f" ({error.code + ': ' if error.code else ''}{error.message})" + (f": {remedy}" if remedy else "")


def _judge_success(evidence: _CellEvidence, limit: Limit) -> None:
    summary = evidence.summary
    rate = summary.success_rate
    if rate is None:
        evidence.doubt("no_data", f"no session was measured at {evidence.location}, and no sample must not pass")
        return
    if _holds_within_rounding(limit, rate):
        return
    server_failures = sum(error.count for error in summary.errors if error.type in SERVER_ERRORS)
    best_rate = (summary.asked - server_failures) / summary.asked
    if evidence.client_troubled and _holds_within_rounding(limit, best_rate):
        return
    allowed = format_value("fraction", limit.allowed)
    text = f"success {formatting.percent(rate)} < {allowed} at {evidence.location} ({describe_failures(summary)})"
    evidence.breach(limit, rate, text)


def _judge_latency(evidence: _CellEvidence, limit: Limit) -> None:
    """Judge one percentile; one that only the client's own queue breaks is in doubt."""
    summary, phase, statistic = evidence.summary, limit.kind.phase or "", limit.kind.statistic or ""
    allowed = _allowed_seconds(limit, summary)
    stats = summary.phase(phase)
    if allowed is None or stats is None:
        cause = "the curve has no wait" if summary.cell.wait is None else f"no {phase} time was measured"
        evidence.doubt("unmeasurable", f"{limit.text} cannot be judged at {evidence.location}: {cause}")
        return
    measured: float = getattr(stats, statistic)
    if _at_most(measured, allowed):
        return
    sample_note = formatting.few(stats.count, statistic)
    text = f"{_displayed_name(limit)} {formatting.observed('seconds', measured, allowed)}{sample_note}"
    text = f"{text} > {_displayed_bound(limit, allowed)} at {evidence.location}"
    unqueued = summary.phase(f"{phase}_unqueued")
    unqueued_value = None if unqueued is None else float(getattr(unqueued, statistic))
    if unqueued_value is not None and _at_most(unqueued_value, allowed):
        explanation = f"without the client's own queue it is {formatting.seconds(unqueued_value)}"
        evidence.doubt("queue", f"{text}, but {explanation}: the client was too slow")
    elif not evidence.client_troubled:
        evidence.breach(limit, measured, text, allowed=allowed)


def _allowed_seconds(limit: Limit, summary: CellSummary) -> float | None:
    if limit.name != "latency_factor":
        return limit.allowed
    wait = summary.cell.wait
    return None if wait is None else limit.allowed * (summary.cell.steps * wait + LATENCY_ALLOWANCE_S)


def _displayed_name(limit: Limit) -> str:
    return "total_p99" if limit.name == "latency_factor" else limit.name


def _displayed_bound(limit: Limit, allowed: float) -> str:
    text = format_value("seconds", allowed)
    return f"{text} ({limit.text})" if limit.name == "latency_factor" else text


def _judge_hosts(evidence: _CellEvidence, limit: Limit) -> None:
    summary = evidence.summary
    counted_by_proxy = not summary.hosts_known and summary.proxy is not None
    host_count = summary.proxy.hosts if counted_by_proxy and summary.proxy else summary.hosts or 0
    if host_count >= limit.allowed:
        return
    if not summary.hosts_known and not counted_by_proxy:
        text = f"{limit.text} cannot be judged at {evidence.location}: the environment does not tell its host"
        evidence.doubt("hosts", text)
    elif not evidence.client_troubled:
        counts = summary.proxy.requests if counted_by_proxy and summary.proxy else summary.host_counts
        host_names = ", ".join(host for host, count in counts.items() if count)
        text = f"hosts {host_count} < {limit.allowed:.0f} at {evidence.location} (seen: {host_names})"
        text += describe_idle_hosts(summary)
        evidence.breach(limit, host_count, text)


def _holds_within_rounding(limit: Limit, observed: float) -> bool:
    return limit.holds(observed) or math.isclose(observed, limit.allowed, rel_tol=1e-9)


def _at_most(measured: float, allowed: float) -> bool:
    return measured <= allowed or math.isclose(measured, allowed, rel_tol=1e-9)
