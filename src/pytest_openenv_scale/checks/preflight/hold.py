"""Open a number of sessions at once: whether they fit, how long they take, and whether their slots come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_openenv_scale.checks.background import can_step, quick_action, single_session
from pytest_openenv_scale.checks.capacity_probe import open_sessions
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import AT_ONCE, RawClient, Subject, close_all
from pytest_openenv_scale.client.stock_client import PONG_S
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.cell import SessionRow
from pytest_openenv_scale.results.outcome import Transcript
from pytest_openenv_scale.verdict.refusals import capacity_of

LATE_SLOT_S = 3.0
"""How long the slots of earlier sessions may take to come back while sessions are opened, in seconds."""

SLOT_RETURN_S = 10.0
"""How long the slots of closed sessions may take to come back, in seconds."""

_PAUSE_S = 0.1
_EXTRA_SESSION_S, _EXTRA_SESSION_FACTOR = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class HeldSession:
    """The answers of a session to connecting, to its reset and to its step, None where it did not get so far."""

    connect: Answer
    reset: Answer | None = None
    step: Answer | None = None

    @property
    def held(self) -> bool:
        """Whether it was let in."""
        return self.reset is not None and self.reset.kind == "observation"

    @property
    def stepped(self) -> bool:
        """Whether its step was answered with an observation."""
        return self.step is not None and self.step.kind == "observation"

    @property
    def last_phase(self) -> str:
        """The phase of its last answer: connect, reset or step."""
        return "connect" if self.reset is None else "reset" if self.step is None else "step"

    @property
    def last_answer(self) -> Answer:
        """Its last answer: where it did not step, what it got instead."""
        return self.step or self.reset or self.connect

    def row(self, number: int, *, asked_to_step: bool) -> SessionRow:
        """Return it as a row of a cell; one that was not asked to step has done all it should once it is held."""
        row = SessionRow(
            number,
            process=0,
            started_at=0.0,
            due_s=0.0,
            connect_latency=self.connect.latency_s,
            reset_latency=None if self.reset is None else self.reset.latency_s,
            reset_done_s=0.0 if self.held else None,
            closed_s=1.0 if self.held else None,
        )
        if self.step is not None and self.stepped:
            pid = self.step.observation.get("pid")
            return row._replace(
                step_latencies=(self.step.latency_s or 0.0,), success=True, pid=pid if type(pid) is int else None
            )
        if self.held and not asked_to_step:
            return row._replace(success=True)
        answer = self.last_answer
        return row._replace(
            error_phase=self.last_phase,
            error_type=answer.error_type,
            error_code=answer.code,
            error_message=answer.message,
        )


@dataclass(frozen=True, slots=True)
class SlotsReturned:
    """How many slots were released, how many new sessions got in, and how many seconds that took."""

    released: int
    returned: int
    took_s: float


@dataclass(frozen=True, slots=True)
class QuietSessions:
    """What became of `count` sessions that were left quiet for `quiet_s` seconds.

    `gone` are the answers of those that did not answer as a session does; `slots_given_away` tells that a server that
    was full before let another one in meanwhile. `transcript` is that of the first that was gone.
    """

    count: int
    quiet_s: float
    gone: tuple[Answer, ...] = ()
    slots_given_away: bool = False
    transcript: Transcript | None = None


Phase = Literal["opening", "stepping", "closing", "quiet"]
"""What is done with sessions that are held, in order."""


@dataclass(frozen=True, slots=True)
class HoldResult:
    """What became of `requested` sessions opened at once.

    `opened_s` is how long opening them all took, in seconds, `untried` how many were not opened any more after a
    timeout. `extra_answer` is what one more session got where all were let in. `limit` is the number of sessions per
    worker that the server's refusal names, and `full` says that all of it was held. `patience_s` is the timeout of an
    answer while sessions were opened, in seconds; `cut_short` says that an answer missed the timeout the user set, so
    that a longer one might have helped. `closed` tells which slots came back after all were closed, `dropped` after
    one was dropped from a full server. Sessions are not `asked_to_step` where steps of a lone one are not answered.
    `pongs` are how long pings took while they stepped, in seconds, None for those without an answer in time; there are
    none of sessions that ended, nor where the time was up before. `quiet` is what
    became of sessions that were left quiet, and `cut` the phase that was cut off at the deadline.
    """

    requested: int
    sessions: tuple[HeldSession, ...]
    untried: int
    extra_answer: Answer | None
    limit: int | None
    full: bool
    opened_s: float
    patience_s: float
    cut_short: bool
    closed: SlotsReturned | None
    dropped: SlotsReturned | None
    refused_transcript: Transcript | None
    asked_to_step: bool = True
    pongs: tuple[float | None, ...] = ()
    quiet: QuietSessions | None = None
    cut: Phase | None = None

    @property
    def held(self) -> int:
        """How many sessions were let in."""
        return sum(session.held for session in self.sessions)

    @property
    def fitting(self) -> int:
        """How many sessions were let in and took their step, where they were asked for one."""
        return len(self.sessions) - len(self.failures)

    @property
    def refused(self) -> list[HeldSession]:
        """The sessions that were not let in."""
        return [session for session in self.sessions if not session.held]

    @property
    def failures(self) -> list[HeldSession]:
        """The sessions that were not let in or did not step."""
        if not self.asked_to_step:
            return self.refused
        return [session for session in self.sessions if not session.stepped]

    @property
    def taken_by_others(self) -> int:
        """How many sessions the server counts beyond those held here."""
        return max(0, self.limit - self.held) if self.limit is not None and self.refused else 0


_SLOW_S, _FEW = 1.0, 2
"""Where a lone session waits so many seconds for an answer, so few quiet ones step, as steps may come in turn."""

_REAPED_EVERY_S, _REAPED_SHARE = 5.0, 0.25


def quiet_s(idle_s: float) -> float:
    """Return how long sessions are left quiet, in seconds, to see that those are there that were for `idle_s` seconds.

    OpenEnv looks for sessions that are idle too long every 5 s, or every quarter of the time they may be, if longer.
    """
    return idle_s + max(_REAPED_EVERY_S, _REAPED_SHARE * idle_s) if idle_s else 0.0


async def hold(subject: Subject, sessions: int, idle_s: float = 0.0) -> HoldResult:
    """Open `sessions` sessions and one more, step all of them at once, close them and see whether as many get in again.

    Those that got in again are left quiet for `quiet_s(idle_s)` seconds, where that is not 0. Where steps of a lone
    session are not answered with more than errors, none is asked for. What is not over shortly before the subject's
    deadline is cut off, and `cut` names it.
    """
    steps_play = await can_step(subject)
    async with subject.client(subject.patience_among(min(sessions, AT_ONCE))) as client:
        holding = _Holding(client, subject, sessions, idle_s, steps_play)
        left_s = subject.time_left_s - _SPARE_S
        try:
            async with asyncio.timeout(None if math.isinf(left_s) else max(0.0, left_s)):
                await holding.run()
        except TimeoutError:
            return holding.result(cut=holding.phase)
        return holding.result(cut=None)


_SPARE_S = 3.0
"""How long before the deadline sessions are let go, in seconds: what they showed till then is still judged and told."""


class _Holding:
    """Sessions that are opened, stepped, closed, opened again and left quiet; what became of them until it is asked.

    Where the server counts more sessions than are held, those that were refused are tried again for 3 s: the slots of
    sessions that ended just before may still come back. Timeouts grow with the slowest answer to a lone session.
    """

    def __init__(self, client: RawClient, subject: Subject, requested: int, idle_s: float, asked_to_step: bool) -> None:
        self.phase: Phase = "opening"
        self._client, self._subject = client, subject
        self._requested, self._quiet_s, self._asked_to_step = requested, quiet_s(idle_s), asked_to_step
        self._began = time.perf_counter()
        self._opened_s: float | None = None
        self._held: list[RawSession] = []
        self._refused: list[RawSession] = []
        self._steps: dict[RawSession, Answer] = {}
        self._pongs: list[float | None] = []
        self._extra: RawSession | None = None
        self._closed: SlotsReturned | None = None
        self._dropped: SlotsReturned | None = None
        self._reopened: list[RawSession] = []
        self._quiet: QuietSessions | None = None

    async def run(self) -> None:
        await self._open()
        if self._asked_to_step:
            await self._step_at_once()
        if not self._refused:
            self._extra = await _open_one_more(self._client, self._subject)
        self.phase = "closing"
        await self._release_and_reopen()
        self.phase = "quiet"
        if self._reopened and self._quiet_s:
            self._quiet = await self._stay_quiet()
        await close_all(self._reopened)

    @property
    def _limit(self) -> int | None:
        return _named_limit(self._refused or [session for session in (self._extra,) if session is not None])

    @property
    def _full(self) -> bool:
        processes = {step.process for step in self._steps.values()} - {None}
        return capacity_of(len(self._held), limit=self._limit, workers=max(1, len(processes))).full

    async def _open(self) -> None:
        subject, client = self._subject, self._client
        subject.report_progress(f"opening {self._requested:,} sessions")
        self._held, self._refused = await client.admit_many(subject.resets(self._requested), until_silent=True)
        while (missing := (_named_limit(self._refused) or 0) - len(self._held)) > 0:
            if time.perf_counter() - self._began >= LATE_SLOT_S:
                break
            await asyncio.sleep(_PAUSE_S)
            retried = self._refused[:missing]
            let_in, again = await client.admit_many(subject.resets(len(retried)), until_silent=True)
            self._held, self._refused = self._held + let_in, self._refused[missing:] + again
        self._opened_s = time.perf_counter() - self._began

    async def _step_at_once(self) -> None:
        """Step all sessions, ping them while they step, and wait for the pongs."""
        self.phase = "stepping"
        subject, held = self._subject, self._held
        subject.report_progress(f"stepping {len(held):,} sessions at once")
        patience_s = subject.patience_among(len(held))

        async def step(number: int, session: RawSession) -> None:
            self._steps[session] = await session.step(
                quick_action(subject, session, 0, number=number), patience_s=patience_s
            )

        stepping = asyncio.gather(*(step(number, session) for number, session in enumerate(held)))
        try:
            await asyncio.sleep(_PING_AFTER_S)
            self._pongs = await _ping_all(held)
            await stepping
        finally:
            stepping.cancel()

    async def _release_and_reopen(self) -> None:
        """Close all sessions and open as many; before that, drop one where the server is full and open it again."""

        async def reopen(count: int, began: float) -> tuple[list[RawSession], SlotsReturned]:
            resets = self._subject.resets(count)
            reopened = await open_sessions(self._client, self._subject, resets, within_s=SLOT_RETURN_S)
            return reopened, SlotsReturned(count, len(reopened), time.perf_counter() - began)

        open_now = [session for session in self._held if not session.ended]
        if self._full and len(open_now) == len(self._held):
            self._subject.report_progress("dropping a session without goodbye")
            began = time.perf_counter()
            open_now.pop().reset_connection()
            reopened, self._dropped = await reopen(1, began)
            open_now += reopened
        if not open_now:
            return
        self._subject.report_progress(f"closing {len(open_now):,} sessions and opening as many")
        began = time.perf_counter()
        await close_all(open_now)
        self._reopened, self._closed = await reopen(len(open_now), began)

    async def _stay_quiet(self) -> QuietSessions:
        """Leave all sessions quiet, then see that they answer, and that a full server still lets no other one in."""
        subject, sessions = self._subject, self._reopened
        count = formatting.count_of(len(sessions), "session")
        subject.report_progress(f"leaving {count} quiet for {self._quiet_s:g} s")
        full = self._full and len(sessions) == len(self._held)
        await asyncio.sleep(self._quiet_s)
        extra = await _open_one_more(self._client, subject) if full else None
        has_state = (await subject.learn(single_session)).has_state
        patience_s = subject.patience_among(len(sessions))

        stepping = len(sessions) if subject.slowest_single_s < _SLOW_S or not has_state else _FEW

        async def ask(number: int, session: RawSession) -> Answer:
            if self._asked_to_step and number < stepping:
                return await session.step(quick_action(subject, session, 0, number=number), patience_s=patience_s)
            if has_state:
                return await session.state(patience_s=patience_s)
            return await session.reset(session.reset_data, patience_s=patience_s)

        answers = await asyncio.gather(*(ask(number, session) for number, session in enumerate(sessions)))
        gone = [(answer, session) for answer, session in zip(answers, sessions, strict=True) if _is_gone(answer)]
        return QuietSessions(
            count=len(sessions),
            quiet_s=self._quiet_s,
            gone=tuple(answer for answer, _ in gone),
            slots_given_away=extra is not None and extra.first_answer.kind == "observation",
            transcript=gone[0][1].transcript("a session that was left quiet") if gone else None,
        )

    def result(self, cut: Phase | None) -> HoldResult:
        """Return what is known now; `cut` is the phase that was not over, None where all are."""
        if not self._held and not self._refused:
            answered = [session for session in self._client.sessions if session.answered]
            self._held = [session for session in answered if session.first_answer.kind == "observation"]
            self._refused = [session for session in answered if session.first_answer.kind != "observation"]
        patience_s = self._subject.patience_among(min(self._requested, AT_ONCE))
        waited = {self._subject.patience_among(len(self._held)) for s in self._steps.values() if s.kind == "silence"}
        waited |= {patience_s for session in self._refused if session.timed_out}
        return HoldResult(
            requested=self._requested,
            sessions=(
                *(_read_answers(session, self._steps.get(session)) for session in self._held),
                *map(_read_answers, self._refused),
            ),
            untried=self._requested - len(self._held) - len(self._refused),
            extra_answer=self._extra.first_answer if self._extra is not None else None,
            limit=self._limit,
            full=self._full,
            opened_s=self._opened_s or time.perf_counter() - self._began,
            patience_s=patience_s,
            cut_short=max(waited, default=0.0) >= self._subject.timeout_s,
            closed=self._closed,
            dropped=self._dropped,
            refused_transcript=self._refused[0].transcript("a session that was not let in") if self._refused else None,
            asked_to_step=self._asked_to_step,
            pongs=tuple(self._pongs),
            quiet=self._quiet,
            cut=cut,
        )


def _is_gone(answer: Answer) -> bool:
    return answer.kind not in ("observation", "state")


async def _ping_all(sessions: Sequence[RawSession]) -> list[float | None]:
    """Ping all sessions and wait until each was answered, or ended, or the stock client would give up.

    Return how long they took, in seconds, None where it would have given up; nothing of those that ended before.
    """
    for session in sessions:
        session.ping()
    for _ in range(int(PONG_S / _PONG_POLL_S)):
        if all(session.pong_s is not None or session.ended for session in sessions):
            break
        await asyncio.sleep(_PONG_POLL_S)
    return [session.pong_s for session in sessions if session.pong_s is not None or not session.ended]


_PING_AFTER_S, _PONG_POLL_S = 0.05, 0.02
"""How long after steps were sent pings are, so that steps are running; how often pongs are looked for; in seconds."""


def _read_answers(session: RawSession, step: Answer | None = None) -> HeldSession:
    reset = session.first_answer if session.handshake.kind == "opened" else None
    return HeldSession(session.handshake, reset, step)


async def _open_one_more(client: RawClient, subject: Subject) -> RawSession:
    """Open one more session and close it."""
    patience_s = min(subject.patience_s, max(_EXTRA_SESSION_S, _EXTRA_SESSION_FACTOR * subject.slowest_single_s))
    session = await client.start(subject.reset_data(subject.seed), patience_s=patience_s)
    if session.first_answer.kind == "observation":
        await session.close()
    else:
        session.drop()
    return session


def _named_limit(refused: Sequence[RawSession]) -> int | None:
    limits = (session.first_answer.named_limit for session in refused)
    return next((limit for limit in limits if limit is not None), None)
