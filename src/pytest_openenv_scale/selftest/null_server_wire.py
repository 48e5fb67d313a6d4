"""Bytes as the null server needs them: WebSocket frames of a server, and HTTP/1.1 with the upgrade."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from pytest_openenv_scale.client.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameError

MAX_MESSAGE = 1024 * 1024
"""Longest message taken, in bytes."""

_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final, unmasked frame."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def unmask(key: bytes, payload: bytes) -> bytes:
    """Return a payload with its mask of four bytes taken off."""
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


class ClientFrames:
    """Turns what a client sends into messages `(opcode, payload)`, wherever the bytes are split."""

    __slots__ = ("_fragments", "_kind", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._fragments: list[bytes] | None = None
        self._kind = 0
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return the messages they complete, control frames included.

        Raises:
            FrameError: the bytes are not what a client may send; nothing may be fed after it.
        """
        if self._rest:
            data = self._rest + data
        messages: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, length, start = data[at], data[at + 1], at + 2
            if not length & 0x80:
                raise FrameError(1002, "unmasked frame from a client")
            length &= 0x7F
            _check_frame_head(first, length)
            if length >= 126:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if self._size + length > MAX_MESSAGE:
                raise FrameError(1009, f"message longer than {MAX_MESSAGE} bytes")
            start += 4
            if end < start + length:
                break
            at = start + length
            message = self._assemble(first, unmask(data[start - 4 : start], data[start:at]))
            if message is not None:
                messages.append(message)
        self._rest = data[at:]
        return messages

    def _assemble(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        """Join fragments; return a message when one is complete."""
        opcode, final = first & 0x0F, first & 0x80
        if opcode >= CLOSE or (final and opcode != CONTINUATION and self._fragments is None):
            return opcode, payload
        if opcode == CONTINUATION:
            if self._fragments is None:
                raise FrameError(1002, "continuation without a message to continue")
        elif self._fragments is not None:
            raise FrameError(1002, "new message inside a fragmented one")
        else:
            self._kind, self._fragments = opcode, []
        self._fragments.append(payload)
        self._size += len(payload)
        if not final:
            return None
        whole = b"".join(self._fragments)
        self._fragments, self._size = None, 0
        return self._kind, whole


def _check_frame_head(first: int, length: int) -> None:
    """Refuse what no client may send, as soon as the first two bytes show it."""
    opcode = first & 0x0F
    if first & 0x70:
        raise FrameError(1002, "reserved bits set although no extension was agreed")
    if opcode not in _OPCODES:
        raise FrameError(1002, f"unknown opcode {opcode}")
    if opcode >= CLOSE and (length > 125 or not first & 0x80):
        raise FrameError(1002, "control frame that is fragmented or longer than 125 bytes")


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
