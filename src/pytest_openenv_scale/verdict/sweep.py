"""Summaries and limits become verdicts with reasons, never a pass where nobody can say: curve by curve, the sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_openenv_scale.config.limits import LIMITS, Limit, Slo
from pytest_openenv_scale.config.plan import Curve, should_stop
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.metrics.cost import LEAST_POINTS, server_cost
from pytest_openenv_scale.metrics.summary import CellSummary, split_attempts
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import (
    CellVerdict,
    Cost,
    CurveVerdict,
    LimitVerdict,
    Outcome,
    Probe,
    SearchOutcome,
    ServerCost,
    Stopped,
    StopReason,
    WarmUp,
    combine_outcomes,
)

from .bracket import Bracket, drift_of, grown_bytes
from .cell import judge_cell
from .refusals import name_refusals

__all__ = ["judge_cells", "judge_curve"]


def judge_curve(
    curve: Curve,
    summaries: Sequence[CellSummary],
    slo: Slo,
    *,
    cells: Sequence[CellVerdict] | None = None,
    cores: int | None = None,
    repetitions: int | None = None,
    notes: Sequence[str] = (),
    warm_up: WarmUp | None = None,
    search: SearchPlan | None = None,
    stop: StopReason | None = None,
    earlier: Sequence[CellSummary] = (),
) -> CurveVerdict:
    """Judge what was measured on one curve, in whatever order, all of it or only a part.

    `cells` are the verdicts on its batches, the smallest first, where those were judged already. `repetitions` is how
    many were asked for per batch; a batch with fewer is in doubt unless one failed. `cores` are the server's. `notes`
    (such as the fall-back to the built-in environment) and the `warm_up` of its mode stay with the verdict. Where the
    curve was searched `search` is the plan; `stop` is why measuring ended, if that was not for what was measured alone.
    `earlier` is what was measured on the same server before.
    """
    ordered, _ = split_attempts(summaries)
    expected = repetitions or max((summary.repetition for summary in ordered), default=1)
    outcome = None
    cost = server_cost(summaries, earlier)
    if search is None:
        verdicts = judge_cells(summaries, slo, expected) if cells is None else tuple(cells)
        case = _CurveEvidence(curve, ordered, slo, cores, expected, verdicts, warm_up, stop, cost)
    else:
        expected = search.repetitions
        verdicts = judge_cells(summaries, slo)
        outcome = _search_outcome(search, stop or "interrupted", ordered, verdicts)
        tallies = Bracket.of(outcome.probes, expected).tallies
        held = {batch for batch, tally in tallies.items() if tally.fails and tally.holds(expected)}
        verdicts = tuple(replace(cell, passed=True) if cell.batch in held else cell for cell in verdicts)
        case = _SearchEvidence(curve, ordered, slo, cores, expected, verdicts, warm_up, stop, cost, outcome)
    limits = tuple(_judge_limits(case))
    breaches = [breach for cell in verdicts for breach in cell.breaches]
    if outcome is not None:  # One unlucky repetition far below is not what ends the curve.
        breaches.sort(key=lambda breach: breach.batch != case.infeasible_min)
    ending = case.infeasible_min if outcome is not None else None
    refusing = [summary for summary in ordered if ending is None or summary.batch >= ending]
    return CurveVerdict(
        curve=curve,
        outcome=combine_outcomes(limit.outcome for limit in limits),
        max_batch=case.max_batch,
        max_batch_per_core=case.max_batch / cores if case.max_batch and cores else None,
        cells=verdicts,
        first_breach=breaches[0] if breaches else None,
        feasible_max=case.max_batch,
        infeasible_min=case.infeasible_min,
        refused=name_refusals(refusing, needed=_needed_sessions(slo), batches=case.not_passed),
        limits=limits,
        stopped=_why_stopped(case),
        slo=slo,
        repetitions=expected,
        max_batches=case.max_batches,
        cores=cores,
        notes=tuple(notes),
        warm_up=warm_up,
        search=outcome,
        cost=cost,
    )


def judge_cells(summaries: Sequence[CellSummary], slo: Slo, repetitions: int | None = None) -> tuple[CellVerdict, ...]:
    """Judge every batch of a curve, the smallest first, by its repetitions: None for as many as were measured."""
    by_batch: dict[int, list[CellSummary]] = {}
    for summary in sorted(summaries, key=lambda summary: (summary.batch, summary.repetition)):
        by_batch.setdefault(summary.batch, []).append(summary)
    return tuple(
        judge_cell(batch, measured, slo, repetitions or max(summary.repetition for summary in measured))
        for batch, measured in by_batch.items()
    )


def _search_outcome(
    plan: SearchPlan, stop: StopReason, summaries: Sequence[CellSummary], cells: Sequence[CellVerdict]
) -> SearchOutcome:
    """Return what a search asked for, in the order in which it was measured, and what that amounts to."""
    passed: dict[tuple[int, int], bool | None] = {}
    for cell in cells:
        measured = sorted(summary.repetition for summary in summaries if summary.batch == cell.batch)
        passed |= {(cell.batch, number): said for number, said in zip(measured, cell.by_repetition, strict=True)}
    ordered = sorted(summaries, key=lambda summary: (summary.started_at, summary.batch, summary.repetition))
    probes = tuple(
        Probe(summary.batch, passed[summary.batch, summary.repetition], summary.repetition) for summary in ordered
    )
    bracket = Bracket.of(probes, plan.repetitions)
    drift = drift_of(probes, plan.precision) if plan.needed is None else None
    resident = [(summary.batch, first.rss_bytes) for summary in ordered if (first := summary.server.first)]
    sessions = sum(summary.batch - summary.not_started for summary in ordered)
    return SearchOutcome(plan, stop, probes, sessions, bracket.shape, bracket.exceptions, drift, grown_bytes(resident))


def _needed_sessions(slo: Slo) -> int | None:
    limit = slo.limit("max_batch")
    return None if limit is None else int(limit.allowed)


@dataclass(frozen=True)
class _CurveEvidence:
    """A curve with its cells judged: what the limits of the curve are judged on."""

    curve: Curve
    summaries: tuple[CellSummary, ...]
    slo: Slo
    cores: int | None
    repetitions: int
    cells: tuple[CellVerdict, ...]
    warm_up: WarmUp | None
    stop: StopReason | None
    cost: ServerCost

    @property
    def passed(self) -> dict[int, bool | None]:
        """What became of each batch that was measured."""
        return {cell.batch: cell.passed for cell in self.cells}

    @property
    def not_passed(self) -> frozenset[int]:
        """The batches that did not pass."""
        return frozenset(batch for batch, passed in self.passed.items() if passed is not True)

    @property
    def max_batch(self) -> int | None:
        return _largest_passing(self.curve.batches, self.passed)

    @property
    def max_batches(self) -> tuple[int | None, ...]:
        """The max batch of each repetition, judged alone."""
        alone: list[dict[int, bool | None]] = [{} for _ in range(self.repetitions)]
        for cell in self.cells:
            measured = sorted(summary.repetition for summary in self.summaries if summary.batch == cell.batch)
            for repetition, passed in zip(measured, cell.by_repetition, strict=True):
                if repetition <= self.repetitions:
                    alone[repetition - 1][cell.batch] = passed
        return tuple(_largest_passing(self.curve.batches, passed) for passed in alone)

    @property
    def infeasible_min(self) -> int | None:
        """The smallest batch that definitely failed."""
        return min((cell.batch for cell in self.cells if cell.passed is False), default=None)

    @property
    def doubtful(self) -> bool:
        """Whether a batch was measured of which nobody can say whether it passes."""
        return any(cell.passed is None for cell in self.cells)

    @property
    def unmeasured(self) -> list[int]:
        return [batch for batch in self.curve.batches if batch not in self.passed]

    @property
    def ended_early(self) -> bool:
        """Whether batches are missing although the curve was not stopped by two failing ones."""
        missing = self.unmeasured
        before = [cell.passed for cell in self.cells if missing and cell.batch < missing[0]]
        return bool(missing) and not should_stop(before)

    @property
    def did_not_play(self) -> bool:
        """Whether nothing was measured because a session alone got errors only."""
        return not self.summaries and self.warm_up is not None and not self.warm_up.played

    @property
    def every_cell(self) -> bool:
        """Whether every measured cell has to pass where no capacity is asked for."""
        return self.slo.every_cell is not False

    @property
    def some_passes(self) -> bool:
        """Whether there is a batch that passes."""
        return any(cell.passed for cell in self.cells)

    def failed_by(self, batch: float) -> bool:
        """Whether some batch up to and including this one definitely failed."""
        return self.infeasible_min is not None and self.infeasible_min <= batch

    @property
    def settled(self) -> bool:
        """Whether max batch is what it is because the next batch definitely failed, not for lack of knowledge."""
        above = [batch for batch in self.curve.batches if batch > (self.max_batch or 0)]
        return bool(above) and self.passed.get(min(above)) is False


_ENDED_OPEN: frozenset[StopReason] = frozenset(
    ("budget", "max_sessions", "interrupted", "running", "unsteady", "drift")
)
"""Why a search ended that might have come to another number."""

_NOT_SETTLED: frozenset[StopReason] = frozenset((*_ENDED_OPEN, "doubt"))
"""Why a search ended without knowing that nothing larger than its max batch passes."""


@dataclass(frozen=True)
class _SearchEvidence(_CurveEvidence):
    """A curve that was searched: each batch was asked for because of others, and one repetition proves little."""

    search: SearchOutcome | None = None

    @property
    def bracket(self) -> Bracket:
        return Bracket.of(self.search.probes if self.search else (), self.repetitions)

    @property
    def max_batch(self) -> int | None:
        return self.bracket.feasible_max

    @property
    def max_batches(self) -> tuple[int | None, ...]:
        return (self.max_batch,) * self.repetitions

    @property
    def infeasible_min(self) -> int | None:
        return self.bracket.infeasible_min

    @property
    def unmeasured(self) -> list[int]:
        return []

    @property
    def ended_early(self) -> bool:
        return self.search is not None and self.search.stop_reason in _ENDED_OPEN

    @property
    def every_cell(self) -> bool:
        return False

    @property
    def some_passes(self) -> bool:
        return self.max_batch is not None

    @property
    def settled(self) -> bool:
        return self.search is not None and _is_settled(self.search, self.max_batch, self.infeasible_min)

    def failed_by(self, batch: float) -> bool:
        below = self.infeasible_min is not None and self.infeasible_min <= batch
        return below or self.passed.get(int(batch)) is False


def _is_settled(search: SearchOutcome, max_batch: int | None, infeasible_min: int | None) -> bool:
    """Say whether a search knows what it asked for: what passes, or that nothing does, and what fails."""
    if infeasible_min is None or search.stop_reason in _NOT_SETTLED:
        return False
    return max_batch is not None or infeasible_min == search.plan.low


def _largest_passing(batches: Sequence[int], passed: Mapping[int, bool | None]) -> int | None:
    """Return the last batch before the first, counted from the smallest, that does not pass."""
    best: int | None = None
    for batch in sorted({*batches, *passed}):
        if passed.get(batch) is not True:
            break
        best = batch
    return best


def _judge_limits(case: _CurveEvidence) -> list[LimitVerdict]:
    """Judge every limit that speaks of the curve as a whole, and the cells where no capacity is asked for."""
    if case.did_not_play:
        return [LimitVerdict(None, Outcome.INCONCLUSIVE, "did_not_play")]
    if not case.summaries:
        return [LimitVerdict(None, Outcome.INCONCLUSIVE, "nothing_measured")]
    of_curve = [limit for limit in case.slo.limits if limit.kind.scope == "curve"]
    capacities = [limit for limit in of_curve if limit.kind.family == "capacity"]
    verdicts = [_JUDGES[limit.name](case, limit) for limit in capacities]
    if not case.slo.explicit_limits:
        verdicts.append(_judge_default(case))
    elif not verdicts:
        verdicts.append(_judge_every_cell(case) if case.every_cell else _judge_default(case))
    verdicts += [_JUDGES[limit.name](case, limit) for limit in of_curve if limit not in capacities]
    largest = case.cells[-1].batch
    for limit in case.slo.explicit_limits:
        if limit.kind.needs_batch and largest < limit.allowed:
            verdicts.append(LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "small_batches", {"largest": largest}))
    return verdicts


def _judge_max_batch(case: _CurveEvidence, limit: Limit) -> LimitVerdict:
    if case.max_batch is not None and case.max_batch >= limit.allowed:
        return LimitVerdict(limit.name, Outcome.MET, "reached")
    if case.failed_by(limit.allowed):
        return LimitVerdict(limit.name, Outcome.MISSED, "broken")
    return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "open")


def _judge_per_core(case: _CurveEvidence, limit: Limit) -> LimitVerdict:
    if case.cores is None:
        return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "unknown_cores")
    needed = limit.allowed * case.cores
    figures = {"observed": (case.max_batch or 0) / case.cores, "needed": needed}
    if figures["observed"] >= limit.allowed:
        return LimitVerdict(limit.name, Outcome.MET, "reached", figures)
    if case.failed_by(needed) or case.settled:
        return LimitVerdict(limit.name, Outcome.MISSED, "broken", figures)
    return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "open", figures)


def _judge_default(case: _CurveEvidence) -> LimitVerdict:
    """Where limits define max batch only, a curve is missed only if no cell passes, or the server died."""
    if any(breach.limit == "server" for cell in case.cells for breach in cell.breaches):
        return LimitVerdict(None, Outcome.MISSED, "server_died")
    if case.ended_early:
        return LimitVerdict(None, Outcome.INCONCLUSIVE, "ended_early")
    if case.some_passes:
        return LimitVerdict(None, Outcome.MET, "some_cell" if case.slo.explicit_limits else "no_limit")
    if case.doubtful:
        return LimitVerdict(None, Outcome.INCONCLUSIVE, "none_known")
    return LimitVerdict(None, Outcome.MISSED, "none_passes")


def _judge_every_cell(case: _CurveEvidence) -> LimitVerdict:
    """Without a capacity asked for every measured cell must pass."""
    if case.infeasible_min is not None:
        return LimitVerdict(None, Outcome.MISSED, "every_cell")
    outcome = Outcome.INCONCLUSIVE if case.doubtful or case.unmeasured else Outcome.MET
    return LimitVerdict(None, outcome, "every_cell")


def _judge_rate(case: _CurveEvidence, limit: Limit) -> LimitVerdict:
    """A rate holds if one passing cell reaches it in every repetition."""
    rates: dict[int, list[float]] = {}
    for summary in case.summaries:
        if case.passed[summary.batch] and (rate := limit.kind.measure(summary)) is not None:
            rates.setdefault(summary.batch, []).append(rate)
    if not rates:
        outcome = Outcome.MISSED if case.infeasible_min is not None and not case.doubtful else Outcome.INCONCLUSIVE
        return LimitVerdict(limit.name, outcome, "no_passing_cell")
    best = max(rates, key=lambda batch: min(rates[batch]))
    figures = {"observed": min(rates[best]), "batch": best}
    if limit.holds(min(rates[best])):
        return LimitVerdict(limit.name, Outcome.MET, "reached", figures)
    if case.doubtful:  # One in doubt might have reached it.
        return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "open", figures)
    if any(summary.seen_late for summary in case.summaries if summary.batch in rates):
        return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "late", figures)
    return LimitVerdict(limit.name, Outcome.MISSED, "broken", figures)


def _judge_cost(case: _CurveEvidence, limit: Limit) -> LimitVerdict:
    """A cost is met or missed where its whole interval lies on one side of the limit."""
    cost: Cost | None = getattr(case.cost, limit.name)
    if cost is None:
        return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "unseen")
    figures = {name: value for name, value in cost.to_json().items() if value is not None}
    if cost.high is not None and limit.holds(cost.high):
        return LimitVerdict(limit.name, Outcome.MET, "reached", figures)
    if cost.low is not None and not limit.holds(cost.low):
        return LimitVerdict(limit.name, Outcome.MISSED, "broken", figures)
    few = cost.points < LEAST_POINTS
    return LimitVerdict(limit.name, Outcome.INCONCLUSIVE, "few_points" if few else "open", figures)


_JUDGES: Mapping[str, Callable[[_CurveEvidence, Limit], LimitVerdict]] = {
    "max_batch": _judge_max_batch,
    "batch_per_core": _judge_per_core,
    "rps": _judge_rate,
    **{name: _judge_cost for name, kind in LIMITS.items() if kind.family == "cost"},
}
"""How each limit that speaks of a whole curve is judged, by its name; a new one has to come in here."""


def _why_stopped(case: _CurveEvidence) -> Stopped | None:
    """Say why a curve has fewer batches than planned; None where all were measured."""
    if case.stop == "budget" or case.stop == "max_sessions":
        return case.stop
    if not case.unmeasured or case.did_not_play:
        return None
    return "ended_early" if case.ended_early else "two_failing"


@dataclass(frozen=True, slots=True)
class CurveView(Jsonable):
    """A curve, what was measured on it (by batch, then repetition), the verdict, and attempts that were set aside."""

    curve: Curve
    summaries: tuple[CellSummary, ...]
    verdict: CurveVerdict
    set_aside: tuple[CellSummary, ...] = ()


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
        """The summaries of all curves, without attempts that were set aside."""
        return tuple(summary for curve in self.curves for summary in curve.summaries)


def view_sweep(record: SweepRecord, summaries: Sequence[CellSummary]) -> SweepView:
    """Judge every curve of a sweep by what was measured on it so far; its searches go on as long as it does."""
    by_curve: dict[str, list[CellSummary]] = {}
    for summary in summaries:
        by_curve.setdefault(summary.cell.curve.id, []).append(summary)
    going_on: dict[str, StopReason] = dict.fromkeys(record.searches, "running") if record.status == "running" else {}
    judged = replace(record, stops={**going_on, **record.stops})
    views: list[CurveView] = []
    earlier: list[CellSummary] = []
    for curve in record.curves:
        measured = by_curve.get(curve.id, ())
        views.append(view_curve(judged, curve, measured, earlier=earlier))
        earlier += measured
    return join_curves(record, views)


def view_curve(
    record: SweepRecord,
    curve: Curve,
    summaries: Sequence[CellSummary],
    cells: Sequence[CellVerdict] | None = None,
    *,
    earlier: Sequence[CellSummary] = (),
) -> CurveView:
    """Judge one curve of a sweep; see `judge_curve` for `cells` and `earlier`."""
    counted, set_aside = split_attempts(summaries)
    largest = max((summary.batch for summary in counted), default=0)
    slo, is_first = record.slos[record.curves.index(curve)], curve == record.curves[0]
    if curve.id in record.searches and summaries:
        curve = replace(curve, batches=tuple(sorted({summary.batch for summary in summaries})))
    verdict = judge_curve(
        curve,
        summaries,
        slo,
        cells=cells,
        cores=record.cores,
        repetitions=record.reps,
        notes=(*record.notes, *record.backlog_notes(largest), *(record.left_out if is_first else ())),
        warm_up=record.warm_up(curve.mode),
        search=record.searches.get(curve.id),
        stop=record.stops.get(curve.id),
        earlier=earlier,
    )
    return CurveView(curve, counted, verdict, set_aside)


def join_curves(record: SweepRecord, curves: Sequence[CurveView]) -> SweepView:
    """Return the view of a sweep of its judged curves."""
    return SweepView(record, tuple(curves), combine_outcomes(curve.verdict.outcome for curve in curves))


def max_batch_certainty(view: CurveView) -> str:
    """Say how well the max batch of a curve is known: exact, open or inconclusive, as in `ModeResult`."""
    if (search := view.verdict.search) is not None:
        if search.stop_reason in ("top", "holds"):
            return "open"
        settled = _is_settled(search, view.verdict.max_batch, view.verdict.infeasible_min)
        return "exact" if settled else "inconclusive"
    stopper = next((cell for cell in view.verdict.cells if cell.passed is not True), None)
    if stopper is not None:
        return "exact" if stopper.passed is False else "inconclusive"
    return "open" if view.verdict.max_batch == max(view.curve.batches) else "inconclusive"
