"""Lines of a text report: wrapped to a width, free of control characters, in ASCII where the stream needs it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pytest_openenv_scale.core.text import on_one_line

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
_UNIT_GAP = re.compile(r"(?<=\d) (?=(?:%|ms|s|us|µs)(?!\w))")


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
            _CALL_GAP.sub("(...,\xa0", _UNIT_GAP.sub("\xa0", self.printable(on_one_line(text)))),
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
