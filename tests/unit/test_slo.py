"""Limits: one table of names, how they are written, and how several sets combine."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import (
    LIMITS,
    PHASES,
    STATISTICS,
    Limit,
    Slo,
    make_limit,
    merge_slos,
    parse_slo_expression,
    slo_for_curve,
)
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.formatting import format_value

COSTS = {"memory_per_session", "threads_per_session", "descriptors_per_session", "cpu_per_step"}
CURVE_LIMITS = {"max_batch", "rps", "batch_per_core", *COSTS}


def test_the_table_holds_every_limit_once():
    latencies = {f"{phase}_{statistic}" for phase in PHASES for statistic in STATISTICS}
    assert set(LIMITS) == latencies | CURVE_LIMITS | {"success", "latency_factor", "hosts", "open", "rss"}
    assert all(name == kind.name for name, kind in LIMITS.items())


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_a_direction_a_unit_and_a_scope(name):
    kind = LIMITS[name]
    latency = name.endswith(STATISTICS)
    assert kind.direction == ("<=" if latency or name in {"latency_factor", "rss", *COSTS} else ">=")
    assert kind.scope == ("curve" if name in CURVE_LIMITS else "cell")
    assert (kind.unit == "seconds") is (latency or name == "cpu_per_step")
    if latency:
        assert f"{kind.phase}_{kind.statistic}" == name


@pytest.mark.parametrize("name", LIMITS)
def test_the_example_of_each_limit_is_one(name):
    limit = parse_slo_expression(LIMITS[name].example)
    assert limit.name == name
    assert limit.source == "command line"


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "", None, True, [], "1e999"])
def test_no_limit_takes_a_value_that_means_nothing(name, value):
    with pytest.raises(GrammarError) as error:
        make_limit(name, value)
    assert name in str(error.value)


@pytest.mark.parametrize("name", [name for name, kind in LIMITS.items() if kind.unit == "seconds"])
@pytest.mark.parametrize(("value", "seconds"), [("2.5s", 2.5), ("250ms", 0.25), (2, 2.0)])
def test_latencies_are_seconds(name, value, seconds):
    assert make_limit(name, value).allowed == seconds


@pytest.mark.parametrize(
    ("expression", "name", "allowed", "text"),
    [
        ("max_batch>=512", "max_batch", 512, "max_batch ≥ 512"),
        ("max_batch >= 512", "max_batch", 512, "max_batch ≥ 512"),
        ("max_batch≥512", "max_batch", 512, "max_batch ≥ 512"),
        ("total_p99<=2s", "total_p99", 2.0, "total_p99 ≤ 2 s"),
        ("total_p99 ≤ 2.5 s", "total_p99", 2.5, "total_p99 ≤ 2.5 s"),
        ("overhead_p95<=80ms", "overhead_p95", 0.08, "overhead_p95 ≤ 80 ms"),
        ("success>=0.99", "success", 0.99, "success ≥ 99 %"),
        (" success>=99.5% ", "success", 0.995, "success ≥ 99.5 %"),
        ("latency_factor<=2", "latency_factor", 2.0, "latency_factor ≤ 2"),
        ("rps>=31.5", "rps", 31.5, "sessions_per_second ≥ 31.5/s"),
        ("sessions_per_second>=31.5", "rps", 31.5, "sessions_per_second ≥ 31.5/s"),
        ("batch_per_core>=16", "batch_per_core", 16.0, "batch_per_core ≥ 16"),
        ("hosts>=3", "hosts", 3, "hosts ≥ 3"),
    ],
)
def test_an_expression_is_a_name_an_operator_and_a_value(expression, name, allowed, text):
    limit = parse_slo_expression(expression)
    assert (limit.name, limit.allowed, limit.text, str(limit)) == (name, allowed, text, text)


@pytest.mark.parametrize(
    "expression",
    [
        "total_p99>=2s",
        "max_batch<=5",
        "max_batch>5",
        "max_batch=5",
        "max_batch==5",
        "max_batch=>5",
        "max_batch:5",
        "total_p98<=2s",
        "latency<=2s",
        "max_batch",
        "",
        ">=5",
        None,
        "max_batch>=",
        "max_batch>=1.5",
        "max_batch>=5000000",
        "success>=95",
        "success>=0%",
        "total_p99<=0",
        "total_p99<=250",
        "step_p50 ≤ .5",
        "connect_p90<=1e3",
    ],
)
def test_a_wrong_expression_says_what_to_write(golden, expression):
    with pytest.raises(GrammarError) as error:
        parse_slo_expression(expression)
    golden(error.value)
    assert "\n" not in str(error.value)


@given(st.text() | st.text(alphabet="max_batchtolp9<>=≤≥.s%0123 ", max_size=20))
def test_any_text_is_a_limit_or_a_grammar_error(text):
    try:
        message = parse_slo_expression(text).text
    except GrammarError as error:
        message = str(error)
    assert message
    assert "\n" not in message


@given(st.sampled_from([name for name, kind in LIMITS.items() if kind.unit == "seconds"]), st.floats(1e-6, 600_000))
def test_a_latency_in_text_needs_its_unit_and_a_number_is_seconds(name, value):
    text = f"{value:g}"
    assert make_limit(name, value).allowed == value
    assert make_limit(name, f"{text}s").allowed == pytest.approx(float(text))
    with pytest.raises(GrammarError, match=f"^{name} needs a unit, got '{re.escape(text)}'; write "):
        make_limit(name, text)


VALUES = {
    "sessions": st.integers(1, 10**6),
    "hosts": st.integers(1, 10**6),
    "fraction": st.floats(1e-9, 1),
    "seconds": st.floats(1e-9, 600_000),
    "factor": st.floats(1e-9, 1e9),
    "per second": st.floats(1e-9, 1e9),
    "sessions per core": st.floats(1e-9, 1e9),
    "bytes": st.floats(1, 2**50),
    "per session": st.floats(1e-9, 1e9),
}


@pytest.mark.parametrize("name", LIMITS)
@given(data=st.data())
def test_the_expression_of_a_limit_reads_back(name, data):
    limit = Limit(name, data.draw(VALUES[LIMITS[name].unit]), "ini")
    assert parse_slo_expression(limit.expression, "ini") == limit


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [(Limit("max_batch", 64), (64, 65), (63,)), (Limit("total_p99", 2.0), (2.0, 0.1), (2.0001, math.inf))],
)
def test_a_limit_holds_on_its_good_side_and_where_it_is_equal(limit, good, bad):
    assert all(limit.holds(value) for value in good)
    assert not any(limit.holds(value) for value in bad)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [("seconds", 0.25, "250 ms"), ("seconds", 90, "90 s"), ("sessions", 1000000, "1000000"), ("fraction", 1, "100 %")],
)
def test_values_are_shown_with_their_unit(unit, value, text):
    assert format_value(unit, value) == text


NEAR = Slo((Limit("max_batch", 64), Limit("success", 0.9)))
FAR = Slo((Limit("max_batch", 8), Limit("total_p99", 2.0)))


def test_the_nearest_limit_wins_and_the_others_stay():
    merged = merge_slos(NEAR, FAR)
    assert [(limit.name, limit.allowed) for limit in merged.limits] == [
        ("max_batch", 64),
        ("success", 0.9),
        ("total_p99", 2.0),
    ]


def test_merging_nothing_limits_nothing():
    assert merge_slos() == Slo()
    assert Slo().limit("success") is None


def test_merged_limits_come_in_the_order_of_the_table():
    names = [
        limit.name for limit in merge_slos(Slo((Limit("hosts", 1), Limit("rps", 1), Limit("max_batch", 1)))).limits
    ]
    assert names == ["max_batch", "rps", "hosts"]


@pytest.mark.parametrize(
    ("slo", "wait", "mode", "selects"),
    [
        (Slo(), 1.0, "ws", True),
        (Slo(), None, "ws", True),
        (Slo(wait=1.0), 1.0, "http", True),
        (Slo(wait=0.1 + 0.2), 0.3, "ws", True),
        (Slo(wait=0.0), 0.0, "ws", True),
        (Slo(wait=0.0), 0.1, "ws", False),
        (Slo(wait=1.0), 0.1, "ws", False),
        (Slo(wait=1.0), None, "ws", False),
        (Slo(mode="ws"), None, "ws", True),
        (Slo(mode="ws"), 1.0, "http", False),
        (Slo(wait=1.0, mode="http"), 1.0, "http", True),
        (Slo(wait=1.0, mode="http"), 1.0, "ws", False),
        (Slo(wait=1.0, mode="http"), 2.0, "http", False),
    ],
)
def test_limits_apply_to_the_curves_of_their_wait_and_mode(slo, wait, mode, selects):
    assert slo.selects(wait, mode) is selects


def test_a_curve_gets_the_limits_that_select_it_nearest_first():
    slos = (Slo((Limit("max_batch", 4),), wait=1.0), NEAR, FAR)
    assert slo_for_curve(slos, 1.0, "ws").limit("max_batch") == Limit("max_batch", 4)
    assert slo_for_curve(slos, 0.1, "ws").limit("max_batch") == Limit("max_batch", 64)
    assert slo_for_curve(slos, 0.1, "ws").limit("total_p99") == Limit("total_p99", 2.0)
