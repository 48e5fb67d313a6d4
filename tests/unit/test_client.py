"""A session to drive by hand: what it answers, what it raises, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
import uvloop

from independent_servers import SERVERS, running
from pytest_openenv_scale.client.session import SessionFailed, open_http_session, open_session
from scripted_server import CAPACITY, CLOSE, Peer, error, frame, message, observation, refused_port, scripted
from server_process import running_server

pytestmark = pytest.mark.usefixtures("quick_waits")


@pytest.fixture(scope="module")
def environment():
    """The benchmark environment, in a process of its own."""
    with running_server() as (_, address):
        yield f"http://{address}"


async def play_by_hand(url: str) -> None:
    async with open_session(url) as session:
        reset = await session.reset(seed=1)
        assert isinstance(reset.observation["pid"], int)
        reply = await session.step({"wait_seconds": 0.05})
        assert reply.observation["waited_seconds"] >= 0.05
        assert (reply.done, reply.data["done"]) == (False, False)
        assert session.latency_s is not None
        assert 0.05 <= session.latency_s < 1
        assert (await session.state())["step_count"] == 1
        await session.close()
        await session.close()


async def test_a_session_is_reset_stepped_and_asked_for_its_state(environment):
    await play_by_hand(environment)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_two_sessions_in_a_row_and_two_at_once_work_in_one_loop(environment, run):
    async def main() -> None:
        await play_by_hand(environment)
        await play_by_hand(environment)
        await asyncio.gather(play_by_hand(environment), play_by_hand(environment))
        async with open_session(environment) as one, open_session(environment) as two:
            hashes = {(await session.reset()).observation["session_hash"] for session in (one, two)}
            assert len(hashes) == 2

    run(main())


@pytest.mark.parametrize("name", SERVERS)
async def test_independent_servers_hold_such_a_session(name):
    async with running(name) as url, open_session(url) as session:
        await session.reset()
        assert (await session.step({"wait_seconds": 0.1, "size": 10})).observation["text"] == "ä" * 10


async def test_two_hundred_sessions_leave_no_descriptor_open(environment):
    await play_by_hand(environment)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await asyncio.gather(*(quick(environment) for _ in range(10)))
    assert len(os.listdir("/proc/self/fd")) <= before


async def quick(url: str) -> None:
    async with open_session(url) as session:
        await session.reset()


async def test_failed_sessions_leave_no_descriptor_open():
    async def script(peer: Peer) -> None:
        if peer.number % 2:
            await peer.accept(message(CAPACITY))
        peer.writer.close()

    async def failed_session(url: str) -> None:
        with pytest.raises(SessionFailed):
            await quick(url)

    async with scripted(script) as server:
        await failed_session(server.url)
        before = len(os.listdir("/proc/self/fd"))
        await asyncio.gather(*(failed_session(server.url) for _ in range(50)))
        async with asyncio.timeout(10):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.02)


# Failures


async def test_an_error_of_the_environment_does_not_end_the_session(environment):
    async with open_session(environment) as session:
        with pytest.raises(SessionFailed) as caught:
            await session.step({"wait_seconds": "long"})
        assert (caught.value.phase, caught.value.type, caught.value.code) == ("step", "environment", "VALIDATION_ERROR")
        assert "wait_seconds" in (caught.value.message or "")
        assert "\n" not in str(caught.value)
        assert (await session.step({"wait_seconds": 0})).observation["step_count"] == 1


async def failing(script, *, timeout_s: float = 5.0, path: str = "") -> SessionFailed:
    async with scripted(script) as server:
        with pytest.raises(SessionFailed) as caught:
            async with open_session(server.url + path, timeout_s=timeout_s) as session:
                await session.reset()
    return caught.value


def fields(failed: SessionFailed) -> tuple[str, str, str | None]:
    return failed.phase, failed.type, failed.code


async def test_a_full_server_is_named_by_its_own_words(golden):
    async def script(peer: Peer) -> None:
        await peer.accept(message(CAPACITY))
        await peer.part()

    failed = await failing(script)
    assert fields(failed) == ("reset", "capacity", "CAPACITY_REACHED")
    golden(str(failed))


async def test_a_refused_handshake_is_named_by_its_status():
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    assert fields(await failing(script)) == ("connect", "handshake_status", "403")


async def test_a_session_the_server_closes_is_closed_early():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        await peer.part(1011)

    assert fields(await failing(script)) == ("reset", "closed_early", "1011")


async def test_a_reply_of_another_type_is_a_protocol_failure():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say({"type": "state", "data": {}})
        await peer.gone()

    failed = await failing(script)
    assert fields(failed) == ("reset", "protocol", None)
    assert "'state' instead of 'observation'" in (failed.message or "")


@pytest.mark.parametrize("phase", ["connect", "reset"])
async def test_a_silent_server_is_given_up_on_time(phase):
    async def script(peer: Peer) -> None:
        if phase == "reset":
            await peer.accept()
        await peer.gone()

    began = asyncio.get_running_loop().time()
    assert fields(await failing(script, timeout_s=0.2)) == (phase, "timeout", None)
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_nothing_that_listens_is_refused():
    with refused_port() as port, pytest.raises(SessionFailed) as caught:
        await quick(f"http://127.0.0.1:{port}")
    assert fields(caught.value) == ("connect", "refused", "ECONNREFUSED")


@pytest.mark.parametrize("opening", [open_session, open_http_session])
async def test_a_header_that_would_leave_its_line_is_refused(golden, opening):
    with pytest.raises(SessionFailed) as caught:
        async with opening("http://127.0.0.1:9", headers={"X-A": "1\r\nX-B: 2"}):
            pass
    golden(caught.value)


async def test_a_header_that_the_server_repeats_is_not_shown(golden):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(error("DENIED", "alice-has-a-token is not for this"))
        await peer.asked()
        await peer.part()

    headers = {"Authorization": "Bearer alice-has-a-token"}
    async with scripted(script) as server, open_session(server.url, headers=headers) as session:
        with pytest.raises(SessionFailed) as caught:
            await session.reset()
    golden(caught.value)
    assert caught.value.message == "*** is not for this"


async def test_a_header_that_a_server_repeats_over_http_is_not_shown():
    body = "alice-has-a-token is not for this"

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await peer.gone()

    headers = {"Authorization": "Bearer alice-has-a-token"}
    async with scripted(script) as server, open_http_session(server.url, headers=headers) as session:
        with pytest.raises(SessionFailed, match=r"\*\*\* is not for this") as caught:
            await session.reset()
    assert "alice" not in str(caught.value)


async def test_an_answer_that_comes_too_late_is_never_taken_for_the_next_one():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        await asyncio.sleep(0.3)
        peer.say(observation(text="late"))
        await peer.gone()

    async with scripted(script) as server, open_session(server.url, timeout_s=0.15) as session:
        for _ in range(2):
            with pytest.raises(SessionFailed) as caught:
                await session.reset()
            assert fields(caught.value) == ("reset", "timeout", None)
            await asyncio.sleep(0.2)


async def test_two_requests_at_once_are_refused_and_the_first_is_answered(environment):
    async with open_session(environment) as session:
        first = asyncio.create_task(session.step({"wait_seconds": 0.1}))
        await asyncio.sleep(0.02)
        with pytest.raises(RuntimeError, match="one request at a time"):
            await session.state()
        assert (await first).observation["step_count"] == 1


async def test_closing_waits_until_the_server_has_closed_and_takes_no_message_for_an_answer():
    left_at: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.asked() == {"type": "close"}
        peer.say(error("UNKNOWN_TYPE", "what?"))
        await asyncio.sleep(0.05)
        left_at.append(asyncio.get_running_loop().time())
        await peer.part()

    async with scripted(script) as server, open_session(server.url) as session:
        await session.close()
        assert asyncio.get_running_loop().time() >= left_at[0]


async def test_a_block_that_raises_ends_the_connection_and_keeps_its_error():
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.gone()
        ended.set()

    async def block(url: str) -> None:
        async with open_session(url):
            raise ZeroDivisionError

    async with scripted(script) as server:
        with pytest.raises(ZeroDivisionError):
            await block(server.url)
        await asyncio.wait_for(ended.wait(), 2)


async def test_a_session_that_is_cancelled_lets_go_of_its_connection():
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.gone()
        ended.set()

    async with scripted(script) as server:
        task = asyncio.create_task(quick(server.url))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 2)


async def test_messages_that_came_before_the_end_are_answers_still():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.send(message(observation(n=1)) + message(observation(n=2)) + frame(CLOSE, b"\x03\xe8"))
        await peer.gone()

    async with scripted(script) as server, open_session(server.url) as session:
        assert [(await session.reset()).observation["n"] for _ in range(2)] == [1, 2]
        server.peers[0].writer.close()
        with pytest.raises(SessionFailed) as caught:
            await session.reset()
        assert caught.value.type == "closed_early"


# HTTP


async def test_a_session_over_http_is_reset_and_stepped(environment):
    async with open_http_session(environment) as session:
        assert isinstance((await session.reset(seed=1)).observation["pid"], int)
        assert (await session.step({"wait_seconds": 0.01})).observation["waited_seconds"] >= 0.01
        with pytest.raises(SessionFailed) as caught:
            await session.step({"wait_seconds": "long"})
        assert fields(caught.value) == ("step", "environment", "422")
        assert (await session.step({"wait_seconds": 0})).done is False


async def test_http_where_nothing_listens_is_refused_in_connect():
    with refused_port() as port:
        async with open_http_session(f"http://127.0.0.1:{port}") as session:
            with pytest.raises(SessionFailed) as caught:
                await session.reset()
    assert fields(caught.value) == ("connect", "refused", "ECONNREFUSED")


async def test_http_sessions_leave_no_descriptor_open(environment):
    async def http_session() -> None:
        async with open_http_session(environment) as session:
            await session.reset()

    await http_session()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await asyncio.gather(*(http_session() for _ in range(10)))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_failed_can_be_shown_in_one_line():
    assert str(SessionFailed("reset", "timeout", None, None)) == "reset failed: timeout"
    assert json.dumps(str(SessionFailed("step", "environment", "X", "why"))) == '"step failed: environment X (why)"'
