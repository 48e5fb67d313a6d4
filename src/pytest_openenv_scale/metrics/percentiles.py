"""Exact statistics of columns, also of those that do not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from .jsonable import Jsonable

MOST_HELD = 2**24
"""So many values of a column are held in memory at once (8 bytes each); beyond it they are read several times."""

_BINS = 2**14
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Values = Callable[[], Iterator[pa.ChunkedArray]]
"""A column without nulls, chunk by chunk, from its start each time it is called."""


@dataclass(frozen=True, slots=True)
class PhaseStats(Jsonable):
    """Exact statistics in seconds over `count` values of successful sessions.

    Percentiles interpolate linearly between the two nearest values.
    """

    count: int
    min: float
    mean: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float


def phase_stats(values: pa.Array | pa.ChunkedArray) -> PhaseStats | None:
    """Return the exact statistics of a column of seconds, nulls left out; None where nothing is left."""
    present = pc.drop_null(values)
    if len(present) == 0:
        return None
    extremes: dict[str, float] = pc.min_max(present).as_py()
    quantiles = pc.quantile(present, q=list(_QUANTILES.values()), interpolation="linear").to_pylist()
    return PhaseStats(
        count=len(present),
        min=extremes["min"],
        mean=pc.mean(present).as_py(),
        max=extremes["max"],
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    )


def stats_of(values: Values, *, most_held: int = MOST_HELD) -> PhaseStats | None:
    """Return the exact statistics of a column of any length; None where it is empty."""
    held: list[pa.ChunkedArray] = []
    count = 0
    for chunk in values():
        held.append(chunk)
        count += len(chunk)
        if count > most_held:
            held.clear()
            return _stats_by_reading_again(values, most_held)
    return phase_stats(together(held))


def together(pieces: list[pa.ChunkedArray]) -> pa.Array:
    """Return columns of seconds as one and empty the list: what is computed then does not depend on how it was cut."""
    whole = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pa.float64())
    pieces.clear()
    return whole.combine_chunks()


def _stats_by_reading_again(values: Values, most_held: int) -> PhaseStats:
    count, sums, least, most = 0, list[float](), math.inf, -math.inf
    for chunk in values():
        if len(chunk):
            extremes = pc.min_max(chunk).as_py()
            least, most = min(least, extremes["min"]), max(most, extremes["max"])
            count += len(chunk)
            sums.append(pc.sum(chunk).as_py())
    places = {name: (count - 1) * share for name, share in _QUANTILES.items()}
    ranks = {rank for place in places.values() for rank in (math.floor(place), math.ceil(place))}
    at = _select(values, least, most, ranks, most_held)
    quantiles = {
        name: _between(at[math.floor(place)], at[math.ceil(place)], place % 1) for name, place in places.items()
    }
    return PhaseStats(count=count, min=least, mean=math.fsum(sums) / count, max=most, **quantiles)


def _between(lower: float, higher: float, share: float) -> float:
    return lower if share == 0 else share * higher + (1 - share) * lower


def _select(values: Values, least: float, most: float, ranks: Iterable[int], most_held: int) -> dict[int, float]:
    """Return the values that would stand at these ranks, from 0, were the column sorted.

    The values between `least` and `most` are counted in bins; only bins in which a rank falls are looked into.
    """
    if least == most:
        return dict.fromkeys(ranks, least)
    counts: dict[int, int] = {}
    for chunk in values():
        for number, count in bin_counts(chunk, least, most).items():
            counts[number] = counts.get(number, 0) + count
    found: dict[int, float] = {}
    before = 0
    for number in sorted(counts):
        inside = [rank for rank in ranks if before <= rank < before + counts[number]]
        if inside:
            own = {rank - before for rank in inside}
            selected = _in_bin(_only(values, least, most, number), counts[number], own, most_held)
            found |= {rank + before: value for rank, value in selected.items()}
        before += counts[number]
    return found


def _in_bin(values: Values, count: int, ranks: set[int], most_held: int) -> dict[int, float]:
    if count > most_held:
        extremes = [pc.min_max(chunk).as_py() for chunk in values() if len(chunk)]
        least, most = min(found["min"] for found in extremes), max(found["max"] for found in extremes)
        return _select(values, least, most, ranks, most_held)
    inside = together(list(values()))
    in_order = pc.take(inside, pc.sort_indices(inside))
    return {rank: in_order[rank].as_py() for rank in ranks}


def _only(values: Values, least: float, most: float, number: int) -> Values:
    def inside() -> Iterator[pa.ChunkedArray]:
        for chunk in values():
            yield chunk.filter(pc.equal(bins(chunk, least, most), number))

    return inside


def bins(values: pa.ChunkedArray, least: float, most: float) -> pa.ChunkedArray:
    """Return the bin of every value, of many equal ones between `least` and `most`; a larger value has no lower bin."""
    share = pc.divide(pc.subtract(values, least), most - least)
    within = pc.min_element_wise(pc.max_element_wise(share, 0.0), 1.0)
    return pc.cast(pc.floor(pc.multiply(within, float(_BINS))), pa.int32())


def bin_counts(values: pa.ChunkedArray, least: float, most: float) -> Mapping[int, int]:
    """Return how many values each bin has."""
    counted = pc.value_counts(bins(values, least, most))
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
