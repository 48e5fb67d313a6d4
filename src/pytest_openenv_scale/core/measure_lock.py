"""One measurement at a time on this machine: a lock that tells who holds it, and a bounded wait for it."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf
from pathlib import Path

from .errors import RunError
from .parsing import format_number
from .text import shorten

_measuring_threads: list[int] = []
"""The thread of this process that holds the lock, if one does."""

_POLL_S = 0.2
_LONGEST_COMMAND = 80
_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that measures, as it says itself: its command and run, and since when (seconds since the epoch).

    Its text is "process 1234, since 12:03:11 (pytest tests)".
    """

    pid: int | None = None
    command: str = ""
    run_id: str = ""
    since: float | None = None

    @classmethod
    def parse(cls, written: bytes) -> LockHolder:
        """Read what a holder wrote; one that has not written it yet, or in another form, is nobody known."""
        try:
            return cls(**json.loads(written))
        except (ValueError, TypeError):
            return cls()

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that does not tell its number"
        since = "" if self.since is None else f", since {_time_text(datetime.fromtimestamp(self.since))}"
        command = f" ({shorten(self.command, _LONGEST_COMMAND)})" if self.command else ""
        return f"process {self.pid}{since}{command}"


def _time_text(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def _ignore_holder(holder: LockHolder) -> None:
    """Wait without a word."""


@contextmanager
def measure_lock(
    on_wait: Callable[[LockHolder], None] = _ignore_holder,
    *,
    timeout_s: float = inf,
    command: str = "",
    run_id: str = "",
) -> Generator[None]:
    """Let one process of this user on this machine measure at a time; others wait for it, `timeout_s` seconds at most.

    `on_wait` is called several times a second while that is another one. `command` and `run_id` are what others read of
    this process; for processes of the same run, which take turns, the wait is not bounded.

    Raises:
        RunError: the time is over, this thread measures already (it would wait for itself), or there can be no lock.
    """
    if threading.get_ident() in _measuring_threads:
        raise RunError("a sweep is running already in this process; wait for it before starting the next")
    path = Path(tempfile.gettempdir()) / f"openenv-scale-{os.getuid()}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RunError(f"measurements cannot be kept apart: {path}: {error.strerror}; set TMPDIR") from None
    with os.fdopen(descriptor, "r+b", buffering=0):
        _wait_for_lock(descriptor, on_wait, timeout_s, run_id)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(LockHolder(os.getpid(), command, run_id, time.time()))).encode(), 0)
        _measuring_threads.append(threading.get_ident())
        try:
            yield
        finally:
            _measuring_threads.remove(threading.get_ident())


def _wait_for_lock(descriptor: int, on_wait: Callable[[LockHolder], None], timeout_s: float, run_id: str) -> None:
    waited_s, looked_at = 0.0, time.monotonic()
    while not _try_lock(descriptor):
        holder = LockHolder.parse(os.pread(descriptor, _MAX_BYTES, 0))
        on_wait(holder)
        if waited_s >= timeout_s:
            raise RunError(
                f"another measurement on this machine, held by {holder}, did not end within"
                f" {format_number(timeout_s)} s (--openenv-lock-timeout): end it, or wait longer"
            )
        time.sleep(min(_POLL_S, timeout_s - waited_s))
        now = time.monotonic()
        if not run_id or holder.run_id != run_id:
            waited_s += now - looked_at
        looked_at = now


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
