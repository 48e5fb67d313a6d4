"""A null OpenEnv server: the least a server can do, and how long each step really took, from its own clock.

    python -m pytest_openenv_scale.selftest.null_server

listens on a free port of 127.0.0.1, prints `{"port": N}`, and ends when its standard input closes, so that
it never outlives whoever started it. It then prints one line of JSON: its sessions, its CPU time, and for
every step the seconds it took beyond the wait asked for (`overheads_s`), from the moment the request arrived
at the socket, by the kernel's clock where there is one, to the moment its answer was with the kernel.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import heapq
import itertools
import json
import os
import re
import resource
import socket
import sys
import time
from array import array
from struct import Struct
from typing import Any, NamedTuple, cast

import msgspec

from pytest_openenv_scale.client.frames import CLOSE, PING, PONG, TEXT, FrameError, FrameReader
from pytest_openenv_scale.client.poller import READ, new_selector
from pytest_openenv_scale.core.system import raise_descriptor_limit

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


MAX_WAIT_S = 3600.0
"""Longest wait a step may ask for, in seconds."""

_SO_TIMESTAMPNS = 35 if os.uname().sysname == "Linux" else None
_UNPACK_TIMESTAMP = Struct("qq").unpack
_TIMESTAMP_SPACE = socket.CMSG_SPACE(16)
_READ_SIZE = 4096
_MAX_EVENTS = 64
_BACKLOG = 65535

_SCHEMA = msgspec.json.encode(
    {
        "action": {
            "type": "object",
            "properties": {"wait_seconds": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0}},
        },
        "observation": {"type": "object"},
        "state": {"type": "object"},
    }
)


class _Refusal(Exception):
    """A message or body the server cannot act on: its code and why."""


class Peer:
    """The server's end of one connection: HTTP until it asks for the upgrade, WebSocket from then on."""

    __slots__ = ("buffer", "closing", "frames", "number", "sock", "steps", "waiting")

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock: socket.socket | None = sock
        self.number = number
        self.buffer = b""
        self.frames: FrameReader | None = None
        self.steps = 0
        self.waiting = self.closing = False


