"""Compares a run with a baseline run: which figures changed, by how much, with effect sizes from their rows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pytest_openenv_scale.config.limits import METRICS, FailOn
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.comparison import (
    Change,
    ChangeReason,
    ComparedFigure,
    Comparison,
    CurveComparison,
    Side,
    State,
    Status,
)
from pytest_openenv_scale.results.manifest import git_state
from pytest_openenv_scale.results.run_directory import PARTS
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView, judge_curve

from .changes import (
    CAPACITY_METRICS,
    DEFAULT_METRICS,
    CurveCapacity,
    cell_figure,
    curve_capacity,
    judge_capacity,
    judge_figure,
)
from .pairing import (
    CurvePair,
    SweepCurve,
    guess_renamed,
    limit_differences,
    machine_differences,
    pair_curves,
    same_sweep,
    server_differences,
    workload_differences,
)
from .run import Run


def compare_runs(
    baseline: Run,
    now: Run,
    fail_on: Sequence[FailOn] = (),
    *,
    reference: str | None = None,
    allow_missing: bool = False,
) -> Comparison:
    """Compare every curve of two runs; `reference` is how the baseline was named."""
    pairs = pair_curves(baseline.sweeps, now.sweeps)
    names = [sorted({sweep.test for sweep in run.sweeps}) for run in (baseline, now)]
    compared = _compare_pairs(baseline, now, pairs, fail_on, *names, fewer_batches=allow_missing)
    going_on = [
        f"{name} is still going on: this is what it measured so far"
        for name, run in (("the baseline", baseline), ("the newer run", now))
        if run.status == "running"
    ]
    remarks = (*compared.remarks, *going_on)
    return replace(compared, reference=reference, allow_missing=allow_missing, remarks=remarks)


def compare_sweep(
    baseline: Run,
    now: Run,
    sweep: SweepView,
    fail_on: Sequence[FailOn] = (),
    *,
    reference: str | None = None,
    tests: Collection[str] = (),
    narrowed: Collection[str] = (),
) -> Comparison:
    """Compare one sweep of `now` with the same test on the same target in the baseline.

    A curve the baseline lacks leaves this inconclusive. A curve only the baseline has is missing, unless the
    command line narrowed an axis (`narrowed` has "waits", "modes" or "batches"): then it was not asked for. `tests` are
    those that belong to the newer run, so that none of them is taken for one that was renamed.
    """
    pairs = pair_curves(baseline.sweeps, [sweep])
    paired = {pair.baseline.sweep.target for pair in pairs if pair.baseline and pair.now}
    pairs = [
        pair
        for pair in pairs
        if pair.now or (same_sweep(pair.latest.sweep, sweep) and (not paired or pair.latest.sweep.target in paired))
    ]
    measured = {(pair.latest.curve.curve.mode, pair.latest.curve.curve.wait) for pair in pairs if pair.now}
    modes, waits = {mode for mode, _ in measured}, {wait for _, wait in measured}
    pairs = [
        pair
        for pair in pairs
        if pair.now
        or not (
            ("modes" in narrowed and pair.latest.curve.curve.mode not in modes)
            or ("waits" in narrowed and pair.latest.curve.curve.wait not in waits)
        )
    ]
    baseline_tests, current_tests = sorted({view.test for view in baseline.sweeps}), {sweep.test, *tests}
    others = tuple(test for test in baseline_tests if current_tests.isdisjoint((test, test.partition("[")[0])))
    comparison = _compare_pairs(
        baseline, now, pairs, fail_on, baseline_tests, sorted(current_tests), fewer_batches="batches" in narrowed
    )
    return replace(comparison, reference=reference, new_is_in_doubt=True, others=others)


def _compare_pairs(
    baseline: Run,
    now: Run,
    pairs: Sequence[CurvePair],
    fail_on: Sequence[FailOn],
    then_tests: Sequence[str],
    now_tests: Sequence[str],
    *,
    fewer_batches: bool,
) -> Comparison:
    curves = tuple(
        _compare_pair(baseline, now, pair.baseline, pair.now, fail_on, fewer_batches=fewer_batches)
        if pair.baseline and pair.now
        else _unpaired_curve(pair, baseline, now, then_tests, now_tests)
        for pair in pairs
    )
    return Comparison(
        baseline=side_of(baseline),
        now=side_of(now),
        fail_on=tuple(threshold.text for threshold in fail_on),
        curves=curves,
        differences=machine_differences(baseline.record.fingerprint, now.record.fingerprint),
        remarks=tuple(_run_remarks(baseline, now)),
    )


def side_of(run: Run) -> Side:
    """Return the id, status, start and commit of a run for a comparison."""
    return Side(run.run_id, run.status, run.record.started_at, *git_state(run.record))


def _run_remarks(baseline: Run, now: Run) -> Iterator[str]:
    for name, run in (("the baseline", baseline), ("the newer run", now)):
        if run.status in ("interrupted", "failed"):
            yield f"{name} {'was interrupted' if run.status == 'interrupted' else 'failed'}: it holds less than planned"
        yield from (f"{name}: {problem}" for problem in run.problems)


def _unpaired_curve(
    pair: CurvePair, baseline: Run, now: Run, then_tests: Sequence[str], now_tests: Sequence[str]
) -> CurveComparison:
    """Return a curve that only one of the runs has, with the test it may have been renamed to or from."""
    latest = pair.latest
    state: State = "missing" if pair.now is None else "new"
    here, there = (then_tests, now_tests) if state == "missing" else (now_tests, then_tests)
    others = (now if state == "missing" else baseline).sweeps
    elsewhere = sorted({sweep.infrastructure for sweep in others if sweep.test == latest.test})
    remarks: list[str] = []
    if elsewhere and latest.sweep.infrastructure not in elsewhere:
        side = "newer run" if state == "missing" else "baseline"
        text = f"the {side} has this test on {', '.join(elsewhere)}"
        remarks.append(f"{text}; to compare different servers give both targets the same label=")
    renamed = guess_renamed(latest.test, here, there)
    return _curve_comparison(latest.sweep, latest.curve, state, remarks=tuple(remarks), renamed=renamed)


def _curve_comparison(sweep: SweepView, view: CurveView, state: State, **fields: object) -> CurveComparison:
    curve = view.curve
    comparison = CurveComparison(sweep.test, sweep.infrastructure, curve.mode, curve.wait, state)
    return replace(comparison, **fields)  # pyright: ignore[reportArgumentType]


def _compare_pair(
    baseline: Run, now: Run, then: SweepCurve, today: SweepCurve, fail_on: Sequence[FailOn], *, fewer_batches: bool
) -> CurveComparison:
    """Compare two curves; unless `fewer_batches`, a batch missing from the newer run is inconclusive."""
    different = workload_differences(then, today)
    if different:
        remarks = tuple(f"not comparable: {text}" for text in different)
        return _curve_comparison(today.sweep, today.curve, "different", remarks=remarks)
    remarks = [f"the server differs: {text}" for text in server_differences(then, today)]
    old, new = then.curve, today.curve
    if (limits := limit_differences(old, new)) is not None:
        remarks.append(f"the limits of a cell differ ({limits}): both are judged by those of the newer run")
        old = _judged_like(old, new, then.sweep)
    changes = [*_capacity_changes(then.sweep, old, today.sweep, new, fail_on)]
    batches = [batch for batch in _judged_batches(old) if batch in new.curve.batches]
    left_out = [batch for batch in _judged_batches(old) if batch not in new.curve.batches]
    searched = old.verdict.search is not None or new.verdict.search is not None
    if left_out and not searched:  # Which batches a search asks for is its own affair.
        remarks.append(f"batch {formatting.list_of_counts(left_out)} of the baseline was not asked for now")
    changes += [change for batch in batches for change in _batch_changes(old, new, batch, fail_on)]
    if not batches or (left_out and not fewer_batches and not searched):
        changes += [
            _missing_batch_change(threshold, left_out, batches)
            for threshold in fail_on
            if threshold.metric not in CAPACITY_METRICS
        ]
    reps = (then.sweep.record.reps, today.sweep.record.reps)
    if reps[0] != reps[1]:
        remarks.append(f"repetitions differ ({reps[0]} → {reps[1]}): what must hold in more of them is lower by itself")
    with_effects = tuple(_with_effect(change, baseline, now, then, today) for change in changes)
    return _curve_comparison(today.sweep, today.curve, "compared", changes=with_effects, remarks=tuple(remarks))


def _judged_like(old: CurveView, new: CurveView, sweep: SweepView) -> CurveView:
    """Return a curve judged by the limits of another."""
    record = sweep.record
    slo = new.verdict.slo
    verdict = judge_curve(old.curve, old.summaries, slo, cores=record.cores, repetitions=record.reps)
    return replace(old, verdict=verdict)


def _capacity_changes(
    then: SweepView, old: CurveView, today: SweepView, new: CurveView, fail_on: Sequence[FailOn]
) -> Iterator[Change]:
    before, after = curve_capacity(old), curve_capacity(new)
    yield judge_capacity("max_batch", before, after, _thresholds_for("max_batch", fail_on))
    thresholds = _thresholds_for("batch_per_core", fail_on)
    cores = then.record.cores, today.record.cores
    if cores[0] and cores[1] and (thresholds or cores[0] != cores[1]):
        yield judge_capacity("batch_per_core", before.per_core(cores[0]), after.per_core(cores[1]), thresholds)
    elif thresholds:
        yield _unknown_cores_change(before, after, thresholds[0])


def _unknown_cores_change(before: CurveCapacity, after: CurveCapacity, threshold: FailOn) -> Change:
    no_figures = [ComparedFigure(None, None, None, side.figure.repetitions) for side in (before, after)]
    why = ChangeReason("no_cores")
    return Change("batch_per_core", None, no_figures[0], no_figures[1], Status.INCONCLUSIVE, why, threshold.text)


def _thresholds_for(metric: str, fail_on: Sequence[FailOn]) -> list[FailOn]:
    return [threshold for threshold in fail_on if threshold.metric == metric]


def _judged_batches(view: CurveView) -> list[int]:
    """Return the batches below the one that definitely failed: what a server cannot hold has no latency to keep."""
    limit = view.verdict.infeasible_min
    return [cell.batch for cell in view.verdict.cells if limit is None or cell.batch < limit]


def _batch_changes(old: CurveView, new: CurveView, batch: int, fail_on: Sequence[FailOn]) -> Iterator[Change]:
    judged = {threshold.metric for threshold in fail_on}
    doubt = _batch_doubt("baseline", old, batch) or _batch_doubt("now", new, batch)
    late = doubt or _lateness("baseline", old, batch) or _lateness("now", new, batch)
    success = cell_figure(new, "success", batch)
    none_succeeded = success is None or not success.value
    for metric in METRICS:
        if metric in CAPACITY_METRICS or (metric not in DEFAULT_METRICS and metric not in judged):
            continue
        then, today = cell_figure(old, metric, batch), cell_figure(new, metric, batch)
        if then is None or (then.value is None and metric not in judged):
            continue
        blank = ComparedFigure(None, None, None, 0)
        today = today or blank
        unknown = None if today.value is not None or none_succeeded else ChangeReason("no_figure", "now")
        why = (doubt if metric == "success" else late) or unknown
        change = judge_figure(metric, batch, then, today, _thresholds_for(metric, fail_on), doubt=why)
        if metric != "success" and change.status in (Status.IMPROVED, Status.UNCHANGED) and _lost_sessions(new, batch):
            change = replace(change, status=Status.INCONCLUSIVE, reason=ChangeReason("not_held", "now"))
        yield change


def _batch_doubt(side: Literal["baseline", "now"], view: CurveView, batch: int) -> ChangeReason | None:
    """Say why a batch of one side cannot be relied on; None where it can."""
    cell = view.verdict.cell(batch)
    if cell is None:
        return ChangeReason("not_measured", side)
    if cell.passed is not None:
        return None
    return ChangeReason("doubtful", side, doubt=cell.reasons[0]) if cell.reasons else ChangeReason("not_judged", side)


def _lost_sessions(view: CurveView, batch: int) -> bool:
    """Say whether a batch failed for its sessions: what is measured of those that are left is no gain."""
    cell = view.verdict.cell(batch)
    return cell is not None and any(breach.limit in ("success", "server") for breach in cell.breaches)


def _lateness(side: Literal["baseline", "now"], view: CurveView, batch: int) -> ChangeReason | None:
    """Say that HTTP answers of a batch were seen late, which is in its latencies and its rate; None where not."""
    cell = view.verdict.cell(batch)
    reasons = (reason for reason in (cell.reasons if cell else ()) if reason.cause == "http_lag")
    return next((ChangeReason("doubtful", side, doubt=reason) for reason in reasons), None)


def _missing_batch_change(threshold: FailOn, left_out: Sequence[int], batches: Sequence[int]) -> Change:
    no_figure = ComparedFigure(None, None, None, 0)
    cause = "not_asked" if batches else "none_asked" if left_out else "none_held"
    why = ChangeReason(cause, batches=tuple(left_out))
    return Change(threshold.metric, None, no_figure, no_figure, Status.INCONCLUSIVE, why, threshold.text)


def _with_effect(change: Change, baseline: Run, now: Run, then: SweepCurve, today: SweepCurve) -> Change:
    """Add Cliff's delta to a latency that changed, where the rows of both runs can be read."""
    phase = METRICS[change.metric].phase
    if phase is None or change.batch is None or change.status in (Status.UNCHANGED, Status.INCONCLUSIVE):
        return change
    rows = _cell_rows(baseline, then, change.batch), _cell_rows(now, today, change.batch)
    return replace(change, effect=latency_effect(rows[0], rows[1], phase))


