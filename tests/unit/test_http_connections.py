"""How sessions connect over HTTP, which connects count as what, and how late the client is."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest
from test_http import OBSERVATION, answer, good, posted

from playing import failure, order, play, play_share
from pytest_openenv_scale.client.http import Timing, seconds_since_last_data
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load import worker_share
from pytest_openenv_scale.load.client_health import AnswerLags
from pytest_openenv_scale.load.http_share import HttpSession
from pytest_openenv_scale.load.session import SessionRecord
from scripted_server import Peer, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells only on Linux")


async def play_over(connections: str, script, **details):
    """The rows of a cell with this kind of connections, and how many were made."""
    async with scripted(script) as server:
        request = order(server.url, mode="http", http_connections=connections, **details)
        rows, _ = await play_share(request)
        return rows, len(server.peers)


async def heads_over(connections: str, **details) -> list[str]:
    """The heads of all requests of a cell."""
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        while True:
            head = (await peer.head()).decode().lower()
            length = head.partition("content-length:")[2].split("\r\n")[0]
            await peer.reader.readexactly(int(length))
            heads.append(head)
            answer(peer, OBSERVATION)

    await play_over(connections, script, **details)
    return heads


async def test_a_session_keeps_one_connection_of_its_own():
    rows, connections = await play_over("session", good, batch=3, steps=2)
    assert [row.success for row in rows.rows] == [True] * 3
    assert connections == 3


async def test_every_request_has_a_fresh_connection_and_says_that_it_is_the_last():
    rows, connections = await play_over("request", good, batch=3, steps=2)
    assert [(row.success, row.steps_done) for row in rows.rows] == [(True, 2)] * 3
    assert all(row.connect_latency is not None for row in rows.rows)
    assert connections == 3 * 3
    assert ["connection: close" in head for head in await heads_over("request", steps=1)] == [True, True]


async def test_a_kept_connection_is_not_announced_as_the_last():
    assert ["connection: close" in head for head in await heads_over("session", steps=1)] == [False, False]


async def test_a_session_that_takes_an_idle_connection_has_no_connect_time(monkeypatch):
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 1)
    rows, _ = await play_over("shared", good, batch=2, arrival="hold")
    first, second = sorted(rows.rows)
    assert (first.success, second.success) == (True, True)
    assert first.connect_latency is not None
    assert (second.connect_latency, second.connected_s) == (None, None)
    assert second.total_latency == pytest.approx(
        (second.queue_latency or 0) + (second.reset_latency or 0) + (second.step_latency or 0)
    )


async def test_a_shared_connection_that_fails_fails_the_reset_and_not_the_connect(monkeypatch):
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 1)

    async def script(peer: Peer) -> None:
        await posted(peer)
        answer(peer, OBSERVATION)
        await posted(peer)
        peer.reset() if peer.number == 0 else answer(peer, OBSERVATION)

    rows, _ = await play_over("shared", script, batch=2, arrival="hold")
    first, second = sorted(rows.rows)
    assert first.success
    assert failure(second)[:2] == ("reset", "connection_reset")


class GivenTimes:
    """A channel whose requests took the times a test gives."""

    def __init__(self, *times: Timing) -> None:
        self._times = iter(times)
        self.last_timing = Timing()

    async def post(self, path: str, body: bytes, timeout_s: float) -> dict:
        self.last_timing = next(self._times)
        return OBSERVATION

    async def close(self) -> None:
        """There is no connection."""


async def test_a_connection_made_for_a_step_is_part_of_it_and_the_first_one_is_apart():
    record, lags = SessionRecord(0, 0.0), AnswerLags()
    reset = Timing(10.0, 10.5, False, 11.0, 12.0, connect_lag_s=0.1, answer_lag_s=0.2)
    step = Timing(20.0, 20.25, False, 20.5, 22.0, connect_lag_s=0.01, answer_lag_s=0.02)
    kept_open = Timing(None, None, True, 30.0, 31.0, answer_lag_s=0.04)
    session = HttpSession(record, GivenTimes(reset, step, kept_open), lags)
    await session.reset(b"{}", 1)
    await session.step(b"{}", 1)
    await session.step(b"{}", 1)
    assert (record.connect_latency, record.reset_latency) == (0.5, 1.0)
    assert record.steps == [1.75, 1.0]
    assert (lags.connect, lags.reset, lags.step) == ([0.1], [0.2], [0.03, 0.04])
    await session.close()
    assert lags.figures()["session_lag_max_s"] == pytest.approx(0.1 + 0.2 + 0.01 + 0.02 + 0.04)


@on_linux
async def test_the_kernel_tells_how_long_data_have_lain_unseen():
    async with scripted(good) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /reset HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        time.sleep(0.1)
        lag = seconds_since_last_data(writer.transport)
        writer.close()
    assert lag is not None
    assert lag >= 0.09


def test_a_transport_without_a_socket_tells_nothing():
    assert seconds_since_last_data(asyncio.Transport()) is None


@on_linux
@pytest.mark.parametrize("connections", ["session", "request", "shared"])
async def test_every_cell_knows_how_late_its_answers_were_seen(connections):
    rows, _ = await play_over(connections, good, batch=25, steps=2)
    assert rows.answer_lag_p50_s is not None
    assert rows.answer_lag_p99_s is not None
    assert 0 <= rows.answer_lag_p50_s <= rows.answer_lag_p99_s


async def test_websockets_have_no_such_lag():
    async with scripted(Peer.gone) as server:
        rows, _ = await play_share(order(server.url, timeout=0.05))
    assert (rows.answer_lag_p50_s, rows.answer_lag_p99_s) == (None, None)


async def test_sessions_reset_with_seeds_of_their_own():
    bodies: list[dict] = []

    async def script(peer: Peer) -> None:
        while True:
            path, body = await posted(peer)
            bodies.extend([body] if path == "/reset" else [])
            answer(peer, OBSERVATION)

    workload = Workload(({"op": 1},), reset={"seed": "$seed"})
    async with scripted(script) as server:
        await play(server.url, mode="http", batch=3, workload=workload, seed=40)
    assert sorted(body["seed"] for body in bodies) == [40, 41, 42]
