"""What the benchmark environment says on `/ws` and on the `/mcp` socket, as real OpenEnv servers say it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from server_process import running_server, session

RESET, STEP = {"type": "reset", "data": {}}, {"type": "step", "data": {"wait_seconds": 0.01}}


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param) as (_, address):
        yield address


def extra(field, value):
    return {
        "type": "extra_forbidden",
        "loc": [field],
        "msg": "Extra inputs are not permitted",
        "input": value,
    }


def error(code, message, **details):
    return {"type": "error", "data": {"message": message, "code": code, **details}}


async def test_an_episode_is_reset_steps_state_and_close(server):
    async with session(server) as client:
        first = await client.ask(RESET)
        identity = {key: first["data"]["observation"][key] for key in ("pid", "session_hash", "host_url")}
        assert len(identity["session_hash"]) == 12
        assert identity["host_url"] == f"{os.uname().nodename}:{server.rpartition(':')[2]}"
        observation = {"metadata": {}, "waited_seconds": 0.0, **identity, "step_count": 0}
        assert first == {
            "type": "observation",
            "data": {"observation": observation, "reward": None, "done": False},
        }
        stepped = (await client.ask(STEP))["data"]["observation"]
        assert 0.01 <= stepped["waited_seconds"] < 1
        assert stepped == {**observation, "waited_seconds": stepped["waited_seconds"], "step_count": 1}
        state = await client.ask({"type": "state"})
        assert state == {
            "type": "state",
            "data": {"episode_id": state["data"]["episode_id"], "step_count": 1},
        }
        await client.send({"type": "close"})
        assert await client.closed() == 1000
        assert client.connection.close_reason == ""


async def test_a_session_can_step_and_be_asked_before_any_reset(server):
    async with session(server) as client:
        assert (await client.ask({"type": "state"}))["data"]["step_count"] == 0
        assert (await client.ask(STEP))["data"]["observation"]["step_count"] == 1


async def test_reset_begins_a_new_episode_in_the_same_session(server):
    async with session(server) as client:
        first = await client.ask(STEP)
        old = await client.ask({"type": "state"})
        repeated = await client.ask({"type": "reset"})
        new = await client.ask({"type": "state"})
        assert repeated["data"]["observation"]["step_count"] == new["data"]["step_count"] == 0
        assert repeated["data"]["observation"]["session_hash"] == first["data"]["observation"]["session_hash"]
        assert new["data"]["episode_id"] != old["data"]["episode_id"]


async def test_reset_takes_a_seed_an_episode_id_and_what_it_does_not_know(server):
    async with session(server) as client:
        reply = await client.ask({"type": "reset", "data": {"seed": 7, "episode_id": "abc", "new": [1]}})
        assert reply["type"] == "observation"
        assert (await client.ask({"type": "state"}))["data"]["episode_id"] == "abc"


async def test_two_sessions_share_nothing(server):
    async with session(server) as one, session(server) as other:
        await one.ask(RESET)
        mine = (await one.ask(STEP))["data"]["observation"]
        theirs = (await other.ask(RESET))["data"]["observation"]
        assert theirs["step_count"] == 0
        assert mine["session_hash"] != theirs["session_hash"]


@pytest.mark.parametrize(
    ("message", "errors"),
    [
        ({"type": "state", "data": {}}, [extra("data", {})]),
        ({"type": "close", "data": {}}, [extra("data", {})]),
        ({**RESET, "id": 5}, [extra("id", 5)]),
        ({"type": "step", "data": {"no_such_field": 1}}, [extra("no_such_field", 1)]),
        (
            {"type": "step", "data": {"action": {"wait_seconds": 1}}},
            [extra("action", {"wait_seconds": 1})],
        ),
        (
            {"type": "step"},
            [
                {
                    "type": "missing",
                    "loc": ["data"],
                    "msg": "Field required",
                    "input": {"type": "step"},
                }
            ],
        ),
        (
            {"type": "step", "data": {"wait_seconds": 3601}},
            [
                {
                    "type": "value_error",
                    "loc": ["wait_seconds"],
                    "msg": "Value error, expected a number of seconds from 0 to 3600",
                    "input": 3601,
                }
            ],
        ),
    ],
)
async def test_an_invalid_message_is_explained_and_the_session_goes_on(server, message, errors):
    async with session(server) as client:
        assert await client.ask(message) == error("VALIDATION_ERROR", "Invalid message", errors=errors)
        assert (await client.ask(RESET))["type"] == "observation"


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ({"type": "frobnicate"}, error("UNKNOWN_TYPE", "Unknown message type: frobnicate")),
        ({"data": {}}, error("UNKNOWN_TYPE", "Unknown message type: ")),
        ({"type": [1]}, error("UNKNOWN_TYPE", "Unknown message type: [1]")),
        (
            "{not json",
            error(
                "INVALID_JSON",
                "Invalid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
        ),
        ("", error("INVALID_JSON", "Invalid JSON: Expecting value: line 1 column 1 (char 0)")),
    ],
)
async def test_what_it_does_not_understand_leaves_the_session_usable(server, message, reply):
    async with session(server) as client:
        assert await client.ask(message) == reply
        assert (await client.ask(RESET))["type"] == "observation"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[1, 2]", "'list' object has no attribute 'get'"),
        ('"hello"', "'str' object has no attribute 'get'"),
        ("null", "'NoneType' object has no attribute 'get'"),
        (b'{"type": "reset", "data": {}}', "'text'"),
    ],
)
async def test_json_that_is_no_object_and_binary_frames_end_the_session(server, message, reason):
    async with session(server) as client:
        assert await client.ask(message) == error("SESSION_ERROR", reason)
        assert await client.closed() == 1000


@pytest.mark.parametrize("mebibytes", [1, 5])
async def test_a_message_of_more_than_a_mebibyte_is_closed_as_too_big(server, mebibytes):
    # A client so patient sees whether the server itself ends the connection.
    async with session(server, close_timeout=60) as client:
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionClosed):  # uvicorn closes by itself, without a word.
                reply = await client.ask({"type": "reset", "data": {"x": "y" * (mebibytes << 20)}})
                assert reply["data"]["code"] == "SESSION_ERROR"
            assert await client.closed() == 1009


async def test_a_nan_in_a_message_comes_back_as_null_in_valid_json(server):
    async with session(server) as client:
        reply = await client.ask('{"type": "step", "data": {"wait_seconds": NaN, "x": [Infinity]}}')
        assert [error["input"] for error in reply["data"]["errors"]] == [None, [None]]


async def test_steps_sent_ahead_are_answered_one_after_the_other(server):
    async with session(server) as client:
        begun = time.perf_counter()
        for _ in range(40):
            await client.send(STEP)
        counts = [(await client.receive())["data"]["observation"]["step_count"] for _ in range(40)]
        assert counts == list(range(1, 41))
        assert time.perf_counter() - begun >= 0.4


async def test_a_wait_in_one_session_holds_up_no_other(server):
    async with session(server) as slow, session(server) as quick:
        await slow.send({"type": "step", "data": {"wait_seconds": 30}})
        async with asyncio.timeout(5):
            await quick.ask(RESET)


async def test_json_rpc_is_answered_inside_a_session(server):
    def ask(method, **params):
        return {
            "type": "mcp",
            "data": {"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
        }

    async with session(server) as client:
        listed = await client.ask(ask("tools/list"))
        failure = {"code": -32603, "message": "Environment does not support MCP", "data": None}
        assert listed == {"type": "mcp", "data": {"jsonrpc": "2.0", "id": 1, "error": failure}}
        created = await client.ask(ask("openenv/session/create"))
        repeated = await client.ask(ask("openenv/session/create"))
        assert created["data"]["result"]["session_id"] == repeated["data"]["result"]["session_id"]
        wrong = await client.ask({"type": "mcp", "data": {"foo": 1}})
        assert wrong["data"]["error"]["code"] == -32600
        assert wrong["data"]["id"] is None


async def test_the_mcp_socket_speaks_bare_json_rpc(golden, server):
    async with session(server, "mcp") as client:
        call = {"jsonrpc": "2.0", "id": 1, "params": {}}
        assert (await client.ask({**call, "method": "tools/list"}))["error"]["code"] == -32603
        unknown = await client.ask({**call, "method": "nope"})
        assert unknown["error"] == {"code": -32601, "message": "Method not found: nope", "data": None}
        bad = await client.ask("{bad")
        assert bad["error"]["code"] == -32700
        golden(bad["error"]["message"])
        assert (await client.ask([1]))["error"]["code"] == -32600


async def test_an_unknown_session_id_is_refused(server):
    async with session(server, "ws?session_id=unknown") as client:
        assert await client.receive() == error("SESSION_ERROR", "Unknown session_id: unknown")
        assert await client.closed() == 1000


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
messages = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=50),
    anything.map(json.dumps),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["reset", "step", "state", "close", "mcp"]) | anything},
        optional={"data": anything | st.fixed_dictionaries({"wait_seconds": st.floats(max_value=0.01) | anything})},
    ).map(json.dumps),
)
FRAMES = {"observation", "state", "mcp", "error"}
LASTING = {"INVALID_JSON", "UNKNOWN_TYPE", "VALIDATION_ERROR"}


def waits_long(message: str | bytes) -> bool:
    """A valid step may wait for an hour: that is an answer too, but not one to wait for."""
    try:
        wait = json.loads(message)["data"]["wait_seconds"]
        return 0.05 < float(wait) <= 3600
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=messages.filter(lambda message: not waits_long(message)))
def test_whatever_is_sent_is_answered_by_a_frame_or_a_documented_close(server, message):
    async def converse() -> None:
        async with asyncio.timeout(10), session(server) as client:
            await client.send(message)
            try:
                reply = await client.receive()
            except ConnectionClosed:
                reply = None
            if reply is None:
                assert json.loads(message) == {"type": "close"}
                assert client.connection.close_code == 1000
            elif reply["type"] == "error" and reply["data"]["code"] not in LASTING:
                assert reply["data"]["code"] == "SESSION_ERROR"
                assert await client.closed() == 1000
            else:
                assert reply["type"] in FRAMES
                assert (await client.ask(RESET))["type"] == "observation"

    asyncio.run(converse())
