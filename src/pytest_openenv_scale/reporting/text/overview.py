"""A run, or a study of several, at a glance on a terminal: one table per thing that is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_openenv_scale.analysis.protocols import HTTP_FOOTNOTE
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.reporting.content import verdicts, wording
from pytest_openenv_scale.reporting.content.overview import (
    ENTRY_HEADS,
    CurveEntry,
    curve_entries,
    run_problems,
    run_tally,
)
from pytest_openenv_scale.reporting.content.replicas import (
    PROTOCOL_FIGURES,
    PROTOCOL_HEADS,
    PROTOCOL_RIGHT,
    PROTOCOL_TITLE,
    protocol_entries,
    scaling_cells,
    scaling_heading,
    scaling_remarks,
    scaling_tables,
)
from pytest_openenv_scale.reporting.content.study_tables import (
    max_batch_table,
    nodes_table,
    protocols_table,
    study_facts,
    summary_table,
)
from pytest_openenv_scale.reporting.content.tables import StudyTable, wait_text
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import SweepView

from .checks import check_lines
from .page import DEFAULT_WIDTH, Line, TextPage
from .sweep import sweep_lines

_GAP = "  "
_SHORTEST_NAME = 6
_RIGHT = ("wait", "max batch", "per core")


def summary_lines(
    sweeps: Sequence[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the table of all curves of a run, and below it the protocol comparison where there are two modes.

    No line is wider than `width`; there is nothing where there are no curves. A test is a line of its own above
    its curves; a reason that does not fit its row stands beneath it.
    """
    page = TextPage(width, encoding)
    entries = curve_entries(sweeps)
    if not entries:
        return []
    texts = [[page.printable(text) for text in cells] for cells in (ENTRY_HEADS, *(entry.cells for entry in entries))]
    verdict_width = max(len(text) for text in ("  verdict", *(entry.verdict for entry in entries)))
    widths = _entry_widths(texts, page.width - verdict_width - 3 * len(_GAP))
    page.add_line(f"{_align_cells(texts[0], widths)}{_GAP}  verdict", bold=True)
    test = ""
    for entry, row in zip(entries, texts[1:], strict=True):
        if entry.test != test:
            test = entry.test
            page.add_line(_GAP + shorten(page.printable(test), page.width - len(_GAP), left=True))
        _add_entry(page, entry, f"{_align_cells(row, widths)}{_GAP}{page.printable(entry.verdict)}")
    add_protocol_lines(page, sweeps)
    return page.lines


