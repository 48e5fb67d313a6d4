"""The line that moves, by rich: drawn anew four times a second below whatever else is written meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.text import Text

from pytest_openenv_scale.reporting.content.progress import Status

from .output import Output, status_line
from .page import Line

_PER_SECOND = 4
_BAR_COLUMNS = ((120, 20), (80, 10))
"""From which width on the bar has how many columns."""

_ERASE_BELOW = Segment("\x1b[J", None, [(ControlType.ERASE_IN_LINE, 0)])
_LINE_START = Control(ControlType.CARRIAGE_RETURN)


class _Terminal(Console):
    """A console that leaves the cursor as it is: a program that is killed cannot show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Change nothing."""
        return False


class MovingLine:
    """One line at the bottom of a terminal; see `LiveLine`."""

    def __init__(self, output: Output) -> None:
        self._output = output
        has_colours = output.coloured(Line("", {"red": True})) != ""
        self._console = _Terminal(
            file=output.stream,
            force_terminal=True,
            force_interactive=True,
            color_system="standard" if has_colours else None,
            no_color=not has_colours,
            legacy_windows=False,
        )
        self._live: Live | None = None
        self._status: Callable[[], Status]

    def show(self, status: Callable[[], Status]) -> None:
        """See `LiveLine`."""
        self._status = status
        if self._live is None:
            self._output.before()
            redirects = self._output.redirects and sys.stdout is sys.__stdout__
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=_PER_SECOND,
                transient=True,
                redirect_stdout=redirects,
                redirect_stderr=redirects,
            )
            self._live.start()
        self._live.refresh()

    def write(self, line: Line) -> None:
        """See `LiveLine`."""
        if self._live is None:
            self._output.before()
        self._fit()
        self._console.print(Text.from_ansi(self._output.coloured(line)), soft_wrap=True)

    def clear(self) -> None:
        """See `LiveLine`."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _draw(self) -> RenderableType:
        self._fit()
        return _Drawing(self._status())

    def _fit(self) -> None:
        """Take the size that the terminal has now: what is captured has none, and that is where rich looks for it."""
        try:
            columns, lines = os.get_terminal_size(self._output.stream.fileno())
        except (OSError, ValueError):
            columns = lines = 0
        self._console.size = (columns or self._output.width, lines or 25)


class _Drawing:
    """One drawing of the line: the bar where there is room for one, then the text.

    The cursor goes back to its start. There it stays when the terminal is made narrower and breaks the line in two, so
    that erasing what is below leaves nothing of it.
    """

    def __init__(self, status: Status) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType | Segment]:
        yield _ERASE_BELOW
        # A line that fills the last column may be taken for one that goes on in the next.
        columns = options.max_width - 1
        done = self._status.done
        bar_columns = next((bar for least, bar in _BAR_COLUMNS if columns + 1 >= least), 0)
        if done is not None and bar_columns:
            bar = ProgressBar(
                total=1.0, completed=done, width=bar_columns, complete_style="green", finished_style="green"
            )
            drawn = list(console.render(bar, options.update(width=bar_columns)))
            yield from drawn
            yield Segment(" " * (bar_columns + 1 - sum(segment.cell_length for segment in drawn)))
            columns -= bar_columns + 1
        yield Segment(status_line(self._status, columns, options.encoding).text)
        yield _LINE_START
