"""One figure of every curve over the runs that measured it, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.results.comparison import Side
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .changes import CAPACITY_METRICS, cell_figure, curve_capacity
from .compare import side_of
from .pairing import machine_differences, normalised_target
from .run import Run


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One run: the figure (None where it has none), how certain it is, the verdict, and what changed before it.

    `known` is exact, open (it may be more) or inconclusive. `machine` names what differs from the point before.
    """

    run: Side
    value: float | None
    known: str
    outcome: Outcome
    machine: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the run is complete."""
        return self.run.status == "complete"


@dataclass(frozen=True, slots=True)
class CurveHistory:
    """The points of one curve, the oldest first; `batch` is where a figure that needs one is taken."""

    test: str
    infrastructure: str
    mode: str
    wait: float | None
    metric: str
    batch: int | None
    points: tuple[HistoryPoint, ...]


def histories(runs: Sequence[Run], metric: str = "max_batch", *, batch: int | None = None) -> tuple[CurveHistory, ...]:
    """Return the history of every curve of these runs, given the oldest first.

    A figure of a batch is taken at `batch`, by default the largest that every run of the curve measured and none
    definitely failed.
    """
    curves: dict[tuple[object, ...], list[tuple[Run, SweepView, CurveView]]] = {}
    for run in runs:
        for sweep in run.sweeps:
            for view in sweep.curves:
                key = sweep.test, normalised_target(sweep.infrastructure), view.curve.mode, view.curve.wait
                curves.setdefault(key, []).append((run, sweep, view))
    return tuple(_curve_history(measured, metric, batch) for measured in curves.values())


def _curve_history(
    measured: Sequence[tuple[Run, SweepView, CurveView]], metric: str, batch: int | None
) -> CurveHistory:
    _, sweep, view = measured[-1]
    at = None if metric in CAPACITY_METRICS else batch or _common_batch([view for _, _, view in measured])
    points: list[HistoryPoint] = []
    previous: Run | None = None
    for run, run_sweep, run_view in measured:
        value, known = _history_figure(run_view, metric, at, run_sweep.record.cores)
        differing = machine_differences(previous.record.fingerprint, run.record.fingerprint) if previous else ()
        machine = tuple(f"{item.name} {item.baseline} → {item.now}" for item in differing)
        points.append(HistoryPoint(side_of(run), value, known, run_view.verdict.outcome, machine))
        previous = run
    return CurveHistory(sweep.test, sweep.infrastructure, view.curve.mode, view.curve.wait, metric, at, tuple(points))


def _common_batch(views: Sequence[CurveView]) -> int | None:
    common: set[int] | None = None
    for view in views:
        batches = {cell.batch for cell in view.verdict.cells if cell.passed is not False}
        if view.summaries:
            common = batches if common is None else common & batches
    return max(common or (), default=None)


def _history_figure(view: CurveView, metric: str, batch: int | None, cores: int | None) -> tuple[float | None, str]:
    """Return the figure of a curve and how certain it is."""
    if not view.summaries:
        return None, "inconclusive"
    if metric == "max_batch":
        capacity = curve_capacity(view)
        return capacity.held, capacity.figure.known
    if metric == "batch_per_core":
        capacity = curve_capacity(view)
        return (capacity.held / cores if cores else None), capacity.figure.known
    if batch is None:
        return None, "inconclusive"
    figure, cell = cell_figure(view, metric, batch), view.verdict.cell(batch)
    certain = cell is not None and cell.passed is not None
    return (figure.value if figure else None), "exact" if certain else "inconclusive"
