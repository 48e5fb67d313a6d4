"""`--fail-on`: short expressions become checked values, and a wrong one says what to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import METRICS, FailOn, higher_is_better, parse_fail_on
from pytest_openenv_scale.core.errors import GrammarError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("max_batch:-10%", FailOn("max_batch", -0.10, True)),
        (" total_p99 : + 15 % ", FailOn("total_p99", 0.15, True)),
        ("total_p99:+200ms", FailOn("total_p99", 0.2, False)),
        ("total_p99:+1.5s", FailOn("total_p99", 1.5, False)),
        ("max_batch:−8", FailOn("max_batch", -8.0, False)),
        ("success:-0.01", FailOn("success", -0.01, False)),
        ("rps:-5", FailOn("rps", -5.0, False)),
        ("sessions_per_second:-5", FailOn("rps", -5.0, False)),
        ("total_p99:+0%", FailOn("total_p99", 0.0, True)),
        ("max_batch:-0", FailOn("max_batch", 0.0, False)),
        ("total_p99:+300%", FailOn("total_p99", 3.0, True)),
    ],
)
def test_an_expression_is_read(text, value):
    assert parse_fail_on(text) == (value,)


def test_several_are_joined_by_commas_or_repeated_and_of_two_alike_the_last_counts():
    expressions = parse_fail_on(["max_batch:-10%,total_p99:+15%", "max_batch:-20%", "total_p99:+200ms"])
    assert [one.text for one in expressions] == ["max_batch:-20%", "total_p99:+15%", "total_p99:+200ms"]


@pytest.mark.parametrize(
    "text",
    [
        "max_batch:+10%",
        "total_p99:-15%",
        "max_batch:10%",
        "total_p99:15%",
        "total_p98:+15%",
        "latency_factor:+1",
        "hosts:-1",
        "total_p99:+15",
        "total_p99:+x",
        "max_batch:-x%",
        "max_batch:-100%",
        "max_batch>=64",
        "",
        "max_batch:-10%,",
    ],
)
def test_a_wrong_expression_says_what_to_write(golden, text):
    with pytest.raises(GrammarError) as error:
        parse_fail_on(text)
    golden(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "baseline", "allowed"),
    [
        ("max_batch:-10%", 100.0, 90.0),
        ("max_batch:-8", 100.0, 92.0),
        ("total_p99:+15%", 2.0, 2.3),
        ("total_p99:+200ms", 2.0, 2.2),
        ("overhead_p99:+10%", -0.01, -0.009),
    ],
)
def test_what_is_allowed_may_be_reached_but_not_passed(text, baseline, allowed):
    (expression,) = parse_fail_on(text)
    assert expression.allowed(baseline) == pytest.approx(allowed)
    assert not expression.is_broken(baseline, allowed)
    assert not expression.is_broken(baseline, baseline)
    assert expression.is_broken(baseline, allowed - 0.001 if higher_is_better(expression.metric) else allowed + 0.001)


@settings(deadline=None)
@given(st.sampled_from(sorted(METRICS)), st.floats(0.001, 0.99), st.booleans())
def test_an_expression_reads_back_from_its_text(metric, size, relative):
    expression = FailOn(metric, -size if higher_is_better(metric) else size, relative)
    (read,) = parse_fail_on(expression.text)
    assert (read.metric, read.relative) == (metric, relative)
    assert read.change == pytest.approx(expression.change)


@settings(deadline=None)
@given(st.text(max_size=30).filter(lambda text: ":" not in text))
def test_any_text_without_a_colon_is_refused_in_one_line(text):
    with pytest.raises(GrammarError) as error:
        parse_fail_on(text)
    assert "\n" not in str(error.value)


@settings(deadline=None)
@given(st.sampled_from(sorted(METRICS)), st.text(max_size=12))
def test_any_amount_is_read_as_a_worsening_or_refused(metric, amount):
    try:
        expressions = parse_fail_on(f"{metric}:{amount}")
    except GrammarError:
        return
    assert all(one.change <= 0 if higher_is_better(one.metric) else one.change >= 0 for one in expressions)
