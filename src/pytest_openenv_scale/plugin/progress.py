"""What is shown while something goes on, on pytest's terminal; what happens in a sweep is passed to hooks as well."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import pytest

from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core.measure_lock import LockHolder
from pytest_openenv_scale.core.text import shorten
from pytest_openenv_scale.engine.sweep import Observer
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import progress as content
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.text.live import live_line
from pytest_openenv_scale.reporting.text.output import Output, can_move
from pytest_openenv_scale.reporting.text.page import Line, TextPage
from pytest_openenv_scale.reporting.text.sweep import cell_line, set_aside_line
from pytest_openenv_scale.results.progress import LoadProgress, Position
from pytest_openenv_scale.verdict.sweep import CurveView

LOG_WIDTH = 120
"""Columns written where standard output is no terminal and COLUMNS says nothing."""

_WAITS = "waiting for the machine"


class Progress(Observer):
    """Shows what goes on, or, as this one does, nothing."""

    def begin(self, subject: str, activity: str) -> None:
        """Show from now on what is done with a target, and for how long."""

    def detail(self, text: str) -> None:
        """Show what was heard of it last, such as the last line of a log."""

    def line(self, text: str) -> None:
        """Show one line as it is that stays, such as what a target does while it starts."""

    def end(self) -> None:
        """Show nothing any more."""

    def close(self) -> None:
        """Let go of the terminal."""

    @contextmanager
    def activity(self, subject: str, activity: str) -> Generator[None]:
        """Show what is done with a target while the block runs."""
        self.begin(subject, activity)
        try:
            yield
        finally:
            self.end()


class TerminalProgress(Progress):
    """Shows what goes on beside pytest's terminal reporter, whatever is captured at the moment.

    On a terminal it is one line that moves, and a line for every curve stays; elsewhere a line is written for every
    finished cell, and one that says what goes on where there was none for 30 s.
    """

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._reporter = reporter
        self._width = page_width(config)
        self._own_stream: TextIO | None = None
        stream, writer = self._open_stream(), config.get_terminal_writer()
        output = Output(
            stream,
            self._width,
            coloured=lambda line: writer.markup(line.text, **line.markup),
            before=self._end_line,
            redirects=config.getoption("capture", "no") == "no",
        )
        self._moves = can_move(stream) and not shows_logs(config)
        self._live = live_line(output, moves=self._moves)
        self._noted: set[str] = set()
        self._subject = self._activity = self._detail = ""
        self._began = self._sweep_began = 0.0
        self._cell: tuple[Cell, Position]
        self._load: LoadProgress | None = None

    def begin(self, subject: str, activity: str) -> None:
        """See `Progress`."""
        self._subject, self._activity, self._detail = subject, activity, ""
        self._began, self._sweep_began = time.monotonic(), 0.0
        self._live.show(self._activity_status)

    def detail(self, text: str) -> None:
        """See `Progress`."""
        self._detail = text

    def line(self, text: str) -> None:
        """See `Progress`."""
        self._detail = text
        self._live.write(Line(text, {}))

    def end(self) -> None:
        """See `Progress`."""
        self._live.clear()

    def close(self) -> None:
        """See `Progress`."""
        self.end()
        if self._own_stream is not None:
            self._own_stream.close()

    def _activity_status(self) -> content.Status:
        return content.activity_status(self._subject, self._activity, time.monotonic() - self._began, self._detail)

    # What happens in a sweep

    def waits_for_lock(self, holder: LockHolder) -> None:
        """Show for whom the measurement waits; where no line moves, as a line that stays, too."""
        if self._activity != _WAITS:
            self.begin(self._subject, _WAITS)
        self._detail = content.lock_words(holder)
        if not self._moves:
            self.note(f"{self._subject}: {_WAITS}, {self._detail}")

    def warm_up_started(self) -> None:
        """Show that sessions are played alone first."""
        self.begin(self._subject, "playing a session alone")

    def cell_started(self, cell: Cell, position: Position) -> None:
        """Show which cell begins."""
        self._sweep_began = self._sweep_began or time.monotonic()
        self._cell, self._load, self._detail = (cell, position), None, ""
        self._live.show(self._sweep_status)

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        """Show how far the cell is."""
        self._load = progress
        self._live.show(self._sweep_status)

    def _sweep_status(self) -> content.Status:
        elapsed_s = time.monotonic() - self._sweep_began
        return content.sweep_status(*self._cell, self._load, elapsed_s, self._detail)

    def attempt_set_aside(self, cell: Cell, summary: CellSummary) -> None:
        """Show what was amiss with an attempt that is repeated."""
        self._live.write(set_aside_line(summary, width=self._width - 1, encoding=encoding()))

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        """Show the finished cell, where no line moves."""
        if not self._moves:
            self._live.write(cell_line(summary, width=self._width - 1, encoding=encoding()))

    def curve_done(self, view: CurveView) -> None:
        """Show what the curve came to, where a line moves that showed its cells."""
        if self._moves:
            text = f"{content.curve_name(view.curve)} · {wording.max_batch_sentence(view)}"
            printable = TextPage(encoding=encoding()).printable(text)
            colour = wording.OUTCOME_COLOURS[view.verdict.outcome]
            self._live.write(Line(shorten(printable, self._width - 1), {colour: True}))

    # Lines that stay

    def note(self, text: str) -> None:
        """Show a text, wrapped, once per pytest run."""
        if text not in self._noted:
            self._noted.add(text)
            page = TextPage(self._width - 1, encoding())
            page.add_sentence(text, indent=0)
            for line in page.lines:
                self._live.write(line)

    def _open_stream(self) -> TextIO:
        """Return a way of its own to the terminal.

        So nothing that is captured is let through while it is written to, and another thread may write.
        """
        with self._uncaptured():
            stream = sys.stdout
            with suppress(OSError):  # What another program has put in its place may be no file.
                stream = self._own_stream = os.fdopen(
                    os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors
                )
        return stream

    def _end_line(self) -> None:
        """End the line that pytest has begun, if it has, and let all that it has written go first."""
        with self._uncaptured():
            self._reporter.ensure_newline()
            self._reporter.flush()

    @contextmanager
    def _uncaptured(self) -> Generator[None]:
        if self._capture is None:
            yield
            return
        with self._capture.global_and_fixture_disabled():
            yield


def make_progress(config: pytest.Config) -> Progress:
    """Return what shows life: nothing on an xdist worker, without a terminal reporter and with `-q`."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.get_verbosity() < 0:
        return Progress()
    return TerminalProgress(config, reporter)


