"""Sessions that come and go, well or badly: what they leave behind, and whom they disturb."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckResult

from .aftermath import Findings, before, judge
from .answer import Answer
from .bystanders import quick
from .client import RawClient, close_all
from .freeing import Way, dropping
from .lone import lone
from .resources import Usage
from .seats import fill, free_s, seats, together
from .session import RawSession
from .subject import Subject

_SHORT, _AT_ONCE, _SHORT_S = 2000, 64, 20.0
"""Short sessions, how many at once at most, and how long they may take together, in seconds."""

_DROPPED, _DROPPED_AT_ONCE, _DROPPED_S = 400, 48, 8.0
_MID_STEP_S = 0.1
"""Sessions dropped, how many at once at most, how long that may take; the wait of the step in whose midst they drop."""

_LOOKS, _LOOK_EVERY = 16, 8
"""Looks at the server during short sessions; dropped sessions from one look to the next, at least."""

_RETRY_S = 0.02
_FEW_FAILURES = 0.005
"""The share of sessions that may fail without the server being blamed."""


async def short(subject: Subject) -> CheckResult:
    """Play thousands of sessions of one step, as many at once as fit."""
    found = await subject.learn(seats)
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    # Checks before this one may have cost slots: what fitted first is the measure.
    start = replace(start, room=found.held if found.known else start.room)
    alone = await subject.learn(lone)
    session_s = sum(filter(None, (alone.reset.latency_s, start.lone_s, alone.closed.latency_s)))
    rounds = _Short(subject, await together(subject, _AT_ONCE), session_s)
    usage, findings = Usage(subject.endpoint), Findings()
    count, began = rounds.at_once, time.perf_counter()
    while rounds.ended < _SHORT and not rounds.stuck and time.perf_counter() - began < _SHORT_S:
        count = await rounds.play(min(count, _SHORT // _LOOKS, _SHORT - rounds.ended))
        await usage.look(rounds.ended)
    took_s = time.perf_counter() - began
    rounds.tell(findings, took_s)
    did = f"{text_of.count_of(rounds.ended, 'short session')}, {rounds.at_once:,} at once, in {text_of.seconds(took_s)}"
    within_s = rounds.free_s
    return await judge(subject, start, usage, rounds.ended, did, findings, within_s=within_s, waited=rounds.stuck)


@dataclass
class _Short:
    """Rounds of sessions of one step; `ended` counts the sessions so far, `refused` attempts that found no slot.

    `stuck` is set once no slot was free for `free_s` seconds. `session_s` is what one takes that has the server to
    itself, in seconds.
    """

    subject: Subject
    at_once: int
    session_s: float
    ended: int = 0
    refused: int = 0
    stuck: bool = False
    failed: list[tuple[RawSession, Answer]] = field(default_factory=list[tuple[RawSession, Answer]])

    @property
    def patience_s(self) -> float:
        """How long an answer may take, in seconds."""
        return self.subject.patience_among(self.at_once)

    @property
    def free_s(self) -> float:
        """How long a slot may take to come back, in seconds: those before it end a step and a close()."""
        return free_s(self.subject, 2)

    async def play(self, count: int) -> int:
        """Play one round of so many sessions; return how many the next should have, so that looks come often enough.

        A round is never shorter than one session: fewer of them would not make it so.
        """
        numbers = iter(range(self.ended, self.ended + count))
        began = time.perf_counter()
        async with self.subject.client(self.patience_s) as client:
            await asyncio.gather(*(self._player(client, numbers) for _ in range(min(self.at_once, count))))
        took_s = time.perf_counter() - began
        return max(1, int(count / took_s * max(_SHORT_S / _LOOKS, self.session_s)))

    async def _player(self, client: RawClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            session = await self._get_in(client, number)
            if session is None:
                return
            answer = session.first
            if answer.kind == "observation":
                answer = await session.step(quick(self.subject, number, 0))
            if answer.kind == "observation":
                answer = await session.close(patience_s=self.patience_s)
            if not answer.over or answer.kind == "lost":
                self.failed.append((session, answer))
            self.ended += 1

    async def _get_in(self, client: RawClient, number: int) -> RawSession | None:
        """Return a session, refused or not: a slot may come back a little later than its session ended."""
        deadline = time.perf_counter() + self.free_s
        while not self.stuck:
            session = await client.start(self.subject.reset_data(self.subject.seed + number))
            if not session.first.put_off:
                return session
            session.drop()
            self.refused += 1
            if time.perf_counter() > deadline:
                self.stuck = True
            await asyncio.sleep(_RETRY_S)
        return None

    def tell(self, findings: Findings, took_s: float) -> None:
        """Write down how the sessions went."""
        findings.figures |= {
            "sessions": self.ended,
            "at_once": self.at_once,
            "failed": len(self.failed),
            "refused": self.refused,
            "took_s": took_s,
        }
        if self.failed:
            session, answer = self.failed[0]
            said = f"{len(self.failed):,} of them failed: {answer}"
            findings.transcripts.append(session.transcript("a short session that failed"))
            if len(self.failed) > _FEW_FAILURES * self.ended:
                findings.problems.append((said, "look into the server's log for what ended them"))
            else:
                findings.details.append(said)


async def dropped(subject: Subject) -> CheckResult:
    """Drop hundreds of sessions without goodbye, idle ones and in mid-step, with a FIN and with a TCP reset."""
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    at_once = min(start.room, _DROPPED_AT_ONCE)
    within_s, waited = free_s(subject, at_once), False
    usage, findings = Usage(subject.endpoint), Findings()
    ways, last = dropping(_MID_STEP_S), "none was dropped yet"
    ended, began = 0, time.perf_counter()
    async with subject.client() as client:
        while ended < _DROPPED and time.perf_counter() - began < _DROPPED_S:
            resets: list[Mapping[str, Any]] = [
                subject.reset_data(subject.seed + ended + number) for number in range(at_once)
            ]
            held = await fill(client, subject, resets, within_s=within_s)
            # Every look finds as many sessions open, so that only what is left behind makes a difference.
            if len(held) < at_once:
                missing = f"{at_once - len(held):,} of {text_of.count_of(at_once, 'slot')}"
                findings.details.append(
                    f"after {text_of.count_of(ended, 'session')} {missing} did not come back: {last}"
                )
                await close_all(held)
                waited = True
                break
            if ended >= _LOOK_EVERY * len(usage.looks):
                await usage.look(ended)
            way = ways[ended // at_once % len(ways)]
            await _drop(subject, held, way)
            ended, last = ended + at_once, f"the last ones ended with {way.name}"
    took_s = time.perf_counter() - began
    findings.figures |= {"sessions": ended, "at_once": at_once, "took_s": took_s}
    did = f"{text_of.count_of(ended, 'session')} dropped without goodbye, {at_once:,} at once"
    return await judge(subject, start, usage, ended, did, findings, within_s=within_s, waited=waited)


async def _drop(subject: Subject, sessions: list[RawSession], way: Way) -> None:
    await asyncio.gather(*(way.end(subject, session) for session in sessions))
