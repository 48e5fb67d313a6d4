"""What actions and resets are refused for, in the form of a real OpenEnv server."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.server.schemas import encode, extra_problems, message_problems, parse_wait, reset_problems


@pytest.mark.parametrize(
    ("given_wait", "wait"),
    [(0, 0), (1.5, 1.5), (3600, 3600), ("0.5", 0.5), (" 1 ", 1), ("1e3", 1000), (True, 1), ("1_0", 10)],
)
def test_a_wait_is_a_number_or_text_that_reads_as_one(given_wait, wait):
    assert parse_wait({"wait_seconds": given_wait}) == (wait, [])


@pytest.mark.parametrize(
    "given_wait",
    [-1, -math.inf, 3600.001, math.nan, "inf", "nan", "x", "", None, [1], {"a": 1}, 10**400],
)
def test_any_other_wait_is_refused(given_wait):
    _, [problem] = parse_wait({"wait_seconds": given_wait})
    assert (problem["type"], problem["loc"]) == ("value_error", ["wait_seconds"])


def test_every_problem_of_an_action_is_listed():
    action = {"x": 1, "y": 2, "wait_seconds": -1, "metadata": None}
    _, problems = parse_wait(action)
    assert [(problem["type"], problem["loc"]) for problem in problems] == [
        ("dict_type", ["metadata"]),
        ("value_error", ["wait_seconds"]),
        ("extra_forbidden", ["x"]),
        ("extra_forbidden", ["y"]),
    ]


def test_metadata_may_be_any_object():
    assert parse_wait({"metadata": {"a": [1]}}) == (0.0, [])


def test_the_problems_of_an_envelope_are_listed_together():
    problems = message_problems({"type": "reset", "data": [1], "id": 3}, data="optional")
    assert [(problem["type"], problem["loc"]) for problem in problems] == [
        ("dict_type", ["data"]),
        ("extra_forbidden", ["id"]),
    ]
    assert message_problems({"type": "reset"}, data="optional") == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"seed": -1}, "value_error"),
        ({"seed": 1.5}, "value_error"),
        ({"seed": math.inf}, "value_error"),
        ({"seed": [1]}, "value_error"),
        ({"seed": "x"}, "int_parsing"),
        ({"episode_id": 5}, "value_error"),
        ({"episode_id": "x" * 256}, "value_error"),
    ],
)
def test_an_http_reset_checks_seed_and_episode_id(body, kind):
    assert [problem["type"] for problem in reset_problems(body)] == [kind]


@pytest.mark.parametrize("body", [{}, {"seed": None}, {"seed": 1.0}, {"seed": "7"}, {"seed": True}, {"z": 1}])
def test_an_http_reset_takes_what_openenv_takes(body):
    assert reset_problems(body) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(value=json_values)
def test_what_is_echoed_is_valid_json_and_whole_but_for_what_json_cannot_say(value):
    def no_constants(name):
        raise AssertionError(name)

    decoded = json.loads(encode(value), parse_constant=no_constants)
    finite = "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)
    assert not finite or decoded == value


@given(action=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_judging_an_action_never_fails(action):
    wait, problems = parse_wait(action)
    assert problems or 0 <= wait <= 3600
    assert len(extra_problems(action, {"metadata", "wait_seconds"})) <= len(problems)
