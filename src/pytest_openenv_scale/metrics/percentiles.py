"""Exact statistics of columns, also of those that do not fit into memory."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pytest_openenv_scale.core.serialization import Jsonable

from .certainty import percentile_ranks

MAX_VALUES_HELD = 2**24
"""Most values of a column held in memory at once (8 bytes each); columns with more are read several times."""

_BINS = 2**14
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
"""The percentiles that are computed, and the share of the values below each."""

Piece = TypeVar("Piece")

Values = Callable[[], Iterator[pa.ChunkedArray]]
"""A column without nulls, chunk by chunk, from its start each time it is called."""


@dataclass(frozen=True, slots=True)
class PhaseStats(Jsonable):
    """Exact statistics in seconds over `count` values of successful sessions.

    Percentiles interpolate linearly between the two nearest values. `intervals` are, by percentile, the values between
    which it lies with 95 % (`percentile_ranks`; None is an end that so few values leave open); none are given where the
    values were too many to be held.
    """

    count: int
    min: float
    mean: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    intervals: Mapping[str, tuple[float | None, float | None]] = field(
        default_factory=dict[str, "tuple[float | None, float | None]"]
    )


def phase_stats(values: pa.Array | pa.ChunkedArray) -> PhaseStats | None:
    """Return the exact statistics of a column of seconds, nulls left out; None where nothing is left."""
    present = pc.drop_null(values)
    if len(present) == 0:
        return None
    extremes: dict[str, float] = pc.min_max(present).as_py()
    quantiles = pc.quantile(present, q=list(PERCENTILES.values()), interpolation="linear").to_pylist()
    return PhaseStats(
        count=len(present),
        min=extremes["min"],
        mean=pc.mean(present).as_py(),
        max=extremes["max"],
        **dict(zip(PERCENTILES, quantiles, strict=True)),
        intervals=_intervals(present),
    )


def _intervals(values: pa.Array | pa.ChunkedArray) -> dict[str, tuple[float | None, float | None]]:
    """Return the interval of every percentile of a column that is neither empty nor has nulls."""
    count = len(values)
    ends = {name: percentile_ranks(count, share) for name, share in PERCENTILES.items()}
    ranks = sorted({rank for pair in ends.values() for rank in pair if rank is not None})
    if not ranks:
        return dict.fromkeys(ends, (None, None))
    positions = [(rank - 1) / max(1, count - 1) for rank in ranks]
    value_at: dict[int | None, float] = dict(
        zip(ranks, pc.quantile(values, q=positions, interpolation="nearest").to_pylist(), strict=True)
    )
    return {name: (value_at.get(low), value_at.get(high)) for name, (low, high) in ends.items()}


def quantile_bounds(values: pa.ChunkedArray, unknown: int) -> dict[str, tuple[float, float | None]]:
    """Return the least and the most that each percentile can be where `unknown` more values may be anything from 0 on.

    Where some of them do not exist at all a percentile lies between these bounds too. None is no upper bound; each
    bound is one of the values, never between two.
    """
    present = [*values.chunks]
    least = pa.chunked_array([*present, pa.array([0.0] * unknown, pa.float64())])
    most = pa.chunked_array([*present, pa.array([math.inf] * unknown, pa.float64())])
    shares = list(PERCENTILES.values())
    low = pc.quantile(least, q=shares, interpolation="lower").to_pylist()
    high = pc.quantile(most, q=shares, interpolation="higher").to_pylist()
    if not len(least):
        return {}
    bounds = zip(low, (None if math.isinf(value) else value for value in high), strict=True)
    return dict(zip(PERCENTILES, bounds, strict=True))


def column_stats(values: Values, *, max_held: int = MAX_VALUES_HELD) -> PhaseStats | None:
    """Return the exact statistics of a column of any length; None where it is empty."""
    chunks = hold_pieces(values(), len, max_held)
    return _stats_by_reading_again(values, max_held) if chunks is None else phase_stats(concatenate(chunks))


def hold_pieces(pieces: Iterable[Piece], size: Callable[[Piece], int], most: int) -> list[Piece] | None:
    """Return the pieces of a column together; None, and none of them is held, where they are larger than `most`."""
    held: list[Piece] = []
    for piece in pieces:
        held.append(piece)
        most -= size(piece)
        if most < 0:
            return None
    return held


def concatenate(pieces: list[pa.ChunkedArray]) -> pa.Array:
    """Join columns of seconds into one array and empty the list; results then do not depend on how they were cut."""
    joined = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pa.float64())
    pieces.clear()
    return joined.combine_chunks()


def _stats_by_reading_again(values: Values, max_held: int) -> PhaseStats:
    count, sums, least, most = 0, list[float](), math.inf, -math.inf
    for chunk in values():
        if len(chunk):
            extremes = pc.min_max(chunk).as_py()
            least, most = min(least, extremes["min"]), max(most, extremes["max"])
            count += len(chunk)
            sums.append(pc.sum(chunk).as_py())
    positions = {name: (count - 1) * share for name, share in PERCENTILES.items()}
    ranks = {rank for position in positions.values() for rank in (math.floor(position), math.ceil(position))}
    value_at = _values_at_ranks(values, least, most, ranks, max_held)
    quantiles = {
        name: _interpolate(value_at[math.floor(position)], value_at[math.ceil(position)], position % 1)
        for name, position in positions.items()
    }
    return PhaseStats(count=count, min=least, mean=math.fsum(sums) / count, max=most, intervals={}, **quantiles)


def _interpolate(lower: float, higher: float, share: float) -> float:
    return lower if share == 0 else share * higher + (1 - share) * lower


def _values_at_ranks(
    values: Values, least: float, most: float, ranks: Iterable[int], max_held: int
) -> dict[int, float]:
    """Return the values that would stand at these ranks, from 0, were the column sorted.

    The values between `least` and `most` are counted in bins; only bins in which a rank falls are looked into.
    """
    if least == most:
        return dict.fromkeys(ranks, least)
    counts = Counter[int]()
    for chunk in values():
        counts.update(value_counts(bins(chunk, least, most)))
    values_by_rank: dict[int, float] = {}
    before = 0
    for number in sorted(counts):
        ranks_inside = [rank for rank in ranks if before <= rank < before + counts[number]]
        if ranks_inside:
            ranks_in_bin = {rank - before for rank in ranks_inside}
            selected = _values_in_bin(_filter_bin(values, least, most, number), counts[number], ranks_in_bin, max_held)
            values_by_rank |= {rank + before: value for rank, value in selected.items()}
        before += counts[number]
    return values_by_rank


def _values_in_bin(values: Values, count: int, ranks: set[int], max_held: int) -> dict[int, float]:
    if count > max_held:
        extremes = [pc.min_max(chunk).as_py() for chunk in values() if len(chunk)]
        least, most = min(item["min"] for item in extremes), max(item["max"] for item in extremes)
        return _values_at_ranks(values, least, most, ranks, max_held)
    inside = concatenate(list(values()))
    in_order = pc.take(inside, pc.sort_indices(inside))
    return {rank: in_order[rank].as_py() for rank in ranks}


def _filter_bin(values: Values, least: float, most: float, number: int) -> Values:
    def inside() -> Iterator[pa.ChunkedArray]:
        for chunk in values():
            yield chunk.filter(pc.equal(bins(chunk, least, most), number))

    return inside


def bins(values: pa.ChunkedArray, least: float, most: float) -> pa.ChunkedArray:
    """Return the bin of every value, of many equal ones between `least` and `most`; a larger value has no lower bin."""
    share = pc.divide(pc.subtract(values, least), most - least)
    clamped = pc.min_element_wise(pc.max_element_wise(share, 0.0), 1.0)
    return pc.cast(pc.floor(pc.multiply(clamped, float(_BINS))), pa.int32())


def value_counts(values: pa.ChunkedArray) -> Mapping[Any, int]:
    """Return how often each value stands in a column."""
    counted = pc.value_counts(values)
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def count_below(values: pa.ChunkedArray, edges: Sequence[float], *, or_at: bool = False) -> pa.ChunkedArray:
    """Return how many of the ascending edges are below each value, or at it; cheap where values lie between few."""
    extremes = pc.min_max(values).as_py()
    if extremes["min"] is None:
        return pc.cast(values, pa.int32())
    compare, below = (pc.greater_equal, bisect_right) if or_at else (pc.greater, bisect_left)
    first, last = below(edges, extremes["min"]), below(edges, extremes["max"])
    counts = pc.if_else(pc.is_valid(values), pa.scalar(first, pa.int32()), pa.scalar(None, pa.int32()))
    for edge in edges[first:last]:
        counts = pc.add(counts, pc.cast(compare(values, edge), pa.int32()))
    return counts


def runs_within(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Yield runs of indices in their order whose sizes add up to at most `most`; one alone may be larger."""
    first = total = 0
    for index, size in enumerate(sizes):
        if index > first and total + size > most:
            yield range(first, index)
            first, total = index, 0
        total += size
    if sizes:
        yield range(first, len(sizes))
