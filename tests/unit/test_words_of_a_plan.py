"""How an arrival and a think time are said."""

from __future__ import annotations

import pytest

from pytest_openenv_scale.reporting.content.wording import arrival_text, think_text


@pytest.mark.parametrize(
    ("arrival", "text"),
    [
        ("hold", "hold"),
        ("burst", "burst"),
        ("rate=50", "rate=50"),
        ("rate=50,for=60", "rate=50 for 60 s"),
        ("rate=50,for=60,ramp=10", "rate=50 for 60 s, ramp 10 s"),
        ("steady=0.5", "steady 0.5 s"),
        ("steady=60,ramp=10", "steady 60 s, ramp 10 s"),
    ],
)
def test_an_arrival_is_said_with_its_seconds(arrival, text):
    assert arrival_text(arrival) == text


@pytest.mark.parametrize(
    ("think", "text"),
    [("2", "think 2 s"), ("uniform=1..3", "think uniform=1..3"), ("samples=3 ab", "think samples=3 ab")],
)
def test_a_think_time_is_said_as_it_is_written(think, text):
    assert think_text(think) == text
