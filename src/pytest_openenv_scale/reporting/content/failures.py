"""Why a test fails, in words: a short line for each reason, and what to do where a server refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.results.comparison import Comparison, Judgement
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .comparison import comparison_headline
from .refusals import refusal_sentence
from .verdicts import short_verdict, what_to_do
from .wording import error_sentence, mode_and_wait

_INCONCLUSIVE = "inconclusive: "
_MOST_CURVES_NAMED = 3

LET_PASS = "--openenv-inconclusive warn lets this pass"
"""How a test passes of which nothing is missed."""


def failure_reasons(view: SweepView, no_baseline: str | None = None) -> tuple[list[str], bool]:
    """Return a line for each reason why a test fails, what is missed first, and whether anything is.

    `no_baseline` is why there is no baseline to compare with, where one is asked for.
    """
    comparison = view.record.comparison
    missed = [*_verdicts(view, Outcome.MISSED), *_changes(comparison, Judgement.REGRESSED)]
    doubts = [*_verdicts(view, Outcome.INCONCLUSIVE)]
    doubts += [f"baseline: {change}" for change in _changes(comparison, Judgement.INCONCLUSIVE)]
    doubts += [f"no baseline to compare with: {no_baseline}"] if no_baseline is not None else []
    reasons = [*missed, *(f"{_INCONCLUSIVE}{doubt}" for doubt in doubts)]
    return [*map(on_one_line, reasons)], bool(missed)


def _verdicts(view: SweepView, outcome: Outcome) -> Iterator[str]:
    """Yield the verdicts of that outcome; curves that came to the same share a line."""
    curves: dict[str, list[CurveView]] = {}
    for curve in curves_not_met(view):
        if curve.verdict.outcome is outcome:
            curves.setdefault(short_verdict(curve), []).append(curve)
    for words, those in curves.items():
        yield words if len(view.curves) == 1 else f"{words}: {curve_names(view, those)}"


def _changes(comparison: Comparison | None, judgement: Judgement) -> list[str]:
    if comparison is None or comparison.outcome is not judgement:
        return []
    return [comparison_headline(comparison).removeprefix(_INCONCLUSIVE)]


def curves_not_met(view: SweepView) -> list[CurveView]:
    """Return the curves of a sweep that keep its test from passing."""
    return [curve for curve in view.curves if curve.verdict.outcome is not Outcome.MET]


def curve_names(view: SweepView, curves: Sequence[CurveView]) -> str:
    """Return which curves of a sweep these are: "ws at wait 1 s, http at wait 1 s", "all 4 curves"."""
    if len(curves) == len(view.curves) > 1:
        return "both curves" if len(curves) == 2 else f"all {len(curves)} curves"
    names = [mode_and_wait(curve.curve) for curve in curves]
    more = len(names) - _MOST_CURVES_NAMED
    return ", ".join(names[:_MOST_CURVES_NAMED]) + (f" and {formatting.count(more)} more" if more > 0 else "")


def remedy_sentences(view: SweepView) -> list[str]:
    """Return what refused sessions and what to do about it; where nothing named a limit, how sessions failed."""
    sentences: list[str] = []
    for curve in curves_not_met(view):
        refused = [refusal_sentence(refusal) for refusal in curve.verdict.refused]
        sentences += [*refused, *filter(None, [what_to_do(curve)])] or _first_errors(curve)
    return list(dict.fromkeys(sentences))


def _first_errors(view: CurveView) -> list[str]:
    """Return the ways sessions failed in the batch that failed first."""
    batch = view.verdict.infeasible_min
    cells = [summary for summary in view.summaries if summary.errors and batch in (None, summary.batch)]
    return [f"failed: {error_sentence(error)}" for error in cells[0].errors[:3]] if cells else []
