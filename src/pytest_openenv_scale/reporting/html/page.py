"""The page as a whole: what stands where, given to the templates."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.reporting.content import tables, verdicts, wording
from pytest_openenv_scale.reporting.content.findings import TOPICS, findings
from pytest_openenv_scale.reporting.content.refusals import refusal_words
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.reporting.content.wording import run_problems
from pytest_openenv_scale.reporting.figures import FiguresError, FigureSvg, figure_svgs
from pytest_openenv_scale.reporting.figures.content import panel_of, series_styles
from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    Outcome,
    combine_outcomes,
    combine_with_checks,
)

if TYPE_CHECKING:
    from jinja2 import Environment


def report_html(source: Run | Study, *, figures: Mapping[str, FigureSvg] | None = None) -> str:
    """Return the report of a run or a study as one HTML page without scripts and outside references.

    `figures` are those of the study, by default drawn here; where that fails the page says so in their place.
    """
    from markupsafe import Markup

    study = study_of(source)
    drawn, no_figures = figures or {}, None
    try:
        drawn = figure_svgs(study) if figures is None else figures
    except FiguresError as error:
        no_figures = str(error)
    all_tables = study_tables(study)
    sentences = findings(study, all_tables)
    curves = [(f"curve-{number}", curve) for number, curve in enumerate(study.curves, start=1)]
    checks = sorted((check for run in study.runs for check in run.checks), key=_check_severity)
    outcomes = [curve.verdict.outcome for curve in study.curves]
    outcome = combine_outcomes(outcomes) if outcomes else None
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            headline=_page_headline(study, checks),
            outcome=combine_with_checks(outcome, checks),
            counts=[(outcome, outcomes.count(outcome)) for outcome in _WORST_FIRST if outcome in outcomes],
            problems=list(_page_problems(study.runs)),
            curves=curves,
            tests=_by_test(study, curves),
            lead=sentences[0].text if sentences else None,
            topics=[
                (topic, texts)
                for kind, topic in TOPICS.items()
                if (texts := [finding.text for finding in sentences if finding.kind == kind])
            ],
            tables=list(filter(None, all_tables)),
            styles=series_styles(study.infrastructures),
            checks=checks,
            # A figure is the one thing that is markup already: what it says is escaped where it is drawn.
            figures=[(figure, Markup(figure.svg)) for figure in drawn.values()],
            no_figures=no_figures,
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pytest_openenv_scale.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.globals).update(
        zip=partial(zip, strict=True),
        wording=wording,
        content=tables,
        join_command=shlex.join,
        number=formatting.number,
        one_line=on_one_line,
        load=panel_of,
        reason=_reason_with_refusal,
        batch_verdict=_batch_verdict,
        period=_period,
    )
    return environment


def _printable(value: Any) -> Any:
    """Return a text without terminal escapes and control characters; markup and numbers as they are."""
    return without_escapes(value) if type(value) is str else value


_AnchoredCurve = tuple[str, StudyCurve]
"""A curve after the anchor of its section."""

_WORST_FIRST = (Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET)


def _check_severity(check: CheckRecord) -> int:
    return [*map(str, _WORST_FIRST), "skipped"].index(check.result.outcome)


def checks_headline(checks: Sequence[CheckRecord]) -> str:
    """Return how the checks came out in a few words: "2 of 12 checks missed", "all 12 checks met, 1 skipped"."""
    counts = Counter(check.result.outcome for check in checks)
    asked_count = len(checks) - counts[CheckOutcome.SKIPPED]
    skipped = f", {counts[CheckOutcome.SKIPPED]} skipped" if counts[CheckOutcome.SKIPPED] else ""
    for outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        if counts[outcome]:
            return f"{counts[outcome]} of {asked_count} checks {outcome}{skipped}"
    return f"all {asked_count} checks met{skipped}" if asked_count else "every check was skipped"


def _page_headline(study: Study, checks: Sequence[CheckRecord]) -> str:
    """Return the answer in one line, of curves and of checks where there are any."""
    parts = [study_headline(study)] if study.curves or not checks else []
    text = "; ".join([*parts, *([checks_headline(checks)] if checks else [])])
    return text[:1].upper() + text[1:]


def _by_test(study: Study, curves: Sequence[_AnchoredCurve]) -> list[tuple[str, list[_AnchoredCurve]]]:
    """Return the curves by test: what misses its limits stands on top, among tests and among their curves."""

    def severity(anchored: _AnchoredCurve) -> int:
        return _WORST_FIRST.index(anchored[1].verdict.outcome)

    curves_by_test: dict[str, list[_AnchoredCurve]] = {view.test: [] for view in study.sweeps}
    for anchored in sorted(curves, key=severity):
        curves_by_test[anchored[1].sweep.test].append(anchored)
    groups = [(test, group) for test, group in curves_by_test.items() if group]
    return sorted(groups, key=lambda group: severity(group[1][0]))


def study_headline(study: Study) -> str:
    """Return the answer in one line: how the curves came out, or what the only one said."""
    curves = study.curves
    if not any(curve.curve.summaries for curve in curves):
        return "Nothing was measured"
    if len(curves) == 1:
        outcome = curves[0].verdict.outcome
        return f"{outcome.capitalize()}: {_headline_reason(curves[0])}"
    missed, doubtful, met = (
        sum(curve.verdict.outcome is outcome for curve in curves)
        for outcome in (Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET)
    )
    has_limits = any(curve.verdict.slo.limits for curve in curves)
    what = "what was asked" if has_limits else "any batch"
    verbs = ("meets", "meet", "misses", "miss") if has_limits else ("holds", "hold", "does not hold", "do not hold")
    if missed:
        inconclusive = f", {doubtful:,} inconclusive" if doubtful else ""
        return f"{_curves_phrase(missed, len(curves), *verbs[2:])} {what}{inconclusive}"
    if doubtful:
        return f"{_curves_phrase(doubtful, len(curves), 'is', 'are')} inconclusive"
    return f"All {met:,} curves meet what was asked" if has_limits else f"{met:,} curves measured, no limit asked for"


def _curves_phrase(count: int, total: int, singular: str, plural: str) -> str:
    """Return "1 of 5 curves misses", "2 of 5 curves miss" or "All 5 curves miss"."""
    if count == total:
        return f"All {count:,} curves {plural}"
    return f"{count:,} of {total:,} curves {singular if count == 1 else plural}"


def _page_problems(runs: Sequence[Run]) -> Iterable[str]:
    if not runs:
        yield "there is no run"
    for run in runs:
        name = f"{run.run_id}: " if len(runs) > 1 else ""
        yield from (f"{name}{problem}" for problem in run_problems(run))


def _headline_reason(curve: StudyCurve) -> str:
    return on_one_line(verdicts.verdict_reason(curve.curve))


def _reason_with_refusal(curve: StudyCurve) -> str:
    """Return the reason of a verdict and, where limits are missed, what refused the sessions."""
    refused = curve.verdict.refused if curve.verdict.outcome is Outcome.MISSED else ()
    return "; ".join([_headline_reason(curve), *(on_one_line(refusal_words(refusal)[0]) for refusal in refused[:1])])


def _batch_verdict(row: BatchPoint) -> str:
    return f"{wording.batch_mark(row)} {wording.batch_remark(row)}".rstrip()


def _period(runs: Sequence[Run]) -> str:
    """Return when the first and the last of these runs started (UTC)."""
    starts = [f"{run.record.started_at:%Y-%m-%d %H:%M}" for run in runs]
    return f"{min(starts)} to {max(starts)} UTC" if starts else ""
