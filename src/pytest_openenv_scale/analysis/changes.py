"""The figures two runs are compared by, and what becomes of each: a change with a status and a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.config.limits import METRICS, FailOn, higher_is_better
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.comparison import Change, ComparedFigure, Status
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve, known_max_batch

NOTICEABLE = 0.05
"""A change by less than this share of the baseline is shown as none, unless `--fail-on` says otherwise."""

SPREAD_UNKNOWN = "spread unknown: the baseline was measured once"


def judge_figure(
    metric: str,
    batch: int,
    baseline: ComparedFigure,
    now: ComparedFigure,
    fail_on: Sequence[FailOn],
    *,
    doubt: str | None = None,
) -> Change:
    """Judge a figure of one batch; `doubt` says why one of the sides cannot be relied on.

    It regresses where it is beyond `fail_on` and outside the baseline's range over repetitions. Where the
    baseline has one repetition there is no range, and `fail_on` alone decides; the reason says so.
    """

    def change(status: Status, reason: str, by: FailOn | None = None) -> Change:
        by = by or (fail_on[0] if fail_on else None)
        allowed = None if by is None or baseline.value is None else by.allowed(baseline.value)
        return Change(metric, batch, baseline, now, status, reason, by.text if by else None, allowed)

    if doubt is not None:
        return change(Status.INCONCLUSIVE, doubt)
    if baseline.value is None:
        return change(Status.INCONCLUSIVE, "the baseline has no such figure")
    if now.value is None:
        return change(Status.REGRESSED if fail_on else Status.WORSE, "no session succeeded")
    once = baseline.repetitions < 2
    worse = _is_worse(metric, baseline, now.value)
    broken = next((one for one in fail_on if one.is_broken(baseline.value, now.value)), None)
    if broken and (worse or once):
        shift, beside = _shift(metric, baseline.value, now.value), _beside_range(metric, baseline, broken)
        return change(Status.REGRESSED, f"{shift}, beyond {broken.text}{beside}", broken)
    if broken:
        inside = f"beyond {broken.text}, but within {_range(metric, baseline)}"
        return change(Status.UNCHANGED, inside, broken)
    better = _is_better(metric, baseline, now.value)
    shift = _shift(metric, baseline.value, now.value) + (f"; {SPREAD_UNKNOWN}" if once else "")
    if _is_noticeable(baseline.value, now.value) and (worse or better):
        return change(Status.WORSE if worse else Status.IMPROVED, shift)
    return change(Status.UNCHANGED, shift)


def _is_worse(metric: str, baseline: ComparedFigure, now: float) -> bool:
    """Say whether a value is outside the baseline's range on the bad side."""
    low, high = baseline.low, baseline.high
    return low is not None and high is not None and (now < low if higher_is_better(metric) else now > high)


def _is_better(metric: str, baseline: ComparedFigure, now: float) -> bool:
    low, high = baseline.low, baseline.high
    return low is not None and high is not None and (now > high if higher_is_better(metric) else now < low)


def _is_noticeable(then: float, now: float) -> bool:
    return abs(now - then) >= NOTICEABLE * abs(then) and now != then


def _shift(metric: str, then: float, now: float) -> str:
    """Return how far a figure moved: "+23 %", or the difference where the baseline is no base for a share."""
    if then > 0:
        return percent_change(now / then)
    return f"{'+' if now >= then else '−'}{formatting.format_observed(METRICS[metric].unit, abs(now - then), 0.0)}"


def percent_change(ratio: float) -> str:
    """Return a ratio as a change: "+23 %", "−4.1 %", "×12"."""
    if ratio >= 10:
        return f"×{ratio:.3g}"
    percent = (ratio - 1) * 100
    digits = 0 if abs(percent) >= 9.95 else 1
    return f"{'−' if percent < 0 else '+'}{abs(percent):.{digits}f} %"


def _beside_range(metric: str, baseline: ComparedFigure, broken: FailOn) -> str:
    """Say how the baseline's range bears on a regression; one repetition has none."""
    if baseline.repetitions < 2:
        return f"; {SPREAD_UNKNOWN}, judged by {broken.text} alone"
    return f" and outside {_range(metric, baseline)}"


def _range(metric: str, figure: ComparedFigure) -> str:
    low, high = (figure_value(metric, value) for value in (figure.low, figure.high))
    return f"the baseline's {low} to {high} over {figure.repetitions} repetitions"


def figure_value(metric: str, value: float | None) -> str:
    """Return a value in the unit of its metric: "1.03 s", "98.4 %", "128"; an en dash where there is none."""
    if value is None:
        return formatting.MISSING
    if metric == "max_batch":
        return formatting.count(int(value)) if value else "none"
    return formatting.format_observed(METRICS[metric].unit, value, value)


