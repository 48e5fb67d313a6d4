"""`report.md` of a run or of several joined into one study, and the step summary of GitHub Actions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, Study, batch_points, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.reporting.content import verdicts, wording
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.overview import (
    CHECK_MARKS,
    ENTRY_HEADS,
    ENTRY_RIGHT,
    check_name,
    check_tally,
    conversation_lines,
    curve_entries,
    run_problems,
    run_tally,
)
from pytest_openenv_scale.reporting.content.study_tables import study_facts, study_tables
from pytest_openenv_scale.reporting.content.tables import (
    Table,
    batches_table,
    check_figures_table,
    curve_remarks,
    environment_table,
    failures_table,
    proxy_hosts_table,
    targets_table,
    wait_text,
    workloads_table,
)
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord
from pytest_openenv_scale.verdict.sweep import CurveView

from . import code_block, comparison, escape, inline_code, markdown_table, table_lines, table_section

_LOG_LINES = 20


def run_markdown(run: Run) -> str:
    """Return the report of a run, whole or not; everything in it comes from the run directory."""
    sections = [
        overview_section(run),
        checks_section(run.checks),
        *(curve_section(view.record, curve) for view in run.sweeps for curve in view.curves),
    ]
    circumstantial = targets_table(run.sweeps), workloads_table(run.sweeps), environment_table(run.record.fingerprint)
    sections += ["\n".join(table_section(table)) for table in circumstantial]
    sections.append(_repeat_section(run))
    return "\n".join(section for section in sections if section)


def overview_section(run: Run) -> str:
    """Return the head of the report: what the run is, what is wrong with it, the verdicts, the comparisons."""
    record = run.record
    when = f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is not None:
        when += f", took {formatting.seconds((record.finished_at - record.started_at).total_seconds())}"
    lines = ["# OpenEnv scaling", "", f"Run {inline_code(run.run_id)} · {run.status} · {when} · {run_tally(run)}", ""]
    lines += [f"> {escape(record.note)}", ""] if record.note else []
    lines += [f"- **{escape(problem)}**" for problem in run_problems(run)]
    lines += [""] if run_problems(run) else []
    rows = [
        [
            inline_code(entry.test, in_table=True),
            *map(escape, entry.cells),
            f"**{entry.verdict}**",
            escape(entry.reason),
        ]
        for entry in curve_entries(run.sweeps)
    ]
    if rows:
        heads = ["test", *ENTRY_HEADS, "verdict", "because"]
        lines += ["## Verdicts", "", *markdown_table(heads, rows, right=ENTRY_RIGHT), ""]
    lines += comparison.comparison_section(run.sweeps)
    return "\n".join([*lines, *_study_sections(run)])


def _study_sections(run: Run) -> list[str]:
    """Return the findings and study tables of a run, without tables that repeat the sections of its curves."""
    study = study_of(run)
    all_tables = study_tables(study)
    left_out = {"runs", "scaling"}
    left_out |= {"latency", "errors"} if len(study.curves) < 2 else set()
    left_out |= {"max-batch"} if len(study.waits) < 2 else set()
    lines = findings_section(study, all_tables)
    return [*lines, *(line for table in all_tables if table.key not in left_out for line in table_section(table))]


def curve_section(record: SweepRecord, view: CurveView) -> str:
    """Return the section of one curve: its verdict, table, refusals, failures, log and rerun command."""
    verdict = view.verdict
    rows = batch_points(view)
    lines = [f"## {escape(wording.curve_facts(record, view.curve))}", "", inline_code(on_one_line(record.test)), ""]
    lines += [f"**{wording.OUTCOME_MARKS[verdict.outcome]} {escape(verdicts.headline(view))}**", ""]
    lines += table_lines(batches_table(view, rows, "", partial(_batch_remark, view)))
    lines += [*(f"- {escape(sentence)}" for sentence in curve_remarks(view, rows)), ""]
    lines += table_section(proxy_hosts_table(view), "Sessions per host:")
    lines += table_section(failures_table(view), "Failed sessions:")
    return "\n".join([*lines, *_log_section(view), *_rerun_section(record, view)])


def _batch_remark(view: CurveView, row: BatchPoint) -> str:
    """Return what became of a batch: "✓ perfect scaling", "✗ above capacity: success 78.1 % < 95 %"."""
    note, remark = wording.scaling_note(view.verdict, row.batch, row.success), wording.batch_remark(row)
    return f"{wording.batch_mark(row)} {note}{f': {remark}' if remark else ''}"


def _log_section(view: CurveView) -> list[str]:
    tail = wording.server_log_tail(view.summaries, _LOG_LINES)
    return ["The server's log, last lines:", "", *code_block("\n".join(tail)), ""] if tail else []


def _rerun_section(record: SweepRecord, view: CurveView) -> list[str]:
    command = wording.rerun_command(record, view.curve)
    return ["Measure this curve again:", "", *code_block(without_escapes(command), "sh"), ""] if command else []


def _repeat_section(run: Run) -> str:
    folder = shlex.quote(f"{run.path.parent.name}/{run.path.name}")
    commands = [shlex.join(run.record.command)] if run.record.command else []
    commands.append(f"openenv-scale report {folder}")
    return "\n".join(
        ["## Again", "", "The run, and this report of it:", "", *code_block("\n".join(commands), "sh"), ""]
    )


SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

SUMMARY_BYTES = 900_000
"""GitHub drops a summary above 1 MiB per step as a whole; other programs write into the same file."""

_ROOM_FOR_NOTICE = 300


def step_summary(run: Run, limit: int = SUMMARY_BYTES) -> str:
    """Return the summary in at most `limit` bytes of UTF-8; its last line counts the curves left out."""
    head = overview_section(run)
    room = limit - _ROOM_FOR_NOTICE
    if _byte_size(head) > room:
        return _whole_lines(head, room) + "\n\n*Cut here: GitHub takes no more; see `report.md`.*\n"
    sections = [curve_section(view.record, curve) for view in run.sweeps for curve in view.curves]
    parts = [head]
    for index, section in enumerate(sections):
        if sum(_byte_size(part) + 1 for part in (*parts, section)) > room:
            left_out = formatting.count_of(len(sections) - index, "curve")
            parts.append(f"*{left_out} left out: GitHub takes no more; see `report.md`.*\n")
            break
        parts.append(section)
    return "\n".join(parts)


def append_step_summary(run: Run, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Append to the file that GITHUB_STEP_SUMMARY names; None where there is none or no room is left in it.

    Raises:
        OSError: the file cannot be written.
    """
    name = environ.get(SUMMARY_VARIABLE)
    if not name:
        return None
    path = Path(name)
    used = path.stat().st_size if path.exists() else 0
    room = SUMMARY_BYTES - used - 1
    if room <= 2 * _ROOM_FOR_NOTICE:
        return None
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if used else "") + step_summary(run, room))
    return path


