"""The largest batch this machine lets a self-test reach, and what sets it."""

from __future__ import annotations

import psutil

from ..core.descriptors import descriptor_limit
from ..core.limits import SPARE_DESCRIPTORS, ports_there
from .null_process import SelfTestError

_SPARE_PORTS = 64
_BYTES = {"ws": 48 * 1024, "http": 192 * 1024}
"""Memory of one session: the client's, the server's and the kernel's part of it, rounded up generously."""


def ceiling(mode: str, wanted: int) -> tuple[int, str | None]:
    """Return the largest batch up to `wanted` that can be tried, and why it is smaller, where it is.

    Raises:
        SelfTestError: there is not room for a single session.
    """
    limits = [(wanted, None), _descriptors(), _memory(mode)]
    ports = ports_there()
    if ports is not None:
        # The client connects from one address to one port: each session takes a port of its own.
        limits.append((ports - _SPARE_PORTS, f"there are {ports:,} local ports (net.ipv4.ip_local_port_range)"))
    top, reason = min(limits, key=lambda limit: limit[0])
    if top < 1:
        raise SelfTestError(f"there is no room for a single session: {reason}")
    return top, reason


def _descriptors() -> tuple[int, str]:
    """The server is one process; load processes left to `auto` are as many as descriptors ask for."""
    limit = descriptor_limit()
    return limit - SPARE_DESCRIPTORS, f"the limit is {limit:,} descriptors per process (ulimit -n)"


def _memory(mode: str) -> tuple[int, str]:
    free = psutil.virtual_memory().available
    return free // 2 // _BYTES[mode], f"{free / 1e9:.1f} GB of memory are free"
