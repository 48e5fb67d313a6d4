"""The figures of a curve that two runs are compared by, each over its repetitions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

from .compare_modes import known_max_batch
from .comparison import Figure
from .fail_on import METRICS
from .summary import CellSummary
from .verdict import judge_curve
from .view import CurveView

CAPACITY = ("max_batch", "batch_per_core")
"""Metrics of a curve as a whole; all others are figures of a batch."""

SHOWN = (
    *("max_batch", "success", "rps", "total_p50", "total_p99"),
    *("overhead_p99", "connect_p99", "reset_p99", "step_p99"),
)
"""What is compared where nobody names a metric, and besides those that are named."""


def cell_figure(view: CurveView, metric: str, batch: int) -> Figure | None:
    """Return a figure of one batch, the median of its repetitions; None where the batch was not measured."""
    cells = [summary for summary in view.summaries if summary.batch == batch]
    if not cells:
        return None
    values = [value for cell in cells if (value := _value(cell, metric)) is not None]
    counts = [stats.count for cell in cells if (stats := cell.phase(METRICS[metric].phase or ""))]
    if not values:
        return Figure(None, None, None, len(cells))
    return Figure(median(values), min(values), max(values), len(values), min(counts, default=None))


def _value(cell: CellSummary, metric: str) -> float | None:
    kind = METRICS[metric]
    if kind.phase and kind.statistic:
        stats = cell.phase(kind.phase)
        return getattr(stats, kind.statistic) if stats else None
    return cell.success_rate if metric == "success" else cell.requests_per_second


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much a curve holds, in sessions or sessions per core.

    `figure.value` passed for certain. `fails_at` is the least that definitely failed, `asked` the most that
    was asked for.
    """

    figure: Figure
    fails_at: float | None
    asked: float

    @property
    def held(self) -> float:
        """What passed for certain."""
        return self.figure.value or 0.0

    def per(self, cores: int) -> Capacity:
        """Return the same per core."""
        figure = self.figure
        low, high = (None if value is None else value / cores for value in (figure.low, figure.high))
        scaled = replace(figure, value=self.held / cores, low=low, high=high)
        return Capacity(scaled, None if self.fails_at is None else self.fails_at / cores, self.asked / cores)


def capacity(view: CurveView) -> Capacity:
    """Return the max batch of a curve, 0 where not even its smallest passes, and its range over repetitions."""
    verdict = view.verdict
    numbers = sorted({summary.repetition for summary in view.summaries})
    each = [float(_alone(view, number) or 0) for number in numbers]
    held = float(verdict.max_batch or 0)
    figure = Figure(held, min(each, default=held), max(each, default=held), len(numbers), known=known_max_batch(view))
    fails_at = None if verdict.infeasible_min is None else float(verdict.infeasible_min)
    return Capacity(figure, fails_at, float(max(view.curve.batches)))


def _alone(view: CurveView, repetition: int) -> int | None:
    """Return the max batch as it would be if only this repetition had been measured."""
    alone = [summary for summary in view.summaries if summary.repetition == repetition]
    return judge_curve(view.curve, alone, view.verdict.slo, repetitions=1).max_batch
