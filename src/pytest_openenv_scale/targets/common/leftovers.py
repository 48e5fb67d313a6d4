"""SIGTERM and SIGHUP as an orderly end, for what does not die with this process by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANDLED = (signal.SIGINT, *_SIGNALS)
_T = TypeVar("_T")


class _Orderly:
    """Raises KeyboardInterrupt at a signal that would end the process at once, while anybody holds it."""

    def __init__(self) -> None:
        self._holders = 0
        self._replaced: dict[int, Any] = {}

    def hold(self) -> None:
        """Begin; signals somebody else handles or ignores stay as they are, as does every other thread's program."""
        self._holders += 1
        if self._holders > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._replaced[number] = signal.signal(number, _interrupt)

    def release(self) -> None:
        """End; the last one puts back what was there."""
        self._holders -= 1
        if self._holders or threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._replaced.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)
        self._replaced.clear()


orderly = _Orderly()
"""Held while something is up that must be taken down: a test run ended by a signal then unwinds as at Ctrl-C."""


def uninterrupted(work: Callable[[], _T]) -> _T:
    """Return what `work` returns; an interrupt is raised only once the work is over.

    What a request creates is thus always known to who asked for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # Signals are none of its business.
    handlers = {number: handler for number in _HANDLED if callable(handler := signal.getsignal(number))}
    came: list[tuple[int, FrameType | None]] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: came.append((number, frame)))
        return work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")
