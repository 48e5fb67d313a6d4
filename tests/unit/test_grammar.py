"""Text and numbers a person writes become checked values, or one clear line."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core import parsing
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import (
    Arrival,
    format_number,
    parse_arrival,
    parse_batches,
    parse_count,
    parse_fraction,
    parse_modes,
    parse_number,
    parse_seconds,
    parse_waits,
    short_repr,
    suggestion,
)

# Batches


@pytest.mark.parametrize(
    ("value", "batches"),
    [
        ("1", (1,)),
        ("1,8,32,128", (1, 8, 32, 128)),
        ("8,1,8", (1, 8)),
        (" 1 , 2 ", (1, 2)),
        ("32..512", (32, 64, 128, 256, 512)),
        ("1,8,32..512", (1, 8, 32, 64, 128, 256, 512)),
        ("1..1", (1,)),
        ("3..10", (3, 6, 10)),
        ("3 .. 10", (3, 6, 10)),
        ("100..1000,256", (100, 200, 256, 400, 800, 1000)),
        ("007", (7,)),
        (64, (64,)),
        ([32, 1, 32], (1, 32)),
        ((1, "8..32"), (1, 8, 16, 32)),
        ({4, 2}, (2, 4)),
        (range(1, 4), (1, 2, 3)),
        (iter([3]), (3,)),
        (str(parsing.MAX_BATCH), (parsing.MAX_BATCH,)),
    ],
)
def test_batches_are_sorted_without_duplicates_and_ranges_double(value, batches):
    assert parse_batches(value) == batches


@pytest.mark.parametrize(
    "value",
    [
        *("0", "-1", "1.5", "x", "1,,2", "1,", "1e9", "1..x", "..8", "1...8", "0..8", "٣", "1_000", "+-1", "1..8..64"),
        *("nan", "inf", "", True, 1.0, None, [1, None], [True], [], b"12", {"1": 2}, math.nan, math.inf, object()),
    ],
)
def test_batches_that_are_no_whole_numbers_are_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_batches(value)
    golden(caught.value)


def test_a_wrong_batch_says_what_to_write_instead(golden):
    with pytest.raises(GrammarError) as error:
        parse_batches("0")
    golden(error.value)


def test_a_falling_range_is_shown_the_right_way_round():
    with pytest.raises(GrammarError, match=r'got \'512\.\.8\'; write "8\.\.512"$'):
        parse_batches("512..8")


@pytest.mark.parametrize("value", ["1..1000000000", "9" * 17, 10**30, [2_000_000]])
def test_a_huge_batch_is_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_batches(value)
    golden(caught.value)


@pytest.mark.parametrize("value", [itertools.count(1), ",".join(["1"] * 5000), [1] * 1001])
def test_endless_lists_are_refused(value):
    with pytest.raises(GrammarError, match="at most 1,000 items"):
        parse_batches(value)


@given(st.sets(st.integers(1, parsing.MAX_BATCH), min_size=1, max_size=50))
def test_batches_written_out_read_back(batches):
    assert parse_batches(",".join(map(str, sorted(batches)))) == tuple(sorted(batches))


@given(st.integers(1, parsing.MAX_BATCH), st.integers(1, parsing.MAX_BATCH))
def test_a_range_doubles_and_holds_both_ends(one, other):
    first, last = sorted((one, other))
    batches = parse_batches(f"{first}..{last}")
    assert batches[0] == first
    assert batches[-1] == last
    assert len(batches) <= 21
    assert all(after == 2 * before for before, after in itertools.pairwise(batches[:-1]))


# Durations


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("10s", 10.0),
        ("500ms", 0.5),
        ("700ms", 0.7),
        ("1 ms", 0.001),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("2.5", 2.5),
        (".5s", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("+1s", 1.0),
        (" 3 s ", 3.0),
        (2.5, 2.5),
        (3, 3.0),
        (0, 0.0),
        ("0", 0.0),
        (-0.0, 0.0),
        (Fraction(1, 4), 0.25),
    ],
)
def test_a_duration_is_seconds_once_parsed(value, seconds):
    parsed = parse_seconds(value)
    assert parsed == seconds
    assert type(parsed) is float
    assert math.copysign(1, parsed) == 1


@pytest.mark.parametrize(
    "value",
    ["", "s", "1d", "1 s 2", "nan", "inf", "1e999", "ten", "1,5", "0x10", True, None, math.nan, math.inf, [1], 10**400],
)
def test_what_is_no_duration_is_refused_with_an_example(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_seconds(value)
    golden(caught.value)


@pytest.mark.parametrize(("value", "positive"), [("-1s", False), (-0.1, False), ("0", True), (0, True), ("-1", True)])
def test_a_duration_below_its_bound_is_refused(value, positive):
    sign = ">" if positive else "≥"
    with pytest.raises(GrammarError, match=f"^timeout must be {sign} 0 seconds, got"):
        parse_seconds(value, positive=positive, what="timeout")


def test_a_duration_of_more_than_a_week_is_refused():
    with pytest.raises(GrammarError, match="at most 7 days"):
        parse_seconds("169h")


@given(st.floats(0, parsing.MAX_SECONDS, allow_nan=False))
def test_a_duration_written_out_reads_back(seconds):
    assert parse_seconds(f"{format_number(seconds)}s") == seconds


@pytest.mark.parametrize(
    ("value", "waits"),
    [
        ("0.1,1.0", (0.1, 1.0)),
        ("1,0.1,1s,1000ms", (0.1, 1.0)),
        ([0.1, 1], (0.1, 1.0)),
        (0, (0.0,)),
        ("0", (0.0,)),
        (1.5, (1.5,)),
        (["100ms", 2], (0.1, 2.0)),
    ],
)
def test_waits_are_sorted_seconds(value, waits):
    assert parse_waits(value) == waits


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "",
        [],
        "1,x",
        True,
        [True],
    ],
)
def test_wrong_waits_are_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_waits(value)
    golden(caught.value)


# Shares, counts, numbers


@pytest.mark.parametrize(
    ("value", "fraction"),
    [
        (0.95, 0.95),
        ("0.95", 0.95),
        ("95%", 0.95),
        ("95 %", 0.95),
        ("99.9%", 0.999),
        (1, 1.0),
        (0, 0.0),
        ("100%", 1.0),
        ("0%", 0.0),
        ("1e-2", 0.01),
        ("5%", 0.05),
        ("29%", 0.29),
    ],
)
def test_a_fraction_is_a_share_of_one(value, fraction):
    assert parse_fraction(value) == fraction


@pytest.mark.parametrize(
    "value", ["101%", "-1%", -0.1, 101, "x", "%", True, None, math.nan, "nan%", "1e999%", "9" * 30]
)
def test_a_fraction_outside_of_its_bounds_is_refused(value):
    with pytest.raises(GrammarError, match="between 0 and 1"):
        parse_fraction(value)


@pytest.mark.parametrize("value", [95, "95", 95.0])
def test_a_percentage_without_its_sign_is_told_to_take_one(value):
    with pytest.raises(GrammarError, match='for 95 % write "95%"'):
        parse_fraction(value, what="success")


@pytest.mark.parametrize(("value", "count"), [(1, 1), ("1", 1), (" 12 ", 12), ("+3", 3), (10**9, 10**9)])
def test_a_count_is_a_whole_number(value, count):
    assert parse_count(value) == count


@pytest.mark.parametrize("value", [0, -1, "0", "1.0", 1.0, True, False, None, "", "x", "½", Decimal(1), 1j])
def test_what_is_no_count_is_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_count(value, what="reps")
    golden(caught.value)


@pytest.mark.parametrize(("value", "bounds"), [(0, {"minimum": 0}), (7, {"minimum": 7, "maximum": 7})])
def test_a_count_keeps_to_its_own_bounds(value, bounds):
    assert parse_count(value, **bounds) == value
    with pytest.raises(GrammarError):
        parse_count(value - 1, **bounds)


def test_a_count_above_its_maximum_is_refused(golden):
    with pytest.raises(GrammarError) as caught:
        parse_count(9, maximum=8, what="workers")
    golden(caught.value)


@pytest.mark.parametrize("value", [0, -1, "0", True, math.nan, "inf", "x", None, 10**400, 2e9])
def test_a_number_must_be_positive_and_finite(value):
    with pytest.raises(GrammarError, match="must be a number > 0"):
        parse_number(value)


@pytest.mark.parametrize(("number", "text"), [(1.0, "1"), (0.1, "0.1"), (0, "0"), (1e22, "1e+22"), (120, "120")])
def test_numbers_are_written_short(number, text):
    assert format_number(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_written_short_reads_back(number):
    assert float(format_number(number)) == number


# Modes and arrivals


@pytest.mark.parametrize(
    ("value", "modes"),
    [
        ("ws", ("ws",)),
        ("http,ws", ("http", "ws")),
        ("ws,http,ws", ("ws", "http")),
        (["http"], ("http",)),
        (" ws ", ("ws",)),
    ],
)
def test_modes_keep_their_order_without_duplicates(value, modes):
    assert parse_modes(value) == modes


@pytest.mark.parametrize(
    "value",
    [
        "htp",
        "wss",
        "tcp",
        "grpc",
        [None],
        5,
        "ws,",
        "",
    ],
)
def test_an_unknown_mode_is_refused_with_a_suggestion(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_modes(value)
    golden(caught.value)


@pytest.mark.parametrize(
    ("value", "arrival", "text"),
    [
        ("hold", Arrival("hold"), "hold"),
        (" burst ", Arrival("burst"), "burst"),
        ("rate=50", Arrival("rate", 50.0), "rate=50"),
        ("rate = 0.5", Arrival("rate", 0.5), "rate=0.5"),
        (Arrival("rate", 2.0), Arrival("rate", 2.0), "rate=2"),
    ],
)
def test_an_arrival_is_hold_burst_or_a_rate(value, arrival, text):
    assert parse_arrival(value) == arrival
    assert str(parse_arrival(value)) == text


@pytest.mark.parametrize(
    "value",
    [
        "rate=0",
        "rate=-1",
        "rate=nan",
        "rate=",
        "rate=1e9",
        "rate",
        "brust",
        "Hold",
        "",
        5,
        None,
    ],
)
def test_a_wrong_arrival_is_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_arrival(value)
    golden(caught.value)


@given(st.floats(1e-9, parsing.MAX_RATE))
def test_an_arrival_written_out_reads_back(rate):
    assert parse_arrival(str(Arrival("rate", rate))) == Arrival("rate", rate)


# What errors show


def test_the_nearest_name_is_suggested_else_all_are_listed(golden):
    assert suggestion("batchs", ["batches", "waits"]) == "; did you mean 'batches'?"
    golden(suggestion("zzz", ["batches", "waits"]))


def test_long_values_are_shortened_and_odd_ones_named():
    class Odd:
        def __repr__(self):
            raise RuntimeError("no")

    class Tall:
        def __repr__(self):
            return "a\nb"

    assert len(short_repr("x" * 1000)) == 71
    assert short_repr(Odd()) == "a value of type Odd"
    assert short_repr(Tall()) == "a b"
    assert short_repr("http://u:p@h/x") == "'http://h/x'"
