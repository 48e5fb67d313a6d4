"""Time that passes twenty times as fast while the event loop has nothing to do: for servers that run in that loop.

A silence of two seconds then takes a tenth of one, and all who measure it see two seconds. Whatever happens takes the
time it takes: only waiting is shortened, so that no busy machine shortens a patience. While a thread or a process
runs that the test started (a server, say), time is real, as what happens there is not seen here.
"""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import threading
import time
from typing import Any

import pytest

from pytest_openenv_scale.client import connection

FACTOR = 20.0


class _Time:
    """How far the clocks of this process are ahead, in seconds, and whether time is real at the moment."""

    def __init__(self) -> None:
        self.skipped_s = 0.0
        self.calls = 0
        """Calls that the loop's own threads have not answered yet."""
        self.processes: list[subprocess.Popen[Any]] = []
        self._others = set(threading.enumerate())

    @property
    def real(self) -> bool:
        """Whether somebody beside the event loop is at work."""
        threads = set(threading.enumerate()) - self._others
        return (
            self.calls > 0
            or any(not thread.name.startswith("asyncio_") for thread in threads)
            or any(process.returncode is None for process in self.processes)
        )


def pass_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits of event loops until the test ends."""
    fake_time = _Time()
    perf_counter, monotonic = time.perf_counter, time.monotonic
    # The class of selector that event loops take, and the one way by which they call into other threads.
    select, run_in_executor = selectors.DefaultSelector.select, asyncio.BaseEventLoop.run_in_executor
    offset: Any = connection.Clock.offset

    def select_for_less(selector: selectors.DefaultSelector, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0 or fake_time.real:
            return select(selector, timeout)
        ready = select(selector, timeout / FACTOR)
        if not ready:
            fake_time.skipped_s += timeout - timeout / FACTOR
        return ready

    def counted(loop: asyncio.BaseEventLoop, *call: Any) -> Any:
        fake_time.calls += 1
        future = run_in_executor(loop, *call)
        future.add_done_callback(lambda _: setattr(fake_time, "calls", fake_time.calls - 1))
        return future

    class Process(subprocess.Popen[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            fake_time.processes.append(self)

    def ahead() -> float:
        return perf_counter() + fake_time.skipped_s

    monkeypatch.setattr(selectors.DefaultSelector, "select", select_for_less)
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", counted)
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + fake_time.skipped_s)
    monkeypatch.setattr(time, "perf_counter", ahead)
    monkeypatch.setattr(connection, "perf_counter", ahead)
    # The kernel tells arrivals by the wall clock, which is behind by all that was skipped.
    behind = property(
        lambda clock: offset.__get__(clock) - fake_time.skipped_s,
        lambda clock, value: offset.__set__(clock, value + fake_time.skipped_s),
    )
    monkeypatch.setattr(connection.Clock, "offset", behind)
