"""What refusals and verdicts are told from: failures and their words, and what a proxy counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import HostIncident, ProxyFacts, UnhealthyHost
from pytest_openenv_scale.metrics.errors import ErrorCount
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Reason, Refusal

BROKEN_OFF = frozenset({"closed_early", "connection_reset", "refused", "timeout"})
"""Failures that do not say why: the connection went away, was turned down or stayed silent."""


@dataclass
class Evidence:
    """One repetition of a cell; rules claim the failures they explain, so that no failure has two causes.

    `needed` is how many sessions the server should hold, for the arithmetic of the remedy.
    """

    summary: CellSummary
    needed: int
    unclaimed: list[ErrorCount] = field(init=False)

    def __post_init__(self) -> None:
        self.unclaimed = [error for error in self.summary.errors if error.type != "client_limit"]

    @property
    def batch(self) -> int:
        """How many sessions were asked for."""
        return self.summary.batch

    @property
    def workers(self) -> int | None:
        """How many processes answer: as the endpoint says, else as many as told their pid; None if unknown.

        The endpoint tells `workers` of each of its `replicas` or `nodes`.
        """
        limits = self.summary.limits
        told, servers = limits.get("workers"), limits.get("replicas", limits.get("nodes", 1))
        if told is not None and str(told).isdecimal():
            return int(told) * (int(servers) if str(servers).isdecimal() else 1)
        return self.summary.pids

    @property
    def is_space(self) -> bool:
        """Whether the server is a Hugging Face Space, behind the platform's own proxy."""
        return self.summary.cell.target.startswith("spaces")

    @property
    def is_uvicorn(self) -> bool:
        """Whether the server is known to be uvicorn: by its settings, its log or its answers."""
        answers = any("uvicorn" in (error.message or "").lower() for error in self.summary.errors)
        return self.summary.limits.get("server") == "uvicorn" or answers or self.log("uvicorn") is not None

    def log(self, pattern: str) -> re.Match[str] | None:
        """Search the tail of the server's log, case ignored."""
        return re.search(pattern, self.summary.log_tail or "", re.IGNORECASE)

    def said(self, pattern: str) -> bool:
        """Whether a failure's message matches, case ignored."""
        return any(re.search(pattern, error.message or "", re.IGNORECASE) for error in self.unclaimed)

    def claim(self, fits: Callable[[ErrorCount], bool]) -> list[ErrorCount]:
        """Take the failures that fit out of the unclaimed ones and return them."""
        claimed = [error for error in self.unclaimed if fits(error)]
        self.unclaimed = [error for error in self.unclaimed if not fits(error)]
        return claimed


def total(errors: list[ErrorCount]) -> int:
    """Return how many sessions a list of failures stands for."""
    return sum(error.count for error in errors)


_LOG_LINE = 160
"""Characters of a log line quoted in a sentence."""


def mishap_reasons(summary: CellSummary, where: str) -> Iterator[Reason]:
    """Yield a line for every host that died, was taken out or came back; the end of its log is the detail."""
    if summary.proxy is None:
        return
    logs = {trouble.host: trouble.log for trouble in summary.proxy.troubles}
    for mishap in summary.proxy.mishaps:
        text = f"{_mishap_words(mishap, summary.proxy)}{_lost_words(mishap, summary)} (at {where})"
        yield Reason("hosts", text, logs.get(mishap.host) or None)
    if not summary.proxy.mishaps and (held := _held_all_failed(summary)):
        yield Reason("hosts", f"{held} (at {where})")


def _held_all_failed(summary: CellSummary) -> str:
    """Say so where every failed session was on one host of several."""
    if len(summary.failed_hosts) != 1 or len(summary.proxy.requests if summary.proxy else ()) < 2:
        return ""
    (host, count), failed = next(iter(summary.failed_hosts.items())), summary.failed
    return f"all {formatting.count_of(failed, 'failed session')} were on {host}" if count == failed > 1 else ""


def _mishap_words(mishap: HostIncident, proxy: ProxyFacts) -> str:
    when = f"{mishap.at_s:.1f} s after the cell's start"
    who = proxy.name.partition(" ")[0]
    if mishap.kind == "back":
        return f"{who} sent sessions to {mishap.host} again from {when} on"
    if mishap.kind == "out":
        return f"{mishap.host} stopped answering: {who} took it out {when} ({mishap.text})"
    if mishap.out_after_s is None:
        return f"{mishap.host} died {when} ({mishap.text}), and {who} had not taken it out at the end"
    return f"{mishap.host} died {when} ({mishap.text}), and {who} took it out {mishap.out_after_s:.1f} s later"


