"""Which observations are errors, by the names their fields have in the field, and which are not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.client.messages import MAX_WORDS, error_in, error_in_text, is_unsuccessful

ERRORS = [
    ({"error": "parameter 'scenario' is required"}, "parameter 'scenario' is required"),
    ({"error": {"error_type": "tool_not_found", "message": "unknown tool"}}, "unknown tool"),
    ({"error": {"code": -32601}}, '{"code": -32601}'),
    ({"error": 404}, "404"),
    ({"errors": ["first", "second"]}, "first"),
    ({"error_message": "invalid action"}, "invalid action"),
    ({"errorMessage": "invalid action"}, "invalid action"),
    ({"last_action_error": "no such element"}, "no such element"),
    ({"last_action_error": True}, "last_action_error: true"),
    ({"exception": "ZeroDivisionError"}, "ZeroDivisionError"),
    ({"result": {"is_error": True, "content": []}}, "is_error: true"),
    ({"result": {"isError": True, "content": [{"type": "text", "text": "Unknown tool"}]}}, "Unknown tool"),
    ({"metadata": {"error": "no network"}}, "no network"),
    ({"metadata": {"info": {"error": "no network"}}}, "no network"),
    ({"success": False, "message": "the engine is gone"}, "the engine is gone"),
    ({"stdout": "", "stderr": "sh: nope: not found", "exit_code": 127}, "sh: nope: not found"),
    ({"result": {"returnCode": -9, "text": "killed"}}, "killed"),
    ({"error": "Traceback (most recent call last):\n  File x\nValueError: no board\n"}, "ValueError: no board"),
]

NO_ERRORS = [
    *({name: nothing} for name in ("error", "error_message", "is_error") for nothing in (None, "", False, 0, {}, [])),
    {"success": False, "reward": -1.0},
    {"success": True, "message": "moved"},
    {"squared_error": 0.25, "mean_error": 3, "error": 0.5},
    {"exit_code": 0, "stderr": "warning: x"},
    {"exit_code": 1, "stdout": "", "stderr": ""},
    {"exit_code": True, "zip_code": 1030, "message": "moved"},
    {"tests_failed": 3, "terror": "none", "stderr": "warning: x"},
    {"text": "an error occurred to Mrs. Error"},
    {"error_rate": "low", "errorless": True},
]


@pytest.mark.parametrize(("observation", "words"), ERRORS)
def test_an_observation_that_is_an_error_is_seen_with_its_words(observation, words):
    data = {"observation": observation, "reward": None, "done": False}
    assert error_in(data) == words
    assert error_in_text(json.dumps({"type": "observation", "data": data}).encode()) == words


@pytest.mark.parametrize("observation", NO_ERRORS)
def test_what_holds_nothing_or_is_content_of_the_game_is_no_error(observation):
    data = {"observation": observation, "reward": 0.0, "done": False}
    assert error_in(data) is None
    assert error_in_text(json.dumps({"type": "observation", "data": data}).encode()) is None


def test_an_error_beside_the_observation_counts_and_so_does_one_in_its_metadata():
    assert error_in({"observation": {}, "error": "crashed"}) == "crashed"
    assert error_in({"observation": {}, "metadata": {"error": "crashed"}}) == "crashed"


def test_long_words_are_cut_and_put_on_one_line():
    words = error_in({"observation": {"error": "Traceback:\n  line\n" * 1000}})
    assert words is not None
    assert words.startswith("Traceback: line Traceback:")
    assert len(words) == MAX_WORDS
    assert words.endswith("..")


def test_a_move_that_does_not_succeed_is_told_apart_from_an_error():
    assert is_unsuccessful({"observation": {"success": False}})
    assert not is_unsuccessful({"observation": {"success": None}})
    assert not is_unsuccessful({"observation": "success"})


NAMES = ["error", "success", "metadata", "exit_code", "stderr"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner),
)


@given(JSON)
def test_foreign_json_never_raises_and_the_search_of_bytes_misses_nothing(observation):
    data = {"observation": observation}
    text = json.dumps({"type": "observation", "data": data}).encode()
    words = error_in(data)
    assert words is None or 0 < len(words.encode()) <= 4 * MAX_WORDS
    assert error_in_text(text) == error_in(json.loads(text)["data"])


@given(st.binary())
def test_bytes_that_are_no_message_are_no_error(text):
    assert error_in_text(b'{"error":' + text) is None
