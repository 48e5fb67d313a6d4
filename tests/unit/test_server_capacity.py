"""A slot is held by a session and by nothing else, and is free again however the session ends."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version

import aiohttp
import pytest
from packaging.version import Version

from server_process import running_server, session

RESET = {"type": "reset", "data": {}}
LONG_STEP = {"type": "step", "data": {"wait_seconds": 600}}
FULL = {
    "message": "Server at capacity: 2/2 sessions active. Cannot accept new connections.",
    "code": "CAPACITY_REACHED",
    "active_sessions": 2,
    "max_sessions": 2,
}


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param, "--max-envs", 2) as (_, address):
        yield address


async def both_slots_are_free(address, within_s=2.0):
    """Whether two sessions fit, now or a moment later: a drop reaches the server when it does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        async with session(address) as one, session(address) as other:
            replies = [await one.ask(RESET), await other.ask(RESET)]
        if all(reply["type"] == "observation" for reply in replies):
            return True
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.02)


async def test_one_session_too_many_is_told_the_numbers_and_closed(server):
    assert await both_slots_are_free(server)
    async with session(server) as one, session(server) as other:
        await one.ask(RESET)
        await other.ask(RESET)
        async with session(server) as refused:
            assert await refused.receive() == {"type": "error", "data": FULL}
            assert await refused.closed() == 1000
        async with session(server, "mcp") as refused:
            numbers = {"active_sessions": 2, "max_sessions": 2}
            assert (await refused.receive())["error"] == {
                "code": -32000,
                "message": FULL["message"],
                "data": numbers,
            }
            assert await refused.closed() == 1000


async def test_a_client_that_sends_at_once_still_learns_why_it_was_refused(server, request):
    if "uvicorn" in request.node.name and Version(version("uvicorn")) < Version("0.54"):
        pytest.skip("this uvicorn drops a connection without reading what its client still sends")
    assert await both_slots_are_free(server)
    async with session(server) as one, session(server) as other:
        await one.ask(RESET)
        await other.ask(RESET)
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*server.split(":"))
            writer.write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(5):
                writer.write(b"\x81\x80\0\0\0\0")
                await asyncio.sleep(0)
            assert b"CAPACITY_REACHED" in await reader.readuntil(b"}}")
            writer.close()


async def test_http_counts_no_session_and_answers_when_full(server):
    assert await both_slots_are_free(server)
    async with session(server) as one, session(server) as other, aiohttp.ClientSession() as http:
        await one.ask(RESET)
        await other.ask(RESET)
        async with http.post(f"http://{server}/reset") as reply:
            assert reply.status == 200
        async with http.get(f"http://{server}/health") as reply:
            assert await reply.json() == {"status": "healthy"}


@pytest.mark.parametrize(
    "last_words",
    [{"type": "close"}, "[]", b"binary"],
    ids=["a close message", "a session error", "a binary frame"],
)
async def test_the_slot_is_free_as_soon_as_the_client_is_told_the_end(server, last_words):
    assert await both_slots_are_free(server)
    async with session(server) as one, session(server) as other:
        for client in (one, other):
            await client.ask(RESET)
            await client.send(last_words)
            await client.closed()
        assert await both_slots_are_free(server, within_s=0)


@pytest.mark.parametrize("in_step", [False, True], ids=["idle", "in mid-step"])
@pytest.mark.parametrize("clean", [True, False], ids=["closes", "vanishes"])
async def test_the_slot_is_free_after_a_client_leaves(server, in_step, clean):
    assert await both_slots_are_free(server)
    async with session(server) as one, session(server) as other:
        for client in (one, other):
            await client.ask(RESET)
            if in_step:
                await client.send(LONG_STEP)
                await asyncio.sleep(0.05)
            if clean:
                await client.connection.close()
            else:
                client.connection.transport.abort()
        assert await both_slots_are_free(server)


async def test_a_client_far_ahead_of_its_steps_frees_its_slot_when_it_leaves(server):
    assert await both_slots_are_free(server)
    async with session(server) as client:
        for _ in range(8):
            await client.send(LONG_STEP)
        await asyncio.sleep(0.05)
        client.connection.transport.abort()
        assert await both_slots_are_free(server)


async def test_a_session_made_over_http_holds_a_slot_until_it_is_closed(server):
    assert await both_slots_are_free(server)

    async with aiohttp.ClientSession() as http:

        async def rpc(method, **params):
            body = {"jsonrpc": "2.0", "id": 1, "method": f"openenv/session/{method}", "params": params}
            async with http.post(f"http://{server}/mcp", json=body) as reply:
                return await reply.json()

        session_ids = [(await rpc("create"))["result"]["session_id"] for _ in range(2)]
        assert (await rpc("create"))["error"]["data"] == {"active_sessions": 2, "max_sessions": 2}
        async with session(server, f"ws?session_id={session_ids[0]}") as attached:
            assert (await attached.ask(RESET))["type"] == "observation"
            async with session(server, f"ws?session_id={session_ids[0]}") as second:
                assert (await second.receive())["data"]["code"] == "SESSION_ERROR"
            closing = await rpc("close", session_id=session_ids[0])
            assert closing["result"] == {"session_id": session_ids[0], "closed": False, "closing": True}
            await attached.send(json.dumps({"type": "close"}))
            await attached.closed()
        assert (await rpc("close", session_id=session_ids[1]))["result"] == {
            "session_id": session_ids[1],
            "closed": True,
        }
        assert (await rpc("close", session_id=session_ids[1]))["error"]["code"] == -32602
    assert await both_slots_are_free(server)
