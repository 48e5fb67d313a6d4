"""One session that fails: phase, kind, the server's own code and message, and on time."""

from __future__ import annotations

import asyncio
import time

import pytest

from independent_servers import running, server_tls
from playing import failure, play, play_one, play_row
from scripted_server import (
    CAPACITY,
    CLOSE,
    PING,
    Peer,
    error,
    frame,
    good,
    message,
    observation,
    refused_port,
    scripted,
)

pytestmark = pytest.mark.usefixtures("quick_waits")

TIMEOUT = 0.3
SLACK = 1.0
"""How late a deadline may be noticed on a busy machine, in seconds."""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr("pytest_openenv_scale.load.session.GRACE_S", 0.5)


# Errors the server names

OPEN_ERRORS = ["EXECUTION_ERROR", "VALIDATION_ERROR", "UNKNOWN_TYPE", "INVALID_JSON"]
LAST_ERRORS = ["FACTORY_ERROR", "SESSION_ERROR"]


@pytest.mark.parametrize("phase", ["reset", "step", "second reset"])
@pytest.mark.parametrize("code", [*OPEN_ERRORS, *LAST_ERRORS])
async def test_an_error_keeps_the_servers_code_and_message_whether_it_closes_or_not(code, phase):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        if phase != "reset":
            peer.say(observation())
            await peer.asked()
        if phase == "second reset":
            peer.say(observation(done=True))
            await peer.asked()
        peer.say(error(code, "division by zero"))
        if code in LAST_ERRORS:
            await peer.part()
        else:
            assert await peer.hear() == (CLOSE, b"\x03\xe8")
            peer.send(frame(CLOSE, b"\x03\xe8"))
            peer.writer.close()

    row = await play_row(script, steps=2)
    assert failure(row) == (phase.rpartition(" ")[2], "environment", code)
    assert row.error_message == "division by zero"


async def test_a_message_that_no_file_can_hold_is_kept_as_far_as_it_can():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say('{"type":"error","data":{"code":"EXECUTION_ERROR","message":"half \\ud800 a pair"}}')
        await peer.gone()

    row = await play_row(script)
    assert (row.error_message or "").encode() == b"half ? a pair"


async def test_the_first_reason_stays():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(error("EXECUTION_ERROR", "first"), error("SESSION_ERROR", "second"))
        await asyncio.sleep(0.02)
        peer.reset()

    row = await play_row(script)
    assert (row.error_code, row.error_message) == ("EXECUTION_ERROR", "first")


@pytest.mark.parametrize("arrival", ["burst", "hold"])
@pytest.mark.parametrize("end", ["fin", "reset", "reset at once"])
async def test_an_eager_client_always_learns_that_the_server_is_full(end, arrival):
    """The server accepts, says why not, and is gone, while the client has already sent its reset."""

    async def script(peer: Peer) -> None:
        await peer.accept(message(CAPACITY), frame(CLOSE, b"\x03\xe8"))
        if end == "fin":
            peer.writer.close()
            return
        if end == "reset":
            await peer.hear()
        # The data must have left this socket; the reset then overtakes the client's reading of it.
        peer.reset()

    async with scripted(script) as server:
        rows = await play(server.url, batch=100, arrival=arrival)
    assert {failure(row) for row in rows} == {("reset", "capacity", "CAPACITY_REACHED")}
    assert {row.error_message for row in rows} == {CAPACITY["data"]["message"]}
    assert all(row.connect_latency is not None and row.reset_latency is None for row in rows)


# Replies that are none


