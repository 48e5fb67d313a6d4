"""Defects of whose turn it is: a session that waits for others, and one that makes all others wait."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from .environment import Action
from .server import Server, Session

_ONE_IN, _UNLUCKY = 8, 3
_PASSED_BY = 9
"""How many steps another session takes before an unlucky one gets its turn."""

_QUIET_S = 0.2
"""Seconds without a step of another session after which nobody is in the way."""

_BLOCKED_S = 0.01


class UnfairLock(Server):
    """A queue by priority without ageing: the sessions in slots 3, 11, 19 … are served when the others pause.

    Ten times slower than the others while those are busy, as fast as they when they are alone.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._taken: Counter[int | None] = Counter()
        self._busy = 0
        self._last_busy = 0.0
        self._changed = asyncio.Event()

    async def step(self, session: Session, action: Action) -> dict[str, Any]:
        if session.slot is not None and session.slot % _ONE_IN == _UNLUCKY:
            await self._let_others_pass()
            return await super().step(session, action)
        self._busy += 1
        try:
            return await super().step(session, action)
        finally:
            self._busy -= 1
            self._last_busy = time.monotonic()
            self._taken[session.slot] += 1
            self._changed.set()

    async def _let_others_pass(self) -> None:
        before = self._taken.copy()
        while max((self._taken - before).values(), default=0) < _PASSED_BY:
            quiet = self._last_busy + _QUIET_S - time.monotonic()
            if not self._busy and quiet <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(quiet, 0.01))
            except TimeoutError:
                continue


class BlockingStep(Server):
    """`time.sleep` in an `async def`: while one session's step waits, the whole process does."""

    async def wait(self, seconds: float) -> None:
        time.sleep(seconds + _BLOCKED_S)