def _cell_rows(run: Run, sweep_curve: SweepCurve, batch: int) -> CellRows:
    cell = next(cell for cell in sweep_curve.curve.curve.cells if cell.batch == batch)
    return CellRows(run.path, sweep_curve.sweep.record.sweep_id, cell.id)


MOST_VALUES = 10_000
"""More values than this are thinned to every n-th of them in order, which moves delta by less than 0.001."""

_COLUMNS = {
    "connect": "connect_latency",
    "reset": "reset_latency",
    "step": "step_latency",
    "total": "total_latency",
    "overhead": "total_latency",  # In one cell it is the total less a constant, so that the order is the same.
}

_EFFECT_SIZES = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


def cliffs_delta(baseline: Sequence[float], now: Sequence[float]) -> float | None:
    """Return P(now > baseline) − P(now < baseline) over all pairs, from −1 to 1; None where a side is empty.

    Cliff, N. (1993): Dominance statistics: ordinal analyses to answer ordinal questions. Psychological
    Bulletin 114(3), 494–509.
    """
    if not baseline or not now:
        return None
    then = sorted(baseline)
    above = sum(bisect_left(then, value) - (len(then) - bisect_right(then, value)) for value in now)
    return above / (len(then) * len(now))


def effect_size(delta: float) -> str:
    """Return a word for a delta: negligible, small, medium or large.

    Limits of Romano, J. et al. (2006): Appropriate statistics for ordinal level data. Annual meeting of the
    Florida Association of Institutional Research.
    """
    return next((word for limit, word in _EFFECT_SIZES if abs(delta) < limit), "large")


