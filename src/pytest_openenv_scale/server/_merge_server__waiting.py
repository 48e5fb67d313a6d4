"""Waits that hold no thread, are never short, and end at once when the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

# uvloop counts whole milliseconds and rounds to the nearest: half of one more makes it round up.
_ROUND_UP = 0.0005


class ClientGoneError(Exception):
    """The client dropped its connection."""


async def wait_watching(seconds: float, receive: Receive, on_event: Callable[[Event], bool]) -> float:
    """Wait and return the seconds really waited, never fewer than asked for.

    Meanwhile events are received and handed to `on_event`, until it answers False (it can hold no more). The
    wait itself is a deadline on `receive`, so a waiting session costs one timer and no further task. Whatever
    `on_event` raises ends the wait.
    """
    begun = monotonic()
    wanted = True
    while (left := begun + seconds - monotonic()) > 0:
        try:
            async with asyncio.timeout(left + _ROUND_UP):
                while wanted:
                    wanted = on_event(await receive())
                await asyncio.sleep(left + 1)
        except TimeoutError:
            continue
    return monotonic() - begun
