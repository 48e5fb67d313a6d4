"""Tables on a terminal: columns side by side, and what goes where there is no room for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pytest_openenv_scale.core.text import shorten

from .page import TextPage

GAP = "  "
"""What stands between two columns."""

SHORTEST_NAME = 6
"""A name that is cut keeps at least as many characters."""


class TextTable(NamedTuple):
    """A table laid out for a page: a line per row, and by their place the widths of the columns that are shown."""

    lines: list[str]
    widths: Mapping[int, int]


def lay_out(
    page: TextPage,
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str],
    indent: int = 2,
    shortest: int | None = None,
    drop: Iterable[int] = (),
) -> TextTable:
    """Lay out rows, the heads first; `right` names the columns of numbers by their heads.

    Where the page has no room, columns are left out in the order of `drop` until cutting the first column down to
    `shortest` characters (None: it is never cut) is enough.
    """
    heads, *others = rows
    aligned = [">" if head in right else "<" for head in heads]
    texts = [[page.printable(text) for text in row] for row in (heads, *others)]
    widths = {at: max(map(len, column)) for at, column in enumerate(zip(*texts, strict=True))}
    least = widths[0] if shortest is None else min(shortest, widths[0])

    def excess() -> int:
        return indent + sum(widths.values()) + len(GAP) * (len(widths) - 1) - page.width

    for at in drop:
        if excess() <= widths[0] - least:
            break
        del widths[at]
    widths[0] = max(widths[0] - max(excess(), 0), least)
    lines = [
        " " * indent + GAP.join(f"{shorten(row[at], width):{aligned[at]}{width}}" for at, width in widths.items())
        for row in texts
    ]
    return TextTable([line.rstrip() for line in lines], widths)
