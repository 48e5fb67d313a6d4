"""What sessions and steps cost a server: memory, threads and descriptors per open session, CPU time per step.

Each is a slope. Of memory and threads only samples count in which more sessions were open than ever before: allocators
and pools keep what closed sessions gave back, so that the second time as many are open they hardly grow. Descriptors
are given back at once; they count from what there were before the cell, as connections of others come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from statistics import median
from typing import NamedTuple, TypeVar

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.results.outcome import Cost, ServerCost

from .certainty import slope
from .summary import CellSummary

T = TypeVar("T", int, float)

LEAST_POINTS = 4
"""Fewer points than this have no slope; of memory, threads and descriptors the server at rest is one."""

_LEVELS = 32
"""Points lie at least this share of the largest apart: closer together, noise alone makes the slope."""

_SEEN_SHARE = 0.9
"""A cell of whose sessions no sample saw so many open at once as were says nothing of what they cost."""

_CPU_RESOLUTION_S = 0.02
"""What CPU times of a process may lack at most: user and system time are each counted in hundredths of a second."""


def thin_out(values: Collection[T]) -> list[T]:
    """Return values in ascending order without those too close to another; the least and the largest always stay."""
    if not values:
        return []
    least, *others = sorted(values)
    kept: list[T] = []
    for value in reversed(others):
        apart = others[-1] / _LEVELS
        if not kept or (kept[-1] - value >= apart and value - least >= apart):
            kept.append(value)
    return [least, *reversed(kept)]


def server_cost(summaries: Sequence[CellSummary], earlier: Sequence[CellSummary] = ()) -> ServerCost:
    """Return what sessions and steps of a curve cost its server, by all that was measured of it in whatever order.

    `earlier` is what was measured on the same server before, on other curves: it tells how much the server had held,
    and where sessions are of the same mode what they cost. What came after one of its processes ended is left out.
    """
    if not summaries:
        return ServerCost()
    cells = list(_before_a_restart(sorted((*earlier, *summaries), key=attrgetter("started_at"))))
    points = list(_rising_points(cells, summaries[0].cell.mode))

    return ServerCost(
        memory_per_session=_unless_unseen("rss_bytes", summaries, lambda: _memory_cost(points, _left_behind(cells))),
        threads_per_session=_unless_unseen(
            "threads",
            summaries,
            lambda: _cost((p.open, p.sample.threads) for p in points if p.sample.threads is not None),
        ),
        descriptors_per_session=_unless_unseen("all_descriptors", summaries, lambda: _cost(_descriptors(summaries))),
        cpu_per_step=_cpu_cost(summaries),
    )


def _unless_unseen(figure: str, summaries: Sequence[CellSummary], compute: Callable[[], Cost]) -> Cost | None:
    """Return what `compute` does; None where no sample of a curve has the figure."""
    peaks = (summary.server.peak for summary in summaries)
    return compute() if any(peak and getattr(peak, figure) is not None for peak in peaks) else None


class _Point(NamedTuple):
    """A sample in which so many sessions were open, more than ever before, and so many others had ended."""

    open: int
    ended: int
    sample: ServerSample


def _before_a_restart(cells: Iterable[CellSummary]) -> Iterator[CellSummary]:
    for cell in cells:
        if _restarted(cell):
            return
        yield cell


def _restarted(cell: CellSummary) -> bool:
    """Whether a process of the server ended during a cell: what is there afterwards is another."""
    return bool(cell.ended_pids) or cell.server_exit is not None or cell.listens_again


def most_open(cell: CellSummary) -> int:
    """Return the most sessions of a cell that were open at once, as its samples or its rows tell."""
    return max(_most_seen(cell), cell.peak_concurrency or 0)


def _most_seen(cell: CellSummary) -> int:
    """Return the most sessions that were open in a sample of a cell."""
    return max((sample.open_sessions or 0 for sample in cell.server.rising), default=0)


def _rising_points(cells: Iterable[CellSummary], mode: str) -> Iterator[_Point]:
    """Yield a point for each sample of a cell of this mode in which more sessions were open than ever before."""
    held, ended = -1, 0
    for cell in cells:
        held = max(held, cell.server.held_before or held)
        if cell.cell.mode == mode and _most_seen(cell) >= _SEEN_SHARE * (cell.peak_concurrency or 0):
            for sample in cell.server.rising:
                if sample.open_sessions is not None and sample.open_sessions > held:
                    yield _Point(sample.open_sessions, ended, sample)
        held = max(held, most_open(cell))
        ended += cell.begun


def _descriptors(cells: Iterable[CellSummary]) -> Iterator[tuple[int, int]]:
    """Yield, for samples of a curve, how many sessions were open, and by how many descriptors there were more."""
    for cell in cells:
        first = cell.server.first and cell.server.first.all_descriptors
        if first is None or _restarted(cell):
            continue
        for sample in cell.server.rising:
            if sample.open_sessions is not None and sample.all_descriptors is not None:
                yield sample.open_sessions, sample.all_descriptors - first


def _cost(points: Iterable[tuple[float, float]]) -> Cost:
    """Return the slope of the median y of each x; without one where those that are far enough apart are too few."""
    values: dict[float, list[float]] = {}
    for x, y in points:
        values.setdefault(x, []).append(y)
    kept = [(x, median(values[x])) for x in thin_out(values)]
    return Cost(len(kept), *slope(kept)) if len(kept) >= LEAST_POINTS else Cost(len(kept))


def _left_behind(cells: Sequence[CellSummary]) -> Cost | None:
    """Return the bytes that an ended session leaves behind, for good; None where nothing shows that it does.

    By how much a server has grown from before a cell to before the next, where it had held as many sessions before.
    """
    growths: list[tuple[int, int]] = []
    held = 0
    for cell, following in pairwise(cells):
        first, then = cell.server.first, following.server.first
        held, most = max(held, cell.server.held_before), most_open(cell)
        if most <= held and first and then and first.rss_bytes is not None and then.rss_bytes is not None:
            growths.append((cell.begun, then.rss_bytes - first.rss_bytes))
        held = max(held, most)
    cost = _cost(growths)
    return cost if cost.low is not None and cost.low > 0 else None


def _memory_cost(points: Sequence[_Point], left_behind: Cost | None) -> Cost:
    """Return the bytes of one more open session, without what those that had ended before left behind."""

    def without(bytes_each: float | None) -> Cost:
        sizes = ((point, point.sample.rss_bytes) for point in points)
        return _cost(
            (point.open, size - (bytes_each or 0.0) * point.ended) for point, size in sizes if size is not None
        )

    cost = without(left_behind and left_behind.value)
    if left_behind is None or cost.value is None:
        return cost
    return replace(cost, low=without(left_behind.high).low, high=without(left_behind.low).high)


def _cpu_cost(summaries: Iterable[CellSummary]) -> Cost | None:
    """Return the seconds of CPU of one more step; what a server uses in every cell alike, at rest too, falls out."""
    by_batch: dict[int, list[tuple[int, float, int]]] = {}
    for summary in summaries:
        used = summary.cpu_seconds
        if used is not None and summary.steps:
            peak = summary.server.peak
            by_batch.setdefault(summary.batch, []).append((summary.steps, used, (peak and peak.processes) or 1))
    if not by_batch:
        return None
    cost = _cost(
        (median(steps for steps, _, _ in cells), median(used for _, used, _ in cells)) for cells in by_batch.values()
    )
    if cost.value is not None:
        return cost
    largest = max(by_batch.values(), key=lambda cells: max(steps for steps, _, _ in cells))
    return replace(cost, high=max((used + _CPU_RESOLUTION_S * processes) / steps for steps, used, processes in largest))
