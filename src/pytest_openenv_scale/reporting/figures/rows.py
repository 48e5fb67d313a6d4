"""The rows behind the figures of single sessions, streamed: what is kept does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.analysis.study import Study, StudyCurve
from pytest_openenv_scale.metrics.percentiles import value_counts
from pytest_openenv_scale.results.parts import Part, PartError, read_parts
from pytest_openenv_scale.results.run_directory import PARTS

if TYPE_CHECKING:
    import pyarrow as pa

STEPS_PER_DECADE = 120
"""The resolution of a distribution: finer than a pixel of its panel."""

FASTEST = 1e-5
"""Seconds below which a distribution is not told apart."""

TIME_COLUMNS = 500
"""The resolution of a time axis: finer than a pixel of its panel."""


@dataclass(frozen=True)
class StudyRows:
    """The stored parts of a study, found by run, sweep, cell and repetition."""

    parts: dict[tuple[str, str, str, int], Part]

    @classmethod
    def from_study(cls, study: Study) -> StudyRows:
        """Find the parts of all runs; those that cannot be read are left out, as the report names them already."""
        parts: dict[tuple[str, str, str, int], Part] = {}
        for run in study.runs:
            for part in read_parts(run.path / PARTS, lambda problem: None):
                meta = part.meta
                parts[run.run_id, meta.sweep_id, meta.cell.id, meta.repetition] = part
        return cls(parts)

    def parts_of(self, curve: StudyCurve, batch: int) -> list[Part]:
        """Return the parts of one batch of a curve, one per repetition."""
        keys = {
            (curve.run.run_id, summary.sweep_id, summary.cell.id, summary.repetition)
            for summary in curve.curve.summaries
            if summary.batch == batch
        }
        return [self.parts[key] for key in sorted(keys) if key in self.parts]


def stream_tables(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of parts in pieces of bounded size; a part that is damaged ends where the damage begins."""
    for part in parts:
        try:
            yield from part.batches(*columns)
        except PartError:
            continue


def overhead_distribution(parts: Sequence[Part]) -> tuple[int, list[float], list[float]]:
    """Return the number of successful sessions, and the distribution of their overhead: seconds, share at most that.

    The shares are exact at every value returned; values are `STEPS_PER_DECADE` to a decade.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = Counter[int]()
    for table in stream_tables(parts, ("success", "total_latency", "steps_done", "wait_requested")):
        good = table.filter(pc.fill_null(table["success"], False))
        waited = pc.multiply(good["steps_done"], pc.fill_null(good["wait_requested"], 0.0))
        values = pc.drop_null(pc.subtract(good["total_latency"], waited))
        buckets = pc.ceil(pc.multiply(pc.log10(pc.max_element_wise(values, pa.scalar(FASTEST))), STEPS_PER_DECADE))
        counts.update(value_counts(pc.cast(buckets, pa.int32())))
    total = sum(counts.values())
    seconds: list[float] = []
    shares: list[float] = []
    below = 0
    for bucket in sorted(counts):
        below += counts[bucket]
        seconds.append(10 ** (bucket / STEPS_PER_DECADE))
        shares.append(below / total)
    return total, seconds, shares


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Sessions at each moment: exact at every one of `times` (seconds since the cell's start)."""

    times: list[float]
    asked: list[int]
    opened: list[int]
    stepping: list[int]


_TIME_COLUMNS = ("due_s", "reset_done_s", "hold_latency", "closed_s")


def session_concurrency(part: Part) -> Concurrency | None:
    """Return how many sessions were asked for, open and stepping over the time of a repetition; None where none opened.

    Open is from the answered reset to the close, stepping from the end of the hold on. A batch that is held or comes
    as a burst is asked for as a whole, from beginning to end; one that arrives at a rate is what is due and not over.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    last = max(
        (_largest(table, ("closed_s", "reset_done_s")) for table in stream_tables([part], _TIME_COLUMNS)), default=0.0
    )
    if last <= 0:
        return None
    width = _round_up(last / TIME_COLUMNS)
    changes: dict[str, list[int]] = {name: [0] * (TIME_COLUMNS + 2) for name in ("asked", "opened", "stepping")}
    for table in stream_tables([part], _TIME_COLUMNS):
        reset_done = table["reset_done_s"]
        stepping = pc.add(reset_done, table["hold_latency"])
        for name, start in (("asked", table["due_s"]), ("opened", reset_done), ("stepping", stepping)):
            # One that never began cannot end; one without an end stays to the end.
            ended = pc.max_element_wise(start, table["closed_s"])
            has_end = pc.and_(pc.is_valid(start), pc.is_valid(table["closed_s"]))
            for values, sign in ((pc.drop_null(start), 1), (ended.filter(has_end), -1)):
                columns_reached = pc.cast(pc.ceil(pc.divide(values, width)), pa.int32())
                for column, count in value_counts(columns_reached).items():
                    changes[name][min(max(column, 0), TIME_COLUMNS + 1)] += sign * count
    levels = {name: list(accumulate(steps)) for name, steps in changes.items()}
    if not any(levels["opened"]):
        return None
    columns = min(TIME_COLUMNS + 1, ceil(last / width) + 1)
    if not part.meta.cell.arrival.startswith("rate"):
        levels["asked"] = [part.meta.cell.batch] * columns
    return Concurrency(
        [at * width for at in range(columns)], *(levels[name][:columns] for name in ("asked", "opened", "stepping"))
    )


def _largest(table: pa.Table, names: Sequence[str]) -> float:
    import pyarrow.compute as pc

    maxima: list[Any] = [pc.max(table[name]).as_py() for name in names]
    return max((value for value in maxima if value is not None), default=0.0)


def _round_up(value: float) -> float:
    """Return a width rounded up to two digits, so that a drawing does not depend on the last digit of a float."""
    scale = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / scale) * scale
