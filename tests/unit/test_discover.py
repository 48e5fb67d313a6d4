"""What a server publishes about its actions; whatever it answers instead is no schema, and no error."""

from __future__ import annotations

import asyncio
import json

import pytest

from pytest_openenv_scale.client import http_request
from pytest_openenv_scale.client.http_request import action_schema
from scripted_server import Peer, refused_port, scripted

ACTION = {"type": "object", "properties": {"op": {"type": "string"}}}


async def ask(answer: bytes, path: str = "", headers: dict[str, str] | None = None):
    """What is found where this is answered, and the request that was sent."""
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        peer.send(answer)
        peer.writer.close()

    async with scripted(script) as server:
        schema = await asyncio.to_thread(action_schema, server.url + path, headers or {})
    return schema, heads[0]


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def test_the_schema_of_actions_is_found_below_the_base_url():
    body = json.dumps({"action": ACTION, "observation": {}, "state": {}}).encode()
    schema, head = await ask(ok(body), "/prefix/", {"Authorization": "Bearer t"})
    assert schema == ACTION
    assert head.startswith(b"GET /prefix/schema HTTP/1.1\r\n")
    assert b"Authorization: Bearer t\r\n" in head


async def test_a_websocket_url_is_asked_over_http(monkeypatch):
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(ok(json.dumps({"action": ACTION}).encode()))

    async with scripted(script) as server:
        schema = await asyncio.to_thread(action_schema, server.url.replace("http:", "ws:"), {})
    assert schema == ACTION


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        ok(b"<html>"),
        ok(b"[]"),
        ok(b"null"),
        ok(b"{}"),
        ok(b'{"action": "none"}'),
        ok(b"\xff\xfe"),
        ok(b"[" * 100_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
async def test_anything_else_is_no_schema(answer):
    schema, _ = await ask(answer)
    assert schema is None


async def test_headers_are_not_carried_to_where_a_server_redirects():
    heads: list[bytes] = []

    async def elsewhere(peer: Peer) -> None:
        heads.append(await peer.head())

    async with scripted(elsewhere) as other:
        schema, _ = await ask(
            f"HTTP/1.1 302 Found\r\nLocation: {other.url}/schema\r\nContent-Length: 0\r\n\r\n".encode(),
            headers={"Authorization": "Bearer t"},
        )
    assert schema is None
    assert heads == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    with refused_port() as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        schema, _ = await ask(ok(json.dumps({"action": ACTION}).encode()))
    assert schema == ACTION


def test_nothing_that_listens_is_no_schema():
    with refused_port() as port:
        assert action_schema(f"http://127.0.0.1:{port}", {}) is None


async def test_a_server_that_stays_silent_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(http_request, "_TIMEOUT_S", 0.2)

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with scripted(script) as server:
        began = asyncio.get_running_loop().time()
        assert await asyncio.to_thread(action_schema, server.url, {}) is None
        assert asyncio.get_running_loop().time() - began < 2


LATE = json.dumps({"action": ACTION}).encode()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"",
    ],
    ids=["body of known length", "body of unknown length", "header", "status line"],
)
async def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for_long(monkeypatch, head):
    monkeypatch.setattr(http_request, "_TIMEOUT_S", 0.2)

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(head)
        while not peer.writer.is_closing():
            peer.send(b" ")
            await asyncio.sleep(0.02)

    async with scripted(script) as server:
        assert await asyncio.wait_for(asyncio.to_thread(action_schema, server.url, {}), 5) is None


async def test_a_schema_of_more_bytes_than_are_read_is_none(monkeypatch):
    monkeypatch.setattr(http_request, "_MAX_BYTES", len(LATE))
    assert (await ask(ok(LATE)))[0] == ACTION
    assert (await ask(ok(LATE + b" ")))[0] is None


async def test_a_schema_that_comes_in_pieces_is_whole():
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in LATE:
            peer.send(b"1\r\n%c\r\n" % byte)
            await asyncio.sleep(0)
        peer.send(b"0\r\n\r\n")

    async with scripted(script) as server:
        assert await asyncio.to_thread(action_schema, server.url, {}) == ACTION
