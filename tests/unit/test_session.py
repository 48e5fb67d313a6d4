"""One session that goes well, from connect to close: what it says and what its row says."""

from __future__ import annotations

import asyncio
import time

import pytest

from independent_servers import SERVERS, running
from playing import failure, play, play_row
from pytest_openenv_scale.config.workload import Workload
from scripted_server import PING, PONG, Peer, frame, observation, scripted


async def test_a_session_that_goes_well_has_every_phase_and_their_sum():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        await asyncio.sleep(0.05)
        peer.say(observation(pid=42, session_hash="abc", host_url="10.0.0.1:8000"))
        await peer.asked()
        await asyncio.sleep(0.1)
        peer.say(observation(waited_seconds=0.1))
        await peer.asked()
        await peer.part()

    row = await play_row(script)
    assert row.success
    assert (row.error_phase, row.error_type, row.error_code, row.error_message) == (None,) * 4
    assert (row.pid, row.session_hash, row.host_url) == (42, "abc", "10.0.0.1:8000")
    assert row.connect_latency is not None
    assert row.reset_latency is not None
    assert row.queue_latency is not None
    assert row.step_latency is not None
    assert row.reset_latency > 0.04
    assert row.step_latency > 0.09
    assert list(row.step_latencies) == [row.step_latency]
    assert row.steps_done == 1
    assert row.waited_seconds == pytest.approx(0.1)
    assert (row.resets, row.hold_latency) == (None, None)
    assert row.total_latency == pytest.approx(
        row.queue_latency + row.connect_latency + row.reset_latency + row.step_latency
    )
    assert row.start_s is not None
    assert row.closed_s is not None
    assert row.connected_s is not None
    assert row.reset_done_s is not None
    assert 0 <= row.start_s < row.connected_s < row.reset_done_s < row.closed_s
    # No phase has a part of another's time in it, however long a busy machine made them.
    assert row.reset_latency <= row.reset_done_s - row.connected_s + 1e-6
    assert row.step_latency <= row.closed_s - row.reset_done_s + 1e-6
    assert abs(row.started_at - time.time()) < 10


async def test_the_server_hears_reset_steps_and_close_in_the_words_of_openenv():
    messages: list[dict] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(3):
            messages.append(await peer.asked())
            peer.say(observation())
        messages.append(await peer.asked())
        await peer.part()

    workload = Workload(({"op": "go", "for": "$wait"}, {"op": "stop"}), reset={"seed": 7})
    assert (await play_row(script, steps=2, wait=0.5, workload=workload)).success
    assert messages == [
        {"type": "reset", "data": {"seed": 7}},
        {"type": "step", "data": {"op": "go", "for": 0.5}},
        {"type": "step", "data": {"op": "stop"}},
        {"type": "close"},
    ]


async def test_headers_are_sent_with_the_handshake():
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.accept())
        await peer.serve()
        await peer.part()

    await play_row(script, headers={"Authorization": "Bearer t"})
    assert b"\r\nAuthorization: Bearer t\r\n" in heads[0]


async def test_every_step_has_its_own_latency():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        for number in range(4):
            await peer.asked()
            await asyncio.sleep(0.03 * number)
            peer.say(observation(waited_seconds=0.03 * number))
        await peer.asked()
        await peer.part()

    row = await play_row(script, steps=4)
    assert row.steps_done == 4
    assert row.step_latency == pytest.approx(sum(row.step_latencies))
    assert row.waited_seconds == pytest.approx(0.18)
    assert [latency >= 0.03 * number - 0.005 for number, latency in enumerate(row.step_latencies)] == [True] * 4


