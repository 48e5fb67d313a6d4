"""`report.html`: one file that needs nothing else, the answer on top, everything a server said escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, StudyCurve, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord, Outcome, overall, overall_with_checks

from .content import tables as content_tables
from .content import wording
from .content.findings import TOPICS, StudyFinding, findings
from .content.overview import MARKS, check_name, conversation, figure_text, problems
from .content.study_tables import tables
from .content.tables import StudyTable, TextTable
from .content.wording import chosen, rows_of
from .figures import FiguresError, FigureSvg, figure_svgs
from .figures.content import SeriesStyle, series_styles

if TYPE_CHECKING:
    from jinja2 import Environment


def render(what: Run | Study, *, figures: Mapping[str, FigureSvg] | None = None) -> str:
    """Return the report of a run or a study as one HTML page without scripts and outside references.

    `figures` are those of the study, by default drawn here; where that fails the page says so in their place.
    """
    study = study_of(what)
    shown = tables(study)
    page = page_of(study, shown, findings(study, shown), series_styles(study.infrastructures))
    if figures is not None:
        return _fill(page, figures)
    try:
        return _fill(page, figure_svgs(study))
    except FiguresError as error:
        return _fill(page, {}, no_figures=str(error))


def _fill(page: ReportPage, figures: Mapping[str, FigureSvg], no_figures: str | None = None) -> str:
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
    """One check; what is not shown of one that was met is in its file in the run."""

    name: str
    infrastructure: str
    outcome: CheckOutcome
    mark: str
    headline: str
    details: tuple[str, ...]
    remedy: str | None
    figures: TextTable
    conversations: tuple[tuple[str, str], ...]
    command: str | None

    @property
    def opens(self) -> bool:
        """Whether there is more to show than a line."""
        return self.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE)


def check_sections(runs: Sequence[Run]) -> tuple[CheckSection, ...]:
    """Return the checks of all runs, those that missed first."""
    order = [CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE, CheckOutcome.MET, CheckOutcome.SKIPPED]
    found = [_check_section(check) for run in runs for check in run.checks]
    return tuple(sorted(found, key=lambda section: order.index(section.outcome)))


def _check_section(check: CheckRecord) -> CheckSection:
    result = check.result
    figures = TextTable(
        ("figure", "value"),
        tuple((name, figure_text(value)) for name, value in result.figures.items()),
        frozenset({"value"}),
        frozenset({"figure"}),
    )
    return CheckSection(
        name=check_name(check),
        infrastructure=on_one_line(check.infrastructure),
        outcome=result.outcome,
        mark=MARKS[result.outcome],
        headline=on_one_line(result.headline),
        details=tuple(map(on_one_line, result.details)),
        remedy=result.remedy,
        figures=figures,
        conversations=tuple((on_one_line(each.title), "\n".join(conversation(each))) for each in result.transcripts),
        command=check.rerun,
    )


def checks_headline(sections: Sequence[CheckSection]) -> str:
    """Return how the checks came out in a few words: "2 of 12 checks missed", "all 12 checks met, 1 skipped"."""
    counts = {outcome: sum(section.outcome is outcome for section in sections) for outcome in CheckOutcome}
    asked = len(sections) - counts[CheckOutcome.SKIPPED]
    skipped = f", {counts[CheckOutcome.SKIPPED]} skipped" if counts[CheckOutcome.SKIPPED] else ""
    for outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        if counts[outcome]:
            return f"{counts[outcome]} of {asked} checks {outcome}{skipped}"
    return f"all {asked} checks met{skipped}" if asked else "every check was skipped"


_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class CurveVerdictView:
    """One curve in a line: where its section is, what was asked, what came out and why."""

    anchor: str
    infrastructure: str
    facts: str
    asked: str
    max_batch: str
    per_core: str
    outcome: Outcome
    reason: str
    command: str | None

    @property
    def mark(self) -> str:
        """The outcome as a sign: ✓, ✗ or ?."""
        return wording.MARKS[self.outcome]


@dataclass(frozen=True, slots=True)
class Section:
    """One curve in full; `sessions` is the table of its batches, the last column their remarks."""

    verdict: CurveVerdictView
    test: str
    heading: str
    batches: TextTable
    remarks: tuple[str, ...]
    hosts: TextTable
    failures: TextTable
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a run comes from and what repeats it."""

    run_id: str
    facts: str
    note: str | None
    command: str | None
    report: str
    environment: TextTable


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
    sections: tuple[Section, ...]
    tables: tuple[StudyTable, ...]
    targets: TextTable
    workloads: TextTable
    runs: tuple[RunFacts, ...]
    period: str
    looks: Mapping[str, SeriesStyle]
    checks: tuple[CheckSection, ...] = ()

    @property
    def mark(self) -> str:
        """The outcome of it all as a sign."""
        return wording.MARKS[self.outcome]


def page_of(
    study: Study, tables: Sequence[StudyTable], findings: Sequence[StudyFinding], looks: Mapping[str, SeriesStyle]
) -> ReportPage:
    """Put the report of a study together."""
    sections = tuple(_section(curve, f"curve-{number}") for number, curve in enumerate(study.curves, start=1))
    worst_first = [Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET]
    tests = _by_test(study, sections, worst_first)
    outcomes = [section.verdict.outcome for section in sections]
    checks = check_sections(study.runs)
    return ReportPage(
        headline=_headline(study, checks),
        outcome=overall_with_checks(
            overall(outcomes) if outcomes else None, (check for run in study.runs for check in run.checks)
        ),
        counts=tuple(
            (wording.MARKS[outcome], outcome, outcomes.count(outcome)) for outcome in worst_first if outcome in outcomes
        ),
        problems=tuple(_problems(study.runs)),
        tests=tests,
        lead=findings[0].text if findings else None,
        topics=tuple(
            (topic, tuple(finding.text for finding in findings if finding.kind == kind))
            for kind, topic in TOPICS.items()
            if any(finding.kind == kind for finding in findings)
        ),
        period=_period(study.runs),
        sections=sections,
        tables=tuple(table for table in tables if table.rows),
        targets=content_tables.targets(study.sweeps),
        workloads=content_tables.workloads(study.sweeps),
        runs=tuple(map(_run_facts, study.runs)),
        looks=looks,
        checks=checks,
    )


