"""Who hears of a sweep as it goes on: the live lines, the hooks, and whoever wants to end it early."""

from __future__ import annotations

import threading
from typing import Any

from .core.plan import Cell, Curve
from .core.summary import CellSummary
from .core.sweep import CellProgress, Observer
from .core.view import CurveView


class Cancelled(BaseException):
    """The test that waited for the sweep was cancelled."""


class Relay(Observer):
    """Passes what happens on to the live lines (if there are any) and the hooks."""

    def __init__(self, progress: Observer | None, hooks: Any, cancelled: threading.Event) -> None:
        self._progress = progress or Observer()
        self._hooks = hooks
        self._cancelled = cancelled

    def curve_started(self, curve: Curve) -> None:
        """A curve begins."""
        self._stop_if_cancelled()
        self._progress.curve_started(curve)

    def cell_progress(self, progress: CellProgress) -> None:
        """A cell goes on; ends the sweep if it was cancelled."""
        self._stop_if_cancelled()
        self._progress.cell_progress(progress)

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        """One repetition of a cell is measured and stored."""
        self._progress.cell_done(cell, summary)
        self._hooks.pytest_openenv_scale_cell_done(cell=cell, summary=summary)
        self._stop_if_cancelled()

    def curve_done(self, view: CurveView) -> None:
        """A curve is judged."""
        self._progress.curve_done(view)

    def note(self, text: str) -> None:
        """Something a person should know once."""
        self._progress.note(text)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled
