"""How sessions spread over the hosts behind a proxy, as the proxy itself counts them.

The rows tell which hosts the client saw; a proxy in front of them keeps its own count. A target that has
one looks at it before and after a cell, and what lies between is stored with the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from .jsonable import Jsonable

LOG_LINES = 5
"""Lines of a host's log that are kept where it is in trouble."""


@dataclass(frozen=True, slots=True)
class HostEvent(Jsonable):
    """What befell a host: it `died` (`text` says how), was taken `out` of the rotation (why), or is `back`."""

    host: str
    kind: Literal["died", "out", "back"]
    at: datetime
    text: str = ""


@dataclass(frozen=True, slots=True)
class HostLook:
    """One host as the proxy sees it: requests sent to it so far, failed connections, and what is wrong.

    `trouble` holds the proxy's own health flags, "" where it is healthy; `log` is the end of its server's log.
    """

    host: str
    requests: int
    connect_failures: int = 0
    trouble: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class ProxyLook:
    """One look at a proxy; every number counts from its start. `overflows` are what its breakers refused."""

    name: str
    hosts: tuple[HostLook, ...]
    overflows: Mapping[str, int] = field(default_factory=dict[str, int])
    events: tuple[HostEvent, ...] = ()
    rss_bytes: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HostTrouble(Jsonable):
    """A host that is not well at the end of a cell: the proxy's flags, failed connections, its log's end."""

    host: str
    trouble: str
    connect_failures: int = 0
    log: str = ""


@dataclass(frozen=True, slots=True)
class Mishap(Jsonable):
    """What befell a host during a cell, `at_s` seconds after its start.

    `out_after_s` is how many seconds after its death the proxy took it out (None: it did not, or none died).
    """

    host: str
    kind: Literal["died", "out", "back"]
    at_s: float
    text: str = ""
    out_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProxyFacts(Jsonable):
    """What a proxy did during one repetition of a cell; `requests` per host, zeros included.

    `rss_bytes` is the proxy's own memory at the end, `cpu_seconds` what it used in between.
    """

    name: str
    requests: Mapping[str, int]
    overflows: Mapping[str, int] = field(default_factory=dict[str, int])
    troubles: tuple[HostTrouble, ...] = ()
    mishaps: tuple[Mishap, ...] = ()
    rss_bytes: int | None = None
    cpu_seconds: float | None = None

    @property
    def hosts(self) -> int:
        """How many hosts got at least one request."""
        return sum(1 for count in self.requests.values() if count)

    @property
    def idle(self) -> tuple[str, ...]:
        """The hosts that got nothing."""
        return tuple(host for host, count in self.requests.items() if not count)


def between(
    before: ProxyLook | None, after: ProxyLook | None, *, started_at: datetime, batch: int
) -> ProxyFacts | None:
    """Return what a proxy did for a cell of `batch` sessions between two looks at it.

    None where it could not be looked at twice. A host without requests is in trouble if there were sessions
    enough for every host.
    """
    if before is None or after is None:
        return None
    earlier = {host.host: host for host in before.hosts}
    requests: dict[str, int] = {}
    troubles: list[HostTrouble] = []
    for host in after.hosts:
        then = earlier.get(host.host, HostLook(host.host, 0))
        requests[host.host] = max(host.requests - then.requests, 0)
        failures = max(host.connect_failures - then.connect_failures, 0)
        idle = not requests[host.host] and batch >= len(after.hosts)
        if host.trouble or idle:
            troubles.append(HostTrouble(host.host, host.trouble, failures, host.log))
    overflows = {name: count - before.overflows.get(name, 0) for name, count in after.overflows.items()}
    cpu = (after.cpu_seconds, before.cpu_seconds)
    return ProxyFacts(
        name=after.name,
        requests=requests,
        overflows={name: count for name, count in overflows.items() if count > 0},
        troubles=tuple(troubles),
        mishaps=_mishaps(after.events, started_at),
        rss_bytes=after.rss_bytes,
        cpu_seconds=max(cpu[0] - cpu[1], 0.0) if cpu[0] is not None and cpu[1] is not None else None,
    )


def _mishaps(events: tuple[HostEvent, ...], started_at: datetime) -> tuple[Mishap, ...]:
    """Return the events since a cell's start, a death together with the moment its host was taken out."""
    found: list[Mishap] = []
    recent = sorted((event for event in events if event.at >= started_at), key=lambda event: event.at)
    dead = {event.host: event for event in recent if event.kind == "died"}
    for event in recent:
        at_s = (event.at - started_at).total_seconds()
        death = dead.get(event.host)
        if event.kind == "died":
            outs = (later for later in recent if later.host == event.host and later.kind == "out")
            out = next(outs, None)
            after = max((out.at - event.at).total_seconds(), 0.0) if out else None
            found.append(Mishap(event.host, "died", at_s, event.text, after))
        elif death is None:
            found.append(Mishap(event.host, event.kind, at_s, event.text))
    return tuple(found)
