"""Sessions that play for a long time, measured in windows of time."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import psutil

from pytest_openenv_scale.checks.background import single_session, waiting_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.load.client_resources import runnable_wait_s
from pytest_openenv_scale.results.outcome import Transcript

LONGEST_WAIT_S = 0.02
"""The wait of a step, at most, in seconds: shorter waits make for more steps."""

_STEPS_PER_S = 500
"""Steps per second of all sessions together: enough to show a leak, and no burden for the client."""

_EPISODE_STEPS = 100
"""Steps after which an episode that is not done is reset: what an environment keeps of an episode is no leak."""

_WINDOW_S, _FEWEST_WINDOWS, _MOST_WINDOWS = 5.0, 24, 240
_STEPS_IN_WINDOW = 2
_FEWEST_FOR_SLOW = 12
"""The length of a window in seconds and the limits of their number; with slow steps they are fewer and longer."""

_BUSY_CPU_TIMES = ("user", "nice", "system", "irq", "softirq", "steal")


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured up to `at_s` since the window before; latencies and times in seconds, from the soak's start.

    Memory, threads and descriptors are the server's, None where they cannot be read. `client_busy_ratio` is the share
    of the time in which this process worked or waited for a core. `others_cores` is how many cores of this machine
    neither this process nor the server kept busy, but others; None where that is unknown.
    """

    at_s: float
    steps: int
    errors: int
    step_p50_s: float | None
    step_p99_s: float | None
    rss_bytes: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    client_busy_ratio: float = 0.0
    others_cores: float | None = None


@dataclass(frozen=True, slots=True)
class LostSession:
    """A session that ended or timed out during the soak, `at_s` seconds from its start."""

    at_s: float
    answer: Answer
    transcript: Transcript


