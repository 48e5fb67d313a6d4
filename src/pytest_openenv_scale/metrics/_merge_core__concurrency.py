"""The most sessions that were open at one instant, exactly, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from .statistics import bin_counts, bins, together

MOST_SORTED = 2**21
"""So many moments are sorted at once; where there are more, time is cut into slices."""

Spans = Callable[[], Iterator[pa.Table]]
"""The columns `reset_done_s` and `closed_s`, piece by piece, from the start each time it is called."""


def peak_concurrency(spans: Spans, *, most_sorted: int = MOST_SORTED) -> int:
    """Return the most sessions at one instant whose reset was answered and which are not closed.

    A session is open from its answered reset up to, not including, its close; one without a close stays
    open to the end.
    """
    opened: list[pa.ChunkedArray] = []
    closed: list[pa.ChunkedArray] = []
    count = 0
    for ups, downs in _moments(spans):
        opened.append(ups)
        closed.append(downs)
        count += len(ups) + len(downs)
        if count > most_sorted:
            opened.clear()
            closed.clear()
            return _by_slices(spans, most_sorted)
    return _peak(opened, closed)


def _moments(spans: Spans) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield when sessions came up and when they closed; those that were never up are left out."""
    for span in spans():
        up, down = (span[name] for name in ("reset_done_s", "closed_s"))
        lived = pc.fill_null(pc.greater(pc.fill_null(down, math.inf), up), False)
        yield up.filter(lived), pc.drop_null(down.filter(lived))


def _peak(opened: list[pa.ChunkedArray], closed: list[pa.ChunkedArray]) -> int:
    """Return how far the number of open sessions rises above what it was before these moments; at least 0."""
    downs = sum(map(len, closed))
    moments = together([*closed, *opened])
    if len(moments) == downs:
        return 0
    # The sort is stable: at one instant closes come before openings.
    order = pc.sort_indices(moments)
    changes = pc.if_else(
        pc.less(order, pa.scalar(downs, pa.uint64())), pa.scalar(-1, pa.int32()), pa.scalar(1, pa.int32())
    )
    return max(0, int(pc.max(pc.cumulative_sum(changes)).as_py()))


def _by_slices(spans: Spans, most_sorted: int) -> int:
    """Cut time into slices of few moments, and sort only those in which the peak can be."""
    least, most = math.inf, -math.inf
    for moments in (moments for pair in _moments(spans) for moments in pair if len(moments)):
        extremes = pc.min_max(moments).as_py()
        least, most = min(least, extremes["min"]), max(most, extremes["max"])
    most = max(most, math.nextafter(least, math.inf))
    ups: dict[int, int] = {}
    downs: dict[int, int] = {}
    for pair in _moments(spans):
        for counts, moments in zip((ups, downs), pair, strict=True):
            for number, count in bin_counts(moments, least, most).items():
                counts[number] = counts.get(number, 0) + count
    slices = _slices(ups, downs, most_sorted)
    best = max(before for _, _, before, _ in slices)
    for first, last, before, highest in sorted(slices, key=lambda found: -found[3]):
        if highest <= best:
            break
        inside = [
            [_within(moments, bins(moments, least, most), first, last) for moments in pair] for pair in _moments(spans)
        ]
        best = max(best, before + _peak([pair[0] for pair in inside], [pair[1] for pair in inside]))
    return best


def _slices(ups: dict[int, int], downs: dict[int, int], most_sorted: int) -> list[tuple[int, int, int, int]]:
    """Return slices of time: first and last bin, sessions open before it, and the most there could be in it."""
    found: list[tuple[int, int, int, int]] = []
    before = open_now = size = rising = 0
    first: int | None = None
    last = 0
    for number in sorted({*ups, *downs}):
        moments = ups.get(number, 0) + downs.get(number, 0)
        if first is not None and size + moments > most_sorted:
            found.append((first, last, before, before + rising))
            first = None
        if first is None:
            first, before, size, rising = number, open_now, 0, 0
        last, size, rising = number, size + moments, rising + ups.get(number, 0)
        open_now += ups.get(number, 0) - downs.get(number, 0)
    if first is not None:
        found.append((first, last, before, before + rising))
    return found


def _within(moments: pa.ChunkedArray, numbers: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    return moments.filter(pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last)))
