"""Which limit refused the sessions: evidence from rows, log and samples becomes a cause, figures and words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import ErrorCount, Refusal

from .refusal_rules import (
    BROKEN_OFF,
    Evidence,
    by_proxy,
    by_space,
    by_status,
    circuit_breaker,
    connections_per_worker,
    lost_host,
    sessions_per_worker,
    space_stopped,
)


def name_refusals(summaries: Sequence[CellSummary], *, needed: int | None = None) -> tuple[Refusal, ...]:
    """Name what refused sessions, one refusal per cause, each told of the smallest batch where it happened.

    `needed` is how many sessions the server should hold (a `max_batch` limit); remedies are sized to it, or
    to the batch that was refused if that is larger.
    """
    refusals: dict[str, Refusal] = {}
    for summary in sorted(summaries, key=lambda item: (item.batch, -item.failed)):
        for refusal in _apply_rules(Evidence(summary, max(needed or 0, summary.batch))):
            refusals.setdefault(refusal.cause, refusal)
    return tuple(refusals.values())


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
    )
    for rule in rules:
        if (refusal := rule(evidence)) is not None:
            yield refusal
    yield from by_space(evidence)
    if (refusal := by_proxy(evidence)) is not None:
        yield refusal
    yield from by_status(evidence)
    for rule in (_not_listening, _environment, _unnamed):
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
            _broken_off(error) or error.code in ("500", "503") or "open files" in (error.message or "").lower()
        )
    )
    if not claimed and not logged:
        return None
    return evidence.refusal("descriptors", claimed, used=used, limit=limit, words=logged[0] if logged else None)


def _worker_killed(evidence: Evidence) -> Refusal | None:
    """One process of several went away and took all its sessions with it."""
    lost = evidence.summary.lost_workers
    died = evidence.search_log(r"child process \[\d+\] died")
    if not lost and not died:
        return None
    claimed = evidence.claim(lambda error: error.type in ("closed_early", "connection_reset"))
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


def _not_listening(evidence: Evidence) -> Refusal | None:
    claimed = evidence.claim(lambda error: error.type == "refused")
    if not claimed:
        return None
    summary = evidence.summary
    return evidence.refusal("not_listening", claimed, successful=summary.successful, held=summary.peak_concurrency)


def _environment(evidence: Evidence) -> Refusal | None:
    """The environment answered with an error of its own."""
    claimed = evidence.claim(lambda error: error.type == "environment")
    if not claimed:
        return None
    first = claimed[0]
    return evidence.refusal("environment", claimed, code=first.code, phase=first.phase, words=first.message)


def _unnamed(evidence: Evidence) -> Refusal | None:
    """Failures whose cause nothing tells: counted, not explained."""
    claimed = evidence.claim(lambda error: True)
    if not claimed:
        return None
    message = next((error.message for error in claimed if error.message), None)
    silent = any(error.type == "timeout" for error in claimed)
    return replace(evidence.refusal("unnamed", claimed, silent=silent, words=message), errors=tuple(claimed[:4]))
