"""Judges one figure of two runs: unchanged, better, worse or inconclusive, and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.config.limits import METRICS, FailOn, higher_is_better
from pytest_openenv_scale.results.comparison import Change, ChangeReason, ComparedFigure, Status
from pytest_openenv_scale.results.outcome import CurveVerdict
from pytest_openenv_scale.verdict.sweep import CurveView, max_batch_certainty

NOTICEABLE = 0.05
"""A change by less than this share of the baseline counts as unchanged, unless `--fail-on` says otherwise."""


def judge_figure(
    metric: str,
    batch: int,
    baseline: ComparedFigure,
    now: ComparedFigure,
    fail_on: Sequence[FailOn],
    *,
    doubt: ChangeReason | None = None,
) -> Change:
    """Judge a figure of one batch; `doubt` says why one of the sides cannot be relied on.

    It regresses where it is beyond `fail_on` and outside the baseline's range over repetitions. Where the
    baseline has one repetition there is no range, and `fail_on` alone decides.
    """
    broken: FailOn | None = None
    if doubt is not None:
        status, reason = Status.INCONCLUSIVE, doubt
    elif baseline.value is None:
        status, reason = Status.INCONCLUSIVE, ChangeReason("no_figure", "baseline")
    elif now.value is None:
        status, reason = Status.REGRESSED if fail_on else Status.WORSE, ChangeReason("none_succeeded")
    else:
        broken = next((rule for rule in fail_on if rule.is_broken(baseline.value, now.value)), None)
        worse, better = _is_worse(metric, baseline, now.value), _is_better(metric, baseline, now.value)
        if broken and (worse or baseline.repetitions < 2):
            status, reason = Status.REGRESSED, ChangeReason("beyond")
        elif broken:
            status, reason = Status.UNCHANGED, ChangeReason("within_range")
        else:
            status, reason = Status.UNCHANGED, ChangeReason("moved")
            if _is_noticeable(baseline.value, now.value) and (worse or better):
                status = Status.WORSE if worse else Status.IMPROVED
    threshold = broken or next(iter(fail_on), None)
    allowed = None if threshold is None or baseline.value is None else threshold.allowed(baseline.value)
    fail_on_text = threshold.text if threshold else None
    return Change(metric, batch, baseline, now, status, reason, fail_on=fail_on_text, allowed=allowed)


def _is_worse(metric: str, baseline: ComparedFigure, now: float) -> bool:
    """Say whether a value is outside the baseline's range on the bad side."""
    low, high = baseline.low, baseline.high
    return low is not None and high is not None and (now < low if higher_is_better(metric) else now > high)


def _is_better(metric: str, baseline: ComparedFigure, now: float) -> bool:
    low, high = baseline.low, baseline.high
    return low is not None and high is not None and (now > high if higher_is_better(metric) else now < low)


def _is_noticeable(then: float, now: float) -> bool:
    return abs(now - then) >= NOTICEABLE * abs(then) and now != then


