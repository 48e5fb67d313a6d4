"""The figures two runs are compared by, and what becomes of each: a change with a status and a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.config.limits import METRICS, FailOn, higher_is_better
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.comparison import Change, ComparedFigure, Status
from pytest_openenv_scale.results.outcome import Reason
from pytest_openenv_scale.verdict.sweep import CurveView, max_batch_certainty

NOTICEABLE = 0.05
"""A change by less than this share of the baseline counts as unchanged, unless `--fail-on` says otherwise."""

SPREAD_UNKNOWN = "spread unknown: the baseline was measured once"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a figure cannot be relied on; `reason` is what is to be said of its cell, where that is why."""

    text: str
    reason: Reason | None = None


def judge_figure(
    metric: str,
    batch: int,
    baseline: ComparedFigure,
    now: ComparedFigure,
    fail_on: Sequence[FailOn],
    *,
    doubt: Doubt | None = None,
) -> Change:
    """Judge a figure of one batch; `doubt` says why one of the sides cannot be relied on.

    It regresses where it is beyond `fail_on` and outside the baseline's range over repetitions. Where the
    baseline has one repetition there is no range, and `fail_on` alone decides; the reason says so.
    """

    def change(status: Status, reason: str, threshold: FailOn | None = None) -> Change:
        threshold = threshold or (fail_on[0] if fail_on else None)
        allowed = None if threshold is None or baseline.value is None else threshold.allowed(baseline.value)
        return Change(metric, batch, baseline, now, status, reason, threshold.text if threshold else None, allowed)

    if doubt is not None:
        return replace(change(Status.INCONCLUSIVE, doubt.text), doubt=doubt.reason)
    if baseline.value is None:
        return change(Status.INCONCLUSIVE, "the baseline has no such figure")
    if now.value is None:
        return change(Status.REGRESSED if fail_on else Status.WORSE, "no session succeeded")
    measured_once = baseline.repetitions < 2
    worse = _is_worse(metric, baseline, now.value)
    broken = next((rule for rule in fail_on if rule.is_broken(baseline.value, now.value)), None)
    if broken and (worse or measured_once):
        shift, beside = _shift_text(metric, baseline.value, now.value), _range_note(metric, baseline, broken)
        return change(Status.REGRESSED, f"{shift}, beyond {broken.text}{beside}", broken)
    if broken:
        reason = f"beyond {broken.text}, but within {_range_text(metric, baseline)}"
        return change(Status.UNCHANGED, reason, broken)
    better = _is_better(metric, baseline, now.value)
    shift = _shift_text(metric, baseline.value, now.value) + (f"; {SPREAD_UNKNOWN}" if measured_once else "")
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


def _shift_text(metric: str, then: float, now: float) -> str:
    """Return how far a figure moved: "+23 %", or the difference where the baseline is not above 0."""
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


def _range_note(metric: str, baseline: ComparedFigure, broken: FailOn) -> str:
    """Say how the baseline's range bears on a regression; one repetition has none."""
    if baseline.repetitions < 2:
        return f"; {SPREAD_UNKNOWN}, judged by {broken.text} alone"
    return f" and outside {_range_text(metric, baseline)}"


def _range_text(metric: str, figure: ComparedFigure) -> str:
    low, high = (metric_text(metric, value) for value in (figure.low, figure.high))
    return f"the baseline's {low} to {high} over {figure.repetitions} repetitions"


def metric_text(metric: str, value: float | None) -> str:
    """Return a value in the unit of its metric: "1.03 s", "98.4 %", "128"; an en dash where there is none."""
    if value is None:
        return formatting.MISSING
    if metric == "max_batch":
        return formatting.count(int(value)) if value else "none"
    return formatting.format_observed(METRICS[metric].unit, value, value)


