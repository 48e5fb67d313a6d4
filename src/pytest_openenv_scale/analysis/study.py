"""A study: one run or several, read together, each curve under a name for what was measured.

Every table, figure and finding is a function of a study; a single run is a study of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_openenv_scale.core.compare_modes import Comparison, compare_modes
from pytest_openenv_scale.core.outcome import CellVerdict, CurveVerdict
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.summary import CellSummary
from pytest_openenv_scale.core.view import CurveView, SweepView

from .study_labels import FAMILIES, named

__all__ = ["FAMILIES", "Point", "Study", "StudyCurve", "join", "study_of"]


@dataclass(frozen=True, slots=True)
class Point:
    """One batch of a curve over its repetitions; every figure is the worst of them, None where there is none."""

    batch: int
    repetitions: tuple[CellSummary, ...]
    verdict: CellVerdict | None

    @property
    def passed(self) -> bool | None:
        """Whether the batch passed in every repetition; None where that cannot be said."""
        return self.verdict.passed if self.verdict else None

    @property
    def success(self) -> float | None:
        """The lowest share of sessions that succeeded, as a fraction."""
        return _least(summary.success_rate for summary in self.repetitions)

    @property
    def requests_per_second(self) -> float | None:
        """The lowest throughput: successful sessions per second."""
        return _least(summary.requests_per_second for summary in self.repetitions)

    @property
    def effective_concurrency(self) -> float | None:
        """The lowest effective concurrency: seconds waited by successful sessions per second of the cell."""
        return _least(summary.effective_concurrency for summary in self.repetitions)

    @property
    def peak_concurrency(self) -> int | None:
        """The fewest sessions that were open at once at the best moment of a repetition."""
        return _least_count(summary.peak_concurrency for summary in self.repetitions)

    @property
    def samples(self) -> int:
        """How many successful sessions the smallest repetition had: what a percentile of it rests on."""
        return min((summary.successful for summary in self.repetitions), default=0)

    @property
    def rss_bytes(self) -> int | None:
        """The most memory the server's processes held, in bytes."""
        peaks = [summary.server.peak for summary in self.repetitions]
        return max((peak.rss_bytes for peak in peaks if peak and peak.rss_bytes is not None), default=None)

    def latency(self, phase: str, statistic: str = "p99") -> float | None:
        """Return a statistic of a phase in seconds, the highest of the repetitions."""
        found = [summary.phase(phase) for summary in self.repetitions]
        return max((float(getattr(stats, statistic)) for stats in found if stats), default=None)


