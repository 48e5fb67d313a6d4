"""A steady state in windows of time: each figure is what looking at every session and every instant comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa
import pytest
from cells import a_cell, a_failure, a_meta, a_row, a_table, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics import concurrency, windows
from pytest_openenv_scale.metrics.concurrency import least_concurrency
from pytest_openenv_scale.metrics.summary import CellSummary, summarise, summarise_rows
from pytest_openenv_scale.metrics.windows import Window, windows_of
from pytest_openenv_scale.results.cell import CUT_OFF, CellMeta, ClientFinding, SessionRow

RAMP, SECONDS, WALL = 4, 16, 20


def steady_meta(arrival: str = f"steady={SECONDS},ramp={RAMP}", *, wall_s: float = WALL, **fields) -> CellMeta:
    return a_meta(a_cell(4, arrival=arrival), wall_s=wall_s, **fields)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below, above = ordered[int(position)], ordered[min(int(position) + 1, len(ordered) - 1)]
    return below + (above - below) * (position % 1)


# Whole and half seconds, so that sessions begin, end and step where windows meet.
MOMENTS = st.integers(0, 2 * WALL).map(lambda halves: halves / 2)
SHORT = st.integers(0, 8).map(lambda halves: halves / 2)


@st.composite
def sessions(draw: st.DrawFn) -> SessionRow:
    start = draw(MOMENTS)
    if draw(st.integers(0, 5)) == 0:
        kind = draw(st.sampled_from(["capacity", "client_limit"]))
        return a_failure(start_s=start, closed_s=start + draw(SHORT), type=kind, judged=draw(st.booleans()))
    reset_done = start + draw(SHORT)
    latencies = draw(st.lists(SHORT, max_size=4))
    # A step that was sent and not answered has a pause and no latency; without think times there are no pauses.
    pauses = draw(st.lists(SHORT, min_size=len(latencies), max_size=len(latencies) + 1)) if draw(st.booleans()) else []
    closed = reset_done + sum(latencies) + sum(pauses) + draw(SHORT)
    row = a_row(start_s=start, reset_done_s=reset_done, closed_s=closed, step_latencies=latencies, step_pauses=pauses)
    failed = {} if draw(st.booleans()) else {"success": False, "error_type": "timeout", "error_phase": "step"}
    return row._replace(judged=draw(st.booleans()), **failed)


@dataclass(frozen=True)
class Pieces:
    """A table read a few rows at a time, as a part is."""

    table: pa.Table
    size: int

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        for at in range(0, self.table.num_rows, self.size):
            yield self.table.slice(at, self.size).select(columns)


def steps_of(row: SessionRow) -> Iterator[tuple[float, float]]:
    """When each step of a session ended, and how long it took."""
    at = row.reset_done_s
    for number, latency in enumerate(row.step_latencies):
        assert at is not None
        at += (row.step_pauses[number] if number < len(row.step_pauses) else 0.0) + latency
        yield at, latency


def open_at(rows: Sequence[SessionRow], instant: float) -> int:
    return sum(
        row.reset_done_s is not None and row.closed_s is not None and row.reset_done_s <= instant < row.closed_s
        for row in rows
    )


def brute_force(rows: Sequence[SessionRow], start: float, end: float, *, judged: bool, last: bool) -> Window:
    def inside(moment: float | None) -> bool:
        return moment is not None and start <= moment and (last or moment < end)

    of_server = [row for row in rows if row.error_type != "client_limit"]
    begun = [row for row in of_server if inside(row.start_s)]
    failed = sum(not row.success for row in begun)
    finished = sum(row.success and inside(row.closed_s) for row in of_server)
    latencies = [latency for row in rows for ended, latency in steps_of(row) if inside(ended)]
    instants = [start, end, *(moment for row in rows for moment in (row.reset_done_s, row.closed_s) if moment)]
    return Window(
        start,
        end,
        judged,
        begun=len(begun),
        failed=failed,
        finished=finished,
        success_rate=1 - failed / len(begun) if begun else None,
        sessions_per_second=finished / (end - start),
        steps=len(latencies),
        step_p50_s=percentile(latencies, 0.5) if latencies else None,
        step_p99_s=percentile(latencies, 0.99) if latencies else None,
        open_least=min(open_at(rows, instant) for instant in instants if start <= instant <= end),
    )


@given(st.lists(sessions(), max_size=12), st.integers(1, 13), st.booleans())
@settings(max_examples=150, deadline=None)
def test_windows_are_what_every_session_and_every_instant_come_to(rows, size, little):
    meta = steady_meta()
    table = a_table([row._replace(request_id=number) for number, row in enumerate(rows)], meta)
    with pytest.MonkeyPatch.context() as patch:
        if little:
            patch.setitem(windows._steps_by_window.__kwdefaults__, "max_held", 3)
            patch.setitem(concurrency.least_concurrency.__kwdefaults__, "max_sorted", 3)
        found = windows_of(Pieces(table, size), meta)
    edges = [0, *range(RAMP, SECONDS + 1), WALL]
    expected = [
        brute_force(rows, start, end, judged=RAMP <= start < SECONDS, last=end == WALL)
        for start, end in pairwise(edges)
    ]
    for window, other in zip(found, expected, strict=True):
        shares = ("success_rate", "step_p50_s", "step_p99_s")
        assert {name: getattr(window, name) for name in shares} == pytest.approx(
            {name: getattr(other, name) for name in shares}
        )
        assert replace(window, **dict.fromkeys(shares)) == replace(other, **dict.fromkeys(shares))
    summary = summarise_rows(Pieces(table, size), meta)
    assert summary.windows == found
    instants = [number / 2 for number in range(2 * RAMP, 2 * SECONDS + 1)]
    assert summary.open_least == min(open_at(rows, instant) for instant in instants)


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 20), st.none() | st.integers(0, 20)), max_size=30),
    st.lists(st.integers(0, 20), min_size=2, max_size=8, unique=True).map(sorted),
    st.integers(1, 40),
    st.integers(1, 10),
)
@settings(deadline=None)
def test_the_least_is_the_fewest_open_at_any_instant_of_an_interval(spans, edges, max_sorted, size):
    def pieces() -> Iterator[pa.Table]:
        for at in range(0, len(spans), size):
            ups, downs = ([span[side] for span in spans[at : at + size]] for side in (0, 1))
            yield pa.table({"reset_done_s": pa.array(ups, pa.float64()), "closed_s": pa.array(downs, pa.float64())})

    def level(instant: float) -> int:
        return sum(up is not None and up <= instant and (down is None or instant < down) for up, down in spans)

    expected = [min(map(level, range(start, end + 1))) for start, end in pairwise(edges)]
    assert least_concurrency(pieces, [float(edge) for edge in edges], max_sorted=max_sorted) == expected


def test_a_session_that_is_closed_as_another_opens_leaves_no_gap():
    def spans() -> Iterator[pa.Table]:
        yield pa.table({"reset_done_s": [0.0, 2.0], "closed_s": [2.0, 9.0]})

    assert least_concurrency(spans, [1.0, 3.0]) == [1]


@pytest.mark.parametrize(
    ("arrival", "wall_s", "judged", "others"),
    [
        ("steady=60", 60.0, [5.0] * 12, []),
        ("steady=60,ramp=10", 63.5, [2.0] * 25, [10.0, 3.5]),
        ("steady=20", 20.0, [1.0] * 20, []),
        ("steady=3", 3.25, [1.0] * 3, [0.25]),
        ("steady=0.5", 0.5, [0.5], []),
        ("steady=13.6", 13.6, [1.0] * 13 + [pytest.approx(0.6)], []),
        ("steady=13.4", 13.4, [1.0] * 12 + [pytest.approx(1.4)], []),
        ("steady=300", 300.0, [15.0] * 20, []),
        ("steady=3600", 3600.0, [60.0] * 60, []),
        ("steady=604800", 604800.0, [3600.0] * 168, []),
        ("rate=50,for=60,ramp=12", 61.0, [2.0] * 24, [12.0, 1.0]),
    ],
)
def test_windows_are_whole_and_enough_for_a_slope_and_never_too_many(arrival, wall_s, judged, others):
    meta = steady_meta(arrival, wall_s=wall_s)
    found = windows_of(Pieces(a_table([], meta), 1), meta)
    widths = {True: [], False: []}
    for window in found:
        widths[window.judged].append(window.end_s - window.start_s)
    assert (widths[True], widths[False]) == (judged, others)
    assert all(before.end_s == after.start_s for before, after in pairwise(found))


@pytest.mark.parametrize("arrival", ["hold", "burst", "rate=5"])
def test_a_batch_alone_has_no_windows(arrival):
    summary = summary_of([a_row()], a_cell(1, arrival=arrival))
    assert (summary.windows, summary.open_least) == ((), None)


def test_of_sessions_that_arrive_for_a_time_none_has_to_be_open():
    summary = summary_of([a_row()], a_cell(1, arrival="rate=1,for=1"))
    assert summary.open_least is None
    assert [window.begun for window in summary.windows] == [1, 0]


def test_slots_that_begin_at_once_are_open_from_when_the_first_session_of_each_was_reset():
    rows = [
        a_row(0, reset_done_s=0.5, closed_s=3.1),
        a_row(1, reset_done_s=1.5, closed_s=4.0),
        a_failure(2, closed_s=3.5),  # Its slot comes up when it is not refused any more.
        a_row(3, reset_done_s=3.25, closed_s=4.5),
    ]
    without = summary_of(rows, a_cell(3, arrival="steady=4"), wall_s=4.5)
    assert [window.open_least for window in without.windows] == [None, 2, 2, 1, 0]
    assert without.open_least == 1
    after_a_ramp = summary_of(rows, a_cell(3, arrival="steady=4,ramp=1"), wall_s=4.5)
    assert [window.open_least for window in after_a_ramp.windows] == [0, 1, 2, 1, 0]


CUT_OFF_AT_9 = {"wall_s": 9.0, "findings": (ClientFinding(CUT_OFF, "cut off when the run ended"),)}


def test_a_cell_that_was_cut_off_has_windows_up_to_there_and_does_not_tell_what_was_open():
    rows = [a_row(0, start_s=5.0, closed_s=6.5), a_row(1, start_s=6.0, closed_s=9.0)]
    summary = summary_of(rows, a_cell(3, arrival="steady=60,ramp=5"), **CUT_OFF_AT_9)
    assert [(window.start_s, window.end_s, window.judged) for window in summary.windows] == [
        (0.0, 5.0, False),
        *((start, start + 1.0, True) for start in (5.0, 6.0, 7.0, 8.0)),
    ]
    assert [window.begun for window in summary.windows] == [0, 1, 1, 0, 0]
    assert (summary.open_least, summary.requests_per_second) == (None, 1 / 4)
    assert {window.open_least for window in summary.windows} == {None}


def test_a_cell_that_was_cut_off_in_its_ramp_has_no_windows():
    summary = summary_of([a_row(judged=False)], a_cell(3, arrival="steady=60,ramp=10"), **CUT_OFF_AT_9)
    assert (summary.windows, summary.open_least, summary.requests_per_second) == ((), None, None)


def sample(at_s: float, **fields) -> ServerSample:
    return ServerSample(at_s, **fields)


def test_a_window_has_the_last_sample_in_it_and_the_cores_used_since_the_one_before_it():
    samples = (
        sample(0.4, cpu_seconds=1.0, rss_bytes=50, threads=2, descriptors=10),
        sample(1.4, cpu_seconds=1.5, rss_bytes=60, threads=3, descriptors=11),
        sample(1.9, cpu_seconds=2.5, rss_bytes=70, threads=4, descriptors=12),
        sample(3.5, cpu_seconds=2.0, rss_bytes=80, threads=5),
    )
    meta = steady_meta("steady=4", wall_s=4.0, samples=samples)
    found = windows_of(Pieces(a_table([], meta), 1), meta)
    assert [window.rss_bytes for window in found] == [50, 70, None, 80]
    assert [(window.threads, window.descriptors) for window in found] == [(2, 10), (4, 12), (None, None), (5, None)]
    assert [window.cpu_share for window in found] == [None, pytest.approx(1.0), None, 0.0]


def rates(summary: CellSummary) -> tuple[float | None, float | None]:
    return summary.requests_per_second, summary.effective_concurrency


def test_rates_of_a_steady_state_are_of_the_sessions_that_ended_in_its_judged_time():
    rows = [
        a_row(0, closed_s=3.9, judged=False),
        a_row(1, closed_s=4.0, judged=False),
        a_row(2, closed_s=12.0),
        a_row(3, closed_s=16.0, judged=False),
        a_failure(4, closed_s=12.0),
    ]
    meta = steady_meta()
    assert rates(summarise(a_table(rows, meta), meta)) == (2 / 12, 2 / 12)


def test_rates_of_sessions_that_arrive_for_a_time_leave_the_ramp_out():
    rows = [a_row(0, judged=False), a_row(1, closed_s=9.0), a_row(2, closed_s=19.0)]
    summary = summary_of(rows, a_cell(3, arrival="rate=1,for=10,ramp=4"), wall_s=20.0)
    assert rates(summary) == (2 / 16, 2 / 16)