def _entry_widths(texts: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of the columns; where there is no room, names are cut and sessions per core left out."""
    widths = [max(len(row[at]) for row in texts) for at in range(len(ENTRY_HEADS))]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    if excess > widths[0] - _SHORTEST_NAME:
        excess -= widths.pop() + len(_GAP)
    widths[0] = max(widths[0] - max(excess, 0), _SHORTEST_NAME)
    return widths


def _add_entry(page: TextPage, entry: CurveEntry, line: str) -> None:
    colour = {wording.OUTCOME_COLOURS[entry.outcome]: True}
    reason = page.printable(entry.reason)
    if len(line) + 2 + len(reason) <= page.width:
        page.add_line(f"{line}: {reason}", **colour)
        return
    page.add_line(line, **colour)
    if entry.outcome is not Outcome.MET:
        page.add_sentence(reason, indent=8, **colour)


def _align_cells(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{shorten(text, width):{'>' if title in _RIGHT else '<'}{width}}"
        for title, text, width in zip(ENTRY_HEADS, row, widths, strict=False)
    ]
    return _GAP * 2 + _GAP.join(cells)


def run_lines(run: Run, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a whole run: what it is and what is wrong with it, every curve, and the table at the end."""
    page = TextPage(width, encoding)
    page.add_sentence(f"run {run.run_id} · {run.status} · {run_tally(run)}", indent=0, bold=True)
    if run.record.note:
        page.add_sentence(f"note: {run.record.note}")
    for problem in run_problems(run):
        page.add_sentence(f"! {problem}", yellow=True)
    if run.checks:
        page.add_blank()
        page.add_lines(check_lines(run.checks, width=width, encoding=encoding))
    for view in run.sweeps:
        page.add_blank()
        page.add_lines(sweep_lines(view, width=width, encoding=encoding))
    page.add_blank()
    page.add_lines(summary_lines(run.sweeps, width=width, encoding=encoding))
    page.add_blank()
    page.add_lines(scaling_lines(run.sweeps, width=width, encoding=encoding))
    return page.lines


_SHORTEST_STUDY_NAME = 40
"""Names that end alike are told apart by their ends: a column goes before a name is cut below this."""


def study_lines(study: Study, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a study as lines of text; of tables wider than `width` the columns at the right are left out."""
    page = TextPage(width, encoding)
    page.add_sentence(f"study · {study_facts(study)}", indent=0, bold=True)
    for run in study.runs:
        for problem in run_problems(run):
            page.add_sentence(f"! {run.run_id}: {problem}", yellow=True)
    page.add_blank()
    for curve in study.curves:
        outcome = curve.verdict.outcome
        reason = on_one_line(verdicts.verdict_reason(curve.curve))
        facts = f"{curve.infrastructure} · {curve.mode} · wait {wait_text(curve.wait)}"
        page.add_sentence(
            f"{wording.OUTCOME_MARKS[outcome]} {outcome} · {facts}: {reason}",
            hang=4,
            **{wording.OUTCOME_COLOURS[outcome]: True},
        )
    for table in (max_batch_table(study), summary_table(study), protocols_table(study), nodes_table(study)):
        _add_study_table(page, table)
    return page.lines


def _add_study_table(page: TextPage, table: StudyTable) -> None:
    if not table.rows:
        return
    page.add_blank()
    page.add_sentence(table.title, bold=True)
    texts = [
        [page.printable(text) for text in row]
        for row in (table.heads, *([cell.text for cell in row] for row in table.rows))
    ]
    widths = _study_widths(texts, page.width)
    for at, row in enumerate(texts):
        page.add_line(_study_row(row, widths, table), bold=at == 0)
    for note in table.notes:
        page.add_sentence(note, light=True)


def _study_widths(texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of the columns that fit; the name of the first is cut where that is enough."""
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    while (excess := sum(widths) + len(_GAP) * len(widths) - width) > max(
        widths[0] - _SHORTEST_STUDY_NAME, 0
    ) and widths[2:]:
        widths.pop()
    widths[0] -= max(excess, 0)
    return widths


def _study_row(row: Sequence[str], widths: Sequence[int], table: StudyTable) -> str:
    cells = [
        f"{shorten(text, width):{'>' if head in table.right else '<'}{width}}"
        for head, text, width in zip(table.heads, row, widths, strict=False)
    ]
    return _GAP + _GAP.join(cells)


def scaling_lines(
    sweeps: Iterable[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the tables over numbers of replicas or nodes as lines; none where no target had several numbers."""
    page = TextPage(width, encoding)
    for table in scaling_tables(sweeps):
        page.add_blank()
        page.add_sentence(f"{table.axis} · {scaling_heading(table)} · {on_one_line(table.test)}", indent=0, bold=True)
        texts = [
            [page.printable(text) for text in row]
            for row in (table.titles, *(scaling_cells(row) for row in table.rows))
        ]
        widths = [max(len(row[at]) for row in texts) for at in range(len(texts[0]))]
        page.add_line(_scaling_row(texts[0], widths), bold=True)
        for row in texts[1:]:
            page.add_line(_scaling_row(row, widths))
        page.add_sentence("; ".join(scaling_remarks(table)), light=True)
    return page.lines


def _scaling_row(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP + _GAP.join(text.rjust(width) for text, width in zip(row, widths, strict=True))


def add_protocol_lines(page: TextPage, sweeps: Iterable[SweepView]) -> None:
    """Add the comparison to a page; nothing where there is only one mode."""
    entries = protocol_entries(sweeps)
    if not entries:
        return
    page.add_blank()
    page.add_sentence(PROTOCOL_TITLE, bold=True)
    heads, *rows = _protocol_rows(page, [PROTOCOL_HEADS, *(entry.cells for entry in entries)])
    page.add_line(heads, bold=True)
    test = ""
    for entry, row in zip(entries, rows, strict=True):
        if entry.test != test:
            test = entry.test
            page.add_line(_GAP + shorten(page.printable(test), page.width - len(_GAP), left=True))
        page.add_line(row)
        if entry.batch is not None:
            figures = ", ".join(
                f"{name} {figure}" for (name, _), figure in zip(PROTOCOL_FIGURES, entry.figures, strict=True)
            )
            page.add_sentence(f"ws / http at batch {entry.batch}: {figures}", indent=8)
        for note in entry.notes:
            page.add_sentence(note, indent=8)
    page.add_sentence(HTTP_FOOTNOTE, light=True)


def _protocol_rows(page: TextPage, rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the heads first; where there is no room, names are cut."""
    texts = [[page.printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    excess = sum(widths) + len(_GAP) * (len(widths) + 1) - page.width
    widths[0] = max(widths[0] - max(excess, 0), _SHORTEST_NAME)
    return [
        _GAP * 2
        + _GAP.join(
            f"{shorten(cell, width):{'>' if head in PROTOCOL_RIGHT else '<'}{width}}"
            for head, cell, width in zip(PROTOCOL_HEADS, row, widths, strict=True)
        )
        for row in texts
    ]
