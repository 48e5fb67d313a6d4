"""Whether what was seen among others is seen alone too: then it is no matter of who else plays."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Set

from pytest_openenv_scale.core.check import CheckOutcome

from .trajectory import chance

PLAYS, AGAIN_S = 40, 10.0
"""How often sessions play alone again, at most, and after how many seconds no further one begins."""

_CHANCE = 0.001
"""How improbable it has to be that what was seen fell among others by mere chance."""


async def only_among_others(
    suspects: dict[str, set[int]],
    among: int,
    alone: int,
    again: Callable[[int], Awaitable[Set[str] | None]],
    *,
    rare: Set[str] = frozenset(),
) -> tuple[CheckOutcome, int]:
    """Play alone again until it is clear whether what was seen among others is seen alone; and how often that was.

    `suspects` are fields, with the episodes in which they were seen, of `among` ones among others; `alone` never saw
    them. `again` plays once more, is given how often it has, and returns the fields it saw, None where nothing was
    answered; those are taken out of `suspects`. Met where none is left, missed where chance explains none. What is
    `rare` alone as well takes all the plays there is time for.
    """
    began, replayed = time.perf_counter(), 0
    while replayed < PLAYS and (replayed == 0 or time.perf_counter() - began < AGAIN_S):
        seen = await again(replayed)
        if seen is None:
            break
        replayed += 1
        for path in seen & suspects.keys():
            del suspects[path]
        if not suspects:
            return CheckOutcome.MET, replayed
        differing = len(set[int]().union(*suspects.values()))
        if not rare & suspects.keys() and chance(differing, among, alone + replayed) < _CHANCE:
            return CheckOutcome.MISSED, replayed
    if replayed >= PLAYS and rare & suspects.keys():
        return CheckOutcome.MISSED, replayed
    return CheckOutcome.INCONCLUSIVE, replayed
