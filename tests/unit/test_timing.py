"""How long sessions and repetitions take where the server takes no time itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.engine.allowance import Allowance

SECONDS = st.floats(min_value=0.0, max_value=100.0)


def timing(arrival: str = "hold", steps: int = 5, wait: float = 1.0, think: float = 2.0) -> Timing:
    return Timing(steps, wait, think, parse_arrival(arrival))


def test_a_session_waits_and_thinks_with_every_step():
    assert timing().session_s == 15.0
    assert timing(think=0.0).session_s == 5.0


def test_the_ideal_rate_is_a_session_of_each_as_long_as_it_waits_and_thinks():
    assert timing().ideal_rate(30) == pytest.approx(2.0)


def test_a_slot_thinks_between_two_sessions_too():
    assert timing("steady=60s").ideal_rate(34) == pytest.approx(2.0)


def test_what_neither_waits_nor_thinks_has_no_ideal_rate():
    assert timing(wait=0.0, think=0.0).ideal_rate(8) is None


@pytest.mark.parametrize("arrival", ["hold", "burst", "rate=5", "rate=5,for=10"])
def test_a_batch_has_its_sessions(arrival):
    assert timing(arrival).sessions(50) == 50


@pytest.mark.parametrize(("arrival", "each"), [("steady=60", 4), ("steady=16", 1), ("steady=17", 2), ("steady=1", 1)])
def test_a_slot_has_as_many_sessions_as_begin_in_time(arrival, each):
    assert timing(arrival).sessions(8) == 8 * each


def test_slots_that_begin_in_the_ramp_have_less_time():
    assert timing("steady=60,ramp=30").sessions(8) == 8 * 3


def test_a_batch_that_waits_for_nothing_has_no_more_sessions_than_a_quick_server_plays():
    busy = timing("steady=10", wait=0.0, think=0.0)
    assert busy.sessions(1) == 5001
    assert busy.sessions(100) == pytest.approx(5000, rel=0.05)


@pytest.mark.parametrize(
    ("arrival", "batch", "least"),
    [("hold", 8, 15.0), ("rate=2", 8, 19.0), ("rate=2,for=30", 60, 45.0), ("steady=60", 8, 75.0)],
)
def test_a_repetition_takes_its_arrivals_and_a_session_more(arrival, batch, least):
    assert least < timing(arrival).repetition_s(batch) < least + 2


@given(st.sampled_from(["hold", "rate=3", "steady=20", "steady=20,ramp=5"]), SECONDS, SECONDS, st.integers(1, 10_000))
def test_a_larger_batch_takes_no_less_and_has_no_fewer_sessions(arrival, wait, think, batch):
    of = timing(arrival, wait=wait, think=think)
    assert of.repetition_s(batch + 1) >= of.repetition_s(batch) >= of.session_s
    assert of.sessions(batch) >= batch
    assert of.sessions(10 * batch) >= of.sessions(batch)


@pytest.mark.parametrize(
    ("arrival", "few"),
    [("steady=60", False), ("steady=29", True), ("steady=35,ramp=6", True), ("rate=5,for=20", False), ("hold", False)],
)
def test_a_steady_state_that_is_short_against_its_sessions_judges_few(arrival, few):
    assert timing(arrival).judges_few is few


# What is left of a budget and of a ceiling


def test_no_repetition_begins_that_would_last_beyond_the_budget():
    allowance = Allowance()
    for seconds in (59.0, 61.0):  # The last sessions play on, and a repetition that is cut off then is not kept.
        allowance.begin_curve(seconds, timing("steady=60"))
        assert allowance.refuses(1) == "budget"
    allowance.begin_curve(70.0, timing("steady=60"))
    assert allowance.refuses(1) is None
    allowance.begin_curve(59.0, timing("hold"))
    assert allowance.refuses(1) is None


def test_a_repetition_that_ran_on_when_time_was_up_is_expected_to_do_so_again():
    allowance = Allowance()
    allowance.begin_curve(140.0, timing("steady=60"))
    allowance.use(8, 75.0, 32)
    assert allowance.refuses(8) == "budget"
    assert allowance.estimate(8) > 75.0


def test_every_session_of_a_slot_counts_towards_the_ceiling():
    allowance = Allowance(sessions=31)
    allowance.begin_curve(None, timing("steady=60"))
    assert allowance.refuses(8) == "max_sessions"
    assert allowance.refuses(7) is None
