"""Summaries and limits become the verdicts of curves and of a sweep, with reasons; what is in doubt never passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.config.plan import Curve, should_stop
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import CellVerdict, CurveVerdict, Outcome, Reason, combine_outcomes

from .cell import judge_cell
from .refusals import name_refusals

__all__ = ["judge_curve"]


def judge_curve(
    curve: Curve,
    summaries: Sequence[CellSummary],
    slo: Slo,
    *,
    cores: int | None = None,
    repetitions: int | None = None,
    notes: Sequence[str] = (),
) -> CurveVerdict:
    """Judge what was measured on one curve, in whatever order, all of it or only a part.

    `repetitions` is how many were asked for per batch; a batch with fewer is in doubt unless one failed.
    `cores` are the server's. `notes` (such as the fall-back to the built-in environment) join the reasons.
    """
    evidence = _CurveEvidence.from_summaries(curve, summaries, slo, cores, repetitions)
    findings = list(_judge_limits(evidence))
    outcome = combine_outcomes(finding.outcome for finding in findings)
    decisive = [finding for finding in findings if finding.outcome is outcome]
    reasons = [
        Reason("no_data" if not summaries else "verdict", f"SLO {outcome}: {finding.text}") for finding in decisive
    ]
    breaches = [breach for cell in evidence.cells for breach in cell.breaches]
    reasons += [Reason("limit", line) for line in _first_breaches(evidence.cells) if line not in reasons[0].text]
    reasons += [reason for cell in evidence.cells for reason in cell.reasons]
    reasons += [Reason("fallback", note) for note in notes]
    return CurveVerdict(
        curve=curve,
        outcome=outcome,
        max_batch=evidence.max_batch,
        max_batch_per_core=evidence.max_batch / cores if evidence.max_batch and cores else None,
        cells=evidence.cells,
        first_breach=breaches[0] if breaches else None,
        feasible_max=evidence.max_batch,
        infeasible_min=evidence.infeasible_min,
        refused=name_refusals(summaries, needed=_needed_sessions(slo)),
        reasons=tuple(dict.fromkeys(reasons)),
        stop_reason=_stop_reason(evidence),
        slo=slo,
        repetitions=evidence.repetitions,
    )


def _needed_sessions(slo: Slo) -> int | None:
    limit = slo.limit("max_batch")
    return None if limit is None else int(limit.allowed)


@dataclass(frozen=True, slots=True)
class _CurveEvidence:
    """A curve with its cells judged: what the limits of the curve are judged on."""

    curve: Curve
    summaries: tuple[CellSummary, ...]
    slo: Slo
    cores: int | None
    repetitions: int
    cells: tuple[CellVerdict, ...]
    max_batch: int | None
    infeasible_min: int | None

    @classmethod
    def from_summaries(
        cls,
        curve: Curve,
        summaries: Sequence[CellSummary],
        slo: Slo,
        cores: int | None,
        repetitions: int | None,
    ) -> _CurveEvidence:
        ordered = tuple(sorted(summaries, key=lambda summary: (summary.batch, summary.repetition)))
        expected = repetitions or max((summary.repetition for summary in ordered), default=1)
        cells = _judge_cells(ordered, slo, expected)
        failing = [cell.batch for cell in cells if cell.passed is False]
        best = _largest_passing(curve.batches, {cell.batch: cell.passed for cell in cells})
        return cls(curve, ordered, slo, cores, expected, cells, best, min(failing, default=None))

    def failed_by(self, batch: float) -> bool:
        """Whether some batch up to and including this one definitely failed."""
        return self.infeasible_min is not None and self.infeasible_min <= batch

    @property
    def settled(self) -> bool:
        """Whether max batch is what it is because the next batch definitely failed, not for lack of knowledge."""
        passed = {cell.batch: cell.passed for cell in self.cells}
        above = [batch for batch in self.curve.batches if batch > (self.max_batch or 0)]
        return bool(above) and passed.get(min(above)) is False


def _judge_cells(ordered: Sequence[CellSummary], slo: Slo, repetitions: int) -> tuple[CellVerdict, ...]:
    by_batch: dict[int, list[CellSummary]] = {}
    for summary in ordered:
        by_batch.setdefault(summary.batch, []).append(summary)
    return tuple(judge_cell(batch, measured, slo, repetitions) for batch, measured in by_batch.items())


def _largest_passing(batches: Sequence[int], passed: dict[int, bool | None]) -> int | None:
    """Return the last batch before the first, counted from the smallest, that does not pass."""
    best: int | None = None
    for batch in sorted({*batches, *passed}):
        if passed.get(batch) is not True:
            break
        best = batch
    return best


@dataclass(frozen=True, slots=True)
class _LimitFinding:
    outcome: Outcome
    text: str


def _judge_limits(evidence: _CurveEvidence) -> list[_LimitFinding]:
    """Judge every limit that speaks of the curve as a whole, and the cells where no capacity is asked for."""
    if not evidence.summaries:
        return [_LimitFinding(Outcome.INCONCLUSIVE, "nothing was measured, and no sample must not pass")]
    findings: list[_LimitFinding] = []
    max_batch, per_core = evidence.slo.limit("max_batch"), evidence.slo.limit("batch_per_core")
    if max_batch is not None:
        findings.append(_judge_max_batch(evidence, max_batch))
    if per_core is not None:
        findings.append(_judge_per_core(evidence, per_core))
    if not evidence.slo.asked:
        findings.append(_judge_default(evidence))
    elif max_batch is None and per_core is None:
        findings.append(_judge_every_cell(evidence))
    if (rps := evidence.slo.limit("rps")) is not None:
        findings.append(_judge_rate(evidence, rps))
    hosts = next((limit for limit in evidence.slo.asked if limit.name == "hosts"), None)
    if hosts is not None and evidence.cells[-1].batch < hosts.allowed:
        text = f"{hosts.text} needs a batch of at least {hosts.allowed:.0f}, the largest measured is"
        findings.append(_LimitFinding(Outcome.INCONCLUSIVE, f"{text} {evidence.cells[-1].batch}"))
    return findings


def _judge_max_batch(evidence: _CurveEvidence, limit: Limit) -> _LimitFinding:
    result = _describe_max_batch(evidence)
    if evidence.max_batch is not None and evidence.max_batch >= limit.allowed:
        return _LimitFinding(Outcome.MET, f"{limit.text}, {result}")
    if evidence.failed_by(limit.allowed):
        return _LimitFinding(Outcome.MISSED, f"{limit.text}, {result}")
    return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {result}: {_why_undecided(evidence)}")


def _judge_per_core(evidence: _CurveEvidence, limit: Limit) -> _LimitFinding:
    if evidence.cores is None:
        text = f"{limit.text} cannot be judged: the server's cores are not known; write cores=N in the target"
        return _LimitFinding(Outcome.INCONCLUSIVE, text)
    needed = limit.allowed * evidence.cores
    reached = (evidence.max_batch or 0) / evidence.cores
    cores = formatting.count_of(evidence.cores, "core")
    result = f"got {formatting.number(reached)} ({_describe_max_batch(evidence)}; {cores})"
    if reached >= limit.allowed:
        return _LimitFinding(Outcome.MET, f"{limit.text}, {result}")
    if evidence.failed_by(needed) or evidence.settled:
        return _LimitFinding(Outcome.MISSED, f"{limit.text}, {result}")
    cause = _why_undecided(evidence, f"add a batch ≥ {needed:.0f}")
    return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {result}: {cause}")


def _judge_default(evidence: _CurveEvidence) -> _LimitFinding:
    """Without any SLO a curve is missed only if no cell passes, or the server died."""
    server_breach = next(
        (breach for cell in evidence.cells for breach in cell.breaches if breach.limit == "server"), None
    )
    if server_breach is not None:
        return _LimitFinding(Outcome.MISSED, server_breach.text)
    if _ended_early(evidence):
        return _LimitFinding(Outcome.INCONCLUSIVE, f"not measured to its end: {_why_undecided(evidence)}")
    if any(cell.passed for cell in evidence.cells):
        if any(cell.passed is None for cell in evidence.cells):
            max_batch_text = (
                "not known" if evidence.max_batch is None else f"at least {formatting.count(evidence.max_batch)}"
            )
            return _LimitFinding(
                Outcome.MET, f"no limit was asked for; max batch {max_batch_text}: {_why_undecided(evidence)}"
            )
        return _LimitFinding(Outcome.MET, f"no limit was asked for; max batch: {_describe_max_batch(evidence)}")
    if any(cell.passed is None for cell in evidence.cells):
        return _LimitFinding(Outcome.INCONCLUSIVE, f"no cell is known to pass: {_why_undecided(evidence)}")
    return _LimitFinding(Outcome.MISSED, f"no cell passes: {evidence.cells[0].breaches[0].text}")


def _judge_every_cell(evidence: _CurveEvidence) -> _LimitFinding:
    """Without a capacity asked for every measured cell must pass."""
    failing = [cell for cell in evidence.cells if cell.passed is False]
    if failing:
        first = failing[0]
        repetitions = {breach.repetition for breach in first.breaches}
        where = f", in {len(repetitions)} of {evidence.repetitions} repetitions" if evidence.repetitions > 1 else ""
        return _LimitFinding(Outcome.MISSED, f"{first.breaches[0].text}{where}")
    if any(cell.passed is None for cell in evidence.cells) or _unmeasured(evidence):
        return _LimitFinding(Outcome.INCONCLUSIVE, _why_undecided(evidence))
    limits = ", ".join(limit.text for limit in evidence.slo.limits if limit.kind.scope == "cell")
    batches = formatting.several([cell.batch for cell in evidence.cells])
    return _LimitFinding(Outcome.MET, f"{limits or 'every cell passes'} at batch {batches}")


def _judge_rate(evidence: _CurveEvidence, limit: Limit) -> _LimitFinding:
    """`rps` holds if one passing cell reaches it in every repetition."""
    passing = {cell.batch for cell in evidence.cells if cell.passed}
    rates: dict[int, list[float]] = {}
    for summary in evidence.summaries:
        if summary.batch in passing and summary.requests_per_second is not None:
            rates.setdefault(summary.batch, []).append(summary.requests_per_second)
    if not rates:
        doubtful = any(cell.passed is None for cell in evidence.cells)
        outcome = Outcome.MISSED if evidence.infeasible_min is not None and not doubtful else Outcome.INCONCLUSIVE
        return _LimitFinding(outcome, f"{limit.text}: no passing cell to judge it on")
    best = max(rates, key=lambda batch: min(rates[batch]))
    reached = min(rates[best])
    result = f"got {formatting.observed('per second', reached, limit.allowed)} at batch {best}"
    if limit.holds(reached):
        return _LimitFinding(Outcome.MET, f"{limit.text}, {result}")
    if any(cell.passed is None for cell in evidence.cells):  # One in doubt might have reached it.
        return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {result}: {_why_undecided(evidence)}")
    return _LimitFinding(Outcome.MISSED, f"{limit.text}, {result}")


def _describe_max_batch(evidence: _CurveEvidence) -> str:
    """Return the max batch reached, as text, and how many repetitions agree on it."""
    best = "none" if evidence.max_batch is None else formatting.count(evidence.max_batch)
    if evidence.repetitions == 1:
        return f"got {best}"
    max_batches = [_max_batch_of(evidence, repetition) for repetition in range(1, evidence.repetitions + 1)]
    agreeing = max_batches.count(evidence.max_batch)
    larger = sorted({batch for batch in max_batches if batch is not None and batch > (evidence.max_batch or 0)})
    others = f" ({formatting.several(larger)} in the others)" if larger else ""
    return f"got {best} in {agreeing} of {evidence.repetitions} repetitions{others}"


def _max_batch_of(evidence: _CurveEvidence, repetition: int) -> int | None:
    measured = [summary for summary in evidence.summaries if summary.repetition == repetition]
    passed = {summary.batch: judge_cell(summary.batch, [summary], evidence.slo, 1).passed for summary in measured}
    return _largest_passing(evidence.curve.batches, passed)


def _unmeasured(evidence: _CurveEvidence) -> list[int]:
    measured = {cell.batch for cell in evidence.cells}
    return [batch for batch in evidence.curve.batches if batch not in measured]


def _why_undecided(evidence: _CurveEvidence, advice: str = "") -> str:
    """Return why a limit is undecided: a batch in doubt, or one that was not measured."""
    doubtful = next((cell for cell in evidence.cells if cell.passed is None), None)
    if doubtful is not None:
        return doubtful.reasons[0].text
    if missing := _unmeasured(evidence):
        noun = "batch" if len(missing) == 1 else "batches"
        return f"{noun} {formatting.several(missing)} not measured"
    return f"no batch larger than {evidence.cells[-1].batch} was measured" + (f"; {advice}" if advice else "")


def _stop_reason(evidence: _CurveEvidence) -> str | None:
    """Return why a curve has fewer batches than planned; None where all were measured."""
    missing = _unmeasured(evidence)
    if not missing:
        return None
    noun = "batch" if len(missing) == 1 else "batches"
    unmeasured_text = f"{noun} {formatting.several(missing)} not measured"
    if _ended_early(evidence):
        return f"ended early; {unmeasured_text}"
    last = formatting.several([cell.batch for cell in _cells_before(evidence, missing[0])[-2:]])
    return f"stopped after two failing batches in a row ({last}); {unmeasured_text}"


def _ended_early(evidence: _CurveEvidence) -> bool:
    """Tell whether batches are missing although the curve was not stopped by two failing ones."""
    missing = _unmeasured(evidence)
    return bool(missing) and not should_stop([cell.passed for cell in _cells_before(evidence, missing[0])])


def _cells_before(evidence: _CurveEvidence, batch: int) -> list[CellVerdict]:
    return [cell for cell in evidence.cells if cell.batch < batch]


def _first_breaches(cells: Sequence[CellVerdict]) -> list[str]:
    """Return the first breach of each kind of limit on the smallest failing batch."""
    first = next((cell for cell in cells if cell.passed is False), None)
    if first is None:
        return []
    return list({breach.limit: breach.text for breach in reversed(first.breaches)}.values())[::-1]


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
    return SweepView(record, curves, combine_outcomes(view.verdict.outcome for view in curves))


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


def max_batch_certainty(view: CurveView) -> str:
    """Return how well the max batch of a curve is known: exact, open or inconclusive, as in `ModeResult`."""
    first_not_passed = next((cell for cell in view.verdict.cells if cell.passed is not True), None)
    if first_not_passed is not None:
        return "exact" if first_not_passed.passed is False else "inconclusive"
    return "open" if view.verdict.max_batch == max(view.curve.batches) else "inconclusive"
