"""Defects of who gets in: slots that do not come back, and what happens when there are none."""

from __future__ import annotations

import asyncio
from typing import Any

from .environment import Action
from .server import Inbox, Server, Session


class LeakedSlots(Server):
    """The slot is given back after the loop, not in a `finally`: where the connection is dropped, never.

    A session that ends with "close", with a close frame or by the server's own word gives its slot back.
    """

    def release(self, slot: int, *, dropped: bool) -> None:
        if not dropped:
            super().release(slot, dropped=dropped)


class LeakedSlotsOnClose(Server):
    """A race in the count of sessions: every fourth of them is not counted out, however it ends."""

    every = 4

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._ended = 0

    def release(self, slot: int, *, dropped: bool) -> None:
        self._ended += 1
        if self._ended % self.every:
            super().release(slot, dropped=dropped)


class SlowlyLeakedSlots(LeakedSlotsOnClose):
    """The same race, seldom lost: what a server shows after an hour of training, not in a first look."""

    every = 700


class LeakedEveryFortiethSlot(LeakedSlotsOnClose):
    """The same race: sound in one burst of as many sessions as it holds, and less and less of a server after it."""

    every = 40


class DeadlockPastLimit(Server):
    """`async with lock: await slot_free()`: who is too many waits with the lock that every step takes.

    Sessions that are in stand still until that client leaves or a slot is given back.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._lock = asyncio.Lock()

    async def admit(self, inbox: Inbox) -> int | None:
        async with self._lock:
            return await self.wait_for_slot(inbox)

    async def step(self, session: Session, action: Action) -> dict[str, Any]:
        async with self._lock:
            # The books are kept under the lock; the wait of the step is not.
            pass
        return await super().step(session, action)


class QueuesPastLimit(Server):
    """`async with semaphore:` around the session: one too many is accepted and hears nothing till one is free."""

    async def admit(self, inbox: Inbox) -> int | None:
        return await self.wait_for_slot(inbox)


class OneSession(Server):
    """No defect: `max_concurrent_envs=1` in the code, as `openenv init` writes it, whatever the variable says."""

    def __init__(self, limit: int) -> None:
        super().__init__(1)
