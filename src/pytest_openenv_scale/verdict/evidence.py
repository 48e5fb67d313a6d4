"""The evidence for refusals and verdicts: failures and their messages, and what a proxy counted."""

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
        """How many processes answer: as the endpoint says, else as many as reported a pid; None if unknown.

        The endpoint tells `workers` of each of its `replicas` or `nodes`.
        """
        limits = self.summary.limits
        workers, servers = limits.get("workers"), limits.get("replicas", limits.get("nodes", 1))
        if workers is not None and str(workers).isdecimal():
            return int(workers) * (int(servers) if str(servers).isdecimal() else 1)
        return self.summary.pids

    @property
    def is_space(self) -> bool:
        """Whether the server is a Hugging Face Space, behind the platform's own proxy."""
        return self.summary.cell.target.startswith("spaces")

    @property
    def is_uvicorn(self) -> bool:
        """Whether the server is known to be uvicorn: by its settings, its log or its answers."""
        answers = any("uvicorn" in (error.message or "").lower() for error in self.summary.errors)
        return self.summary.limits.get("server") == "uvicorn" or answers or self.search_log("uvicorn") is not None

    def search_log(self, pattern: str) -> re.Match[str] | None:
        """Search the tail of the server's log, case ignored."""
        return re.search(pattern, self.summary.log_tail or "", re.IGNORECASE)

    def any_message_matches(self, pattern: str) -> bool:
        """Whether a failure's message matches, case ignored."""
        return any(re.search(pattern, error.message or "", re.IGNORECASE) for error in self.unclaimed)

    def claim(self, fits: Callable[[ErrorCount], bool]) -> list[ErrorCount]:
        """Take the failures that fit out of the unclaimed ones and return them."""
        claimed = [error for error in self.unclaimed if fits(error)]
        self.unclaimed = [error for error in self.unclaimed if not fits(error)]
        return claimed


def count_sessions(errors: list[ErrorCount]) -> int:
    """Return how many sessions a list of failures stands for."""
    return sum(error.count for error in errors)


_MAX_LOG_LINE = 160
"""Characters of a log line quoted in a sentence."""


def host_incident_reasons(summary: CellSummary, location: str) -> Iterator[Reason]:
    """Yield a line for every host that died, was taken out or came back; the end of its log is the detail."""
    if summary.proxy is None:
        return
    logs = {trouble.host: trouble.log for trouble in summary.proxy.troubles}
    for incident in summary.proxy.mishaps:
        text = (
            f"{_describe_incident(incident, summary.proxy)}{_describe_lost_sessions(incident, summary)} (at {location})"
        )
        yield Reason("hosts", text, logs.get(incident.host) or None)
    if not summary.proxy.mishaps and (failure_text := _describe_single_failed_host(summary)):
        yield Reason("hosts", f"{failure_text} (at {location})")


def _describe_single_failed_host(summary: CellSummary) -> str:
    """Return a sentence if every failed session was on one host of several, else an empty text."""
    if len(summary.failed_hosts) != 1 or len(summary.proxy.requests if summary.proxy else ()) < 2:
        return ""
    (host, count), failed = next(iter(summary.failed_hosts.items())), summary.failed
    return f"all {formatting.count_of(failed, 'failed session')} were on {host}" if count == failed > 1 else ""


def _describe_incident(incident: HostIncident, proxy: ProxyFacts) -> str:
    when = f"{incident.at_s:.1f} s after the cell's start"
    proxy_name = proxy.name.partition(" ")[0]
    if incident.kind == "back":
        return f"{proxy_name} sent sessions to {incident.host} again from {when} on"
    if incident.kind == "out":
        return f"{incident.host} stopped answering: {proxy_name} took it out {when} ({incident.text})"
    if incident.out_after_s is None:
        return f"{incident.host} died {when} ({incident.text}), and {proxy_name} had not taken it out at the end"
    taken_out = f"{proxy_name} took it out {incident.out_after_s:.1f} s later"
    return f"{incident.host} died {when} ({incident.text}), and {taken_out}"


def _describe_lost_sessions(incident: HostIncident, summary: CellSummary) -> str:
    """Return a suffix saying how many of the failed sessions were on the host."""
    failed_there, failed = summary.failed_hosts.get(incident.host, 0), summary.failed
    if incident.kind == "back" or not failed:
        return ""
    if failed_there == failed:
        return f": its {formatting.count_of(failed_there, 'session')} failed, and no other"
    return f": {failed_there:,} of the {failed:,} failed sessions were there"


