"""The benchmark environment is told what a real OpenEnv server was told, and has to answer alike."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed

from server_process import Client, running_server, session
from wire_cases import NEWEST, Conversation, Exchange, Settling, capacity, conversations, exchanges, schema_outline

ANSWER_S = 20
"""How long one answer may take on a busy machine, in seconds."""
RECORDED = conversations(NEWEST, "benchmark")
OF_THE_PROBE = {
    "reset_raises_then_usable": "its reset raises",
    "step_raises_then_usable": "its step raises",
    "step_validator_valueerror": "its action has a validator",
    "step_constraint": "its action has a minimum",
    "step_done_then_step": "its episodes end",
    "step_2MiB_reply": "its replies grow",
    "factory_fails": "its constructor raises",
    "frame_of_17_megabytes": "its server's limit is 16 MiB, ours 1 MiB",
}
"""What only the probe environment could be asked, and why."""
OUR_OWN = {("/metadata", "description")}
"""What our environment says over HTTP in words of its own."""
PROBED = [conversation for conversation in conversations(NEWEST, "probe") if conversation.name not in OF_THE_PROBE]
FULL = capacity(NEWEST, "benchmark")


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param) as (_, address):
        yield address


@pytest.fixture(params=["hypercorn", "uvicorn"])
def small_server(request):
    with running_server("--server", request.param, "--max-envs", FULL.held) as (_, address):
        yield address


async def receive(client: Client) -> Any:
    async with asyncio.timeout(ANSWER_S):
        return await client.receive()


async def replayed(address: str, conversation: Conversation) -> tuple[Any, ...]:
    """Say what was said; what our server answered, and its close where the recorded one closed."""
    settle, received = Settling(), []
    async with session(address, conversation.path) as client:
        received += [await receive(client) for _ in conversation.greeting]
        for turn in conversation.turns:
            await client.connection.send(turn.frame)
            if turn.answer is not None:
                received.append(await receive(client))
        if conversation.closed is not None:
            with pytest.raises(ConnectionClosed):
                await receive(client)
            received.append((client.connection.close_code, client.connection.close_reason))
        else:
            await asyncio.wait_for(await client.connection.ping(), ANSWER_S)
    return tuple(settle(message) for message in received)


@pytest.mark.parametrize("conversation", RECORDED, ids=str)
async def test_a_conversation_goes_as_it_went_with_the_same_environment_on_openenv(server, conversation):
    assert await replayed(server, conversation) == conversation.heard


# What an environment of another kind was told


def outline(message: Any) -> Any:
    """What is the protocol's own in an answer: type, code, where and how a message was wrong."""
    if not isinstance(message, dict):
        return message
    data = message.get("data", message)
    failure = data.get("error", {})
    problems = sorted((problem["type"], problem["loc"]) for problem in data.get("errors", ()))
    return message.get("type"), data.get("code"), failure.get("code"), problems, sorted(data.get("result", ()))


def in_our_words(conversation: Conversation) -> Conversation:
    """The same conversation with our environment's action for the probe's."""
    words = json.dumps([turn.said for turn in conversation.turns]).replace(
        '"op": "noop", "value": 1', '"wait_seconds": 0'
    )
    turns = tuple(
        type(turn)(message, turn.answer) for turn, message in zip(conversation.turns, json.loads(words), strict=True)
    )
    return Conversation(**{**vars(conversation), "turns": turns})


@pytest.mark.parametrize("conversation", PROBED, ids=str)
async def test_what_is_the_protocols_own_is_answered_as_by_another_environment(server, conversation):
    received = await replayed(server, in_our_words(conversation))
    assert [outline(message) for message in received] == [outline(message) for message in conversation.heard]


def test_both_environments_were_told_the_same_but_for_what_only_one_can_do():
    assert {conversation.name for conversation in PROBED} == {conversation.name for conversation in RECORDED}
    assert {conversation.name for conversation in conversations(NEWEST, "probe")} == {
        conversation.name for conversation in PROBED
    } | set(OF_THE_PROBE)


async def test_a_frame_too_long_is_closed_with_the_recorded_code():
    """Under uvicorn; hypercorn says the same, but leaves the socket of so long a frame to the client to end."""
    conversation = next(
        conversation for conversation in conversations(NEWEST, "probe") if conversation.name == "frame_of_17_megabytes"
    )
    assert conversation.closed is not None

    async def ask(client: Client) -> None:
        await client.connection.send(conversation.turns[0].frame)
        await receive(client)

    with running_server("--server", "uvicorn") as (_, address):
        async with session(address) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await ask(client)
        # The rest of the frame is not read: a reset may overtake the close.
        assert closed.value.rcvd is None or closed.value.rcvd.code == conversation.closed[0]
        assert closed.value.sent is None or closed.value.sent.code == conversation.closed[0]
        async with session(address) as client:
            assert (await client.ask({"type": "reset"}))["type"] == "observation"


# HTTP


async def answered(http: aiohttp.ClientSession, address: str, exchange: Exchange, settle: Settling) -> tuple[int, Any]:
    body = exchange.body
    for word, original in settle.originals.items():
        body = body and body.replace(word, original)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    url = f"http://{address}{exchange.path}"
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with http.request(exchange.method, url, data=body, headers=headers, timeout=timeout) as reply:
        assert reply.content_type == "application/json"
        answer = await reply.json()
    return reply.status, settle(schema_outline(answer) if exchange.path == "/schema" else answer)


async def test_http_is_answered_as_by_the_same_environment_on_openenv(server):
    settle, requests = Settling(), exchanges(NEWEST, "benchmark")
    async with aiohttp.ClientSession() as http:
        answers = [(exchange, await answered(http, server, exchange, settle)) for exchange in requests]
    assert len(answers) == 27
    differing = {(exchange.path, key) for exchange, answer in answers for key in differences(exchange, *answer)}
    assert differing == OUR_OWN


def differences(exchange: Exchange, status: int, answer: Any) -> set[str]:
    """The fields of an answer that are not as recorded."""
    if (status, answer) == (exchange.status, exchange.answer):
        return set()
    if status != exchange.status or not isinstance(answer, dict) or answer.keys() != exchange.answer.keys():
        return {"all of it"}
    return {key for key in answer if answer[key] != exchange.answer[key]}


# A full server


async def test_a_full_server_refuses_as_recorded_and_answers_http_as_recorded(small_server):
    async with session(small_server) as one, session(small_server) as other:
        for holder in (one, other):
            await holder.ask({"type": "reset"})
        for refused in (FULL.ws, FULL.mcp):
            assert await replayed(small_server, refused) == refused.heard
        settle = Settling()
        async with aiohttp.ClientSession() as http:
            for exchange in FULL.http:
                reply = await answered(http, small_server, exchange, settle)
                assert reply == (exchange.status, exchange.answer)
        await other.send({"type": "close"})
        assert await other.closed() == 1000
        async with session(small_server) as next_one:
            assert (await next_one.ask({"type": "reset"}))["type"] == "observation"


async def test_every_eager_client_of_a_full_server_can_read_why(small_server):
    """As recorded: 20 clients that send their reset at once; whether they could or not, the reason is there."""

    async def eager() -> Any:
        async with session(small_server) as client:
            try:
                await client.send({"type": "reset"})
            except ConnectionClosed:
                pass
            return await receive(client)

    async with session(small_server) as one, session(small_server) as other:
        for holder in (one, other):
            await holder.ask({"type": "reset"})
        assert [await eager() for _ in range(FULL.eager_sent + FULL.eager_failed)] == [FULL.ws.greeting[0]] * 20
