"""`EXPERIMENT_LOG.md`: an entry per run, the newest first, and a table of all of them above.

What is generated stands between markers; everything else, such as what was seen and thought, belongs to its writers and
is kept as it is.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import exclusive_lock, replace_file
from pytest_openenv_scale.core.text import without_escapes
from pytest_openenv_scale.reporting.content import tables as content_tables
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.findings import findings
from pytest_openenv_scale.reporting.content.overview import problems, tally
from pytest_openenv_scale.reporting.content.study_tables import scaling, summary, tables
from pytest_openenv_scale.reporting.content.tables import StudyTable

from . import block, code, table, text
from .comparison import comparison_entry

LOG = "EXPERIMENT_LOG.md"
"""The name of the file; it stands in the results directory, above its runs."""

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
class _Entry:
    """One run in the log: its generated part, and what people wrote below it."""

    run_id: str
    generated: str
    written: str


def update_log(path: Path, study: Study) -> Path:
    """Put the runs of a study into a log, new or existing, and return its path; several processes may do so at once.

    Raises:
        RunError: the file cannot be read or written, or a marker in it is damaged; then it is left as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(path.with_name(f".{path.name}.lock")):
            existing = path.read_text(encoding="utf-8") if path.exists() else ""
            replace_file(path, updated(existing, study, path.parent))
    except UnicodeDecodeError:
        raise RunError(f"{path} is not UTF-8 text; move it away to start a new log") from None
    except OSError as error:
        raise RunError(f"the log cannot be written: {path}: {error.strerror}") from None
    return path


def updated(existing: str, study: Study, folder: Path) -> str:
    """Return the text of a log with the entries of these runs in it; links are relative to `folder`.

    Raises:
        RunError: a marker in the existing text is damaged.
    """
    head, entries = _read(existing)
    known = {entry.run_id: entry for entry in entries}
    for run in study.runs:
        old = known.get(run.run_id)
        known[run.run_id] = _Entry(run.run_id, _generated(run, folder), old.written if old else f"\n{_OBSERVATIONS}\n")
    ordered = sorted(known.values(), key=lambda entry: entry.run_id, reverse=True)
    before, rows, after = _overview(head)
    rows = {run_id: row for run_id, row in rows.items() if run_id in known}
    rows |= {run.run_id: _row(run, folder) for run in study.runs}
    listed = _table(rows[entry.run_id] for entry in ordered if entry.run_id in rows)
    parts = [f"{before}{_OVERVIEW}\n\n{listed}\n\n{_OVERVIEW_END}{after}"]
    parts += [f"{_begin(entry.run_id)}\n{entry.generated}{_end(entry.run_id)}\n{entry.written}" for entry in ordered]
    return "".join(parts).rstrip("\n") + "\n"


def _begin(run_id: str) -> str:
    return f"<!-- openenv-scale:run {run_id} -->"


def _end(run_id: str) -> str:
    return f"<!-- openenv-scale:end {run_id} -->"


def _read(existing: str) -> tuple[str, list[_Entry]]:
    """Split a log into what stands above its entries, and the entries."""
    begins = list(_BEGIN.finditer(existing))
    head = existing[: begins[0].start()] if begins else existing
    _check_no_end(head)
    entries: list[_Entry] = []
    for at, begin in enumerate(begins):
        body = existing[begin.end() + 1 : begins[at + 1].start() if at + 1 < len(begins) else len(existing)]
        end = next((found for found in _ANY_END.finditer(body) if found[1] == begin[1]), None)
        if end is None:
            line = existing.count("\n", 0, begin.start()) + 1
            told = f"the entry of run {begin[1]}, line {line}, has lost its end"
            raise RunError(f"the log was left as it is: {told}; write {_end(begin[1])} where its generated part ends")
        written = body[end.end() + 1 :]
        _check_no_end(written)
        entries.append(_Entry(begin[1], body[: end.start()], written))
    twice = next((entry.run_id for entry in entries if sum(one.run_id == entry.run_id for one in entries) > 1), None)
    if twice:
        raise RunError(f"the log was left as it is: it has two entries of run {twice}; keep one of them")
    return head, entries


def _check_no_end(text: str) -> None:
    """Refuse the end of an entry where none is open: its beginning was lost, and its figures would stand twice."""
    if (end := _ANY_END.search(text)) is not None:
        told = f"the entry of run {end[1]} has lost its beginning"
        raise RunError(f"the log was left as it is: {told}; write {_begin(end[1])} above its heading")


