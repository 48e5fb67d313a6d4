"""A steady state, or sessions that arrive for a time, in windows of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.results.cell import CellMeta

from .concurrency import least_concurrency
from .errors import RepetitionRows
from .percentiles import concatenate, count_below, hold_pieces, runs_within, value_counts

MAX_STEPS_HELD = 2**22
"""Most latencies of steps held in memory at once (8 bytes each)."""

_WIDTHS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_USUAL_WINDOWS, _USUAL_WIDTH_S, _MOST_WINDOWS = 12, 60.0, 240
"""How many windows a judged time has at least, where they can be a second long, and how long they are at most, unless
they were more than the last."""


@dataclass(frozen=True, slots=True)
class Window(Jsonable):
    """What happened from `start_s` to `end_s`, in seconds from the start of the cell; None where nothing tells.

    `begun` sessions began in it (their sockets), `failed` of those ended badly, sooner or later, `success_rate` is the
    share of the others: of the last windows, too, where only what ends at once ends before time is up.
    `finished` ended well in it, `sessions_per_second` are these by time. `steps` were answered in it, with
    latencies in seconds. `open_least` is the least number of sessions that were open at once, reset and not closed; in
    a steady state without a ramp it counts from the moment at which the first session of every slot was reset.
    Memory (bytes), threads and descriptors are the server's at its end, `cpu_share` how many cores it used.
    In a window that is not `judged` slots were still beginning, or time was up.
    """

    start_s: float
    end_s: float
    judged: bool
    begun: int = 0
    failed: int = 0
    finished: int = 0
    success_rate: float | None = None
    sessions_per_second: float | None = None
    steps: int = 0
    step_p50_s: float | None = None
    step_p99_s: float | None = None
    open_least: int | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    cpu_share: float | None = None


def judged_time(meta: CellMeta) -> tuple[float, float] | None:
    """Return from when until when a cell that lasts for a time is judged, in seconds; None where nothing of it is."""
    arrival = parse_arrival(meta.cell.arrival)
    if arrival.seconds is None:
        return None
    until = min(arrival.seconds, meta.wall_s) if meta.cut_off else arrival.seconds
    return (arrival.ramp, until) if until > arrival.ramp else None


def windows_of(rows: RepetitionRows, meta: CellMeta) -> tuple[Window, ...]:
    """Return what happened in the ramp, in the judged time, in equal parts, and after it; nothing of a batch alone.

    What happens where two windows meet belongs to the later one.
    """
    layout = _lay_out(meta)
    if not layout:
        return ()
    edges = [window.start_s for window in layout[1:]]
    sessions, steps = _count_sessions(rows, edges), _steps_by_window(rows, edges)
    up_s = _slots_up(rows, meta)
    moments = [max(moment, up_s) for moment in (*(window.start_s for window in layout), layout[-1].end_s)]
    open_least = least_concurrency(lambda: rows.batches("reset_done_s", "closed_s"), moments)
    windows: list[Window] = []
    for place, window in enumerate(layout):
        begun, failed, finished = sessions.begun[place], sessions.failed[place], sessions.finished[place]
        times = steps.get(place, _NO_STEPS)
        filled = replace(
            window,
            begun=begun,
            failed=failed,
            finished=finished,
            success_rate=(begun - failed) / begun if begun else None,
            sessions_per_second=finished / (window.end_s - window.start_s),
            steps=times.steps,
            step_p50_s=times.p50,
            step_p99_s=times.p99,
            # What was open when the cell was cut off has left no row.
            open_least=open_least[place] if up_s < window.end_s and not meta.cut_off else None,
        )
        windows.append(_with_sample(filled, meta.samples))
    return tuple(windows)


def _lay_out(meta: CellMeta) -> list[Window]:
    """Return the windows without what happened in them."""
    time = judged_time(meta)
    if time is None:
        return []
    start, end = time
    width = _width(end - start)
    parts = max(1, int((end - start) / width + 0.5))
    inner = [start + width * number for number in range(1, parts)]
    windows = [Window(0.0, start, judged=False)] if start else []
    windows += [Window(*ends, judged=True) for ends in zip([start, *inner], [*inner, end], strict=True)]
    return [*windows, Window(end, meta.wall_s, judged=False)] if meta.wall_s > end else windows


def _width(judged_s: float) -> float:
    usual = [width for width in _WIDTHS_S if width <= _USUAL_WIDTH_S and _USUAL_WINDOWS * width <= judged_s]
    least = max(usual, default=_WIDTHS_S[0])
    return next(width for width in _WIDTHS_S if width >= least and judged_s <= _MOST_WINDOWS * width)


def _slots_up(rows: RepetitionRows, meta: CellMeta) -> float:
    """Return when the slots of a steady state were up that begin all at once, in seconds: none is open before."""
    arrival = parse_arrival(meta.cell.arrival)
    up_s = 0.0
    if arrival.kind == "steady" and not arrival.ramp:
        for batch in rows.batches("request_id", "reset_done_s"):
            first = batch.filter(pc.less(batch["request_id"], meta.cell.batch))
            up_s = max(up_s, pc.max(first["reset_done_s"]).as_py() or 0.0)
    return up_s


class _SessionCounts(NamedTuple):
    """Sessions by the number of the window: those that began in it, that failed of these, and that ended well in it."""

    begun: Counter[int]
    failed: Counter[int]
    finished: Counter[int]


def _count_sessions(rows: RepetitionRows, edges: Sequence[float]) -> _SessionCounts:
    counts = _SessionCounts(*(Counter[int]() for _ in _SessionCounts._fields))
    for batch in rows.batches("start_s", "closed_s", "success", "error_type"):
        started = batch.filter(pc.fill_null(pc.not_equal(batch["error_type"], "client_limit"), True))
        begins = count_below(started["start_s"], edges, or_at=True)
        ends = count_below(started["closed_s"], edges, or_at=True)
        failed = begins.filter(pc.invert(started["success"]))
        for counter, places in zip(counts, (begins, failed, ends.filter(started["success"])), strict=True):
            counter.update(value_counts(pc.drop_null(places)))
    return counts


class _StepTimes(NamedTuple):
    """How many steps were answered in a window, and percentiles of their latencies in seconds."""

    steps: int
    p50: float | None
    p99: float | None


_NO_STEPS = _StepTimes(0, None, None)


def _steps_by_window(
    rows: RepetitionRows, edges: Sequence[float], *, max_held: int = MAX_STEPS_HELD
) -> Mapping[int, _StepTimes]:
    """Return the latencies of steps by the number of the window in which they were answered.

    Rows are read again for windows whose steps are too many to be held with those of others; one alone may have more.
    """
    few = hold_pieces(_steps(rows, edges), lambda pair: len(pair[0]), max_held)

    def steps() -> Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
        return _steps(rows, edges) if few is None else few

    counts = Counter[int]()
    for places, _ in steps():
        counts.update(value_counts(places))
    present, times = sorted(counts), dict[int, _StepTimes]()
    for run in runs_within([counts[place] for place in present], max_held):
        held: dict[int, list[pa.ChunkedArray]] = {present[index]: [] for index in run}
        for places, latencies in steps():
            for place in held.keys() & value_counts(places).keys():
                held[place].append(latencies.filter(pc.equal(places, place)))
        for place, pieces in held.items():
            times[place] = _StepTimes(counts[place], *pc.quantile(concatenate(pieces), q=[0.5, 0.99]).to_pylist())
    return times


def _steps(rows: RepetitionRows, edges: Sequence[float]) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield of every step that was answered the number of its window, and its latency in seconds."""
    for batch in rows.batches("reset_done_s", "step_pauses", "step_latencies"):
        opened = batch.filter(pc.is_valid(batch["reset_done_s"]))
        latencies, ends = step_ends(opened)
        yield count_below(pa.chunked_array([ends]), edges, or_at=True), pa.chunked_array([latencies])


