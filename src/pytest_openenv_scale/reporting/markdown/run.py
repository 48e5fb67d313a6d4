"""`report.md`: verdicts first, then every curve, then where and how it was measured."""

from __future__ import annotations

import shlex

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.manifest import SweepRecord
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.view import CurveView

from . import circumstances, comparison, phrases
from .checks import checks_section
from .circumstances import TextTable
from .columns import Row, chosen, rows_of
from .markdown_text import block, code, table, text
from .overview import TITLES, entries, problems, run_tally
from .study import study_of
from .study_markdown import findings_section, study_section
from .study_tables import tables
from .text import collapse, plain

_LOG_LINES = 20


def render(run: Run) -> str:
    """Return the report of a run, whole or not; everything in it comes from the run directory."""
    sections = [
        overview(run),
        checks_section(run.checks),
        *(curve_section(view.record, curve) for view in run.sweeps for curve in view.curves),
    ]
    circumstantial = (
        ("## Targets", circumstances.targets(run.sweeps)),
        ("## Plan and workload", circumstances.workloads(run.sweeps)),
        ("## Environment", circumstances.environment(run.record.fingerprint)),
    )
    sections += ["\n".join(_titled(title, found)) for title, found in circumstantial]
    sections.append(_again(run))
    return "\n".join(section for section in sections if section)


def overview(run: Run) -> str:
    """Return the head of the report: what the run is, what is wrong with it, the verdicts, the comparisons."""
    record = run.record
    when = f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is not None:
        when += f", took {text_of.seconds((record.finished_at - record.started_at).total_seconds())}"
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
    lines = [f"## {text(phrases.curve_facts(record, view.curve))}", "", code(collapse(record.test)), ""]
    lines += [f"**{phrases.MARKS[verdict.outcome]} {text(verdict.headline)}**", ""]
    if rows:
        columns = chosen(view, rows)
        cells = zip(*([text(cell.strip()) for cell in column.texts(rows)] for column in columns), strict=True)
        heads = [column.heading for column in columns]
        body = [[*row, text(_became(view, of))] for row, of in zip(cells, rows, strict=True)]
        lines += [*table([*heads, ""], body, right=heads), ""]
    lines += [*(f"- {text(sentence)}" for sentence in circumstances.curve_remarks(view, rows)), ""]
    return "\n".join([*lines, *_hosts(view), *_failures(view), *_log(view), *_rerun(record, view)])


def _became(view: CurveView, row: Row) -> str:
    """Return what became of a batch: "✓ perfect scaling", "✗ above capacity: success 78.1 % < 95 %"."""
    rates = [summary.success_rate for summary in row.repetitions if summary.success_rate is not None]
    note = phrases.scaling_note(view.verdict, row.batch, min(rates, default=None))
    return f"{row.mark} {note}{f': {row.remark}' if row.remark else ''}"


def _hosts(view: CurveView) -> list[str]:
    return _titled("Sessions per host:", circumstances.hosts(view))


def _failures(view: CurveView) -> list[str]:
    return _titled("Failed sessions:", circumstances.failures(view))


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
    tail = phrases.log_of(view.summaries, _LOG_LINES)
    return ["The server's log, last lines:", "", *block("\n".join(tail)), ""] if tail else []


def _rerun(record: SweepRecord, view: CurveView) -> list[str]:
    command = phrases.rerun(record, view.curve)
    return ["Measure this curve again:", "", *block(plain(command), "sh"), ""] if command else []


def _again(run: Run) -> str:
    folder = shlex.quote(f"{run.path.parent.name}/{run.path.name}")
    commands = [shlex.join(run.record.command)] if run.record.command else []
    commands.append(f"openenv-scale report {folder}")
    return "\n".join(["## Again", "", "The run, and this report of it:", "", *block("\n".join(commands), "sh"), ""])
