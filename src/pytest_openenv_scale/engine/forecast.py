"""Where a sweep is, and about how long the rest of it takes: by its plan, and by what was measured. It does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.progress import Position

from .search import possible_courses
from .source import CellSource


class Pace:
    """How much longer repetitions take than their plan says, by those that were measured."""

    def __init__(self) -> None:
        self._planned_s = self._took_s = 0.0

    def note(self, planned_s: float, took_s: float) -> None:
        """Note a repetition that was measured."""
        self._planned_s += planned_s
        self._took_s += took_s

    def seconds(self, planned_s: float) -> float:
        """Return about how many seconds that takes for which so many are planned."""
        return planned_s * self._took_s / self._planned_s if self._planned_s else planned_s


class Forecast:
    """Follows a sweep from repetition to repetition; `curves` are those that are measured, in their order."""

    def __init__(self, record: SweepRecord, curves: Sequence[Curve]) -> None:
        self._record = record
        self._curves_ahead = tuple(curves)
        self._pace = Pace()
        self._cells = self._probes = 0
        self._timing: Timing
        self._searched = False
        self._curve_budget_s = inf

    def begin_curve(self, curve: Curve, budget_s: float | None = None) -> None:
        """Note which curve is measured now, and how many seconds it may take; those that follow get about as many."""
        self._curves_ahead = self._curves_ahead[self._curves_ahead.index(curve) + 1 :]
        self._timing = self._timing_of(curve)
        self._searched = curve.id in self._record.searches
        self._curve_budget_s = inf if budget_s is None else budget_s
        self._probes = 0

    def begin(self, batch: int, repetition: int, source: CellSource, budget_s: float | None = None) -> Position:
        """Return where the sweep is as a repetition of the curve begins that has so many seconds left."""
        self._cells += repetition == 1
        self._probes += 1
        courses = source.courses_left()
        expected_s = self._pace.seconds(self._timing.repetition_s(batch))
        curve_s = self._pace.seconds(_longest(self._timing, courses))
        if budget_s is not None:
            curve_s = min(curve_s, max(budget_s - expected_s, 0.0))
        later_s = curve_s + sum(map(self._curve_s, self._curves_ahead))
        cells = None
        if not self._searched:
            left = {batch for course in courses for batch in course} - {batch}
            cells = self._cells + len(left) + sum(len(curve.batches) for curve in self._curves_ahead)
        counted = not self._record.settings.get("until_done") and self._timing.arrival.kind != "steady"
        passed, failed = source.bounds
        return Position(
            number=self._probes if self._searched else self._cells,
            cells=cells,
            repetition=repetition,
            repetitions=self._record.reps,
            expected_s=expected_s,
            later_s=later_s,
            steps=batch * self._timing.steps if counted else None,
            passed=passed,
            failed=failed,
        )

    def ended(self, batch: int, took_s: float) -> None:
        """Note how long a repetition of the curve took."""
        self._pace.note(self._timing.repetition_s(batch), took_s)

    def _timing_of(self, curve: Curve) -> Timing:
        return Timing.of_curve(curve, self._record.think_mean_s)

    def _curve_s(self, curve: Curve) -> float:
        plan = self._record.searches.get(curve.id)
        courses = [curve.batches * self._record.reps] if plan is None else possible_courses(plan)
        return min(self._pace.seconds(_longest(self._timing_of(curve), courses)), self._curve_budget_s)


def _longest(timing: Timing, courses: Iterable[Sequence[int]]) -> float:
    return max((sum(map(timing.repetition_s, course)) for course in courses), default=0.0)
