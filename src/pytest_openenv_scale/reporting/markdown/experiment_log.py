"""`EXPERIMENT_LOG.md`: an entry per run, the newest first, and a table of all of them above.

What is generated stands between markers; everything else, such as what was seen and thought, belongs to its writers and
is kept as it is.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, study_of
from pytest_openenv_scale.config.options import DEFAULT_RESULTS
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import exclusive_lock, replace_file
from pytest_openenv_scale.core.text import without_escapes
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.runs import run_words
from pytest_openenv_scale.reporting.content.study_tables import scaling_table, study_tables, summary_table
from pytest_openenv_scale.reporting.content.tables import targets_table, workloads_table
from pytest_openenv_scale.reporting.content.wording import curve_tally, run_problems
from pytest_openenv_scale.results.location import FORMER_RESULTS, make_results

from . import code_block, escape, inline_code, table_section
from .comparison import comparison_entry

LOG = "EXPERIMENT_LOG.md"
"""The name of the file."""

_BEGIN = re.compile(r"^<!-- openenv-scale:run (\S+) -->[ \t]*$", re.MULTILINE)
_ANY_END = re.compile(r"^<!-- openenv-scale:end (\S+) -->[ \t]*$", re.MULTILINE)
_OVERVIEW, _OVERVIEW_END = "<!-- openenv-scale:overview -->", "<!-- openenv-scale:overview end -->"
_HEAD = """# Experiment log

