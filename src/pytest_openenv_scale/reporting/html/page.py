"""The page as a whole: what stands where, given to the templates."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content import tables, wording
from pytest_openenv_scale.reporting.content.findings import TOPICS, findings
from pytest_openenv_scale.reporting.content.headlines import (
    STATE_MARKS,
    WORST_FIRST,
    curve_state,
    page_headline,
    reason_with_refusal,
    study_state,
)
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.reporting.content.wording import run_problems
from pytest_openenv_scale.reporting.figures import FiguresError, FigureSvg, figure_svgs
from pytest_openenv_scale.reporting.figures.content import series_styles
from pytest_openenv_scale.reporting.templating import template_environment
from pytest_openenv_scale.results.outcome import CheckRecord

from .columns import WIDTHS, fit_columns

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
    states = [curve_state(curve.verdict) for curve in study.curves]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            headline=page_headline(study, checks),
            state=study_state(study, checks),
            counts=[(state, states.count(state)) for state in WORST_FIRST if state in states],
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
    return template_environment(
        "pytest_openenv_scale.reporting.html",
        zip=partial(zip, strict=True),
        fit_columns=fit_columns,
        fitted_widths=WIDTHS,
        wording=wording,
        content=tables,
        join_command=shlex.join,
        number=formatting.number,
        with_units_kept=formatting.with_units_kept,
        one_line=on_one_line,
        load=_load,
        reason=reason_with_refusal,
        state_of=curve_state,
        state_marks=STATE_MARKS,
        batch_verdict=_batch_verdict,
        period=_period,
    )


_AnchoredCurve = tuple[str, StudyCurve]
"""A curve after the anchor of its section."""


def _check_severity(check: CheckRecord) -> int:
    return [*WORST_FIRST, "skipped"].index(check.result.outcome)


def _by_test(study: Study, curves: Sequence[_AnchoredCurve]) -> list[tuple[str, list[_AnchoredCurve]]]:
    """Return the curves by test: what misses its limits stands on top, among tests and among their curves."""

    def severity(anchored: _AnchoredCurve) -> int:
        return WORST_FIRST.index(curve_state(anchored[1].verdict))

    curves_by_test: dict[str, list[_AnchoredCurve]] = {view.test: [] for view in study.sweeps}
    for anchored in sorted(curves, key=severity):
        curves_by_test[anchored[1].sweep.test].append(anchored)
    groups = [(test, group) for test, group in curves_by_test.items() if group]
    return sorted(groups, key=lambda group: severity(group[1][0]))


def _page_problems(runs: Sequence[Run]) -> Iterable[str]:
    if not runs:
        yield "there is no run"
    for run in runs:
        name = f"{run.run_id}: " if len(runs) > 1 else ""
        yield from (f"{name}{problem}" for problem in run_problems(run))


def _batch_verdict(row: BatchPoint) -> str:
    return formatting.with_units_kept(f"{wording.batch_mark(row)} {wording.batch_remark(row)}".rstrip())


def _load(curve: StudyCurve) -> str:
    return " · ".join(wording.load_words(curve.curve.curve))


def _period(runs: Sequence[Run]) -> str:
    """Return when the first and the last of these runs started (UTC)."""
    starts = [f"{run.record.started_at:%Y-%m-%d %H:%M}" for run in runs]
    return f"{min(starts)} to {max(starts)} UTC" if starts else ""
