"""A session of the load engine is told what real servers said, and its row has to say how that went."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from playing import failure, play, play_one
from pytest_openenv_scale.client.session import SessionFailed, open_session
from scripted_server import CLOSE, Peer, message, scripted
from wire_cases import VERSIONS, Conversation, capacity, conversations, environments, every_conversation
from wire_replay import each, failing, fields, goodbye, kind_of, server_of

RECORDED = [(version, environment) for version in VERSIONS for environment in environments(version)]


@dataclass(frozen=True)
class Course:
    """How a session that only resets and steps has to go on with these answers.

    It is asked for so many `steps`, says these things up to the end of the recording, and fails so: phase, type and
    code, None three times where it succeeds.
    """

    steps: int
    said: tuple[str, ...]
    failure: tuple[str | None, str | None, str | None]


def course(conversation: Conversation) -> Course:
    """It takes as many steps as were answered in a row, one at least."""
    if conversation.status != 101:
        return Course(1, (), ("connect", "handshake_status", str(conversation.status)))
    answers = [*conversation.greeting, *(turn.answer for turn in conversation.turns if turn.answer is not None)]
    steps, steps_taken = steps_in(answers), 0
    kinds = ["reset"]
    for answer in answers:
        kind = "observation" if "$characters" in answer else answer.get("type")
        if kind != "observation":
            code = answer["data"]["code"] if kind == "error" else None
            spoken = () if conversation.greeting else tuple(kinds)
            return Course(steps, spoken, (kinds[-1], kind_of(code) if code else "protocol", code))
        steps_taken += kinds[-1] == "step"
        if steps_taken == steps:
            return Course(steps, (*kinds, "close"), (None, None, None))
        kinds.append("reset" if kinds[-1] == "step" and answer["data"]["done"] else "step")
    if conversation.closed is None:
        return Course(steps, tuple(kinds[:-1]), (kinds[-1], "timeout", None))
    return Course(steps, tuple(kinds), (kinds[-1], "closed_early", str(conversation.closed[0])))


def steps_in(answers: list[Any]) -> int:
    """How many of the observations at the beginning answer steps: all but the resets at the start and after done."""
    steps, reset = 0, True
    for answer in answers:
        if "$characters" not in answer and answer.get("type") != "observation":
            break
        steps += not reset
        reset = not reset and "$characters" not in answer and answer["data"]["done"]
    return max(1, steps)


def expected_columns(conversation: Conversation) -> dict[str, Any]:
    """What the first observation tells of the server."""
    observation = conversation.turns[0].answer["data"]["observation"]
    return {name: observation.get(name) for name in ("pid", "session_hash", "host_url")}


def is_quiet(conversation: Conversation) -> bool:
    """Whether the server says nothing where the session waits for an answer."""
    return course(conversation).failure[1] == "timeout"


@pytest.mark.parametrize(("version", "environment"), RECORDED)
async def test_a_session_of_the_load_engine_goes_on_as_the_recorded_answers_say(version, environment):
    await each([one for one in conversations(version, environment) if not is_quiet(one)], go_on)


async def go_on(conversation: Conversation) -> None:
    expected, received = course(conversation), []
    async with scripted(server_of(conversation, received=received)) as server:
        row = await play_one(server.url, steps=expected.steps)
    assert tuple(message["type"] for message in received) == expected.said
    if expected.failure[0] is not None:
        assert failure(row) == expected.failure
        return
    assert row.success, (row.error_phase, row.error_type, row.error_message)
    assert {name: getattr(row, name) for name in expected_columns(conversation)} == expected_columns(conversation)


@pytest.mark.usefixtures("quick_waits")
async def test_sessions_of_the_load_engine_give_up_where_recorded_servers_fell_silent():
    quiet = [conversation for conversation in every_conversation() if is_quiet(conversation)]
    assert {conversation.name for conversation in quiet} == {"ws_unknown_session_id"}
    for conversation in quiet[:2]:
        async with scripted(server_of(conversation, received=[])) as server:
            assert failure(await play_one(server.url, timeout=1)) == ("step", "timeout", None)


def test_the_recordings_hold_every_way_a_session_of_the_load_engine_can_go():
    courses = [course(conversation) for conversation in every_conversation()]
    kinds = {course.failure[1] for course in courses}
    assert kinds == {None, "handshake_status", "environment", "protocol", "closed_early", "timeout"}
    assert ("reset", "step", "reset", "step", "close") in {course.said for course in courses}


# A full server


@pytest.mark.parametrize(("version", "environment"), RECORDED)
async def test_clients_that_find_the_connection_gone_before_they_can_speak_read_why(version, environment):
    """As many as were recorded: the server's last words and a reset are there before the client sends."""
    recorded = capacity(version, environment)
    assert recorded.eager_failed > 0

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.gone()

    async with scripted(script) as server:
        for number in range(recorded.eager_failed):
            async with open_session(server.url) as session:
                peer = server.peers[number]
                peer.say(*recorded.ws.greeting)
                peer.send(goodbye(recorded.ws.closed or (0, "")))
                peer.reset()
                await asyncio.sleep(0)  # The server's socket is closed; the client has not looked at its own yet.
                failed = await failing(session.reset())
                assert session._connection._send_error is not None  # Else this proves nothing.
                assert fields(failed) == ("reset", "capacity", "CAPACITY_REACHED")
                assert failed.message == recorded.ws.greeting[0]["data"]["message"]


@pytest.mark.parametrize(("version", "environment"), RECORDED)
async def test_all_the_clients_that_a_full_server_refuses_at_once_learn_why(version, environment):
    """Twenty by hand and twenty of the load engine; some connections are gone at once, as recorded."""
    recorded = capacity(version, environment)
    refusal, closed = recorded.ws.greeting[0], recorded.ws.closed
    assert closed is not None
    clients = recorded.eager_sent + recorded.eager_failed
    assert clients == 20

    async def script(peer: Peer) -> None:
        await peer.accept(message(refusal), goodbye(closed))
        if peer.number % clients < recorded.eager_failed:
            peer.reset()
            return
        while (await peer.hear())[0] != CLOSE:
            pass
        peer.writer.close()

    async def by_hand(url: str) -> SessionFailed:
        async with open_session(url) as session:
            return await failing(session.reset())

    async with scripted(script) as server:
        failed = await asyncio.gather(*(by_hand(server.url) for _ in range(clients)))
        rows = await play(server.url, batch=clients, arrival="hold")
    assert len(rows) == clients
    assert {fields(one) for one in failed} == {("reset", "capacity", "CAPACITY_REACHED")}
    assert {failure(row) for row in rows} == {("reset", "capacity", "CAPACITY_REACHED")}
    told_why = {one.message for one in failed} | {row.error_message for row in rows}
    assert told_why == {refusal["data"]["message"]}
