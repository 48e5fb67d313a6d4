"""What a cell needs of this machine and what there is: descriptors, ports towards each server, cores.

Everything here is read before a session is started and costs microseconds; only where ports may really run
short are the hosts resolved and the kernel's table of connections read.
"""

from __future__ import annotations

import math
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.client.handshake import RouteError, find_address

SPARE_DESCRIPTORS = 64
"""Descriptors a load process needs besides its sessions'."""

WIDEST_RANGE = (1024, 65535)
"""The widest net.ipv4.ip_local_port_range an unprivileged client can use."""

_PROC = Path("/proc")
_MAX_FILL_SHARE = 0.5
"""Largest share of one source's ports a cell takes before it uses more loopback addresses: the kernel then finds a
free port without a search."""
_LISTEN, _TIME_WAIT = "0A", "06"


def runnable_wait_s() -> float:
    """Return for how many seconds in all the main thread of this process was ready to run and had no core.

    The kernel's own count (/proc/self/schedstat); 0 where it keeps none.
    """
    words = _read_proc("self/schedstat").split()
    return int(words[1]) * 1e-9 if len(words) > 1 else 0.0


def peak_rss_bytes() -> int:
    """Return the most memory this process has held, in bytes.

    Not `getrusage`, where there is something better: a child starts there with the figure of its parent.
    """
    for line in _read_proc("self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def ports_per_source() -> int | None:
    """Return how many connections one source address can have to one destination; None where that is unknown.

    That is the width of net.ipv4.ip_local_port_range less what is reserved: 28,232 by default.
    """
    span = _port_range()
    if span is None:
        return None
    low, high = span
    reserved = _read_proc("sys/net/ipv4/ip_local_reserved_ports").strip()
    reserved_count = sum(
        max(0, min(high, last) - max(low, first) + 1)
        for first, last in (_parse_range(part) for part in reserved.split(",") if part)
    )
    return max(0, high - low + 1 - reserved_count)


def ports_in_use() -> int:
    """Return an upper bound of the ports in use towards any one destination, those in TIME_WAIT included.

    It is the number of TCP sockets of this network namespace: one short file, however many there are.
    """
    for line in _read_proc("net/sockstat").splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            figures = dict(zip(words[1::2], map(int, words[2::2]), strict=False))
            return figures.get("inuse", 0) + figures.get("tw", 0)
    return 0


def loopback_source(number: int) -> str:
    """Return a loopback address to connect from, 127.0.1.1 for number 0: each has ports of its own."""
    return socket.inet_ntoa((0x7F000101 + number % 0x00F00000).to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class Destination:
    """One address and port of a server, and how many of a cell's connections go there."""

    address: str
    port: int
    connections: int

    @property
    def allows_many_sources(self) -> bool:
        """Whether connections to it can be spread over source addresses: on Linux all of 127.0.0.0/8 is ours."""
        return self.address.startswith("127.") and sys.platform == "linux"

    @property
    def text(self) -> str:
        """The destination as address:port, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def ports_held(self) -> int:
        """Return how many ports earlier connections to this destination still hold.

        One in TIME_WAIT does not count where the kernel gives it out again (net.ipv4.tcp_tw_reuse=1).
        """
        remote = f"{_kernel_address(self.address)}:{self.port:04X}"
        ignored_states = {_LISTEN, _TIME_WAIT} if _read_proc("sys/net/ipv4/tcp_tw_reuse").strip() == "1" else {_LISTEN}
        table = _read_proc("net/tcp6" if ":" in self.address else "net/tcp")
        rows = (line.split(maxsplit=4) for line in table.splitlines()[1:])
        return sum(1 for row in rows if len(row) > 3 and row[2] == remote and row[3] not in ignored_states)


@dataclass(frozen=True, slots=True)
class PortBudget:
    """The ports of a cell: `needed` towards the busiest destination, `per_source` from one source address.

    `sources` are how many source addresses the load processes connect from together, 0 to leave that to the
    system; `shortage` says in one line, with the remedy, that there are too few ports.
    """

    needed: int
    per_source: int | None
    sources: int = 0
    shortage: str | None = None


def plan_ports(urls: Sequence[str], connections: int, *, several_sources: bool) -> PortBudget:
    """Find out whether `connections` spread round-robin over `urls` have the ports they need.

    `several_sources` says whether the client can choose the address it connects from. Hosts are resolved,
    which may block, only where ports may run short.
    """
    per_source = ports_per_source()
    in_use = ports_in_use()
    if per_source is None or connections + in_use <= per_source * _MAX_FILL_SHARE:
        return PortBudget(
            math.ceil(connections / len(urls)) if len(set(urls)) == len(urls) else connections, per_source
        )
    try:
        destinations = _destinations(urls, connections)
    except RouteError:  # The load processes refuse it too, and say why.
        return PortBudget(connections, per_source)
    needed = max(destination.connections for destination in destinations)
    if several_sources and all(destination.allows_many_sources for destination in destinations):
        return PortBudget(needed, per_source, math.ceil(needed / max(1.0, per_source * _MAX_FILL_SHARE)))
    shortages = (
        _shortage_message(destination, per_source)
        for destination in destinations
        if destination.connections + in_use > per_source
    )
    return PortBudget(needed, per_source, 0, next((shortage for shortage in shortages if shortage), None))


def _destinations(urls: Iterable[str], connections: int) -> list[Destination]:
    urls = list(urls)
    counts: Counter[tuple[str, int]] = Counter()
    for number, url in enumerate(urls):
        server = find_address(url)
        counts[str(server.address[0]), server.port] += len(range(number, connections, len(urls)))
    return [Destination(address, port, count) for (address, port), count in counts.items()]


def _shortage_message(destination: Destination, per_source: int) -> str | None:
    """Return a line saying that a destination's ports do not suffice, with remedies; None where they do."""
    ports_held = destination.ports_held()
    needed = destination.connections
    if needed + ports_held <= per_source:
        return None
    low, high = _port_range() or WIDEST_RANGE
    held_note = f", {ports_held:,} of them still held by other connections" if ports_held else ""
    remedies: list[str] = []
    widest = WIDEST_RANGE[1] - WIDEST_RANGE[0] + 1
    if needed + ports_held <= widest and per_source < widest:
        remedies.append("widen the range with sysctl -w net.ipv4.ip_local_port_range='{} {}'".format(*WIDEST_RANGE))
    if ports_held and needed <= per_source:
        remedies.append("wait until those are released (a minute after they were closed)")
    if destination.address == "::1":
        remedies.append("write 127.0.0.1 instead of [::1]: there the client takes several source addresses")
    remedies.append("spread the sessions over URLs with several addresses or ports, or over client machines")
    return (
        f"{needed:,} connections to {destination.text} need as many ports, and this machine has {per_source:,}"
        f" towards it (net.ipv4.ip_local_port_range {low} {high}){held_note}: {'; or '.join(remedies)}"
    )


def _port_range() -> tuple[int, int] | None:
    words = _read_proc("sys/net/ipv4/ip_local_port_range").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _parse_range(part: str) -> tuple[int, int]:
    first, _, last = part.partition("-")
    return int(first), int(last or first)


def _kernel_address(address: str) -> str:
    """Return an address as /proc/net/tcp writes it: words in the byte order of this machine, in hexadecimal."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address.partition("%")[0])
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _read_proc(name: str) -> str:
    try:
        return (_PROC / name).read_text()
    except OSError:
        return ""