def describe_idle_hosts(summary: CellSummary) -> str:
    """Return, as a suffix of the message that hosts are too few, what the proxy knows of each idle host."""
    proxy = summary.proxy
    if proxy is None:
        return ""
    troubles = {trouble.host: trouble for trouble in proxy.troubles}
    proxy_name = proxy.name.partition(" ")[0]
    parts = [f"{host} got nothing: {_describe_trouble(troubles.get(host), proxy_name)}" for host in proxy.idle]
    return "".join(f"; {part}" for part in parts)


def _describe_trouble(trouble: UnhealthyHost | None, proxy_name: str) -> str:
    if trouble is None:
        return f"it is healthy to {proxy_name}"
    text = f"{proxy_name} says {trouble.trouble}" if trouble.trouble else f"it is healthy to {proxy_name}"
    if trouble.connect_failures:
        text += f", {formatting.count_of(trouble.connect_failures, 'connection')} to it failed"
    lines = [line.strip() for line in trouble.log.splitlines() if line.strip()]
    return f"{text}, its log ends {lines[-1][:_MAX_LOG_LINE]!r}" if lines else text


def lost_host(evidence: Evidence) -> Refusal | None:
    """A host behind the proxy died or stopped answering, and its sessions with it."""
    summary = evidence.summary
    incidents = [incident for incident in summary.proxy.mishaps if incident.kind != "back"] if summary.proxy else []
    if summary.proxy is None or not incidents:
        return None
    unknown = summary.failed - sum(summary.failed_hosts.values())
    if not unknown and not any(incident.host in summary.failed_hosts for incident in incidents):
        return None
    claimed = evidence.claim(_broken_off)
    if not claimed:
        return None
    text = "; ".join(_describe_incident(incident, summary.proxy) for incident in incidents)
    return Refusal("host_lost", count_sessions(claimed), evidence.batch, text, _host_remedy(incidents[0]))


def _broken_off(error: ErrorCount) -> bool:
    return error.type in BROKEN_OFF or error.code in ("502", "503", "504")


def _host_remedy(incident: HostIncident) -> str:
    if incident.kind == "out":
        return "see its log; a step that blocks its server for seconds also keeps it from answering health checks"
    if "out of memory" in incident.text:
        return "give each replica more memory (memory= in the target), or spread over more replicas"
    if "KILL" in incident.text or "137" in incident.text:
        return "it was killed from outside or for lack of memory: see dmesg, give it more memory or fewer sessions"
    return "see the last lines of its log"


def circuit_breaker(evidence: Evidence) -> Refusal | None:
    """The proxy's circuit breakers, by its own counters; a handshake that waits for a connection times out."""
    summary = evidence.summary
    if summary.proxy is None or not summary.proxy.overflows:
        return None
    claimed = evidence.claim(_turned_away)
    if not claimed:
        return None
    proxy_name = summary.proxy.name.partition(" ")[0]
    overflow_text = ", ".join(f"{name} {count:,}" for name, count in summary.proxy.overflows.items())
    open_sessions = formatting.count_of(summary.held, "session")
    if summary.cell.target.startswith("envoy"):
        remedy = f"leave out max_connections= in the target, or make it {evidence.needed} or more"
    else:
        remedy = f"raise max_connections, max_requests and max_pending_requests together, to {evidence.needed} or more"
    text = f"{proxy_name}'s circuit breakers opened with {open_sessions} open ({overflow_text})"
    return Refusal("proxy", count_sessions(claimed), evidence.batch, text, remedy)


def _turned_away(error: ErrorCount) -> bool:
    return error.code in ("503", "504") or (error.phase == "connect" and error.type == "timeout")


def describe_failures(summary: CellSummary) -> str:
    """Return the failures of a repetition in words: "56 of 256 failed: 56 capacity in reset"."""
    judged = summary.successful + summary.failed
    kinds = [error for error in summary.errors if error.type != "client_limit"]
    kinds_text = ", ".join(describe_error(error) for error in kinds[:4])
    more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    return f"{summary.failed:,} of {judged:,} failed" + (f": {kinds_text}{more}" if kinds_text else "")


def describe_error(error: ErrorCount) -> str:
    """Return one kind of failure with its count: "12 handshake status 503 in connect"."""
    kind = (error.type or "failure").replace("_", " ")
    code = f" {error.code}" if error.code and error.type != "capacity" else ""
    return f"{error.count:,} {kind}{code}" + (f" in {error.phase}" if error.phase else "")
