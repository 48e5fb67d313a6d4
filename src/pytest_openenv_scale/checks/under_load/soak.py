"""Sessions that play on and on, and what each stretch of time showed of them and of the server."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.load.client_resources import runnable_wait_s
from pytest_openenv_scale.results.outcome import Transcript

LONGEST_WAIT_S = 0.02
"""The wait of a step, at most: shorter ones make for more steps."""

_STEPS_PER_S = 500
"""Steps asked for in a second, by all sessions together: what a leak needs, and a client can do beside it."""

_EPISODE = 100
"""Steps after which an episode that is not done ends: what an environment keeps of one is not its leak."""

_WINDOW_S, _FEWEST, _MOST = 5.0, 24, 240
_STEPS_IN_WINDOW = 2
_FEWEST_FOR_SLOW = 12
"""Windows of a soak; those of slow steps are fewer and longer."""

_AT_WORK = ("user", "nice", "system", "irq", "softirq", "steal")


@dataclass(frozen=True, slots=True)
class Window:
    """What one stretch of time showed; latencies and times in seconds, those from the soak's start.

    `client_busy` is the share of the time in which this process worked or waited for a core. `others_cores` is how many
    cores of this machine neither this process nor the server kept busy, but others; None where that is unknown.
    """

    at_s: float
    steps: int
    errors: int
    p50_s: float | None
    p99_s: float | None
    client_busy: float
    sample: ServerSample | None
    others_cores: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A session that ended or fell silent in the midst of the soak, `at_s` seconds from its start."""

    at_s: float
    answer: Answer
    transcript: Transcript


@dataclass(slots=True)
class Soak:
    """A soak so far: `sessions` began it, `length_s` is how long it was to last, in seconds."""

    sessions: int
    length_s: float
    windows: list[Window] = field(default_factory=list[Window])
    lost: list[Lost] = field(default_factory=list[Lost])
    error: Answer | None = None
    """The first error a step or reset got."""
    error_transcript: Transcript | None = None

    @property
    def steps(self) -> int:
        """How many steps were answered with an observation."""
        return sum(window.steps for window in self.windows)

    @property
    def errors(self) -> int:
        """How many steps and resets were answered with an error."""
        return sum(window.errors for window in self.windows)


