"""What the benchmark environment answers over HTTP, as real OpenEnv servers answer it."""

from __future__ import annotations

import asyncio
import io
import re
import time

import aiohttp
import pytest

from server_process import running_server


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param) as (_, address):
        yield f"http://{address}"


async def ask(method, url, **body):
    async with aiohttp.ClientSession() as http, http.request(method, url, **body) as reply:
        return reply.status, await reply.json()


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"json": {"seed": 7, "episode_id": "a", "new": 1}}])
async def test_reset_answers_with_a_first_observation(server, body):
    status, reply = await ask("POST", f"{server}/reset", **body)
    observation = reply.pop("observation")
    assert (status, reply) == (200, {"reward": None, "done": False, "metadata": None})
    fields = ["metadata", "waited_seconds", "pid", "session_hash", "host_url", "step_count"]
    assert list(observation) == fields
    assert observation["step_count"] == 0


async def test_step_waits_and_every_request_meets_a_fresh_environment(server):
    replies = [
        await ask("POST", f"{server}/step", json={"action": {"wait_seconds": 0.02}, "render": True}) for _ in range(2)
    ]
    one, other = (reply["observation"] for _, reply in replies)
    assert one["step_count"] == other["step_count"] == 1
    assert one["session_hash"] != other["session_hash"]
    assert one["waited_seconds"] >= 0.02


async def test_steps_wait_side_by_side(server):
    begun = time.perf_counter()
    body = {"action": {"wait_seconds": 0.5}}
    await asyncio.gather(*(ask("POST", f"{server}/step", json=body) for _ in range(50)))
    assert time.perf_counter() - begun < 5


def missing(loc, value):
    return {"type": "missing", "loc": loc, "msg": "Field required", "input": value}


def not_an_int(value):
    msg = "Input should be a valid integer, unable to parse string as an integer"
    return {"type": "int_parsing", "loc": ["body", "seed"], "msg": msg, "input": value}


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("reset", {"json": {"seed": "notint"}}, not_an_int("notint")),
        ("step", {"json": {"wait_seconds": 1}}, missing(["body", "action"], {"wait_seconds": 1})),
        ("step", {}, missing(["body"], None)),
        (
            "step",
            {"json": {"action": {"no_such_field": 1}}},
            {
                "type": "extra_forbidden",
                "loc": ["no_such_field"],
                "msg": "Extra inputs are not permitted",
                "input": 1,
            },
        ),
        (
            "step",
            {"data": "{not json"},
            {
                "type": "json_invalid",
                "loc": ["body", 1],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": "Expecting property name enclosed in double quotes"},
            },
        ),
        (
            "step",
            {"json": {"action": 5}},
            {
                "type": "dict_type",
                "loc": ["body", "action"],
                "msg": "Input should be a valid dictionary",
                "input": 5,
            },
        ),
    ],
)
async def test_an_invalid_body_is_422_and_explained(server, path, body, detail):
    assert await ask("POST", f"{server}/{path}", **body) == (422, {"detail": [detail]})


@pytest.mark.parametrize("body", ["[1]", "5", '"x"', "[" * 100_000, "9" * 5000, "\x00", "NaN"])
@pytest.mark.parametrize("path", ["reset", "step"])
async def test_a_body_that_is_no_object_is_422(server, path, body):
    status, reply = await ask("POST", f"{server}/{path}", data=body)
    assert status == 422
    assert reply["detail"][0]["loc"][0] == "body"


async def test_a_body_of_more_than_a_mebibyte_is_413(server):
    status, reply = await ask("POST", f"{server}/reset", data=io.BytesIO(b" " * (1 << 20) + b"{}"))
    assert (status, reply) == (413, {"detail": "Body exceeds 1048576 bytes"})


async def test_state_is_that_of_a_fresh_environment(server):
    status, reply = await ask("GET", f"{server}/state")
    assert status == 200
    assert reply == {"episode_id": reply["episode_id"], "step_count": 0}


async def test_what_it_says_about_itself_is_what_openenv_asks_for(server):
    assert await ask("GET", f"{server}/health") == (200, {"status": "healthy"})
    assert await ask("GET", f"{server}/list_environments") == (200, ["benchmark"])
    _, metadata = await ask("GET", f"{server}/metadata")
    assert list(metadata) == [
        "name",
        "description",
        "readme_content",
        "version",
        "author",
        "documentation_url",
    ]
    _, schema = await ask("GET", f"{server}/schema")
    assert list(schema) == ["action", "observation", "state", "reset_observation"]
    wait = schema["action"]["properties"]["wait_seconds"]
    assert (wait["minimum"], wait["maximum"], wait["type"]) == (0, 3600, "number")
    assert schema["action"]["additionalProperties"] is False
    _, first = await ask("POST", f"{server}/reset")
    described = set(schema["observation"]["properties"])
    assert described == {*first["observation"], "reward", "done"}
    _, openapi = await ask("GET", f"{server}/openapi.json")
    assert openapi["info"]["version"] == metadata["version"]
    assert {"/reset", "/step", "/state", "/health", "/metadata", "/schema", "/mcp"} <= set(openapi["paths"])


async def test_the_docs_page_loads_nothing_from_anywhere(server):
    async with aiohttp.ClientSession() as http, http.get(f"{server}/docs") as reply:
        page = await reply.text()
        assert reply.content_type == "text/html"
    assert "/ws" in page
    assert not re.search(r"(src|href)=\"?(https?:)?//|@import|<script", page)


@pytest.mark.parametrize("path", ["", "nope", "ws", "list_tasks"])
async def test_what_is_not_there_is_404_in_json(server, path):
    assert await ask("GET", f"{server}/{path}") == (404, {"detail": "Not Found"})


@pytest.mark.parametrize("path", ["reset", "step", "mcp"])
async def test_the_wrong_method_is_405_in_json(server, path):
    assert await ask("GET", f"{server}/{path}") == (405, {"detail": "Method Not Allowed"})


async def test_mcp_speaks_json_rpc(server):
    def call(method, request_id):
        return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {}}

    def failed(code, message, request_id):
        return {
            "jsonrpc": "2.0",
            "id": request_id,
            "error": {"code": code, "message": message, "data": None},
        }

    async def rpc(**body):
        status, reply = await ask("POST", f"{server}/mcp", **body)
        assert status == 200
        return reply

    no_tools = "Environment does not support MCP"
    assert await rpc(json=call("tools/list", 1)) == failed(-32603, no_tools, 1)
    assert await rpc(json=call("tools/call", 2)) == failed(-32603, no_tools, 2)
    unknown = "Method not found: initialize"
    assert await rpc(json=call("initialize", "x")) == failed(-32601, unknown, "x")
    assert await rpc(data="{not json") == failed(-32700, "Parse error", None)
    assert (await rpc(json={"foo": 1}))["error"]["code"] == -32600
    assert (await rpc(json={**call("tools/list", 1), "params": [1]}))["error"]["code"] == -32602


async def test_a_client_that_drops_a_step_leaves_a_server_that_answers(server):
    async with aiohttp.ClientSession() as http:
        pending = asyncio.create_task(http.post(f"{server}/step", json={"action": {"wait_seconds": 600}}))
        await asyncio.sleep(0.1)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
    assert (await ask("GET", f"{server}/health"))[0] == 200
