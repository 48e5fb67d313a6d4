"""A run, or a study of several, at a glance on a terminal: one table per thing that is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_openenv_scale.analysis.protocols import FOOTNOTE
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.overview import TITLES, CurveEntry, entries, problems, run_tally
from pytest_openenv_scale.reporting.content.replicas import (
    AT,
    PROTOCOL_HEADS,
    PROTOCOL_RIGHT,
    PROTOCOL_TITLE,
    cells,
    heading,
    protocol_entries,
    remarks,
    scaling_tables,
)
from pytest_openenv_scale.reporting.content.study_tables import comparison, max_batch, nodes, study_facts, summary
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
    found = entries(sweeps)
    if not found:
        return []
    texts = [[page.fit(text) for text in cells] for cells in (TITLES, *(entry.cells for entry in found))]
    verdict_width = max(len(text) for text in ("  verdict", *(entry.verdict for entry in found)))
    widths = _widths(texts, page.width - verdict_width - 3 * len(_GAP))
    page.verbatim(f"{_aligned(texts[0], widths)}{_GAP}  verdict", bold=True)
    test = ""
    for entry, row in zip(found, texts[1:], strict=True):
        if entry.test != test:
            test = entry.test
            page.verbatim(_GAP + shorten(page.fit(test), page.width - len(_GAP), left=True))
        _row(page, entry, f"{_aligned(row, widths)}{_GAP}{page.fit(entry.verdict)}")
    add_protocol_lines(page, sweeps)
    return page.lines


def _widths(texts: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of the columns; where there is no room, names are cut and sessions per core left out."""
    widths = [max(len(row[at]) for row in texts) for at in range(len(TITLES))]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    if over > widths[0] - _SHORTEST_NAME:
        over -= widths.pop() + len(_GAP)
    widths[0] = max(widths[0] - max(over, 0), _SHORTEST_NAME)
    return widths


def _row(page: TextPage, entry: CurveEntry, line: str) -> None:
    colour = {wording.COLOURS[entry.outcome]: True}
    reason = page.fit(entry.reason)
    if len(line) + 2 + len(reason) <= page.width:
        page.verbatim(f"{line}: {reason}", **colour)
        return
    page.verbatim(line, **colour)
    if entry.outcome is not Outcome.MET:
        page.say(reason, indent=8, **colour)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{shorten(text, width):{'>' if title in _RIGHT else '<'}{width}}"
        for title, text, width in zip(TITLES, row, widths, strict=False)
    ]
    return _GAP * 2 + _GAP.join(cells)


