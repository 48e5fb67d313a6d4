"""One process's share of a cell: arrivals, the handshake window, deadlines, and the rows at the end."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, islice
from math import inf
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.connection import Clock, Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Route, prepare_route
from pytest_openenv_scale.client.poller import Poller
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.text import Secrets

from .client_resources import peak_rss_bytes, runnable_wait_s
from .ipc import BatchReady, Prepare, ShareProgress, ShareResult
from .session import GRACE_S, SessionRecord, SessionScript, WebSocketSession

if TYPE_CHECKING:
    from .http_share import HttpWorkerShare

WINDOW = 256
"""Handshakes in flight per batch: more of them only queue in client and server and starve each other."""

_PULSE_S = 0.05
_PROGRESS_EVERY = 10
_RELEASE_ROUND = 128


class WorkerShare:
    """The sessions of one cell that this process runs; `prepare()`, then `run()` until all are over."""

    def __init__(self, order: Prepare, tell: Callable[[Any], None]) -> None:
        self._order = order
        self._cell = order.request.cell
        self._tell = tell
        self._arrival = parse_arrival(self._cell.arrival)
        self.holding = self._arrival.kind == "hold"
        self._numbers = order.sessions
        self._window = max(1, WINDOW // order.processes)
        self._clock = Clock()
        self._records: list[SessionRecord] = []
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._began = self._wall = 0.0
        self._next_pulse = inf
        self._next_expiry = 0.0
        self._waiting: deque[tuple[float, int]] = deque()
        self._live: set[WebSocketSession] = set()
        self._held: deque[WebSocketSession] = deque()
        self._unready = len(self._numbers)
        self._connecting = self._over = self._failed = 0
        self._wake: asyncio.TimerHandle | None = None
        self._lags = array("d")
        self._http: HttpWorkerShare | None = None
        self._routes: list[Route] = []
        self._scripts: Callable[[int], SessionScript]
        self._poller: Poller

    # Before the cell

    def prepare(self) -> None:
        """Make everything the sessions need, before time counts.

        Raises:
            RouteError: a URL or a header cannot be used.
            WorkloadError: an action cannot be made.
        """
        order = self._order.request
        make = order.workload.maker(self._cell.wait)
        step_timeout = order.timeout_s + (self._cell.wait or 0.0)
        if self._cell.mode == "http":
            # Only where it is needed, and before the cell begins: it costs a load process 0.2 s and 11 MB.
            from .http_share import HttpWorkerShare

            self._http = HttpWorkerShare(self._order, self._window, self._records.append, self._one_more_up)
            return
        routes = {url: prepare_route(url, dict(order.headers)) for url in order.urls}
        for number in self._numbers[: self._order.routes]:
            url, source = self._order.route(number)
            self._routes.append(replace(routes[url], source=source))

        def script(number: int, actions: list[Message]) -> SessionScript:
            reset = Message(messages.encode_request("reset", order.workload.reset_data(order.seed + number)))
            return SessionScript(reset, actions, self._cell.steps, order.until_done, order.timeout_s, step_timeout)

        def encode(number: int, count: int) -> list[Message]:
            return [Message(messages.encode_request("step", make(number, step))) for step in range(count)]

        if order.workload.function is not None:
            own = {number: script(number, encode(number, self._cell.steps)) for number in self._numbers}
            self._scripts = own.__getitem__
            return
        actions = encode(0, min(self._cell.steps, len(order.workload.actions)))
        if order.workload.seeded:
            seeded = {number: script(number, actions) for number in self._numbers}
            self._scripts = seeded.__getitem__
        else:
            shared = script(0, actions)
            self._scripts = lambda number: shared

    # The parent's signals

    def start(self, at: float, wall: float) -> None:
        """Begin at this moment, common to all processes."""
        self._began, self._wall = at, wall
        if not self._begun.done():
            self._begun.set_result(None)

    def release(self) -> None:
        """The whole batch is up: let the held sessions step."""
        if self._http is not None:
            self._http.release()
        elif self.holding:
            self.holding = False
            self._release_some()

    # The cell

    async def run(self) -> ShareResult:
        """Run the share to its end and return its rows."""
        await self._begun
        await asyncio.sleep(max(0.0, self._began - time.perf_counter()))
        self._clock.refresh()
        before, starved = resource.getrusage(resource.RUSAGE_SELF), runnable_wait_s()
        pulse = asyncio.create_task(self._pulse())
        try:
            if not len(self._numbers):
                self._tell(BatchReady())
            elif self._http is not None:
                await self._http.run(self._due())
            else:
                await self._run_websockets()
        finally:
            pulse.cancel()
        after, starved = resource.getrusage(resource.RUSAGE_SELF), runnable_wait_s() - starved
        ended = time.perf_counter()
        self._lags.append(max(0.0, ended - self._next_pulse))
        lags = sorted(self._clock.lags)
        rows = [record.row(self._began, self._wall, self._order.process) for record in self._records]
        secrets = Secrets.from_headers(self._order.request.headers)
        if secrets.words:
            rows = [row.without(secrets) for row in rows]
        return ShareResult(
            rows,
            ended - self._began,
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            lags[int((len(lags) - 1) * 0.99)] if lags else 0.0,
            max(self._lags, default=0.0),
            peak_rss_bytes(),
            *(() if self._http is None else self._http.answer_lags()),
            starved_s=starved,
        )

    def _due(self) -> list[tuple[float, int]]:
        """Return when each session of this share is due, as clock times; a held one is due when admitted."""
        if self._arrival.rate is None:
            return [(self._began, number) for number in self._numbers]
        gaps = random.Random(self._order.request.seed + self._order.request.repetition)
        times = accumulate(gaps.expovariate(self._arrival.rate) for _ in range(self._cell.batch))
        first, step = self._order.process, self._order.processes
        return [
            (self._began + offset, number)
            for offset, number in zip(islice(times, first, None, step), self._numbers, strict=True)
        ]

    async def _run_websockets(self) -> None:
        with Poller(asyncio.get_running_loop()) as self._poller:
            self._waiting.extend(self._due())
            self._admit()
            await self._finished

    def _admit(self) -> None:
        """Start sessions that are due while the window of handshakes has room."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        routes, every, waiting = self._routes, self._order.processes, self._waiting
        while waiting and self._connecting < self._window:
            due, number = waiting[0]
            now = time.perf_counter()
            if due > now:
                self._wake = asyncio.get_running_loop().call_later(due - now, self._admit)
                return
            waiting.popleft()
            record = SessionRecord(number, now if self._arrival.kind == "hold" else due)
            self._records.append(record)
            session = WebSocketSession(record, self._scripts(number), self)
            self._live.add(session)
            self._connecting += 1
            session.start(Connection(self._poller, self._clock, routes[number // every % len(routes)], session))

    # Called by the sessions

    def connected(self) -> None:
        """A handshake ended: the window has room for another."""
        self._connecting -= 1
        if self._waiting and self._connecting == self._window - 1:
            asyncio.get_running_loop().call_soon(self._admit)

    def ready(self, session: WebSocketSession) -> None:
        """A session is up and holds."""
        self._held.append(session)
        self._one_more_up()

    def over(self, session: WebSocketSession) -> None:
        """A session ended."""
        self._live.discard(session)
        self._over += 1
        self._failed += not session.record.success
        if session.record.reset_done is None:
            self._one_more_up()
        if self._over == len(self._numbers) and not self._finished.done():
            self._finished.set_result(None)

    def _one_more_up(self) -> None:
        """One more session is up, or never will be; the parent hears when that is all of them."""
        self._unready -= 1
        if not self._unready and self.holding:
            self._tell(BatchReady())

    def _release_some(self) -> None:
        """Let held sessions step a round at a time, replies being read in between."""
        held = self._held
        for _ in range(min(_RELEASE_ROUND, len(held))):
            held.popleft().release()
        if held:
            asyncio.get_running_loop().call_soon(self._release_some)

    # Time

    def _expire(self, now: float) -> None:
        """End sessions whose deadline has passed, and work out when the next can: every deadline set from now
        on lies at least the shortest timeout ahead."""
        for session in [session for session in self._live if session.deadline < now]:
            session.expire(now)
        soonest = min((session.deadline for session in self._live), default=inf)
        self._next_expiry = min(soonest, now + min(self._order.request.timeout_s, GRACE_S))

    async def _pulse(self) -> None:
        """Twenty times a second: expire deadlines, watch the loop's own lag, report progress."""
        count = 0
        while True:
            self._next_pulse = time.perf_counter() + _PULSE_S
            await asyncio.sleep(_PULSE_S)
            now = time.perf_counter()
            self._lags.append(max(0.0, now - self._next_pulse))
            self._clock.refresh()
            if now >= self._next_expiry:
                self._expire(now)
            count += 1
            if count % _PROGRESS_EVERY == 0:
                ours = ShareProgress(len(self._live) - self._connecting, self._over, self._failed)
                self._tell(ours if self._http is None else self._http.progress())
