"""The sockets workers listen on, made by the process that starts them: a port in use is one clear error."""

from __future__ import annotations

import socket
import sys

# The kernel probes a silent client, so that half-open connections do not hold slots for ever.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 15, 4
# The option with which a kernel spreads connections over sockets of one address; macOS has it and does not.
_SPREADS: int | None = getattr(socket, "SO_REUSEPORT" if sys.platform == "linux" else "SO_REUSEPORT_LB", None)


def listening_sockets(host: str, port: int, count: int, backlog: int) -> list[socket.socket]:
    """`count` sockets on one address (port 0: any free one); the kernel spreads connections over them.

    One per worker: on a shared socket whoever wakes first takes all that wait, and capacity is per worker. Where the
    kernel cannot spread them, all are the same socket.
    Raises OSError when the address cannot be had.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # SO_REUSEPORT would silently share the port with another server of ours: ask for it alone first.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        address = (address[0], probe.getsockname()[1], *address[2:])
    sockets: list[socket.socket] = []
    try:
        for _ in range(count if _SPREADS is not None else 1):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            _prepare(sock, shared=count > 1)
            sock.bind(address)
            sock.listen(backlog)
        sockets += (sockets[0].dup() for _ in range(count - len(sockets)))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _prepare(sock: socket.socket, *, shared: bool) -> None:
    """Options that accepted connections inherit."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and _SPREADS is not None:
        sock.setsockopt(socket.SOL_SOCKET, _SPREADS, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
