"""Bytes as the null server needs them: WebSocket frames of a server, and HTTP/1.1 with the upgrade."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

MAX_MESSAGE = 1024 * 1024
"""Longest message taken, in bytes."""


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final, unmasked frame."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


MAX_HEAD, MAX_BODY = 64 * 1024, 1024 * 1024
"""Longest head and body of a request, in bytes."""

_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIRST_LINE = re.compile(rb"([A-Z]+) ([^ ?\r\n]+)[^ \r\n]* HTTP/1\.[01]\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,10})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([A-Za-z0-9+/=]+)[ \t]*\r\n", re.IGNORECASE)


class RequestError(Exception):
    """Bytes that are no request this server takes; the text is the status line to answer with."""


class Request(NamedTuple):
    """One request; `key` is that of an upgrade to WebSocket, `used` how many bytes the request took."""

    method: bytes
    path: bytes
    body: bytes
    key: bytes | None
    used: int


def read_request(data: bytes) -> Request | None:
    """Return the request that `data` begins with, None while it is not whole.

    Raises:
        RequestError: it is no HTTP request, too long, or has a body without a length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_HEAD:
            raise RequestError("431 Request Header Fields Too Large")
        return None
    start = end + 4
    first = _FIRST_LINE.match(data, 0, start)
    if first is None:
        raise RequestError("400 Bad Request")
    key = _KEY.search(data, 0, start)
    if key is not None:
        return Request(first[1], first[2], b"", key[1], start)
    if _CHUNKED.search(data, 0, start):
        raise RequestError("411 Length Required")
    length = _LENGTH.search(data, 0, start)
    size = int(length[1]) if length else 0
    if size > MAX_BODY:
        raise RequestError("413 Content Too Large")
    if len(data) < start + size:
        return None
    return Request(first[1], first[2], data[start : start + size], None, start + size)


def http_answer(status: str, body: bytes) -> bytes:
    """Return a JSON answer after which the connection stays open."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def upgrade_answer(key: bytes) -> bytes:
    """Return the acceptance of an upgrade asked for with this key."""
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_SALT, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
