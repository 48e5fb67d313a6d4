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
from functools import partial
from itertools import accumulate, islice
from math import inf
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.connection import LATE_S, Clock, Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Route, prepare_route
from pytest_openenv_scale.client.poller import Poller
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.text import Secrets

from .client_resources import peak_rss_bytes, runnable_wait_s
from .ipc import BatchReady, Prepare, SessionMessages, ShareProgress, ShareResult
from .session import GRACE_S, KeptSession, ObservingSession, SessionRecord, SessionScript, WebSocketSession

if TYPE_CHECKING:
    from .http_share import HttpWorkerShare

HANDSHAKE_WINDOW = 256
"""Handshakes in flight per batch: more of them only queue in client and server and starve each other."""

_TICK_S = 0.05
_PROGRESS_EVERY_TICKS = 10
_RELEASES_PER_TURN = 128
_PINGS_PER_TICK = 512


class WorkerShare:
    """The sessions of one cell that this process runs; `prepare()`, then `run()` until all are over."""

    def __init__(self, assignment: Prepare, send: Callable[[Any], None]) -> None:
        self._assignment = assignment
        self._cell = assignment.request.cell
        self._send = send
        self._arrival = parse_arrival(self._cell.arrival)
        self.holding = self._arrival.kind == "hold"
        self._numbers = assignment.sessions
        self._window = max(1, HANDSHAKE_WINDOW // assignment.processes)
        self._clock = Clock()
        self._records: list[SessionRecord] = []
        self._start_signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._all_finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started = self._started_wall_clock = 0.0
        self._next_tick = inf
        self._next_expiry = 0.0
        self._waiting: deque[tuple[float, int]] = deque()
        self._live: set[WebSocketSession] = set()
        self._held_sessions: deque[WebSocketSession] = deque()
        self._not_ready_count = len(self._numbers)
        self._connecting_count = self._finished_count = self._failed_count = 0
        self._admit_timer: asyncio.TimerHandle | None = None
        self._lags = array("d")
        self._standstills: list[tuple[float, float]] = []
        self._room_since = self._releasable_since = 0.0
        self._messages: SessionMessages | None = None
        self._pings: deque[tuple[float, WebSocketSession]] = deque()
        self._missed_pongs = 0
        self._http: HttpWorkerShare | None = None
        self._routes: list[Route] = []
        self._script_for: Callable[[int], SessionScript]
        self._poller: Poller

    # Before the cell

    def prepare(self) -> None:
        """Make everything the sessions need, before time counts.

        Raises:
            RouteError: a URL or a header cannot be used.
            WorkloadError: an action cannot be made.
        """
        request = self._assignment.request
        make_action = request.workload.maker(self._cell.wait)
        step_timeout = request.timeout_s + (self._cell.wait or 0.0)
        if self._cell.mode == "http":
            # Only where it is needed, and before the cell begins: it costs a load process 0.2 s and 11 MB.
            from .http_share import HttpWorkerShare

            self._http = HttpWorkerShare(self._assignment, self._window, self._records.append, self._count_ready)
            return
        routes = {url: prepare_route(url, dict(request.headers), request.network) for url in request.urls}
        for number in self._numbers[: self._assignment.routes]:
            url, source = self._assignment.route(number)
            self._routes.append(replace(routes[url], source=source))

        def script(number: int, actions: list[Message]) -> SessionScript:
            return SessionScript(
                reset=Message(encode_reset(number)),
                steps=actions,
                step_count=self._cell.steps,
                until_done=request.until_done,
                timeout=request.timeout_s,
                step_timeout=step_timeout,
                next_action=partial(make_action, number) if make_action.observes else None,
            )

        def encode_reset(number: int) -> bytes:
            return messages.encode_request("reset", request.workload.reset_data(number, request.seed))

        def encode(number: int, count: int) -> list[Message]:
            actions = [messages.encode_request("step", make_action(number, step)) for step in range(count)]
            if request.keep_messages and number == 0:
                self._messages = SessionMessages(encode_reset(number), tuple(actions), ())
            return [Message(action) for action in actions]

        if request.workload.per_session:
            count = 0 if make_action.observes else self._cell.steps
            scripts = {number: script(number, encode(number, count)) for number in self._numbers}
            self._script_for = scripts.__getitem__
            return
        actions = encode(0, min(self._cell.steps, len(request.workload.actions)))
        if request.workload.seeded:
            scripts = {number: script(number, actions) for number in self._numbers}
            self._script_for = scripts.__getitem__
        else:
            shared = script(0, actions)
            self._script_for = lambda number: shared

    # The parent's signals

    def start(self, at: float, wall_clock: float) -> None:
        """Begin at this moment, common to all processes."""
        self._started, self._started_wall_clock = at, wall_clock
        if not self._start_signal.done():
            self._start_signal.set_result(None)

    def release(self, at: float | None = None) -> None:
        """Let the held sessions step; called once the whole batch is ready, which it is since `at`, or since now."""
        if self._http is not None:
            self._http.release()
        elif self.holding:
            self.holding = False
            self._releasable_since = time.perf_counter() if at is None else at
            self._release_next()

    # The cell

    async def run(self) -> ShareResult:
        """Run the share to its end and return its rows."""
        await self._start_signal
        await asyncio.sleep(max(0.0, self._started - time.perf_counter()))
        self._clock.refresh()
        usage_before, starved = resource.getrusage(resource.RUSAGE_SELF), runnable_wait_s()
        tick_task = asyncio.create_task(self._run_ticks())
        try:
            if not len(self._numbers):
                self._send(BatchReady())
            elif self._http is not None:
                await self._http.run(self._due_times())
            else:
                await self._run_websockets()
        finally:
            tick_task.cancel()
        usage_after, starved = resource.getrusage(resource.RUSAGE_SELF), runnable_wait_s() - starved
        self._clock.refresh()
        ended = time.perf_counter()
        self._note_tick(ended)
        late_sessions = self._note_late_sessions() if self._http is None else None
        lags = sorted(self._clock.lags)
        rows = [
            record.row(self._started, self._started_wall_clock, self._assignment.process) for record in self._records
        ]
        secrets = Secrets.from_headers(self._assignment.request.headers)
        if secrets.words:
            rows = [row.without(secrets) for row in rows]
        return ShareResult(
            rows=rows,
            wall_s=ended - self._started,
            cpu_s=usage_after.ru_utime + usage_after.ru_stime - usage_before.ru_utime - usage_before.ru_stime,
            read_lag_p99_s=lags[int((len(lags) - 1) * 0.99)] if lags else 0.0,
            loop_lag_max_s=max(self._lags, default=0.0),
            rss_bytes=peak_rss_bytes(),
            starved_s=starved,
            clock_moved_s=self._clock.moved_s if self._http is None else 0.0,
            impossible_arrivals=self._clock.impossible_arrivals,
            missed_pongs=self._missed_pongs,
            answered_errors={
                record.request_id: error._replace(words=secrets.hide(error.words))
                for record in self._records
                if (error := record.answered_error) is not None
            },
            messages=self._kept_messages(secrets),
            function_s=sum(record.function_s for record in self._records),
            late_sessions=late_sessions,
            **({} if self._http is None else self._http.answer_lags.figures()),
        )

    def _kept_messages(self, secrets: Secrets) -> SessionMessages | None:
        """Return what session 0 said and heard, without secrets, where that is kept."""
        kept = self._messages if self._http is None else self._http.messages
        if kept is None or not self._records:
            return None
        first = self._records[0]
        made = () if first.first_action is None else (first.first_action,)

        def hidden(text: bytes) -> bytes:
            return secrets.hide(text.decode()).encode()

        return SessionMessages(
            hidden(kept.reset),
            tuple(map(hidden, kept.actions or made)),
            tuple((phase, hidden(text)) for phase, text in first.answers or ()),
        )

    def _due_times(self) -> list[tuple[float, int]]:
        """Return when each session of this share is due, as clock times; a held one is due when admitted."""
        if self._arrival.rate is None:
            return [(self._started, number) for number in self._numbers]
        gaps = random.Random(self._assignment.request.seed + self._assignment.request.repetition)
        times = accumulate(gaps.expovariate(self._arrival.rate) for _ in range(self._cell.batch))
        first, step = self._assignment.process, self._assignment.processes
        return [
            (self._started + offset, number)
            for offset, number in zip(islice(times, first, None, step), self._numbers, strict=True)
        ]

    async def _run_websockets(self) -> None:
        with Poller(asyncio.get_running_loop()) as self._poller:
            self._waiting.extend(self._due_times())
            self._admit()
            await self._all_finished

    def _admit(self) -> None:
        """Start sessions that are due while the window of handshakes has room."""
        if self._admit_timer is not None:
            self._admit_timer.cancel()
            self._admit_timer = None
        routes, processes, waiting = self._routes, self._assignment.processes, self._waiting
        ping_s = self._assignment.request.ping_s
        while waiting and self._connecting_count < self._window:
            due, number = waiting[0]
            now = time.perf_counter()
            if due > now:
                self._admit_timer = asyncio.get_running_loop().call_later(due - now, self._admit)
                return
            waiting.popleft()
            record = SessionRecord(number, now if self._arrival.kind == "hold" else due)
            self._records.append(record)
            if self._messages is not None and number == 0:
                record.answers = []
            script = self._script_for(number)
            plain = WebSocketSession if record.answers is None else KeptSession
            session = (plain if script.next_action is None else ObservingSession)(record, script, self)
            self._live.add(session)
            self._connecting_count += 1
            if ping_s is not None:
                self._pings.append((now + ping_s, session))
            since = max(due, self._room_since)
            if now - since > LATE_S:
                self._clock.late_sends.append((since, now, session))
            session.start(Connection(self._poller, self._clock, routes[number // processes % len(routes)], session))

    # Called by the sessions

    def connected(self) -> None:
        """A handshake ended: the window has room for another."""
        self._connecting_count -= 1
        if self._waiting and self._connecting_count == self._window - 1:
            self._room_since = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._admit)

    def ready(self, session: WebSocketSession) -> None:
        """A session is reset and holds."""
        self._held_sessions.append(session)
        self._count_ready()

    def finished(self, session: WebSocketSession) -> None:
        """A session ended."""
        self._live.discard(session)
        self._finished_count += 1
        self._failed_count += not session.record.success
        if session.record.reset_done is None:
            self._count_ready()
        if self._finished_count == len(self._numbers) and not self._all_finished.done():
            self._all_finished.set_result(None)

    def _count_ready(self) -> None:
        """Count a session that is reset or failed before; tell the parent of a holding batch when it was the last."""
        self._not_ready_count -= 1
        if not self._not_ready_count and self.holding:
            done = (record.reset_done for record in self._records)
            self._send(BatchReady(max((at for at in done if at is not None), default=None)))

    def _release_next(self) -> None:
        """Let some of the held sessions step, and the others in later turns, so that replies are read in between."""
        sessions = self._held_sessions
        for _ in range(min(_RELEASES_PER_TURN, len(sessions))):
            sessions.popleft().release(self._releasable_since)
        self._releasable_since = time.perf_counter()
        if sessions:
            asyncio.get_running_loop().call_soon(self._release_next)

    # Time

    def _note_tick(self, now: float) -> None:
        """Note how late the tick is that was due last: so long at most the loop has stood still."""
        lag = max(0.0, now - self._next_tick)
        self._lags.append(lag)
        if lag > LATE_S:
            self._standstills.append((self._next_tick, now))

    def _note_late_sessions(self) -> int:
        """Note in their records which sessions a standstill kept from sending a message in time, and count them.

        A message that only waited for its turn among others is not late: the process was at work for their sessions.
        """
        late: set[int] = set()
        for since, sent_at, session in self._clock.late_sends:
            assert isinstance(session, WebSocketSession)
            lost_s = max((min(sent_at, end) - max(since, begin) for begin, end in self._standstills), default=0.0)
            if lost_s > LATE_S:
                record = session.record
                record.late_s = max(record.late_s or 0.0, lost_s)
                late.add(record.request_id)
        return len(late)

    def _expire(self, now: float) -> None:
        """End sessions whose deadline has passed, and work out when the next can: every deadline set from now
        on lies at least the shortest timeout ahead."""
        for session in [session for session in self._live if session.deadline < now]:
            session.expire(now)
        soonest = min((session.deadline for session in self._live), default=inf)
        self._next_expiry = min(soonest, now + min(self._assignment.request.timeout_s, GRACE_S))

    def _ping(self, now: float) -> None:
        """Ping the sessions whose turn it is, so that nothing on the way takes them for idle; some in each tick."""
        pings, every_s = self._pings, self._assignment.request.ping_s
        for _ in range(_PINGS_PER_TICK):
            if not pings or every_s is None or pings[0][0] > now:
                return
            _, session = pings.popleft()
            if session in self._live:
                self._missed_pongs += not session.ping()
                pings.append((now + every_s, session))

    async def _run_ticks(self) -> None:
        """Twenty times a second: expire deadlines, watch the loop's own lag, report progress."""
        count = 0
        while True:
            self._next_tick = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            self._note_tick(now)
            self._clock.refresh()
            if now >= self._next_expiry:
                self._expire(now)
            self._ping(now)
            count += 1
            if count % _PROGRESS_EVERY_TICKS == 0:
                progress = ShareProgress(
                    len(self._live) - self._connecting_count, self._finished_count, self._failed_count
                )
                self._send(progress if self._http is None else self._http.progress())