@dataclass(frozen=True, slots=True)
class CellRows:
    """Where the rows of one cell are: the run's directory, the sweep and the cell."""

    run: Path
    sweep_id: str
    cell_id: str

    def latencies(self, phase: str) -> list[float]:
        """Return one latency in seconds per judged session that succeeded, of all repetitions; empty without any."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from pytest_openenv_scale.results.parts import PartError, read_part

        column = _COLUMNS[phase]
        tables: list[pa.Table] = []
        for path in sorted((self.run / PARTS).glob(f"{self.cell_id}-r*.parquet")):
            try:
                part = read_part(path)
                if part.meta.sweep_id == self.sweep_id:
                    rows = part.table((column, "success", "judged"))
                    good = rows.filter(pc.and_(rows["success"], rows["judged"]))
                    tables.append(pa.table({column: pc.drop_null(good[column])}))
            except PartError:
                continue
        if not tables:
            return []
        values = pa.concat_tables(tables)
        if values.num_rows > MOST_VALUES:
            stride = -(-values.num_rows // MOST_VALUES)
            values = values.sort_by(column).take(pa.array(range(stride // 2, values.num_rows, stride)))
        return values[column].to_pylist()


def latency_effect(baseline: CellRows, now: CellRows, phase: str) -> float | None:
    """Return Cliff's delta of a latency in one cell; None where the rows of a side cannot be read."""
    return cliffs_delta(baseline.latencies(phase), now.latencies(phase))
