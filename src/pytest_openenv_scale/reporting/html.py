"""`report.html`: one file that needs nothing else, the answer on top, everything a server said escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    Outcome,
    combine_outcomes,
    combine_with_checks,
)

from .content import verdicts, wording
from .content.findings import TOPICS, StudyFinding, findings
from .content.overview import CHECK_MARKS, check_name, conversation_lines, run_problems
from .content.refusals import refusal_words
from .content.study_tables import study_tables
from .content.tables import (
    Table,
    batches_table,
    check_figures_table,
    curve_remarks,
    environment_table,
    failures_table,
    proxy_hosts_table,
    targets_table,
    workloads_table,
)
from .figures import FiguresError, FigureSvg, figure_svgs
from .figures.content import SeriesStyle, series_styles

if TYPE_CHECKING:
    from jinja2 import Environment


def report_html(source: Run | Study, *, figures: Mapping[str, FigureSvg] | None = None) -> str:
    """Return the report of a run or a study as one HTML page without scripts and outside references.

    `figures` are those of the study, by default drawn here; where that fails the page says so in their place.
    """
    study = study_of(source)
    tables = study_tables(study)
    page = report_page(study, tables, findings(study, tables), series_styles(study.infrastructures))
    if figures is not None:
        return _render_page(page, figures)
    try:
        return _render_page(page, figure_svgs(study))
    except FiguresError as error:
        return _render_page(page, {}, no_figures=str(error))


def _render_page(page: ReportPage, figures: Mapping[str, FigureSvg], no_figures: str | None = None) -> str:
    from markupsafe import Markup

    # A figure is the one thing that is markup already: what it says is escaped where it is drawn.
    drawn = [(figure, Markup(figure.svg)) for figure in figures.values()]
    return _environment().get_template("report.html.j2").render(page=page, figures=drawn, no_figures=no_figures)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pytest_openenv_scale.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.globals)["zip"] = partial(zip, strict=True)
    return environment


def _printable(value: Any) -> Any:
    """Return a text without terminal escapes and control characters; markup and numbers as they are."""
    return without_escapes(value) if type(value) is str else value


@dataclass(frozen=True, slots=True)
class CheckSection:
    """One check; details are shown of those missed or inconclusive, and are in the check's file for all others."""

    name: str
    infrastructure: str
    outcome: CheckOutcome
    mark: str
    headline: str
    details: tuple[str, ...]
    remedy: str | None
    figures: Table
    conversations: tuple[tuple[str, str], ...]
    command: str | None

    @property
    def has_details(self) -> bool:
        """Whether the check is shown in full: it was missed or is inconclusive."""
        return self.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE)


def check_sections(runs: Sequence[Run]) -> tuple[CheckSection, ...]:
    """Return the checks of all runs, those that missed first."""
    order = [CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE, CheckOutcome.MET, CheckOutcome.SKIPPED]
    sections = [_check_section(check) for run in runs for check in run.checks]
    return tuple(sorted(sections, key=lambda section: order.index(section.outcome)))


def _check_section(check: CheckRecord) -> CheckSection:
    result = check.result
    return CheckSection(
        name=check_name(check),
        infrastructure=on_one_line(check.infrastructure),
        outcome=result.outcome,
        mark=CHECK_MARKS[result.outcome],
        headline=on_one_line(result.headline),
        details=tuple(map(on_one_line, result.details)),
        remedy=result.remedy,
        figures=check_figures_table(result),
        conversations=tuple(
            (on_one_line(transcript.title), "\n".join(conversation_lines(transcript)))
            for transcript in result.transcripts
        ),
        command=check.rerun,
    )


def checks_headline(sections: Sequence[CheckSection]) -> str:
    """Return how the checks came out in a few words: "2 of 12 checks missed", "all 12 checks met, 1 skipped"."""
    counts = {outcome: sum(section.outcome is outcome for section in sections) for outcome in CheckOutcome}
    asked_count = len(sections) - counts[CheckOutcome.SKIPPED]
    skipped = f", {counts[CheckOutcome.SKIPPED]} skipped" if counts[CheckOutcome.SKIPPED] else ""
    for outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        if counts[outcome]:
            return f"{counts[outcome]} of {asked_count} checks {outcome}{skipped}"
    return f"all {asked_count} checks met{skipped}" if asked_count else "every check was skipped"


_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class CurveVerdictView:
    """One curve in a line: the anchor of its section, its limits, max batch and outcome, and why."""

    anchor: str
    infrastructure: str
    facts: str
    limits: str
    max_batch: str
    per_core: str
    outcome: Outcome
    reason: str
    command: str | None

    @property
    def mark(self) -> str:
        """The outcome as a sign: ✓, ✗ or ?."""
        return wording.OUTCOME_MARKS[self.outcome]


@dataclass(frozen=True, slots=True)
class CurveSection:
    """One curve in full; `batches` is the table of its batches, whose last column is their verdicts."""

    verdict: CurveVerdictView
    test: str
    heading: str
    batches: Table
    remarks: tuple[str, ...]
    hosts: Table
    failures: Table
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run was, its environment, and the commands that repeat it and its reports."""

    run_id: str
    facts: str
    note: str | None
    command: str | None
    report: str
    environment: Table


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The whole report but for its figures."""

    headline: str
    outcome: Outcome
    counts: tuple[tuple[str, Outcome, int], ...]
    problems: tuple[str, ...]
    tests: tuple[tuple[str, tuple[CurveVerdictView, ...]], ...]
    lead: str | None
    topics: tuple[tuple[str, tuple[str, ...]], ...]
    sections: tuple[CurveSection, ...]
    tables: tuple[Table, ...]
    targets: Table
    workloads: Table
    runs: tuple[RunFacts, ...]
    period: str
    styles: Mapping[str, SeriesStyle]
    checks: tuple[CheckSection, ...] = ()

    @property
    def mark(self) -> str:
        """The outcome of the whole report as a sign: ✓, ✗ or ?."""
        return wording.OUTCOME_MARKS[self.outcome]


