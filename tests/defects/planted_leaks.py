"""Defects that take time to show: what each step or session leaves behind in the process."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .environment import Action, Environment
from .server import Server, Session

_STEP_BYTES = 8 * 1024
_SESSION_BYTES = 64 * 1024
_SLOWER, _LOG_S = 0.02, 10.0
"""Seconds by which a step takes longer for every second in the log, and how many seconds the log holds."""


class MemoryPerStep(Server):
    """A list of transcripts nobody empties: each step leaves 8 kB."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._transcripts: list[bytes] = []

    async def step(self, session: Session, action: Action) -> dict[str, Any]:
        self._transcripts.append(os.urandom(_STEP_BYTES))
        return await super().step(session, action)


class MemoryPerSession(Server):
    """A registry that sessions are entered in and never struck from: each leaves 64 kB."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._registry: list[bytes] = []

    def closed(self, session: Session) -> None:
        self._registry.append(os.urandom(_SESSION_BYTES))


class ThreadPerSession(Server):
    """An executor per session that is never shut down: each leaves a thread."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._executors: list[ThreadPoolExecutor] = []

    def open(self) -> Environment:
        executor = ThreadPoolExecutor(1)
        executor.submit(int)
        self._executors.append(executor)
        return super().open()


class DescriptorPerSession(Server):
    """A log file per session that is never closed: each leaves a descriptor."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._logs: list[int] = []

    def open(self) -> Environment:
        self._logs.append(os.open(os.devnull, os.O_WRONLY))
        return super().open()


class SlowerWithTime(Server):
    """A log of the session that grows with time, up to 10 s of it, and that every step reads through.

    Each second makes the steps of a session 20 ms slower; short sessions, and the next ones, are as fast as ever.
    """

    async def step(self, session: Session, action: Action) -> dict[str, Any]:
        await asyncio.sleep(min(time.monotonic() - session.opened_s, _LOG_S) * _SLOWER)
        return await super().step(session, action)