def judge_capacity(metric: str, baseline: CurveCapacity, now: CurveCapacity, fail_on: Sequence[FailOn]) -> Change:
    """Judge max batch, or the same per core.

    Worse is only what is certain: something the baseline held definitely fails now. Better is what no repetition of the
    baseline held: where some did and one failed, another baseline might have held it in all. So might a baseline of
    fewer repetitions than were measured now, some of which hold it. A max batch that is merely not known to reach the
    old one (the next batch is in doubt, or was not measured) is inconclusive.
    A search has regressed only where what fails now is beyond what is allowed too: what it holds lies anywhere in its
    bracket.
    """
    fails = now.fails_at is not None and now.fails_at <= baseline.held
    more_repetitions = now.figure.repetitions > baseline.figure.repetitions
    sometimes = fails and more_repetitions and (now.figure.high or 0.0) >= baseline.held
    fewer = fails and not sometimes
    above_range = now.held > (baseline.figure.high or 0.0)
    more = baseline.fails_at is not None and baseline.fails_at <= now.held and above_range
    broken = next((rule for rule in fail_on if rule.is_broken(baseline.held, now.held)), None)
    if now.searched and now.fails_at is not None:
        broken = next((rule for rule in fail_on if now.fails_at <= rule.allowed(baseline.held)), None)
    doubtful = "inconclusive" in (baseline.figure.known, now.figure.known)
    if fewer and broken:
        status, reason = Status.REGRESSED, ChangeReason("beyond")
    elif fewer and not (fail_on and doubtful):
        status, reason = Status.WORSE, ChangeReason("moved")
    elif more:
        status, reason = Status.IMPROVED, ChangeReason("moved")
    elif now.held >= max(baseline.asked, baseline.held):
        status, reason = Status.UNCHANGED, ChangeReason("all_pass")
    elif sometimes:
        status, reason = Status.INCONCLUSIVE, ChangeReason("more_repetitions", "now")
    elif baseline.figure.known == "inconclusive":
        status, reason = Status.INCONCLUSIVE, ChangeReason("max_batch_doubtful", "baseline")
    elif now.held >= baseline.held:
        status, reason = Status.UNCHANGED, ChangeReason("moved" if now.held != baseline.held else "same")
    elif now.figure.known == "inconclusive":
        status, reason = Status.INCONCLUSIVE, ChangeReason("max_batch_doubtful", "now")
    elif now.searched and now.fails_at is not None:
        status, reason = Status.UNCHANGED, ChangeReason("within_bracket")
    elif fail_on and not broken:
        status, reason = Status.UNCHANGED, ChangeReason("within_limit")
    else:
        status, reason = Status.INCONCLUSIVE, ChangeReason("grids_differ")
    threshold = broken or next(iter(fail_on), None)
    allowed = threshold.allowed(baseline.held) if threshold else None
    fail_on_text = threshold.text if threshold else None
    return Change(metric, None, baseline.figure, now.figure, status, reason, fail_on=fail_on_text, allowed=allowed)


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
    was asked for; both are a bracket where the curve was `searched`.
    """

    figure: ComparedFigure
    fails_at: float | None
    asked: float
    searched: bool = False

    @property
    def held(self) -> float:
        """The most that passed for certain, 0 where nothing did."""
        return self.figure.value or 0.0

    def per_core(self, cores: int) -> CurveCapacity:
        """Return the same per core."""
        figure = self.figure
        low, high = (None if value is None else value / cores for value in (figure.low, figure.high))
        scaled = replace(figure, value=self.held / cores, low=low, high=high)
        fails_at = None if self.fails_at is None else self.fails_at / cores
        return CurveCapacity(scaled, fails_at, self.asked / cores, self.searched)


def curve_capacity(view: CurveView) -> CurveCapacity:
    """Return the max batch of a curve, 0 where not even its smallest passes, and its range over repetitions."""
    verdict = view.verdict
    searched = verdict.search is not None
    numbers = sorted({summary.repetition for summary in view.summaries if summary.repetition <= verdict.repetitions})
    by_repetition = [float(verdict.max_batches[number - 1] or 0) for number in numbers]
    max_batch = float(verdict.max_batch or 0)
    figure = ComparedFigure(
        max_batch,
        min(by_repetition, default=max_batch),
        max(by_repetition, default=max_batch),
        len(numbers),
        known=max_batch_certainty(view),
    )
    return CurveCapacity(figure, _fails_at(verdict), float(max(view.curve.batches)), searched)


def _fails_at(verdict: CurveVerdict) -> float | None:
    """Return the smallest batch that definitely failed.

    A search that was cut off may not have come to ask it again, and one repetition far below may have been unlucky.
    """
    batch, search = verdict.infeasible_min, verdict.search
    if batch is None:
        return None
    if search is not None and search.stop_reason not in ("fails", "server_died"):
        passes, judged = search.tally(batch)
        if judged - passes < search.plan.repetitions:
            return None
    return float(batch)
