"""The HTTP sessions of one process's share of a cell: a task each, behind the same window and the same release."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.handshake import check_headers, find_address
from pytest_openenv_scale.client.http import HttpChannel, HttpFailure, HttpPool, Timing, encode_body

from .client_health import Lags
from .ipc import Prepare, ShareProgress
from .session import SessionRecord

T = TypeVar("T")


class HttpWorkerShare:
    """What a share does in HTTP mode: `run()` plays its sessions, `release()` ends their hold.

    `window` is how many may connect and reset at once, `note` takes the record of every session that starts,
    `up` hears once of each that is reset or failed before.
    """

    def __init__(
        self, order: Prepare, window: int, note: Callable[[SessionRecord], None], up: Callable[[], None]
    ) -> None:
        """Make everything the sessions need, before time counts.

        Raises:
            RouteError: a URL or a header cannot be used.
            WorkloadError: an action cannot be made.
        """
        self._share = order
        self._order = order.request
        self._cell = cell = order.request.cell
        self._window = window
        self._note = note
        self._up = up
        self._holds = cell.arrival == "hold"
        self._step_timeout = self._order.timeout_s + (cell.wait or 0.0)
        self._held: deque[asyncio.Future[None]] = deque()
        self._released = False
        self._open = self._over = self._failed = 0
        self._lags = Lags()
        check_headers(self._order.headers)
        self._places = [find_address(url) for url in self._order.urls]
        workload = self._order.workload
        make = workload.maker(cell.wait)
        self._resets = self._once_or_each(
            workload.seeded, lambda number: encode_body(workload.reset_data(self._order.seed + number))
        )

        def encode(number: int) -> list[bytes]:
            count = cell.steps if workload.function else min(cell.steps, len(workload.actions))
            return [encode_body({"action": make(number, step)}) for step in range(count)]

        self._steps = self._once_or_each(workload.function is not None, encode)

    def _once_or_each(self, each: bool, encode: Callable[[int], T]) -> Callable[[int], T]:
        """Return what a session says by its number, encoded before the cell: for each, or once for all."""
        if each:
            return {number: encode(number) for number in self._share.sessions}.__getitem__
        shared = encode(0)
        return lambda number: shared

    def release(self) -> None:
        """The whole batch is up: let the held sessions step, one per turn of the event loop."""
        self._released = True
        self._release_one()

    def progress(self) -> ShareProgress:
        """Return how many sessions are open, over, and failed."""
        return ShareProgress(self._open, self._over, self._failed)

    async def run(self, due: Iterable[tuple[float, int]]) -> None:
        """Play the sessions to their end; `due` holds when each is due, as clock time, and its number.

        One is set going per turn of the event loop: what arrives meanwhile waits for the turn to end.
        """
        window = asyncio.Semaphore(self._window)
        pool = HttpPool(self._order.headers, self._order.http_connections, self._places)
        try:
            async with asyncio.TaskGroup() as group:
                for at, number in due:
                    await asyncio.sleep(max(0.0, at - time.perf_counter()))
                    await window.acquire()
                    group.create_task(self._play(at, number, window, pool))
        finally:
            await pool.close()

    async def _play(self, due: float, number: int, window: asyncio.Semaphore, pool: HttpPool) -> None:
        order = self._order
        record = SessionRecord(number, time.perf_counter() if self._holds else due)
        self._note(record)
        session = HttpSession(record, HttpChannel(self._share.route(number)[0], pool=pool), self._lags)
        fine = await session.reset(self._resets(number), order.timeout_s)
        self._open += 1
        window.release()
        self._up()
        if fine and self._holds:
            await self._hold()
            record.released = time.perf_counter()
        if fine:
            await self._step_on(session, number)
        await session.close()
        self._open -= 1
        self._over += 1
        self._failed += not record.success

    async def _hold(self) -> None:
        if not self._released:
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append(held)
            await held

    async def _step_on(self, session: HttpSession, number: int) -> None:
        record = session.record
        bodies = self._steps(number)
        for step in range(self._cell.steps):
            reply = await session.step(bodies[min(step, len(bodies) - 1)], self._step_timeout)
            if reply is None or (reply.done and self._order.until_done):
                break
        record.finished_steps = record.success = record.error is None

    def answer_lags(self) -> tuple[float | None, float | None]:
        """Return how late answers were seen, p50 and p99 in seconds; None where the kernel does not tell."""
        return self._lags.worst()

    def _release_one(self) -> None:
        if self._held:
            self._held.popleft().set_result(None)
            asyncio.get_running_loop().call_soon(self._release_one)


class HttpSession:
    """Drives one HTTP session; `reset()` and `step()` note times and failures in the record.

    Each `POST /step` stands alone: HTTP cannot hold an episode, so a `done` is not followed by a reset. The
    client's own share of connect, reset and step times goes to `lags`.
    """

    def __init__(self, record: SessionRecord, channel: HttpChannel, lags: Lags) -> None:
        self.record = record
        self._channel = channel
        self._lags = lags

    async def reset(self, body: bytes, timeout_s: float) -> bool:
        """Connect and reset; returns whether that worked."""
        record = self.record
        record.start = time.perf_counter()
        try:
            data = await self._channel.post("/reset", body, timeout_s)
        except HttpFailure as failure:
            last = self._note_connection()
            there = last.reused or last.connected_at is not None
            record.fail("reset" if there else "connect", failure.kind, failure.code, failure.message)
            return False
        last = self._note_connection()
        record.reset_done = last.answered_at
        record.reset_latency = last.answer_s
        self._lags.connect.append(last.connect_lag_s)
        self._lags.reset.append(last.answer_lag_s)
        told = messages.as_observed_reply(data).server_info
        if told is not None:
            record.identify(told)
        return True

    async def step(self, body: bytes, timeout_s: float) -> messages.ObservedReply | None:
        """Take one step; None after a failure. A connection that has to be made for it is part of its time."""
        try:
            data = await self._channel.post("/step", body, timeout_s)
        except HttpFailure as failure:
            self.record.fail("step", failure.kind, failure.code, failure.message)
            return None
        last = self._channel.last_timing
        self.record.steps.append((last.connect_s or 0.0) + last.answer_s)
        self._lags.step.append(None if last.answer_lag_s is None else last.answer_lag_s + (last.connect_lag_s or 0.0))
        answer = messages.as_observed_reply(data)
        if answer.server_info is not None:
            self.record.stepped(answer.server_info)
        return answer

    async def close(self) -> None:
        """Close the connection and note the end."""
        await self._channel.close()
        self.record.closed = time.perf_counter()

    def _note_connection(self) -> Timing:
        last = self._channel.last_timing
        self.record.connected, self.record.connect_latency = last.connected_at, last.connect_s
        return last
