"""Slopes: flat series are flat whatever the noise, a planted drift is found."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.metrics.drift import LEAST_POINTS, drift

POINTS = 19
"""What is left of 24 windows after the warm-up."""

seeds = st.integers(0, 2**32)


def rises(values: list[float], ratio: float = 0.5) -> bool:
    trend = drift(range(len(values)), values)
    assert trend is not None
    return trend.rises(len(values) * 1.25, ratio=ratio, least=0.0)


@given(st.lists(st.floats(0.8, 1.2), min_size=LEAST_POINTS, max_size=60))
def test_no_series_within_a_fifth_of_its_level_rises_by_half(values: list[float]) -> None:
    assert not rises(values)


@given(seeds, st.sampled_from([0.02, 0.1, 0.2]), st.integers(12, 120))
def test_a_flat_series_with_spikes_does_not_rise(seed: int, noise: float, count: int) -> None:
    draw = random.Random(seed)
    spikes = [draw.expovariate(1.0) if draw.random() < 0.1 else 0.0 for _ in range(count)]
    assert not rises([1 + draw.gauss(0, noise) + spike for spike in spikes])


@given(seeds, st.floats(0.0, 0.05), st.floats(0.8, 5.0))
def test_a_rise_of_four_fifths_is_found_under_noise_of_a_twentieth(seed: int, noise: float, rise: float) -> None:
    draw = random.Random(seed)
    assert rises([1 + rise * number / (POINTS - 1) + draw.gauss(0, noise) for number in range(POINTS)])


@given(seeds, st.integers(0, POINTS - 1), st.floats(2.0, 100.0))
def test_a_single_point_that_stands_out_hides_no_rise(seed: int, outlier: int, height: float) -> None:
    draw = random.Random(seed)
    values = [1 + 2 * number / (POINTS - 1) + draw.gauss(0, 0.02) for number in range(POINTS)]
    values[outlier] *= height
    assert rises(values)


@given(seeds, st.integers(1, POINTS - 1), st.floats(0.5, 3.0))
def test_one_step_up_is_no_drift_wherever_it_is(seed: int, cut: int, height: float) -> None:
    draw = random.Random(seed)
    assert not rises([1 + height * (number >= cut) + draw.gauss(0, 0.02) for number in range(POINTS)])


def test_one_step_up_under_much_noise_is_no_drift_either() -> None:
    draw = random.Random(1)
    verdicts = [rises([1 + (number >= 9) + draw.gauss(0, 0.15) for number in range(POINTS)]) for _ in range(200)]
    assert sum(verdicts) <= 2


@pytest.mark.parametrize("end", [4, 6, 8, 9])
def test_a_growth_that_ends_is_no_drift(end: int) -> None:
    assert not rises([1 + 4 * min(number, end) / end for number in range(POINTS)])


def test_a_hump_is_no_drift() -> None:
    assert not rises([1.0] * 6 + [3.0] * 7 + [1.2] * 6)


def test_a_rise_that_slows_down_or_speeds_up_is_a_drift() -> None:
    assert rises([1 + 2 * (number / (POINTS - 1)) ** 0.5 for number in range(POINTS)])
    assert rises([1 + 2 * (number / (POINTS - 1)) ** 2 for number in range(POINTS)])


def test_a_rise_below_what_matters_is_none() -> None:
    line = [100.0 + number for number in range(POINTS)]
    trend = drift(range(POINTS), line)
    assert trend is not None
    assert trend.rises(18, ratio=0.1, least=10)
    assert not trend.rises(18, ratio=0.5, least=10)
    assert not trend.rises(18, ratio=0.1, least=20)


def test_a_rise_whose_amount_is_not_sure_may_be_one_and_a_step_is_none_but_a_jump() -> None:
    draw = random.Random(1)
    unsure = drift(range(POINTS), [1 + number / 18 + draw.gauss(0, 0.15) for number in range(POINTS)])
    assert unsure is not None
    assert 0 < unsure.low < unsure.slope
    amount = {"ratio": 0.0, "least": (unsure.low + unsure.slope) / 2 * 18}
    assert (unsure.rises(18, **amount), unsure.may_rise(18, **amount), unsure.jumps(18, **amount)) == (
        False,
        True,
        False,
    )
    assert not unsure.may_rise(18, ratio=0.0, least=unsure.slope * 18.1)
    step = drift(range(POINTS), [1 + 2 * (number >= 10) + draw.gauss(0, 0.15) for number in range(POINTS)])
    assert step is not None
    assert (step.may_rise(18, ratio=0.5, least=0.0), step.jumps(18, ratio=0.5, least=0.0)) == (False, True)
    assert not step.jumps(18, ratio=0.5, least=100.0)
    # Both levels creep up: it surely rises, but what matters of it came at once.
    creeping = drift(range(POINTS), [1 + 2 * (number >= 10) + number / 100 for number in range(POINTS)])
    assert creeping is not None
    assert creeping.low > 0
    assert (creeping.may_rise(18, ratio=0.5, least=0.0), creeping.jumps(18, ratio=0.5, least=0.0)) == (False, True)
    # A wild series with a slope that may be none at all.
    wild = drift(range(POINTS), [1 + number / 18 + draw.gauss(0, 1.5) for number in range(POINTS)])
    assert wild is not None
    assert wild.low <= 0 < wild.slope
    assert not wild.stepped
    assert not wild.may_rise(18, ratio=0.0, least=wild.slope * 9)
    falling = drift(range(POINTS), [2 - number / 18 for number in range(POINTS)])
    assert falling is not None
    assert not falling.may_rise(18, ratio=0.0, least=0.0)


@given(st.lists(st.floats(-10, 10), min_size=LEAST_POINTS, max_size=40), st.floats(0.01, 2), st.floats(0.01, 20))
def test_what_surely_rises_may_rise_and_is_no_jump(values: list[float], ratio: float, least: float) -> None:
    trend = drift(range(len(values)), values)
    assert trend is not None
    if trend.rises(len(values), ratio=ratio, least=least):
        assert trend.may_rise(len(values), ratio=ratio, least=least)
        assert not trend.jumps(len(values), ratio=ratio, least=least)


@given(seeds, st.booleans())
def test_slope_and_interval_are_those_of_scipy(seed: int, equal: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(seed)
    values = [draw.gauss(0, 1) + number * 0.05 for number in range(24)]
    values = [round(value) for value in values] if equal else values
    trend = drift(range(24), values)
    assert trend is not None
    theirs = stats.theilslopes(values, range(24), 0.99)
    assert trend.slope == pytest.approx(theirs.slope)
    # Ours may be wider by a rank or two at either end, never narrower.
    assert trend.low <= theirs.low_slope + 1e-12
    assert trend.high >= theirs.high_slope - 1e-12
    slopes = [(values[b] - values[a]) / (b - a) for a in range(24) for b in range(a + 1, 24)]
    assert sum(trend.low < slope < theirs.low_slope - 1e-12 for slope in slopes) <= 2
    assert sum(theirs.high_slope + 1e-12 < slope < trend.high for slope in slopes) <= 2


def test_points_without_a_value_are_left_out_and_too_few_say_nothing() -> None:
    full = drift([0, 1, 3, 4, 5, 6, 7, 8], [0, 1, 3, 4, 5, 6, 7, 8])
    with_holes = drift(range(9), [0, 1, None, 3, 4, 5, 6, 7, 8])
    assert full == with_holes is not None
    assert drift(range(9), [None, None, 0, 1, 2, 3, 4, 5, 6]) is None
    assert drift([5] * 9, range(9)) is None