def shows_logs(config: pytest.Config) -> bool:
    """Whether pytest shows logs as they come (`log_cli`), which would cut in on a line that moves."""
    with suppress(ValueError):  # Without pytest's logging plugin there is no such key.
        return config.getoption("log_cli_level", None) is not None or bool(config.getini("log_cli"))
    return False


def page_width(config: pytest.Config) -> int:
    """Return the columns to write to; a log file, which has none, gets enough for every figure."""
    width: int = config.get_terminal_writer().fullwidth
    return width if "COLUMNS" in os.environ or sys.stdout.isatty() else max(width, LOG_WIDTH)


def encoding() -> str | None:
    """Return the encoding of the terminal pytest writes to."""
    return getattr(sys.__stdout__, "encoding", None)


class Cancelled(BaseException):
    """The test that waited for the sweep was cancelled."""


class ThreadSafeObserver(Observer):
    """Passes what happens on to what shows it (if anything does) and to the hooks."""

    def __init__(self, progress: Observer, hooks: Any, cancelled: threading.Event) -> None:
        self._progress = progress
        self._hooks = hooks
        self._cancelled = cancelled

    def waits_for_lock(self, holder: LockHolder) -> None:
        """The sweep waits for another; ends it if it was cancelled."""
        self._stop_if_cancelled()
        self._progress.waits_for_lock(holder)

    def warm_up_started(self) -> None:
        """Sessions are played alone."""
        self._progress.warm_up_started()

    def curve_started(self, curve: Curve) -> None:
        """A curve begins."""
        self._stop_if_cancelled()
        self._progress.curve_started(curve)

    def cell_started(self, cell: Cell, position: Position) -> None:
        """A repetition of a cell begins."""
        self._progress.cell_started(cell, position)

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        """A cell goes on; ends the sweep if it was cancelled."""
        self._stop_if_cancelled()
        self._progress.cell_progress(cell, repetition, progress)

    def attempt_set_aside(self, cell: Cell, summary: CellSummary) -> None:
        """Pass on that a repetition is measured again; hooks hear of it when it is done."""
        self._progress.attempt_set_aside(cell, summary)
        self._stop_if_cancelled()

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        """One repetition of a cell is measured and stored."""
        self._progress.cell_done(cell, summary)
        self._hooks.pytest_openenv_scale_cell_done(cell=cell, summary=summary)
        self._stop_if_cancelled()

    def curve_done(self, view: CurveView) -> None:
        """A curve is judged."""
        self._progress.curve_done(view)

    def note(self, text: str) -> None:
        """Pass on a text that is shown once."""
        self._progress.note(text)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled
