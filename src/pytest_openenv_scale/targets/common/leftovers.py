"""What outlives this process unless it is cleaned up: who owns it, and an orderly end on SIGTERM and SIGHUP."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

_ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_DEFERRED_SIGNALS = (signal.SIGINT, *_ENDING_SIGNALS)
_T = TypeVar("_T")


class _GracefulSignals:
    """Raises KeyboardInterrupt at a signal that would end the process at once, while entered; may be entered again."""

    def __init__(self) -> None:
        self._holders = 0
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> None:
        """Install the handlers, the first time and in the main thread; a signal with a handler keeps it."""
        self._holders += 1
        if self._holders > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in _ENDING_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._replaced[number] = signal.signal(number, _raise_interrupt)

    def __exit__(self, *error: object) -> None:
        """Leave once; the last time restores the handlers that were there before."""
        self._holders -= 1
        if self._holders or threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._replaced.items():
            if signal.getsignal(number) is _raise_interrupt:
                signal.signal(number, handler)
        self._replaced.clear()


graceful_signals = _GracefulSignals()
"""Entered while something runs that must be removed: a test run ended by a signal then unwinds as at Ctrl-C."""


def deferring_interrupts(work: Callable[[], _T]) -> _T:
    """Return what `work` returns; an interrupt is raised only once the work is over.

    The caller thus always learns what a request has created.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # Only the main thread receives signals.
    handlers = {number: handler for number in _DEFERRED_SIGNALS if callable(handler := signal.getsignal(number))}
    received: list[tuple[int, FrameType | None]] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: received.append((number, frame)))
        return work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in received:
            handlers[number](number, frame)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")


@dataclass(frozen=True)
class Leftover:
    """What a run that was killed left behind: the line that names it, and what removes it (False: it was gone).

    None in place of that says that it cannot be removed from here; the line then says why.
    """

    line: str
    remove: Callable[[], object] | None


_DEAD_STATES = "ZXx"


def owner_label() -> str:
    """Return the label that names this process: `<pid>:<start time>:<machine>`, without spaces or commas."""
    pid = os.getpid()
    return f"{pid}:{_start_time(pid)}:{_machine_id()}"


def is_alive(label: str) -> bool:
    """Say whether the process that `owner_label` named may still run.

    True for one of another machine or container, and for a label nobody here wrote: what cannot be known
    to be left behind must be left alone.
    """
    pid, _, rest = label.partition(":")
    start_time, _, machine = rest.partition(":")
    if machine != _machine_id() or not pid.isdecimal():
        return True
    return _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str | None:
    """Return when a process began, or None where none of that number runs (a zombie does not)."""
    try:
        # psutil's own time moves with the clock; the kernel's ticks since boot do not.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return _start_time_by_psutil(pid)
    return None if fields[0] in _DEAD_STATES else f"{_boot_id()}-{fields[19]}"


def _start_time_by_psutil(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "0"


def _machine_id() -> str:
    """Return a hash of host name and PID namespace: equal for processes whose process ids mean the same."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]
