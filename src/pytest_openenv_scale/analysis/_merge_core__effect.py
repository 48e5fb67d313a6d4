"""How far two sets of sessions lie apart, from their rows: Cliff's delta."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .rundir import PARTS

MOST_VALUES = 10_000
"""More values than this are thinned to every n-th of them in order, which moves delta by less than 0.001."""

_COLUMNS = {
    "connect": "connect_latency",
    "reset": "reset_latency",
    "step": "step_latency",
    "total": "total_latency",
    "overhead": "total_latency",  # In one cell it is the total less a constant, so that the order is the same.
}

_SIZES = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


def cliffs_delta(baseline: Sequence[float], now: Sequence[float]) -> float | None:
    """Return P(now > baseline) − P(now < baseline) over all pairs, from −1 to 1; None where a side is empty.

    Cliff, N. (1993): Dominance statistics: ordinal analyses to answer ordinal questions. Psychological
    Bulletin 114(3), 494–509.
    """
    if not baseline or not now:
        return None
    then = sorted(baseline)
    above = sum(bisect_left(then, value) - (len(then) - bisect_right(then, value)) for value in now)
    return above / (len(then) * len(now))


def effect_size(delta: float) -> str:
    """Return a word for a delta: negligible, small, medium or large.

    Limits of Romano, J. et al. (2006): Appropriate statistics for ordinal level data. Annual meeting of the
    Florida Association of Institutional Research.
    """
    return next((word for limit, word in _SIZES if abs(delta) < limit), "large")


@dataclass(frozen=True, slots=True)
class CellRows:
    """Where the rows of one cell are: the run's directory, the sweep and the cell."""

    run: Path
    sweep_id: str
    cell_id: str

    def latencies(self, phase: str) -> list[float]:
        """Return one latency in seconds per successful session of all repetitions; empty where none can be read."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from .table import PartError, read_part

        column = _COLUMNS[phase]
        found: list[pa.Table] = []
        for path in sorted((self.run / PARTS).glob(f"{self.cell_id}-r*.parquet")):
            try:
                part = read_part(path)
                if part.meta.sweep_id == self.sweep_id:
                    rows = part.table((column, "success"))
                    found.append(pa.table({column: pc.drop_null(rows.filter(rows["success"])[column])}))
            except PartError:
                continue
        if not found:
            return []
        values = pa.concat_tables(found)
        if values.num_rows > MOST_VALUES:
            every = -(-values.num_rows // MOST_VALUES)
            values = values.sort_by(column).take(pa.array(range(every // 2, values.num_rows, every)))
        return values[column].to_pylist()


def effect_of(baseline: CellRows, now: CellRows, phase: str) -> float | None:
    """Return Cliff's delta of a latency in one cell; None where the rows of a side are gone."""
    return cliffs_delta(baseline.latencies(phase), now.latencies(phase))