def _lost_words(mishap: HostIncident, summary: CellSummary) -> str:
    """Say how many of the failed sessions were on the host."""
    there, failed = summary.failed_hosts.get(mishap.host, 0), summary.failed
    if mishap.kind == "back" or not failed:
        return ""
    if there == failed:
        return f": its {formatting.count_of(there, 'session')} failed, and no other"
    return f": {there:,} of the {failed:,} failed sessions were there"


def idle_words(summary: CellSummary) -> str:
    """Return, for the message that hosts are too few, what the proxy knows of each that got nothing."""
    proxy = summary.proxy
    if proxy is None:
        return ""
    troubles = {trouble.host: trouble for trouble in proxy.troubles}
    who = proxy.name.partition(" ")[0]
    parts = [f"{host} got nothing: {_trouble_words(troubles.get(host), who)}" for host in proxy.idle]
    return "".join(f"; {part}" for part in parts)


def _trouble_words(trouble: UnhealthyHost | None, who: str) -> str:
    if trouble is None:
        return f"it is healthy to {who}"
    said = f"{who} says {trouble.trouble}" if trouble.trouble else f"it is healthy to {who}"
    if trouble.connect_failures:
        said += f", {formatting.count_of(trouble.connect_failures, 'connection')} to it failed"
    lines = [line.strip() for line in trouble.log.splitlines() if line.strip()]
    return f"{said}, its log ends {lines[-1][:_LOG_LINE]!r}" if lines else said


def lost_host(evidence: Evidence) -> Refusal | None:
    """A host behind the proxy died or stopped answering, and its sessions with it."""
    summary = evidence.summary
    gone = [mishap for mishap in summary.proxy.mishaps if mishap.kind != "back"] if summary.proxy else []
    if summary.proxy is None or not gone:
        return None
    unknown = summary.failed - sum(summary.failed_hosts.values())
    if not unknown and not any(mishap.host in summary.failed_hosts for mishap in gone):
        return None
    claimed = evidence.claim(_broken_off)
    if not claimed:
        return None
    text = "; ".join(_mishap_words(mishap, summary.proxy) for mishap in gone)
    return Refusal("host_lost", total(claimed), evidence.batch, text, _remedy(gone[0]))


def _broken_off(error: ErrorCount) -> bool:
    return error.type in BROKEN_OFF or error.code in ("502", "503", "504")


def _remedy(mishap: HostIncident) -> str:
    if mishap.kind == "out":
        return "see its log; a step that blocks its server for seconds also keeps it from answering health checks"
    if "out of memory" in mishap.text:
        return "give each replica more memory (memory= in the target), or spread over more replicas"
    if "KILL" in mishap.text or "137" in mishap.text:
        return "it was killed from outside or for lack of memory: see dmesg, give it more memory or fewer sessions"
    return "see the last lines of its log"


def breaker(evidence: Evidence) -> Refusal | None:
    """The proxy's circuit breakers, by its own counters; a handshake that waits for a connection times out."""
    summary = evidence.summary
    if summary.proxy is None or not summary.proxy.overflows:
        return None
    claimed = evidence.claim(_turned_away)
    if not claimed:
        return None
    who = summary.proxy.name.partition(" ")[0]
    counted = ", ".join(f"{name} {count:,}" for name, count in summary.proxy.overflows.items())
    held = formatting.count_of(summary.held, "session")
    if summary.cell.target.startswith("envoy"):
        remedy = f"leave out max_connections= in the target, or make it {evidence.needed} or more"
    else:
        remedy = f"raise max_connections, max_requests and max_pending_requests together, to {evidence.needed} or more"
    text = f"{who}'s circuit breakers opened with {held} open ({counted})"
    return Refusal("proxy", total(claimed), evidence.batch, text, remedy)


def _turned_away(error: ErrorCount) -> bool:
    return error.code in ("503", "504") or (error.phase == "connect" and error.type == "timeout")


def failures(summary: CellSummary) -> str:
    """Return the failures of a repetition in words: "56 of 256 failed: 56 capacity in reset"."""
    judged = summary.successful + summary.failed
    kinds = [error for error in summary.errors if error.type != "client_limit"]
    listed = ", ".join(error_words(error) for error in kinds[:4])
    more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    return f"{summary.failed:,} of {judged:,} failed" + (f": {listed}{more}" if listed else "")


def error_words(error: ErrorCount) -> str:
    """Return one kind of failure with its count: "12 handshake status 503 in connect"."""
    kind = (error.type or "failure").replace("_", " ")
    code = f" {error.code}" if error.code and error.type != "capacity" else ""
    return f"{error.count:,} {kind}{code}" + (f" in {error.phase}" if error.phase else "")
