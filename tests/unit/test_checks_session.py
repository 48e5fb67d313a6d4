"""A session of a check tells everything a server does as a value, and keeps what was said."""

from __future__ import annotations

import asyncio

import pytest

from checking_subjects import make_subject, served
from pytest_openenv_scale.checks.subject import close_all
from scripted_server import BINARY, CAPACITY, PING, PONG, error, frame, observation, refused_port, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


async def test_answers_are_values_with_the_time_they_took(golden):
    async def script(peer):
        await peer.accept()
        await peer.serve()
        assert await peer.asked() == {"type": "state"}
        peer.say(error("UNKNOWN_TYPE", "Unknown message type: state"))
        assert await peer.asked() == {"type": "close"}
        await peer.part()

    async with scripted(script) as server, make_subject(server.url).client() as client:
        session = await client.start({"seed": 1})
        assert session.first_answer.kind == "observation"
        assert session.first_answer.observation == {"pid": 7}
        assert session.first_answer.latency_s is not None
        assert session.reset_data == {"seed": 1}
        stepped = await session.step({"wait_seconds": 0})
        assert stepped.good
        assert not stepped.done
        refused = await session.state()
        assert (refused.kind, refused.code, refused.good) == ("error", "UNKNOWN_TYPE", False)
        golden(str(refused))
        assert (await session.close()).code == "1000"
        assert session.ended


async def test_silence_ends_after_the_patience_given():
    async def script(peer):
        await peer.accept()
        await peer.asked()
        await peer.gone()

    async with scripted(script) as server, make_subject(server.url).client(0.05) as client:
        session = await client.start()
        assert session.first_answer.kind == "silence"
        assert str(session.first_answer) == "no answer within 0.05 s"


async def test_a_server_that_is_full_is_told_from_one_that_cuts():
    async def script(peer):
        if peer.number == 0:
            await peer.accept()
            peer.say(CAPACITY)
            await peer.part()
        elif peer.number == 1:
            await peer.head()
            peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        else:
            await peer.accept()
            peer.reset()

    async with scripted(script) as server, make_subject(server.url).client() as client:
        refused_by_message, refused, cut = [await client.start() for _ in range(3)]
        assert (refused_by_message.first_answer.code, refused_by_message.first_answer.full) == (
            "CAPACITY_REACHED",
            True,
        )
        assert (refused.first_answer.kind, refused.first_answer.code, refused.first_answer.full) == (
            "lost",
            "503",
            True,
        )
        assert (cut.first_answer.kind, cut.first_answer.full) == ("lost", False)


async def test_a_limit_of_the_rate_is_not_the_servers_room():
    async def script(peer):
        await peer.head()
        peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server, make_subject(server.url).client() as client:
        limited = (await client.start()).first_answer
    assert (limited.kind, limited.code, limited.full, limited.retryable) == ("lost", "429", False, True)


async def test_a_port_on_which_nothing_listens_is_a_lost_connection():
    with refused_port() as port:
        async with make_subject(f"http://127.0.0.1:{port}").client() as client:
            session = await client.start()
            assert (session.first_answer.kind, session.first_answer.code) == ("lost", "ECONNREFUSED")


async def test_the_transcript_holds_both_sides_and_cuts_long_messages(golden):
    async def script(peer):
        await peer.accept()
        await peer.asked()
        peer.say(observation(text="x" * 1000))
        opcode, payload = await peer.hear()
        assert (opcode, payload) == (BINARY, b"\x00\x01")
        await peer.gone()

    async with scripted(script) as server, make_subject(server.url).client() as client:
        session = await client.start({"seed": 3})
        session.send_binary(b"\x00\x01")
        session.drop()
        lines = session.transcript("a session").said
        assert [line.by for line in lines] == ["server", "client", "server", "client", "client"]
        assert lines[1].text == '{"type":"reset","data":{"seed":3}}'
        assert lines[2].text.endswith("in all)")
        assert len(lines[2].text) < 450
        assert lines[3].text == "<binary frame of 2 bytes>"
        golden(lines[4].text)
        assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)


