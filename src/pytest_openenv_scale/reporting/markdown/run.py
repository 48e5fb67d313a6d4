"""`report.md` of a run or of several joined into one study, and the step summary of GitHub Actions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.reporting.content import tables as content_tables
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.overview import (
    MARKS,
    TITLES,
    check_name,
    check_tally,
    conversation,
    entries,
    figure_text,
    problems,
    run_tally,
)
from pytest_openenv_scale.reporting.content.study_tables import study_facts, tables
from pytest_openenv_scale.reporting.content.tables import StudyTable, TextTable, wait_text
from pytest_openenv_scale.reporting.content.wording import Row, chosen, rows_of
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord
from pytest_openenv_scale.verdict.sweep import CurveView

from . import block, code, comparison, table, text

_LOG_LINES = 20


def render(run: Run) -> str:
    """Return the report of a run, whole or not; everything in it comes from the run directory."""
    sections = [
        overview(run),
        checks_section(run.checks),
        *(curve_section(view.record, curve) for view in run.sweeps for curve in view.curves),
    ]
    circumstantial = (
        ("## Targets", content_tables.targets(run.sweeps)),
        ("## Plan and workload", content_tables.workloads(run.sweeps)),
        ("## Environment", content_tables.environment(run.record.fingerprint)),
    )
    sections += ["\n".join(_titled(title, found)) for title, found in circumstantial]
    sections.append(_again(run))
    return "\n".join(section for section in sections if section)


def overview(run: Run) -> str:
    """Return the head of the report: what the run is, what is wrong with it, the verdicts, the comparisons."""
    record = run.record
    when = f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is not None:
        when += f", took {formatting.seconds((record.finished_at - record.started_at).total_seconds())}"
    lines = ["# OpenEnv scaling", "", f"Run {code(run.run_id)} · {run.status} · {when} · {run_tally(run)}", ""]
    lines += [f"> {text(record.note)}", ""] if record.note else []
    lines += [f"- **{text(problem)}**" for problem in problems(run)]
    lines += [""] if problems(run) else []
    found = [
        [code(entry.test, in_table=True), *map(text, entry.cells), f"**{entry.verdict}**", text(entry.reason)]
        for entry in entries(run.sweeps)
    ]
    if found:
        heads = ["test", *TITLES, "verdict", "because"]
        lines += ["## Verdicts", "", *table(heads, found, right=("wait", "max batch", "per core")), ""]
    lines += comparison.sections(run.sweeps)
    return "\n".join([*lines, *_comparing(run)])


def _comparing(run: Run) -> list[str]:
    """Return what a run says as a study: findings, and the tables that say more than its curves do one by one."""
    study = study_of(run)
    every = tables(study)
    told = {"runs", "scaling"}
    told |= {"latency", "errors"} if len(study.curves) < 2 else set()
    told |= {"max-batch"} if len(study.waits) < 2 else set()
    lines = findings_section(study, every)
    return [*lines, *(line for found in every if found.key not in told for line in study_section(found))]


def curve_section(record: SweepRecord, view: CurveView) -> str:
    """Return the section of one curve: its verdict, table, refusals, failures, log and rerun command."""
    verdict = view.verdict
    rows = rows_of(view)
    lines = [f"## {text(wording.curve_facts(record, view.curve))}", "", code(on_one_line(record.test)), ""]
    lines += [f"**{wording.MARKS[verdict.outcome]} {text(verdict.headline)}**", ""]
    if rows:
        columns = chosen(view, rows)
        cells = zip(*([text(cell.strip()) for cell in column.texts(rows)] for column in columns), strict=True)
        heads = [column.heading for column in columns]
        body = [[*row, text(_became(view, of))] for row, of in zip(cells, rows, strict=True)]
        lines += [*table([*heads, ""], body, right=heads), ""]
    lines += [*(f"- {text(sentence)}" for sentence in content_tables.curve_remarks(view, rows)), ""]
    return "\n".join([*lines, *_hosts(view), *_failures(view), *_log(view), *_rerun(record, view)])


def _became(view: CurveView, row: Row) -> str:
    """Return what became of a batch: "✓ perfect scaling", "✗ above capacity: success 78.1 % < 95 %"."""
    rates = [summary.success_rate for summary in row.repetitions if summary.success_rate is not None]
    note = wording.scaling_note(view.verdict, row.batch, min(rates, default=None))
    return f"{row.mark} {note}{f': {row.remark}' if row.remark else ''}"


def _hosts(view: CurveView) -> list[str]:
    return _titled("Sessions per host:", content_tables.hosts(view))


def _failures(view: CurveView) -> list[str]:
    return _titled("Failed sessions:", content_tables.failures(view))


def _titled(title: str, found: TextTable) -> list[str]:
    """Return a table of plain text beneath its title; nothing where it has no rows."""
    rows = [
        [
            code(cell, in_table=True) if head in found.code else text(cell)
            for head, cell in zip(found.heads, row, strict=True)
        ]
        for row in found.rows
    ]
    return [title, "", *table(found.heads, rows, right=found.right), ""] if rows else []


def _log(view: CurveView) -> list[str]:
    tail = wording.log_of(view.summaries, _LOG_LINES)
    return ["The server's log, last lines:", "", *block("\n".join(tail)), ""] if tail else []


def _rerun(record: SweepRecord, view: CurveView) -> list[str]:
    command = wording.rerun(record, view.curve)
    return ["Measure this curve again:", "", *block(without_escapes(command), "sh"), ""] if command else []


def _again(run: Run) -> str:
    folder = shlex.quote(f"{run.path.parent.name}/{run.path.name}")
    commands = [shlex.join(run.record.command)] if run.record.command else []
    commands.append(f"openenv-scale report {folder}")
    return "\n".join(["## Again", "", "The run, and this report of it:", "", *block("\n".join(commands), "sh"), ""])


VARIABLE = "GITHUB_STEP_SUMMARY"

LIMIT_BYTES = 900_000
"""GitHub drops a summary above 1 MiB per step as a whole; other programs write into the same file."""

_ROOM_FOR_NOTICE = 300


def step_summary(run: Run, limit: int = LIMIT_BYTES) -> str:
    """Return the summary in at most `limit` bytes of UTF-8; what is left out is said."""
    head = overview(run)
    room = limit - _ROOM_FOR_NOTICE
    if _size(head) > room:
        return _whole_lines(head, room) + "\n\n*Cut here: GitHub takes no more; see `report.md`.*\n"
    sections = [curve_section(view.record, curve) for view in run.sweeps for curve in view.curves]
    kept = [head]
    for index, section in enumerate(sections):
        if sum(_size(part) + 1 for part in (*kept, section)) > room:
            left = formatting.count_of(len(sections) - index, "curve")
            kept.append(f"*{left} left out: GitHub takes no more; see `report.md`.*\n")
            break
        kept.append(section)
    return "\n".join(kept)


def append_step_summary(run: Run, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Append to the file that GITHUB_STEP_SUMMARY names; None where there is none or no room is left in it.

    Raises:
        OSError: the file cannot be written.
    """
    name = environ.get(VARIABLE)
    if not name:
        return None
    path = Path(name)
    taken = path.stat().st_size if path.exists() else 0
    room = LIMIT_BYTES - taken - 1
    if room <= 2 * _ROOM_FOR_NOTICE:
        return None
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if taken else "") + step_summary(run, room))
    return path


