"""One session over one protocol: connect, reset, step × K, close; measured into one row."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.connection import Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Loss
from pytest_openenv_scale.client.messages import ObservedReply, ServerError, ServerInfo, error_in_text
from pytest_openenv_scale.config.think import ThinkTimes
from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.core.text import utf8_safe
from pytest_openenv_scale.results.cell import SessionRow

from .ipc import AnsweredError

_CLOSE_MESSAGE = Message(messages.encode_request("close"))
_UNREQUESTED = "an observation nobody asked for"
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
    answered_error: AnsweredError | None = None
    answers: list[tuple[str, bytes]] | None = None
    """The phase and the text of each answer, where they are kept."""
    first_action: bytes | None = None
    """The first step's message, where it was made while the session played."""
    late_s: float | None = None
    """The most that a standstill of this process kept a message from being sent, in seconds; None up to `LATE_S`."""
    function_s: float = 0.0
    """How long the function worked that makes actions of observations, in seconds; in no latency."""
    step_pauses: list[float] | None = None
    """The seconds before each step, where sessions think or slots play."""
    retry_after_s: float | None = None
    """When the server asks to be asked again that refused the session, in seconds from then."""
    judged: bool = True

    def look_at(self, phase: str, error: str | None) -> None:
        """Note an observation that is an error, with its words; the first one stays."""
        if error is not None and self.answered_error is None:
            self.answered_error = AnsweredError(phase, error)

    def fail(self, phase: str, kind: str, code: str | None, message: str | None) -> None:
        """Note why the session failed; the first reason stays."""
        if self.error is None:
            self.error = (phase, kind, code and utf8_safe(code), message and utf8_safe(message))

    def closed_by(self, moment: float) -> bool:
        """Whether the session had ended at a clock time; infinity is the end of all."""
        return moment == inf or (self.closed is not None and self.closed <= moment)

    def identify(self, server_info: ServerInfo) -> None:
        """Note which server process and host the session is on, as far as the environment reports them."""
        self.pid, self.host_url, self.session_hash = server_info.pid, server_info.host_url, server_info.session_hash

    def note_step(self, server_info: ServerInfo) -> None:
        """Add up how long the server says a step waited, and identify the server if the reset did not."""
        waited = server_info.waited_seconds
        if waited is not None:
            self.waited = waited if self.waited is None else self.waited + waited
        if self.pid is None:
            self.identify(server_info)

    def row(
        self,
        started: float,
        started_wall_clock: float,
        process: int,
        *,
        slot: int | None = None,
        judged: bool = True,
    ) -> SessionRow:
        """Return the row; `started` and `started_wall_clock` are the cell's start on both clocks, in seconds."""
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
            request_id=self.request_id,
            process=process,
            started_at=started_wall_clock + (start - started),
            due_s=self.due - started,
            start_s=None if self.start is None else self.start - started,
            connected_s=None if self.connected is None else self.connected - started,
            reset_done_s=None if self.reset_done is None else self.reset_done - started,
            closed_s=None if self.closed is None else self.closed - started,
            queue_latency=queue,
            connect_latency=self.connect_latency,
            reset_latency=self.reset_latency,
            hold_latency=hold,
            step_latency=stepping,
            step_latencies=self.steps,
            resets=self.resets,
            total_latency=total,
            waited_seconds=self.waited,
            steps_done=len(self.steps),
            pid=self.pid,
            session_hash=self.session_hash,
            host_url=self.host_url,
            success=self.success,
            error_phase=phase,
            error_type=kind,
            error_code=code,
            error_message=message,
            late_s=self.late_s,
            slot=slot,
            step_pauses=self.step_pauses or (),
            judged=judged,
        )


@dataclass(frozen=True, slots=True)
class SessionScript:
    """The messages a session sends, encoded once, and how long it may wait for answers.

    `steps` holds one message for every step, or one per step; timeouts are in seconds.
    """

    reset: Message
    steps: Sequence[Message]
    step_count: int
    until_done: bool
    timeout: float
    step_timeout: float
    next_action: Callable[[int, Any], Mapping[str, Any]] | None = None
    """Makes the action of a step from its number and the last observation, where `steps` are not known beforehand."""
    episode_steps: int = sys.maxsize
    """After so many steps the session is reset, and the actions begin anew."""


