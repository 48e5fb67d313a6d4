"""Stored runs on a terminal, a line for each."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.runs import run_words

from .page import DEFAULT_WIDTH, GAP, Line, TextPage, lay_out

_HEADS = ("run", "started (UTC)", "status", "outcome", "targets", "max batch", "commit")
_DROPPED = (_HEADS.index("started (UTC)"), _HEADS.index("commit"), _HEADS.index("targets"))
"""The columns that go first where there is no room: an id tells the time as well."""

_SHORTEST_NOTE = 12


def run_list_lines(
    runs: Sequence[Run], *, older: int = 0, total: int = 0, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return a line per run, in the order given, its note at the end as far as there is room.

    A last line says how many `older` runs there are, and how to see the `total`.
    """
    page = TextPage(width, encoding)
    if not runs:
        return page.lines
    words = [run_words(run) for run in runs]
    rows = [
        (each.run_id, each.started, each.status, each.outcome, each.infrastructures, each.max_batch, each.commit)
        for each in words
    ]
    table = lay_out(page, [_HEADS, *([*map(on_one_line, row)] for row in rows)], right=(), indent=0, drop=_DROPPED)
    least = max(map(len, table.lines))
    room = page.width - least - len(GAP)
    notes = ["note", *(on_one_line(each.note) for each in words)]
    has_notes = room >= _SHORTEST_NOTE and any(note != formatting.MISSING for note in notes[1:])
    for at, (line, note) in enumerate(zip(table.lines, notes, strict=True)):
        text = f"{line:{least}}{GAP}{shorten(note, room)}" if has_notes else line
        colour = {wording.OUTCOME_COLOURS[runs[at - 1].outcome]: True} if at else {"bold": True}
        page.add_line(text, **colour)
    if older:
        page.add_sentence(f"{formatting.count_of(older, 'older run')}: --last {total} shows all", indent=0, light=True)
    return page.lines
