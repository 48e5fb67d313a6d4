"""The request and the results of a self-test, as values: seconds throughout, None where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.serialization import Jsonable

P50_LIMIT_S, P99_LIMIT_S = 0.005, 0.040
"""Most latency this client may invent, in the middle and at the 99th percentile, where it resolves a batch."""

ARRIVALS = ("hold", "burst")
"""A batch counts as resolved when it is in both."""

SMALLEST_BATCH = {"ws": 64, "http": 8}
"""The batch a mode's search begins with, or the largest possible if smaller: over HTTP a client resolves far less."""

WAITING_WORKLOAD = Workload(({"wait_seconds": "$wait"},), source="self-test")

SearchEnd = Literal["top", "unresolved", "time", "interrupted"]


@dataclass(frozen=True, slots=True)
class SelfTestRequest:
    """What to measure: modes, the largest batch, seconds of each step, load processes (None: as for a test), and
    about how many seconds the whole may take."""

    modes: tuple[str, ...] = ("ws", "http")
    max_batch: int = 16_384
    wait_s: float = 1.0
    processes: int | None = None
    time_s: float = 120.0
    workload: Workload = field(default=WAITING_WORKLOAD, repr=False)


@dataclass(frozen=True, slots=True)
class MeasuredBatch(Jsonable):
    """One batch in one arrival: step latency beyond the wait as the server knows it, as this client tells it,
    and the difference, which the client invented.

    `runs` counts measurements; with three of them every figure is their median. `cpu_s` is the client's CPU
    per session. `problem` says why the figures mean nothing, or would mean nothing in a test: sessions that
    failed, a guard that fired.
    """

    mode: str
    arrival: str
    batch: int
    processes: int
    server_p50_s: float | None
    server_p99_s: float | None
    client_p50_s: float | None
    client_p99_s: float | None
    invented_p50_s: float | None
    invented_p99_s: float | None
    cpu_s: float
    failed: int = 0
    problem: str | None = None
    runs: int = 1

    @property
    def within_limits(self) -> bool:
        """Whether what this client invents was measured and stays within the limits."""
        return (
            self.invented_p50_s is not None
            and self.invented_p99_s is not None
            and self.invented_p50_s <= P50_LIMIT_S
            and self.invented_p99_s <= P99_LIMIT_S
        )

    @property
    def resolved(self) -> bool:
        """Whether what this client invents stays within the limits, and nothing else went wrong."""
        return self.within_limits and self.problem is None


_FIGURES = (
    "server_p50_s",
    "server_p99_s",
    "client_p50_s",
    "client_p99_s",
    "invented_p50_s",
    "invented_p99_s",
)


def median_batch(runs: Sequence[MeasuredBatch]) -> MeasuredBatch:
    """Return one batch with the medians of these runs of it; a problem counts when half the runs had one."""
    figures = {name: _median([getattr(run, name) for run in runs]) for name in _FIGURES}
    problems = [run.problem for run in runs if run.problem is not None]
    return replace(
        runs[0],
        **figures,
        cpu_s=median(run.cpu_s for run in runs),
        failed=round(median(run.failed for run in runs)),
        problem=problems[0] if len(problems) * 2 >= len(runs) else None,
        runs=len(runs),
    )


def _median(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


@dataclass(frozen=True, slots=True)
class ModeLadder(Jsonable):
    """The batches of one mode, the smallest first, up to the one where it ended.

    `resolved_batch` is the largest batch resolved in every arrival, all smaller ones too; None where not even
    the smallest is. `end` says why the ladder ended: at its `top` (and, in `top_reason`, what set it where
    that was not the batch asked for), at a batch that is not resolved, out of time, or interrupted.
    """

    mode: str
    rungs: tuple[MeasuredBatch, ...]
    resolved_batch: int | None
    end: SearchEnd
    top: int
    top_reason: str | None = None


def make_ladder(
    mode: str, measured: Sequence[MeasuredBatch], end: SearchEnd, top: int, top_reason: str | None
) -> ModeLadder:
    """Return the batches measured in one mode, with the largest that is resolved."""
    resolved: int | None = None
    for batch in sorted({result.batch for result in measured}):
        at_batch = [result for result in measured if result.batch == batch]
        if {result.arrival for result in at_batch if result.resolved} != set(ARRIVALS):
            break
        resolved = batch
    return ModeLadder(mode, tuple(measured), resolved, end, top, top_reason)


@dataclass(frozen=True, slots=True)
class SelfTest(Jsonable):
    """What this client resolves on this machine, for each mode asked for."""

    ladders: tuple[ModeLadder, ...]
    wait_s: float
    cores: int
    version: str
    p50_limit_s: float = P50_LIMIT_S
    p99_limit_s: float = P99_LIMIT_S

    def resolves(self, mode: str) -> int | None:
        """Return the largest batch this client resolves in a mode; None where there is none, or it was not asked."""
        return next((ladder.resolved_batch for ladder in self.ladders if ladder.mode == mode), None)
