"""The wall clock stamps arrivals, and somebody sets it: no latency comes out negative, and the cell says so."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playing import order, play_share
from pytest_openenv_scale.client import connection
from pytest_openenv_scale.client.connection import Clock, Connection
from pytest_openenv_scale.client.handshake import prepare_route
from pytest_openenv_scale.load.session import SessionRecord, SessionScript, WebSocketSession
from scripted_server import Peer, observation, scripted

ELSEWHERE = [-3600.0, -0.5, -0.03, 0.03, 0.5, 3600.0]


class Wall:
    """A wall clock that can be set; `time.time` of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._true, self.offset, self.stamps_too = time.time, 0.0, False
        monkeypatch.setattr(time, "time", lambda: self._true() + self.offset)
        unpack = connection._unpack_timestamp
        monkeypatch.setattr(connection, "_unpack_timestamp", lambda data: self._moved(*unpack(data)))

    def _moved(self, seconds: int, nanoseconds: int) -> tuple[float, float]:
        """A stamp as the kernel makes it, whose clock is the one that is set, or stays as it was."""
        return seconds + self.offset * self.stamps_too, nanoseconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


async def play_while_the_clock_is_set(wall: Wall, by: float):
    """Three steps of 60 ms; before the second is answered the clock of the process is set, the kernel's too or not."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        for step in range(3):
            await peer.asked()
            await asyncio.sleep(0.06)
            if step == 1:  # So close before the answer that nobody has looked at the clock in between.
                wall.offset = by
            peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        share, _ = await play_share(order(server.url, steps=3))
    return share


@pytest.mark.parametrize("stamps_too", [True, False], ids=["machine", "process"])
@pytest.mark.parametrize("by", ELSEWHERE)
async def test_a_clock_that_is_set_during_a_cell_is_told_and_spoils_no_latency(wall, by, stamps_too):
    wall.stamps_too = stamps_too
    share = await play_while_the_clock_is_set(wall, by)
    (row,) = share.rows
    assert row.success
    assert share.clock_moved_s == pytest.approx(abs(by), abs=0.01)
    # From below what the server waited, from above the whole session.
    assert all(0.05 <= latency <= share.wall_s for latency in row.step_latencies)
    assert row.total_latency <= share.wall_s
    assert 0.0 <= row.connected_s <= row.reset_done_s <= row.closed_s <= share.wall_s


async def test_a_clock_nobody_sets_is_silent(wall):
    share = await play_while_the_clock_is_set(wall, 0.0)
    assert (share.clock_moved_s, share.impossible_arrivals) == (0.0, 0)


async def test_answers_that_no_stamp_tells_the_time_of_are_counted_and_show_no_lag(wall):
    share = await play_while_the_clock_is_set(wall, -3600.0)
    assert share.impossible_arrivals > 0
    assert share.read_lag_p99_s < share.wall_s


def test_what_two_readings_differ_by_is_no_move(wall):
    clock = Clock()
    for _ in range(100):
        clock.refresh()
    assert clock.moved_s == 0.0
    wall.offset = -2.0
    clock.refresh()
    wall.offset = 1.0
    clock.refresh()
    assert clock.moved_s == pytest.approx(5.0, abs=0.01)


ROUTE = prepare_route("http://127.0.0.1:9", {})


class Wire(Connection):
    """The connection of a session whose answers arrive when a test says so."""

    def __init__(self, sent_at: float) -> None:
        super().__init__(None, Clock(), ROUTE, None)
        self.sent_at = sent_at

    def send_after_round(self, message: object) -> None:
        self.sent_at = time.perf_counter()


class Batch:
    holding = False
    ends = math.inf

    def connected(self) -> None: ...

    def ready(self, session: object) -> None: ...

    def finished(self, session: object) -> None: ...


@given(st.lists(st.floats(-1e6, 0.0), min_size=4, max_size=4))
def test_no_stored_latency_is_negative_or_more_than_its_send_and_reading_enclose(stamps):
    """Each stamp is how long before the moment of its reading an answer is said to have arrived."""
    started = time.perf_counter()
    record = SessionRecord(0, started, start=started)
    session = WebSocketSession(record, SessionScript(None, [None], 2, False, 10.0, 10.0), Batch())
    session._connection = Wire(started)
    session.opened(time.perf_counter() + stamps[0])
    for stamp in stamps[1:]:
        session.received(b'{"type":"observation","data":{"observation":{}}}', time.perf_counter() + stamp)
    ended = time.perf_counter()
    latencies = [record.connect_latency, record.reset_latency, *record.steps]
    assert len(latencies) == 4
    assert all(0.0 <= latency <= ended - started for latency in latencies)
    assert started <= record.connected <= record.reset_done <= ended
