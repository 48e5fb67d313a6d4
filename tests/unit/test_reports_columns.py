from dataclasses import replace

import pytest
from cells import an_slo, stats
from hypothesis import given
from hypothesis import strategies as st
from report_samples import a_sweep, doubtful_sweep, measured, refused_sweep

from pytest_openenv_scale.analysis.study import BatchPoint, batch_points
from pytest_openenv_scale.core.endpoint import ProxyFacts
from pytest_openenv_scale.reporting.content.wording import (
    COLUMNS,
    batch_mark,
    batch_remark,
    breach_by_repetition,
    breach_words,
    p99_spread,
    render_seconds,
    visible_columns,
)
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, Reason

SHOWN = [
    "batch",
    "sessions",
    "success",
    "open",
    "connect",
    "reset",
    "step",
    "total",
    "spread",
    "overhead",
    "rps",
    "hosts",
]


def names(sweep):
    (view,) = sweep.curves
    return [column.name for column in visible_columns(view, batch_points(view))]


def column(name):
    return next(column for column in COLUMNS if column.name == name)


def test_the_table_has_every_column_the_reports_promise():
    assert [column.name for column in COLUMNS] == SHOWN


def test_repetitions_are_compared_only_where_there_are_several():
    assert "spread" in names(refused_sweep(reps=3))
    assert "spread" not in names(refused_sweep(reps=1))


def test_overhead_is_shown_where_steps_were_asked_to_wait():
    waiting = measured(8)
    assert "overhead" in names(a_sweep(waiting))
    without = {phase: stats for phase, stats in waiting.phases.items() if phase != "overhead"}
    assert "overhead" not in names(a_sweep(replace(waiting, phases=without)))


def test_hosts_are_shown_where_there_are_several():
    assert "hosts" in names(doubtful_sweep())
    assert "hosts" not in names(a_sweep(measured(8)))
    assert "hosts" in names(a_sweep(measured(8, hosts_available=3)))


def test_hosts_are_shown_where_they_are_asked_for():
    assert "hosts" in names(a_sweep(measured(8), slo=an_slo(hosts=1)))


def test_several_repetitions_show_the_worst_of_each_figure():
    row = BatchPoint(8, (measured(8, slower=1.0), measured(8, repetition=2, slower=1.5, failed=2)), None)
    assert column("success").texts([row]) == ["75.0"]
    assert column("open").texts([row]) == ["6"]
    assert column("step").texts([row]) == ["1.00 / 1.52 s"]


def test_a_batch_none_of_whose_sessions_succeeded_has_no_latency_and_no_zero():
    all_failed = replace(measured(8, failed=8), phases={})
    row = BatchPoint(8, (all_failed,), None)
    assert column("total").texts([row]) == ["–"]
    assert column("success").texts([row]) == ["0.0"]


def test_a_failed_session_among_thousands_is_not_rounded_away():
    row = BatchPoint(5000, (replace(measured(5000), success_rate=4999 / 5000),), None)
    assert column("success").texts([row]) == ["99.9"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([(0.009, 0.014), (0.06, 0.108)], [" 9 /  14 ms", "60 / 108 ms"]),
        ([(1.002, 1.014)], ["1.00 / 1.01 s"]),
        ([(0.0021, 0.0035)], ["2.1 / 3.5 ms"]),
        ([(0.00021, 0.0004)], ["0.21 / 0.40 ms"]),
        ([(0.0004, 0.014)], ["0.4 / 14.0 ms"]),
        ([(0.012, 1.2)], ["12 / 1200 ms"]),
        ([(0.012, 61.5)], ["0.01 / 61.50 s"]),
        ([(100.0, 1234.0)], ["100 / 1234 s"]),
        ([(0.01, None), (None, None)], ["10 / – ms", "     –   "]),
        ([(None,)], ["–"]),
    ],
)
def test_a_column_of_times_has_one_unit(values, texts):
    assert render_seconds(values) == texts


@given(st.lists(st.tuples(*[st.none() | st.floats(0, 604_800)] * 2), min_size=1))
def test_the_times_of_a_column_are_aligned(values):
    assert len({len(text) for text in render_seconds(values)}) == 1


def test_the_spread_of_repetitions_is_half_their_range():
    cells = tuple(replace(measured(8), repetition=n, phases={"total": stats(p)}) for n, p in ((1, 0.9), (2, 1.1)))
    assert p99_spread(BatchPoint(8, cells, None)) == pytest.approx(0.1)
    assert column("spread").texts([BatchPoint(8, cells, None)]) == ["±10 %"]


def breach(limit, observed, allowed):
    return Breach(8, 1, limit, observed=observed, allowed=allowed)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (breach("success", 0.781, 0.95), "success 78.1 % < 95 %"),
        (breach("total_p99", 3.1, 2.5), "total_p99 3.10 s > 2.5 s"),
        (breach("latency_factor", 3.1, 3.0), "total_p99 3.10 s > 3 s"),
        (breach("hosts", 1, 2), "hosts 1 < 2"),
        (breach("server", None, None), "the server died"),
    ],
)
def test_a_broken_limit_is_told_with_what_was_observed_and_allowed(broken, words):
    assert breach_words(broken) == words


def test_a_broken_limit_is_told_of_every_repetition_as_it_was_judged():
    proxy = ProxyFacts("Envoy", {"a:1": 8, "b:1": 0})
    cells = (measured(8, repetition=n, hosts=None, host_counts={}, proxy=proxy) for n in (1, 2))
    (view,) = a_sweep(*cells, slo=an_slo(hosts=2)).curves
    assert [(broken.limit, broken.observed) for broken in view.verdict.cells[0].breaches] == [("hosts", 1)] * 2
    assert breach_by_repetition(view) == "hosts in the 2 repetitions: 1, 1"


def test_further_limits_that_broke_are_named():
    cell = CellVerdict(8, False, (breach("success", 0.5, 0.95), breach("step_p99", 2.0, 1.0), breach("success", 0, 1)))
    assert batch_remark(BatchPoint(8, (), cell)) == "success 50.0 % < 95 %, also step_p99"


def test_a_doubtful_batch_says_in_short_why(golden):
    cell = CellVerdict(
        8, None, (), (Reason("client", 8, cause="cpu", words="the client's CPU was 98 % busy, and so on"),)
    )
    golden((batch_mark(BatchPoint(8, (), cell)), batch_remark(BatchPoint(8, (), cell))))


def test_a_batch_that_passes_needs_no_words():
    passed = BatchPoint(8, (), CellVerdict(8, True))
    assert (batch_mark(passed), batch_remark(passed)) == ("✓", "")