def _least_count(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class StudyCurve:
    """One curve and where it comes from.

    `infrastructure` names what was measured: within a study no two curves share infrastructure, mode and wait.
    """

    run: Run
    sweep: SweepView
    curve: CurveView
    infrastructure: str

    @property
    def mode(self) -> str:
        """The protocol: ws or http."""
        return self.curve.curve.mode

    @property
    def wait(self) -> float | None:
        """Seconds asked for in each step; None where waits mean nothing."""
        return self.curve.curve.wait

    @property
    def cores(self) -> int | None:
        """The server's cores."""
        return self.sweep.record.cores

    @property
    def hardware(self) -> str | None:
        """The server's hardware as its target names it."""
        return self.sweep.record.hardware

    @property
    def startup_s(self) -> float | None:
        """Seconds from the start of the server to its first answered session."""
        return self.sweep.record.startup_s

    @property
    def verdict(self) -> CurveVerdict:
        """The verdict on the curve, max batch included."""
        return self.curve.verdict

    @property
    def points(self) -> tuple[Point, ...]:
        """What was measured, a point per batch, the smallest first."""
        measured: dict[int, list[CellSummary]] = {}
        for summary in self.curve.summaries:
            measured.setdefault(summary.batch, []).append(summary)
        return tuple(Point(batch, tuple(measured[batch]), self.verdict.cell(batch)) for batch in sorted(measured))

    def point(self, batch: int | None) -> Point | None:
        """Return the point of one batch; None where it was not measured."""
        return next((point for point in self.points if point.batch == batch), None)

    @property
    def best(self) -> Point | None:
        """The point of the max batch; None where there is no max batch."""
        return self.point(self.verdict.max_batch)

    @property
    def memory_per_session(self) -> float | None:
        """Bytes the server's processes grew by from their smallest, anywhere in the sweep, per session at max batch."""
        before = [summary.server.first for summary in self.sweep.summaries]
        smallest = min((first.rss_bytes for first in before if first and first.rss_bytes is not None), default=None)
        best = self.best
        if best is None or best.rss_bytes is None or smallest is None or not best.peak_concurrency:
            return None
        grown = best.rss_bytes - smallest
        return grown / best.peak_concurrency if grown > 0 else None


@dataclass(frozen=True, slots=True)
class Study:
    """Runs in the order they were made and all of their curves, by infrastructure, mode and wait."""

    runs: tuple[Run, ...]
    curves: tuple[StudyCurve, ...]

    @property
    def infrastructures(self) -> tuple[str, ...]:
        """What was measured, in the order reports show it."""
        return tuple(dict.fromkeys(curve.infrastructure for curve in self.curves))

    @property
    def modes(self) -> tuple[str, ...]:
        """The protocols that were measured, ws first."""
        found = {curve.mode for curve in self.curves}
        return tuple(sorted(found, key=lambda mode: (mode != "ws", mode)))

    @property
    def waits(self) -> tuple[float | None, ...]:
        """The waits that were measured in seconds, ascending; None, for no wait at all, comes first."""
        return tuple(sorted({curve.wait for curve in self.curves}, key=_wait_key))

    @property
    def sweeps(self) -> tuple[SweepView, ...]:
        """The sweeps of all runs."""
        return tuple(view for run in self.runs for view in run.sweeps)

    def of(self, infrastructure: str, mode: str | None = None) -> tuple[StudyCurve, ...]:
        """Return the curves of one infrastructure, all or those of one mode, by wait."""
        found = (curve for curve in self.curves if curve.infrastructure == infrastructure)
        return tuple(curve for curve in found if mode in (None, curve.mode))

    def curve(self, infrastructure: str, mode: str, wait: float | None) -> StudyCurve | None:
        """Return a curve; None where it was not measured."""
        return next((curve for curve in self.of(infrastructure, mode) if curve.wait == wait), None)

    def comparisons(self) -> tuple[tuple[str, Comparison], ...]:
        """Return every comparison of ws and http with the infrastructure it is of."""
        found: list[tuple[str, Comparison]] = []
        for name in self.infrastructures:
            curves = self.of(name)
            together = replace(curves[0].sweep, curves=tuple(curve.curve for curve in curves))
            found += [(name, comparison) for comparison in compare_modes(together)]
        return tuple(found)


def study_of(what: Run | Study) -> Study:
    """Return a study as it is, and a run as a study of one."""
    return what if isinstance(what, Study) else join([what])


def join(runs: Sequence[Run]) -> Study:
    """Read runs together; a run that is given twice counts once.

    What carries one label but differs in hardware, cores or options of its target gets that appended; so does
    what was measured by several tests, or in several runs, at the same mode and wait: "hf-spaces (cpu-basic)".
    """
    once = {run.run_id: run for run in sorted(runs, key=lambda run: (run.record.started_at, run.run_id))}
    sweeps = named([(run, sweep) for run in once.values() for sweep in run.sweeps])
    order = {label: at for at, label in enumerate(dict.fromkeys(label for label, _, _ in sweeps))}
    curves = [StudyCurve(run, sweep, curve, label) for label, run, sweep in sweeps for curve in sweep.curves]
    curves.sort(key=lambda curve: (order[curve.infrastructure], curve.mode != "ws", curve.mode, _wait_key(curve.wait)))
    return Study(tuple(once.values()), tuple(curves))


def _wait_key(wait: float | None) -> float:
    return -1.0 if wait is None else wait