def _byte_size(text: str) -> int:
    return len(text.encode())


def _whole_lines(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore").rpartition("\n")[0]


def study_markdown(study: Study) -> str:
    """Return the report of a study; what each run says in detail stands in the report of that run."""
    all_tables = study_tables(study)
    sections = [*_study_head(study), *_study_verdicts(study), *findings_section(study, all_tables)]
    for table in all_tables:
        sections += table_section(table)
    sections += table_section(targets_table(study.sweeps))
    return "\n".join([*sections, *_study_repeat_section(study)])


def findings_section(study: Study, all_tables: Sequence[Table]) -> list[str]:
    """Return what the tables of a study say in sentences; nothing where there are no findings."""
    sentences = [f"- {escape(finding.text)}" for finding in findings(study, all_tables)]
    return ["## Findings", "", *sentences, ""] if sentences else []


def _study_head(study: Study) -> list[str]:
    problem_lines = [
        f"- **{escape(f'{run.run_id}: {problem}')}**" for run in study.runs for problem in run_problems(run)
    ]
    return ["# OpenEnv scaling study", "", study_facts(study), "", *problem_lines, *([""] if problem_lines else [])]


def _study_verdicts(study: Study) -> list[str]:
    rows: list[Sequence[str]] = []
    for curve in study.curves:
        verdict = curve.verdict
        outcome = f"**{wording.OUTCOME_MARKS[verdict.outcome]} {verdict.outcome}**"
        because = on_one_line(verdicts.verdict_reason(curve.curve))
        key_cells = (escape(curve.infrastructure), curve.mode, escape(wait_text(curve.wait)))
        rows.append([*key_cells, outcome, escape(because), inline_code(curve.sweep.test, in_table=True)])
    heads = ("infrastructure", "mode", "wait", "verdict", "because", "test")
    return ["## Verdicts", "", *markdown_table(heads, rows, right=("wait",)), ""] if rows else []


def _study_repeat_section(study: Study) -> list[str]:
    folders = " ".join(shlex.quote(f"{run.path.parent.name}/{run.path.name}") for run in study.runs)
    command = f"openenv-scale report {folders} --output DIR"
    return ["## Again", "", "This report, from its runs:", "", *code_block(command, "sh"), ""]


def checks_section(checks: Sequence[CheckRecord]) -> str:
    """Return the section of `report.md` on checks: a table of all, and the details of those missed or inconclusive."""
    if not checks:
        return ""
    rows = [
        [
            inline_code(check_name(check), in_table=True),
            escape(check.infrastructure),
            f"**{CHECK_MARKS[check.result.outcome]} {check.result.outcome}**",
            escape(check.result.headline),
        ]
        for check in checks
    ]
    lines = ["## Checks", "", escape(check_tally(checks)), ""]
    lines += [*markdown_table(["check", "target", "verdict", "because"], rows), ""]
    for check in checks:
        if check.result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
            lines += _check_details(check)
    return "\n".join(lines)


def _check_details(check: CheckRecord) -> list[str]:
    result = check.result
    lines = [f"### {escape(check_name(check))} on {escape(check.infrastructure)}", ""]
    lines += [f"**{CHECK_MARKS[result.outcome]} {escape(result.headline)}**", ""]
    lines += [f"- {escape(detail)}" for detail in result.details]
    lines += [f"- What to do: {escape(result.remedy)}"] if result.remedy else []
    lines += [""] if result.details or result.remedy else []
    lines += table_lines(check_figures_table(result))
    for transcript in result.transcripts:
        lines += [
            f"{escape(transcript.title)}:",
            "",
            *code_block(without_escapes("\n".join(conversation_lines(transcript)))),
            "",
        ]
    if check.rerun:
        lines += ["Ask again:", "", *code_block(without_escapes(check.rerun), "sh"), ""]
    return lines
