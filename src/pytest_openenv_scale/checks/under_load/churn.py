"""Sessions that come and go, or stop reading: what they leave behind, and whom they disturb."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_openenv_scale.checks.background import BackgroundLoad, quick_action, single_session, step_in_background
from pytest_openenv_scale.checks.capacity_probe import (
    fill_server,
    find_slots,
    open_sessions,
    sessions_at_once,
    slot_return_s,
)
from pytest_openenv_scale.checks.resources import Usage
from pytest_openenv_scale.checks.session import Answer, RawSession, wire_text
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .full_server import SessionEnd, dropped_connections
from .leaks import Findings, ServerBefore, before, judge

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
    found = await subject.ask_once(find_slots)
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    # Checks before this one may have cost slots: what fitted first is the measure.
    start = replace(start, room=found.open if found.limit_reached else start.room)
    alone = await subject.ask_once(single_session)
    session_s = sum(filter(None, (alone.reset.latency_s, start.lone_s, alone.closed.latency_s)))
    rounds = _Short(subject, await sessions_at_once(subject, _AT_ONCE), session_s)
    usage, findings = Usage(subject.endpoint), Findings()
    count, began = rounds.at_once, time.perf_counter()
    while rounds.ended < _SHORT and not rounds.stuck and time.perf_counter() - began < _SHORT_S:
        count = await rounds.play(min(count, _SHORT // _LOOKS, _SHORT - rounds.ended))
        await usage.sample(rounds.ended)
    took_s = time.perf_counter() - began
    rounds.tell(findings, took_s)
    ended = formatting.count_of(rounds.ended, "short session")
    did = f"{ended}, {rounds.at_once:,} at once, in {formatting.seconds(took_s)}"
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
        return slot_return_s(self.subject, 2)

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
            answer = session.first_answer
            if answer.kind == "observation":
                answer = await session.step(quick_action(self.subject, number, 0))
            if answer.kind == "observation":
                answer = await session.close(patience_s=self.patience_s)
            if not answer.ended or answer.kind == "lost":
                self.failed.append((session, answer))
            self.ended += 1

    async def _get_in(self, client: RawClient, number: int) -> RawSession | None:
        """Return a session, refused or not: a slot may come back a little later than its session ended."""
        deadline = time.perf_counter() + self.free_s
        while not self.stuck:
            session = await client.start(self.subject.reset_data(self.subject.seed + number))
            if not session.first_answer.retryable:
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
    within_s, waited = slot_return_s(subject, at_once), False
    usage, findings = Usage(subject.endpoint), Findings()
    ways, last = dropped_connections(_MID_STEP_S), "none was dropped yet"
    ended, began = 0, time.perf_counter()
    async with subject.client() as client:
        while ended < _DROPPED and time.perf_counter() - began < _DROPPED_S:
            resets: list[Mapping[str, Any]] = [
                subject.reset_data(subject.seed + ended + number) for number in range(at_once)
            ]
            held = await open_sessions(client, subject, resets, within_s=within_s)
            # Every look finds as many sessions open, so that only what is left behind makes a difference.
            if len(held) < at_once:
                missing = f"{at_once - len(held):,} of {formatting.count_of(at_once, 'slot')}"
                findings.details.append(
                    f"after {formatting.count_of(ended, 'session')} {missing} did not come back: {last}"
                )
                await close_all(held)
                waited = True
                break
            if ended >= _LOOK_EVERY * len(usage.samples):
                await usage.sample(ended)
            way = ways[ended // at_once % len(ways)]
            await _drop(subject, held, way)
            ended, last = ended + at_once, f"the last ones ended with {way.name}"
    took_s = time.perf_counter() - began
    findings.figures |= {"sessions": ended, "at_once": at_once, "took_s": took_s}
    did = f"{formatting.count_of(ended, 'session')} dropped without goodbye, {at_once:,} at once"
    return await judge(subject, start, usage, ended, did, findings, within_s=within_s, waited=waited)


async def _drop(subject: Subject, sessions: list[RawSession], way: SessionEnd) -> None:
    await asyncio.gather(*(way.end(subject, session) for session in sessions))


_SILENT, _NOT_READING, _OTHERS = 8, 4, 8
"""Silent clients, clients that do not read, and sessions that step beside them, at most."""

_BEFORE_S, _SILENT_S, _NOT_READING_S = 0.5, 3.0, 2.0
"""How long the others are watched before and during, in seconds."""

_WORK_S, _MOST, _MOST_BYTES = 3.0, 10_000, 8_000_000
"""Steps sent without reading are what a server does in so many seconds, so many steps and bytes at most."""

_BURST, _PAUSE_S = 20, 0.005
"""Steps sent at a time, and the pause before the next, in seconds."""


async def silent(subject: Subject) -> CheckResult:
    """Let clients fall silent, so that not even pings are answered, then close their sockets."""
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    found = await subject.ask_once(find_slots)
    tells = found.refusal is not None and found.refusal.full
    findings = Findings()
    async with subject.client() as client:
        # A server that is full tells by whom it lets in whether it has dropped a silent one.
        wanted = start.room if tells else min(start.room, _SILENT + _OTHERS)
        mute, others = await _split(client, subject, wanted, _SILENT)
        calm = await step_in_background(subject, others[:_OTHERS], _BEFORE_S)
        if calm.stopped and not calm.still_playing:
            return await _none_stepped([*mute, *others], calm)
        for session in mute:
            session.connection.mute()
        during = await step_in_background(subject, calm.still_playing, _SILENT_S)
        dropped = await _let_in(client, subject, len(mute)) if tells else None
        for session in mute:
            session.drop()
        await close_all([*during.still_playing, *others[_OTHERS:]])
    _tell(findings, len(mute), calm, during)
    findings.figures["dropped_by_server"] = dropped
    said = "" if dropped is None else f", {dropped:,} of them dropped by the server meanwhile"
    findings.details.append(f"{formatting.count_of(len(mute), 'client')} silent for {_SILENT_S:g} s{said}")
    did = f"{formatting.count_of(len(mute), 'client')} silent for {_SILENT_S:g} s, then gone"
    within_s = slot_return_s(subject, len(mute))
    return await judge(subject, start, Usage(subject.endpoint), len(mute), did, findings, within_s=within_s)


async def not_reading(subject: Subject) -> CheckResult:
    """Let clients go on sending steps whose answers they do not read, then leave."""
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    findings = Findings()
    async with subject.client() as client:
        mute, others = await _split(client, subject, min(start.room, _NOT_READING + _OTHERS), _NOT_READING)
        calm = await step_in_background(subject, others[:_OTHERS], _BEFORE_S)
        if calm.stopped and not calm.still_playing:
            return await _none_stepped([*mute, *others], calm)
        steps = _steps(start, calm, len(mute))
        sending = [asyncio.create_task(_send_steps(subject, session, steps)) for session in mute]
        during = await step_in_background(subject, calm.still_playing, _NOT_READING_S)
        sent = await asyncio.gather(*sending)
        backed_up = sum(session.connection.backed_up for session in mute)
        for session in mute:
            session.drop()
        await close_all([*during.still_playing, *others[_OTHERS:]])
    _tell(findings, len(mute), calm, during)
    sent_bytes = sum(size for _, size in sent)
    findings.figures |= {
        "steps_sent": sum(count for count, _ in sent),
        "sent_bytes": sent_bytes,
        "backed_up": backed_up,
    }
    did = f"{formatting.count_of(len(mute), 'client')} sent {findings.figures['steps_sent']:,} steps without reading"
    within_s = slot_return_s(subject, len(mute))
    return await judge(subject, start, Usage(subject.endpoint), len(mute), did, findings, within_s=within_s)


async def _none_stepped(sessions: list[RawSession], calm: BackgroundLoad) -> CheckResult:
    """Leave, and return the result where no session stepped even before anything was asked of the server."""
    await close_all(sessions)
    answer, transcript = calm.stopped[0]
    said = f"{formatting.count_of(len(calm.stopped), 'session')} did not step before any client was mute: {answer}"
    return CheckResult(CheckOutcome.INCONCLUSIVE, said, transcripts=(transcript,))


async def _split(
    client: RawClient, subject: Subject, wanted: int, most: int
) -> tuple[list[RawSession], list[RawSession]]:
    """Open sessions and return those that will be mute, half of them at most but one at least, and the others."""
    held = await open_sessions(client, subject, [subject.reset_data(subject.seed)] * wanted)
    count = min(most, max(1, len(held) // 2))
    return held[:count], held[count:]


async def _let_in(client: RawClient, subject: Subject, most: int) -> int:
    """Return how many sessions a server lets in that was full."""
    inside, _ = await fill_server(client, subject, most)
    await close_all(inside)
    return len(inside)


def _steps(start: ServerBefore, calm: BackgroundLoad, clients: int) -> int:
    """Return how many steps each client may send: what is asked must be done before the slots are counted.

    As many as the server does in `_WORK_S` seconds in all, but one each however slow they are.
    """
    step_s = max(filter(None, (start.lone_s, calm.step_s)), default=0.0)
    return max(1, min(_MOST, int(_WORK_S / max(step_s, 1e-6))) // clients)


async def _send_steps(subject: Subject, session: RawSession, steps: int) -> tuple[int, int]:
    """Stop reading and send steps until the server takes no more; return how many, and their size in bytes."""
    session.connection.mute()
    sent = size = 0
    end = time.perf_counter() + _NOT_READING_S
    while sent < steps and size < _MOST_BYTES and time.perf_counter() < end:
        for _ in range(min(_BURST, steps - sent)):
            message = {"type": "step", "data": quick_action(subject, session.number, sent)}
            session.send(message)
            sent, size = sent + 1, size + len(wire_text(message))
            if session.connection.backed_up:
                return sent, size
        await asyncio.sleep(_PAUSE_S)
    return sent, size


def _tell(findings: Findings, mute: int, calm: BackgroundLoad, during: BackgroundLoad) -> None:
    """Write down how the others fared."""
    findings.figures |= {
        "mute": mute,
        "others": len(calm.still_playing),
        "step_before_s": calm.step_s,
        "step_during_s": during.step_s,
        "slowest_step_during_s": during.slowest_s,
    }
    if calm.stopped:
        answer, transcript = calm.stopped[0]
        findings.transcripts.append(transcript)
        count = formatting.count_of(len(calm.stopped) + len(calm.still_playing), "session")
        said = f"{len(calm.stopped):,} of {count} beside them stopped before any client was mute: {answer}"
        findings.details.append(f"{said}; they are not counted")
    if not calm.still_playing:
        findings.details.append("no slot was left for sessions beside them")
    remedy = "write to each client from a task of its own, and wait for no client while others wait"
    if during.stopped:
        answer, transcript = during.stopped[0]
        findings.transcripts.append(transcript)
        said = (
            f"{len(during.stopped):,} of {formatting.count_of(len(calm.still_playing), 'session')} beside them got no step done"
        )
        findings.problems.append((f"{said}: {answer}", remedy))
    elif during.much_slower_than(calm):
        pair = f"{formatting.seconds(calm.step_s)} → {formatting.seconds(during.step_s)}"
        findings.problems.append((f"a step of the sessions beside them took {pair}", remedy))
