"""What a steady state finds that no burst does, and what slots do about a server that refuses them."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from cells import summary_of

from idle_proxy import idle_proxy
from playing import order, play_share
from pytest_openenv_scale.client.connection import Connection
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.load.session import WebSocketSession
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import SessionRow
from scripted_server import CAPACITY, Peer, good, message, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

SHORT = ThinkTime("uniform", (0.2, 0.5))


async def play_steady(url: str, *, ping_s: float | None = None, **details) -> tuple[list[SessionRow], CellSummary]:
    """The rows of a cell in the order of their numbers, and the figures made of them."""
    request = replace(order(url, **details), ping_s=ping_s)
    share, _ = await play_share(request)
    rows = sorted(share.rows)
    return rows, summary_of(rows, request.cell, wall_s=share.wall_s)


@dataclass
class Places:
    """A server for `limit` sessions; of those that end, every `keeps`-th does not give its place back."""

    limit: int
    keeps: int = 0
    taken: int = 0
    ended: int = 0
    peers: set[Peer] = field(default_factory=set)

    async def play(self, peer: Peer) -> None:
        if self.taken >= self.limit:
            await peer.accept(message(CAPACITY))
            await peer.part()
            return
        await peer.accept()
        self.taken += 1
        self.peers.add(peer)
        try:
            while (await peer.asked_or_pinged())["type"] != "close":
                peer.say(observation())
        finally:
            self.peers.discard(peer)
            self.ended += 1
            self.taken -= not self.keeps or self.ended % self.keeps != 0
        await peer.part()


def errors(summary: CellSummary) -> set[tuple[str, str, str | None]]:
    return {(error.phase, error.type, error.code) for error in summary.errors}


# What no burst shows


async def test_a_server_that_keeps_every_tenth_place_is_sound_in_a_burst_and_not_in_a_steady_state():
    burst, steady, sound = Places(16, keeps=10), Places(16, keeps=10), Places(16)
    async with scripted(burst.play) as server:
        _, in_a_burst = await play_steady(server.url, batch=16, steps=2)
    state = {"batch": 16, "steps": 2, "arrival": "steady=10,ramp=1", "think": SHORT}
    async with scripted(steady.play) as server:
        _, in_steady_state = await play_steady(server.url, **state)
    async with scripted(sound.play) as server:
        _, of_a_sound_server = await play_steady(server.url, **state)
    assert (in_a_burst.success_rate, burst.taken) == (1.0, 1)
    assert of_a_sound_server.success_rate == 1.0
    assert in_steady_state.success_rate is not None
    assert in_steady_state.success_rate < 0.95
    assert errors(in_steady_state) == {("reset", "capacity", "CAPACITY_REACHED")}


@pytest.mark.parametrize("ping_s", [None, 0.3])
async def test_an_idle_limit_below_the_think_time_cuts_sessions_that_do_not_ping(ping_s):
    server_state = Places(100)
    async with scripted(server_state.play) as server, idle_proxy(server.url, 2.0) as proxy:
        state = {"batch": 4, "steps": 2, "arrival": "steady=18", "think": ThinkTime("fixed", (5.0,))}
        rows, summary = await play_steady(proxy.url, ping_s=ping_s, **state)
    assert len(rows) > 4
    if ping_s is None:
        assert (summary.successful, proxy.dropped) == (0, len(rows))
        assert errors(summary) == {("think", "closed_early", "1006")}
    else:
        assert (summary.success_rate, proxy.dropped) == (1.0, 0)


async def test_sessions_that_ended_leave_nothing_while_no_garbage_is_collected():
    gc.collect()
    gc.disable()
    try:
        async with scripted(Places(4).play) as server:
            rows, _ = await play_steady(server.url, batch=4, arrival="steady=5", think=SHORT)
        left = [thing for thing in gc.get_objects() if type(thing) in (WebSocketSession, Connection)]
    finally:
        gc.enable()
    assert len(rows) > 4
    assert left == []


# Slots that are refused


def pauses_after_failures(rows: list[SessionRow]) -> list[float]:
    """How long the only slot waited after each session that failed, in seconds."""
    return [after.due_s - (before.closed_s or 0.0) for before, after in pairwise(rows) if not before.success]


def refusing(*lines: str):
    """A server that refuses the upgrade."""

    async def script(peer: Peer) -> None:
        await peer.head()
        head = "\r\n".join(("HTTP/1.1 503 Service Unavailable", *lines, "Content-Length: 0"))
        peer.send(f"{head}\r\n\r\n".encode())
        await peer.gone()

    return script


async def full(peer: Peer) -> None:
    await peer.accept(message(CAPACITY))
    await peer.part()


@pytest.mark.parametrize("script", [full, refusing()], ids=["full", "503"])
async def test_a_refused_slot_waits_a_second_that_doubles(script):
    async with scripted(script) as server:
        rows, summary = await play_steady(server.url, arrival="steady=14")
        connections = len(server.peers)
    assert pauses_after_failures(rows) == pytest.approx([1.0, 2.0, 4.0], abs=1e-6)
    assert connections == len(rows) == summary.failed == 4


async def test_a_refused_slot_waits_for_as_long_as_the_server_says():
    async with scripted(refusing("Retry-After: 3")) as server:
        rows, _ = await play_steady(server.url, arrival="steady=11")
    assert pauses_after_failures(rows) == pytest.approx([3.0] * 3, abs=1e-6)


async def test_a_session_that_was_played_ends_the_doubling():
    async def script(peer: Peer) -> None:
        await (good if peer.number == 2 else full)(peer)

    async with scripted(script) as server:
        rows, _ = await play_steady(server.url, arrival="steady=6.5", think=ThinkTime("fixed", (0.5,)))
    assert [row.success for row in rows] == [False, False, True, False, False]
    assert pauses_after_failures(rows) == pytest.approx([1.0, 2.0, 1.0], abs=1e-6)


async def test_a_session_that_failed_after_its_reset_was_not_refused():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        peer.reset()

    async with scripted(script) as server:
        rows, _ = await play_steady(server.url, arrival="steady=10", think=ThinkTime("fixed", (3.0,)))
    assert pauses_after_failures(rows) == pytest.approx([3.0] * (len(rows) - 1), abs=1e-6)
    assert len(rows) > 2


# What is judged


async def test_what_began_in_the_ramp_is_not_judged_and_what_ended_when_time_was_up_has_no_latency():
    """A server that is full while slots begin, and resets every session from the moment time is up."""
    began: list[float] = []

    async def script(peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        began.append(loop.time())
        if loop.time() - began[0] < 2.5:
            await full(peer)
            return
        await peer.accept()
        while (await peer.asked())["type"] != "close":
            if loop.time() - began[0] > 21.0:
                peer.reset()
                return
            peer.say(observation())
        await peer.part()

    async with scripted(script) as server:
        rows, summary = await play_steady(
            server.url, batch=6, steps=4, arrival="steady=20,ramp=4", think=ThinkTime("uniform", (1.0, 2.0))
        )
    for row in rows:
        assert row.due_s < 20.0
        assert row.closed_s is not None
        assert row.judged == (row.due_s >= 4.0 and row.closed_s <= 20.0)
    in_ramp = [row for row in rows if row.due_s < 4.0]
    after_the_end = [row for row in rows if (row.closed_s or 0.0) > 20.0]
    assert {row.error_type for row in in_ramp} >= {"capacity"}
    assert {row.error_type for row in after_the_end} == {"connection_reset"}
    failed = sum(row.due_s >= 4.0 for row in after_the_end)
    assert summary.failed == failed > 0
    assert summary.asked == summary.successful + failed == sum(row.due_s >= 4.0 for row in rows)
    assert summary.unjudged == sum(row.due_s < 4.0 for row in rows)
    total = summary.phase("total")
    assert total is not None
    assert total.count == summary.successful


async def test_sessions_that_fail_at_once_have_no_larger_a_share_than_those_that_play_for_long():
    """Every fourth session is refused, and the others take most of the time: at its end most of them play on."""

    async def script(peer: Peer) -> None:
        if peer.number % 4 == 3:
            await full(peer)
            return
        await peer.accept()
        while (await peer.asked())["type"] != "close":
            peer.say(observation())
        await peer.part()

    async with scripted(script) as server:
        rows, summary = await play_steady(
            server.url, batch=12, steps=4, arrival="steady=30", think=ThinkTime("uniform", (4.0, 6.0))
        )
    refused = sum(row.error_type == "capacity" for row in rows)
    assert summary.asked == len(rows)
    assert summary.success_rate == 1 - refused / len(rows)
    assert abs(refused / len(rows) - 1 / 4) < 1 / len(rows)
    assert sum(row.success and not row.judged for row in rows) > 6


async def test_the_least_number_of_open_sessions_is_that_of_the_judged_time():
    """Sessions last to the end, but for three of eight that the server drops, and refuses for some seconds."""
    began: list[float] = []
    places = Places(8)

    async def script(peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        if not began:
            began.append(loop.time())
            loop.call_later(10.0, drop)
        await (full if 9.9 < loop.time() - began[0] < 13.0 else places.play)(peer)

    def drop() -> None:
        for peer in list(places.peers)[:3]:
            peer.reset()

    async with scripted(script) as server:
        _, summary = await play_steady(
            server.url, batch=8, steps=10, arrival="steady=20,ramp=2", think=ThinkTime("fixed", (4.0,))
        )
    assert summary.open_least == 5