def run_lines(run: Run, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a whole run: what it is and what is wrong with it, every curve, and the table at the end."""
    page = TextPage(width, encoding)
    page.say(f"run {run.run_id} · {run.status} · {run_tally(run)}", indent=0, bold=True)
    if run.record.note:
        page.say(f"note: {run.record.note}")
    for problem in problems(run):
        page.say(f"! {problem}", yellow=True)
    if run.checks:
        page.blank()
        page.extend(check_lines(run.checks, width=width, encoding=encoding))
    for view in run.sweeps:
        page.blank()
        page.extend(sweep_lines(view, width=width, encoding=encoding))
    page.blank()
    page.extend(summary_lines(run.sweeps, width=width, encoding=encoding))
    page.blank()
    page.extend(scaling_lines(run.sweeps, width=width, encoding=encoding))
    return page.lines


_SHORTEST_STUDY_NAME = 40
"""Names that end alike are told apart by their ends: a column goes before a name is cut below this."""


def study_lines(study: Study, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a study as lines of text; of tables wider than `width` the columns at the right are left out."""
    page = TextPage(width, encoding)
    page.say(f"study · {study_facts(study)}", indent=0, bold=True)
    for run in study.runs:
        for problem in problems(run):
            page.say(f"! {run.run_id}: {problem}", yellow=True)
    page.blank()
    for curve in study.curves:
        outcome = curve.verdict.outcome
        headline = on_one_line(curve.verdict.headline).removeprefix(f"SLO {outcome}: ")
        facts = f"{curve.infrastructure} · {curve.mode} · wait {wait_text(curve.wait)}"
        page.say(
            f"{wording.MARKS[outcome]} {outcome} · {facts}: {headline}", hang=4, **{wording.COLOURS[outcome]: True}
        )
    for found in (max_batch(study), summary(study), comparison(study), nodes(study)):
        _add_study_table(page, found)
    return page.lines


def _add_study_table(page: TextPage, found: StudyTable) -> None:
    if not found.rows:
        return
    page.blank()
    page.say(found.title, bold=True)
    texts = [
        [page.fit(text) for text in row] for row in (found.heads, *([cell.text for cell in row] for row in found.rows))
    ]
    widths = _study_widths(texts, page.width)
    for at, row in enumerate(texts):
        page.verbatim(_study_row(row, widths, found), bold=at == 0)
    for note in found.notes:
        page.say(note, light=True)


def _study_widths(texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of the columns that fit; the name of the first is cut where that is enough."""
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    while (over := sum(widths) + len(_GAP) * len(widths) - width) > max(widths[0] - _SHORTEST_STUDY_NAME, 0) and widths[
        2:
    ]:
        widths.pop()
    widths[0] -= max(over, 0)
    return widths


def _study_row(row: Sequence[str], widths: Sequence[int], found: StudyTable) -> str:
    cells = [
        f"{shorten(text, width):{'>' if head in found.right else '<'}{width}}"
        for head, text, width in zip(found.heads, row, widths, strict=False)
    ]
    return _GAP + _GAP.join(cells)


def scaling_lines(
    sweeps: Iterable[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the tables of a run as lines of text; nothing where no target was repeated."""
    page = TextPage(width, encoding)
    for table in scaling_tables(sweeps):
        page.blank()
        page.say(f"{table.axis} · {heading(table)} · {on_one_line(table.test)}", indent=0, bold=True)
        texts = [[page.fit(text) for text in row] for row in (table.titles, *(cells(row) for row in table.rows))]
        widths = [max(len(row[at]) for row in texts) for at in range(len(texts[0]))]
        page.verbatim(_scaling_row(texts[0], widths), bold=True)
        for row in texts[1:]:
            page.verbatim(_scaling_row(row, widths))
        page.say("; ".join(remarks(table)), light=True)
    return page.lines


def _scaling_row(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP + _GAP.join(text.rjust(width) for text, width in zip(row, widths, strict=True))


def add_protocol_lines(page: TextPage, sweeps: Iterable[SweepView]) -> None:
    """Add the comparison to a page; nothing where there is only one mode."""
    found = protocol_entries(sweeps)
    if not found:
        return
    page.blank()
    page.say(PROTOCOL_TITLE, bold=True)
    heads, *rows = _protocol_rows(page, [PROTOCOL_HEADS, *(entry.cells for entry in found)])
    page.verbatim(heads, bold=True)
    test = ""
    for entry, row in zip(found, rows, strict=True):
        if entry.test != test:
            test = entry.test
            page.verbatim(_GAP + shorten(page.fit(test), page.width - len(_GAP), left=True))
        page.verbatim(row)
        if entry.batch is not None:
            figures = ", ".join(f"{name} {figure}" for (name, _), figure in zip(AT, entry.figures, strict=True))
            page.say(f"ws / http at batch {entry.batch}: {figures}", indent=8)
        for note in entry.notes:
            page.say(note, indent=8)
    page.say(FOOTNOTE, light=True)


def _protocol_rows(page: TextPage, rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the heads first; where there is no room, names are cut."""
    texts = [[page.fit(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) + 1) - page.width
    widths[0] = max(widths[0] - max(over, 0), _SHORTEST_NAME)
    return [
        _GAP * 2
        + _GAP.join(
            f"{shorten(cell, width):{'>' if head in PROTOCOL_RIGHT else '<'}{width}}"
            for head, cell, width in zip(PROTOCOL_HEADS, row, widths, strict=True)
        )
        for row in texts
    ]
