"""The rows of a cell as figures."""

import json

import pyarrow as pa
import pytest
from cells import a_cell, a_failure, a_meta, a_row, a_table, summary_of
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.metrics.concurrency import peak_concurrency
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.metrics.percentiles import phase_stats
from pytest_openenv_scale.metrics.summary import COLUMNS, CellSummary, summarise
from pytest_openenv_scale.results.cell import ClientFinding, ServerSamples
from pytest_openenv_scale.results.outcome import ErrorCount

SECONDS = st.floats(0, 1e4, allow_nan=False)


def doubles(values):
    return pa.chunked_array([pa.array(values, pa.float64())])


def percentile(values, share):
    """The value `share` of the way through the sorted values, on the line between its two neighbours."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@given(st.lists(SECONDS, min_size=1, max_size=300))
def test_percentiles_are_exact_and_interpolate_linearly(values):
    stats = phase_stats(doubles(values))
    assert stats is not None
    expected = [percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99)]
    assert [stats.p50, stats.p90, stats.p95, stats.p99] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert (stats.count, stats.min, stats.max) == (len(values), min(values), max(values))
    assert stats.mean == pytest.approx(sum(values) / len(values))


def test_the_percentile_of_two_values_lies_between_them():
    stats = phase_stats(doubles([1.0, 2.0]))
    assert stats is not None
    assert (stats.p50, stats.p90) == (1.5, pytest.approx(1.9))


def test_nulls_are_no_values():
    stats = phase_stats(doubles([None, 3.0, None]))
    assert stats is not None
    assert stats.count == 1
    assert phase_stats(doubles([None, None])) is None
    assert phase_stats(doubles([])) is None


def peak_of(ups, downs):
    return peak_concurrency(lambda: iter([pa.table({"reset_done_s": doubles(ups), "closed_s": doubles(downs)})]))


spans = st.lists(st.tuples(st.none() | st.integers(0, 20), st.none() | st.integers(0, 20)), max_size=40)


@given(spans)
def test_peak_concurrency_is_the_most_sessions_open_at_one_instant(sessions):
    def open_at(instant):
        return sum(up is not None and up <= instant and (down is None or instant < down) for up, down in sessions)

    ups, downs = ([pair[side] for pair in sessions] for side in (0, 1))
    assert peak_of(ups, downs) == max(map(open_at, range(22)), default=0)


def test_a_session_that_opens_as_another_closes_is_not_concurrent_with_it():
    assert peak_of([0.0, 1.0], [1.0, 2.0]) == 1


def test_counts_and_the_success_rate():
    summary = summary_of([a_row(0), a_row(1), a_row(2), a_failure(3)])
    assert (summary.asked, summary.successful, summary.failed, summary.success_rate) == (4, 3, 1, 0.75)


def test_sessions_the_client_could_not_start_leave_the_denominator():
    limited = [a_failure(number, phase="connect", type="client_limit", code="EMFILE") for number in (2, 3)]
    summary = summary_of([a_row(0), a_row(1), *limited])
    assert (summary.successful, summary.failed, summary.client_limited, summary.success_rate) == (2, 0, 2, 1.0)


def test_sessions_without_a_row_count_as_never_started():
    summary = summary_of([a_row(0)], a_cell(4))
    assert (summary.asked, summary.client_limited, summary.success_rate) == (4, 3, 1.0)


def test_a_cell_in_which_nothing_was_measured_has_no_rate_and_no_times():
    summary = summary_of([], a_cell(4))
    assert summary.success_rate is None
    assert summary.phases == {}
    assert (summary.effective_concurrency, summary.peak_concurrency, summary.hosts, summary.pids) == (
        None,
        0,
        None,
        None,
    )


def test_times_of_failed_sessions_never_enter_percentiles():
    slow = a_failure(
        1, phase="step", type="timeout", code=None, connect_latency=9.0, reset_latency=9.0, step_latencies=[9.0]
    )
    summary = summary_of([a_row(0), slow])
    assert summary.phases["connect"].max == 0.01
    assert summary.phases["reset"].count == 1
    assert summary.phases["step"].max == 1.0


def test_step_times_count_single_steps():
    row = a_row(step_latencies=[1.0, 3.0], step_latency=4.0, steps_done=2, total_latency=4.03)
    step = summary_of([row]).phases["step"]
    assert (step.count, step.mean) == (2, 2.0)


def test_overhead_is_the_total_without_the_waits_that_were_asked_for():
    row = a_row(steps_done=3, step_latency=3.3, total_latency=3.33)
    assert summary_of([row], a_cell(1, wait=1.0, steps=3)).phases["overhead"].p50 == pytest.approx(0.33)


def test_without_a_wait_there_is_no_overhead():
    assert summary_of([a_row()], a_cell(1, wait=None)).phase("overhead") is None


def test_totals_are_also_known_without_the_clients_own_queue():
    summary = summary_of([a_row(queue_latency=0.5, total_latency=1.53)])
    assert summary.phases["total_unqueued"].max == pytest.approx(1.03)
    assert summary.phases["overhead_unqueued"].max == pytest.approx(0.03)


def test_rates_are_over_the_wall_time():
    summary = summary_of([a_row(0, waited_seconds=1.0), a_row(1, waited_seconds=3.0), a_failure(2)], wall_s=4.0)
    assert summary.requests_per_second == 0.5
    assert summary.effective_concurrency == 1.0


def test_waits_nobody_reported_give_no_effective_concurrency():
    assert summary_of([a_row(waited_seconds=None)]).effective_concurrency is None


def test_processes_sessions_and_hosts_are_counted_where_they_are_told():
    rows = [a_row(0, pid=1, host_url="a"), a_row(1, pid=2, host_url="a"), a_row(2, pid=2, host_url="b")]
    summary = summary_of(rows)
    # Processes of two hosts, or of two containers, may have the same number.
    assert (summary.pids, summary.sessions, summary.hosts) == (3, 3, 2)
    assert summary.host_counts == {"a": 2, "b": 1}
    assert summary.hosts_known


def test_processes_nobody_told_are_not_counted():
    assert summary_of([a_row(0, pid=1), a_row(1, pid=None)]).pids == 1
    assert summary_of([a_row(0, pid=None)]).pids is None


def test_a_host_that_one_session_does_not_tell_is_not_known():
    summary = summary_of([a_row(0), a_row(1, host_url=None)])
    assert summary.hosts == 1
    assert not summary.hosts_known


def test_failures_are_grouped_with_the_first_message_of_each_kind():
    rows = [
        a_failure(0, message="first"),
        a_failure(1, phase="connect", type="timeout", code=None, message=None),
        a_failure(2, message="second"),
    ]
    assert summary_of(rows).errors == (
        ErrorCount("reset", "capacity", "CAPACITY_REACHED", 2, "first"),
        ErrorCount("connect", "timeout", None, 1, None),
    )


def cut_off(number, pid, **fields):
    return a_failure(number, phase="step", type="closed_early", code="1006", pid=pid, host_url="a", **fields)


def test_a_process_whose_sessions_were_all_cut_off_is_a_lost_worker():
    rows = [a_row(0, pid=1, host_url="a"), cut_off(1, 2), cut_off(2, 2), a_failure(3)]
    assert summary_of(rows).lost_workers == (LostWorker(2, "a", 2),)


def test_sessions_of_a_process_that_had_ended_before_it_was_lost_leave_it_lost():
    before = [a_row(number, pid=2, host_url="a", closed_s=0.02) for number in range(3)]
    rows = [*before, cut_off(3, 2, closed_s=0.02), cut_off(4, 2, closed_s=0.03)]
    assert summary_of(rows).lost_workers == (LostWorker(2, "a", 2),)


@pytest.mark.parametrize(
    "rows",
    [
        [a_row(0, pid=2, host_url="a"), cut_off(1, 2), cut_off(2, 2)],
        [a_row(0, pid=2, host_url="a", closed_s=None), cut_off(1, 2), cut_off(2, 2)],
        [cut_off(1, 2)],
        [cut_off(1, 2, error_code="1000"), cut_off(2, 2, error_code="1000")],
    ],
    ids=["one session survived", "nobody knows when it ended", "a single session", "closed with a close frame"],
)
def test_less_than_that_is_no_lost_worker(rows):
    assert summary_of(rows).lost_workers == ()


def test_what_is_known_besides_the_rows_is_kept():
    facts = {
        "findings": (ClientFinding("cpu", "busy"),),
        "server": ServerSamples(peak=ServerSample(1.0, threads=9)),
        "server_exit": ExitStatus.from_returncode(-9),
        "log_tail": "bye",
        "limits": {"workers": 2},
        "client": {"cpu_share": 0.5},
        "cores": 4,
        "hardware": "cpu-basic",
    }
    summary = summary_of([a_row()], **facts)
    assert {name: getattr(summary, name) for name in facts} == facts


def test_a_summary_needs_only_its_own_columns():
    meta = a_meta(a_cell(2))
    table = a_table([a_row(), a_failure(1)], meta)
    assert summarise(table.select(COLUMNS), meta) == summarise(table, meta)


def test_a_summary_of_several_chunks_is_that_of_the_whole():
    rows = [a_row(number, step=1 + number / 10, pid=number % 3) for number in range(9)] + [a_failure(9), a_failure(10)]
    meta = a_meta(a_cell(11))
    chunks = pa.concat_tables([a_table(rows[start : start + 3], meta) for start in range(0, 11, 3)])
    assert summarise(chunks, meta) == summarise(a_table(rows, meta), meta)


def test_a_summary_survives_json():
    summary = summary_of([a_row(0), a_failure(1), cut_off(2, 2)])
    assert CellSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def test_sixteen_thousand_sessions_at_once_are_all_counted():
    rows = [a_row(number, step=1 + number / 1e6) for number in range(16_384)]
    assert summarise(a_table(rows), a_meta(a_cell(16_384))).peak_concurrency == 16_384
