"""A WebSocket by hand, for what no client library would send."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def opened(address: str, path: str = "/ws", *, patience_s: float = 20) -> Iterator[socket.socket]:
    """A connection behind its handshake, whose reads and writes may take so many seconds."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as peer:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {address}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        peer.sendall("\r\n".join(lines).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += peer.recv(1)
        assert b" 101 " in answer, answer
        peer.settimeout(patience_s)
        yield peer


def client_frame(data: bytes, *, kind: int = 1, final: bool = True) -> bytes:
    """A frame of a client, masked with zeros."""
    size = len(data)
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 65_536:
        head = b"\xfe" + struct.pack(">H", size)
    else:
        head = b"\xff" + struct.pack(">Q", size)
    return bytes([0x80 * final | kind]) + head + bytes(4) + data


def read_to_end(peer: socket.socket) -> bytes:
    """Read until the other side has closed."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := peer.recv(65_536):
            received += chunk
    return received
