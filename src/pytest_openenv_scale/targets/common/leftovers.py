"""What does not die with this process by itself: whose it is, and an orderly end on SIGTERM and SIGHUP."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANDLED = (signal.SIGINT, *_SIGNALS)
_T = TypeVar("_T")


class _GracefulSignals:
    """Raises KeyboardInterrupt at a signal that would end the process at once, while anybody holds it."""

    def __init__(self) -> None:
        self._holders = 0
        self._replaced: dict[int, Any] = {}

    def acquire(self) -> None:
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


graceful_signals = _GracefulSignals()
"""Held while something is up that must be taken down: a test run ended by a signal then unwinds as at Ctrl-C."""


def deferring_interrupts(work: Callable[[], _T]) -> _T:
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


_DEAD_STATES = "ZXx"


def owner_label() -> str:
    """Return the label that names this process: `<pid>:<start time>:<machine>`, without spaces or commas."""
    pid = os.getpid()
    return f"{pid}:{_started(pid)}:{_machine()}"


def is_alive(label: str) -> bool:
    """Say whether the process that `owner_label` named may still run.

    True for one of another machine or container, and for a label nobody here wrote: what cannot be known
    to be left behind must be left alone.
    """
    pid, _, rest = label.partition(":")
    started, _, machine = rest.partition(":")
    if machine != _machine() or not pid.isdecimal():
        return True
    return _started(int(pid)) == started


def _started(pid: int) -> str | None:
    """Return when a process began, or None where none of that number runs (a zombie does not)."""
    try:
        # psutil's own time moves with the clock; the kernel's ticks since boot do not.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return _started_elsewhere(pid)
    return None if fields[0] in _DEAD_STATES else f"{_boot()}-{fields[19]}"


def _started_elsewhere(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "0"


def _machine() -> str:
    """Return what two processes share that can see each other's numbers: the host and its PID namespace."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]