def judge_capacity(metric: str, baseline: CapacityChange, now: CapacityChange, fail_on: Sequence[FailOn]) -> Change:
    """Judge max batch, or the same per core.

    Worse is only what is certain: something the baseline held definitely fails now. A max batch that is merely
    not known to reach the old one (the next batch is in doubt, or was not measured) is inconclusive.
    """
    fewer = now.fails_at is not None and now.fails_at <= baseline.held
    more = baseline.fails_at is not None and baseline.fails_at <= now.held
    broken = next((one for one in fail_on if one.is_broken(baseline.held, now.held)), None)
    doubtful = "inconclusive" in (baseline.figure.known, now.figure.known)
    shift = _capacity_shift(metric, baseline.held, now.held)
    if fewer and broken:
        status, reason = (
            Status.REGRESSED,
            f"{shift}, beyond {broken.text}{_beside_range(metric, baseline.figure, broken)}",
        )
    elif fewer and not (fail_on and doubtful):
        status, reason = Status.WORSE, shift
    elif more:
        status, reason = Status.IMPROVED, shift
    elif now.held >= max(baseline.asked, baseline.held):
        status, reason = Status.UNCHANGED, "everything the baseline was asked for passes"
    elif baseline.figure.known == "inconclusive":
        status, reason = Status.INCONCLUSIVE, "the baseline's own max batch is inconclusive"
    elif now.held >= baseline.held:
        status, reason = Status.UNCHANGED, shift if now.held != baseline.held else "the same"
    elif now.figure.known == "inconclusive":
        status, reason = Status.INCONCLUSIVE, "the max batch is inconclusive now"
    elif fail_on and not broken:
        status, reason = Status.UNCHANGED, f"{shift}, within {fail_on[0].text}"
    else:
        reason = f"not known to hold {figure_value(metric, baseline.held)}: the batches asked for differ"
        status = Status.INCONCLUSIVE
    by = broken or (fail_on[0] if fail_on else None)
    allowed = by.allowed(baseline.held) if by else None
    return Change(metric, None, baseline.figure, now.figure, status, reason, by.text if by else None, allowed)


def _capacity_shift(metric: str, then: float, now: float) -> str:
    return percent_change(now / then) if then else f"{figure_value(metric, then)} → {figure_value(metric, now)}"


CAPACITY = ("max_batch", "batch_per_core")
"""Metrics of a curve as a whole; all others are figures of a batch."""

SHOWN = (
    *("max_batch", "success", "rps", "total_p50", "total_p99"),
    *("overhead_p99", "connect_p99", "reset_p99", "step_p99"),
)
"""What is compared where nobody names a metric, and besides those that are named."""


def cell_figure(view: CurveView, metric: str, batch: int) -> ComparedFigure | None:
    """Return a figure of one batch, the median of its repetitions; None where the batch was not measured."""
    cells = [summary for summary in view.summaries if summary.batch == batch]
    if not cells:
        return None
    values = [value for cell in cells if (value := _value(cell, metric)) is not None]
    counts = [stats.count for cell in cells if (stats := cell.phase(METRICS[metric].phase or ""))]
    if not values:
        return ComparedFigure(None, None, None, len(cells))
    return ComparedFigure(median(values), min(values), max(values), len(values), min(counts, default=None))


def _value(cell: CellSummary, metric: str) -> float | None:
    kind = METRICS[metric]
    if kind.phase and kind.statistic:
        stats = cell.phase(kind.phase)
        return getattr(stats, kind.statistic) if stats else None
    return cell.success_rate if metric == "success" else cell.requests_per_second


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """How much a curve holds, in sessions or sessions per core.

    `figure.value` passed for certain. `fails_at` is the least that definitely failed, `asked` the most that
    was asked for.
    """

    figure: ComparedFigure
    fails_at: float | None
    asked: float

    @property
    def held(self) -> float:
        """What passed for certain."""
        return self.figure.value or 0.0

    def per(self, cores: int) -> CapacityChange:
        """Return the same per core."""
        figure = self.figure
        low, high = (None if value is None else value / cores for value in (figure.low, figure.high))
        scaled = replace(figure, value=self.held / cores, low=low, high=high)
        return CapacityChange(scaled, None if self.fails_at is None else self.fails_at / cores, self.asked / cores)


def capacity(view: CurveView) -> CapacityChange:
    """Return the max batch of a curve, 0 where not even its smallest passes, and its range over repetitions."""
    verdict = view.verdict
    numbers = sorted({summary.repetition for summary in view.summaries})
    each = [float(_alone(view, number) or 0) for number in numbers]
    held = float(verdict.max_batch or 0)
    figure = ComparedFigure(
        held, min(each, default=held), max(each, default=held), len(numbers), known=known_max_batch(view)
    )
    fails_at = None if verdict.infeasible_min is None else float(verdict.infeasible_min)
    return CapacityChange(figure, fails_at, float(max(view.curve.batches)))


def _alone(view: CurveView, repetition: int) -> int | None:
    """Return the max batch as it would be if only this repetition had been measured."""
    alone = [summary for summary in view.summaries if summary.repetition == repetition]
    return judge_curve(view.curve, alone, view.verdict.slo, repetitions=1).max_batch