async def test_at_done_a_session_resets_and_goes_on_and_that_time_is_its_own():
    kinds: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (kind := (await peer.asked())["type"]) != "close":
            kinds.append(kind)
            if kind == "reset":
                await asyncio.sleep(0.05)
            peer.say(observation(done=kind == "step" and kinds.count("step") == 2))
        await peer.part()

    row = await play_row(script, steps=4)
    assert row.success
    assert kinds == ["reset", "step", "step", "reset", "step", "step"]
    assert row.steps_done == 4
    assert row.resets is not None
    assert row.resets > 0.045
    assert row.reset_latency is not None
    assert row.reset_latency > 0.045
    # What a step took of a reset would be counted twice.
    parts = row.reset_latency + row.resets + sum(row.step_latencies)
    assert parts <= (row.closed_s or 0) - (row.connected_s or 0) + 1e-6
    assert row.total_latency == pytest.approx(
        (row.queue_latency or 0) + (row.connect_latency or 0) + row.reset_latency + (row.step_latency or 0) + row.resets
    )


async def test_until_done_a_session_ends_at_done():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        for number in range(3):
            await peer.asked()
            peer.say(observation(done=number == 2))
        assert await peer.asked() == {"type": "close"}
        await peer.part()

    row = await play_row(script, steps=10, until_done=True)
    assert (row.success, row.steps_done, row.resets) == (True, 3, None)


async def test_done_with_the_last_step_needs_no_reset():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        peer.say(observation(done=True))
        assert await peer.asked() == {"type": "close"}
        await peer.part()

    row = await play_row(script)
    assert (row.success, row.resets) == (True, None)


async def test_a_ping_while_a_step_waits_is_answered():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        peer.send(frame(PING, b"1"))
        assert await peer.hear() == (PONG, b"1")
        peer.say(observation())
        await peer.asked()
        await peer.part()

    assert (await play_row(script)).success


@pytest.mark.parametrize("end", ["1000", "1011", "no close frame", "reset"])
async def test_once_every_step_is_answered_the_session_succeeded_however_the_server_closes(end):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.serve()
        await peer.asked()
        if end.isdecimal():
            await peer.part(int(end))
        elif end == "reset":
            peer.reset()
        else:
            peer.writer.close()

    row = await play_row(script)
    assert row.success
    assert row.total_latency is not None


async def test_a_reply_of_twenty_megabytes_is_a_step_like_any_other():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation(frame="x" * 20_000_000))
        await peer.asked()
        peer.say(observation(frame="y" * 20_000_000))
        await peer.asked()
        await peer.part()

    row = await play_row(script)
    assert (row.success, row.steps_done) == (True, 1)


async def test_what_an_environment_does_not_tell_is_null_and_what_it_invents_does_not_hurt():
    strange = [
        {"pid": "7", "session_hash": 1, "host_url": None, "waited_seconds": "long"},
        {"pid": 10**30, "session_hash": "\ud800", "host_url": "\udfff", "waited_seconds": 10**400},
        {"pid": -1, "waited_seconds": float("nan")},
        {"waited_seconds": float("inf")},
        {"waited_seconds": -1},
    ]

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation(**strange[peer.number]))
        await peer.asked()
        peer.say(observation(**strange[peer.number]))
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        rows = await play(server.url, batch=len(strange))
    assert [row.success for row in rows] == [True] * len(strange)
    assert {(row.pid, row.waited_seconds) for row in rows} == {(None, None)}
    for row in rows:
        for text in (row.session_hash, row.host_url):
            (text or "").encode()  # what has no UTF-8 fits into no file


@pytest.mark.parametrize("name", SERVERS)
async def test_independent_servers_play_episodes_with_large_replies(name):
    async with running(name) as url:
        workload = Workload(({"wait_seconds": "$wait", "size": 100_000},))
        rows = await play(url, batch=8, wait=0.08, steps=2, arrival="hold", workload=workload)
    assert [row.success for row in rows] == [True] * 8
    assert [row.steps_done for row in rows] == [2] * 8
    assert all(latency >= 0.075 for row in rows for latency in row.step_latencies)


async def test_an_answer_that_comes_before_its_question_is_none(golden):
    """Taken for one it would make the step a matter of no time at all."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation(), observation())  # The second one in the same read, before the step is sent.
        await peer.asked()
        await peer.part()

    row = await play_row(script)
    assert failure(row) == ("step", "protocol", None)
    golden(row.error_message)
    assert row.step_latencies == []
