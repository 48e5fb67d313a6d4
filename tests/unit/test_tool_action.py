"""Environments whose action is a tool call: a tool is called, the cheapest that harms nothing."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from measuring import settings_of
from pytest_openenv_scale.config.action_schema.make import make_action
from pytest_openenv_scale.config.tool_action import LIST_TOOLS, may_call_tools, read_tools, tool_action
from pytest_openenv_scale.config.workload import WorkloadError, parse_action
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.engine.workload import find_workload
from pytest_openenv_scale.plugin.scaling_fixture import chosen_workload
from scripted_server import Peer, scripted

CALL_TOOL = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object"},
        "type": {"const": "call_tool", "default": "call_tool"},
        "tool_name": {"type": "string"},
        "arguments": {"type": "object"},
    },
    "required": ["tool_name"],
}
ANY_ACTION = {"type": "object", "properties": {"metadata": {"type": "object"}}}
TEXT = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


def make(schema):
    return make_action(schema).action


def tool(name: str, *required: str, **hints) -> dict:
    properties = {field: {"type": "string"} for field in required}
    return {
        "name": name,
        "inputSchema": {"type": "object", "properties": properties, "required": list(required)},
        "annotations": hints or None,
    }


@pytest.mark.parametrize(
    ("tools", "called"),
    [
        ([tool("echo_message", "message"), tool("echo_with_length", "message")], "echo_message"),
        ([tool("move", "to"), tool("get_board")], "get_board"),
        ([tool("move", "from", "to"), tool("jump", "to")], "jump"),
        ([tool("deleteAll"), tool("submitAnswer"), tool("search", "query")], "search"),
        ([tool("write_file", readOnlyHint=True)], "write_file"),
        ([tool("look", destructiveHint=True), tool("move", "to")], "move"),
        ([tool("move"), tool("play", readOnlyHint=True)], "play"),
    ],
)
def test_the_cheapest_tool_that_harms_nothing_is_called(tools, called):
    action, source = tool_action(read_tools(tools), make)
    assert (action["type"], action["tool_name"], source) == ("call_tool", called, f"tool {called}")
    required = next(item for item in tools if item["name"] == called)["inputSchema"]["required"]
    assert set(action["arguments"]) == set(required)


@pytest.mark.parametrize("tools", [[], [tool("run_python", "code"), tool("submit")], [{"name": ""}, 3, None]])
def test_where_every_tool_may_harm_they_are_listed(tools):
    assert tool_action(read_tools(tools), make) == (LIST_TOOLS, "a listing of the tools")


def test_a_tool_whose_arguments_cannot_be_made_is_passed_over():
    def refuse(schema):
        raise ValueError("no")

    assert tool_action(read_tools([tool("look")]), refuse) == (LIST_TOOLS, "a listing of the tools")


@pytest.mark.parametrize(
    ("schema", "asks"),
    [
        (CALL_TOOL, True),
        (ANY_ACTION, True),
        ({}, True),
        (None, False),
        (TEXT, False),
        ({"oneOf": [TEXT]}, False),
        ({"properties": {"tool_name": {}}}, False),
    ],
)
def test_only_actions_that_may_be_tool_calls_make_us_ask_for_tools(schema, asks):
    assert may_call_tools(schema) is asks


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["name", "inputSchema", "input_schema", "annotations", "required", "readOnlyHint"]), inner
        )
    ),
)


@given(JSON)
@example([{"name": "look", "inputSchema": {"required": True}}])
def test_whatever_is_listed_never_ends_in_a_traceback(listed):
    action, _ = tool_action(read_tools(listed), lambda schema: {})
    assert action["type"] in ("call_tool", "list_tools")
    may_call_tools(listed if isinstance(listed, dict) else None)


# What a server is asked


def answers(**by_path):
    """A server that answers these paths with JSON, everything else with 404; and what it was asked."""
    paths: list[str] = []

    async def script(peer: Peer) -> None:
        head = (await peer.head()).decode()
        path = head.split(" ")[1]
        paths.append(path)
        length = next((line.partition(":")[2] for line in head.lower().split("\r\n") if "content-length:" in line), "0")
        request = json.loads(await peer.reader.readexactly(int(length)) or b"{}")
        answer = by_path.get(path.strip("/"))
        body = json.dumps(answer(request) if callable(answer) else answer).encode()
        status = "404 Not Found" if answer is None else "200 OK"
        peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        peer.writer.close()

    return script, paths


def rpc(*tools):
    return lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": {"tools": list(tools)}}


async def workload_of(action=None, **by_path):
    script, paths = answers(**by_path)
    async with scripted(script) as server:
        source = None if action is None else parse_action(action)
        workload = await asyncio.to_thread(find_workload, Endpoint((server.url,), "x", "url"), source, {"seed": 1})
    return workload, paths


@pytest.mark.parametrize("schema", [CALL_TOOL, ANY_ACTION])
async def test_a_tool_is_called_with_what_it_asks_for(schema):
    workload, paths = await workload_of(schema={"action": schema}, mcp=rpc(tool("echo", "message")))
    assert workload.actions == ({"type": "call_tool", "tool_name": "echo", "arguments": {"message": "hello"}},)
    assert (workload.source, workload.waits, workload.reset) == ("tool echo", False, {"seed": 1})
    assert paths == ["/schema", "/mcp"]


async def test_tools_that_mcp_does_not_list_are_listed_by_the_action():
    listing = {"observation": {"tools": [{"name": "look", "input_schema": {}}]}, "done": False}
    workload, paths = await workload_of(
        schema={"action": CALL_TOOL},
        mcp={"error": {"code": -32603, "message": "Environment does not support MCP"}},
        step=lambda request: listing if request == {"action": {"type": "list_tools"}} else None,
    )
    assert workload.actions[0]["tool_name"] == "look"
    assert paths == ["/schema", "/mcp", "/step"]


async def test_without_a_listing_the_action_is_made_as_ever():
    workload, _ = await workload_of(schema={"action": CALL_TOOL})
    assert (workload.source, workload.made_up) == ("/schema", True)
    workload, paths = await workload_of(schema={"action": TEXT})
    assert (workload.actions, paths) == (({"message": "hello"},), ["/schema"])


REFUSED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "pattern": "\\p{L}"}}}


async def test_checks_go_on_without_an_action_where_none_can_be_made_and_a_sweep_does_not():
    script, _ = answers(schema={"action": REFUSED})
    hooks = SimpleNamespace(pytest_openenv_scale_workload=lambda endpoint: None)
    async with scripted(script) as server:
        endpoint, settings = Endpoint((server.url,), "x", "url"), settings_of([1], reset={"seed": 1})
        choose = partial(asyncio.to_thread, chosen_workload, hooks, endpoint)
        workload = await choose(settings, for_checks=True)
        with pytest.raises(WorkloadError):
            await choose(settings)
        with pytest.raises(WorkloadError, match="there is no tool"):
            await choose(settings_of([1], action={"tool_name": "look"}), for_checks=True)
    assert (workload.reset, workload.waits) == ({"seed": 1}, False)
    assert "#/properties/name/pattern" in workload.no_action
    with pytest.raises(WorkloadError, match="#/properties/name/pattern"):
        workload.maker(None)


async def test_a_tool_that_is_named_is_called_with_the_arguments_it_asks_for():
    tools = rpc(tool("look"), tool("run_code", "code"))
    workload, paths = await workload_of('{"tool_name": "run_code"}', mcp=tools)
    assert workload.actions == ({"type": "call_tool", "tool_name": "run_code", "arguments": {"code": "hello"}},)
    assert paths == ["/mcp"]


async def test_a_tool_that_is_not_there_is_a_mistake_with_a_suggestion():
    with pytest.raises(WorkloadError, match=r"no tool 'run_cod'.*did you mean 'run_code'"):
        await workload_of('{"tool_name": "run_cod"}', mcp=rpc(tool("run_code", "code")))


async def test_an_action_that_is_whole_asks_nothing():
    action = {"type": "call_tool", "tool_name": "look", "arguments": {}}
    workload, paths = await workload_of(action, mcp=rpc(tool("run")))
    assert (workload.actions, paths) == ((action,), [])