def _size(text: str) -> int:
    return len(text.encode())


def _whole_lines(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore").rpartition("\n")[0]


def study_markdown(study: Study) -> str:
    """Return the report of a study; what each run says in detail stands in the report of that run."""
    every = tables(study)
    sections = [*_head(study), *_verdicts(study), *findings_section(study, every)]
    for found in every:
        sections += study_section(found)
    sections += _targets(study)
    return "\n".join([*sections, *_study_again(study)])


def findings_section(study: Study, every: Sequence[StudyTable]) -> list[str]:
    """Return what the tables of a study say in sentences; nothing where that is nothing."""
    found = [f"- {text(finding.text)}" for finding in findings(study, every)]
    return ["## Findings", "", *found, ""] if found else []


def study_section(found: StudyTable) -> list[str]:
    """Return one table of a study as a section with its notes; nothing where it has no rows."""
    if not found.rows:
        return []
    rows = [[text(cell.text) for cell in row] for row in found.rows]
    notes = [f"- {text(note)}" for note in found.notes]
    lines = [f"## {text(found.title)}", "", *table(found.heads, rows, right=found.right), ""]
    return [*lines, *notes, *([""] if notes else [])]


def _head(study: Study) -> list[str]:
    said = [f"- **{text(f'{run.run_id}: {problem}')}**" for run in study.runs for problem in problems(run)]
    return ["# OpenEnv scaling study", "", study_facts(study), "", *said, *([""] if said else [])]


def _verdicts(study: Study) -> list[str]:
    rows: list[Sequence[str]] = []
    for curve in study.curves:
        verdict = curve.verdict
        outcome = f"**{wording.MARKS[verdict.outcome]} {verdict.outcome}**"
        because = on_one_line(verdict.headline).removeprefix(f"SLO {verdict.outcome}: ")
        place = (text(curve.infrastructure), curve.mode, text(wait_text(curve.wait)))
        rows.append([*place, outcome, text(because), code(curve.sweep.test, in_table=True)])
    heads = ("infrastructure", "mode", "wait", "verdict", "because", "test")
    return ["## Verdicts", "", *table(heads, rows, right=("wait",)), ""] if rows else []


def _targets(study: Study) -> list[str]:
    found = content_tables.targets(study.sweeps)
    rows = [
        [
            code(cell, in_table=True) if head in found.code else text(cell)
            for head, cell in zip(found.heads, row, strict=True)
        ]
        for row in found.rows
    ]
    return ["## Targets", "", *table(found.heads, rows, right=found.right), ""] if rows else []


def _study_again(study: Study) -> list[str]:
    folders = " ".join(shlex.quote(f"{run.path.parent.name}/{run.path.name}") for run in study.runs)
    command = f"openenv-scale report {folders} --output DIR"
    return ["## Again", "", "This report, from its runs:", "", *block(command, "sh"), ""]


def checks_section(checks: Sequence[CheckRecord]) -> str:
    """Return the section of `report.md` on checks: a table of all, and the whole of those that were not met."""
    if not checks:
        return ""
    rows = [
        [
            code(check_name(check), in_table=True),
            text(check.infrastructure),
            f"**{MARKS[check.result.outcome]} {check.result.outcome}**",
            text(check.result.headline),
        ]
        for check in checks
    ]
    lines = ["## Checks", "", text(check_tally(checks)), ""]
    lines += [*table(["check", "target", "verdict", "because"], rows), ""]
    for check in checks:
        if check.result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
            lines += _whole(check)
    return "\n".join(lines)


def _whole(check: CheckRecord) -> list[str]:
    result = check.result
    lines = [f"### {text(check_name(check))} on {text(check.infrastructure)}", ""]
    lines += [f"**{MARKS[result.outcome]} {text(result.headline)}**", ""]
    lines += [f"- {text(detail)}" for detail in result.details]
    lines += [f"- What to do: {text(result.remedy)}"] if result.remedy else []
    lines += [""] if result.details or result.remedy else []
    if result.figures:
        rows = [[code(name, in_table=True), text(figure_text(value))] for name, value in result.figures.items()]
        lines += [*table(["figure", "value"], rows, right=("value",)), ""]
    for transcript in result.transcripts:
        lines += [f"{text(transcript.title)}:", "", *block(without_escapes("\n".join(conversation(transcript)))), ""]
    if check.rerun:
        lines += ["Ask again:", "", *block(without_escapes(check.rerun), "sh"), ""]
    return lines
