"""The progress of a sweep: passed to hooks, and shown as live lines, on a terminal as one that is rewritten."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core.parsing import format_number, parse_arrival
from pytest_openenv_scale.engine.sweep import Observer
from pytest_openenv_scale.load.runner import LoadProgress
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.text.page import Line, TextPage
from pytest_openenv_scale.reporting.text.sweep import cell_line, set_aside_line
from pytest_openenv_scale.verdict.sweep import CurveView

LOG_WIDTH = 120
"""Columns written where standard output is no terminal and COLUMNS says nothing."""


class Progress(Observer):
    """Writes live lines through pytest's terminal reporter, whatever is captured at the moment."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._reporter = reporter
        self._width = page_width(config)
        self._rewrites = bool(reporter.isatty)
        self._line_is_open = False
        self._noted: set[str] = set()

    def curve_started(self, curve: Curve) -> None:
        """Show which curve begins, where lines are rewritten."""
        if self._rewrites:
            self._write(self._fit(f"{_curve_name(curve)} · …"))

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        """Show how far the cell is, where lines are rewritten."""
        if self._rewrites:
            self._write(self._fit(cell_status(cell, repetition, progress)))

    def attempt_set_aside(self, cell: Cell, summary: CellSummary) -> None:
        """Show what was amiss with an attempt that is repeated."""
        self._write(set_aside_line(summary, width=self._width - 1, encoding=encoding()))

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        """Show the finished cell."""
        self._write(cell_line(summary, width=self._width - 1, encoding=encoding()))

    def curve_done(self, view: CurveView) -> None:
        """End the rewritten line with what the curve came to."""
        if self._rewrites:
            sentence = wording.max_batch_sentence(view)
            colour = wording.OUTCOME_COLOURS[view.verdict.outcome]
            self._write(self._fit(f"{_curve_name(view.curve)} · {sentence}", **{colour: True}))
            self.end()

    def note(self, text: str) -> None:
        """Show a text, wrapped, once per pytest run."""
        if text not in self._noted:
            self._noted.add(text)
            self.end()
            page = TextPage(self._width - 1, encoding())
            page.add_sentence(text, indent=0)
            with self._uncaptured():
                for line in page.lines:
                    self._reporter.write_line(line.text)

    def line(self, text: str) -> None:
        """Show one line as it is, such as the output of a build."""
        self.end()
        with self._uncaptured():
            self._reporter.ensure_newline()
            self._reporter.write_line(text)
            self._reporter.flush()

    def end(self) -> None:
        """End the line that is being rewritten, if there is one."""
        if self._line_is_open:
            self._line_is_open = False
            with self._uncaptured():
                self._reporter.write("\n", flush=True)

    def _write(self, line: Line) -> None:
        with self._uncaptured():
            if not self._rewrites:
                self._reporter.write_line(line.text, **line.markup)
                self._reporter.flush()
                return
            if not self._line_is_open:
                self._reporter.ensure_newline()
                self._line_is_open = True
            self._reporter.rewrite(line.text, erase=True, **line.markup)
            self._reporter.flush()

    @contextmanager
    def _uncaptured(self) -> Generator[None]:
        if self._capture is None:
            yield
            return
        with self._capture.global_and_fixture_disabled():
            yield

    def _fit(self, text: str, **markup: bool) -> Line:
        page = TextPage(self._width - 1, encoding())
        text, ending = page.printable(text), page.printable("…")
        short = text if len(text) <= page.width else text[: page.width - len(ending)] + ending
        return Line(short, markup)


def make_progress(config: pytest.Config) -> Progress | None:
    """Return what shows live lines; None on an xdist worker, without a terminal and with `-qq`."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.get_verbosity() < -1:
        return None
    return Progress(config, reporter)


def page_width(config: pytest.Config) -> int:
    """Return the columns to write to; a log file, which has none, gets enough for every figure."""
    width: int = config.get_terminal_writer().fullwidth
    return width if "COLUMNS" in os.environ or sys.stdout.isatty() else max(width, LOG_WIDTH)


def encoding() -> str | None:
    """Return the encoding of the terminal pytest writes to."""
    return getattr(sys.__stdout__, "encoding", None)


def _curve_name(curve: Curve) -> str:
    wait = "" if curve.wait is None else f" · wait {format_number(curve.wait)} s"
    return f"{curve.infrastructure} · {curve.mode}{wait}"


def cell_status(cell: Cell, repetition: int, progress: LoadProgress) -> str:
    """Return how far a repetition is, in one line."""
    repeated = f" rep {repetition}" if repetition > 1 else ""
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    # How many sessions slots will play nobody knows.
    of_all = "" if wording.is_steady(cell.curve) else f" of {progress.asked:,}"
    return (
        f"{_curve_name(cell.curve)} · {wording.load_name(cell)}{repeated} · "
        f"{progress.open:,} open, {progress.finished:,}{of_all} over{failed} · {_elapsed(cell, progress.elapsed_s)}"
    )


def _elapsed(cell: Cell, elapsed_s: float) -> str:
    """Return "12 s", where it is known how long sessions begin "12 of 60 s", and thereafter "63 s, none begins"."""
    length_s = parse_arrival(cell.arrival).seconds
    if length_s is None:
        return f"{elapsed_s:.0f} s"
    return f"{elapsed_s:.0f} of {length_s:.0f} s" if elapsed_s < length_s else f"{elapsed_s:.0f} s, none begins"


class Cancelled(BaseException):
    """The test that waited for the sweep was cancelled."""


class ThreadSafeObserver(Observer):
    """Passes what happens on to the live lines (if there are any) and the hooks."""

    def __init__(self, progress: Observer | None, hooks: Any, cancelled: threading.Event) -> None:
        self._progress = progress or Observer()
        self._hooks = hooks
        self._cancelled = cancelled

    def curve_started(self, curve: Curve) -> None:
        """A curve begins."""
        self._stop_if_cancelled()
        self._progress.curve_started(curve)

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