@pytest.mark.parametrize(
    "reply",
    [
        "hello",
        "[1]",
        '{"type":"observation"}',
        '{"type":"state","data":{}}',
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("phase", ["reset", "step"])
async def test_a_reply_that_is_no_observation_is_a_protocol_failure(golden, phase, reply):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        if phase == "step":
            peer.say(observation())
            await peer.asked()
        peer.say(reply)
        assert (await peer.hear())[0] == CLOSE
        peer.send(frame(CLOSE, b"\x03\xe8"))
        peer.writer.close()

    row = await play_row(script)
    assert failure(row) == (phase, "protocol", None)
    golden(row.error_message or "")


async def test_two_replies_to_one_request_are_a_protocol_failure_in_hold():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation(), observation())
        await peer.gone()

    async with scripted(script) as server:
        row = await play_one(server.url, arrival="hold")
    assert failure(row) == ("hold", "protocol", None)


async def test_an_error_while_a_session_holds_fails_it_and_it_takes_no_step():
    heard_frames: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        if peer.number == 0:
            peer.say(error("SESSION_ERROR", "idle for too long"))
            heard_frames.append(await peer.hear())
            await asyncio.sleep(0.3)  # leaves the client to wait for the closing handshake, past the release
            heard_frames.extend([(CLOSE, rest)] if (rest := await peer.reader.read(1)) else [])
            peer.writer.close()
        else:
            await asyncio.sleep(0.1)
            await peer.asked()
            peer.say(observation())
            await peer.asked()
            await peer.part()

    async with scripted(script) as server:
        bad, *unharmed = sorted(await play(server.url, batch=3, arrival="hold"), key=lambda row: row.success)
    assert failure(bad) == ("hold", "environment", "SESSION_ERROR")
    assert bad.step_latencies == []
    assert [row.success for row in unharmed] == [True, True]
    assert heard_frames == [(CLOSE, b"\x03\xe8")]


# Ends in the middle


def stops_at(phase: str, end):
    """A script that plays up to a phase and then ends as told."""

    async def script(peer: Peer) -> None:
        if phase == "connect":
            await peer.head()
        else:
            await peer.accept()
            await peer.asked()
            if phase != "reset":
                peer.say(observation())
                if phase == "step":
                    await peer.asked()
                else:
                    await asyncio.sleep(0.02)
        await end(peer)

    return script


async def by_1000(peer: Peer) -> None:
    await peer.part(1000)


async def by_1011(peer: Peer) -> None:
    await peer.part(1011)


async def without_a_word(peer: Peer) -> None:
    peer.writer.close()


async def by_reset(peer: Peer) -> None:
    peer.reset()


async def by_half_closing(peer: Peer) -> None:
    peer.writer.write_eof()
    await peer.gone()


@pytest.mark.parametrize("phase", ["reset", "hold", "step"])
@pytest.mark.parametrize(
    ("end", "kind", "code"),
    [
        (by_1000, "closed_early", "1000"),
        (by_1011, "closed_early", "1011"),
        (without_a_word, "closed_early", "1006"),
        (by_half_closing, "closed_early", "1006"),
        (by_reset, "connection_reset", "ECONNRESET"),
    ],
)
async def test_a_server_that_goes_away_is_named_with_phase_and_manner(phase, end, kind, code):
    async def other(peer: Peer) -> None:
        await (good if peer.number else stops_at(phase, end))(peer)

    async with scripted(other) as server:
        if phase == "hold":  # a second session, slow to come up, keeps the first one holding
            async with scripted(slow_to_reset) as slow:
                rows = await play(server.url, slow.url, batch=2, arrival="hold")
            row = rows[0]
            assert rows[1].success
        else:
            row = await play_one(server.url)
    assert failure(row) == (phase, kind, code)
    assert row.error_message
    reached = {"reset": 1, "hold": 2, "step": 2}[phase]
    assert [latency is not None for latency in (row.connect_latency, row.reset_latency)] == [True, reached == 2]
    assert (row.step_latency, row.total_latency) == (None, None)


async def slow_to_reset(peer: Peer) -> None:
    await peer.accept()
    await peer.asked()
    await asyncio.sleep(0.15)
    peer.say(observation())
    await peer.asked()
    peer.say(observation())
    await peer.asked()
    await peer.part()


@pytest.mark.parametrize(("end", "kind"), [(without_a_word, "closed_early"), (by_reset, "connection_reset")])
async def test_a_server_that_goes_away_before_it_accepts_fails_the_connect(end, kind):
    row = await play_row(stops_at("connect", end))
    assert (row.error_phase, row.error_type) == ("connect", kind)
    assert (row.connected_s, row.connect_latency, row.reset_latency) == (None, None, None)
    assert row.queue_latency is not None


async def test_finished_steps_keep_their_time_when_a_later_one_fails():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.serve(steps=2)
        await peer.asked()
        await peer.part()

    row = await play_row(script, steps=5)
    assert failure(row) == ("step", "closed_early", "1000")
    assert row.steps_done == len(row.step_latencies) == 2
    assert row.reset_latency is not None
    assert (row.step_latency, row.total_latency) == (None, None)


async def test_a_refused_port_has_no_connect_latency():
    with refused_port() as port:
        row = await play_one(f"http://127.0.0.1:{port}")
    assert failure(row) == ("connect", "refused", "ECONNREFUSED")
    assert row.connect_latency is None


async def test_a_refused_handshake_is_its_status(golden):
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nno room")
        await peer.gone()

    row = await play_row(script)
    assert failure(row) == ("connect", "handshake_status", "503")
    golden(row.error_message)


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_tls_on_one_side_only_is_a_protocol_failure_of_the_connect(scheme):
    async with running("uvicorn-sansio", tls=scheme == "http") as url:
        row = await play_one(f"{scheme}://{url.partition('://')[2]}", timeout=2)
    assert row.error_phase == "connect"
    assert row.error_type in ("protocol", "closed_early"), row


async def test_a_certificate_nobody_vouches_for_is_a_protocol_failure_named_tls():
    async with scripted(Peer.gone, tls=server_tls()) as server:
        row = await play_one(server.url)
    assert failure(row) == ("connect", "protocol", "tls")


# Deadlines


async def silent(peer: Peer) -> None:
    await peer.gone()


@pytest.mark.parametrize("phase", ["connect", "reset", "step"])
async def test_a_silent_server_is_given_up_on_time(phase):
    began = time.perf_counter()
    row = await play_row(stops_at(phase, silent), timeout=TIMEOUT)
    assert failure(row) == (phase, "timeout", None)
    assert row.error_message == "no answer within 0.3 s"
    assert TIMEOUT <= time.perf_counter() - began < TIMEOUT + SLACK


async def test_a_step_gets_the_timeout_on_top_of_its_wait():
    began = time.perf_counter()
    row = await play_row(stops_at("step", silent), timeout=0.2, wait=0.3)
    assert failure(row) == ("step", "timeout", None)
    assert row.error_message == "no answer within 0.5 s"
    assert 0.5 <= time.perf_counter() - began < 0.5 + SLACK


async def test_each_step_has_the_whole_timeout():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        for _ in range(4):
            await asyncio.sleep(0.4)
            peer.say(observation())
            await peer.asked()
        await peer.part()

    assert (await play_row(script, steps=3, timeout=1.0)).success


async def test_a_server_that_never_closes_fails_the_close():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.serve()
        await peer.gone()

    row = await play_row(script, timeout=TIMEOUT)
    assert failure(row) == ("close", "timeout", None)
    assert row.step_latency is not None
    assert row.total_latency is None


async def test_a_server_that_never_closes_after_an_error_is_left_after_a_grace():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(error("EXECUTION_ERROR", "no"))
        await peer.gone()

    began = time.perf_counter()
    row = await play_row(script, timeout=30)
    assert failure(row) == ("reset", "environment", "EXECUTION_ERROR")
    assert time.perf_counter() - began < 0.5 + SLACK


async def test_a_server_that_drips_bytes_does_not_put_off_the_deadline():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.send(message("x" * 10_000)[:10])
        for _ in range(100):
            peer.send(b"x")
            await asyncio.sleep(0.02)

    began = time.perf_counter()
    row = await play_row(script, timeout=TIMEOUT)
    assert failure(row) == ("reset", "timeout", None)
    assert time.perf_counter() - began < TIMEOUT + SLACK


async def test_pings_do_not_put_off_the_deadline():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        for _ in range(100):
            peer.send(frame(PING, b""))
            await asyncio.sleep(0.02)

    began = time.perf_counter()
    assert failure(await play_row(script, timeout=TIMEOUT)) == ("reset", "timeout", None)
    assert time.perf_counter() - began < TIMEOUT + SLACK
