"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.00085, "850 µs"),
        (0.0012, "1.2 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.00 s"),
        (1.026, "1.03 s"),
        (61.54, "61.5 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_seconds_read_in_the_unit_that_suits_them(value, text):
    assert formatting.seconds(value) == text


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ((0.009, 0.014), "9.0 / 14 ms"),
        ((0.031, 0.052), "31 / 52 ms"),
        ((1.0, 1.014), "1.00 / 1.01 s"),
        ((0.2, 1.5), "0.20 / 1.50 s"),
        ((None, 0.5), "– / 500 ms"),
        ((None, None), "–"),
    ],
)
def test_a_pair_of_durations_shares_one_unit(pair, text):
    assert formatting.seconds_pair(*pair) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (1.0, "100.0 %"), (2 / 3, "66.7 %"), (0.78125, "78.1 %"), (0.0, "0.0 %"), (0.29, "29.0 %")],
)
def test_a_share_is_rounded_to_a_tenth_of_a_per_cent(value, text):
    assert formatting.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.99996, "99.9 %"), (0.9496, "94.9 %"), (0.0099999, "0.9 %")])
def test_a_share_is_never_rounded_up_to_a_whole_per_cent_so_that_all_means_all(value, text):
    assert formatting.percent(value) == text


@pytest.mark.parametrize(
    ("value", "allowed", "text"), [(0.9949, 0.995, "99.49 %"), (0.995, 0.995, "99.5 %"), (0.78125, 0.95, "78.1 %")]
)
def test_a_share_that_misses_a_limit_does_not_read_like_it(value, allowed, text):
    assert formatting.format_observed("fraction", value, allowed) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.784, "0.78"), (17.64, "17.6"), (119.2, "119"), (1240.0, "1,240")]
)
def test_a_rate_has_three_digits(value, text):
    assert formatting.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (850, "850 B"), (1_200_000_000, "1.12 GiB"), (48_400_000, "46.2 MiB"), (1_048_100, "1 MiB")],
)
def test_bytes_have_the_units_of_limits(value, text):
    assert formatting.size(value) == text


def test_numbers_and_nouns():
    assert formatting.count(16384) == "16,384"
    assert formatting.count(None) == "–"
    assert formatting.count_of(1, "session") == "1 session"
    assert formatting.count_of(1024, "session") == "1,024 sessions"
    assert formatting.number(64.0) == "64"
    assert formatting.number(10.66) == "10.7"
    assert formatting.list_of_counts([32, 64, 128]) == "32, 64 and 128"
    assert formatting.list_of_counts([32]) == "32"


@pytest.mark.parametrize(
    ("count", "statistic", "text"),
    [(24, "p99", " (p99 of 24 ≈ max)"), (100, "p99", ""), (9, "p90", " (p90 of 9 ≈ max)"), (2, "p50", "")],
)
def test_a_percentile_of_few_values_says_so(count, statistic, text):
    assert formatting.small_sample_note(count, statistic) == text


@given(st.floats(1e-6, 1e4), st.floats(1e-6, 1e4))
def test_a_duration_over_its_limit_never_reads_like_the_limit(observed, limit):
    if abs(observed - limit) > 1e-9 * max(observed, limit):
        assert formatting.format_observed("seconds", observed, limit) != formatting.seconds(limit)


def test_observed_values_carry_the_unit_of_their_limit():
    assert formatting.format_observed("seconds", 2.504, 2.5) == "2.504 s"
    assert formatting.format_observed("fraction", 0.78125, 0.95) == "78.1 %"
    assert formatting.format_observed("per second", 17.6, 50) == "17.6/s"
    assert formatting.format_value("per second", 100_000) == "100,000/s"
    assert formatting.format_value("per second", 31.25) == "31.25/s"
    assert formatting.format_observed("hosts", 2, 3) == "2"
    assert formatting.format_observed("sessions per core", 32.0, 64) == "32"