What was measured, the newest first. `openenv-scale report --formats log` writes the parts between the markers anew and
keeps everything else: notes belong under the observations of an entry, or above the table.
"""
_OBSERVATIONS = "### Observations\n\n*None yet: write here what was seen and what it means.*\n"
_HEADS = ("run", "started", "infrastructure", "max batch", "outcome", "status", "note")


@dataclass(frozen=True, slots=True)
class _LogEntry:
    """One run in the log: its generated part, and what people wrote below it."""

    run_id: str
    generated: str
    written: str


def log_path(folder: Path) -> Path:
    """Return the log of the runs in a folder: beside one that nobody named, in the root directory; else in it.

    One that was begun in a folder of the former name goes on there, unless there is one in the root directory.
    """
    folder = folder if folder.name else folder.absolute()
    if folder.name not in (DEFAULT_RESULTS, FORMER_RESULTS):
        return folder / LOG
    root = folder.parent
    places = (root / LOG, folder / LOG, root / FORMER_RESULTS / LOG)
    return next((path for path in places if path.exists()), root / LOG)


def update_log(folder: Path, study: Study) -> Path:
    """Put the runs of a study into the log of a folder, new or existing, and return where that is.

    Several processes may do so at once: the lock stays in the folder.

    Raises:
        RunError: the file cannot be read or written, or a marker in it is damaged; then it is left as it is.
    """
    path = log_path(folder)
    try:
        make_results(folder)
        with exclusive_lock(folder / f".{LOG}.lock"):
            existing = path.read_text(encoding="utf-8") if path.exists() else ""
            replace_file(path, updated_log(existing, study, path.parent))
    except UnicodeDecodeError:
        raise RunError(f"{path} is not UTF-8 text; move it away to start a new log") from None
    except OSError as error:
        raise RunError(f"the log cannot be written: {path}: {error.strerror}") from None
    return path


def updated_log(existing: str, study: Study, folder: Path) -> str:
    """Return the text of a log with the entries of these runs in it; links are relative to `folder`.

    Raises:
        RunError: a marker in the existing text is damaged.
    """
    head, entries = _split_entries(existing)
    entries_by_id = {entry.run_id: entry for entry in entries}
    for run in study.runs:
        previous = entries_by_id.get(run.run_id)
        entries_by_id[run.run_id] = _LogEntry(
            run.run_id, _generated_part(run, folder), previous.written if previous else f"\n{_OBSERVATIONS}\n"
        )
    ordered = sorted(entries_by_id.values(), key=lambda entry: entry.run_id, reverse=True)
    before, rows, after = _split_overview(head)
    rows = {run_id: row for run_id, row in rows.items() if run_id in entries_by_id}
    rows |= {run.run_id: _overview_row(run) for run in study.runs}
    runs_table = _overview_table(rows[entry.run_id] for entry in ordered if entry.run_id in rows)
    parts = [f"{before}{_OVERVIEW}\n\n{runs_table}\n\n{_OVERVIEW_END}{after}"]
    parts += [
        f"{_begin_marker(entry.run_id)}\n{entry.generated}{_end_marker(entry.run_id)}\n{entry.written}"
        for entry in ordered
    ]
    return "".join(parts).rstrip("\n") + "\n"


def _begin_marker(run_id: str) -> str:
    return f"<!-- openenv-scale:run {run_id} -->"


def _end_marker(run_id: str) -> str:
    return f"<!-- openenv-scale:end {run_id} -->"


def _split_entries(existing: str) -> tuple[str, list[_LogEntry]]:
    """Split a log into what stands above its entries, and the entries."""
    begins = list(_BEGIN.finditer(existing))
    head = existing[: begins[0].start()] if begins else existing
    _check_no_stray_end(head)
    entries: list[_LogEntry] = []
    for at, begin in enumerate(begins):
        body = existing[begin.end() + 1 : begins[at + 1].start() if at + 1 < len(begins) else len(existing)]
        end = next((match for match in _ANY_END.finditer(body) if match[1] == begin[1]), None)
        if end is None:
            line = existing.count("\n", 0, begin.start()) + 1
            problem = f"the entry of run {begin[1]}, line {line}, has lost its end"
            raise RunError(
                f"the log was left as it is: {problem}; write {_end_marker(begin[1])} where its generated part ends"
            )
        written = body[end.end() + 1 :]
        _check_no_stray_end(written)
        entries.append(_LogEntry(begin[1], body[: end.start()], written))
    duplicate = next(
        (entry.run_id for entry in entries if sum(other.run_id == entry.run_id for other in entries) > 1), None
    )
    if duplicate:
        raise RunError(f"the log was left as it is: it has two entries of run {duplicate}; keep one of them")
    return head, entries


def _check_no_stray_end(text: str) -> None:
    """Raise RunError for an end marker without its begin marker: the entry would be written a second time."""
    if (end := _ANY_END.search(text)) is not None:
        problem = f"the entry of run {end[1]} has lost its beginning"
        raise RunError(f"the log was left as it is: {problem}; write {_begin_marker(end[1])} above its heading")


def _split_overview(head: str) -> tuple[str, dict[str, str], str]:
    """Split the head of a log at its table, and return the rows of the table by run id."""
    for marker in (_OVERVIEW, _OVERVIEW_END):
        if head.count(marker) > 1:
            raise RunError(f"the log was left as it is: {marker} stands there twice; keep one of them")
    if _OVERVIEW not in head:
        if _OVERVIEW_END in head:
            problem = f"its table has lost its beginning; write {_OVERVIEW} above the table"
            raise RunError(f"the log was left as it is: {problem}")
        return (f"{_HEAD}\n" if not head.strip() else head.rstrip("\n") + "\n\n"), {}, "\n\n"
    before, _, rest = head.partition(_OVERVIEW)
    overview, end, after = rest.partition(_OVERVIEW_END)
    if not end:
        raise RunError(f"the log was left as it is: its table has lost its end; write {_OVERVIEW_END} below the table")
    rows = {match[1]: line for line in overview.splitlines() if (match := re.match(r"\| +`([^`]+)`", line))}
    return before, rows, after


def _overview_table(rows: Iterable[str]) -> str:
    """Return the table of all runs; its rows are not padded, as rows of runs that are gone are kept as they stand."""
    return "\n".join([f"| {' | '.join(_HEADS)} |", f"|{' --- |' * len(_HEADS)}", *rows])


def _overview_row(run: Run) -> str:
    words = run_words(run)
    texts = (words.started, words.infrastructures, words.max_batch, words.outcome, words.status, words.note)
    return f"| {' | '.join((inline_code(run.run_id, in_table=True), *map(escape, texts)))} |"


def _generated_part(run: Run, folder: Path) -> str:
    """Return the generated part of an entry."""
    study = study_of(run)
    record = run.record
    infrastructures = ", ".join(study.infrastructures) or "nothing measured"
    lines = [f"## {record.started_at:%Y-%m-%d %H:%M} UTC · {escape(infrastructures)}", ""]
    lines += [f"- Run {inline_code(run.run_id)}: {escape(run.status)}, {escape(curve_tally(run.sweeps))}"]
    lines += [f"- {_times_text(run)}"]
    lines += [f"- Note: {escape(record.note)}"] if record.note else []
    lines += [f"- **{escape(problem)}**" for problem in run_problems(run)]
    links = _links(run, folder)
    lines += [f"- Links: {', '.join(links)}"] if links else []
    targets, plan = targets_table(run.sweeps), workloads_table(run.sweeps)
    lines += ["", *table_section(targets, "### Infrastructure"), *table_section(plan, "### Configuration")]
    if record.command:
        lines += ["### Command", "", *code_block(without_escapes(shlex.join(record.command)), "sh"), ""]
    lines += comparison_entry(run.sweeps)
    lines += [
        *table_section(summary_table(study), "### Results"),
        *table_section(scaling_table(study), "### Scaling behaviour"),
    ]
    sentences = [f"- {escape(finding.text)}" for finding in findings(study, study_tables(study))]
    lines += ["### Findings", "", *sentences, ""] if sentences else []
    return "\n".join(lines) + "\n"


def _times_text(run: Run) -> str:
    record = run.record
    begun = f"Started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is None:
        return f"{begun}, no end recorded"
    took = formatting.seconds((record.finished_at - record.started_at).total_seconds())
    return f"{begun}, ended {record.finished_at:%Y-%m-%d %H:%M:%S} UTC after {took}"


def _links(run: Run, folder: Path) -> list[str]:
    """Return links to the reports, figures and tables of the run that exist, relative to `folder`."""
    paths = [path for name in ("report.md", "report.html", "figures", "tables") if (path := run.path / name).exists()]
    return [f"[{path.name}]({_url(path, folder)})" for path in paths]


def _url(path: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return f"<{relative}>" if re.search(r"[\s()]", relative) else relative
