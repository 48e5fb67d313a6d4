"""The lines and tables of a text report: fitted to a width, without control characters, in ASCII where needed."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pytest_openenv_scale.core.formatting import with_units_kept
from pytest_openenv_scale.core.text import on_one_line, shorten

DEFAULT_WIDTH = 110
MIN_WIDTH = 60

_ASCII = str.maketrans(
    {
        "·": "-",
        "–": "-",
        "—": "-",
        "−": "-",
        "×": "x",
        "✗": "x",
        "✓": "+",
        "≥": ">=",
        "≤": "<=",
        "≈": "~",
        "±": "+-",
        "÷": "/",
        "µ": "u",
        "…": "...",
        "→": "->",
        "“": '"',
        "”": '"',
        "’": "'",
    }
)
_UNICODE_SIGNS = "".join(map(chr, _ASCII))
_CALL_GAP = re.compile(r"\(\.\.\., ")  # A line to copy stays in one piece.


class Line(NamedTuple):
    """One line of text and how to colour it: keywords of pytest's `TerminalWriter.line` (`red=True`)."""

    text: str
    markup: Mapping[str, bool]


def supports_unicode(encoding: str | None) -> bool:
    """Say whether a stream of that encoding can print every sign the reports use."""
    try:
        _UNICODE_SIGNS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class TextPage:
    """Collects the lines of a report of a given width in columns; `encoding` None means Unicode."""

    def __init__(self, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> None:
        self.width = max(width, MIN_WIDTH)
        self.lines: list[Line] = []
        self._ascii = encoding is not None and not supports_unicode(encoding)

    def printable(self, text: str) -> str:
        """Return text as this page can print it: in ASCII where it must be."""
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self._ascii else text

    def add_line(self, text: str, **markup: bool) -> None:
        """Add one line that must stay whole, however long: a command, a line of a log."""
        self.lines.append(Line(self.printable(text).rstrip(), markup))

    def add_sentence(self, text: str, *, indent: int = 2, hang: int = 2, **markup: bool) -> None:
        """Add a sentence, wrapped to the width; further lines are indented by `hang` more."""
        wrapped = textwrap.wrap(
            _CALL_GAP.sub("(...,\xa0", with_units_kept(self.printable(on_one_line(text)))),
            self.width,
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + hang),
            break_on_hyphens=False,
        )
        self.lines.extend(Line(line.replace("\xa0", " "), markup) for line in wrapped)

    def add_blank(self) -> None:
        """Add an empty line, unless the page is empty or ends in one."""
        if self.lines and self.lines[-1].text:
            self.lines.append(Line("", {}))

    def add_lines(self, lines: Iterable[Line]) -> None:
        """Add lines made elsewhere for the same width and encoding."""
        self.lines.extend(lines)

    @property
    def text(self) -> str:
        """The page without its markup, lines joined."""
        return "\n".join(line.text for line in self.lines)


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
    free: int = 0,
) -> TextTable:
    """Lay out rows, the heads first; `right` names the columns of numbers by their heads.

    Where the page has no room, columns are left out in the order of `drop` until cutting the first column down to
    `shortest` characters (None: it is never cut) is enough. So many columns at the right stay `free`.
    """
    heads, *others = rows
    aligned = [">" if head in right else "<" for head in heads]
    texts = [[page.printable(text) for text in row] for row in (heads, *others)]
    widths = {at: max(map(len, column)) for at, column in enumerate(zip(*texts, strict=True))}
    least = widths[0] if shortest is None else min(shortest, widths[0])

    def excess() -> int:
        return indent + sum(widths.values()) + len(GAP) * (len(widths) - 1) + free - page.width

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