def _overview(head: str) -> tuple[str, dict[str, str], str]:
    """Split the head of a log at its table, and return the rows of the table by run id."""
    for marker in (_OVERVIEW, _OVERVIEW_END):
        if head.count(marker) > 1:
            raise RunError(f"the log was left as it is: {marker} stands there twice; keep one of them")
    if _OVERVIEW not in head:
        if _OVERVIEW_END in head:
            told = f"its table has lost its beginning; write {_OVERVIEW} above the table"
            raise RunError(f"the log was left as it is: {told}")
        return (f"{_HEAD}\n" if not head.strip() else head.rstrip("\n") + "\n\n"), {}, "\n\n"
    before, _, rest = head.partition(_OVERVIEW)
    found, end, after = rest.partition(_OVERVIEW_END)
    if not end:
        raise RunError(f"the log was left as it is: its table has lost its end; write {_OVERVIEW_END} below the table")
    rows = {match[1]: line for line in found.splitlines() if (match := re.match(r"\| +`([^`]+)`", line))}
    return before, rows, after


def _table(rows: Iterable[str]) -> str:
    """Return the table of all runs; its rows are not padded, as rows of runs that are gone are kept as they stand."""
    return "\n".join([f"| {' | '.join(_HEADS)} |", f"|{' --- |' * len(_HEADS)}", *rows])


def _row(run: Run, folder: Path) -> str:
    study = study_of(run)
    best = "; ".join(dict.fromkeys(f"{curve.mode} {wording.max_batch(curve.verdict)}" for curve in study.curves))
    cells = (
        code(run.run_id, in_table=True),
        f"{run.record.started_at:%Y-%m-%d %H:%M}",
        text(", ".join(study.infrastructures) or formatting.MISSING),
        text(best or formatting.MISSING),
        text(f"{wording.MARKS[run.outcome]} {run.outcome}" if run.sweeps else formatting.MISSING),
        text(run.status),
        text(run.record.note or formatting.MISSING),
    )
    return f"| {' | '.join(cells)} |"


def _generated(run: Run, folder: Path) -> str:
    """Return the generated part of an entry."""
    study = study_of(run)
    record = run.record
    where = ", ".join(study.infrastructures) or "nothing measured"
    lines = [f"## {record.started_at:%Y-%m-%d %H:%M} UTC · {text(where)}", ""]
    lines += [f"- Run {code(run.run_id)}: {text(run.status)}, {text(tally(run.sweeps))}"]
    lines += [f"- {_times(run)}"]
    lines += [f"- Note: {text(record.note)}"] if record.note else []
    lines += [f"- **{text(problem)}**" for problem in problems(run)]
    links = _links(run, folder)
    lines += [f"- Links: {', '.join(links)}"] if links else []
    targets, plan = content_tables.targets(run.sweeps), content_tables.workloads(run.sweeps)
    lines += ["", *_section("Infrastructure", targets), *_section("Configuration", plan)]
    if record.command:
        lines += ["### Command", "", *block(without_escapes(shlex.join(record.command)), "sh"), ""]
    lines += comparison_entry(run.sweeps)
    lines += [*_study_section("Results", summary(study)), *_study_section("Scaling behaviour", scaling(study))]
    said = [f"- {text(finding.text)}" for finding in findings(study, tables(study))]
    lines += ["### Findings", "", *said, ""] if said else []
    return "\n".join(lines) + "\n"


def _times(run: Run) -> str:
    record = run.record
    begun = f"Started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is None:
        return f"{begun}, no end recorded"
    took = formatting.seconds((record.finished_at - record.started_at).total_seconds())
    return f"{begun}, ended {record.finished_at:%Y-%m-%d %H:%M:%S} UTC after {took}"


def _links(run: Run, folder: Path) -> list[str]:
    """Return links to what there is of the run, from where the log stands."""
    found = [path for name in ("report.md", "report.html", "figures") if (path := run.path / name).exists()]
    return [f"[{path.name}]({_url(path, folder)})" for path in found]


def _url(path: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return f"<{relative}>" if re.search(r"[\s()]", relative) else relative


def _section(title: str, found: content_tables.TextTable) -> list[str]:
    if not found:
        return []
    rows = [
        [
            code(cell, in_table=True) if head in found.code else text(cell)
            for head, cell in zip(found.heads, row, strict=True)
        ]
        for row in found.rows
    ]
    return [f"### {title}", "", *table(found.heads, rows, right=found.right), ""]


def _study_section(title: str, found: StudyTable) -> list[str]:
    if not found.rows:
        return []
    rows: Sequence[Sequence[str]] = [[text(cell.text) for cell in row] for row in found.rows]
    notes = [f"- {text(note)}" for note in found.notes]
    return [f"### {title}", "", *table(found.heads, rows, right=found.right), "", *notes, *([""] if notes else [])]
