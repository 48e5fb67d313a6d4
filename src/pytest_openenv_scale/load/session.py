"""One session over one protocol: connect, reset, step × K, close; measured into one row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.connection import Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Loss
from pytest_openenv_scale.client.messages import ObservedReply, ServerError, ServerInfo
from pytest_openenv_scale.core.text import utf8_safe
from pytest_openenv_scale.results.row import SessionRow

_GOODBYE = Message(messages.encode_request("close"))
_UNASKED = "an observation nobody asked for"
GRACE_S = 5.0
"""Longest a failed session waits for the server to finish closing, in seconds."""


@dataclass(slots=True)
class SessionRecord:
    """What is known of a session while it lives; absolute times are `time.perf_counter()` in seconds."""

    request_id: int
    due: float
    start: float | None = None
    connected: float | None = None
    connect_latency: float | None = None
    reset_done: float | None = None
    reset_latency: float | None = None
    released: float | None = None
    steps: list[float] = field(default_factory=list[float])
    finished_steps: bool = False
    resets: float | None = None
    waited: float | None = None
    pid: int | None = None
    session_hash: str | None = None
    host_url: str | None = None
    closed: float | None = None
    success: bool = False
    error: tuple[str, str, str | None, str | None] | None = None

    def fail(self, phase: str, kind: str, code: str | None, message: str | None) -> None:
        """Note why the session failed; the first reason stays."""
        if self.error is None:
            self.error = (phase, kind, code and utf8_safe(code), message and utf8_safe(message))

    def identify(self, told: ServerInfo) -> None:
        """Note which server the session is on, where it says so."""
        self.pid, self.host_url, self.session_hash = told.pid, told.host_url, told.session_hash

    def stepped(self, told: ServerInfo) -> None:
        """Note how long the server says a step waited, and where the session is if the reset did not tell."""
        waited = told.waited_seconds
        if waited is not None:
            self.waited = waited if self.waited is None else self.waited + waited
        if self.pid is None:
            self.identify(told)

    def row(self, began: float, began_wall: float, process: int) -> SessionRow:
        """Return the row; `began` and `began_wall` are the cell's start on both clocks, in seconds."""
        phase, kind, code, message = self.error or (None, None, None, None)
        queue = None if self.start is None else self.start - self.due
        stepping = sum(self.steps) if self.finished_steps else None
        hold = None if self.released is None or self.reset_done is None else max(0.0, self.released - self.reset_done)
        start = self.due if self.start is None else self.start
        total = None
        if self.success:
            total = (
                (queue or 0.0)
                + (self.connect_latency or 0.0)
                + (self.reset_latency or 0.0)
                + (stepping or 0.0)
                + (self.resets or 0.0)
            )
        return SessionRow(
            self.request_id,
            process,
            began_wall + (start - began),
            self.due - began,
            None if self.start is None else self.start - began,
            None if self.connected is None else self.connected - began,
            None if self.reset_done is None else self.reset_done - began,
            None if self.closed is None else self.closed - began,
            queue,
            self.connect_latency,
            self.reset_latency,
            hold,
            stepping,
            self.steps,
            self.resets,
            total,
            self.waited,
            len(self.steps),
            self.pid,
            self.session_hash,
            self.host_url,
            self.success,
            phase,
            kind,
            code,
            message,
        )


@dataclass(frozen=True, slots=True)
class SessionScript:
    """What the sessions of a cell say and how long they may wait for answers, encoded once.

    `steps` holds one message for every step, or one per step; timeouts are in seconds.
    """

    reset: Message
    steps: Sequence[Message]
    count: int
    until_done: bool
    timeout: float
    step_timeout: float


class BatchEvents(Protocol):
    """What a session tells the batch it belongs to."""

    holding: bool

    def connected(self) -> None:
        """Called once per session, when its handshake succeeded or failed."""
        ...

    def ready(self, session: WebSocketSession) -> None:
        """The session reset and waits for `release`; only while `holding`."""
        ...

    def over(self, session: WebSocketSession) -> None:
        """The session has ended; its record is final."""
        ...


