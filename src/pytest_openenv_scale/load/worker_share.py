"""One process's share of a cell: the handshake window, think times, deadlines, and the rows of what ended."""

from __future__ import annotations

import asyncio
import resource
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.client import messages
from pytest_openenv_scale.client.connection import LATE_S, Clock, Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Route, prepare_route
from pytest_openenv_scale.client.poller import Poller
from pytest_openenv_scale.config.think import ThinkTimes
from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.text import Secrets
from pytest_openenv_scale.results.cell import NOT_STARTED, SessionRow

from .arrivals import Arrivals, plan_arrivals
from .client_resources import peak_rss_bytes, runnable_wait_s
from .ipc import AnsweredError, BatchReady, Prepare, RowBlock, SessionMessages, ShareProgress, ShareResult
from .session import GRACE_S, KeptSession, ObservingSession, Pace, SessionRecord, SessionScript, WebSocketSession

if TYPE_CHECKING:
    from .http_share import HttpWorkerShare

HANDSHAKE_WINDOW = 256
"""Handshakes in flight per batch: more of them only queue in client and server and starve each other."""

BLOCK_ROWS, BLOCK_S = 2048, 2.0
"""In a cell that lasts for a time rows leave when so many sessions have ended, or some of them this long ago."""

_TICK_S = 0.05
_PROGRESS_EVERY_TICKS = 10
_RELEASES_PER_TURN = 128
_PINGS_PER_TICK = 512
_MOST_LAGS = 1_000_000
"""Of more lags than this every other one is kept."""


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
        """Sessions that began and whose rows have not left."""
        self._arrivals: Arrivals
        self._judged_from, self._judged_until = -inf, inf
        self.ends = inf
        self._start_signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._all_finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started = self._started_wall_clock = 0.0
        self._next_tick = inf
        self._next_expiry = 0.0
        self._live: set[WebSocketSession] = set()
        self._held_sessions: deque[WebSocketSession] = deque()
        self._not_ready_count = len(self._numbers)
        self._connecting_count = self._finished_count = self._failed_count = self._rows_sent = 0
        self._steps_of_ended = 0
        self._admit_timer: asyncio.TimerHandle | None = None
        self._block_sent_at = 0.0
        self._lags = array("d")
        self.send_lags = array("d")
        self._thinking: list[tuple[float, int, WebSocketSession]] = []
        self._think_timer: asyncio.TimerHandle | None = None
        self._order = count()
        self._late_sessions = 0
        self._function_s = 0.0
        self._secrets = Secrets.from_headers(assignment.request.headers)
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
        episode_steps = request.episode_steps or self._cell.steps
        if self._cell.mode == "http":
            # Only where it is needed, and before the cell begins: it costs a load process 0.2 s and 11 MB.
            from .http_share import HttpWorkerShare

            self._http = HttpWorkerShare(
                self._assignment, self._window, self._session_began, self._count_ready, self._session_ended
            )
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
                episode_steps=episode_steps,
            )

        def encode_reset(number: int) -> bytes:
            return messages.encode_request("reset", request.workload.reset_data(number, request.seed))

        def encode(number: int, count: int) -> list[Message]:
            actions = [messages.encode_request("step", make_action(number, step)) for step in range(count)]
            if request.keep_messages and number == 0:
                self._messages = SessionMessages(encode_reset(number), tuple(actions), ())
            return [Message(action) for action in actions]

        if request.workload.per_session:
            length = 0 if make_action.observes else episode_steps
            self._script_for = self._encoded_ahead(lambda number: script(number, encode(number, length)))
            return
        actions = encode(0, min(episode_steps, len(request.workload.actions)))
        if request.workload.seeded:
            self._script_for = self._encoded_ahead(lambda number: script(number, actions))
        else:
            shared = script(0, actions)
            self._script_for = lambda number: shared

    def _encoded_ahead(self, script: Callable[[int], SessionScript]) -> Callable[[int], SessionScript]:
        """Encode the scripts of sessions before the cell; where slots play any number of them, as each begins."""
        scripts = {number: script(number) for number in self._numbers}
        return script if self._arrival.kind == "steady" else scripts.__getitem__

    @property
    def leaves_garbage(self) -> bool:
        """Whether memory grows as long as no garbage is collected: aiohttp's objects refer to each other."""
        return self._http is not None and self._arrival.seconds is not None

    # The parent's signals

    def start(self, at: float, wall_clock: float) -> None:
        """Begin at this moment, common to all processes."""
        self._started, self._started_wall_clock = at, wall_clock
        self._arrivals = plan_arrivals(self._arrival, self._assignment, self._started)
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
        if self._arrival.ramp:
            self._judged_from = self._started + self._arrival.ramp
        if self._arrival.kind == "steady":
            self._judged_until = self._started + (self._arrival.seconds or inf)
            if self._assignment.request.episode_steps is not None:
                self.ends = self._judged_until
        tick_task = asyncio.create_task(self._run_ticks())
        end_timer: asyncio.TimerHandle | None = None
        if self._judged_until != inf:
            end_timer = asyncio.get_running_loop().call_later(self._judged_until - time.perf_counter(), self._time_up)
        try:
            if not len(self._numbers):
                self._send(BatchReady(self._progress()))
            elif self._http is not None:
                await self._http.run(self._arrivals)
            else:
                await self._run_websockets()
        finally:
            tick_task.cancel()
            if end_timer is not None:
                end_timer.cancel()
        usage_after, starved = resource.getrusage(resource.RUSAGE_SELF), runnable_wait_s() - starved
        self._clock.refresh()
        ended = time.perf_counter()
        self._note_tick(ended)
        lags, send_lags = sorted(self._clock.lags), sorted(self.send_lags)
        messages = self._kept_messages()
        last = self._block_of(self._records)
        return ShareResult(
            rows=[*last.rows],
            wall_s=ended - self._started,
            cpu_s=usage_after.ru_utime + usage_after.ru_stime - usage_before.ru_utime - usage_before.ru_stime,
            read_lag_p99_s=_quantile(lags, 0.99) or 0.0,
            loop_lag_max_s=max(self._lags, default=0.0),
            rss_bytes=peak_rss_bytes(),
            starved_s=starved,
            clock_moved_s=self._clock.moved_s if self._http is None else 0.0,
            impossible_arrivals=self._clock.impossible_arrivals,
            missed_pongs=self._missed_pongs,
            answered_errors=last.answered_errors,
            messages=messages,
            function_s=self._function_s,
            late_sessions=self._late_sessions if self._http is None else None,
            send_lag_p50_s=_quantile(send_lags, 0.5),
            send_lag_p99_s=_quantile(send_lags, 0.99),
            **({} if self._http is None else self._http.answer_lags.figures()),
        )

    def _block_of(self, records: Sequence[SessionRecord]) -> RowBlock:
        """Return the rows of sessions that have ended, and add up what else is known of them."""
        self._note_late_sends()
        secrets = self._secrets
        rows: list[SessionRow] = []
        errors: dict[int, AnsweredError] = {}
        for record in records:
            self._late_sessions += record.late_s is not None
            self._function_s += record.function_s
            if (error := record.answered_error) is not None:
                errors[record.request_id] = error._replace(words=secrets.hide(error.words))
            row = record.row(
                self._started,
                self._started_wall_clock,
                self._assignment.process,
                slot=self._arrivals.slot_of(record.request_id),
                judged=record.judged and self._judged_from <= record.due and record.closed_by(self._judged_until),
            )
            rows.append(row.without(secrets) if secrets.words else row)
        return RowBlock(rows, errors)

    def _send_block(self) -> None:
        """Let the rows of sessions leave that have ended, where many have, or no other one lately."""
        waiting, now = self._finished_count - self._rows_sent, time.perf_counter()
        if not waiting or (waiting < BLOCK_ROWS and now - self._block_sent_at < BLOCK_S):
            return
        self._block_sent_at = now
        ended = [record for record in self._records if record.closed is not None]
        self._records = [record for record in self._records if record.closed is None]
        self._rows_sent += len(ended)
        self._send(self._block_of(ended))
        for lags in (self._clock.lags, self.send_lags):
            if len(lags) > _MOST_LAGS:
                del lags[::2]

    def _kept_messages(self) -> SessionMessages | None:
        """Return what session 0 said and heard, without secrets, where that is kept."""
        secrets = self._secrets
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

    async def _run_websockets(self) -> None:
        with Poller(asyncio.get_running_loop()) as self._poller:
            self._admit()
            await self._all_finished

    def _admit(self) -> None:
        """Start sessions that are due while the window of handshakes has room."""
        if self._admit_timer is not None:
            self._admit_timer.cancel()
            self._admit_timer = None
        routes, processes, arrivals = self._routes, self._assignment.processes, self._arrivals
        ping_s = self._assignment.request.ping_s
        while self._connecting_count < self._window and (first := arrivals.first()) is not None:
            due, number = first
            now = time.perf_counter()
            if due > now:
                self._admit_timer = asyncio.get_running_loop().call_later(due - now, self._admit)
                return
            arrivals.take()
            record = SessionRecord(number, now if self._arrival.kind == "hold" else due)
            self._records.append(record)
            if self._messages is not None and number == 0:
                record.answers = []
            try:
                script = self._script_for(number)
            except WorkloadError as error:
                record.fail("connect", "client_limit", "action", str(error))
                record.closed = now
                self._count_ready()
                self._session_ended(record, None)
                continue
            plain = WebSocketSession if record.answers is None else KeptSession
            kind = plain if script.next_action is None else ObservingSession
            session = kind(record, script, self, self._new_pace(number))
            self._live.add(session)
            self._connecting_count += 1
            if ping_s is not None:
                self._pings.append((now + ping_s, session))
            since = max(due, self._room_since)
            if now - since > LATE_S:
                self._clock.late_sends.append((since, now, session))
            session.start(Connection(self._poller, self._clock, routes[number // processes % len(routes)], session))

    def _session_began(self, record: SessionRecord) -> None:
        self._records.append(record)

    def _new_pace(self, number: int) -> Pace | None:
        request = self._assignment.request
        if request.think is None:
            return Pace(None) if self._arrival.kind == "steady" else None
        return Pace(ThinkTimes(request.think, request.seed, number))

    def halt(self, failed: int) -> None:
        """Let no other session begin, as so many had failed."""
        batch = self._cell.batch
        self._begin_no_more(f"{count_of(failed, 'session')} of {batch:,} had failed before, which decides")

    def _time_up(self) -> None:
        self._begin_no_more("time was up before the handshakes that were under way had ended")

    def _begin_no_more(self, reason: str) -> None:
        """Let no other session begin; those that would have, as far as they are known, get a row that says so."""
        for due, number in self._arrivals.stop():
            record = SessionRecord(number, due)
            record.fail("connect", NOT_STARTED, None, f"not started: {reason}")
            record.judged = False
            self._records.append(record)
        if self._http is None:
            self._end_when_over()
        else:
            self._http.wake()

    # Called by the sessions

    def connected(self) -> None:
        """A handshake ended: the window has room for another."""
        self._connecting_count -= 1
        if self._connecting_count == self._window - 1 and self._arrivals.first() is not None:
            self._room_since = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._admit)

    def ready(self, session: WebSocketSession) -> None:
        """A session is reset and holds."""
        self._held_sessions.append(session)
        self._count_ready()

    def finished(self, session: WebSocketSession) -> None:
        """A session ended."""
        self._live.discard(session)
        if session.record.reset_done is None:
            self._count_ready()
        if self._session_ended(session.record, None if session.pace is None else session.pace.times):
            self._admit()
        self._end_when_over()

    def _session_ended(self, record: SessionRecord, think: ThinkTimes | None) -> bool:
        """Count a session that ended, and return whether another one is the first now that is due."""
        self._finished_count += 1
        self._failed_count += record.error is not None and record.error[1] != "client_limit"
        self._steps_of_ended += len(record.steps)
        return self._arrivals.session_ended(record, think)

    def _end_when_over(self) -> None:
        if not self._live and self._arrivals.first() is None and not self._all_finished.done():
            self._all_finished.set_result(None)

    def think(self, session: WebSocketSession, due: float) -> None:
        """Let a session take its next step at a clock time."""
        heappush(self._thinking, (due, next(self._order), session))
        if self._thinking[0][2] is session:
            self._await_thinker()

    def _await_thinker(self) -> None:
        if self._think_timer is not None:
            self._think_timer.cancel()
            self._think_timer = None
        if self._thinking:
            delay = self._thinking[0][0] - time.perf_counter()
            self._think_timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._end_thinking)

    def _end_thinking(self) -> None:
        """Let the sessions step whose think time is over, or nearly so."""
        now = time.perf_counter()
        while self._thinking and self._thinking[0][0] <= now:
            heappop(self._thinking)[2].think_over()
        self._await_thinker()

    def _count_ready(self) -> None:
        """Count a session that is reset or failed before; tell the parent of a holding batch when it was the last."""
        self._not_ready_count -= 1
        if not self._not_ready_count and self.holding:
            done = (record.reset_done for record in self._records)
            self._send(BatchReady(self._progress(), max((at for at in done if at is not None), default=None)))

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

    def _note_late_sends(self) -> None:
        """Note in their records which sessions a standstill kept from sending a message in time.

        A message that only waited for its turn among others is not late: the process was at work for their sessions.
        """
        for since, sent_at, session in self._clock.late_sends:
            assert isinstance(session, WebSocketSession)
            lost_s = max((min(sent_at, end) - max(since, begin) for begin, end in self._standstills), default=0.0)
            if lost_s > LATE_S:
                record = session.record
                record.late_s = max(record.late_s or 0.0, lost_s)
        self._clock.late_sends.clear()

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
                self._send(self._progress())
                if self._arrival.seconds is not None:
                    self._send_block()

    def _progress(self) -> ShareProgress:
        steps = self._steps_of_ended
        if self._http is None:
            playing = len(self._live) - self._connecting_count
            if self._cell.steps > 1:  # Of sessions that are open: one that has taken its only step ends at once.
                steps += sum(len(session.record.steps) for session in self._live)
        else:
            playing, steps = self._http.open, steps + self._http.steps_of_open
        return ShareProgress(playing, self._finished_count, self._failed_count, steps)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[int((len(ordered) - 1) * share)] if ordered else None