def report_page(
    study: Study, tables: Sequence[Table], findings: Sequence[StudyFinding], styles: Mapping[str, SeriesStyle]
) -> ReportPage:
    """Return the content of the report of a study, without its figures."""
    sections = tuple(_curve_section(curve, f"curve-{number}") for number, curve in enumerate(study.curves, start=1))
    worst_first = [Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET]
    tests = _by_test(study, sections, worst_first)
    outcomes = [section.verdict.outcome for section in sections]
    checks = check_sections(study.runs)
    return ReportPage(
        headline=_page_headline(study, checks),
        outcome=combine_with_checks(
            combine_outcomes(outcomes) if outcomes else None, (check for run in study.runs for check in run.checks)
        ),
        counts=tuple(
            (wording.OUTCOME_MARKS[outcome], outcome, outcomes.count(outcome))
            for outcome in worst_first
            if outcome in outcomes
        ),
        problems=tuple(_page_problems(study.runs)),
        tests=tests,
        lead=findings[0].text if findings else None,
        topics=tuple(
            (topic, tuple(finding.text for finding in findings if finding.kind == kind))
            for kind, topic in TOPICS.items()
            if any(finding.kind == kind for finding in findings)
        ),
        period=_period(study.runs),
        sections=sections,
        tables=tuple(filter(None, tables)),
        targets=targets_table(study.sweeps),
        workloads=workloads_table(study.sweeps),
        runs=tuple(map(_run_facts, study.runs)),
        styles=styles,
        checks=checks,
    )


def _page_headline(study: Study, checks: Sequence[CheckSection]) -> str:
    """Return the answer in one line, of curves and of checks where there are any."""
    parts = [study_headline(study)] if study.curves or not checks else []
    text = "; ".join([*parts, *([checks_headline(checks)] if checks else [])])
    return text[:1].upper() + text[1:]


def _by_test(
    study: Study, sections: Sequence[CurveSection], worst_first: Sequence[Outcome]
) -> tuple[tuple[str, tuple[CurveVerdictView, ...]], ...]:
    """Return the verdicts by test: what misses its limits stands on top, among tests and among their curves."""
    verdicts_by_test: dict[str, list[CurveVerdictView]] = {on_one_line(view.test): [] for view in study.sweeps}
    for section in sections:
        verdicts_by_test[section.test].append(section.verdict)

    def severity(verdict: CurveVerdictView) -> int:
        return worst_first.index(verdict.outcome)

    groups = [(test, tuple(sorted(verdicts, key=severity))) for test, verdicts in verdicts_by_test.items() if verdicts]
    return tuple(sorted(groups, key=lambda group: severity(group[1][0])))


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


def _curve_section(curve: StudyCurve, anchor: str) -> CurveSection:
    verdict, record = curve.verdict, curve.sweep.record
    rows = curve.points
    line = CurveVerdictView(
        anchor=anchor,
        infrastructure=curve.infrastructure,
        facts=_curve_facts(curve),
        limits=", ".join(limit.text for limit in verdict.slo.limits) or "no limit",
        max_batch=wording.max_batch_text(verdict),
        per_core=formatting.number(verdict.max_batch_per_core),
        outcome=verdict.outcome,
        reason=_reason_with_refusal(curve),
        command=wording.rerun_command(record, curve.curve.curve),
    )
    return CurveSection(
        verdict=line,
        test=on_one_line(curve.sweep.test),
        heading=wording.curve_facts(record, replace(curve.curve.curve, infrastructure=curve.infrastructure)),
        batches=batches_table(curve.curve, rows, "verdict", _batch_verdict),
        remarks=tuple(curve_remarks(curve.curve, rows)),
        hosts=proxy_hosts_table(curve.curve),
        failures=failures_table(curve.curve),
        log=tuple(wording.server_log_tail(curve.curve.summaries, _LOG_LINES)),
    )


def _batch_verdict(row: BatchPoint) -> str:
    return f"{wording.batch_mark(row)} {wording.batch_remark(row)}".rstrip()


def _curve_facts(curve: StudyCurve) -> str:
    return curve.mode if curve.wait is None else f"{curve.mode} · wait {format_number(curve.wait)} s"


def _period(runs: Sequence[Run]) -> str:
    """Return when the first and the last of these runs started (UTC)."""
    starts = [f"{run.record.started_at:%Y-%m-%d %H:%M}" for run in runs]
    return f"{min(starts)} to {max(starts)} UTC" if starts else ""


def _run_facts(run: Run) -> RunFacts:
    record = run.record
    facts = [run.status, f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"]
    if record.finished_at is not None:
        facts.append(f"took {formatting.seconds((record.finished_at - record.started_at).total_seconds())}")
    return RunFacts(
        run_id=run.run_id,
        facts=" · ".join(facts),
        note=record.note,
        command=shlex.join(record.command) if record.command else None,
        report=f"openenv-scale report {shlex.quote(f'{run.path.parent.name}/{run.path.name}')}",
        environment=environment_table(record.fingerprint),
    )
