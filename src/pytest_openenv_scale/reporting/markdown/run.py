"""`report.md` of a run or of several joined into one study, and the step summary of GitHub Actions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve, probe_points, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.reporting.content import verdicts, wording
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.study_tables import study_facts, study_tables
from pytest_openenv_scale.reporting.content.tables import (
    batches_table,
    check_figures_table,
    check_windows_table,
    checks_table,
    curve_remarks,
    environment_table,
    failures_table,
    proxy_hosts_table,
    samples_table,
    targets_table,
    verdicts_table,
    windows_tables,
    workloads_table,
)
from pytest_openenv_scale.reporting.content.wording import (
    CHECK_MARKS,
    check_name,
    check_tally,
    conversation_lines,
    report_command,
    run_problems,
    run_tally,
    run_times,
)
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord
from pytest_openenv_scale.verdict.sweep import CurveView

from . import code_block, comparison, escape, inline_code, table_lines, table_section

_LOG_LINES = 20


def report_markdown(source: Run | Study) -> str:
    """Return the report of a study, whole or not; what several runs say in detail stands in the report of each."""
    study = study_of(source)
    run = study.runs[0] if len(study.runs) == 1 else None
    sections = [overview_section(study)]
    if run is not None:
        sections += [checks_section(run.checks), *map(curve_section, study.curves)]
    circumstantial = [targets_table(study.sweeps)]
    if run is not None:
        circumstantial += [
            workloads_table(study.sweeps),
            samples_table(study.sweeps),
            environment_table(run.record.fingerprint),
        ]
    sections += ["\n".join(table_section(table)) for table in circumstantial]
    return "\n".join(section for section in [*sections, _repeat_section(study)] if section)


def overview_section(study: Study) -> str:
    """Return the head of the report: what was run, what is wrong with it, verdicts, comparisons, findings, tables."""
    run = study.runs[0] if len(study.runs) == 1 else None
    lines = _run_head(run) if run else ["# OpenEnv scaling study", "", study_facts(study), ""]
    problems = [
        f"- **{escape(problem if run else f'{other.run_id}: {problem}')}**"
        for other in study.runs
        for problem in run_problems(other)
    ]
    lines += [*problems, *([""] if problems else [])]
    lines += table_section(verdicts_table((curve.infrastructure, curve.sweep, curve.curve) for curve in study.curves))
    lines += comparison.comparison_section(run.sweeps) if run else []
    tables = study_tables(study)
    sentences = [f"- {escape(finding.text)}" for finding in findings(study, tables)]
    lines += ["## Findings", "", *sentences, ""] if sentences else []
    left_out = _repeated_tables(study) if run else set[str]()
    return "\n".join(
        [*lines, *(line for table in tables if table.key not in left_out for line in table_section(table))]
    )


def _run_head(run: Run) -> list[str]:
    facts = [f"Run {inline_code(run.run_id)}", run.status, ", ".join(run_times(run.record)), run_tally(run)]
    note = [f"> {escape(run.record.note)}", ""] if run.record.note else []
    return ["# OpenEnv scaling", "", " · ".join(facts), "", *note]


def _repeated_tables(study: Study) -> set[str]:
    """Return the keys of the tables that repeat the sections of the curves of a run."""
    left_out = {"runs", "scaling"}
    left_out |= {"latency", "errors"} if len(study.curves) < 2 else set()
    return left_out | ({"max-batch"} if len(study.waits) < 2 else set())


def curve_section(curve: StudyCurve) -> str:
    """Return the section of one curve: its verdict, table, refusals, failures, log and rerun command."""
    view, record, rows = curve.curve, curve.sweep.record, probe_points(curve.curve)
    lines = [f"## {escape(wording.curve_heading(curve))}", "", inline_code(on_one_line(record.test)), ""]
    lines += [f"**{wording.OUTCOME_MARKS[view.verdict.outcome]} {escape(verdicts.headline(view))}**", ""]
    lines += table_lines(batches_table(view, rows, "verdict", partial(_batch_remark, view)))
    lines += [*(f"- {escape(sentence)}" for sentence in curve_remarks(view, rows)), ""]
    for windows in windows_tables(curve):
        lines += table_section(windows, f"{escape(windows.title)}:")
    lines += table_section(proxy_hosts_table(view), "Sessions per host:")
    lines += table_section(failures_table(view), "Failed sessions:")
    log = "\n".join(wording.server_log_tail(view.summaries, _LOG_LINES))
    lines += _code_section("The server's log, last lines:", log)
    return "\n".join(
        lines + _code_section("Measure this curve again:", wording.rerun_command(record, view.curve), "sh")
    )


def _code_section(heading: str, code: str | None, language: str = "") -> list[str]:
    """Return code below a heading; nothing where there is none."""
    return [heading, "", *code_block(without_escapes(code), language), ""] if code else []


def _batch_remark(view: CurveView, row: BatchPoint) -> str:
    """Return what became of a batch: "✓ all succeed", "✗ above capacity: success 78.1 % < 95 %"."""
    note, remark = wording.scaling_note(view.verdict, row.batch, row.success), wording.batch_remark(row)
    if view.verdict.search is not None and row.passed and (cell := view.verdict.cell(row.batch)) and not cell.passed:
        note = "passes in a part of its repetitions"
    return f"{wording.batch_mark(row)} {note}{f': {remark}' if remark else ''}"


def _repeat_section(study: Study) -> str:
    command = report_command(*study.runs)
    lines = ["## Again", "", "This report, from its runs:", "", *code_block(f"{command} --output DIR", "sh"), ""]
    if len(study.runs) == 1:
        (run,) = study.runs
        commands = [*([shlex.join(run.record.command)] if run.record.command else []), command]
        lines = ["## Again", "", "The run, and this report of it:", "", *code_block("\n".join(commands), "sh"), ""]
    return "\n".join(lines)


SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

SUMMARY_BYTES = 900_000
"""GitHub drops a summary above 1 MiB per step as a whole; other programs write into the same file."""

_ROOM_FOR_NOTICE = 300


def step_summary(run: Run, limit: int = SUMMARY_BYTES) -> str:
    """Return the summary in at most `limit` bytes of UTF-8; its last line counts the curves left out."""
    study = study_of(run)
    head = overview_section(study)
    room = limit - _ROOM_FOR_NOTICE
    if _byte_size(head) > room:
        return _whole_lines(head, room) + "\n\n*Cut here: GitHub takes no more; see `report.md`.*\n"
    sections = list(map(curve_section, study.curves))
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


def checks_section(checks: Sequence[CheckRecord]) -> str:
    """Return the section of `report.md` on checks: a table of all, and the details of those missed or inconclusive."""
    if not checks:
        return ""
    lines = ["## Checks", "", escape(check_tally(checks)), "", *table_lines(checks_table(checks))]
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
    lines += table_section(check_windows_table(result), "Over time:")
    for transcript in result.transcripts:
        lines += _code_section(f"{escape(transcript.title)}:", "\n".join(conversation_lines(transcript)))
    return lines + _code_section("Ask again:", check.rerun, "sh")