async def test_a_muted_session_answers_nothing_not_even_a_ping_but_can_send():
    frames: list[tuple[int, bytes]] = []

    async def script(peer):
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        assert (await peer.asked())["type"] == "step"
        peer.send(frame(PING, b"there?"))
        while True:
            frames.append(await peer.hear())

    async with scripted(script) as server, make_subject(server.url).client() as client:
        session = await client.start()
        session.connection.stop_reading()
        session.send({"type": "step", "data": {}})
        session.send({"type": "step", "data": {"n": 2}})
        async with asyncio.timeout(2):
            while not frames:
                await asyncio.sleep(0.005)
        assert (await session.next_answer(patience_s=0.05)).kind == "silence"
        session.drop()
    assert frames == [(1, b'{"type":"step","data":{"n":2}}')]
    assert PONG not in [opcode for opcode, _ in frames]


async def test_a_reset_connection_reaches_the_server_as_a_reset():
    ended: list[BaseException] = []

    async def script(peer):
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        try:
            await peer.hear()
        except (ConnectionError, asyncio.IncompleteReadError) as failure:
            ended.append(failure)

    async with scripted(script) as server, make_subject(server.url).client() as client:
        session = await client.start()
        session.reset_connection()
        async with asyncio.timeout(2):
            while not ended:
                await asyncio.sleep(0.005)
    assert isinstance(ended[0], ConnectionResetError)


async def test_what_a_client_leaves_open_is_dropped_with_it():
    last_bytes: list[bytes] = []

    async def script(peer):
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        last_bytes.append(await peer.gone())

    async with scripted(script) as server:
        async with make_subject(server.url).client() as client:
            sessions = await client.start_many([{}] * 5, at_once=2)
            assert [session.number for session in sessions] == list(range(5))
        async with asyncio.timeout(2):
            while len(last_bytes) < 5:
                await asyncio.sleep(0.005)
    assert last_bytes == [b""] * 5


async def test_goodbye_waits_for_the_servers_close():
    async def script(peer):
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        assert await peer.asked() == {"type": "close"}
        await peer.part(1001)

    async with scripted(script) as server, make_subject(server.url).client() as client:
        answers = await close_all([await client.start()])
        assert [(answer.kind, answer.code) for answer in answers] == [("closed", "1001")]


async def test_a_session_that_fell_silent_is_left_without_a_word():
    kinds: list[str] = []

    async def script(peer):
        await peer.accept()
        kinds.append((await peer.asked())["type"])
        await peer.gone()

    async with scripted(script) as server, make_subject(server.url).client(0.05) as client:
        session = await client.connect()
        assert (await session.reset()).kind == "silence"
        assert await close_all([session]) == []
        assert session.ended
    assert kinds == ["reset"]


@pytest.mark.parametrize(("slowest", "patience"), [(0.0, 15.0), (4.0, 20.0), (60.0, 120.0)])
def test_checks_are_more_patient_with_servers_that_are_slow_alone(slowest, patience):
    subject = make_subject("http://127.0.0.1:1", timeout_s=120.0)
    subject.slowest_single_s = slowest
    assert subject.patience_s == patience


@pytest.mark.parametrize(("sessions", "patience"), [(1, 17.0), (10, 35.0), (100, 120.0)])
def test_sessions_that_ask_at_once_may_be_answered_in_turn(sessions, patience):
    subject = make_subject("http://127.0.0.1:1", timeout_s=120.0)
    subject.slowest_single_s = 2.0
    assert subject.patience_among(sessions) == patience


async def test_what_is_learned_is_asked_once():
    calls = []

    async def question(of):
        calls.append(of)
        return len(calls)

    of = make_subject("http://127.0.0.1:1")
    assert [await of.learn(question), await of.learn(question)] == [1, 1]


async def test_how_many_sessions_were_open_at_once_is_known_of_the_server():
    async with served() as url:
        subject = make_subject(url)
        async with subject.client() as client:
            await close_all([await client.start() for _ in range(3)])
            await close_all([await client.start() for _ in range(2)])
    assert subject.endpoint.held.most == 3
