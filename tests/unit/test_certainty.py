"""Intervals cover what they say, by exact enumeration."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from cells import a_failure, a_row, an_slo, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.analysis.study import batch_points
from pytest_openenv_scale.metrics.certainty import (
    least_samples,
    over_repetitions,
    percentile_ranks,
    slope,
    success_interval,
)
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.wording import certainty_sentence
from pytest_openenv_scale.reporting.json import _certainty_document
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve

SHARES = st.floats(0.01, 0.99)


def binomial(count: int, trials: int, share: float) -> float:
    return math.comb(trials, count) * share**count * (1 - share) ** (trials - count)


# Shares


@given(st.integers(1, 40), SHARES)
@settings(max_examples=100, deadline=None)
def test_the_interval_of_a_share_covers_it_at_least_95_times_in_100(trials, share):
    intervals = [success_interval(count, trials) for count in range(trials + 1)]
    covering = [count for count, (low, high) in enumerate(intervals) if low <= share <= high]
    assert sum(binomial(count, trials, share) for count in covering) >= 0.95


@given(st.integers(1, 300), st.data())
@settings(max_examples=50, deadline=None)
def test_each_end_leaves_a_fortieth_beyond_it(trials, data):
    count = data.draw(st.integers(0, trials))
    low, high = success_interval(count, trials)
    assert 0 <= low <= count / trials <= high <= 1
    if count:
        assert sum(binomial(k, trials, low) for k in range(count, trials + 1)) == pytest.approx(0.025, rel=1e-6)
    if count < trials:
        assert sum(binomial(k, trials, high) for k in range(count + 1)) == pytest.approx(0.025, rel=1e-6)


def test_shares_known_from_tables():
    assert success_interval(20, 20) == pytest.approx((0.8316, 1.0), abs=1e-4)
    assert success_interval(0, 20) == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert success_interval(15, 20) == pytest.approx((0.5090, 0.9134), abs=1e-4)


def test_the_interval_of_very_many_sessions_is_narrow():
    low, high = success_interval(990_000, 1_000_000)
    assert 0.9897 < low < 0.99 < high < 0.9903


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_has_no_interval(successes, trials):
    with pytest.raises(ValueError, match="no share"):
        success_interval(successes, trials)


# Percentiles


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=100, deadline=None)
def test_the_ranks_of_a_percentile_are_the_innermost_that_cover_it(samples, share):
    low, high = percentile_ranks(samples, share)
    chances = [binomial(count, samples, share) for count in range(samples + 1)]

    def below(rank: int) -> float:  # The sample of this rank lies above the percentile.
        return sum(chances[:rank])

    def above(rank: int) -> float:  # The sample of this rank lies below it.
        return sum(chances[rank:])

    if low is None:
        assert below(1) > 0.025
    else:
        assert below(low) <= 0.025 + 1e-12
        assert below(low + 1) > 0.025 - 1e-12
    if high is None:
        assert above(samples) > 0.025
    else:
        assert above(high) <= 0.025 + 1e-12
        assert above(high - 1) > 0.025 - 1e-12


@pytest.mark.parametrize(("samples", "share"), [(60, 0.9), (500, 0.99), (9, 0.5)])
def test_whatever_the_distribution_the_percentile_lies_between(samples, share):
    """Drawn from a law with a long tail whose percentile is known: the ends are where they are said to be."""
    source = random.Random(1)
    low, high = percentile_ranks(samples, share)
    assert low is not None
    assert high is not None
    truth = 1 / (1 - share)  # of 1/u with u uniform on (0, 1)
    covered = 0
    for _ in range(400):
        ordered = sorted(1 / (1 - source.random()) for _ in range(samples))
        covered += ordered[low - 1] <= truth <= ordered[high - 1]
    assert covered >= 0.92 * 400


@pytest.mark.parametrize(("share", "least"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_fewer_samples_than_the_least_leave_an_end_open(share, least):
    assert least_samples(share) == least
    assert None not in percentile_ranks(least, share)
    assert None in percentile_ranks(least - 1, share)


def test_a_p99_of_20_sessions_has_no_upper_end():
    assert percentile_ranks(20, 0.99) == (19, None)


def test_ranks_of_ten_million_samples_stand_close_to_the_percentile():
    low, high = percentile_ranks(10_000_000, 0.99)
    assert low is not None
    assert high is not None
    assert 9_900_000 - 700 < low < 9_900_000 < high < 9_900_000 + 700


# Repetitions


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_interval_over_repetitions_covers_their_median_as_often_as_it_says(values):
    interval = over_repetitions(values)
    assert interval.low is not None
    assert interval.high is not None
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert interval.samples == len(values)
    # n values at random sides of the median: at least one on each side of the interval's ends.
    count = len(values)
    rank_low, rank_high = percentile_ranks(count, 0.5)
    inner = (rank_low or 1, rank_high or count)
    covers = sum(math.comb(count, below) for below in range(inner[0], inner[1])) / 2**count
    assert covers >= interval.confidence - 1e-12


# The figures of a batch


def view_of(*cells: CellSummary) -> CurveView:
    curve = replace(cells[0].cell.curve, batches=(cells[0].batch,))
    return CurveView(curve, cells, judge_curve(curve, cells, an_slo(success=0.5)))


def sessions(count: int, *, failed: int = 0, slower: float = 0.0, **fields) -> CellSummary:
    """So many sessions that take 1 s, 2 s and so on, after which some find the server full."""
    rows = [a_row(number, total_latency=float(number + 1) + slower) for number in range(count - failed)]
    return summary_of([*rows, *(a_failure(count - 1 - number) for number in range(failed))], **fields)


def test_the_ends_of_an_interval_are_sessions_that_were_measured():
    stats = sessions(400).phases["total"]
    low, high = percentile_ranks(400, 0.99)
    assert stats.intervals["p99"] == (low, high)  # The session of rank n took n seconds.
    assert stats.intervals["p99"][0] <= stats.p99 <= stats.intervals["p99"][1]
    few = sessions(20).phases["total"]
    assert few.intervals["p99"] == (19.0, None)
    assert sessions(1).phases["total"].intervals["p50"] == (None, None)


def test_of_one_repetition_the_sessions_are_the_samples():
    (point,) = batch_points(view_of(sessions(40, failed=4)))
    success, total = point.success_interval(), point.latency_interval("total", "p50")
    assert success is not None
    assert (success.over, success.samples, success.confidence) == ("sessions", 40, 0.95)
    assert (success.low, success.high) == success_interval(36, 40)
    assert total is not None
    assert (total.over, total.samples) == ("sessions", 36)
    assert point.latency_interval("overheads", "p50") is None


def test_of_several_they_are_the_repetitions():
    cells = [sessions(8, slower=float(number), repetition=number) for number in (1, 2, 3)]
    (point,) = batch_points(view_of(*cells))
    success, total = point.success_interval(), point.latency_interval("total", "p50")
    assert success is not None
    assert (success.low, success.high, success.confidence, success.over) == (1.0, 1.0, 0.75, "repetitions")
    assert total is not None
    assert (total.low, total.high, total.samples) == (5.5, 7.5, 3)


def test_a_report_says_it_in_one_line(golden):
    views = [
        view_of(sessions(400, failed=2)),
        view_of(sessions(20)),
        view_of(sessions(4, failed=3)),
        view_of(*(sessions(8, failed=number - 1, slower=0.1 * number, repetition=number) for number in (1, 2, 3))),
    ]
    golden(certainty_sentence(view) or "nothing, as nothing passes" for view in views)


def test_programs_get_the_values_of_every_batch_and_of_what_limits_are_about():
    view = view_of(sessions(20))
    view = replace(view, verdict=judge_curve(view.curve, view.summaries, an_slo(step_p90="9s")))
    document = _certainty_document(view, batch_points(view)[0])
    assert {"success", "total_p50", "total_p99", "step_p90"} <= set(document)
    assert (document["total_p99"]["high"], document["total_p99"]["least_samples"]) == (None, 368)
    assert document["step_p90"]["over"] == "steps"


def test_a_slope_has_an_interval_that_covers_it_as_often_as_it_says():
    generator = random.Random(3)
    covered = 0
    for _ in range(400):
        points = [(x, 3 * x + generator.gauss(0, 4)) for x in (0, 1, 2, 5, 8, 9, 12, 20)]
        found = slope(points)
        covered += found.low <= 3 <= found.high
    assert covered / 400 >= 0.93
    assert found.confidence == 0.95


def test_the_slope_of_few_points_spans_all_there_are_and_says_how_sure_that_is():
    found = slope([(0, 0.0), (1, 1.0), (2, 4.0), (4, 4.0)])
    assert (found.value, found.low, found.high) == (1, 0, 3)
    assert found.confidence == pytest.approx(1 - 2 / 24)
    assert slope([(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)])[:3] == (0, 0, 0)
    with pytest.raises(ValueError, match="one x"):
        slope([(1, 2.0), (1, 3.0)])