def _headline(study: Study, checks: Sequence[CheckSection]) -> str:
    """Return the answer in one line, of curves and of checks where there are any."""
    parts = [headline(study)] if study.curves or not checks else []
    text = "; ".join([*parts, *([checks_headline(checks)] if checks else [])])
    return text[:1].upper() + text[1:]


def _by_test(
    study: Study, sections: Sequence[Section], worst_first: Sequence[Outcome]
) -> tuple[tuple[str, tuple[CurveVerdictView, ...]], ...]:
    """Return the verdicts by test: what misses its limits stands on top, among tests and among their curves."""
    found: dict[str, list[CurveVerdictView]] = {on_one_line(view.test): [] for view in study.sweeps}
    for section in sections:
        found[section.test].append(section.verdict)

    def place(verdict: CurveVerdictView) -> int:
        return worst_first.index(verdict.outcome)

    groups = [(test, tuple(sorted(verdicts, key=place))) for test, verdicts in found.items() if verdicts]
    return tuple(sorted(groups, key=lambda group: place(group[1][0])))


def headline(study: Study) -> str:
    """Return the answer in one line: how the curves came out, or what the only one said."""
    curves = study.curves
    if not any(curve.curve.summaries for curve in curves):
        return "Nothing was measured"
    if len(curves) == 1:
        outcome = curves[0].verdict.outcome
        return f"{outcome.capitalize()}: {_reason(curves[0])}"
    missed, doubtful, met = (
        sum(curve.verdict.outcome is outcome for curve in curves)
        for outcome in (Outcome.MISSED, Outcome.INCONCLUSIVE, Outcome.MET)
    )
    asked = any(curve.verdict.slo.limits for curve in curves)
    what = "what was asked" if asked else "any batch"
    verbs = ("meets", "meet", "misses", "miss") if asked else ("holds", "hold", "does not hold", "do not hold")
    if missed:
        return f"{_of(missed, len(curves), *verbs[2:])} {what}{f', {doubtful:,} inconclusive' if doubtful else ''}"
    if doubtful:
        return f"{_of(doubtful, len(curves), 'is', 'are')} inconclusive"
    return f"All {met:,} curves meet what was asked" if asked else f"{met:,} curves measured, no limit asked for"


def _of(some: int, all_of_them: int, one: str, several: str) -> str:
    """Return "1 of 5 curves misses", "2 of 5 curves miss" or "All 5 curves miss"."""
    if some == all_of_them:
        return f"All {some:,} curves {several}"
    return f"{some:,} of {all_of_them:,} curves {one if some == 1 else several}"


def _problems(runs: Sequence[Run]) -> Iterable[str]:
    if not runs:
        yield "there is no run"
    for run in runs:
        name = f"{run.run_id}: " if len(runs) > 1 else ""
        yield from (f"{name}{problem}" for problem in problems(run))


def _reason(curve: StudyCurve) -> str:
    return on_one_line(curve.verdict.headline).removeprefix(f"SLO {curve.verdict.outcome}: ")


def _why(of: StudyCurve) -> str:
    """Return the reason of a verdict and, where limits are missed, what refused the sessions."""
    refused = of.verdict.refused if of.verdict.outcome is Outcome.MISSED else ()
    return "; ".join([_reason(of), *(on_one_line(found.text) for found in refused[:1])])


def _section(of: StudyCurve, anchor: str) -> Section:
    verdict, record = of.verdict, of.sweep.record
    rows = rows_of(of.curve)
    columns = chosen(of.curve, rows) if rows else []
    texts = zip(*(column.texts(rows) for column in columns), strict=True)
    heads = [column.heading for column in columns]
    batches = TextTable(
        (*heads, "verdict"),
        tuple(
            (*map(str.strip, cells), f"{row.mark} {row.remark}".strip()) for row, cells in zip(rows, texts, strict=True)
        ),
        frozenset(heads),
    )
    line = CurveVerdictView(
        anchor=anchor,
        infrastructure=of.infrastructure,
        facts=_facts(of),
        asked=", ".join(limit.text for limit in verdict.slo.limits) or "no limit",
        max_batch=wording.max_batch(verdict),
        per_core=formatting.number(verdict.max_batch_per_core),
        outcome=verdict.outcome,
        reason=_why(of),
        command=wording.rerun(record, of.curve.curve),
    )
    return Section(
        verdict=line,
        test=on_one_line(of.sweep.test),
        heading=wording.curve_facts(record, replace(of.curve.curve, infrastructure=of.infrastructure)),
        batches=batches,
        remarks=tuple(content_tables.curve_remarks(of.curve, rows)),
        hosts=content_tables.hosts(of.curve),
        failures=content_tables.failures(of.curve),
        log=tuple(wording.log_of(of.curve.summaries, _LOG_LINES)),
    )


def _facts(of: StudyCurve) -> str:
    return of.mode if of.wait is None else f"{of.mode} · wait {format_number(of.wait)} s"


def _period(runs: Sequence[Run]) -> str:
    """Return from when to when runs were made."""
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
        environment=content_tables.environment(record.fingerprint),
    )
