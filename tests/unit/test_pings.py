"""Sessions ping as the stock client does, so that nothing on the way takes them for idle; never in a latency."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import replace

import pytest

from checking_subjects import make_subject
from playing import order, play_share
from pytest_openenv_scale.client.session import SessionFailed, open_session
from scripted_server import PING, PONG, TEXT, Peer, accepted, frame, observation, scripted

EVERY_S = 0.1


async def played(script, *, ping_s: float | None = EVERY_S, **details):
    async with scripted(script) as server:
        share, _ = await play_share(replace(order(server.url, **details), ping_s=ping_s))
    (row,) = share.rows
    return share, row


def answering(pongs: list[bytes], *, answer: bool = True):
    """A server that takes its time over a step until three pings have come."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        assert (await peer.hear())[0] == TEXT
        while len(pongs) < 3:
            opcode, payload = await peer.hear()
            assert opcode == PING
            pongs.append(payload)
            if answer:
                peer.send(frame(PONG, payload))
        peer.say(observation())
        await peer.asked()
        await peer.part()

    return script


async def test_a_session_that_waits_pings_and_what_it_measures_stays_its_own():
    pongs: list[bytes] = []
    share, row = await played(answering(pongs))
    assert row.success
    assert len(pongs) == 3
    assert row.step_latencies[0] >= 2 * EVERY_S
    assert share.missed_pongs == 0


async def test_pings_without_an_answer_are_counted_and_fail_nothing():
    share, row = await played(answering([], answer=False))
    assert row.success
    assert share.missed_pongs == 2  # The answer to the third may still come.


async def test_an_answer_that_comes_with_a_pong_is_read():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        assert (await peer.hear())[0] == PING
        peer.send(frame(PONG, b"") + frame(TEXT, b'{"type":"observation","data":{"observation":{},"done":false}}'))
        await peer.asked()
        await peer.part()

    share, row = await played(script)
    assert row.success
    assert share.missed_pongs == 0


@pytest.mark.parametrize("ping_s", [None, 60.0])
async def test_nothing_is_pinged_before_its_time_or_where_pings_are_off(ping_s):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        try:
            async with asyncio.timeout(4 * EVERY_S):
                await peer.hear()
        except TimeoutError:
            peer.say(observation())
        await peer.asked()
        await peer.part()

    _, row = await played(script, ping_s=ping_s)
    assert row.success


async def test_a_server_that_pings_and_does_not_read_keeps_nobody_waiting():
    """It has a thread of its own, so that it sends as fast as can be."""

    def ping_for_ever(listening: socket.socket) -> None:
        with contextlib.suppress(OSError), listening.accept()[0] as peer:
            peer.sendall(accepted(peer.recv(65_536)))
            while True:
                peer.sendall(frame(PING, b"are you there?") * 4_000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=ping_for_ever, args=(listening,))
        server.start()
        with pytest.raises(SessionFailed, match=r"^reset failed: timeout"):
            async with open_session(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_s=1.5) as session:
                await session.reset()
        server.join()


async def test_an_answer_that_waits_for_room_is_sent_when_there_is_some():
    read_on = asyncio.Event()
    pongs: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await read_on.wait()
        peer.send(frame(PING, b"one"))
        head = await peer.reader.readexactly(10)
        await peer.reader.readexactly(4 + int.from_bytes(head[2:], "big"))
        pongs.append(await peer.hear())
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server, open_session(server.url) as session:
        asking = asyncio.create_task(session.reset(text="x" * 2**24))
        await asyncio.sleep(0)
        read_on.set()
        await asking
    assert pongs == [(PONG, b"one")]


async def test_a_session_driven_by_hand_pings_while_it_waits():
    pongs: list[bytes] = []
    async with scripted(answering(pongs)) as server, open_session(server.url, ping_s=EVERY_S) as session:
        await session.reset()
        await session.step({})
        assert session.latency_s >= 2 * EVERY_S
    assert len(pongs) == 3


async def test_a_session_of_a_check_pings_though_nobody_waits_for_an_answer():
    frames = asyncio.Queue[tuple[int, bytes]]()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        while True:
            frames.put_nowait(await peer.hear())

    async with scripted(script) as server, make_subject(server.url, ping_s=EVERY_S).client() as client:
        session = await client.start({})
        assert [await frames.get() for _ in range(2)] == [(PING, b"")] * 2
        # None of them was answered. A silent client sends no more, and so misses no answer.
        assert not session.connection.ping()
        session.connection.stop_reading()
        assert session.connection.ping()
