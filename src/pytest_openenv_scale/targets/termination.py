"""SIGTERM and SIGHUP as an orderly end, for what does not die with this process by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
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
    """Return what `work` returns; an interrupt of this thread is raised only once the work is over.

    What a request creates is thus always known to who asked for it.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="openenv-scale-request", daemon=True)
    interrupt: BaseException | None = None
    try:
        thread.start()
    except KeyboardInterrupt as error:
        interrupt = error
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if failed:
        raise failed[0]
    return done[0]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")
