"""Which limit refused the sessions: evidence from rows, log and samples becomes a cause and a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import SPACE_STATUS_PREFIX
from pytest_openenv_scale.metrics.errors import ErrorCount
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Refusal

from .evidence import BROKEN_OFF, Evidence, breaker, error_words, lost_host, total
from .refusal_rules import by_proxy, by_space, by_status, connections_per_worker, sessions_per_worker, space_stopped

_MEMORY = "give it more memory (memory= of a docker target), fewer workers, or fewer sessions"


def name_refusals(summaries: Sequence[CellSummary], *, needed: int | None = None) -> tuple[Refusal, ...]:
    """Name what refused sessions, one refusal per cause, each told of the smallest batch where it happened.

    `needed` is how many sessions the server should hold (a `max_batch` limit); remedies are sized to it, or
    to the batch that was refused if that is larger.
    """
    found: dict[str, Refusal] = {}
    for summary in sorted(summaries, key=lambda item: (item.batch, -item.failed)):
        for refusal in _explain(Evidence(summary, max(needed or 0, summary.batch))):
            found.setdefault(refusal.cause, replace(refusal, text=" ".join(refusal.text.split())))
    return tuple(found.values())


def _explain(evidence: Evidence) -> Iterator[Refusal]:
    """Apply the rules in order: what the server names itself comes first, what nobody names last."""
    rules: tuple[Callable[[Evidence], Refusal | None], ...] = (
        sessions_per_worker,
        connections_per_worker,
        lost_host,
        breaker,
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
    ending = evidence.summary.server_exit
    if ending is None or ending.startswith(SPACE_STATUS_PREFIX):
        return None
    lost = total(evidence.claim(_broken_off))
    if not lost and evidence.summary.proxy is not None:
        return None  # One of several hosts, and told as such.
    killed = "KILL" in ending or "137" in ending
    remedy = (
        "it was killed from outside or for lack of memory: see dmesg, give it more memory or fewer sessions"
        if killed
        else "see the last lines of its log"
    )
    if "out of memory" in ending:
        remedy = _MEMORY
    return Refusal("server_died", lost, evidence.batch, f"the server died: {ending}", remedy)


def _out_of_descriptors(evidence: Evidence) -> Refusal | None:
    """The server's process may open no more files: its log says so, or a sample was at the limit."""
    logged = evidence.log(r"too many open files|EMFILE|out of system resource")
    told = evidence.said("too many open files|EMFILE")
    peak = evidence.summary.server.peak
    used, limit = (peak.descriptors, peak.descriptor_limit) if peak else (None, None)
    exhausted = used is not None and limit is not None and used >= limit - 1
    if not (logged or told or exhausted):
        return None
    claimed = evidence.claim(
        lambda error: (
            _broken_off(error) or error.code in ("500", "503") or "open files" in (error.message or "").lower()
        )
    )
    if not claimed and not logged:
        return None
    seen = f"{used:,} of {limit:,} in use" if used is not None and limit is not None else ""
    said = f"its log says {logged[0]!r}" if logged else ""
    facts = ", ".join(fact for fact in (seen, said) if fact)
    return Refusal(
        "descriptors",
        total(claimed),
        evidence.batch,
        "the server ran out of file descriptors" + (f" ({facts})" if facts else ""),
        f"raise `ulimit -n` where the server is started: at least {2 * evidence.needed + 64} for"
        f" {evidence.needed} sessions (one or two each)",
    )


def _worker_killed(evidence: Evidence) -> Refusal | None:
    """One process of several went away and took all its sessions with it."""
    lost = evidence.summary.lost_workers
    logged = evidence.log(r"child process \[\d+\] died")
    if not lost and not logged:
        return None
    claimed = evidence.claim(lambda error: error.type in ("closed_early", "connection_reset"))
    if not claimed:
        return None
    who = (
        f"process {lost[0].pid} of the server vanished with all its {lost[0].sessions:,} sessions"
        if lost
        else "a worker of the server vanished with its sessions"
    )
    more = f", and {len(lost) - 1} more did" if len(lost) > 1 else ""
    remedy = (
        "uvicorn kills a worker that does not answer within 5 s: start it with --timeout-worker-healthcheck 120"
        if logged or evidence.is_uvicorn
        else "look for a kill for lack of memory in dmesg, and for a supervisor's deadline in the server's log"
    )
    short = evidence.log(r"the container was out of memory [^\n]*")
    if short:
        logged, remedy = short, _MEMORY
    said = f"; its log says {logged[0]!r}" if logged else ""
    return Refusal("worker_killed", total(claimed), evidence.batch, f"{who}{more}{said}", remedy)


def _not_listening(evidence: Evidence) -> Refusal | None:
    claimed = evidence.claim(lambda error: error.type == "refused")
    if not claimed:
        return None
    if evidence.summary.successful == 0:
        text, remedy = "nothing listens at the address", "start the server, or correct the URL and its port"
    else:
        text = "connections were refused, though others were served"
        if evidence.summary.peak_concurrency is not None:
            text = f"connections were refused while {evidence.summary.held:,} sessions were held"
        remedy = "see whether the server stopped or restarted in its log"
    return Refusal("not_listening", total(claimed), evidence.batch, text, remedy)


def _environment(evidence: Evidence) -> Refusal | None:
    """The environment answered with an error of its own."""
    claimed = evidence.claim(lambda error: error.type == "environment")
    if not claimed:
        return None
    first = claimed[0]
    said = f": {first.message[:200]}" if first.message else ""
    if first.code == "FACTORY_ERROR":
        text, remedy = "the environment could not be made for a session", "see the server's log"
    elif first.code in ("VALIDATION_ERROR", "422"):
        option = "--openenv-reset" if first.phase == "reset" else "--openenv-action"
        text, remedy = f"the environment rejected what the {first.phase} sent", f"give data it takes: {option}"
    else:
        code = f" ({first.code})" if first.code else ""
        text, remedy = f"the environment failed in {first.phase}{code}", "see the server's log"
    return Refusal("environment", total(claimed), evidence.batch, f"{text}{said}", remedy)


def _unnamed(evidence: Evidence) -> Refusal | None:
    """Failures whose cause nothing tells: counted, not explained."""
    claimed = evidence.claim(lambda error: True)
    if not claimed:
        return None
    kinds = ", ".join(error_words(error) for error in claimed[:4])
    message = next((error.message for error in claimed if error.message), None)
    first = f"; the first: {message[:200]}" if message else ""
    silent = any(error.type == "timeout" for error in claimed)
    remedy = "see the server's log" + (
        "; one that is busy answers late: more workers or cores, or a longer --openenv-timeout" if silent else ""
    )
    count = formatting.count_of(total(claimed), "session")
    return Refusal(
        "unnamed", total(claimed), evidence.batch, f"{count} failed with no limit named: {kinds}{first}", remedy
    )
