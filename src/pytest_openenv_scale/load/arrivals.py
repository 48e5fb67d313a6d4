"""Which session of a share begins next, and when: each once, or slot by slot while a steady state lasts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import accumulate, islice
from math import inf

from pytest_openenv_scale.config.think import ThinkTimes
from pytest_openenv_scale.core.parsing import Arrival

from .ipc import Prepare
from .session import SessionRecord

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""How long a slot waits that was refused, and after how many doublings no longer, where no `Retry-After` says it."""


class Arrivals:
    """Sessions that begin once each, at the moments given: pairs of a clock time in seconds and a number, ascending."""

    def __init__(self, due: Iterable[tuple[float, int]]) -> None:
        self._waiting = deque(due)

    def first(self) -> tuple[float, int] | None:
        """Return when the next session is due and its number; None where none is left at the moment."""
        return self._waiting[0] if self._waiting else None

    def take(self) -> tuple[float, int]:
        """Return the same, and go on to the one after it."""
        return self._waiting.popleft()

    def session_ended(self, record: SessionRecord, think: ThinkTimes | None) -> bool:
        """Note the end of a session, and return whether that makes another one the first that is due."""
        return False

    def slot_of(self, number: int) -> int | None:
        """Return the slot that plays a session; None where sessions have none."""
        return None

    def stop(self) -> list[tuple[float, int]]:
        """Let no other session begin; return those that would have."""
        left = list(self._waiting)
        self._waiting.clear()
        return left


class Slots(Arrivals):
    """Slots that play session after session until a clock time, `ends`; of `slots` in all, these are a process's.

    Session k of slot i has the number i + k × `slots`.
    """

    def __init__(self, due: Iterable[tuple[float, int]], slots: int, ends: float) -> None:
        super().__init__(())
        self._heap = list(due)
        heapify(self._heap)
        self._slots = slots
        self._ends = ends
        self._pauses: dict[int, float] = {}

    def first(self) -> tuple[float, int] | None:
        """Return when the next session is due and its number; None where no slot is free, or time is up before."""
        return self._heap[0] if self._heap and self._heap[0][0] < self._ends else None

    def take(self) -> tuple[float, int]:
        """Return the same, and go on to the one after it."""
        return heappop(self._heap)

    def session_ended(self, record: SessionRecord, think: ThinkTimes | None) -> bool:
        """Let the slot play its next session once it has thought, or waited as it was refused.

        A refused one waits for as long as the server said, else for a second that doubles with every refusal.
        """
        slot = record.request_id % self._slots
        pause = 0.0 if think is None else think.next()
        if record.error is None or record.reset_done is not None:
            self._pauses.pop(slot, None)
        else:
            pause = self._pauses.get(slot, FIRST_PAUSE_S)
            self._pauses[slot] = min(2 * pause, LONGEST_PAUSE_S)
            pause = pause if record.retry_after_s is None else record.retry_after_s
        following = ((record.closed or 0.0) + pause, record.request_id + self._slots)
        heappush(self._heap, following)
        return self._heap[0] is following

    def slot_of(self, number: int) -> int | None:
        """Return the slot that plays a session."""
        return number % self._slots

    def stop(self) -> list[tuple[float, int]]:
        """Let no other session begin; of those that would have, only the first of each slot is known."""
        left = [(due, number) for due, number in self._heap if number < self._slots]
        self._heap.clear()
        return left


def plan_arrivals(arrival: Arrival, assignment: Prepare, started: float) -> Arrivals:
    """Return the arrivals of a process's share of a cell that begins at a clock time; a held one is due when admitted.

    `rate` is a Poisson process; where it is to last, so many sessions arrive at times drawn evenly from it, which is
    what such a process is given their number (Ross, Stochastic Processes, theorem 2.3.1).
    """
    numbers, request = assignment.sessions, assignment.request
    batch = request.cell.batch
    if arrival.kind == "steady":
        begin = ((started + arrival.ramp * number / batch, number) for number in numbers)
        return Slots(begin, batch, started + (arrival.seconds or inf))
    if arrival.rate is None:
        return Arrivals((started, number) for number in numbers)
    source = random.Random(request.seed + request.repetition)
    if arrival.seconds is None:
        offsets = list(accumulate(source.expovariate(arrival.rate) for _ in range(batch)))
    else:
        offsets = sorted(source.uniform(0.0, arrival.seconds) for _ in range(batch))
    own = islice(offsets, assignment.process, None, assignment.processes)
    return Arrivals((started + offset, number) for offset, number in zip(own, numbers, strict=True))
