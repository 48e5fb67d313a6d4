"""Clients that keep their socket and stop reading: those beside them go on, and nothing of them stays."""

from __future__ import annotations

import asyncio
import time

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .aftermath import Before, Findings, before, judge
from .answer import wire_text
from .bystanders import Pace, pace, quick
from .client import RawClient, close_all
from .resources import Usage
from .seats import crowd, fill, free_s, seats
from .session import RawSession
from .subject import Subject

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
    found = await subject.learn(seats)
    tells = found.refusal is not None and found.refusal.full
    findings = Findings()
    async with subject.client() as client:
        # A server that is full tells by whom it lets in whether it has dropped a silent one.
        wanted = start.room if tells else min(start.room, _SILENT + _OTHERS)
        mute, others = await _split(client, subject, wanted, _SILENT)
        calm = await pace(subject, others[:_OTHERS], _BEFORE_S)
        if calm.stopped and not calm.going:
            return await _none_stepped([*mute, *others], calm)
        for session in mute:
            session.connection.mute()
        during = await pace(subject, calm.going, _SILENT_S)
        dropped = await _let_in(client, subject, len(mute)) if tells else None
        for session in mute:
            session.drop()
        await close_all([*during.going, *others[_OTHERS:]])
    _tell(findings, len(mute), calm, during)
    findings.figures["dropped_by_server"] = dropped
    said = "" if dropped is None else f", {dropped:,} of them dropped by the server meanwhile"
    findings.details.append(f"{text_of.count_of(len(mute), 'client')} silent for {_SILENT_S:g} s{said}")
    did = f"{text_of.count_of(len(mute), 'client')} silent for {_SILENT_S:g} s, then gone"
    within_s = free_s(subject, len(mute))
    return await judge(subject, start, Usage(subject.endpoint), len(mute), did, findings, within_s=within_s)


async def not_reading(subject: Subject) -> CheckResult:
    """Let clients go on sending steps whose answers they do not read, then leave."""
    start = await before(subject)
    if isinstance(start, CheckResult):
        return start
    findings = Findings()
    async with subject.client() as client:
        mute, others = await _split(client, subject, min(start.room, _NOT_READING + _OTHERS), _NOT_READING)
        calm = await pace(subject, others[:_OTHERS], _BEFORE_S)
        if calm.stopped and not calm.going:
            return await _none_stepped([*mute, *others], calm)
        steps = _steps(start, calm, len(mute))
        sending = [asyncio.create_task(_send_steps(subject, session, steps)) for session in mute]
        during = await pace(subject, calm.going, _NOT_READING_S)
        sent = await asyncio.gather(*sending)
        backed_up = sum(session.connection.backed_up for session in mute)
        for session in mute:
            session.drop()
        await close_all([*during.going, *others[_OTHERS:]])
    _tell(findings, len(mute), calm, during)
    sent_bytes = sum(size for _, size in sent)
    findings.figures |= {
        "steps_sent": sum(count for count, _ in sent),
        "sent_bytes": sent_bytes,
        "backed_up": backed_up,
    }
    did = f"{text_of.count_of(len(mute), 'client')} sent {findings.figures['steps_sent']:,} steps without reading"
    within_s = free_s(subject, len(mute))
    return await judge(subject, start, Usage(subject.endpoint), len(mute), did, findings, within_s=within_s)


async def _none_stepped(sessions: list[RawSession], calm: Pace) -> CheckResult:
    """Leave, and return the result where no session stepped even before anything was asked of the server."""
    await close_all(sessions)
    answer, transcript = calm.stopped[0]
    said = f"{text_of.count_of(len(calm.stopped), 'session')} did not step before any client was mute: {answer}"
    return CheckResult(CheckOutcome.INCONCLUSIVE, said, transcripts=(transcript,))


async def _split(
    client: RawClient, subject: Subject, wanted: int, most: int
) -> tuple[list[RawSession], list[RawSession]]:
    """Open sessions and return those that will be mute, half of them at most but one at least, and the others."""
    held = await fill(client, subject, [subject.reset_data(subject.seed)] * wanted)
    count = min(most, max(1, len(held) // 2))
    return held[:count], held[count:]


async def _let_in(client: RawClient, subject: Subject, most: int) -> int:
    """Return how many sessions a server lets in that was full."""
    inside, _ = await crowd(client, subject, most)
    await close_all(inside)
    return len(inside)


def _steps(start: Before, calm: Pace, clients: int) -> int:
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
            message = {"type": "step", "data": quick(subject, session.number, sent)}
            session.send(message)
            sent, size = sent + 1, size + len(wire_text(message))
            if session.connection.backed_up:
                return sent, size
        await asyncio.sleep(_PAUSE_S)
    return sent, size


def _tell(findings: Findings, mute: int, calm: Pace, during: Pace) -> None:
    """Write down how the others fared."""
    findings.figures |= {
        "mute": mute,
        "others": len(calm.going),
        "step_before_s": calm.step_s,
        "step_during_s": during.step_s,
        "slowest_step_during_s": during.slowest_s,
    }
    if calm.stopped:
        answer, transcript = calm.stopped[0]
        findings.transcripts.append(transcript)
        count = text_of.count_of(len(calm.stopped) + len(calm.going), "session")
        said = f"{len(calm.stopped):,} of {count} beside them stopped before any client was mute: {answer}"
        findings.details.append(f"{said}; they are not counted")
    if not calm.going:
        findings.details.append("no slot was left for sessions beside them")
    remedy = "write to each client from a task of its own, and wait for no client while others wait"
    if during.stopped:
        answer, transcript = during.stopped[0]
        findings.transcripts.append(transcript)
        said = f"{len(during.stopped):,} of {text_of.count_of(len(calm.going), 'session')} beside them got no step done"
        findings.problems.append((f"{said}: {answer}", remedy))
    elif during.much_slower_than(calm):
        pair = f"{text_of.seconds(calm.step_s)} → {text_of.seconds(during.step_s)}"
        findings.problems.append((f"a step of the sessions beside them took {pair}", remedy))
