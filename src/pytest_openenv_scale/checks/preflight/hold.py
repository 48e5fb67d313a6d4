"""Open a number of sessions at once: whether they fit, how long they take, and whether their slots come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from pytest_openenv_scale.checks.background import can_step, quick_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import AT_ONCE, RawClient, Subject, close_all
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
class HoldResult:
    """What became of `requested` sessions opened at once.

    `opened_s` is how long opening them all took, in seconds, `untried` how many were not opened any more after a
    timeout. `extra_answer` is what one more session got where all were let in. `limit` is the number of sessions per
    worker that the server's refusal names, and `full` says that all of it was held. `patience_s` is the timeout of an
    answer while sessions were opened, in seconds; `cut_short` says that an answer missed the timeout the user set, so
    that a longer one might have helped. `closed` tells which slots came back after all were closed, `dropped` after
    one was dropped from a full server. Sessions are not `asked_to_step` where steps of a lone one are not answered.
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


async def hold(subject: Subject, sessions: int) -> HoldResult:
    """Open `sessions` sessions and one more, step all of them at once, close them and see whether as many get in again.

    Where steps of a lone session are not answered with more than errors, none is asked for.
    Where the server counts more sessions than are held, those that were refused are tried again for 3 s: the slots of
    sessions that ended just before may still come back. Timeouts grow with the slowest answer to a lone session.
    """
    steps_play = await can_step(subject)
    patience_s = subject.patience_among(min(sessions, AT_ONCE))
    async with subject.client(patience_s) as client:
        began = time.perf_counter()
        subject.report_progress(f"opening {sessions:,} sessions")
        held, refused = await client.admit_many(subject.resets(sessions), until_silent=True)
        untried = sessions - len(held) - len(refused)
        while (missing := (_named_limit(refused) or 0) - len(held)) > 0 and time.perf_counter() - began < LATE_SLOT_S:
            await asyncio.sleep(_PAUSE_S)
            let_in, again = await client.admit_many(subject.resets(len(refused[:missing])), until_silent=True)
            untried += len(refused[:missing]) - len(let_in) - len(again)
            held, refused = held + let_in, refused[missing:] + again
        opened_s = time.perf_counter() - began
        extra = [] if refused else [await _open_one_more(client, subject)]
        limit = _named_limit(refused or extra)
        step_patience_s = subject.patience_among(len(held))
        steps = await _step_at_once(subject, held, step_patience_s) if steps_play else []
        pids = {step.observation.get("pid") for step in steps if step.kind == "observation"}
        full = capacity_of(len(held), limit=limit, workers=max(1, len(pids))).full
        closed, dropped = await _release_and_reopen(client, subject, held, full=full)
    answered = [*map(_read_answers, held, steps or repeat(None)), *map(_read_answers, refused)]
    waited = {step_patience_s for step in steps if step.kind == "silence"}
    waited |= {patience_s for session in refused if session.timed_out}
    return HoldResult(
        requested=sessions,
        sessions=tuple(answered),
        untried=untried,
        extra_answer=extra[0].first_answer if extra else None,
        limit=limit,
        full=full,
        opened_s=opened_s,
        patience_s=patience_s,
        cut_short=max(waited, default=0.0) >= subject.timeout_s,
        closed=closed,
        dropped=dropped,
        refused_transcript=refused[0].transcript("a session that was not let in") if refused else None,
        asked_to_step=steps_play,
    )


async def _step_at_once(subject: Subject, sessions: list[RawSession], patience_s: float) -> list[Answer]:
    subject.report_progress(f"stepping {len(sessions):,} sessions at once")
    steps = (
        session.step(quick_action(subject, session, 0, number=number), patience_s=patience_s)
        for number, session in enumerate(sessions)
    )
    return list(await asyncio.gather(*steps))


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


async def _release_and_reopen(
    client: RawClient, subject: Subject, held: list[RawSession], *, full: bool
) -> tuple[SlotsReturned | None, SlotsReturned | None]:
    """Close all sessions and open as many; before that, drop one where the server is full and open it again.

    Return what came back after closing and after dropping, None where that was not tried.
    """

    async def reopen(count: int, began: float) -> tuple[list[RawSession], SlotsReturned]:
        reopened = await open_sessions(client, subject, subject.resets(count), within_s=SLOT_RETURN_S)
        return reopened, SlotsReturned(count, len(reopened), time.perf_counter() - began)

    open_now = [session for session in held if not session.ended]
    dropped = None
    if full and len(open_now) == len(held):
        subject.report_progress("dropping a session without goodbye")
        began = time.perf_counter()
        open_now.pop().reset_connection()
        reopened, dropped = await reopen(1, began)
        open_now += reopened
    if not open_now:
        return None, dropped
    subject.report_progress(f"closing {len(open_now)} sessions and opening as many")
    began = time.perf_counter()
    await close_all(open_now)
    reopened, closed = await reopen(len(open_now), began)
    await close_all(reopened)
    return closed, dropped
