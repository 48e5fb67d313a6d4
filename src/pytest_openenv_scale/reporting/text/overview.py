"""A run, or a study of several, summarised on a terminal: a table for each comparison."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pytest_openenv_scale.analysis.axes import compare_modes, server_scalings
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.reporting.content import verdicts, wording
from pytest_openenv_scale.reporting.content.study_tables import (
    PROTOCOL_FIGURES,
    PROTOCOL_HEADS,
    PROTOCOL_RIGHT,
    PROTOCOL_TITLE,
    figure_texts,
    max_batch_table,
    nodes_table,
    protocol_cells,
    protocol_footnotes,
    protocol_notes,
    protocols_table,
    replicas_table,
    study_facts,
    summary_table,
)
from pytest_openenv_scale.reporting.content.tables import Table, verdicts_table
from pytest_openenv_scale.reporting.content.wording import run_problems, run_tally
from pytest_openenv_scale.verdict.sweep import SweepView

from .checks import check_lines
from .page import DEFAULT_WIDTH, GAP, SHORTEST_NAME, Line, TextPage, TextTable, lay_out
from .sweep import sweep_lines


def summary_lines(
    sweeps: Sequence[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the table of all curves of a run, and above it the protocol comparison where there are two modes.

    No line is wider than `width`; there is nothing where there are no curves. A test is a line of its own above
    its curves, each of which is one line: where there is no room, columns are left out and reasons are cut.
    """
    page = TextPage(width, encoding)
    curves = [(view.infrastructure, view, curve) for view in sweeps for curve in view.curves]
    if not curves:
        return []
    add_protocol_lines(page, sweeps)
    page.add_blank()
    table = verdicts_table(curves)
    rows = [[*table.heads[1:-2], "  verdict"], *(row[1:-1] for row in table.texts)]
    reasons = [page.printable(on_one_line(verdicts.short_verdict(curve))) for _, _, curve in curves]
    laid_out, has_room = _lay_out_curves(page, rows, reasons, right=table.right)
    heads, *lines = laid_out.lines
    page.add_line(heads, bold=True)
    test = ""
    for (_, view, curve), line, reason in zip(curves, lines, reasons, strict=True):
        if view.test != test:
            test = view.test
            _add_test(page, test)
        line = shorten(f"{line}: {reason}", page.width) if has_room else line
        page.add_line(line, **{wording.OUTCOME_COLOURS[curve.verdict.outcome]: True})
    left_out = [head for at, head in enumerate(rows[0]) if at not in laid_out.widths]
    if left_out := left_out + ([] if has_room else ["reason"]):
        page.add_sentence(f"not shown at this width: {', '.join(left_out)}", light=True)
    return page.lines


_SHORT_REASON, _SHORTEST_REASON = 40, 24
"""So many characters of a reason there should be, and have to be."""


def _lay_out_curves(
    page: TextPage, rows: Sequence[Sequence[str]], reasons: Sequence[str], *, right: Collection[str]
) -> tuple[TextTable, bool]:
    """Return the table of curves, and whether there is room for a reason beside each.

    What is the same for all curves goes before reasons are cut.
    """
    heads, *others = rows
    same = [heads.index(head) for head in ("mode", "wait") if len({row[heads.index(head)] for row in others}) == 1]
    drop = [heads.index("per core"), *same]
    longest = max(map(len, reasons))
    rooms = [min(longest, room) for room in (longest, _SHORT_REASON, _SHORTEST_REASON)]
    for room, shortest in (*((room, None) for room in rooms), (rooms[-1], SHORTEST_NAME)):
        free = len(": ") + room
        table = lay_out(page, rows, right=right, indent=4, shortest=shortest, drop=drop, free=free)
        if max(map(len, table.lines)) + free <= page.width:
            return table, True
    return lay_out(page, rows, right=right, indent=4, shortest=SHORTEST_NAME, drop=drop), False


def _add_test(page: TextPage, test: str) -> None:
    """Add the test above its rows, cut at its start where there is no room."""
    page.add_line(GAP + shorten(page.printable(on_one_line(test)), page.width - len(GAP), left=True))


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
        facts = " · ".join([curve.infrastructure, *wording.load_words(curve.curve.curve)])
        page.add_sentence(
            f"{wording.OUTCOME_MARKS[outcome]} {outcome} · {facts}: {reason}",
            hang=4,
            **{wording.OUTCOME_COLOURS[outcome]: True},
        )
    for table in (max_batch_table(study), summary_table(study), protocols_table(study), nodes_table(study)):
        if table:
            page.add_blank()
            page.add_sentence(table.title, bold=True)
            from_the_right = range(len(table.heads) - 1, 1, -1)
            _add_table(page, table, shortest=_SHORTEST_STUDY_NAME, drop=from_the_right)
    return page.lines


def _add_table(page: TextPage, table: Table, *, shortest: int | None = None, drop: Iterable[int] = ()) -> None:
    heads, *lines = lay_out(page, [table.heads, *table.texts], right=table.right, shortest=shortest, drop=drop).lines
    page.add_line(heads, bold=True)
    for line in lines:
        page.add_line(line)
    for note in table.notes:
        page.add_sentence(note, light=True)


def scaling_lines(
    sweeps: Iterable[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the tables over numbers of replicas or nodes as lines; none where no target had several numbers."""
    page = TextPage(width, encoding)
    for table in map(replicas_table, server_scalings(sweeps)):
        page.add_blank()
        page.add_sentence(table.title, indent=0, bold=True)
        _add_table(page, table)
    return page.lines


def add_protocol_lines(page: TextPage, sweeps: Iterable[SweepView]) -> None:
    """Add the comparison to a page; nothing where there is only one mode."""
    compared = [(view, comparison) for view in sweeps for comparison in compare_modes(view)]
    if not compared:
        return
    page.add_blank()
    page.add_sentence(PROTOCOL_TITLE, bold=True)
    rows = [("target", *PROTOCOL_HEADS)]
    rows += [
        (on_one_line(view.infrastructure), *(cell.text for cell in protocol_cells(comparison)))
        for view, comparison in compared
    ]
    heads, *lines = lay_out(page, rows, right=PROTOCOL_RIGHT, indent=4, shortest=SHORTEST_NAME).lines
    page.add_line(heads, bold=True)
    test = ""
    for (view, comparison), line in zip(compared, lines, strict=True):
        if view.test != test:
            test = view.test
            _add_test(page, test)
        page.add_line(line)
        if comparison.batch is not None:
            named = zip(PROTOCOL_FIGURES, figure_texts(comparison), strict=True)
            figures = ", ".join(f"{name} {figure}" for (name, _), figure in named)
            page.add_sentence(f"ws / http at batch {formatting.count(comparison.batch)}: {figures}", indent=8)
        for note in protocol_notes(comparison):
            page.add_sentence(note, indent=8)
    for footnote in protocol_footnotes(comparison for _, comparison in compared):
        page.add_sentence(footnote, light=True)
