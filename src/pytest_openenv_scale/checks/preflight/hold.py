"""Open a number of sessions at once: whether they fit, how long they take, and whether their slots come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.checks.capacity_probe import open_sessions
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.results.outcome import Transcript

AT_ONCE = 32
"""New sessions at a time."""

LATE_SLOT_S = 3.0
"""How long the slots of earlier sessions may take to come back while sessions are opened, in seconds."""

SLOT_RETURN_S = 10.0
"""How long the slots of closed sessions may take to come back, in seconds."""

_PAUSE_S = 0.1
_EXTRA_SESSION_S, _EXTRA_SESSION_FACTOR = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """A session that did not open or did not step: in which phase, and the answer it got instead."""

    phase: str
    answer: Answer

    @property
    def client_limited(self) -> bool:
        """Whether this machine could not open the session: descriptors, ports, memory."""
        return self.answer.client_limited


@dataclass(frozen=True, slots=True)
class SlotsReturned:
    """How many slots were released, how many new sessions got in, and how many seconds that took."""

    released: int
    returned: int
    took_s: float


@dataclass(frozen=True, slots=True)
class HoldResult:
    """What became of `requested` sessions opened at once, of which `held` were let in.

    Latencies are seconds, one per session that got so far. `opened_s` is how long opening them all took, `untried`
    how many were not opened any more after a timeout. `extra_answer` is what one more session got where all were let
    in. `limit` is the number of sessions per worker that the server's refusal names, and `full` says that all of it
    was held. `patience_s` is the timeout of an answer while sessions were opened, in seconds; `cut_short` says that an
    answer missed the timeout the user set, so that a longer one might have helped. `closed` tells which slots came back
    after all were closed, `dropped` after one was dropped from a full server.
    """

    requested: int
    held: int
    untried: int
    failures: tuple[OpenFailure, ...]
    extra_answer: Answer | None
    limit: int | None
    full: bool
    opened_s: float
    patience_s: float
    cut_short: bool
    connect_s: tuple[float, ...]
    reset_s: tuple[float, ...]
    step_s: tuple[float, ...]
    pids: int | None
    closed: SlotsReturned | None
    dropped: SlotsReturned | None
    refused_transcript: Transcript | None

    @property
    def refused(self) -> tuple[OpenFailure, ...]:
        """The sessions that were not let in."""
        return tuple(failure for failure in self.failures if failure.phase != "step")

    @property
    def taken_by_others(self) -> int:
        """How many sessions the server counts beyond those held here."""
        return max(0, self.limit - self.held) if self.limit is not None and self.refused else 0


@dataclass(slots=True)
class _Opening:
    """Opens the sessions and collects those held and those refused."""

    client: RawClient
    subject: Subject
    connected: list[float]
    held: list[RawSession]
    refused: list[tuple[OpenFailure, RawSession]]
    untried: int = 0

    async def open(self, count: int) -> None:
        """Open `count` sessions, 32 at a time; after a timeout no more are opened."""
        window = asyncio.Semaphore(AT_ONCE)

        async def open_one() -> None:
            async with window:
                if any(failure.answer.kind == "silence" for failure, _ in self.refused):
                    self.untried += 1
                else:
                    await self._open()

        await asyncio.gather(*(open_one() for _ in range(count)))

    async def _open(self) -> None:
        session = await self.client.connect()
        phase = "connect"
        if session.first_answer.kind == "opened":
            self.connected.append(session.first_answer.latency_s or 0.0)
            phase, session.first_answer = "reset", await session.reset(self._reset_data(session))
        if session.first_answer.kind == "observation":
            self.held.append(session)
        else:
            session.drop()
            self.refused.append((OpenFailure(phase, session.first_answer), session))

    def _reset_data(self, session: RawSession) -> dict[str, Any]:
        return self.subject.reset_data(self.subject.seed + session.number)

    @property
    def limit(self) -> int | None:
        """The limit the server names in a refusal."""
        return next(
            (limit for failure, _ in self.refused if (limit := _limit_in_refusal(failure.answer)) is not None), None
        )


async def hold(subject: Subject, sessions: int) -> HoldResult:
    """Open `sessions` sessions and one more, step all of them at once, close them and see whether as many get in again.

    Where the server counts more sessions than are held, those that were refused are tried again for 3 s: the slots of
    sessions that ended just before may still come back. Timeouts grow with the slowest answer to a lone session, so
    `play_session` has to be asked before.
    """
    patience_s = subject.patience_among(min(sessions, AT_ONCE))
    async with subject.client(patience_s) as client:
        opening = _Opening(client, subject, [], [], [])
        began = time.perf_counter()
        subject.report_progress(f"opening {sessions:,} sessions")
        await opening.open(sessions)
        while (
            missing_slots := (opening.limit or 0) - len(opening.held)
        ) > 0 and time.perf_counter() - began < LATE_SLOT_S:
            await asyncio.sleep(_PAUSE_S)
            retries = len(opening.refused[:missing_slots])
            del opening.refused[:missing_slots]
            await opening.open(retries)
        opened_s = time.perf_counter() - began
        held, extra_answer = opening.held, None if opening.refused else await _open_one_more(client, subject)
        limit = opening.limit if extra_answer is None else _limit_in_refusal(extra_answer)
        subject.report_progress(f"stepping {len(held):,} sessions at once")
        step_patience_s = subject.patience_among(len(held))
        steps = await asyncio.gather(
            *(
                session.step(subject.action(number, wait_s=0.0), patience_s=step_patience_s)
                for number, session in enumerate(held)
            )
        )
        pids = _count_processes(steps)
        full = limit is not None and len(held) == limit * (pids or 1)
        closed, dropped = await _release_and_reopen(client, subject, held, full=full)
    failures = [failure for failure, _ in opening.refused]
    failures += [OpenFailure("step", step) for step in steps if step.kind != "observation"]
    silent = [failure.phase for failure in failures if failure.answer.kind == "silence"]
    return HoldResult(
        requested=sessions,
        held=len(held),
        untried=opening.untried,
        failures=tuple(failures),
        extra_answer=extra_answer,
        limit=limit,
        full=full,
        opened_s=opened_s,
        patience_s=patience_s,
        cut_short=any((step_patience_s if phase == "step" else patience_s) >= subject.timeout_s for phase in silent),
        connect_s=tuple(opening.connected),
        reset_s=_latencies(session.first_answer for session in held),
        step_s=_latencies(step for step in steps if step.kind == "observation"),
        pids=pids,
        closed=closed,
        dropped=dropped,
        refused_transcript=next(
            (session.transcript("a session that was not let in") for _, session in opening.refused), None
        ),
    )


async def _open_one_more(client: RawClient, subject: Subject) -> Answer:
    """Open one more session and close it; return its answer."""
    session = await client.connect()
    if session.first_answer.kind == "opened":
        patience = min(subject.patience_s, max(_EXTRA_SESSION_S, _EXTRA_SESSION_FACTOR * subject.slowest_single_s))
        session.first_answer = await session.reset(
            subject.reset_data(subject.seed + session.number), patience_s=patience
        )
    if session.first_answer.kind == "observation":
        await session.close()
    else:
        session.drop()
    return session.first_answer


def _limit_in_refusal(answer: Answer) -> int | None:
    """Return the limit that a refusal names."""
    limit = answer.data.get("max_sessions")
    return limit if type(limit) is int else None


async def _release_and_reopen(
    client: RawClient, subject: Subject, held: list[RawSession], *, full: bool
) -> tuple[SlotsReturned | None, SlotsReturned | None]:
    """Close all sessions and open as many; before that, drop one where the server is full and open it again.

    Return what came back after closing and after dropping, None where that was not tried.
    """
    open_now = [session for session in held if not session.ended]
    reset = subject.reset_data(subject.seed)
    dropped = None
    if full and len(open_now) == len(held):
        subject.report_progress("dropping a session without goodbye")
        began = time.perf_counter()
        open_now.pop().reset_connection()
        reopened = await open_sessions(client, subject, [reset], within_s=SLOT_RETURN_S)
        dropped = SlotsReturned(1, len(reopened), time.perf_counter() - began)
        open_now += reopened
    if not open_now:
        return None, dropped
    subject.report_progress(f"closing {len(open_now)} sessions and opening as many")
    began = time.perf_counter()
    await close_all(open_now)
    reopened = await open_sessions(client, subject, [reset] * len(open_now), within_s=SLOT_RETURN_S)
    closed = SlotsReturned(len(open_now), len(reopened), time.perf_counter() - began)
    await close_all(reopened)
    return closed, dropped


def _latencies(answers: Iterable[Answer]) -> tuple[float, ...]:
    return tuple(answer.latency_s for answer in answers if answer.latency_s is not None)


def _count_processes(answers: Iterable[Answer]) -> int | None:
    """Return how many processes answered; None where observations have no `pid`."""
    pids = {answer.observation.get("pid") for answer in answers}
    return len(pids) if pids and all(type(pid) is int for pid in pids) else None
