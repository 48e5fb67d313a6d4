"""How an arrival and a think time are said."""

from __future__ import annotations

import pytest

from pytest_openenv_scale.core.loads import arrival_text, think_text


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
    [
        ("2", "think 2 s"),
        ("uniform=1..3", "think 1 to 3 s"),
        ("exponential=2", "think exponential 2 s"),
        ("lognormal=2,0.8", "think lognormal 2 s, σ 0.8"),
        ("samples=3 3f2a9c41d0", "think one of 3 samples"),
    ],
)
def test_a_think_time_is_said_with_its_seconds(think, text):
    assert think_text(think) == text
