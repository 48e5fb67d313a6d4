"""The HTTP sessions of one process's share of a cell: a task each, behind the same window and the same release."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.handshake import check_headers, find_address
from pytest_openenv_scale.client.http import HttpChannel, HttpFailure, HttpPool, Timing, encode_body
from pytest_openenv_scale.client.messages import error_in
from pytest_openenv_scale.config.think import ThinkTimes
from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.core.parsing import parse_arrival

from .arrivals import Arrivals
from .client_health import AnswerLags
from .ipc import Prepare, SessionMessages
from .session import SessionRecord

T = TypeVar("T")


class HttpWorkerShare:
    """What a share does in HTTP mode: `run()` plays its sessions, `release()` ends their hold.

    `window` is how many may connect and reset at once, `on_start` is called with the record of every session that
    starts, `on_ready` once for each that is reset or failed before, `on_end` with the record of each that ends and its
    think times.
    """

    def __init__(
        self,
        assignment: Prepare,
        window: int,
        on_start: Callable[[SessionRecord], None],
        on_ready: Callable[[], None],
        on_end: Callable[[SessionRecord, ThinkTimes | None], object],
    ) -> None:
        """Make everything the sessions need, before time counts.

        Raises:
            RouteError: a URL or a header cannot be used.
            WorkloadError: an action cannot be made.
        """
        self._assignment = assignment
        self._request = assignment.request
        self._cell = cell = assignment.request.cell
        self._window = window
        self._on_start = on_start
        self._on_ready = on_ready
        self._on_end = on_end
        kind = parse_arrival(cell.arrival).kind
        self._holds, self._steady = kind == "hold", kind == "steady"
        self._step_timeout = self._request.timeout_s + (cell.wait or 0.0)
        self._held_sessions: deque[asyncio.Future[None]] = deque()
        self._released = False
        self.open = 0
        """How many sessions are open."""
        self.steps_of_open = 0
        """How many steps those have taken."""
        self._changed = asyncio.Event()
        self._lags = AnswerLags()
        check_headers(self._request.headers)
        self._addresses = [find_address(url) for url in self._request.network.destinations(self._request.urls)]
        workload = self._request.workload
        make_action = self._make_action = workload.maker(cell.wait)
        self._reset_body = self._encode_ahead(
            workload.seeded, lambda number: encode_body(workload.reset_data(number, self._request.seed))
        )

        def encode(number: int) -> list[bytes]:
            count = cell.steps if workload.per_session else min(cell.steps, len(workload.actions))
            return [encode_body({"action": make_action(number, step)}) for step in range(count)]

        self._step_bodies = None if make_action.observes else self._encode_ahead(workload.per_session, encode)
        self.messages: SessionMessages | None = None
        """What session 0 sends, where its messages are kept; its answers are in its record."""
        if self._request.keep_messages and 0 in assignment.sessions:
            actions = () if self._step_bodies is None else tuple(self._step_bodies(0))
            self.messages = SessionMessages(self._reset_body(0), actions, ())

    def _encode_ahead(self, per_session: bool, encode: Callable[[int], T]) -> Callable[[int], T]:
        """Encode bodies before the cell, for each session or once for all; returns a function of a session's number.

        Where slots play any number of sessions, it encodes as each begins.
        """
        if per_session and self._steady:
            return encode
        if per_session:
            return {number: encode(number) for number in self._assignment.sessions}.__getitem__
        shared = encode(0)
        return lambda number: shared

    def release(self) -> None:
        """Let the held sessions step, one per turn of the event loop; called once the whole batch is ready."""
        self._released = True
        self._release_one()

    def wake(self) -> None:
        """Look again at which session is due next: another one is, or none is left."""
        self._changed.set()

    async def run(self, arrivals: Arrivals) -> None:
        """Play the sessions to their end.

        One session starts per turn of the event loop: what arrives meanwhile waits for the turn to end.
        """
        window = asyncio.Semaphore(self._window)
        request = self._request
        pool = HttpPool(request.headers, request.http_connections, self._addresses, request.network)
        playing: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while (first := arrivals.first()) is not None or playing:
                    due_at = inf if first is None else first[0]
                    if (delay := due_at - time.perf_counter()) > 0.0:
                        await self._await_change(delay)
                        continue
                    await asyncio.sleep(0)
                    await window.acquire()
                    if arrivals.first() is None:  # None is to begin any more, as too many have failed meanwhile.
                        window.release()
                        continue
                    due_at, number = arrivals.take()
                    task = group.create_task(self._run_session(due_at, number, window, pool))
                    playing.add(task)
                    task.add_done_callback(playing.discard)
                    task.add_done_callback(lambda _: self.wake())
        finally:
            await pool.close()

    async def _await_change(self, longest_s: float) -> None:
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if longest_s == inf else longest_s):
                await self._changed.wait()

    async def _run_session(self, due_at: float, number: int, window: asyncio.Semaphore, pool: HttpPool) -> None:
        request = self._request
        record = SessionRecord(number, time.perf_counter() if self._holds else due_at)
        if self.messages is not None and number == 0:
            record.answers = []
        self._on_start(record)
        think = None if request.think is None else ThinkTimes(request.think, request.seed, number)
        try:
            reset_body = self._reset_body(number)
            bodies = None if self._step_bodies is None else self._step_bodies(number)
        except WorkloadError as error:
            record.fail("connect", "client_limit", "action", str(error))
            record.closed = time.perf_counter()
            window.release()
            self._on_ready()
            self._on_end(record, None)
            return
        session = HttpSession(record, HttpChannel(self._assignment.route(number)[0], pool), self._lags)
        succeeded = await session.reset(reset_body, request.timeout_s)
        self.open += 1
        window.release()
        self._on_ready()
        if succeeded and self._holds:
            await self._hold()
            record.released = time.perf_counter()
        if succeeded:
            if think is not None or self._steady:
                record.step_pauses = []
            await self._run_steps(session, bodies, think)
        await session.close()
        self.open -= 1
        self.steps_of_open -= len(record.steps)
        self._on_end(record, think)

    async def _hold(self) -> None:
        if not self._released:
            release: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held_sessions.append(release)
            await release

    async def _run_steps(self, session: HttpSession, bodies: list[bytes] | None, think: ThinkTimes | None) -> None:
        record = session.record
        for step in range(self._cell.steps):
            if think is not None:
                await asyncio.sleep(think.next())
            body = (
                self._made_body(session, record.request_id, step)
                if bodies is None
                else bodies[min(step, len(bodies) - 1)]
            )
            if body is None:
                break
            reply = await session.step(body, self._step_timeout)
            self.steps_of_open += reply is not None
            if reply is None or (reply.done and self._request.until_done):
                break
        record.finished_steps = record.success = record.error is None

    def _made_body(self, session: HttpSession, number: int, step: int) -> bytes | None:
        """Return the body of a step whose action is made of the last observation; None where the function failed."""
        record, began = session.record, time.perf_counter()
        try:
            body = encode_body({"action": self._make_action(number, step, session.last_observation)})
        except WorkloadError as error:
            record.fail("step", "client_limit", "action", str(error))
            return None
        finally:
            record.function_s += time.perf_counter() - began
        record.first_action = record.first_action or body
        return body

    @property
    def answer_lags(self) -> AnswerLags:
        """How late answers were seen."""
        return self._lags

    def _release_one(self) -> None:
        if self._held_sessions:
            self._held_sessions.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self._release_one)


class HttpSession:
    """Drives one HTTP session; `reset()` and `step()` note times and failures in the record.

    Each `POST /step` stands alone: HTTP cannot hold an episode, so a `done` is not followed by a reset. The
    client's own share of connect, reset and step times goes to `lags`.
    """

    def __init__(self, record: SessionRecord, channel: HttpChannel, lags: AnswerLags) -> None:
        self.record = record
        self.last_observation: Any = None
        self._channel = channel
        self._lags = lags
        self._lag_s: float | None = None
        self._ended = 0.0

    async def reset(self, body: bytes, timeout_s: float) -> bool:
        """Connect and reset; returns whether that worked."""
        record = self.record
        record.start = time.perf_counter()
        try:
            data = await self._post("reset", body, timeout_s)
        except HttpFailure as failure:
            timing = self._note_connection()
            was_connected = timing.reused or timing.connected_at is not None
            record.fail("reset" if was_connected else "connect", failure.kind, failure.code, failure.message)
            record.retry_after_s = failure.retry_after_s
            return False
        timing = self._note_connection()
        record.reset_done = timing.answered_at
        self._ended = timing.answered_at or 0.0
        record.reset_latency = timing.answer_s
        self._lags.connect.append(timing.connect_lag_s)
        self._lags.reset.append(timing.answer_lag_s)
        self._add_lag(timing)
        record.look_at("reset", error_in(data))
        server_info = messages.as_observed_reply(data).server_info
        if server_info is not None:
            record.identify(server_info)
        return True

    async def step(self, body: bytes, timeout_s: float) -> messages.ObservedReply | None:
        """Take one step; None after a failure. A connection that has to be made for it is part of its time."""
        try:
            data = await self._post("step", body, timeout_s)
        except HttpFailure as failure:
            self.record.fail("step", failure.kind, failure.code, failure.message)
            return None
        timing = self._channel.last_timing
        latency = (timing.connect_s or 0.0) + timing.answer_s
        self.record.steps.append(latency)
        if self.record.step_pauses is not None and timing.answered_at is not None:
            self.record.step_pauses.append(timing.answered_at - latency - self._ended)
            self._ended = timing.answered_at
        self._lags.step.append(
            None if timing.answer_lag_s is None else timing.answer_lag_s + (timing.connect_lag_s or 0.0)
        )
        self._add_lag(timing)
        answer = messages.as_observed_reply(data)
        if answer.server_info is not None:
            self.record.note_step(answer.server_info)
        self.record.look_at("step", error_in(data))
        return answer

    async def _post(self, phase: str, body: bytes, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the observation it is answered with.

        Raises:
            HttpFailure: no answer in time, or one that is none.
        """
        data = await self._channel.post(f"/{phase}", body, timeout_s)
        if self.record.answers is not None:
            self.record.answers.append((phase, encode_body(data)))
        if data.get("observation") is None:
            text = encode_body(data).decode(errors="replace")[:200]
            raise HttpFailure("protocol", "200", f"HTTP 200 without an observation: {text}")
        self.last_observation = data["observation"]
        return data

    async def close(self) -> None:
        """Close the connection and note the end."""
        await self._channel.close()
        self.record.closed = time.perf_counter()
        if self._lag_s is not None:
            self._lags.session_max = max(self._lags.session_max or 0.0, self._lag_s)

    def _add_lag(self, timing: Timing) -> None:
        for lag_s in (timing.connect_lag_s, timing.answer_lag_s):
            if lag_s is not None:
                self._lag_s = (self._lag_s or 0.0) + lag_s

    def _note_connection(self) -> Timing:
        timing = self._channel.last_timing
        self.record.connected, self.record.connect_latency = timing.connected_at, timing.connect_s
        return timing
