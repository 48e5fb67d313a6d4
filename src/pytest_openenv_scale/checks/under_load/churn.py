"""Sessions that come and go, or stop reading: what they leave behind, and how they affect other sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.checks.background import (
    BackgroundLoad,
    background_figures,
    quick_action,
    single_session,
    step_in_background,
)
from pytest_openenv_scale.checks.capacity_probe import (
    fill_server,
    find_slots,
    open_sessions,
    sessions_at_once,
    slot_return_s,
)
from pytest_openenv_scale.checks.session import Answer, RawSession, wire_text
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .full_server import dropped_connections
from .leaks import LeakCheck, ServerBefore, measure_before

_SHORT_SESSIONS, _SHORT_AT_ONCE, _SHORT_S = 2000, 64, 20.0
"""Short sessions, how many at once at most, and how long they may take together, in seconds."""

_DROPPED_SESSIONS, _DROPPED_AT_ONCE, _DROPPED_S = 400, 48, 8.0
_MID_STEP_S = 0.1
"""Sessions dropped, how many at once at most, how long that may take; the wait of the step during which they drop."""

_SAMPLES, _SESSIONS_PER_SAMPLE = 16, 8
"""Samples of the server during short sessions; dropped sessions from one sample to the next, at least."""

_RETRY_S = 0.02
_FEW_FAILURES = 0.005
"""Up to this share of sessions may fail without being a problem of the server."""


async def short_sessions(subject: Subject) -> CheckResult:
    """Play thousands of sessions of one step, as many at once as fit."""
    slots = await subject.learn(find_slots)
    before = await measure_before(subject)
    if isinstance(before, CheckResult):
        return before
    # Checks before this one may have cost slots: compare with what fitted first.
    before = replace(before, slots=slots.open if slots.limit_reached else before.slots)
    single = await subject.learn(single_session)
    session_s = sum(filter(None, (single.reset.latency_s, before.lone_step_s, single.closed.latency_s)))
    rounds = _ShortSessions(subject, await sessions_at_once(subject, _SHORT_AT_ONCE), session_s)
    check = LeakCheck(subject, before)
    count, began = rounds.at_once, time.perf_counter()
    while rounds.ended < _SHORT_SESSIONS and not rounds.stuck and time.perf_counter() - began < _SHORT_S:
        count = await rounds.play(min(count, _SHORT_SESSIONS // _SAMPLES, _SHORT_SESSIONS - rounds.ended))
        await check.usage.sample(rounds.ended)
    took_s = time.perf_counter() - began
    rounds.report(check, took_s)
    ended = formatting.count_of(rounds.ended, "short session")
    activity = f"{ended}, {rounds.at_once:,} at once, in {formatting.seconds(took_s)}"
    return await check.judge(rounds.ended, activity, within_s=rounds.slot_return_s, waited=rounds.stuck)


@dataclass
class _ShortSessions:
    """Rounds of sessions of one step; `ended` counts the sessions so far, `refused` the attempts that found no slot.

    `stuck` is set once no slot was free for `slot_return_s` seconds. `session_s` is how long one takes that has the
    server to itself, in seconds.
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
        """The timeout of an answer, in seconds."""
        return self.subject.patience_among(self.at_once)

    @property
    def slot_return_s(self) -> float:
        """How long a slot may take to come back, in seconds: those before it end a step and a close()."""
        return slot_return_s(self.subject, 2)

    async def play(self, count: int) -> int:
        """Play one round of `count` sessions; return how many the next should have for samples to be frequent enough.

        A round is planned for no less time than one session takes.
        """
        numbers = iter(range(self.ended, self.ended + count))
        began = time.perf_counter()
        async with self.subject.client(self.patience_s) as client:
            await asyncio.gather(*(self._play_sessions(client, numbers) for _ in range(min(self.at_once, count))))
        took_s = time.perf_counter() - began
        return max(1, int(count / took_s * max(_SHORT_S / _SAMPLES, self.session_s)))

    async def _play_sessions(self, client: RawClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            session = None if self.stuck else await self._open_session(client, number)
            if session is None:
                return
            answer = session.first_answer
            if answer.kind == "observation":
                answer = await session.step(quick_action(self.subject, session, 0, number=number))
            if answer.kind == "observation":
                answer = await session.close(patience_s=self.patience_s)
            if not answer.ended or answer.kind == "lost":
                self.failed.append((session, answer))
            self.ended += 1

    async def _open_session(self, client: RawClient, number: int) -> RawSession | None:
        """Open a session, trying again while the server is full; None once `stuck`.

        A slot may come back a little later than its session ended.
        """

        def again(answer: Answer) -> bool:
            self.refused += answer.retryable
            return answer.retryable and not self.stuck

        session = await client.start_when_free(
            self.subject.reset_data(self.subject.seed + number),
            within_s=self.slot_return_s,
            again=again,
            pause_s=_RETRY_S,
        )
        if not session.first_answer.retryable:
            return session
        session.drop()
        self.stuck = True
        return None

    def report(self, check: LeakCheck, took_s: float) -> None:
        """Add figures and failures of the sessions to what is found."""
        check.figures |= {
            "sessions": self.ended,
            "at_once": self.at_once,
            "failed": len(self.failed),
            "refused": self.refused,
            "took_s": took_s,
        }
        if self.failed:
            session, answer = self.failed[0]
            text = f"{len(self.failed):,} of them failed: {answer}"
            check.transcripts.append(session.transcript("a short session that failed"))
            if len(self.failed) > _FEW_FAILURES * self.ended:
                check.problems.append((text, "look into the server's log for what ended them"))
            else:
                check.details.append(text)


async def dropped_sessions(subject: Subject) -> CheckResult:
    """Drop hundreds of sessions without a close message, idle ones and in mid-step, with a FIN and with a TCP reset."""
    before = await measure_before(subject)
    if isinstance(before, CheckResult):
        return before
    at_once = min(before.slots, _DROPPED_AT_ONCE)
    within_s, waited = slot_return_s(subject, at_once), False
    check = LeakCheck(subject, before)
    endings, last_ending = dropped_connections(_MID_STEP_S), "none was dropped yet"
    ended, began = 0, time.perf_counter()
    async with subject.client() as client:
        while ended < _DROPPED_SESSIONS and time.perf_counter() - began < _DROPPED_S:
            resets = [subject.reset_data(subject.seed + ended + number) for number in range(at_once)]
            sessions = await open_sessions(client, subject, resets, within_s=within_s)
            # Each sample is taken with as many sessions open, so that only what is left behind makes a difference.
            if len(sessions) < at_once:
                missing = f"{at_once - len(sessions):,} of {formatting.count_of(at_once, 'slot')}"
                check.details.append(
                    f"after {formatting.count_of(ended, 'session')} {missing} did not come back: {last_ending}"
                )
                await close_all(sessions)
                waited = True
                break
            if ended >= _SESSIONS_PER_SAMPLE * len(check.usage.samples):
                await check.usage.sample(ended)
            ending = endings[ended // at_once % len(endings)]
            await asyncio.gather(*(ending.end(subject, session) for session in sessions))
            ended, last_ending = ended + at_once, f"the last ones ended with {ending.name}"
    took_s = time.perf_counter() - began
    check.figures |= {"sessions": ended, "at_once": at_once, "took_s": took_s}
    activity = f"{formatting.count_of(ended, 'session')} dropped without goodbye, {at_once:,} at once"
    return await check.judge(ended, activity, within_s=within_s, waited=waited)


_SILENT_CLIENTS, _NOT_READING_CLIENTS, _OTHER_SESSIONS = 8, 4, 8
"""Silent clients, clients that do not read, and sessions that step beside them, at most."""

_BEFORE_S, _SILENT_S, _NOT_READING_S = 0.5, 3.0, 2.0
"""How long other sessions step before, beside silent clients and beside clients that do not read, in seconds."""

_WORK_S, _MAX_STEPS, _MAX_BYTES = 3.0, 10_000, 8_000_000
"""Steps sent without reading: as many as the server does in this many seconds, this many and as many bytes at most."""

_BURST_STEPS, _PAUSE_S = 20, 0.005
"""Steps sent at a time, and the pause before the next, in seconds."""


async def silent_clients(subject: Subject) -> CheckResult:
    """Let clients stop reading and answering pings, then close their sockets."""
    slots = await subject.learn(find_slots)
    refuses_clearly = slots.refusal is not None and slots.refusal.full

    async def fall_silent(
        client: RawClient, check: LeakCheck, muted: list[RawSession], baseline: BackgroundLoad
    ) -> tuple[BackgroundLoad, str]:
        for session in muted:
            session.connection.stop_reading()
        during = await step_in_background(subject, baseline.still_playing, _SILENT_S)
        dropped = await _count_admitted(client, subject, len(muted)) if refuses_clearly else None
        check.figures["dropped_by_server"] = dropped
        silent = f"{formatting.count_of(len(muted), 'client')} silent for {_SILENT_S:g} s"
        dropped_text = "" if dropped is None else f", {dropped:,} of them dropped by the server meanwhile"
        check.details.append(f"{silent}{dropped_text}")
        return during, f"{silent}, then gone"

    # On a full server, sessions that are let in show how many silent ones it has dropped.
    most_others = subject.max_sessions if refuses_clearly else _OTHER_SESSIONS
    return await _check_beside_others(subject, fall_silent, _SILENT_CLIENTS, most_others)


async def clients_not_reading(subject: Subject) -> CheckResult:
    """Let clients send steps without reading the answers, then close their sockets."""

    async def send_only(
        client: RawClient, check: LeakCheck, muted: list[RawSession], baseline: BackgroundLoad
    ) -> tuple[BackgroundLoad, str]:
        steps = _steps_per_client(check.before, baseline, len(muted))
        sending = [asyncio.create_task(_send_steps(subject, session, steps)) for session in muted]
        during = await step_in_background(subject, baseline.still_playing, _NOT_READING_S)
        counts, sizes = zip(*await asyncio.gather(*sending), strict=True)
        check.figures |= {
            "steps_sent": sum(counts),
            "sent_bytes": sum(sizes),
            "backed_up": sum(session.connection.has_unsent_bytes for session in muted),
        }
        return during, f"{formatting.count_of(len(muted), 'client')} sent {sum(counts):,} steps without reading"

    return await _check_beside_others(subject, send_only, _NOT_READING_CLIENTS, _OTHER_SESSIONS)


Mute = Callable[[RawClient, LeakCheck, list[RawSession], BackgroundLoad], Awaitable[tuple[BackgroundLoad, str]]]
"""Mutes sessions while others step, and returns how those stepped and what the muted ones did, in words."""


async def _check_beside_others(subject: Subject, mute: Mute, most_muted: int, most_others: int) -> CheckResult:
    """Mute half of the sessions that fit, at most `most_muted` and at least one, while the others step."""
    before = await measure_before(subject)
    if isinstance(before, CheckResult):
        return before
    check = LeakCheck(subject, before)
    count = min(before.slots, most_muted + most_others)
    async with subject.client() as client:
        sessions = await open_sessions(client, subject, subject.resets(count))
        muted_count = min(most_muted, max(1, len(sessions) // 2))
        muted, others = sessions[:muted_count], sessions[muted_count:]
        baseline = await step_in_background(subject, others[:_OTHER_SESSIONS], _BEFORE_S)
        if baseline.stopped and not baseline.still_playing:
            await close_all(sessions)
            answer, transcript = baseline.stopped[0]
            stopped = formatting.count_of(len(baseline.stopped), "session")
            headline = f"{stopped} did not step before any client was mute: {answer}"
            return CheckResult(CheckOutcome.INCONCLUSIVE, headline, transcripts=(transcript,))
        during, activity = await mute(client, check, muted, baseline)
        for session in muted:
            session.drop()
        await close_all([*during.still_playing, *others[_OTHER_SESSIONS:]])
    _report_others(check, len(muted), baseline, during)
    return await check.judge(len(muted), activity, within_s=slot_return_s(subject, len(muted)))


async def _count_admitted(client: RawClient, subject: Subject, limit: int) -> int:
    """Return how many sessions a server lets in that was full before."""
    admitted, _ = await fill_server(client, subject, limit)
    await close_all(admitted)
    return len(admitted)


def _steps_per_client(before: ServerBefore, baseline: BackgroundLoad, clients: int) -> int:
    """Return how many steps each client may send: the server must be done with them before slots are counted.

    In all as many as the server does in `_WORK_S` seconds, but at least one per client.
    """
    step_s = max(filter(None, (before.lone_step_s, baseline.step_s)), default=0.0)
    return max(1, min(_MAX_STEPS, int(_WORK_S / max(step_s, 1e-6))) // clients)


async def _send_steps(subject: Subject, session: RawSession, steps: int) -> tuple[int, int]:
    """Stop reading and send steps until the server takes no more; return how many, and their size in bytes."""
    session.connection.stop_reading()
    sent = size = 0
    end = time.perf_counter() + _NOT_READING_S
    while sent < steps and size < _MAX_BYTES and time.perf_counter() < end:
        for _ in range(min(_BURST_STEPS, steps - sent)):
            message = {"type": "step", "data": quick_action(subject, session, sent)}
            session.send(message)
            sent, size = sent + 1, size + len(wire_text(message))
            if session.connection.has_unsent_bytes:
                return sent, size
        await asyncio.sleep(_PAUSE_S)
    return sent, size


def _report_others(check: LeakCheck, muted: int, baseline: BackgroundLoad, during: BackgroundLoad) -> None:
    """Report how the other sessions stepped before and during to the check."""
    check.figures |= {
        "mute": muted,
        "others": len(baseline.still_playing),
        **background_figures(baseline, during),
    }
    if baseline.stopped:
        answer, transcript = baseline.stopped[0]
        check.transcripts.append(transcript)
        count = formatting.count_of(len(baseline.stopped) + len(baseline.still_playing), "session")
        text = f"{len(baseline.stopped):,} of {count} beside them stopped before any client was mute: {answer}"
        check.details.append(f"{text}; they are not counted")
    if not baseline.still_playing:
        check.details.append("no slot was left for sessions beside them")
    remedy = "write to each client from a task of its own, and wait for no client while others wait"
    if during.stopped:
        answer, transcript = during.stopped[0]
        check.transcripts.append(transcript)
        count = formatting.count_of(len(baseline.still_playing), "session")
        text = f"{len(during.stopped):,} of {count} beside them got no step done"
        check.problems.append((f"{text}: {answer}", remedy))
    elif during.much_slower_than(baseline):
        pair = f"{formatting.seconds(baseline.step_s)} → {formatting.seconds(during.step_s)}"
        check.problems.append((f"a step of the sessions beside them took {pair}", remedy))
