"""Curves along an axis: what one test measured over ws and http, over numbers of replicas or nodes, and over runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target
from pytest_openenv_scale.results.comparison import Side
from pytest_openenv_scale.results.outcome import CurveVerdict, Outcome, Reason, StopReason
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView, max_batch_certainty

from .changes import CAPACITY_METRICS, cell_figure, curve_capacity
from .compare import side_of
from .pairing import machine_differences, normalised_target
from .run import Run
from .study import BatchPoint, Study, batch_points

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class PlacedCurve(Generic[Place]):
    """A curve and where it lies on an axis: at a mode, a number of servers, a run."""

    at: Place
    sweep: SweepView
    view: CurveView

    @property
    def load(self) -> tuple[str, float | None]:
        """Mode and wait of the curve."""
        return self.view.curve.mode, self.view.curve.wait

    @property
    def verdict(self) -> CurveVerdict:
        """The verdict on the curve."""
        return self.view.verdict


def curves_along(
    curves: Iterable[PlacedCurve[Place]], same: Callable[[PlacedCurve[Place]], Hashable]
) -> list[list[PlacedCurve[Place]]]:
    """Return the curves that differ in their place alone together, in the order they are given."""
    groups: dict[Hashable, list[PlacedCurve[Place]]] = {}
    for curve in curves:
        groups.setdefault(same(curve), []).append(curve)
    return list(groups.values())


COMPARED_LATENCIES = (("reset", "p50"), ("step", "p50"), ("step", "p99"), ("total", "p99"))
"""Phase and statistic of the latencies that are compared."""


@dataclass(frozen=True, slots=True)
class ModeResult(Jsonable):
    """What one mode reached.

    `known` says how well `max_batch` is: `exact` where the next batch definitely failed (of a search: as near as was
    asked for), `open` where the largest batch asked for passes, `inconclusive` where the next one could not be judged
    or the search was `cut_short`, with its stop reason. Latencies (seconds) and
    `success` (a fraction) are those at the batch of the comparison, the worst of its repetitions; null where
    none is common. `doubtful_batch` is the smallest that could not be judged, `doubt` the first thing to be said of it.
    `episodes` tells whether the steps of a session belong to the episode of its reset, null where nothing shows it;
    `cap` is the cause of a refusal by a number that was set, at or below the batch that failed.
    """

    mode: str
    outcome: str
    max_batch: int | None
    known: str
    success: float | None = None
    reset_p50: float | None = None
    step_p50: float | None = None
    step_p99: float | None = None
    total_p99: float | None = None
    doubtful_batch: int | None = None
    doubt: Reason | None = None
    episodes: bool | None = None
    cap: str | None = None
    cut_short: StopReason | None = None


@dataclass(frozen=True, slots=True)
class ProtocolComparison(Jsonable):
    """Both modes at one wait (seconds; None where waits mean nothing).

    `ratio` is ws max ÷ http max, null where one of them has none. `winner` is ws, http, equal, or null where what
    was measured does not tell: a mode wins only over one whose max batch is exact, where both hold episodes and
    neither met a cap. `batch` is the largest that both held: those that are left of a batch that fails are faster.
    """

    wait: float | None
    ws: ModeResult
    http: ModeResult
    ratio: float | None
    winner: str | None
    batch: int | None

    @property
    def modes(self) -> tuple[ModeResult, ModeResult]:
        """Both results, ws first."""
        return self.ws, self.http


def compare_modes(view: SweepView) -> tuple[ProtocolComparison, ...]:
    """Compare the modes of a sweep; nothing where it has only one, or where one of them was not measured."""
    measured = (PlacedCurve(curve.curve.mode, view, curve) for curve in view.curves if curve.summaries)
    by_mode = [{curve.at: curve.view for curve in group} for group in curves_along(measured, lambda item: item.load[1])]
    return tuple(_compare_curves(modes["ws"], modes["http"]) for modes in by_mode if {"ws", "http"} <= modes.keys())


def compare_study_modes(study: Study) -> list[tuple[str, ProtocolComparison]]:
    """Return every comparison of ws and http with the infrastructure it is of."""
    comparisons: list[tuple[str, ProtocolComparison]] = []
    for name in study.infrastructures:
        curves = study.curves_of(name)
        sweep = replace(curves[0].sweep, curves=tuple(curve.curve for curve in curves))
        comparisons += [(name, comparison) for comparison in compare_modes(sweep)]
    return comparisons


def _compare_curves(ws: CurveView, http: CurveView) -> ProtocolComparison:
    points = [{point.batch: point for point in batch_points(view) if point.passed} for view in (ws, http)]
    batch = max(points[0].keys() & points[1].keys(), default=None)
    first, second = (
        _mode_result(view, side[batch] if batch else None) for view, side in zip((ws, http), points, strict=True)
    )
    ratio = first.max_batch / second.max_batch if first.max_batch and second.max_batch else None
    named = bool(second.episodes) and first.cap is None and second.cap is None
    return ProtocolComparison(ws.curve.wait, first, second, ratio, _winner(ws, http) if named else None, batch)


def _mode_result(view: CurveView, point: BatchPoint | None) -> ModeResult:
    verdict = view.verdict
    latencies = {
        f"{phase}_{statistic}": point.latency(phase, statistic) if point else None
        for phase, statistic in COMPARED_LATENCIES
    }
    doubtful = next((cell for cell in verdict.cells if cell.passed is None), None)
    known, stop = max_batch_certainty(view), verdict.search.stop_reason if verdict.search else None
    return ModeResult(
        view.curve.mode,
        verdict.outcome.value,
        verdict.max_batch,
        known,
        point.success if point else None,
        doubtful_batch=doubtful.batch if doubtful else None,
        doubt=doubtful.reasons[0] if doubtful and doubtful.reasons else None,
        episodes=verdict.warm_up.same_episode if verdict.warm_up else None,
        cap=verdict.cap.cause if verdict.cap else None,
        cut_short=stop if known == "inconclusive" and stop != "doubt" else None,
        **latencies,
    )


def _winner(ws: CurveView, http: CurveView) -> str | None:
    if hold_equally_many(ws, http):
        return "equal" if ws.verdict.max_batch else None
    pairs = ((ws, http), (http, ws))
    return next((view.curve.mode for view, other in pairs if holds_more(view, other)), None)


def holds_more(view: CurveView, other: CurveView) -> bool:
    """Say whether one curve passed a batch up to which every repetition of the other definitely failed one.

    The limit of the other is known. That one of its repetitions failed is not enough: where both are near their limit,
    chance decides which of them has one that does.
    """
    passed_batch = view.verdict.max_batch
    if passed_batch is None or max_batch_certainty(other) != "exact":
        return False
    cells = [cell.by_repetition for cell in other.verdict.cells if cell.batch <= passed_batch]
    repetitions = range(other.verdict.repetitions)
    return all(any(passed[at : at + 1] == (False,) for passed in cells) for at in repetitions)


def hold_equally_many(view: CurveView, other: CurveView) -> bool:
    """Say whether every repetition of both passed the same batches, and the next, which failed, is the same."""
    if not max_batch_certainty(view) == max_batch_certainty(other) == "exact":
        return False
    verdicts = view.verdict, other.verdict
    same_limit = len({batch for verdict in verdicts for batch in verdict.max_batches}) == 1
    return same_limit and view.verdict.infeasible_min == other.verdict.infeasible_min


ServerAxis = Literal["replicas", "nodes"]
"""What there are several of: servers behind one proxy, or nodes of a cluster with a server each."""

SERVER_AXES: tuple[ServerAxis, ...] = ("replicas", "nodes")


@dataclass(frozen=True, slots=True)
class ServerCount:
    """A number of replicas or nodes, the verdict on its curve and its throughput.

    `requests_per_second` is that of the fastest passing batch, the slowest of its repetitions. `scaling_factor` and
    `capacity_factor` are throughput, and max batch, relative to those with the fewest that were measured;
    `efficiency` and `capacity_efficiency` are the same per replica or node, as fractions.
    """

    count: int
    verdict: CurveVerdict
    requests_per_second: float | None
    scaling_factor: float | None
    efficiency: float | None
    capacity_factor: float | None
    capacity_efficiency: float | None

    @property
    def max_batch(self) -> int | None:
        """The max batch of all of them together."""
        return self.verdict.max_batch

    @property
    def sessions_each(self) -> float | None:
        """The max batch of each."""
        return None if self.max_batch is None else self.max_batch / self.count


@dataclass(frozen=True, slots=True)
class ServerScaling:
    """One test, target, mode and wait over numbers of replicas or nodes, ascending; `target` is without them.

    `cores` is what all of them shared; None where it differs or is not known.
    """

    axis: ServerAxis
    test: str
    target: str
    mode: str
    wait: float | None
    cores: int | None
    rows: tuple[ServerCount, ...]

    @property
    def unit(self) -> str:
        """The singular of the axis: "replica" or "node"."""
        return self.axis.removesuffix("s")


def server_scalings(sweeps: Iterable[SweepView], axes: Sequence[ServerAxis] = SERVER_AXES) -> list[ServerScaling]:
    """Return what every curve gained that was measured with at least two numbers of replicas, or of nodes."""
    views = list(sweeps)
    scalings: list[ServerScaling] = []
    for axis in axes:
        counted = [
            PlacedCurve(count, view, curve)
            for view in views
            if isinstance(count := view.record.limits.get(axis), int)
            for curve in view.curves
        ]
        groups = curves_along(
            counted, lambda item, axis=axis: (item.sweep.test, without_count(item.sweep.target, axis), item.load)
        )
        scalings += [_server_scaling(axis, group) for group in groups if len({curve.at for curve in group}) > 1]
    return scalings


def without_count(target: str, axis: ServerAxis) -> str:
    """Return the target without its number of replicas or nodes and its label."""
    try:
        spec = parse_target(target)
    except GrammarError:
        return target
    argument = None if (spec.argument or "").startswith(f"{axis}=") else spec.argument
    options = tuple((key, value) for key, value in spec.options if key not in (axis, "label"))
    return str(TargetSpec(spec.name, argument, options))


def _server_scaling(axis: ServerAxis, curves: Sequence[PlacedCurve[int]]) -> ServerScaling:
    by_count = dict(sorted({curve.at: curve for curve in curves}.items()))
    first = next(iter(by_count.values()))
    cores = {curve.sweep.record.cores for curve in by_count.values()}
    return ServerScaling(
        axis,
        first.sweep.test,
        without_count(first.sweep.target, axis),
        *first.load,
        cores=cores.pop() if len(cores) == 1 else None,
        rows=tuple(_server_count(curve, first) for curve in by_count.values()),
    )


def _server_count(curve: PlacedCurve[int], fewest: PlacedCurve[int]) -> ServerCount:
    rates = _throughput(curve.view), _throughput(fewest.view)
    batches = curve.verdict.max_batch, fewest.verdict.max_batch
    return ServerCount(
        curve.at,
        curve.verdict,
        rates[0],
        scaling_factor=_ratio(*rates),
        efficiency=efficiency(rates[0], curve.at, _ratio(rates[1], fewest.at)),
        capacity_factor=_ratio(*batches),
        capacity_efficiency=efficiency(batches[0], curve.at, _ratio(batches[1], fewest.at)),
    )


def _ratio(value: float | None, unit: float | None) -> float | None:
    return None if value is None or not unit else value / unit


def efficiency(value: float | None, count: int, unit_value: float | None) -> float | None:
    """Return what each replica or node brings, relative to each of the fewest: 1.0 is as much, 0.5 half as much.

    Speed-up divided by the number of processors, with one replica or node (or the fewest measured) as the unit:
    E(N) = (X(N) / N) / (X(1) / 1), after Eager, Zahorjan and Lazowska, "Speedup versus efficiency in
    parallel systems", IEEE Transactions on Computers 38(3), 1989.
    """
    if value is None or not unit_value:
        return None
    return value / count / unit_value


def _throughput(view: CurveView) -> float | None:
    rates = (point.requests_per_second for point in batch_points(view) if point.passed)
    return max((rate for rate in rates if rate is not None), default=None)


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
    placed = (PlacedCurve(run, sweep, view) for run in runs for sweep in run.sweeps for view in sweep.curves)
    groups = curves_along(
        placed, lambda item: (item.sweep.test, normalised_target(item.sweep.infrastructure), item.load)
    )
    return tuple(_curve_history(group, metric, batch) for group in groups)


def _curve_history(curves: Sequence[PlacedCurve[Run]], metric: str, batch: int | None) -> CurveHistory:
    latest = curves[-1]
    at = None if metric in CAPACITY_METRICS else batch or _common_batch([curve.view for curve in curves])
    points: list[HistoryPoint] = []
    previous: Run | None = None
    for curve in curves:
        value, known = _history_figure(curve.view, metric, at, curve.sweep.record.cores)
        run = curve.at
        differing = machine_differences(previous.record.fingerprint, run.record.fingerprint) if previous else ()
        machine = tuple(f"{item.name} {item.baseline} → {item.now}" for item in differing)
        points.append(HistoryPoint(side_of(run), value, known, curve.verdict.outcome, machine))
        previous = run
    return CurveHistory(latest.sweep.test, latest.sweep.infrastructure, *latest.load, metric, at, tuple(points))


def _common_batch(views: Sequence[CurveView]) -> int | None:
    common: set[int] | None = None
    for view in views:
        batches = {cell.batch for cell in view.verdict.cells if cell.passed is not False}
        if view.summaries:
            common = batches if common is None else common & batches
    return max(common or (), default=None)


def _history_figure(view: CurveView, metric: str, batch: int | None, cores: int | None) -> tuple[float | None, str]:
    """Return the figure of a curve and how certain it is; latencies and rates of a batch that fails are not.

    Sessions that are left of it are faster, and where answers were seen late, all seem slower.
    """
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
    held = cell is not None and cell.passed is True and not any(reason.cause == "http_lag" for reason in cell.reasons)
    certain = cell is not None and cell.passed is not None if metric == "success" else held
    return (figure.value if figure else None), "exact" if certain else "inconclusive"
