"""The answer of a page in one line, of curves and of checks, and what each curve is called after its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pytest_openenv_scale.analysis.study import Study, StudyCurve
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    CurveVerdict,
    Outcome,
    combine_outcomes,
    combine_with_checks,
)

from . import verdicts, wording
from .refusals import refusal_words

MEASURED = "measured"
"""What a curve is whose limits say only which batch is its largest: nothing was asked of it that it could miss."""

STATE_MARKS: Mapping[str, str] = {
    **{str(outcome): mark for outcome, mark in wording.OUTCOME_MARKS.items()},
    MEASURED: "•",
}

WORST_FIRST: Sequence[str] = (Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET, MEASURED)
"""What becomes of curves, in the order reports show it."""


def curve_state(verdict: CurveVerdict) -> str:
    """Return what became of a curve: met, missed or inconclusive; or measured, where nothing was asked of it."""
    is_measured = verdict.limits and all(limit.cause in ("no_limit", "some_cell") for limit in verdict.limits)
    return MEASURED if is_measured else str(verdict.outcome)


def study_state(study: Study, checks: Sequence[CheckRecord]) -> str:
    """Return what became of all curves and checks together: the worst of it, measured only where all are."""
    outcomes = [curve.verdict.outcome for curve in study.curves]
    if outcomes and not checks and {curve_state(curve.verdict) for curve in study.curves} == {MEASURED}:
        return MEASURED
    return str(combine_with_checks(combine_outcomes(outcomes) if outcomes else None, checks))


def page_headline(study: Study, checks: Sequence[CheckRecord]) -> str:
    """Return the answer in one line, of curves and of checks where there are any."""
    parts = [study_headline(study)] if study.curves or not checks else []
    text = "; ".join([*parts, *([checks_headline(checks)] if checks else [])])
    return text[:1].upper() + text[1:]


def study_headline(study: Study) -> str:
    """Return the answer in one line: how the curves came out, or what the only one said."""
    curves = study.curves
    if not any(curve.curve.summaries for curve in curves):
        return "Nothing was measured"
    states = Counter(curve_state(curve.verdict) for curve in curves)
    if states[MEASURED] == len(curves):
        return _max_batch_headline([curve.verdict for curve in curves])
    if len(curves) == 1:
        outcome = curves[0].verdict.outcome
        return f"{outcome.capitalize()}: {reason(curves[0])}"
    missed, doubtful, met = states[Outcome.MISSED], states[Outcome.INCONCLUSIVE], states[Outcome.MET]
    if missed:
        has_limits = any(curve.verdict.slo.limits for curve in curves)
        verbs = ("misses", "miss") if has_limits else ("does not hold", "do not hold")
        inconclusive = f", {doubtful:,} inconclusive" if doubtful else ""
        return f"{_count(missed, len(curves), *verbs)} {'what was asked' if has_limits else 'any batch'}{inconclusive}"
    if doubtful:
        return f"{_count(doubtful, len(curves), 'is', 'are')} inconclusive"
    return f"{_count(met, len(curves), 'meets', 'meet')} what was asked"


def _max_batch_headline(verdicts: Sequence[CurveVerdict]) -> str:
    """Return "Max batch 128 (largest that meets success ≥ 95 %)", of several curves what it spans."""
    by_size = sorted(verdicts, key=lambda verdict: (verdict.max_batch or 0, _max_batch_words(verdict)))
    span = " to ".join(dict.fromkeys(map(_max_batch_words, (by_size[0], by_size[-1]))))
    curves = "" if len(verdicts) == 1 else f"{len(verdicts):,} curves, "
    limits = {", ".join(limit.text for limit in verdict.slo.cell_limits) for verdict in verdicts}
    which = "every batch asked for" if all(map(wording.is_open, verdicts)) else "largest that"
    text = f"{curves}max batch {span} ({which} meets {limits.pop() if len(limits) == 1 else 'its limits'})"
    return text[:1].upper() + text[1:]


def _max_batch_words(verdict: CurveVerdict) -> str:
    in_doubt = verdict.max_batch is not None and any(cell.passed is None for cell in verdict.cells)
    return f"{'at least ' * in_doubt}{wording.max_batch_text(verdict)}"


def _count(count: int, total: int, singular: str, plural: str) -> str:
    """Return "1 of 5 curves misses", "2 of 5 curves miss" or "All 5 curves miss"."""
    if count == total:
        return f"All {count:,} curves {plural}"
    return f"{count:,} of {total:,} curves {singular if count == 1 else plural}"


def checks_headline(checks: Sequence[CheckRecord]) -> str:
    """Return how the checks came out in a few words: "2 of 12 checks missed", "all 12 checks met, 1 skipped"."""
    counts = Counter(check.result.outcome for check in checks)
    asked_count = len(checks) - counts[CheckOutcome.SKIPPED]
    skipped = f", {counts[CheckOutcome.SKIPPED]} skipped" if counts[CheckOutcome.SKIPPED] else ""
    for outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        if counts[outcome]:
            return f"{counts[outcome]} of {asked_count} checks {outcome}{skipped}"
    return f"all {asked_count} checks met{skipped}" if asked_count else "every check was skipped"


def reason(curve: StudyCurve) -> str:
    """Return why a verdict is what it is, on one line."""
    return on_one_line(verdicts.verdict_reason(curve.curve))


def reason_with_refusal(curve: StudyCurve) -> str:
    """Return the reason of a verdict and, where limits are missed, what refused the sessions."""
    refused = curve.verdict.refused if curve.verdict.outcome is Outcome.MISSED else ()
    return "; ".join([reason(curve), *(on_one_line(refusal_words(refusal)[0]) for refusal in refused[:1])])
