"""How many sessions are open at once, exactly, also where their rows do not fit into memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from .percentiles import bins, concatenate, count_below, hold_pieces, runs_within, value_counts

MAX_MOMENTS_SORTED = 2**21
"""Most moments sorted at once; where there are more, time is cut into slices."""

Spans = Callable[[], Iterator[pa.Table]]
"""The columns `reset_done_s` and `closed_s`, piece by piece, from the start each time it is called."""


def peak_concurrency(spans: Spans, *, max_sorted: int = MAX_MOMENTS_SORTED) -> int:
    """Return the most sessions at one instant whose reset was answered and which are not closed.

    A session is open from its answered reset up to, not including, its close; one without a close stays
    open to the end.
    """
    pairs = hold_pieces(_moments(spans), lambda pair: sum(map(len, pair)), max_sorted)
    return _peak_by_slices(spans, max_sorted) if pairs is None else _peak(pairs)


def _moments(spans: Spans) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield when sessions opened and when they closed; those that were never open are left out."""
    for span in spans():
        opened, closed = (span[name] for name in ("reset_done_s", "closed_s"))
        was_open = pc.fill_null(pc.greater(pc.fill_null(closed, math.inf), opened), False)
        yield opened.filter(was_open), pc.drop_null(closed.filter(was_open))


def _peak(pairs: Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]]) -> int:
    """Return how far the number of open sessions rises above what it was before these moments; at least 0."""
    return max(0, pc.max(pc.cumulative_sum(_changes(pairs, closings_first=True))).as_py() or 0)


def _changes(pairs: Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]], *, closings_first: bool) -> pa.Array:
    """Return by how much the number of open sessions changes with each moment, in the order of time.

    At one instant either all closings come first, so that no session counts beside the next one, or all openings do, so
    that none is missed between two.
    """
    opened, closed = concatenate([pair[0] for pair in pairs]), concatenate([pair[1] for pair in pairs])
    first, then, change = (closed, opened, -1) if closings_first else (opened, closed, 1)
    order = pc.sort_indices(pa.concat_arrays([first, then]))  # It is stable.
    is_first = pc.less(order, pa.scalar(len(first), pa.uint64()))
    return pc.if_else(is_first, pa.scalar(change, pa.int32()), pa.scalar(-change, pa.int32()))


def _peak_by_slices(spans: Spans, max_sorted: int) -> int:
    """Cut time into slices of few moments, and sort only those in which the peak can be."""
    least, most = math.inf, -math.inf
    for moments in (moments for pair in _moments(spans) for moments in pair if len(moments)):
        extremes = pc.min_max(moments).as_py()
        least, most = min(least, extremes["min"]), max(most, extremes["max"])
    most = max(most, math.nextafter(least, math.inf))
    opened, closed = Counter[int](), Counter[int]()
    for openings, closings in _moments(spans):
        opened.update(value_counts(bins(openings, least, most)))
        closed.update(value_counts(bins(closings, least, most)))
    slices = _slices(opened, closed, max_sorted)
    best = max(before for _, _, before, _ in slices)
    for first, last, before, highest in sorted(slices, key=lambda item: -item[3]):
        if highest <= best:
            break
        inside = [
            (
                _moments_in_bins(openings, bins(openings, least, most), first, last),
                _moments_in_bins(closings, bins(closings, least, most), first, last),
            )
            for openings, closings in _moments(spans)
        ]
        best = max(best, before + _peak(inside))
    return best


def _slices(openings: Counter[int], closings: Counter[int], max_sorted: int) -> list[tuple[int, int, int, int]]:
    """Return slices of time: first and last bin, sessions open before it, and the most there could be in it."""
    slices: list[tuple[int, int, int, int]] = []
    before = open_now = size = rising = 0
    first: int | None = None
    last = 0
    for number in sorted({*openings, *closings}):
        moments = openings[number] + closings[number]
        if first is not None and size + moments > max_sorted:
            slices.append((first, last, before, before + rising))
            first = None
        if first is None:
            first, before, size, rising = number, open_now, 0, 0
        last, size, rising = number, size + moments, rising + openings[number]
        open_now += openings[number] - closings[number]
    if first is not None:
        slices.append((first, last, before, before + rising))
    return slices


def _moments_in_bins(moments: pa.ChunkedArray, numbers: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    return moments.filter(pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last)))


def least_concurrency(spans: Spans, edges: Sequence[float], *, max_sorted: int = MAX_MOMENTS_SORTED) -> list[int]:
    """Return the fewest sessions that are open at one instant between two edges and at them, for each two in turn.

    Edges ascend. As many intervals are sorted together as have few moments.
    """
    changes, moments = Counter[int](), Counter[int]()
    for pair in _moments(spans):
        for values, change in zip(pair, (1, -1), strict=True):
            for place, count in value_counts(count_below(values, edges)).items():
                changes[place] += change * count
                moments[place] += count
    open_now, least = changes[0], list[int]()
    for run in runs_within([moments[place] for place in range(1, len(edges))], max_sorted):
        after, until = edges[run.start], edges[run.stop]
        pairs = [(_between(opened, after, until), _between(closed, after, until)) for opened, closed in _moments(spans)]
        in_order, at = _changes(pairs, closings_first=False), 0
        for place in range(run.start + 1, run.stop + 1):
            levels = pc.cumulative_sum(in_order.slice(at, moments[place]))
            least.append(open_now + min(0, pc.min(levels).as_py() or 0))
            open_now += changes[place]
            at += moments[place]
    return least


def _between(moments: pa.ChunkedArray, after: float, until: float) -> pa.ChunkedArray:
    return moments.filter(pc.and_(pc.greater(moments, after), pc.less_equal(moments, until)))
