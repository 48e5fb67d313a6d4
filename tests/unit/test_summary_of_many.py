"""Rows that do not fit into memory come to the same figures as those that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pytest
from cells import a_cell, a_failure, a_meta, a_part, a_row, a_table
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.metrics import concurrency, errors, percentiles, summary
from pytest_openenv_scale.metrics.summary import COLUMNS, summarise, summarise_rows
from pytest_openenv_scale.results.parts import BATCH_ROWS, PartError, read_part
from pytest_openenv_scale.results.run_directory import RunDirectory

SECONDS = st.floats(0, 1e4, allow_nan=False) | st.integers(0, 3).map(float)
SESSIONS = st.lists(
    st.one_of(
        st.builds(
            lambda step, up, host, pid: a_row(
                step=step, reset_done_s=up, closed_s=up + step, host_url=host, pid=pid, session_hash=f"{step}{pid}"
            ),
            SECONDS,
            SECONDS,
            st.sampled_from(["a:1", "b:1", None]),
            st.sampled_from([1, 2, None]),
        ),
        st.builds(
            lambda kind, code, pid: a_failure(type=kind, code=code, pid=pid, message=f"{kind} {code}"),
            st.sampled_from(["capacity", "closed_early", "connection_reset", "client_limit"]),
            st.sampled_from(["1006", "X", None]),
            st.sampled_from([1, 3, None]),
        ),
    ),
    max_size=60,
)


@dataclass(frozen=True)
class Pieces:
    """A table read a few rows at a time, its repeated texts as dictionaries, as a part is."""

    table: pa.Table
    size: int

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        for at in range(0, self.table.num_rows, self.size):
            yield self.table.slice(at, self.size).select(columns)


def hold_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every column count as too large, so that tests of a few rows take the path of millions."""
    for module, name, most in (
        (percentiles.column_stats, "max_held", 5),
        (concurrency.peak_concurrency, "max_sorted", 6),
        (errors.count_distinct, "max_held", 4),
    ):
        monkeypatch.setitem(module.__kwdefaults__, name, most)


@given(sessions=SESSIONS, size=st.integers(1, 70), little=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_read_in_pieces_have_the_summary_of_the_whole(sessions, size, little):
    meta = a_meta(a_cell(60))
    table = a_table([row._replace(request_id=n) for n, row in enumerate(sessions)], meta)
    in_memory = summarise(table.select(COLUMNS), meta)
    with pytest.MonkeyPatch.context() as patch:
        if little:
            hold_little(patch)
        streamed = summarise_rows(Pieces(table, size), meta)
    assert replace(streamed, phases={}) == replace(in_memory, phases={})
    assert streamed.phases.keys() == in_memory.phases.keys()
    for name, stats in in_memory.phases.items():
        streamed_stats = streamed.phases[name]
        assert (streamed_stats.count, streamed_stats.min, streamed_stats.max) == (stats.count, stats.min, stats.max)
        exact = [stats.p50, stats.p90, stats.p95, stats.p99, stats.mean]
        assert [
            streamed_stats.p50,
            streamed_stats.p90,
            streamed_stats.p95,
            streamed_stats.p99,
            streamed_stats.mean,
        ] == pytest.approx(exact, rel=1e-12, abs=1e-12)


@given(st.lists(st.lists(SECONDS, max_size=30), min_size=1, max_size=6), st.integers(1, 20))
@settings(deadline=None)
def test_percentiles_of_a_column_that_is_never_held_are_exact(pieces, max_held):
    values = [value for piece in pieces for value in piece]
    columns = [pa.chunked_array([pa.array(piece, pa.float64())]) for piece in pieces]
    stats = percentiles.column_stats(lambda: iter(columns), max_held=max_held)
    exact = percentiles.phase_stats(pa.array(values, pa.float64()))
    if exact is None or stats is None:
        assert stats is exact
        return
    assert (stats.count, stats.min, stats.max) == (exact.count, exact.min, exact.max)
    assert (stats.p50, stats.p90, stats.p95, stats.p99) == pytest.approx(
        (exact.p50, exact.p90, exact.p95, exact.p99), rel=1e-12, abs=1e-300
    )


SPANS = st.lists(st.tuples(st.none() | st.integers(0, 20), st.none() | st.integers(0, 20)), max_size=40)


@given(SPANS, st.integers(1, 12), st.integers(1, 50))
@settings(deadline=None)
def test_the_peak_is_the_same_however_time_is_cut(sessions, max_sorted, size):
    def open_at(instant: int) -> int:
        return sum(up is not None and up <= instant and (down is None or instant < down) for up, down in sessions)

    def spans() -> Iterator[pa.Table]:
        for at in range(0, len(sessions), size):
            ups, downs = ([pair[side] for pair in sessions[at : at + size]] for side in (0, 1))
            kind = pa.float64()
            yield pa.table({"reset_done_s": pa.array(ups, kind), "closed_s": pa.array(downs, kind)})

    peak = concurrency.peak_concurrency(spans, max_sorted=max_sorted)
    assert peak == max(map(open_at, range(22)), default=0)


def test_a_large_part_is_read_in_batches_and_comes_to_the_same(tmp_path):
    meta = a_meta(a_cell(BATCH_ROWS + 5))
    few = [a_failure(0, pid=7), *(a_row(n) for n in range(1, 100))]
    rows = few * (BATCH_ROWS // 100 + 1)
    part = a_part(tmp_path, rows, meta)
    assert part.num_rows == len(rows) > BATCH_ROWS
    assert [batch.num_rows for batch in part.batches("success")] == [BATCH_ROWS, len(rows) - BATCH_ROWS]
    assert summarise_rows(part, meta) == summarise(a_table(rows, meta), meta)


def test_a_part_that_is_damaged_inside_says_so_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "_ROWS_READ_AT_ONCE", 1000)
    meta = a_meta(a_cell(20_000))
    with RunDirectory.create(tmp_path) as run:
        run.begin()
        path = run.write_cell([a_row(n, step=1 + n / 7) for n in range(20_000)], meta).path
        run.finish("complete")
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)
    with pytest.raises(PartError, match="damaged or truncated"):
        summarise_rows(read_part(path), meta)
    (problem, *_) = load_run(run.path).problems
    assert path.name in problem


def test_ways_of_failing_a_server_makes_up_are_listed_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(errors, "MAX_LISTED", 3)
    rows = [a_failure(n, code=f"E{n}", message=f"no {n}") for n in range(10)]
    meta = a_meta(a_cell(10))
    summarised = summarise(a_table(rows, meta), meta)
    assert [(error.code, error.count) for error in summarised.errors] == [
        *((errors.OTHERS, 7), ("E0", 1), ("E1", 1), ("E2", 1))
    ]
    assert summarised.failed == 10


def test_lost_workers_are_listed_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(errors, "MAX_LISTED", 3)
    rows = [a_failure(n, type="connection_reset", pid=n // 2) for n in range(20)]
    meta = a_meta(a_cell(20))
    assert [worker.pid for worker in summarise(a_table(rows, meta), meta).lost_workers] == [0, 1, 2]
