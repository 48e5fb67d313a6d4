"""A study on the terminal: what it is made of, the verdicts, and the tables that say most in few lines."""

from __future__ import annotations

from collections.abc import Sequence

from . import phrases
from .overview import problems
from .study import Study
from .study_markdown import study_facts
from .study_table import StudyTable, wait_text
from .study_tables import comparison, max_batch, nodes, summary
from .text import DEFAULT_WIDTH, Line, Page, collapse, cut

_GAP = "  "
_SHORTEST_NAME = 40
"""Names that end alike are told apart by their ends: a column goes before a name is cut below this."""


def study_lines(study: Study, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a study as lines of text; of tables wider than `width` the columns at the right are left out."""
    page = Page(width, encoding)
    page.say(f"study · {study_facts(study)}", indent=0, bold=True)
    for run in study.runs:
        for problem in problems(run):
            page.say(f"! {run.run_id}: {problem}", yellow=True)
    page.blank()
    for curve in study.curves:
        outcome = curve.verdict.outcome
        headline = collapse(curve.verdict.headline).removeprefix(f"SLO {outcome}: ")
        facts = f"{curve.infrastructure} · {curve.mode} · wait {wait_text(curve.wait)}"
        page.say(
            f"{phrases.MARKS[outcome]} {outcome} · {facts}: {headline}", hang=4, **{phrases.COLOURS[outcome]: True}
        )
    for found in (max_batch(study), summary(study), comparison(study), nodes(study)):
        _add(page, found)
    return page.lines


def _add(page: Page, found: StudyTable) -> None:
    if not found.rows:
        return
    page.blank()
    page.say(found.title, bold=True)
    texts = [
        [page.fit(text) for text in row] for row in (found.heads, *([cell.text for cell in row] for row in found.rows))
    ]
    widths = _widths(texts, page.width)
    for at, row in enumerate(texts):
        page.verbatim(_aligned(row, widths, found), bold=at == 0)
    for note in found.notes:
        page.say(note, light=True)


def _widths(texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of the columns that fit; the name of the first is cut where that is enough."""
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    while (over := sum(widths) + len(_GAP) * len(widths) - width) > max(widths[0] - _SHORTEST_NAME, 0) and widths[2:]:
        widths.pop()
    widths[0] -= max(over, 0)
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int], found: StudyTable) -> str:
    cells = [
        f"{cut(text, width):{'>' if head in found.right else '<'}{width}}"
        for head, text, width in zip(found.heads, row, widths, strict=False)
    ]
    return _GAP + _GAP.join(cells)