class WebSocketSession:
    """Drives one WebSocket session through its phases by callbacks; it never blocks and never raises."""

    __slots__ = ("_batch", "_connection", "_ending", "_script", "deadline", "phase", "record")

    def __init__(self, record: SessionRecord, script: SessionScript, batch: BatchEvents) -> None:
        self.record = record
        self.phase = "connect"
        self.deadline = 0.0
        self._script = script
        self._batch = batch
        self._connection: Connection
        self._ending = False

    def start(self, connection: Connection) -> None:
        """Open the connection; the session runs by itself from here."""
        self._connection = connection
        start = self.record.start = time.perf_counter()
        self.deadline = start + self._script.timeout
        connection.start()

    def release(self) -> None:
        """Let a held session take its first step, unless it failed meanwhile."""
        if self.phase == "hold" and not self._ending:
            self.record.released = time.perf_counter()
            self._step()

    def expire(self, now: float) -> None:
        """End a session whose deadline has passed."""
        if self.record.error is None:
            allowed = self._script.step_timeout if self.phase == "step" else self._script.timeout
            self.record.fail(self.phase, "timeout", None, f"no answer within {allowed:g} s")
        if self.phase == "connect":
            self._batch.connected()
        self._connection.abort()
        self._over(now)

    # Called by the connection

    def opened(self, at: float) -> None:
        """The handshake is done: reset."""
        record = self.record
        assert record.start is not None
        record.connected = at
        record.connect_latency = max(0.0, at - record.start)
        self.phase = "reset"
        self._batch.connected()
        self._say(self._script.reset, self._script.timeout)

    def received(self, text: bytes, at: float) -> None:
        """A reply arrived: record it and say the next thing."""
        if self._ending:
            return
        try:
            answer = messages.read_answer(text)
        except messages.MessageError as error:
            self._give_up("protocol", None, str(error))
            return
        if isinstance(answer, ServerError):
            self._give_up(*answer)
        elif self._connection.said_at == inf:
            self._give_up("protocol", None, _UNASKED)  # Else it would answer what is said next, in no time.
        elif self.phase == "step":
            self._stepped(answer, at)
        elif self.phase == "reset":
            self._was_reset(answer, at)
        else:
            self._give_up("protocol", None, _UNASKED)

    def lost(self, loss: Loss, at: float) -> None:
        """The connection ended: as agreed, or by failure."""
        if self.phase == "connect":
            self._batch.connected()
        if self.phase == "close" and self.record.error is None:
            self.record.success = True
        elif loss.kind == "closed":
            reason = f": {loss.message}" if loss.message else ""
            self.record.fail(self.phase, "closed_early", loss.code, f"the server closed the session{reason}")
        else:
            self.record.fail(self.phase, loss.kind, loss.code, loss.message)
        self._over(at)

    # Phases

    def _was_reset(self, answer: ObservedReply, at: float) -> None:
        record, taken = self.record, max(0.0, at - self._connection.said_at)
        if record.reset_done is not None:
            record.resets = (record.resets or 0.0) + taken
            self._step()
            return
        record.reset_done, record.reset_latency = at, taken
        if answer.server_info is not None:
            record.identify(answer.server_info)
        if self._batch.holding:
            self.phase = "hold"
            self.deadline = inf
            self._batch.ready(self)
        else:
            self._step()

    def _step(self) -> None:
        script = self._script
        steps, done = script.steps, len(self.record.steps)
        self.phase = "step"
        self._say(steps[done] if done < len(steps) else steps[-1], script.step_timeout)

    def _stepped(self, answer: ObservedReply, at: float) -> None:
        record, script = self.record, self._script
        taken = at - self._connection.said_at
        record.steps.append(taken if taken > 0.0 else 0.0)
        if answer.server_info is not None:
            record.stepped(answer.server_info)
        if len(record.steps) == script.count or (answer.done and script.until_done):
            record.finished_steps = True
            self.phase = "close"
            self._ending = True
            self._say(_GOODBYE, script.timeout)
        elif answer.done:
            self.phase = "reset"
            self._say(script.reset, script.timeout)
        else:
            self._step()

    def _say(self, message: Message, timeout: float) -> None:
        self._connection.say(message)
        self.deadline = time.perf_counter() + timeout

    def _give_up(self, kind: str, code: str | None, message: str | None) -> None:
        """Fail the session, and leave in good order."""
        self.record.fail(self.phase, kind, code, message)
        self._ending = True
        self.deadline = time.perf_counter() + GRACE_S
        self._connection.close()

    def _over(self, at: float) -> None:
        if self.phase == "over":
            return
        self.phase = "over"
        self.record.closed = at
        self._batch.over(self)
