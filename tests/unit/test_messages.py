"""The JSON a session says and hears."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.client.messages import (
    MessageError,
    ObservedReply,
    Reply,
    ServerError,
    ServerInfo,
    as_error,
    as_observed_reply,
    as_reply,
    encode_request,
    read_answer,
    read_message,
)
from pytest_openenv_scale.core import text as core_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_state_and_close_are_sent_without_data():
    assert json.loads(encode_request("state")) == {"type": "state"}
    assert json.loads(encode_request("close")) == {"type": "close"}


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_the_action_is_the_data_of_a_step(action):
    assert json.loads(encode_request("step", action)) == {"type": "step", "data": action}


def test_an_observation_is_read_with_reward_and_done():
    text = '{"type":"observation","data":{"observation":{"n":1},"reward":0.5,"done":true,"metadata":null}}'
    kind, data = read_message(text)
    assert kind == "observation"
    assert as_reply(data) == Reply({"n": 1}, 0.5, True, data)


@pytest.mark.parametrize("data", [{}, {"observation": None}, {"observation": [1]}, {"done": "yes"}, {"done": 1}])
def test_what_is_missing_from_an_observation_is_empty(data):
    assert as_reply(data) == Reply({}, None, False, data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        '{"type":"observation","data":{}} trailing',
        "[1]",
        "null",
        '"observation"',
        '{"data":{}}',
        '{"type":1,"data":{}}',
        '{"type":"observation"}',
        '{"type":"observation","data":[]}',
        "[" * 100_000,
        '{"type":"observation","data":' + "9" * 5000 + "}",
    ],
)
def test_a_reply_that_is_no_message_is_one_line_with_its_beginning(text):
    with pytest.raises(MessageError) as caught:
        read_message(text)
    assert repr(text[:80]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    ['\ufeff{"type":"observation","data":{}}', '{"type":"observation","data":' + "[" * 5_000],
    ids=["bom", "deep"],
)
def test_what_openenvs_own_client_cannot_read_is_named(golden, text):
    problems = set()
    for reply in (text, text.encode()):
        with pytest.raises(MessageError) as caught:
            read_message(reply)
        problems.add(str(caught.value).partition(": ")[0])
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)
    with pytest.raises(MessageError):
        read_answer(text.encode())
    golden("\n".join(problems))


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_a_message_or_a_message_error(text):
    try:
        kind, data = read_message(text)
    except MessageError:
        return
    assert isinstance(kind, str)
    assert isinstance(data, dict)


def test_a_full_server_is_capacity_and_every_other_error_the_environment():
    assert as_error({"code": "CAPACITY_REACHED", "message": "full"}) == ("capacity", "CAPACITY_REACHED", "full")
    for code in ("EXECUTION_ERROR", "VALIDATION_ERROR", "FACTORY_ERROR", "SESSION_ERROR", "SOMETHING_NEW"):
        assert as_error({"code": code, "message": "why"}) == ("environment", code, "why")


def test_a_validation_error_says_which_field(golden):
    first = {"type": "missing", "loc": ["data", "action", 0], "msg": "Field required"}
    error = as_error({"code": "VALIDATION_ERROR", "message": "Invalid message", "errors": [first, {}]})
    golden(error.message)


def test_a_long_error_keeps_its_beginning():
    assert as_error({"code": "EXECUTION_ERROR", "message": "x" * 10_000}).message == "x" * 500


@given(
    st.dictionaries(st.sampled_from(["code", "message", "errors"]), JSON)
    | st.builds(lambda loc, msg: {"errors": [{"loc": loc, "msg": msg}]}, JSON, JSON)
)
def test_any_data_of_an_error_can_be_read(data):
    error = as_error(data)
    assert error.kind in ("capacity", "environment")
    assert error.code is None or isinstance(error.code, str)
    assert isinstance(error.message, str)


def test_nothing_of_a_session_is_lost_between_the_two_ends():
    kind, data = read_message(encode_request("step", {"text": "ä\u2028\n", "n": 1.5}).decode())
    assert (kind, data) == ("step", {"text": "ä\u2028\n", "n": 1.5})
    assert core_text.loads("1") == 1


# What a load session reads

_AWKWARD = st.one_of(
    JSON,
    st.sampled_from(
        [0, -1, 1, 0.0, -0.5, 1e9, 1.1e9, 2**63 - 1, 2**63, 2**200, True, False, None, "true", "\ud800", "é"]
    ),
    st.floats(),
)


@given(
    st.sampled_from(["observation", "error", "state", "", 1, None]),
    st.dictionaries(st.sampled_from(["waited_seconds", "pid", "session_hash", "host_url", "x"]), _AWKWARD),
    _AWKWARD,
    st.booleans(),
)
def test_the_short_way_takes_from_a_reply_what_the_long_way_takes(kind, observation, done, well_formed):
    data = {"observation": observation if well_formed else done, "reward": None, "done": done}
    text = json.dumps({"type": kind, "data": data}).encode()
    try:
        read_kind, fields = read_message(text)
    except MessageError:
        read_kind, fields = None, {}
    if read_kind == "observation":
        assert read_answer(text) == as_observed_reply(fields)
    elif read_kind == "error":
        assert read_answer(text) == as_error(fields)
    else:
        with pytest.raises(MessageError):
            read_answer(text)


def test_an_observation_gives_what_the_benchmark_environment_tells():
    observation = {"waited_seconds": 1, "pid": 7, "session_hash": "ab", "host_url": "h:1", "step_count": 3}
    text = json.dumps({"type": "observation", "data": {"observation": observation, "done": True}}).encode()
    assert read_answer(text) == ObservedReply(ServerInfo(1.0, 7, "ab", "h:1"), True)


@pytest.mark.parametrize(
    ("fields", "server_info"),
    [
        ({"pid": "seven", "waited_seconds": 0.5}, ServerInfo(0.5)),
        ({"pid": -7, "host_url": ["h"]}, ServerInfo()),
        ({"waited_seconds": -1, "session_hash": "ab"}, ServerInfo(None, None, "ab")),
        ({"waited_seconds": 1e300}, ServerInfo()),
        ({"host_url": "a\ud800b"}, ServerInfo(host_url="a?b")),
    ],
)
def test_fields_of_another_meaning_are_left_alone(fields, server_info):
    text = json.dumps({"type": "observation", "data": {"observation": fields, "done": None}}).encode()
    answer = read_answer(text)
    assert isinstance(answer, ObservedReply)
    assert answer.server_info == server_info
    assert not answer.done


def test_an_observation_with_the_nan_of_a_python_server_is_read():
    text = b'{"type":"observation","data":{"observation":{"pid":7,"score":NaN},"reward":Infinity,"done":false}}'
    assert read_answer(text) == ObservedReply(ServerInfo(None, 7), False)


def test_an_error_keeps_the_words_of_the_server():
    answer = read_answer(b'{"type":"error","data":{"message":"full","code":"CAPACITY_REACHED"}}')
    assert answer == ServerError("capacity", "CAPACITY_REACHED", "full")


def test_a_reply_of_another_kind_is_named(golden):
    with pytest.raises(MessageError) as caught:
        read_answer(b'{"type":"state","data":{"step_count":1}}')
    golden(caught.value)