@dataclass(slots=True)
class Soak:
    """A soak so far: `sessions` began it, `length_s` is its planned duration in seconds."""

    sessions: int
    length_s: float
    windows: list[Window] = field(default_factory=list[Window])
    lost: list[LostSession] = field(default_factory=list[LostSession])
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
    """Let half of the sessions that fit play for `subject.soak_s` seconds; `sessions` is 0 if none could be opened."""
    count = max(1, await sessions_at_once(subject, subject.max_sessions) // 2)
    async with subject.client(subject.patience_among(count)) as client:
        sessions = await open_sessions(client, subject, subject.resets(count))
        result = Soak(len(sessions), subject.soak_s)
        if sessions:
            await _SoakPlayer(subject, result, sessions).run(await _window_count(subject))
        await close_all([session for session in sessions if not session.ended])
    return result


async def _window_count(subject: Subject) -> int:
    """Return how many windows the soak has: enough for a slope, each with steps in it."""
    length = subject.soak_s
    step_s = (await subject.learn(single_session)).step_s
    if subject.wait_s is not None:
        step_s = max(0.0, step_s - subject.wait_s) + min(subject.wait_s, LONGEST_WAIT_S)
    usual = min(_MOST_WINDOWS, max(_FEWEST_WINDOWS, int(length / _WINDOW_S)))
    return max(_FEWEST_FOR_SLOW, min(usual, int(length / max(step_s * _STEPS_IN_WINDOW, 1e-3))))


class _SoakPlayer:
    """Plays the sessions of one soak and closes one window after another; only the current one's latencies are kept."""

    def __init__(self, subject: Subject, result: Soak, sessions: Sequence[RawSession]) -> None:
        self._subject, self._result, self._sessions = subject, result, sessions
        self._wait_s = None if subject.wait_s is None else min(subject.wait_s, LONGEST_WAIT_S)
        self._cycle_s = len(sessions) / _STEPS_PER_S
        self._latencies = array("d")
        self._errors = 0
        self._began = self._end = 0.0
        self._usage: _CoreUsage

    async def run(self, windows: int) -> None:
        """Play to the end of the soak, or until no session is left."""
        self._usage = _CoreUsage(await self._sample())
        self._began = time.perf_counter()
        self._end = self._began + self._result.length_s
        watching = asyncio.create_task(self._close_windows(windows))
        try:
            await asyncio.gather(*(self._play(number, session) for number, session in enumerate(self._sessions)))
            if time.perf_counter() >= self._end:
                await watching
        finally:
            watching.cancel()
        if len(self._result.windows) < windows:
            await self._close_window()

    async def _play(self, number: int, session: RawSession) -> None:
        steps = episode = 0
        while (began := time.perf_counter()) < self._end:
            answer = await session.step(waiting_action(self._subject, session, steps, self._wait_s, number=number))
            steps += 1
            if answer.good and answer.latency_s is not None:
                self._latencies.append(answer.latency_s)
            if not self._record_failure(answer, session):
                return
            if answer.done or answer.kind == "error" or steps % _EPISODE_STEPS == 0:
                episode += 1
                seed = self._subject.seed + number + episode * len(self._sessions)
                if not self._record_failure(await session.reset(self._subject.reset_data(seed)), session):
                    return
            await asyncio.sleep(max(0.0, self._cycle_s - (time.perf_counter() - began)))

    def _record_failure(self, answer: Answer, session: RawSession) -> bool:
        """Record an answer that is none or an error; return whether the session may go on."""
        at_s = time.perf_counter() - self._began
        if answer.ended or answer.kind == "silence":
            transcript = session.transcript(f"session {session.number}, lost after {at_s:.1f} s")
            self._result.lost.append(LostSession(at_s, answer, transcript))
            return False
        if not answer.good:
            self._errors += 1
            if self._result.error is None:
                self._result.error = answer
                self._result.error_transcript = session.transcript(f"session {session.number} up to {at_s:.1f} s")
        return True

    async def _close_windows(self, windows: int) -> None:
        for number in range(1, windows + 1):
            due = self._began + self._result.length_s * number / windows
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self._close_window()

    async def _close_window(self) -> None:
        latencies, self._latencies = sorted(self._latencies), array("d")
        errors, self._errors = self._errors, 0
        at_s = time.perf_counter() - self._began
        sample = await self._sample()
        busy, others = self._usage.since(sample)
        p50, p99 = (latencies[int((len(latencies) - 1) * share)] if latencies else None for share in (0.5, 0.99))
        window = Window(at_s, len(latencies), errors, p50, p99, client_busy_ratio=busy, others_cores=others)
        if sample is not None:
            window = replace(window, rss_bytes=sample.rss_bytes, threads=sample.threads, descriptors=sample.descriptors)
        self._result.windows.append(window)

    async def _sample(self) -> ServerSample | None:
        # Not on the loop: some servers are asked through an engine that takes its time.
        return await asyncio.to_thread(self._subject.endpoint.sample)


class _CoreUsage:
    """How much of this machine's cores this process and others used between one call and the next."""

    def __init__(self, sample: ServerSample | None) -> None:
        self._counters = self._read_counters(sample)

    def since(self, sample: ServerSample | None) -> tuple[float, float | None]:
        """Return this process's share of the time since the last call, and the cores others used, None if unknown."""
        last, self._counters = self._counters, self._read_counters(sample)
        elapsed_s, own, waiting, machine, server = (new - old for new, old in zip(self._counters, last, strict=True))
        busy = (own + waiting) / elapsed_s if elapsed_s > 0 else 0.0
        if sample is None or sample.cpu_seconds is None or elapsed_s <= 0:
            return busy, None
        return busy, max(0.0, (machine - own - server) / elapsed_s)

    def _read_counters(self, sample: ServerSample | None) -> tuple[float, float, float, float, float]:
        times = psutil.cpu_times()
        machine = sum(float(getattr(times, kind, 0.0)) for kind in _BUSY_CPU_TIMES)
        server = sample.cpu_seconds if sample is not None and sample.cpu_seconds is not None else 0.0
        return time.perf_counter(), time.process_time(), runnable_wait_s(), machine, server
