"""Slots of a steady state that play for a long time, measured in windows of time."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event

import psutil

from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.checks.capacity_probe import sessions_at_once
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.core.parsing import Arrival
from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import CellResult, LoadError, LoadGenerator
from pytest_openenv_scale.metrics.drift import WARM_UP_SHARE
from pytest_openenv_scale.metrics.errors import TableRows
from pytest_openenv_scale.metrics.windows import Window, windows_of
from pytest_openenv_scale.results.cell import CellMeta, SessionRow
from pytest_openenv_scale.results.parts import rows_to_table
from pytest_openenv_scale.results.progress import LoadProgress

_LONGEST_WAIT_S = 0.02
"""The wait of a step, at most, in seconds: shorter waits make for more steps."""

_STEPS_PER_S = 500
"""Steps per second of all sessions together: enough to show a leak, and no burden for the client."""

_EPISODE_STEPS, _MOST_STEPS = 100, 100_000
"""Steps after which an episode that is not done is reset: what an environment keeps of an episode is no leak. And
those after which another session follows: the client remembers the steps of each."""

_BAD_ANSWERS = ("environment", "protocol")
_BUSY_CPU_TIMES = ("user", "nice", "system", "irq", "softirq", "steal")

Play = Callable[[CellRequest, Callable[[LoadProgress], None]], Awaitable[CellResult]]
"""Plays a cell, and reports its progress meanwhile."""


@dataclass(frozen=True, slots=True)
class Soak:
    """A soak of `length_s` seconds that slots played; `sessions` is how many of them were let in.

    What happened once time was up is in none of the `windows`; that of the warm-up is not judged.
    `failures` are the sessions that ended badly, in the order in which they did. `others_cores` is for each window how
    many cores of this machine others than server and client kept busy, None where that is unknown. `client_busy_ratio`
    is the share of the time in which the busiest load process worked or waited for a core.
    """

    sessions: int
    length_s: float
    windows: tuple[Window, ...] = ()
    failures: tuple[SessionRow, ...] = ()
    others_cores: tuple[float | None, ...] = ()
    client_busy_ratio: float = 0.0

    @property
    def steps(self) -> int:
        """How many steps were answered with an observation."""
        return sum(window.steps for window in self.windows)

    @property
    def errors(self) -> list[SessionRow]:
        """The sessions that ended as an answer was an error, or no OpenEnv message."""
        return [row for row in self.failures if row.error_type in _BAD_ANSWERS]

    @property
    def lost(self) -> list[SessionRow]:
        """The sessions that ended otherwise, or fell silent, while they played."""
        return [row for row in self._other_failures() if row.reset_done_s is not None and row.error_phase != "close"]

    @property
    def refused(self) -> list[SessionRow]:
        """The sessions that were not let in."""
        return [row for row in self._other_failures() if row.reset_done_s is None]

    def _other_failures(self) -> list[SessionRow]:
        return [row for row in self.failures if row.error_type not in (*_BAD_ANSWERS, "client_limit")]

    def is_judged(self, row: SessionRow) -> bool:
        """Whether a session ended after the warm-up."""
        return (row.closed_s or 0.0) > WARM_UP_SHARE * self.length_s


async def play_in_processes(request: CellRequest, on_progress: Callable[[LoadProgress], None]) -> CellResult:
    """Play a cell with load processes of its own; these end with it, and where this is cancelled.

    Raises:
        LoadError: a load process refused the cell.
    """
    cancelled = Event()

    def report(progress: LoadProgress) -> None:
        if cancelled.is_set():
            raise asyncio.CancelledError
        on_progress(progress)

    def play() -> CellResult:
        with LoadGenerator() as generator:
            return generator.run_cell(request, report)

    try:
        return await asyncio.to_thread(play)
    finally:
        cancelled.set()


async def soak(subject: Subject, play: Play = play_in_processes) -> Soak:
    """Let half of the sessions that fit play for `subject.soak_s` seconds.

    Raises:
        LoadError: a load process refused to play, or the server ended meanwhile.
    """
    request = await _request(subject)
    watch = _Watch(subject.endpoint)
    result = await play(request, watch.look)
    meta = CellMeta("", "", request.cell, 1, result.wall_s, result.started_at, samples=tuple(watch.samples))
    windows = windows_of(TableRows(rows_to_table(result.rows, meta)), meta)
    windows = tuple(window for window in windows if window.end_s <= subject.soak_s)
    client_cores = sum(result.client.cpu_s) / result.wall_s if result.wall_s else 0.0
    return Soak(
        sessions=len({row.slot for row in result.rows if row.reset_done_s is not None}),
        length_s=subject.soak_s,
        windows=windows,
        failures=tuple(sorted((row for row in result.rows if not row.success), key=lambda row: row.closed_s or 0.0)),
        others_cores=watch.others_cores(windows, client_cores),
        client_busy_ratio=result.client.busy_share,
    )


async def _request(subject: Subject) -> CellRequest:
    endpoint, wait_s = subject.endpoint, subject.wait_s
    count = max(1, await sessions_at_once(subject, subject.max_sessions) // 2)
    step_s = (await subject.learn(single_session)).step_s
    if wait_s is not None:
        wait_s = min(wait_s, _LONGEST_WAIT_S)
        step_s = max(0.0, step_s - (subject.wait_s or 0.0)) + wait_s
    think_s = count / _STEPS_PER_S - step_s
    arrival = Arrival("steady", seconds=subject.soak_s, ramp=WARM_UP_SHARE * subject.soak_s)
    return CellRequest(
        cell=Cell("", endpoint.target, endpoint.label, "ws", wait_s, count, _MOST_STEPS, str(arrival)),
        repetition=1,
        urls=endpoint.urls,
        headers=endpoint.headers,
        workload=subject.workload,
        timeout_s=subject.patience_among(count),
        seed=subject.seed,
        ping_s=subject.ping_s,
        network=endpoint.network,
        think=ThinkTime("fixed", (think_s,)) if think_s > 0 else None,
        episode_steps=_EPISODE_STEPS,
    )


class _Watch:
    """Looks at the server and at this machine while a soak goes on."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.samples: list[ServerSample] = []
        """Those of the server, `at_s` counted from the start of the soak."""
        self._others: list[tuple[float, float]] = []
        """When in the soak, and the CPU seconds of others than server and this process up to then."""
        self._failed = 0

    def look(self, progress: LoadProgress) -> None:
        """Look, some time after the start.

        Raises:
            LoadError: the server ended, so that there is nothing to wait for.
        """
        more_failed, self._failed = progress.failed > self._failed, progress.failed
        if more_failed and (ending := self._endpoint.exit_status()) is not None:
            raise LoadError(f"the server ended {progress.elapsed_s:.0f} s after the start of the soak: {ending}")
        sample = self._endpoint.sample()
        if sample is None:
            return
        self.samples.append(replace(sample, at_s=progress.elapsed_s))
        if sample.cpu_seconds is not None:
            times = psutil.cpu_times()
            machine = sum(float(getattr(times, kind, 0.0)) for kind in _BUSY_CPU_TIMES)
            self._others.append((progress.elapsed_s, machine - sample.cpu_seconds - time.process_time()))

    def others_cores(self, windows: Sequence[Window], client_cores: float) -> tuple[float | None, ...]:
        """Return for each window how many cores others kept busy, besides those that the load processes had."""
        moments = [at_s for at_s, _ in self._others]

        def cores(window: Window) -> float | None:
            first, last = (bisect_right(moments, end) - 1 for end in (window.start_s, window.end_s))
            if first < 0 or first == last:
                return None
            (start_s, before), (end_s, after) = self._others[first], self._others[last]
            return max(0.0, (after - before) / (end_s - start_s) - client_cores)

        return tuple(map(cores, windows))