def step_ends(rows: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Return the latencies of all steps of sessions that were reset, one after the other, and when each step ended.

    Both are seconds; a step ends with the pause before it and its latency after the one before it, or after the reset.
    Where no pauses are kept there were none.
    """
    reset_done, pauses, latencies = (
        rows[name].combine_chunks() for name in ("reset_done_s", "step_pauses", "step_latencies")
    )
    row, each = pc.list_parent_indices(latencies), pc.list_flatten(latencies)
    first, first_pause = _starts(latencies), _starts(pauses)
    first_of_row = pc.take(first, row)
    number = pc.subtract(_counting(len(each)), first_of_row)
    has_pause = pc.less(number, pc.take(pc.list_value_length(pauses), row))
    place = pc.if_else(has_pause, pc.add(pc.take(first_pause, row), number), pa.scalar(None, pa.int64()))
    took = pc.add(pc.take(pc.list_flatten(pauses), place).fill_null(0.0), each)
    # Of all steps together: what went before a row is taken off again.
    passed = pa.concat_arrays([pa.array([0.0]), pc.cumulative_sum(took)])
    since_reset = pc.subtract(passed.slice(1), pc.take(passed, first_of_row))
    return each, pc.add(pc.take(reset_done, row), since_reset)


def _starts(lists: pa.Array) -> pa.Array:
    """Return at which value of all lists together each one begins."""
    lengths = pc.list_value_length(lists).cast(pa.int64())
    return pc.subtract(pc.cumulative_sum(lengths), lengths)


def _counting(length: int) -> pa.Array:
    return pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), length)), pa.scalar(1, pa.int64()))


def _with_sample(window: Window, samples: Sequence[ServerSample]) -> Window:
    """Return a window with what the last sample in it tells, and the CPU used since the last one before it."""
    inside = [sample for sample in samples if window.start_s < sample.at_s <= window.end_s]
    if not inside:
        return window
    last = inside[-1]
    before = next((sample for sample in reversed(samples) if sample.at_s <= window.start_s), inside[0])
    return replace(
        window,
        rss_bytes=last.rss_bytes,
        threads=last.threads,
        descriptors=last.descriptors,
        cpu_share=_cores_used(before, last),
    )


def _cores_used(first: ServerSample, last: ServerSample) -> float | None:
    if first.cpu_seconds is None or last.cpu_seconds is None or last.at_s <= first.at_s:
        return None
    # A process that has ended takes what it used with it.
    return max(0.0, (last.cpu_seconds - first.cpu_seconds) / (last.at_s - first.at_s))