class NullServer:
    """One thread, one selector, one heap of timers; `run()` serves until a descriptor comes to its end."""

    def __init__(self, listener: socket.socket) -> None:
        self.overheads = array("d")
        self.sessions = self.open = self.peak = 0
        self._listener = listener
        self._selector = new_selector()
        self._peers: dict[int, Peer] = {}
        self._timers: list[tuple[float, int, Peer, float, float]] = []
        self._numbers = itertools.count(1)

    def run(self, until: int) -> None:
        """Serve until `until`, a pipe or a terminal, comes to its end."""
        selector, peers, timers = self._selector, self._peers, self._timers
        listening = self._listener.fileno()
        selector.register(listening, READ)
        selector.register(until, READ)
        while True:
            timeout = max(0.0, timers[0][0] - time.perf_counter()) if timers else -1
            for fd, _ in selector.poll(timeout, _MAX_EVENTS):
                peer = peers.get(fd)
                if peer is not None:
                    self._on_readable(peer)
                elif fd == listening:
                    self._accept()
                elif fd == until and not os.read(until, _READ_SIZE):
                    return
            now = time.perf_counter()
            while timers and timers[0][0] <= now:
                _, _, peer, arrived, wait = heapq.heappop(timers)
                self._answer_step(peer, arrived, wait)
                if peer.buffer and peer.sock is not None:
                    # A client that sent its next request early: it counts from when it can be looked at.
                    self._handle_requests(peer, time.perf_counter())

    def totals(self) -> dict[str, Any]:
        """Return the server's own counts and times, in seconds."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "sessions": self.sessions,
            "peak_open": self.peak,
            "steps": len(self.overheads),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
            "overheads_s": [round(value, 7) for value in self.overheads],
        }

    # Connections

    def _accept(self) -> None:
        for _ in range(_MAX_EVENTS):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            sock.setblocking(False)
            self._peers[sock.fileno()] = Peer(sock, next(self._numbers))
            self._selector.register(sock.fileno(), READ)
            self.sessions += 1
            self.open += 1
            self.peak = max(self.peak, self.open)

    def _on_readable(self, peer: Peer) -> None:
        assert peer.sock is not None
        try:
            data, ancillary, _, _ = peer.sock.recvmsg(_READ_SIZE, _TIMESTAMP_SPACE)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._drop(peer)
            return
        arrived = time.perf_counter()
        if ancillary:
            seconds, nanoseconds = _UNPACK_TIMESTAMP(ancillary[0][2])
            arrived -= max(0.0, time.time() - seconds - nanoseconds * 1e-9)
        if peer.frames is None:
            peer.buffer += data
            self._handle_requests(peer, arrived)
        else:
            self._handle_messages(peer, peer.frames, data, arrived)

    def _drop(self, peer: Peer) -> None:
        if peer.sock is not None:
            self._selector.unregister(peer.sock.fileno())
            del self._peers[peer.sock.fileno()]
            peer.sock.close()
            peer.sock = None
            self.open -= 1

    def _write(self, peer: Peer, data: bytes) -> bool:
        """Hand an answer to the kernel; a client that does not read its answers is dropped."""
        if peer.sock is not None:
            try:
                if peer.sock.send(data) == len(data):
                    return True
            except OSError:
                pass
            self._drop(peer)
        return False

    # HTTP

    def _handle_requests(self, peer: Peer, arrived: float) -> None:
        """Answer the whole requests that have come, one after the other."""
        while peer.buffer and peer.frames is None and not peer.waiting:
            try:
                request = read_request(peer.buffer)
            except RequestError as error:
                self._write(peer, http_answer(str(error), b"{}"))
                self._drop(peer)
                return
            if request is None:
                return
            peer.buffer = peer.buffer[request.used :]
            if request.key is not None:
                peer.frames = FrameReader(masked=True, max_message=MAX_MESSAGE)
                if self._write(peer, upgrade_answer(request.key)) and peer.buffer:
                    self._handle_messages(peer, peer.frames, peer.buffer, arrived)
                peer.buffer = b""
                return
            self._handle_request(peer, request.method, request.path, request.body, arrived)

    def _handle_request(self, peer: Peer, method: bytes, path: bytes, body: bytes, arrived: float) -> None:
        match method, path:
            case b"POST", b"/step":
                try:
                    self._start_step(peer, _parse_object(body).get("action"), arrived)
                except _Refusal as refusal:
                    self._write(
                        peer, http_answer("422 Unprocessable Content", msgspec.json.encode({"detail": str(refusal)}))
                    )
            case b"POST", b"/reset":
                peer.steps = 0
                self._write(peer, http_answer("200 OK", _observation_json(peer, 0.0)))
            case b"GET", b"/health":
                self._write(peer, http_answer("200 OK", b'{"status":"healthy"}'))
            case b"GET", b"/schema":
                self._write(peer, http_answer("200 OK", _SCHEMA))
            case _:
                self._write(peer, http_answer("404 Not Found", b'{"detail":"Not Found"}'))

    # WebSocket

    def _handle_messages(self, peer: Peer, frames: FrameReader, data: bytes, arrived: float) -> None:
        try:
            for opcode, payload in frames.feed(data):
                if opcode == TEXT:
                    self._handle_message(peer, payload, arrived)
                elif opcode == PING:
                    self._write(peer, server_frame(PONG, payload))
                elif opcode == CLOSE:
                    if not peer.closing:
                        self._write(peer, server_frame(CLOSE, payload[:2]))
                    self._drop(peer)
                elif opcode != PONG:
                    raise FrameError(1003, "binary message where OpenEnv speaks text")
                if peer.sock is None:
                    return
            if frames.error is not None:
                raise frames.error
        except FrameError as error:
            self._write(peer, server_frame(CLOSE, error.code.to_bytes(2, "big") + str(error).encode()))
            self._drop(peer)

    def _handle_message(self, peer: Peer, payload: bytes, arrived: float) -> None:
        try:
            message = _parse_object(payload)
            match message.get("type"):
                case "step":
                    self._start_step(peer, message.get("data"), arrived)
                case "reset":
                    peer.steps = 0
                    self._send_text(peer, b'{"type":"observation","data":%b}' % _observation_json(peer, 0.0))
                case "state":
                    state = {"episode_id": f"{peer.number:012x}", "step_count": peer.steps}
                    self._send_text(peer, msgspec.json.encode({"type": "state", "data": state}))
                case "close":
                    peer.closing = True
                    self._write(peer, server_frame(CLOSE, b"\x03\xe8"))
                case kind:
                    raise _Refusal(f"unknown message type {kind!r}")
        except _Refusal as refusal:
            data = {"message": str(refusal), "code": "VALIDATION_ERROR"}
            self._send_text(peer, msgspec.json.encode({"type": "error", "data": data}))

    def _send_text(self, peer: Peer, text: bytes) -> bool:
        return self._write(peer, server_frame(TEXT, text))

    # Steps, the same for both

    def _start_step(self, peer: Peer, action: object, arrived: float) -> None:
        """Answer a step now, or when the wait it asks for is over; what it asks is checked at once."""
        wait: object = cast("dict[str, object]", action).get("wait_seconds", 0) if isinstance(action, dict) else None
        if type(wait) not in (int, float) or not 0 <= cast("float", wait) <= MAX_WAIT_S:
            raise _Refusal(f"wait_seconds must be a number of seconds from 0 to {MAX_WAIT_S:g}")
        seconds = float(cast("float", wait))
        peer.waiting = True
        if seconds:
            due = time.perf_counter() + seconds
            heapq.heappush(self._timers, (due, next(self._numbers), peer, arrived, seconds))
        else:
            self._answer_step(peer, arrived, seconds)

    def _answer_step(self, peer: Peer, arrived: float, wait: float) -> None:
        peer.waiting = False
        peer.steps += 1
        body = _observation_json(peer, wait)
        if peer.frames is None:
            written = self._write(peer, http_answer("200 OK", body))
        else:
            written = self._send_text(peer, b'{"type":"observation","data":%b}' % body)
        if written:
            self.overheads.append(time.perf_counter() - arrived - wait)


_PID = os.getpid()


def _observation_json(peer: Peer, waited: float) -> bytes:
    return (
        f'{{"observation":{{"waited_seconds":{waited!r},"pid":{_PID},"session_hash":"{peer.number:012x}",'
        f'"host_url":"null:0","step_count":{peer.steps}}},"reward":null,"done":false}}'
    ).encode()


def _parse_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        _Refusal: it is not one.
    """
    try:
        value: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise _Refusal("not JSON") from None
    if not isinstance(value, dict):
        raise _Refusal("not a JSON object")
    return cast("dict[str, Any]", value)


def listening_socket() -> socket.socket:
    """Return a socket that listens on a free port of 127.0.0.1; what it accepts has its options."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _SO_TIMESTAMPNS is not None:
        listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _print_json(value: object) -> None:
    """Write one line of JSON to standard output; nothing where nobody listens any more."""
    data = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        return


def main() -> int:
    """Serve until standard input closes; returns the exit code."""
    raise_descriptor_limit()
    listener = listening_socket()
    server = NullServer(listener)
    _print_json({"port": listener.getsockname()[1]})
    gc.freeze()
    gc.disable()
    try:
        server.run(sys.stdin.fileno())
    except PermissionError:
        print("standard input must be a pipe or a terminal: the server ends when it closes", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    _print_json(server.totals())
    return 0


if __name__ == "__main__":
    sys.exit(main())
