"""A sweep put together again from its record and its summaries: the one path to verdicts.

The sweep that has just been measured and the run that is read from disk months later both go through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .jsonable import Jsonable
from .manifest import SweepRecord
from .outcome import CurveVerdict, Outcome, overall
from .plan import Curve
from .summary import CellSummary
from .verdict import judge_curve


@dataclass(frozen=True, slots=True)
class CurveView(Jsonable):
    """A curve, what was measured on it (by batch, then repetition) and the verdict."""

    curve: Curve
    summaries: tuple[CellSummary, ...]
    verdict: CurveVerdict


@dataclass(frozen=True, slots=True)
class SweepView(Jsonable):
    """All curves of one test on one target, judged."""

    record: SweepRecord
    curves: tuple[CurveView, ...]
    outcome: Outcome

    @property
    def test(self) -> str:
        """The node id of the test."""
        return self.record.test

    @property
    def target(self) -> str:
        """The canonical target, without secrets."""
        return self.record.target

    @property
    def infrastructure(self) -> str:
        """The label of the target."""
        return self.record.infrastructure

    @property
    def summaries(self) -> tuple[CellSummary, ...]:
        """The summaries of all curves."""
        return tuple(summary for curve in self.curves for summary in curve.summaries)


def view_sweep(record: SweepRecord, summaries: Sequence[CellSummary]) -> SweepView:
    """Judge every curve of a sweep by what was measured on it so far."""
    curves = tuple(_view_curve(record, curve, index, summaries) for index, curve in enumerate(record.curves))
    return SweepView(record, curves, overall(view.verdict.outcome for view in curves))


def _view_curve(record: SweepRecord, curve: Curve, index: int, summaries: Sequence[CellSummary]) -> CurveView:
    measured = [summary for summary in summaries if summary.cell.curve.id == curve.id]
    ordered = tuple(sorted(measured, key=lambda summary: (summary.batch, summary.repetition)))
    verdict = judge_curve(
        curve,
        ordered,
        record.slos[index],
        cores=record.cores,
        repetitions=record.reps,
        notes=record.notes,
    )
    return CurveView(curve, ordered, verdict)
