"""A line that says what goes on: one that moves at the bottom of a terminal, elsewhere one every 30 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from pytest_openenv_scale.reporting.content.progress import Status

from .output import Output, status_line
from .page import Line

EVERY_S = 30.0
"""Seconds without a line after which one is written that says what goes on."""


class LiveLine(Protocol):
    """Shows what goes on until it is cleared, and may be shown again."""

    def show(self, status: Callable[[], Status]) -> None:
        """Show what goes on from now on; `status` is asked again and again, by another thread."""
        ...

    def write(self, line: Line) -> None:
        """Write a line that stays."""
        ...

    def clear(self) -> None:
        """Show nothing any more; doing so twice is harmless."""
        ...


def live_line(output: Output, *, moves: bool) -> LiveLine:
    """Return what shows life: a line that `moves`, or else one now and then."""
    if not moves:
        return LineNowAndThen(output)
    # Only where it is needed: importing rich takes a tenth of a second.
    from .moving import MovingLine

    return MovingLine(output)


class LineNowAndThen:
    """Writes a line where there was none for 30 seconds."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._status: Callable[[], Status] | None = None
        self._written_at = 0.0
        self._lock = threading.RLock()
        self._cleared = threading.Event()

    def show(self, status: Callable[[], Status]) -> None:
        """See `LiveLine`."""
        with self._lock:
            begins = self._status is None
            self._status = status
            if begins:
                self._written_at, self._cleared = self._clock(), threading.Event()
                threading.Thread(target=self._run, args=(self._cleared,), daemon=True).start()

    def write(self, line: Line) -> None:
        """See `LiveLine`."""
        with self._lock:
            self._written_at = self._clock()
            self._output.before()
            self._output.stream.write(f"{self._output.coloured(line)}\n")
            self._output.stream.flush()

    def clear(self) -> None:
        """See `LiveLine`."""
        with self._lock:
            self._status = None
            self._cleared.set()

    def tick(self) -> None:
        """Write the line if it is time for one."""
        with self._lock:
            if self._status is not None and self._clock() - self._written_at >= EVERY_S:
                self.write(status_line(self._status(), self._output.width, self._output.stream.encoding))

    def _run(self, cleared: threading.Event) -> None:
        with suppress(OSError):  # Nobody reads any more: whoever writes the next line is told.
            while not cleared.wait(max(self._written_at + EVERY_S - self._clock(), 0.1)):
                self.tick()
