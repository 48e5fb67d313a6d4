"""Summaries and limits become verdicts with reasons, never a pass where nobody can say: curve by curve, the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.config.plan import Curve, should_stop
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import CellVerdict, CurveVerdict, Outcome, Reason, overall

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
    case = _CurveEvidence.of(curve, summaries, slo, cores, repetitions)
    findings = list(_judge_limits(case))
    outcome = overall(finding.outcome for finding in findings)
    decisive = [finding for finding in findings if finding.outcome is outcome]
    reasons = [
        Reason("no_data" if not summaries else "verdict", f"SLO {outcome}: {finding.text}") for finding in decisive
    ]
    breaches = [breach for cell in case.cells for breach in cell.breaches]
    reasons += [Reason("limit", line) for line in _first_breaches(case.cells) if line not in reasons[0].text]
    reasons += [reason for cell in case.cells for reason in cell.reasons]
    reasons += [Reason("fallback", note) for note in notes]
    return CurveVerdict(
        curve=curve,
        outcome=outcome,
        max_batch=case.max_batch,
        max_batch_per_core=case.max_batch / cores if case.max_batch and cores else None,
        cells=case.cells,
        first_breach=breaches[0] if breaches else None,
        feasible_max=case.max_batch,
        infeasible_min=case.infeasible_min,
        refused=name_refusals(summaries, needed=_needed(slo)),
        reasons=tuple(dict.fromkeys(reasons)),
        stop_reason=_stop_reason(case),
        slo=slo,
        repetitions=case.repetitions,
    )


def _needed(slo: Slo) -> int | None:
    wanted = slo.limit("max_batch")
    return None if wanted is None else int(wanted.allowed)


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
    def of(
        cls,
        curve: Curve,
        summaries: Sequence[CellSummary],
        slo: Slo,
        cores: int | None,
        repetitions: int | None,
    ) -> _CurveEvidence:
        ordered = tuple(sorted(summaries, key=lambda summary: (summary.batch, summary.repetition)))
        asked = repetitions or max((summary.repetition for summary in ordered), default=1)
        cells = _judge_cells(ordered, slo, asked)
        failing = [cell.batch for cell in cells if cell.passed is False]
        best = _contiguous(curve.batches, {cell.batch: cell.passed for cell in cells})
        return cls(curve, ordered, slo, cores, asked, cells, best, min(failing, default=None))

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
    return tuple(judge_cell(batch, found, slo, repetitions) for batch, found in by_batch.items())


def _contiguous(batches: Sequence[int], passed: dict[int, bool | None]) -> int | None:
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


def _judge_limits(case: _CurveEvidence) -> list[_LimitFinding]:
    """Judge every limit that speaks of the curve as a whole, and the cells where no capacity is asked for."""
    if not case.summaries:
        return [_LimitFinding(Outcome.INCONCLUSIVE, "nothing was measured, and no sample must not pass")]
    findings: list[_LimitFinding] = []
    max_batch, per_core = case.slo.limit("max_batch"), case.slo.limit("batch_per_core")
    if max_batch is not None:
        findings.append(_judge_max_batch(case, max_batch))
    if per_core is not None:
        findings.append(_judge_per_core(case, per_core))
    if not case.slo.explicit_limits:
        findings.append(_judge_default(case))
    elif max_batch is None and per_core is None:
        findings.append(_judge_every_cell(case))
    if (rps := case.slo.limit("rps")) is not None:
        findings.append(_judge_rate(case, rps))
    hosts = next((limit for limit in case.slo.explicit_limits if limit.name == "hosts"), None)
    if hosts is not None and case.cells[-1].batch < hosts.allowed:
        text = f"{hosts.text} needs a batch of at least {hosts.allowed:.0f}, the largest measured is"
        findings.append(_LimitFinding(Outcome.INCONCLUSIVE, f"{text} {case.cells[-1].batch}"))
    return findings


def _judge_max_batch(case: _CurveEvidence, limit: Limit) -> _LimitFinding:
    got = _got(case)
    if case.max_batch is not None and case.max_batch >= limit.allowed:
        return _LimitFinding(Outcome.MET, f"{limit.text}, {got}")
    if case.failed_by(limit.allowed):
        return _LimitFinding(Outcome.MISSED, f"{limit.text}, {got}")
    return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {got}: {_open_end(case)}")


def _judge_per_core(case: _CurveEvidence, limit: Limit) -> _LimitFinding:
    if case.cores is None:
        text = f"{limit.text} cannot be judged: the server's cores are not known; write cores=N in the target"
        return _LimitFinding(Outcome.INCONCLUSIVE, text)
    needed = limit.allowed * case.cores
    reached = (case.max_batch or 0) / case.cores
    got = f"got {formatting.number(reached)} ({_got(case)}; {formatting.count_of(case.cores, 'core')})"
    if reached >= limit.allowed:
        return _LimitFinding(Outcome.MET, f"{limit.text}, {got}")
    if case.failed_by(needed) or case.settled:
        return _LimitFinding(Outcome.MISSED, f"{limit.text}, {got}")
    open_end = _open_end(case, f"add a batch ≥ {needed:.0f}")
    return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {got}: {open_end}")


def _judge_default(case: _CurveEvidence) -> _LimitFinding:
    """Without any SLO a curve is missed only if no cell passes, or the server died."""
    died = next((breach for cell in case.cells for breach in cell.breaches if breach.limit == "server"), None)
    if died is not None:
        return _LimitFinding(Outcome.MISSED, died.text)
    if _ended_early(case):
        return _LimitFinding(Outcome.INCONCLUSIVE, f"not measured to its end: {_open_end(case)}")
    if any(cell.passed for cell in case.cells):
        if any(cell.passed is None for cell in case.cells):
            known = "not known" if case.max_batch is None else f"at least {formatting.count(case.max_batch)}"
            return _LimitFinding(Outcome.MET, f"no limit was asked for; max batch {known}: {_open_end(case)}")
        return _LimitFinding(Outcome.MET, f"no limit was asked for; max batch: {_got(case)}")
    if any(cell.passed is None for cell in case.cells):
        return _LimitFinding(Outcome.INCONCLUSIVE, f"no cell is known to pass: {_open_end(case)}")
    return _LimitFinding(Outcome.MISSED, f"no cell passes: {case.cells[0].breaches[0].text}")


def _judge_every_cell(case: _CurveEvidence) -> _LimitFinding:
    """Without a capacity asked for every measured cell must pass."""
    failing = [cell for cell in case.cells if cell.passed is False]
    if failing:
        first = failing[0]
        broken = {breach.repetition for breach in first.breaches}
        where = f", in {len(broken)} of {case.repetitions} repetitions" if case.repetitions > 1 else ""
        return _LimitFinding(Outcome.MISSED, f"{first.breaches[0].text}{where}")
    if any(cell.passed is None for cell in case.cells) or _unmeasured(case):
        return _LimitFinding(Outcome.INCONCLUSIVE, _open_end(case))
    limits = ", ".join(limit.text for limit in case.slo.limits if limit.kind.scope == "cell")
    batches = formatting.list_of_counts([cell.batch for cell in case.cells])
    return _LimitFinding(Outcome.MET, f"{limits or 'every cell passes'} at batch {batches}")


def _judge_rate(case: _CurveEvidence, limit: Limit) -> _LimitFinding:
    """`rps` holds if one passing cell reaches it in every repetition."""
    passing = {cell.batch for cell in case.cells if cell.passed}
    rates: dict[int, list[float]] = {}
    for summary in case.summaries:
        if summary.batch in passing and summary.requests_per_second is not None:
            rates.setdefault(summary.batch, []).append(summary.requests_per_second)
    if not rates:
        doubtful = any(cell.passed is None for cell in case.cells)
        outcome = Outcome.MISSED if case.infeasible_min is not None and not doubtful else Outcome.INCONCLUSIVE
        return _LimitFinding(outcome, f"{limit.text}: no passing cell to judge it on")
    best = max(rates, key=lambda batch: min(rates[batch]))
    reached = min(rates[best])
    got = f"got {formatting.format_observed('per second', reached, limit.allowed)} at batch {best}"
    if limit.holds(reached):
        return _LimitFinding(Outcome.MET, f"{limit.text}, {got}")
    if any(cell.passed is None for cell in case.cells):  # One in doubt might have reached it.
        return _LimitFinding(Outcome.INCONCLUSIVE, f"{limit.text} is not decided, {got}: {_open_end(case)}")
    return _LimitFinding(Outcome.MISSED, f"{limit.text}, {got}")


def _got(case: _CurveEvidence) -> str:
    """Say what max batch came out, and how the repetitions agree on it."""
    best = "none" if case.max_batch is None else formatting.count(case.max_batch)
    if case.repetitions == 1:
        return f"got {best}"
    each = [_max_batch_of(case, repetition) for repetition in range(1, case.repetitions + 1)]
    same = each.count(case.max_batch)
    larger = sorted({batch for batch in each if batch is not None and batch > (case.max_batch or 0)})
    others = f" ({formatting.list_of_counts(larger)} in the others)" if larger else ""
    return f"got {best} in {same} of {case.repetitions} repetitions{others}"


def _max_batch_of(case: _CurveEvidence, repetition: int) -> int | None:
    alone = [summary for summary in case.summaries if summary.repetition == repetition]
    passed = {summary.batch: judge_cell(summary.batch, [summary], case.slo, 1).passed for summary in alone}
    return _contiguous(case.curve.batches, passed)


def _unmeasured(case: _CurveEvidence) -> list[int]:
    measured = {cell.batch for cell in case.cells}
    return [batch for batch in case.curve.batches if batch not in measured]


def _open_end(case: _CurveEvidence, advice: str = "") -> str:
    """Say why nothing more is known: a batch in doubt, or one that was not measured."""
    doubtful = next((cell for cell in case.cells if cell.passed is None), None)
    if doubtful is not None:
        return doubtful.reasons[0].text
    if missing := _unmeasured(case):
        noun = "batch" if len(missing) == 1 else "batches"
        return f"{noun} {formatting.list_of_counts(missing)} not measured"
    return f"no batch larger than {case.cells[-1].batch} was measured" + (f"; {advice}" if advice else "")


def _stop_reason(case: _CurveEvidence) -> str | None:
    """Say why a curve has fewer batches than planned; None where all were measured."""
    missing = _unmeasured(case)
    if not missing:
        return None
    noun = "batch" if len(missing) == 1 else "batches"
    left = f"{noun} {formatting.list_of_counts(missing)} not measured"
    if _ended_early(case):
        return f"ended early; {left}"
    last = formatting.list_of_counts([cell.batch for cell in _before(case, missing[0])[-2:]])
    return f"stopped after two failing batches in a row ({last}); {left}"


def _ended_early(case: _CurveEvidence) -> bool:
    """Tell whether batches are missing although the curve was not stopped by two failing ones."""
    missing = _unmeasured(case)
    return bool(missing) and not should_stop([cell.passed for cell in _before(case, missing[0])])


def _before(case: _CurveEvidence, batch: int) -> list[CellVerdict]:
    return [cell for cell in case.cells if cell.batch < batch]


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


def known_max_batch(view: CurveView) -> str:
    """Say how well the max batch of a curve is known: exact, open or inconclusive, as in `ModeResult`."""
    stopper = next((cell for cell in view.verdict.cells if cell.passed is not True), None)
    if stopper is not None:
        return "exact" if stopper.passed is False else "inconclusive"
    return "open" if view.verdict.max_batch == max(view.curve.batches) else "inconclusive"
