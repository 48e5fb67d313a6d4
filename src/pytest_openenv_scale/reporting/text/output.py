"""Where what goes on is shown: a stream, and a line as it is written to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from pytest_openenv_scale.reporting.content.progress import Status

from .page import Line, TextPage

_DUMB_TERMINALS = ("dumb", "unknown")


def can_move(stream: TextIO) -> bool:
    """Whether a line may move on a stream: it is a terminal that takes the codes for that."""
    return stream.isatty() and os.environ.get("TERM") not in _DUMB_TERMINALS


@dataclass(frozen=True)
class Output:
    """Where it is shown: a stream, its columns where it does not tell them, and a line as it is written with colours.

    `before` is called before anything is written, as something else may have left a line unfinished. What the program
    prints meanwhile goes above a line that moves where `redirects` says so.
    """

    stream: TextIO
    width: int
    coloured: Callable[[Line], str] = lambda line: line.text
    before: Callable[[], None] = lambda: None
    redirects: bool = False


def status_line(status: Status, width: int, encoding: str | None) -> Line:
    """Return what goes on as a line of at most so many columns, in ASCII where it must be."""
    return Line(TextPage(encoding=encoding).printable(status.text(width))[:width], {})