class Pace:
    """How a session goes from reply to step where it thinks, or plays in a slot.

    `ended` is when the step before ended (the first reset, before there is one), `due` when the think time was over
    of the step that was sent last, 0 where there was none; both are clock times in seconds.
    """

    __slots__ = ("due", "ended", "times")

    def __init__(self, times: ThinkTimes | None) -> None:
        self.times = times
        self.ended = self.due = 0.0


class BatchEvents(Protocol):
    """What a session reports to the batch it belongs to."""

    holding: bool
    ends: float
    """The clock time from which on a session takes no further step."""
    send_lags: array[float]
    """How late steps were sent whose think time was over, in seconds."""

    def think(self, session: WebSocketSession, due: float) -> None:
        """Call `think_over` of the session at a clock time."""
        ...

    def connected(self) -> None:
        """Called once per session, when its handshake succeeded or failed."""
        ...

    def ready(self, session: WebSocketSession) -> None:
        """The session reset and waits for `release`; only while `holding`."""
        ...

    def finished(self, session: WebSocketSession) -> None:
        """The session has ended; its record is final."""
        ...


class WebSocketSession:
    """Drives one WebSocket session through its phases by callbacks; it never blocks and never raises."""

    __slots__ = ("_batch", "_closing", "_connection", "_script", "deadline", "pace", "phase", "record")

    def __init__(
        self, record: SessionRecord, script: SessionScript, batch: BatchEvents, pace: Pace | None = None
    ) -> None:
        self.record = record
        self.pace = pace
        self.phase = "connect"
        self.deadline = 0.0
        self._script = script
        self._batch = batch
        self._connection: Connection
        self._closing = False

    def start(self, connection: Connection) -> None:
        """Open the connection; the session runs by itself from here."""
        self._connection = connection
        start = self.record.start = time.perf_counter()
        self.deadline = start + self._script.timeout
        connection.start()

    def ping(self) -> bool:
        """Send a ping, and return whether the one before was answered."""
        return self._connection.ping()

    def release(self, since: float) -> None:
        """Let a held session take its first step, unless it failed meanwhile; it could have since that moment."""
        if self.phase == "hold" and not self._closing:
            self._connection.cue = since
            self.record.released = time.perf_counter()
            self._proceed()

    def think_over(self) -> None:
        """Take the next step, unless the session ended while it thought."""
        if self.phase == "think" and not self._closing and self.pace is not None:
            self._connection.cue = self.pace.due
            self._step()

    def expire(self, now: float) -> None:
        """End a session whose deadline has passed."""
        if self.record.error is None:
            timeout = self._script.step_timeout if self.phase == "step" else self._script.timeout
            self.record.fail(self.phase, "timeout", None, f"no answer within {timeout:g} s")
        if self.phase == "connect":
            self._batch.connected()
        self._connection.abort()
        self._finish(now)

    # Called by the connection

    def opened(self, at: float) -> None:
        """The handshake is done: send the reset."""
        record = self.record
        assert record.start is not None
        record.connect_latency = self._connection.latency_since(record.start, at)
        record.connected = record.start + record.connect_latency
        self.phase = "reset"
        self._batch.connected()
        self._send(self._script.reset, self._script.timeout)

    def received(self, text: bytes, at: float) -> None:
        """A reply arrived: record it and send the next message."""
        if self._closing:
            return
        try:
            answer = messages.read_answer(text)
        except messages.MessageError as error:
            self._give_up("protocol", None, str(error))
            return
        if isinstance(answer, ServerError):
            self._give_up(*answer)
        elif self._connection.sent_at == inf:
            self._give_up("protocol", None, _UNREQUESTED)  # Else it would count as the answer to the next message.
        elif self.phase == "step":
            self._handle_step_reply(answer, at, text)
        elif self.phase == "reset":
            self._handle_reset_reply(answer, at, text)
        else:
            self._give_up("protocol", None, _UNREQUESTED)

    def lost(self, loss: Loss, at: float) -> None:
        """The connection ended, after a close handshake or by a failure: finish the record."""
        if self.phase == "connect":
            self._batch.connected()
        if self.phase == "close" and self.record.error is None:
            self.record.success = True
        elif loss.kind == "closed":
            reason = f": {loss.message}" if loss.message else ""
            self.record.fail(self.phase, "closed_early", loss.code, f"the server closed the session{reason}")
        else:
            self.record.fail(self.phase, loss.kind, loss.code, loss.message)
        self.record.retry_after_s = loss.retry_after_s
        self._finish(at)

    # Phases

    def _handle_reset_reply(self, answer: ObservedReply, at: float, text: bytes) -> None:
        record, latency = self.record, self._connection.latency_since(self._connection.sent_at, at)
        if record.reset_done is not None:
            record.resets = (record.resets or 0.0) + latency
            self._proceed()
            return
        record.reset_done, record.reset_latency = self._connection.sent_at + latency, latency
        if self.pace is not None:
            self.pace.ended, record.step_pauses = record.reset_done, []
        record.look_at("reset", error_in_text(text))
        if answer.server_info is not None:
            record.identify(answer.server_info)
        if self._batch.holding:
            self.phase = "hold"
            self.deadline = inf
            self._batch.ready(self)
        else:
            self._proceed()

    def _proceed(self) -> None:
        """Take the next step, after a think time where there is one."""
        pace = self.pace
        if pace is None or pace.times is None:
            self._step()
            return
        self.phase = "think"
        self.deadline = inf
        # A trainer thinks from the moment the reply is there, however late this process read it.
        pace.due = self._connection.cue + pace.times.next()
        self._batch.think(self, pace.due)

    def _step(self) -> None:
        script = self._script
        steps, number = script.steps, len(self.record.steps)
        if self.pace is not None:
            number %= script.episode_steps
        self.phase = "step"
        self._send(steps[number] if number < len(steps) else steps[-1], script.step_timeout)

    def _handle_step_reply(self, answer: ObservedReply, at: float, text: bytes) -> None:
        record, script = self.record, self._script
        latency = at - self._connection.sent_at
        if latency < 0.0:
            latency = self._connection.latency_since(self._connection.sent_at, at)
        record.steps.append(latency)
        if answer.server_info is not None:
            record.note_step(answer.server_info)
        number, done = len(record.steps), answer.done
        over = number == script.step_count or (done and script.until_done)
        if (pace := self.pace) is not None:
            self._note_pause(pace, latency)
            over = over or at >= self._batch.ends
            done = done or number % script.episode_steps == 0
        if over:
            record.finished_steps = True
            record.look_at("step", error_in_text(text))
            self.phase = "close"
            self._closing = True
            self._send(_CLOSE_MESSAGE, script.timeout)
        elif done:
            self.phase = "reset"
            self._send(script.reset, script.timeout)
        elif pace is None:
            self._step()
        else:
            self._proceed()

    def _note_pause(self, pace: Pace, latency: float) -> None:
        sent_at = self._connection.sent_at
        if self.record.step_pauses is not None:
            self.record.step_pauses.append(sent_at - pace.ended)
        pace.ended = sent_at + latency
        if pace.due:
            self._batch.send_lags.append(sent_at - pace.due)

    def _send(self, message: Message, timeout: float) -> None:
        self._connection.send_after_round(message)
        self.deadline = time.perf_counter() + timeout

    def _give_up(self, kind: str, code: str | None, message: str | None) -> None:
        """Fail the session and start a close handshake."""
        self.record.fail(self.phase, kind, code, message)
        self._closing = True
        self.deadline = time.perf_counter() + GRACE_S
        self._connection.close()

    def _finish(self, at: float) -> None:
        if self.phase == "over":
            return
        self.phase = "over"
        self.record.closed = at
        # Connection and session refer to each other, and no garbage is collected while a cell lasts.
        del self._connection
        self._batch.finished(self)


class KeptSession(WebSocketSession):
    """A session that keeps every answer in its record; only where it plays alone, as it is slower."""

    __slots__ = ()

    def received(self, text: bytes, at: float) -> None:
        """Keep the reply, then go on as ever."""
        if self.record.answers is not None:
            self.record.answers.append((self.phase, text))
        super().received(text, at)


class ObservingSession(KeptSession):
    """A session whose next action is made of the last observation, between its arrival and the next send."""

    __slots__ = ("_last_answer",)

    def received(self, text: bytes, at: float) -> None:
        """Remember the reply, then go on as ever."""
        self._last_answer = text
        super().received(text, at)

    def _step(self) -> None:
        script, record = self._script, self.record
        assert script.next_action is not None
        self.phase = "step"
        began = time.perf_counter()
        try:
            number = len(record.steps) % script.episode_steps
            action = script.next_action(number, messages.observation_in(self._last_answer))
        except WorkloadError as error:
            self._give_up("client_limit", "action", str(error))
            return
        finally:
            record.function_s += time.perf_counter() - began
        request = messages.encode_request("step", action)
        record.first_action = record.first_action or request
        self._send(Message(request), script.step_timeout)