async def soak(subject: Subject) -> Soak:
    """Let half of the sessions that fit play for `subject.soak_s`; `sessions` is 0 where none could be opened."""
    wanted = max(1, await sessions_at_once(subject, subject.max_sessions) // 2)
    async with subject.client(subject.patience_among(wanted)) as client:
        resets: list[Mapping[str, Any]] = [subject.reset_data(subject.seed + number) for number in range(wanted)]
        held = await open_sessions(client, subject, resets)
        found = Soak(len(held), subject.soak_s)
        if held:
            await _Player(subject, found, held).run(await _windows(subject))
        await close_all([session for session in held if not session.ended])
    return found


async def _windows(subject: Subject) -> int:
    """Return how many windows the soak has: enough for a slope, each with steps in it."""
    length = subject.soak_s
    alone = (await subject.ask_once(single_session)).step_s
    if subject.wait_s is not None:
        alone = max(0.0, alone - subject.wait_s) + min(subject.wait_s, LONGEST_WAIT_S)
    usual = min(_MOST, max(_FEWEST, int(length / _WINDOW_S)))
    return max(_FEWEST_FOR_SLOW, min(usual, int(length / max(alone * _STEPS_IN_WINDOW, 1e-3))))


class _Player:
    """Plays the sessions of one soak and closes a window at a time; only the current one's latencies are held."""

    def __init__(self, subject: Subject, found: Soak, sessions: Sequence[RawSession]) -> None:
        self._subject, self._found, self._sessions = subject, found, sessions
        self._wait_s = None if subject.wait_s is None else min(subject.wait_s, LONGEST_WAIT_S)
        self._cycle_s = len(sessions) / _STEPS_PER_S
        self._latencies = array("d")
        self._errors = 0
        self._began = self._end = 0.0
        self._usage: _Usage

    async def run(self, windows: int) -> None:
        """Play to the end of the soak, or until no session is left."""
        self._usage = _Usage(await self._sample())
        self._began = time.perf_counter()
        self._end = self._began + self._found.length_s
        watching = asyncio.create_task(self._watch(windows))
        try:
            await asyncio.gather(*(self._play(number, session) for number, session in enumerate(self._sessions)))
            if time.perf_counter() >= self._end:
                await watching
        finally:
            watching.cancel()
        if len(self._found.windows) < windows:
            await self._close_window()

    async def _play(self, number: int, session: RawSession) -> None:
        taken = episode = 0
        while (began := time.perf_counter()) < self._end:
            answer = await session.step(self._subject.action(number, taken, wait_s=self._wait_s))
            taken += 1
            self._note(answer, session)
            if answer.ended or answer.kind == "silence":
                return
            if answer.good and answer.latency_s is not None:
                self._latencies.append(answer.latency_s)
            if answer.done or answer.kind == "error" or taken % _EPISODE == 0:
                episode += 1
                seed = self._subject.seed + number + episode * len(self._sessions)
                answer = await session.reset(self._subject.reset_data(seed))
                self._note(answer, session)
            if answer.ended or answer.kind == "silence":
                return
            await asyncio.sleep(max(0.0, self._cycle_s - (time.perf_counter() - began)))

    def _note(self, answer: Answer, session: RawSession) -> None:
        if answer.ended or answer.kind == "silence":
            at = time.perf_counter() - self._began
            shown = session.transcript(f"session {session.number}, lost after {at:.1f} s")
            self._found.lost.append(Lost(at, answer, shown))
        elif not answer.good:
            self._errors += 1
            if self._found.error is None:
                at = time.perf_counter() - self._began
                self._found.error = answer
                self._found.error_transcript = session.transcript(f"session {session.number} up to {at:.1f} s")

    async def _watch(self, windows: int) -> None:
        for number in range(1, windows + 1):
            due = self._began + self._found.length_s * number / windows
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self._close_window()

    async def _close_window(self) -> None:
        latencies, self._latencies = sorted(self._latencies), array("d")
        errors, self._errors = self._errors, 0
        at = time.perf_counter() - self._began
        sample = await self._sample()
        busy, others = self._usage.since(sample)
        p50, p99 = (latencies[int((len(latencies) - 1) * share)] if latencies else None for share in (0.5, 0.99))
        self._found.windows.append(Window(at, len(latencies), errors, p50, p99, busy, sample, others))

    async def _sample(self) -> ServerSample | None:
        # Not on the loop: some servers are asked through an engine that takes its time.
        return await asyncio.to_thread(self._subject.endpoint.sample)


class _Usage:
    """Who kept the cores of this machine busy between one look and the next."""

    def __init__(self, sample: ServerSample | None) -> None:
        self._last = self._look(sample)

    def since(self, sample: ServerSample | None) -> tuple[float, float | None]:
        """Return this process's share of the time since the last look, and how many cores others used."""
        last, self._last = self._last, self._look(sample)
        at, own, starved, machine, server = (new - old for new, old in zip(self._last, last, strict=True))
        busy = (own + starved) / at if at > 0 else 0.0
        if sample is None or sample.cpu_seconds is None or at <= 0:
            return busy, None
        return busy, max(0.0, (machine - own - server) / at)

    def _look(self, sample: ServerSample | None) -> tuple[float, float, float, float, float]:
        times = psutil.cpu_times()
        machine = sum(float(getattr(times, kind, 0.0)) for kind in _AT_WORK)
        server = sample.cpu_seconds if sample is not None and sample.cpu_seconds is not None else 0.0
        return time.perf_counter(), time.process_time(), runnable_wait_s(), machine, server