def judge_capacity(metric: str, baseline: CurveCapacity, now: CurveCapacity, fail_on: Sequence[FailOn]) -> Change:
    """Judge max batch, or the same per core.

    Worse is only what is certain: something the baseline held definitely fails now. A max batch that is merely
    not known to reach the old one (the next batch is in doubt, or was not measured) is inconclusive.
    """
    fewer = now.fails_at is not None and now.fails_at <= baseline.held
    more = baseline.fails_at is not None and baseline.fails_at <= now.held
    broken = next((rule for rule in fail_on if rule.is_broken(baseline.held, now.held)), None)
    doubtful = "inconclusive" in (baseline.figure.known, now.figure.known)
    shift = _capacity_shift(metric, baseline.held, now.held)
    if fewer and broken:
        status, reason = (
            Status.REGRESSED,
            f"{shift}, beyond {broken.text}{_range_note(metric, baseline.figure, broken)}",
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
        reason = f"not known to hold {metric_text(metric, baseline.held)}: the batches asked for differ"
        status = Status.INCONCLUSIVE
    threshold = broken or (fail_on[0] if fail_on else None)
    allowed = threshold.allowed(baseline.held) if threshold else None
    return Change(
        metric, None, baseline.figure, now.figure, status, reason, threshold.text if threshold else None, allowed
    )


def _capacity_shift(metric: str, then: float, now: float) -> str:
    return percent_change(now / then) if then else f"{metric_text(metric, then)} → {metric_text(metric, now)}"


CAPACITY_METRICS = ("max_batch", "batch_per_core")
"""Metrics of a curve as a whole; all others are figures of a batch."""

DEFAULT_METRICS = (
    *("max_batch", "success", "rps", "total_p50", "total_p99"),
    *("overhead_p99", "connect_p99", "reset_p99", "step_p99"),
)
"""The metrics that are always compared, besides those named by `--fail-on`."""


def cell_figure(view: CurveView, metric: str, batch: int) -> ComparedFigure | None:
    """Return a figure of one batch, the median of its repetitions; None where the batch was not measured."""
    cells = [summary for summary in view.summaries if summary.batch == batch]
    if not cells:
        return None
    measure = METRICS[metric].measure
    values = [value for cell in cells if (value := measure(cell)) is not None]
    counts = [stats.count for cell in cells if (stats := cell.phase(METRICS[metric].phase or ""))]
    if not values:
        return ComparedFigure(None, None, None, len(cells))
    return ComparedFigure(median(values), min(values), max(values), len(values), min(counts, default=None))


@dataclass(frozen=True, slots=True)
class CurveCapacity:
    """How much a curve holds, in sessions or sessions per core.

    `figure.value` passed for certain. `fails_at` is the least that definitely failed, `asked` the most that
    was asked for.
    """

    figure: ComparedFigure
    fails_at: float | None
    asked: float

    @property
    def held(self) -> float:
        """The most that passed for certain, 0 where nothing did."""
        return self.figure.value or 0.0

    def per_core(self, cores: int) -> CurveCapacity:
        """Return the same per core."""
        figure = self.figure
        low, high = (None if value is None else value / cores for value in (figure.low, figure.high))
        scaled = replace(figure, value=self.held / cores, low=low, high=high)
        return CurveCapacity(scaled, None if self.fails_at is None else self.fails_at / cores, self.asked / cores)


def curve_capacity(view: CurveView) -> CurveCapacity:
    """Return the max batch of a curve, 0 where not even its smallest passes, and its range over repetitions."""
    verdict = view.verdict
    numbers = sorted({summary.repetition for summary in view.summaries})
    by_repetition = [float(verdict.max_batches[number - 1] or 0) for number in numbers]
    max_batch = float(verdict.max_batch or 0)
    figure = ComparedFigure(
        max_batch,
        min(by_repetition, default=max_batch),
        max(by_repetition, default=max_batch),
        len(numbers),
        known=max_batch_certainty(view),
    )
    fails_at = None if verdict.infeasible_min is None else float(verdict.infeasible_min)
    return CurveCapacity(figure, fails_at, float(max(view.curve.batches)))
