"""The ladder of a self-test: which batches, when it repeats, where it ends, and how that reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_openenv_scale.selftest import search
from pytest_openenv_scale.selftest.command import batch_line, mode_sentence, opening_lines
from pytest_openenv_scale.selftest.figures import (
    MeasuredBatch,
    ModeLadder,
    SelfTest,
    SelfTestRequest,
    make_ladder,
    median_batch,
)
from pytest_openenv_scale.selftest.search import BatchSearch, SelfTestError, batches_up_to, self_test


def a_batch(batch=8, arrival="hold", *, p50=0.001, p99=0.002, mode="ws", problem=None) -> MeasuredBatch:
    return MeasuredBatch(
        mode, arrival, batch, 1, 0.010, 0.020, 0.010 + p50, 0.020 + p99, p50, p99, 120e-6, problem=problem
    )


@pytest.fixture
def measured(monkeypatch):
    """The batches measured, in their order; `figures(mode, arrival, batch, count)` says what comes out."""
    calls: list[tuple[str, str, int]] = []

    def fake(generator, request, mode, arrival, batch):
        if request.wait_s == 0:  # The warm-up.
            return a_batch(batch, arrival, mode=mode)
        calls.append((mode, arrival, batch))
        return replace(fake.figures(mode, arrival, batch, calls.count(calls[-1])), mode=mode)

    fake.figures = lambda mode, arrival, batch, count: a_batch(batch, arrival)
    fake.calls = calls
    monkeypatch.setattr(search, "measure", fake)
    monkeypatch.setattr(search, "SMALLEST_BATCH", {"ws": 8, "http": 8})
    monkeypatch.setattr(search, "largest_possible_batch", lambda mode, max_batch: (max_batch, None))
    return fake


@pytest.mark.parametrize(
    ("top", "requested", "batches"),
    [
        (64, 64, (8, 16, 32, 64)),
        (50, 50, (8, 16, 32, 50)),
        (50, 64, (8, 16, 32)),
        (8, 8, (8,)),
        (5, 5, (5,)),
        (5, 64, (5,)),
        (1, 1, (1,)),
    ],
)
def test_batches_double_and_what_was_asked_for_is_one_of_them(top, requested, batches):
    assert batches_up_to(8, top, requested) == batches


def test_every_batch_is_measured_in_both_arrivals_once_where_it_resolves(measured):
    report = self_test(SelfTestRequest(modes=("ws",), max_batch=16))
    assert measured.calls == [("ws", arrival, batch) for batch in (8, 16) for arrival in ("hold", "burst")]
    assert (report.resolves("ws"), report.resolves("http")) == (16, None)
    assert report.ladders[0].end == "top"


def test_one_bad_run_of_three_is_noise(measured):
    measured.figures = lambda mode, arrival, batch, count: a_batch(batch, arrival, p99=0.9 if count == 1 else 0.001)
    report = self_test(SelfTestRequest(modes=("ws",), max_batch=16))
    assert report.resolves("ws") == 16
    assert {result.runs for result in report.ladders[0].rungs} == {3}


def test_two_bad_runs_of_three_end_the_ladder_after_both_arrivals_were_shown(measured):
    measured.figures = lambda mode, arrival, batch, count: a_batch(
        batch, arrival, p50=0.006 if batch == 16 and arrival == "hold" and count != 2 else 0.001
    )
    (ladder,) = self_test(SelfTestRequest(modes=("ws",), max_batch=64)).ladders
    assert (ladder.resolved_batch, ladder.end) == (8, "unresolved")
    assert [(result.batch, result.arrival, result.resolved) for result in ladder.rungs[2:]] == [
        (16, "hold", False),
        (16, "burst", True),
    ]


def test_a_mode_that_ends_leaves_the_other_its_turn(measured):
    measured.figures = lambda mode, arrival, batch, count: a_batch(batch, arrival, p50=1.0 if mode == "ws" else 0.0)
    report = self_test(SelfTestRequest(max_batch=16))
    assert (report.resolves("ws"), report.resolves("http")) == (None, 16)


def test_the_time_bounds_the_ladder_but_the_smallest_batch_is_always_measured(measured):
    measured.figures = lambda mode, arrival, batch, count: a_batch(batch, arrival, p50=1.0)
    report = self_test(SelfTestRequest(modes=("ws",), max_batch=64, time_s=1e-9))
    assert measured.calls == [("ws", "hold", 8), ("ws", "burst", 8)]  # No repetition either.
    measured.figures = lambda mode, arrival, batch, count: a_batch(batch, arrival)
    report = self_test(SelfTestRequest(modes=("ws", "http"), max_batch=64, time_s=1e-9))
    assert [(one.resolved_batch, one.end) for one in report.ladders] == [(8, "time"), (8, "time")]


def test_what_is_known_at_an_interruption_is_kept(measured):
    def figures(mode, arrival, batch, count):
        if batch == 16:
            raise KeyboardInterrupt
        return a_batch(batch, arrival)

    measured.figures = figures
    under_way = BatchSearch(SelfTestRequest(max_batch=64))
    with pytest.raises(KeyboardInterrupt):
        under_way.run()
    ws, http = under_way.result().ladders
    assert (ws.resolved_batch, ws.end, http.rungs, http.resolved_batch) == (8, "interrupted", (), None)


def test_each_batch_is_reported_once_measured(measured):
    reported: list[MeasuredBatch] = []
    report = self_test(SelfTestRequest(modes=("http",), max_batch=8), reported.append)
    assert tuple(reported) == report.ladders[0].rungs


# Figures


def test_three_runs_are_their_median_figure_by_figure():
    runs = [a_batch(p50=p50, p99=p99) for p50, p99 in ((0.001, 0.9), (0.003, 0.1), (0.9, 0.2))]
    merged = median_batch(runs)
    assert (merged.invented_p50_s, merged.invented_p99_s, merged.runs) == (0.003, 0.2, 3)


@pytest.mark.parametrize(
    ("troubled", "runs", "problem"), [(1, 3, None), (2, 3, "x"), (3, 3, "x"), (1, 2, "x"), (1, 1, "x")]
)
def test_a_problem_counts_when_half_the_runs_had_it(troubled, runs, problem):
    runs = [a_batch(problem="x" if number < troubled else None) for number in range(runs)]
    assert median_batch(runs).problem == problem


@pytest.mark.parametrize(
    ("details", "resolved"),
    [
        ({"p50": 0.005, "p99": 0.040}, True),
        ({"p50": -0.001, "p99": -0.001}, True),
        ({"p50": 0.0051}, False),
        ({"p99": 0.0401}, False),
        ({"problem": "busy"}, False),
        ({"p50": 0.0, "p99": 0.0}, True),
    ],
)
def test_both_limits_are_kept_and_nothing_else_is_wrong(details, resolved):
    assert a_batch(**details).resolved is resolved


def test_runs_in_which_nothing_succeeded_resolve_nothing():
    nothing = replace(a_batch(), client_p50_s=None, client_p99_s=None, invented_p50_s=None, invented_p99_s=None)
    assert not median_batch([nothing] * 3).resolved
    assert "–" in batch_line(nothing)


def test_a_batch_above_an_unresolved_one_does_not_count():
    measured = [
        a_batch(batch, arrival, p50=0.9 if batch == 16 else 0.0)
        for batch in (8, 16, 32)
        for arrival in ("hold", "burst")
    ]
    assert make_ladder("ws", measured, "top", 32, None).resolved_batch == 8


def test_a_batch_measured_in_one_arrival_only_does_not_count():
    assert make_ladder("ws", [a_batch(8)], "interrupted", 32, None).resolved_batch is None


def test_what_was_found_survives_json():
    report = SelfTest((make_ladder("ws", [a_batch(8), a_batch(8, "burst")], "top", 8, None),), 1.0, 2, "0.1.0")
    assert SelfTest.from_json(report.to_json()) == report
    assert report.to_json()["ladders"][0]["resolved_batch"] == 8


@pytest.mark.parametrize(
    ("values", "percentiles"),
    [((), (None, None)), ((3.0,), (3.0, 3.0)), ((1.0, 2.0), (1.5, 1.99)), (range(101), (50, 99))],
)
def test_percentiles_are_exact_between_neighbours(values, percentiles):
    assert search.p50_p99(tuple(values)) == pytest.approx(percentiles)


# What the machine allows


def test_descriptors_and_ports_bound_the_ladder_and_are_named(golden, monkeypatch):
    monkeypatch.setattr(search, "descriptor_limit", lambda: 1000)
    monkeypatch.setattr(search, "ports_per_source", lambda: 28_232)
    largest, why = search.largest_possible_batch("ws", 16_384)
    assert largest == 936
    golden(why)
    assert search.largest_possible_batch("ws", 900) == (900, None)
    monkeypatch.setattr(search, "ports_per_source", lambda: 500)
    golden(search.largest_possible_batch("ws", 16_384)[1])
    monkeypatch.setattr(search, "descriptor_limit", lambda: 64)
    with pytest.raises(SelfTestError) as caught:
        search.largest_possible_batch("ws", 16_384)
    golden(caught.value)


def test_memory_bounds_the_ladder_http_first(golden, monkeypatch):
    monkeypatch.setattr(search, "descriptor_limit", lambda: 10**6)
    monkeypatch.setattr(search, "ports_per_source", lambda: None)
    monkeypatch.setattr(search.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**9}))
    (ws, why), (http, _) = search.largest_possible_batch("ws", 10**6), search.largest_possible_batch("http", 10**6)
    assert http < ws < 10**6
    golden(why)


# How it reads


@pytest.mark.parametrize(
    "found",
    [
        ModeLadder("ws", (a_batch(),), 16_384, "top", 16_384),
        ModeLadder("ws", (a_batch(),), 936, "top", 936, "the limit is 1,000 descriptors per process (ulimit -n)"),
        ModeLadder("http", (a_batch(8), a_batch(16, "burst", p50=0.0031, p99=0.061)), 8, "unresolved", 64),
        ModeLadder(
            "http", (a_batch(8, p50=0.0098, p99=0.011, problem="answers were seen late"),), None, "unresolved", 64
        ),
        ModeLadder("ws", (a_batch(8, problem="a load process stood still for 681 ms"),), None, "unresolved", 64),
        ModeLadder(
            "http",
            (replace(a_batch(8, problem="2 of 8 sessions failed (connect: timeout)"), failed=2),),
            None,
            "unresolved",
            64,
        ),
        ModeLadder("ws", (a_batch(),), 8, "time", 64),
        ModeLadder("http", (), None, "interrupted", 64),
    ],
)
def test_a_ladder_is_one_sentence(golden, found):
    golden(mode_sentence(found, 120.0))


def test_a_batch_is_a_row_with_units_and_a_verdict(golden):
    row = batch_line(replace(a_batch(1024, "burst", p50=0.0356, p99=0.112), runs=3))
    golden(" ".join(row.split()))
    assert row.index("✗") == opening_lines(SelfTestRequest(), 2)[-1].index("resolved")


def test_what_rounds_to_nothing_has_no_sign():
    assert " 0 / 0 ms " in batch_line(a_batch(p50=-0.000002, p99=-0.000004))


def test_one_core_is_said():
    assert any("one core" in line for line in opening_lines(SelfTestRequest(), 1))
    assert not any("one core" in line for line in opening_lines(SelfTestRequest(), 2))
