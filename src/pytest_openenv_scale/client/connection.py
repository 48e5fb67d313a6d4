"""One WebSocket connection of a client on a non-blocking socket: connect, TLS, upgrade, messages, close.

Arrival times are the kernel's where it gives them (`SO_TIMESTAMPNS`): what a reply waits in this process
before it is read is then no part of its latency.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from array import array
from contextlib import suppress
from math import inf
from struct import Struct
from time import perf_counter
from typing import Protocol

from . import frames
from .frames import FrameError, FrameReader, Message
from .handshake import (
    Loss,
    Route,
    TlsStream,
    describe_tls_error,
    has_response_head,
    loss_from_close,
    loss_from_error,
    new_key,
    read_connect_response,
    read_upgrade_response,
)
from .poller import READ, WRITE, Poller

# What only Linux has is looked for once, here.
_NON_BLOCKING: int = getattr(socket, "SOCK_NONBLOCK", 0)
_SO_TIMESTAMPNS = 35 if os.uname().sysname == "Linux" else None
_IP_BIND_ADDRESS_NO_PORT = 24 if os.uname().sysname == "Linux" else None
_unpack_timestamp = Struct("qq").unpack
_TIMESTAMP_SPACE = socket.CMSG_SPACE(16)
_NO_LINGER = Struct("ii").pack(1, 0)
_READ_SIZE, _LARGE_READ = 16 * 1024, 1024 * 1024
_CLOCK_PRECISION_S = 0.001
"""What the two clocks may seem to differ by although neither moved: the time between two readings of them."""

LATE_S = 0.2
"""How late a message may be sent without being kept as late, in seconds."""

PING_S = 20.0
"""How often the stock client pings, in seconds."""

_NORMAL_CLOSE = frames.close_message(1000)
_PING = Message(b"", frames.PING)
_COMMON_CLOSE_FRAMES = {b"\x88\x02\x03\xe8": (1000, ""), b"\x88\x00": (1005, "")}
"""The close frames nearly every server sends, with their code and reason."""


class Clock:
    """Converts kernel arrival times (wall clock) to `time.perf_counter()`.

    Both run at one speed, also while NTP slews them: their distance changes only where the wall clock is set, or
    the machine sleeps. `refresh()` is called regularly and adds up in `moved_s` by how much they moved apart, in
    seconds; from then on no stamp is believed, as one may be from before. `lags` collects, for each read that was
    stamped, how long its bytes had waited for this process, in seconds; `impossible_arrivals` counts the reads whose
    stamp was not believed, so that their own time counts. `late_sends` holds, for each message that was sent more than
    `LATE_S` after it could have been, that moment, the moment it was sent, and whose message it was.
    """

    __slots__ = ("impossible_arrivals", "lags", "late_sends", "moved_s", "offset")

    def __init__(self) -> None:
        self.offset = self._distance()
        self.lags = array("d")
        self.late_sends: list[tuple[float, float, Owner]] = []
        self.moved_s = 0.0
        self.impossible_arrivals = 0

    def refresh(self) -> None:
        """Measure the distance between the two clocks anew."""
        before, self.offset = self.offset, self._distance()
        if abs(self.offset - before) > _CLOCK_PRECISION_S and abs(self._distance() - before) > _CLOCK_PRECISION_S:
            self.moved_s += abs(self.offset - before)

    def arrival(self, at: float, read_at: float) -> float:
        """Return when bytes arrived that were stamped `at` and read at `read_at`, which counts where the clock was set.

        Bytes stamped just before they were read need no such look: no clock that was set stamps them so.
        """
        if not self.moved_s and abs(time.time() - read_at - self.offset) > _CLOCK_PRECISION_S:
            self.refresh()
        if self.moved_s or at - read_at > _CLOCK_PRECISION_S:
            self.impossible_arrivals += 1
            return read_at
        at = min(at, read_at)
        self.lags.append(read_at - at)
        return at

    @staticmethod
    def _distance() -> float:
        """Return wall clock − `time.perf_counter()`; the tightest of three readings counts."""
        readings: list[tuple[float, float]] = []
        for _ in range(3):
            before = time.perf_counter()
            wall = time.time()
            after = time.perf_counter()
            readings.append((after - before, wall - (before + after) / 2))
        return min(readings)[1]


class Owner(Protocol):
    """What a connection reports to; every time is a `time.perf_counter()` in seconds."""

    def opened(self, at: float) -> None:
        """The upgrade was accepted."""
        ...

    def received(self, text: bytes, at: float) -> None:
        """A whole message arrived, as text or as text in a binary frame; valid UTF-8."""
        ...

    def lost(self, loss: Loss, at: float) -> None:
        """The connection is over and its socket closed; nothing follows."""
        ...


class Connection:
    """A WebSocket client connection that calls its owner back; nothing here blocks or raises."""

    __slots__ = (
        "_awaits_pong",
        "_between_messages",
        "_buffer",
        "_clock",
        "_close_received",
        "_close_sent",
        "_fd",
        "_in_connect",
        "_key",
        "_outgoing",
        "_owner",
        "_ping_to_answer",
        "_poller",
        "_queued_message",
        "_read_size",
        "_reader",
        "_reading_stopped",
        "_route",
        "_send_error",
        "_sock",
        "_tls",
        "cue",
        "pong_arrivals",
        "sent_at",
    )

    def __init__(self, poller: Poller, clock: Clock, route: Route, owner: Owner) -> None:
        self._poller = poller
        self._clock = clock
        self._route = route
        self._owner = owner
        self._sock: socket.socket | None = None
        self._fd = -1
        self._tls: TlsStream | None = None
        self._outgoing: bytes = b""
        self._send_error: OSError | None = None
        self._buffer: bytes = b""
        self._reader: FrameReader | None = None
        self._between_messages = False  # Upgraded, in plain text, no frame half read, no close received.
        self._close_sent = False
        self._close_received: tuple[int, str] | None = None
        self._read_size = _READ_SIZE
        self._key: bytes = b""
        self._in_connect = route.proxy is not None  # Until the proxy has opened its tunnel.
        self._reading_stopped = False
        self._queued_message: Message | None = None
        self._awaits_pong = False
        self._ping_to_answer: bytes | None = None
        self.cue = inf
        """When the next message could be sent: the arrival of what it answers, unless its owner sets another moment."""
        self.pong_arrivals: list[float] | None = None
        """When pongs arrived, where somebody asks; None: nobody does."""
        self.sent_at = inf
        """When the last message queued by `send_after_round` was handed to the kernel; infinity before that."""

    # Starting

    def start(self) -> None:
        """Open the socket and send the upgrade request; an error is reported through `lost`."""
        route = self._route
        try:
            sock = self._sock = socket.socket(route.family, socket.SOCK_STREAM | _NON_BLOCKING)
            if not _NON_BLOCKING:
                sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _SO_TIMESTAMPNS is not None:
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if route.source is not None:
                if _IP_BIND_ADDRESS_NO_PORT is not None:
                    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((route.source, 0))
            status = sock.connect_ex(route.address)
        except OSError as error:
            self._finish(loss_from_error(error))
            return
        if status not in (0, errno.EINPROGRESS):
            self._finish(loss_from_error(OSError(status, os.strerror(status))))
            return
        self._fd = sock.fileno()
        self._poller.register(self._fd, READ, self._on_ready)
        if self._in_connect:
            self._write(route.connect)
        else:
            self._request_upgrade()

    def _request_upgrade(self) -> None:
        route = self._route
        self._key = new_key()
        request = route.head + self._key + b"\r\n\r\n"
        if route.tls is not None:
            self._tls = TlsStream(route.tls, route.server_name)
            self._tls.encrypt(request)
            request = self._tls.outgoing()
        self._write(request)

    # Sending

    def send_after_round(self, message: Message) -> None:
        """Send one message once all replies that are there have been read; `sent_at` is then set to that moment."""
        if self._queued_message is not None:
            self._send_queued()
        self._queued_message = message
        self.sent_at = inf
        self._poller.call_after_round(self._send_queued)

    def _send_queued(self) -> None:
        message, self._queued_message = self._queued_message, None
        if message is not None:
            sent_at = self.sent_at = self._write_message(message)
            if sent_at - self.cue > LATE_S:
                self._clock.late_sends.append((self.cue, sent_at, self._owner))

    def send(self, message: Message) -> float:
        """Send one message now; returns the moment it was handed over, just before the system call.

        A failure is not reported here: what the server sent before it closed is read first.
        """
        if self._queued_message is not None:
            self._send_queued()
        return self._write_message(message)

    def _write_message(self, message: Message) -> float:
        data = message.masked()
        if self._tls is not None:
            self._tls.encrypt(data)
            data = self._tls.outgoing()
        now = perf_counter()
        self._write(data)
        return now

    def close(self) -> None:
        """Start the close handshake; the server's answer, or its absence, is reported through `lost`."""
        if not self._close_sent:
            self._close_sent = True
            self.send(_NORMAL_CLOSE)

    def latency_since(self, sent_at: float, at: float) -> float:
        """Return the seconds from a send to the arrival of its answer at `at`.

        An arrival before the send cannot be, the wall clock was set: the moment of this call, just after the reading,
        stands for it.
        """
        if at >= sent_at:
            return at - sent_at
        self._clock.impossible_arrivals += sent_at - at > _CLOCK_PRECISION_S
        return perf_counter() - sent_at

    def ping(self) -> bool:
        """Send a ping, and return whether the one before was answered; sends none while bytes are unsent."""
        if self._reader is None or self._close_sent or self._outgoing or self._reading_stopped:
            return True
        answered = not self._awaits_pong
        self._awaits_pong = True
        self.send(_PING)
        return answered

    def keep_alive(self, every_s: float | None) -> None:
        """Ping every so many seconds until the connection ends, so that nothing takes it for idle; None: never.

        For the few sessions that are driven by hand: a timer each is too much for thousands.
        """
        loop = asyncio.get_running_loop()

        def ping() -> None:
            if every_s is not None and self._sock is not None:
                self.ping()
                loop.call_later(every_s, ping)

        if every_s is not None:
            loop.call_later(every_s, ping)

    def abort(self) -> None:
        """Drop the socket at once, without a close frame and without a report."""
        if self._sock is not None:
            self._release()

    def reset(self) -> None:
        """Drop the socket at once with a TCP reset, as the death of a process may, without a report."""
        if self._sock is not None:
            with suppress(OSError):  # macOS refuses where the other side has gone: nothing is left to be reset.
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._release()

    def stop_reading(self) -> None:
        """Read nothing any more: to the server, the client is silent and answers not even pings.

        What is sent goes out as far as the kernel takes it; nothing is reported any more.
        """
        if self._sock is not None and not self._reading_stopped:
            self._reading_stopped = True
            self._poller.unregister(self._fd)

    @property
    def upgrade_response(self) -> bytes:
        """What the server accepted the upgrade with; there only while the owner is told that it is `opened`."""
        return self._buffer

    @property
    def has_unsent_bytes(self) -> bool:
        """Whether something that was sent still waits for room in the kernel's buffers."""
        return bool(self._outgoing)

    @property
    def close_received(self) -> tuple[int, str] | None:
        """Code and reason of the server's close frame; the connection lasts until the server ends it."""
        return self._close_received

    def _write(self, data: bytes) -> None:
        if self._outgoing:
            self._outgoing += data
            return
        if self._sock is None or self._send_error is not None:
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN or self._reader is not None:
                self._send_error = error
                return
            sent = 0  # Still connecting: Linux says that it would block.
        if sent < len(data):
            self._outgoing = data[sent:]
            if not self._reading_stopped:
                self._poller.modify(self._fd, READ | WRITE)

    def _flush(self) -> None:
        data, self._outgoing = self._outgoing, b""
        self._write(data)
        if not self._outgoing:
            self._poller.modify(self._fd, READ)
            if self._ping_to_answer is not None:
                self._answer_ping(self._ping_to_answer)

    # Receiving

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE and self._outgoing:
            self._flush()
            if mask == WRITE:
                return
        sock = self._sock
        if sock is None:
            return
        try:
            data, stamps, _, _ = sock.recvmsg(self._read_size, _TIMESTAMP_SPACE)
        except BlockingIOError:
            return
        except OSError as error:
            self._handle_end_of_stream(self._send_error or error)
            return
        at = now = perf_counter()
        if stamps:
            clock = self._clock
            seconds, nanoseconds = _unpack_timestamp(stamps[0][2])
            at = seconds + nanoseconds * 1e-9 - clock.offset
            if 0.0 <= (lag := now - at) <= _CLOCK_PRECISION_S:
                clock.lags.append(lag)
            else:
                at = clock.arrival(at, now)
        self.cue = at
        if not data:
            self._handle_end_of_stream(self._send_error)
            return
        try:
            if self._between_messages and (text := frames.parse_single_text(data)) is not None:
                self._owner.received(text, at)
            else:
                self._handle_bytes(data, at)
        except FrameError as error:
            if self._close_received is None:  # What follows a close frame is ignored.
                self._fail(Loss("protocol", str(error.code), str(error)), error.code)
        except ssl.SSLError as error:
            self._finish(Loss("protocol", "tls", describe_tls_error(error)), at)

    def _handle_bytes(self, data: bytes, at: float) -> None:
        """Take bytes that are anything but one whole text message: TLS, the upgrade response, a close, other frames."""
        if len(data) == self._read_size:
            self._read_size = _LARGE_READ
        if self._tls is not None:
            self._handle_tls_bytes(self._tls, data, at)
        elif self._reader is None:
            self._handle_upgrade_bytes(data, at)
        elif self._between_messages and data in _COMMON_CLOSE_FRAMES:
            self._between_messages = False
            self._handle_close_frame(*_COMMON_CLOSE_FRAMES[data])
        else:
            self._handle_frames(self._reader, data, at)
            self._between_messages = self._reader.idle and self._close_received is None

    def _handle_tls_bytes(self, tls: TlsStream, data: bytes, at: float) -> None:
        plain = tls.decrypt(data)
        if pending := tls.outgoing():
            self._write(pending)
        if plain and self._reader is None:
            self._handle_upgrade_bytes(plain, at)
        elif plain and self._reader is not None:
            self._handle_frames(self._reader, plain, at)
        if tls.ended and self._sock is not None:
            # Many servers wait for an answer to their last record before they let go of the socket.
            self._handle_end_of_stream(None)

    def _handle_frames(self, reader: FrameReader, data: bytes, at: float) -> None:
        for opcode, payload in reader.feed(data):
            if opcode == frames.TEXT or opcode == frames.BINARY:
                if self._close_received is None:
                    self._owner.received(payload if opcode == frames.TEXT else frames.text_of_binary(payload), at)
            elif opcode == frames.PING:
                self._answer_ping(payload)
            elif opcode == frames.PONG:
                self._awaits_pong = False
                if self.pong_arrivals is not None:
                    self.pong_arrivals.append(at)
            elif opcode == frames.CLOSE:
                self._handle_close_frame(*frames.read_close(payload))
            if self._sock is None:
                return
        if reader.error is not None and self._close_received is None:
            raise reader.error

    def _answer_ping(self, payload: bytes) -> None:
        """Answer a ping, or the last of several (RFC 6455, 5.5.3) where something else waits to be sent.

        A server that pings without reading would else make us keep an answer to each.
        """
        self._ping_to_answer = payload if self._outgoing else None
        if not self._outgoing and not self._close_sent:
            self.send(Message(payload, frames.PONG))

    def _handle_close_frame(self, code: int, reason: str) -> None:
        """Note the server's close frame and answer it with the code it has."""
        self._close_received = (code, reason)
        if not self._close_sent:
            self._close_sent = True
            self.send(_NORMAL_CLOSE if code == 1000 else frames.close_message(None if code == 1005 else code))

    def _handle_upgrade_bytes(self, data: bytes, at: float, *, ended: bool = False) -> None:
        self._buffer += data
        route = self._route
        answer = (
            read_connect_response(self._buffer, route.proxy, ended=ended)
            if self._in_connect and route.proxy is not None
            else read_upgrade_response(self._buffer, self._key, route.url, ended=ended)
        )
        if answer is None:
            return
        if isinstance(answer, Loss):
            self._finish(answer, at)
            return
        if self._in_connect:
            self._buffer, self._in_connect = b"", False
            self._request_upgrade()
            if answer:
                self._handle_bytes(answer, at)
            return
        self._reader = FrameReader()
        self._between_messages = self._tls is None and not answer
        self._owner.opened(at)
        self._buffer = b""
        if answer and self._sock is not None:
            self._handle_frames(self._reader, answer, at)

    # Ending

    def _fail(self, loss: Loss, code: int) -> None:
        """End a connection over the server's fault, telling it the close code on the way out."""
        if self._reader is not None and not self._close_sent:
            self._close_sent = True
            self.send(frames.close_message(code))
        self._finish(loss)

    def _handle_end_of_stream(self, error: OSError | None) -> None:
        """Report the end of the socket: by a close frame if one came, else by the error, else as closed early."""
        if self._close_received is not None:
            self._finish(loss_from_close(*self._close_received))
        elif error is not None and error.errno != errno.EPIPE and not has_response_head(self._buffer):
            self._finish(loss_from_error(error, established=self._reader is not None or bool(self._buffer)))
        elif self._reader is None:
            self._handle_upgrade_bytes(b"", time.perf_counter(), ended=True)
        else:
            self._finish(Loss("closed_early", "1006", "closed without a close frame"))

    def _finish(self, loss: Loss, at: float | None = None) -> None:
        self._release()
        if self._in_connect and loss.code != "proxy":
            loss = Loss(loss.kind, loss.code, f"the proxy {self._route.proxy}: {loss.message}")
        self._owner.lost(loss, time.perf_counter() if at is None else at)

    def _release(self) -> None:
        sock, self._sock, self._queued_message = self._sock, None, None
        if sock is not None:
            if self._fd >= 0 and not self._reading_stopped:
                self._poller.release(self._fd)
            sock.close()
