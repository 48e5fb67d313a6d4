"""Locks between processes that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from .manifest import RunError

_holder: list[int] = []
"""The thread of this process that measures, if one does."""


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock of a file while the block runs, waiting for whoever has it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Held:
    """A lock kept for a lifetime: whoever asks `is_held` can tell whether its holder still lives."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock up; doing so twice is harmless."""
        self._file.close()


def is_held(path: Path) -> bool:
    """Say whether a living process holds the lock of a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def measure_lock(on_wait: Callable[[str], None] | None = None) -> Generator[None]:
    """Let one process of this user on this machine measure at a time; others wait for it.

    `on_wait` is told, once, who is waited for.

    Raises:
        RunError: this thread measures already (it would wait for itself), or the lock cannot be made.
    """
    if threading.get_ident() in _holder:
        raise RunError("a sweep is running already in this process; wait for it before starting the next")
    path = Path(tempfile.gettempdir()) / f"openenv-scale-{os.getuid()}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RunError(f"measurements cannot be kept apart: {path}: {error.strerror}; set TMPDIR") from None
    with os.fdopen(descriptor, "r+b", buffering=0):
        _wait_for(descriptor, on_wait)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        _holder.append(threading.get_ident())
        try:
            yield
        finally:
            _holder.remove(threading.get_ident())


def _wait_for(descriptor: int, on_wait: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
            on_wait(f"waiting for another measurement on this machine (process {holder or 'unknown'})")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
