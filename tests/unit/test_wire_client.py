"""A session driven by hand is told what real servers said, and has to see what was recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pytest_openenv_scale.client.session import ClientSession, HttpClientSession, open_http_session, open_session
from scripted_server import Peer, scripted
from wire_cases import VERSIONS, Conversation, Exchange, Turn, capacity, conversations, environments, exchanges
from wire_replay import each, failing, fields, kind_of, sayable, server_of

RECORDED = [(version, environment) for version in VERSIONS for environment in environments(version)]


async def ask(session: ClientSession, message: Any) -> Any:
    """Say this; where our client has no words for it, its reset gets the answer."""
    match message:
        case {"type": "step", "data": dict(action)} if sayable(message):
            return await session.step(action)
        case {"type": "state"} if sayable(message):
            return await session.state()
        case {"type": "reset", "data": dict(data)} if sayable(message):
            return await session.reset(**data)
        case _:
            return await session.reset()


def phase_of(turn: Turn) -> str:
    return turn.said["type"] if sayable(turn.said) else "reset"


def is_told(text: str | None, data: dict[str, Any]) -> bool:
    """Whether a failure's message holds the server's words, and where the first problem is."""
    first = next(iter(data.get("errors", ())), None)
    words = [data["message"], *([".".join(map(str, first["loc"])), first["msg"]] if first else ())]
    return text is not None and all(word in text for word in words)


async def assert_seen(session: ClientSession, turn: Turn) -> None:
    """Say what was said and check that the client sees the answer, or that the answer was none it can use."""
    phase, answer = phase_of(turn), turn.answer
    kind, data = answer.get("type"), answer.get("data")
    if "$characters" in answer:
        reply = await ask(session, turn.said)
        assert len(json.dumps({"type": "observation", "data": reply.data})) == answer["$characters"]
    elif kind == "observation" and phase != "state":
        reply = await ask(session, turn.said)
        assert (reply.observation, reply.reward, reply.done) == (data["observation"], data["reward"], data["done"])
        assert reply.data == data
    elif kind == "state" and phase == "state":
        assert await ask(session, turn.said) == data
    elif kind == "error":
        failed = await failing(ask(session, turn.said))
        assert fields(failed) == (phase, kind_of(data["code"]), data["code"])
        assert is_told(failed.message, data)
    else:
        failed = await failing(ask(session, turn.said))
        assert fields(failed) == (phase, "protocol", None)
        assert ("'mcp'" if kind else "not an OpenEnv message") in (failed.message or "")


@pytest.mark.parametrize(("version", "environment"), RECORDED)
async def test_a_session_driven_by_hand_sees_what_was_recorded(version, environment):
    await each(conversations(version, environment), play)


async def play(conversation: Conversation) -> None:
    async with scripted(server_of(conversation)) as server:
        if conversation.status != 101:
            failed = await failing(open_session(server.url).__aenter__())
            assert fields(failed) == ("connect", "handshake_status", str(conversation.status))
            return
        async with open_session(server.url) as session:
            for message in conversation.greeting:
                await assert_seen(session, Turn(None, message))
            for turn in conversation.turns:
                if turn.answer is not None:
                    await assert_seen(session, turn)
                elif turn.said == {"type": "close"}:
                    await session.close()
            if conversation.closed is None:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await session.reset()
            else:
                failed = await failing(session.reset())
                code, reason = conversation.closed
                assert fields(failed) == ("reset", "closed_early", str(code))
                assert failed.message == (reason or None)


@pytest.mark.parametrize(("version", "environment"), RECORDED)
async def test_a_full_server_refuses_a_session_driven_by_hand_as_recorded(version, environment):
    recorded = capacity(version, environment)
    data = recorded.ws.greeting[0]["data"]
    assert (data["active_sessions"], data["max_sessions"]) == (recorded.held, recorded.held)
    async with scripted(server_of(recorded.ws)) as server, open_session(server.url) as session:
        assert fields(await failing(session.reset())) == ("reset", "capacity", "CAPACITY_REACHED")
        assert fields(await failing(session.reset())) == ("reset", "closed_early", "1000")


# HTTP


def http_server_of(exchange: Exchange) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        head = (await peer.head()).decode()
        assert head.startswith(f"{exchange.method} {exchange.path} ")
        lines = [line.lower() for line in head.split("\r\n")]
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        sent_body = json.loads(await peer.reader.readexactly(length))
        assert sent_body == (request_body(exchange) or ({"action": {}} if exchange.path == "/step" else {}))
        if exchange.status is None:
            peer.writer.close()
            return
        kind, text = ("text/plain", exchange.answer) if isinstance(exchange.answer, str) else ("application/json", None)
        body = (text or json.dumps(exchange.answer)).encode()
        top = f"HTTP/1.1 {exchange.status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.send(top.encode() + body)
        await peer.gone()

    return script


def request_body(exchange: Exchange) -> dict[str, Any] | None:
    """The body that was sent, where our client sends such ones."""
    if exchange.body is None or exchange.body == "{not json":
        return None
    body = json.loads(exchange.body)
    return body if exchange.path == "/reset" or set(body) == {"action"} else None


async def request(session: HttpClientSession, exchange: Exchange) -> Any:
    body = request_body(exchange) or {}
    return await (session.reset(**body) if exchange.path == "/reset" else session.step(body.get("action", {})))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_over_http_sees_what_was_recorded(version):
    await each(exchanges(version, "probe"), play_http)


async def play_http(exchange: Exchange) -> None:
    async with scripted(http_server_of(exchange)) as server, open_http_session(server.url) as session:
        if exchange.status == 200:
            reply = await request(session, exchange)
            assert reply.data == exchange.answer
            assert (reply.reward, reply.done) == (exchange.answer["reward"], exchange.answer["done"])
            return
        failed = await failing(request(session, exchange))
    phase = exchange.path[1:]
    if exchange.status is None:
        assert fields(failed)[:2] == (phase, "closed_early")
    else:
        assert fields(failed) == (phase, "environment", str(exchange.status))
