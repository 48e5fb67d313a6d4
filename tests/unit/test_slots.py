"""Slots that play session after session, sessions that think, and sessions that are not begun any more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playing import order, play, play_share
from pytest_openenv_scale.client.handshake import read_retry_after
from pytest_openenv_scale.config.think import ThinkTime, ThinkTimes, parse_think
from pytest_openenv_scale.config.workload import Workload, parse_reset
from pytest_openenv_scale.core.parsing import Arrival
from pytest_openenv_scale.load import worker_share
from pytest_openenv_scale.load.arrivals import LONGEST_PAUSE_S, Slots, plan_arrivals
from pytest_openenv_scale.load.ipc import Prepare, RowBlock
from pytest_openenv_scale.load.session import SessionRecord
from pytest_openenv_scale.load.worker_share import WorkerShare
from pytest_openenv_scale.results.cell import SessionRow
from scripted_server import Peer, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

TWO_SECONDS = parse_think("2s", Path())


def ended(number: int, at: float, *, failed_in: str | None = None, retry_after_s: float | None = None) -> SessionRecord:
    record = SessionRecord(number, 0.0, closed=at, reset_done=None if failed_in == "connect" else at - 1.0)
    record.retry_after_s = retry_after_s
    if failed_in is not None:
        record.fail(failed_in, "handshake_status", "503", "full")
    return record


def test_a_slot_plays_on_as_soon_as_its_session_ended_and_it_has_thought():
    slots = Slots([(0.0, 0), (1.0, 1)], 2, ends=60.0)
    assert slots.take() == (0.0, 0)
    assert TWO_SECONDS is not None
    assert not slots.session_ended(ended(0, 5.0), ThinkTimes(TWO_SECONDS, 0, 0))
    assert slots.take() == (1.0, 1)
    assert slots.first() == (7.0, 2)
    assert slots.session_ended(ended(1, 6.0), None)
    assert [slots.take(), slots.take()] == [(6.0, 3), (7.0, 2)]
    assert [slots.slot_of(number) for number in range(4)] == [0, 1, 0, 1]


def test_a_refused_slot_waits_longer_and_longer_until_it_gets_in():
    slots = Slots([(0.0, 0)], 1, ends=1_000.0)
    pauses: list[float] = []
    for attempt in range(7):
        _, number = slots.take()
        slots.session_ended(ended(number, 100.0, failed_in="connect"), None)
        pauses.append((slots.first() or (0.0, 0))[0] - 100.0)
        assert number == attempt
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    slots.session_ended(ended(slots.take()[1], 200.0), None)
    slots.session_ended(ended(slots.take()[1], 300.0, failed_in="connect"), None)
    assert (slots.first() or (0.0, 0))[0] == 301.0


def test_a_server_that_says_when_to_come_again_is_heard():
    slots = Slots([(0.0, 0)], 1, ends=1_000.0)
    slots.session_ended(ended(slots.take()[1], 10.0, failed_in="connect", retry_after_s=7.0), None)
    assert slots.first() == (17.0, 1)


def test_a_session_that_failed_while_it_played_is_followed_at_once():
    slots = Slots([(0.0, 0)], 1, ends=60.0)
    slots.session_ended(ended(slots.take()[1], 10.0, failed_in="step"), None)
    assert slots.first() == (10.0, 1)


def test_none_begins_once_time_is_up():
    slots = Slots([(0.0, 0)], 1, ends=9.0)
    slots.session_ended(ended(slots.take()[1], 9.0), None)
    assert slots.first() is None


def test_only_the_first_sessions_of_slots_are_known_when_none_is_to_begin_any_more():
    slots = Slots([(0.0, 0), (1.0, 1), (2.0, 2)], 3, ends=60.0)
    slots.session_ended(ended(slots.take()[1], 0.5), None)
    assert sorted(slots.stop()) == [(1.0, 1), (2.0, 2)]
    assert slots.first() is None


@given(batch=st.integers(1, 40), processes=st.integers(1, 4), ramp=st.sampled_from([0.0, 3.0]))
def test_slots_of_all_processes_begin_evenly_over_the_ramp(batch: int, processes: int, ramp: float):
    request = order("http://x", batch=batch, arrival="steady=60")
    due: list[tuple[float, int]] = []
    for process in range(processes):
        share = plan_arrivals(Arrival("steady", None, 60.0, ramp), Prepare(request, process, processes), 100.0)
        while share.first() is not None:
            due.append(share.take())
    assert sorted(number for _, number in due) == list(range(batch))
    assert all(at == pytest.approx(100.0 + ramp * number / batch) for at, number in due)


@given(batch=st.integers(1, 60), processes=st.integers(1, 3), seconds=st.floats(0.1, 100.0))
def test_sessions_at_a_rate_for_a_time_all_arrive_within_it(batch: int, processes: int, seconds: float):
    request = order("http://x", batch=batch)
    due: list[tuple[float, int]] = []
    for process in range(processes):
        share = plan_arrivals(Arrival("rate", 1.0, seconds), Prepare(request, process, processes), 0.0)
        own = share.stop()
        assert own == sorted(own)
        due += own
    assert sorted(number for _, number in due) == list(range(batch))
    assert all(0.0 <= at <= seconds for at, _ in due)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("9" * 40, 86_400.0), ("soon", None), ("-3", None), ("1.5", None), ("", None)],
)
def test_when_to_come_again_is_read_from_a_number(text: str, seconds: float | None):
    assert read_retry_after({"retry-after": text}) == seconds


def test_when_to_come_again_may_be_a_date():
    assert read_retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert read_retry_after({"retry-after": "Wed, 21 Oct 2999 07:28:00 -0000"}) == 86_400.0


async def quick(peer: Peer) -> None:
    """Play over WebSocket, each answer at once, for as many steps as are asked."""
    await peer.accept()
    while (await peer.asked())["type"] != "close":
        peer.say(observation())
    await peer.part()


@pytest.mark.parametrize("done_at", [0, 5], ids=["never done", "done at step 5"])
async def test_a_session_that_plays_on_is_reset_after_every_episode_and_ends_with_the_time(done_at: int):
    heard: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        steps = 0
        while (message := await peer.asked())["type"] != "close":
            heard.append("reset" if message["type"] == "reset" else message["data"]["move"])
            steps += message["type"] == "step"
            peer.say(observation(done=message["type"] == "step" and steps == done_at))
        await peer.part()

    moves = Workload(({"move": "a"}, {"move": "b"}, {"move": "c"}))
    async with scripted(script) as server:
        request = order(server.url, steps=1000, arrival="steady=2", workload=moves, think=ThinkTime("fixed", (0.1,)))
        share, _ = await play_share(replace(request, episode_steps=3))
    (row,) = share.rows
    assert (row.success, row.judged, row.slot) == (True, False, 0)
    assert row.closed_s is not None
    assert 2.0 <= row.closed_s < 4.0
    assert row.steps_done == len(heard) - heard.count("reset")
    begun = ["reset", "a", "b", "c"]
    expected = [*begun, "reset", "a", "b", "reset", "c"] if done_at else [*begun, *begun, "reset"]
    assert heard[: len(expected)] == expected


async def test_a_session_that_plays_on_is_followed_by_another_once_it_took_all_its_steps():
    async with scripted(quick) as server:
        request = order(server.url, steps=7, arrival="steady=2", think=ThinkTime("fixed", (0.1,)))
        share, _ = await play_share(replace(request, episode_steps=3))
    *full, last = sorted(share.rows)
    assert full
    assert {row.steps_done for row in full} == {7}
    assert last.steps_done <= 7


async def quick_http(peer: Peer) -> None:
    """Play over HTTP, each answer at once."""
    while True:
        head = await peer.head()
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await peer.reader.readexactly(length)
        peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"observation": {}}')


async def played(*, mode: str = "ws", think: str = "0", **details: Any) -> list[SessionRow]:
    """The rows of sessions with a quick server, in the order of their numbers."""
    async with scripted(quick if mode == "ws" else quick_http) as server:
        return await play(server.url, mode=mode, think=parse_think(think, Path()), **details)


def step_ends(row: SessionRow) -> list[float]:
    """When each step of a session ended, in seconds from the start of the cell."""
    ends: list[float] = []
    at = row.reset_done_s or 0.0
    for pause, latency in zip(row.step_pauses, row.step_latencies, strict=True):
        at += pause + latency
        ends.append(at)
    return ends


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_slots_play_until_time_is_up_and_what_runs_on_is_not_judged(mode: str):
    rows = await played(batch=3, steps=2, arrival="steady=6,ramp=2", mode=mode, think="1s")
    assert all(row.success for row in rows)
    by_slot = {slot: [row for row in rows if row.slot == slot] for slot in range(3)}
    assert sorted(row.request_id for row in rows) == sorted(
        slot + 3 * turn for slot, own in by_slot.items() for turn in range(len(own))
    )
    for slot, own in by_slot.items():
        assert own[0].due_s == pytest.approx(2 * slot / 3)
        for before, after in pairwise(own):
            assert after.due_s == pytest.approx((before.closed_s or 0.0) + 1.0, abs=1e-6)
    assert max(row.due_s for row in rows) < 6.0
    for row in rows:
        assert row.judged == (row.due_s >= 2.0 and (row.closed_s or 0.0) <= 6.0)
    assert {row.judged for row in rows} == {True, False}


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_think_time_is_in_rows_and_in_no_latency(mode: str):
    rows = await played(batch=2, steps=3, arrival="burst", mode=mode, think="2s")
    for row in rows:
        assert len(row.step_pauses) == len(row.step_latencies) == 3
        assert all(pause >= 2.0 for pause in row.step_pauses)
        assert (row.total_latency or 99.0) < 2.0
        assert step_ends(row)[-1] <= (row.closed_s or 0.0)
        assert row.judged
        assert row.slot is None


async def test_the_same_seed_thinks_alike_and_another_one_does_not():
    async def pauses(seed: int) -> list[list[int]]:
        rows = await played(batch=2, steps=3, seed=seed, think="uniform=1s..9s")
        return [[round(pause) for pause in row.step_pauses] for row in rows]

    first, again, other = await pauses(1), await pauses(1), await pauses(2)
    assert first == again
    assert first != other


async def test_pauses_between_steps_hold_the_resets_after_done():
    async def script(peer: Peer) -> None:
        await peer.accept()
        for number in range(5):
            await peer.asked()
            if number == 2:
                await asyncio.sleep(1.0)
            peer.say(observation(done=number == 1))
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        (row,) = await play(server.url, steps=3, think=TWO_SECONDS)
    assert row.success
    assert [round(pause) for pause in row.step_pauses] == [2, 3, 2]
    assert row.resets == pytest.approx(1.0, abs=0.2)
    assert step_ends(row)[-1] <= (row.closed_s or 0.0)


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_slots_that_found_no_room_for_their_handshake_do_not_begin_once_time_is_up(mode: str, monkeypatch):
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 2)

    async def mute(peer: Peer) -> None:
        await asyncio.sleep(100.0)

    async with scripted(mute) as server:
        rows = await play(server.url, batch=8, arrival="steady=6", timeout=4.0, mode=mode)
    assert {row.request_id for row in rows if row.error_type == "timeout"} == {0, 1, 2, 3}
    assert all(row.start_s is not None and row.start_s < 6.0 for row in rows if row.error_type == "timeout")
    assert {(row.request_id, row.slot, row.judged) for row in rows if row.error_type == "not_started"} == {
        (slot, slot, False) for slot in (4, 5, 6, 7)
    }


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_a_steady_state_ends_where_the_data_of_its_last_sessions_cannot_be_made(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = "def task(session):\n    if session > 1:\n        raise KeyError\n    return {}\n"
    (tmp_path / "ending_tasks.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    workload = Workload(({"move": 1},), reset=parse_reset("ending_tasks:task"))
    rows = await played(batch=2, arrival="steady=4", mode=mode, workload=workload)
    assert [row.success for row in rows[:2]] == [True, True]
    assert {row.error_type for row in rows[2:]} == {"client_limit"}


async def test_a_session_that_the_server_ends_while_it_thinks_fails_there():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await asyncio.sleep(1.0)
        await peer.part(1001)

    async with scripted(script) as server:
        (row,) = await play(server.url, steps=2, think=TWO_SECONDS)
    assert (row.error_phase, row.error_type, row.error_code) == ("think", "closed_early", "1001")
    assert row.step_pauses == ()


@pytest.mark.parametrize(
    ("batch", "arrival"), [(4, Arrival("steady", seconds=30.0)), (60, Arrival("rate", rate=2.0, seconds=30.0))], ids=str
)
async def test_rows_leave_while_others_play_and_none_is_lost(batch: int, arrival: Arrival, monkeypatch):
    monkeypatch.setattr(worker_share, "BLOCK_S", 5.0)
    blocks: list[list[int]] = []
    async with scripted(quick) as server:
        request = order(server.url, batch=batch, arrival=str(arrival), think=TWO_SECONDS)
        share = WorkerShare(
            Prepare(request, 0, 1),
            lambda event: (
                blocks.append([row.request_id for row in event.rows]) if isinstance(event, RowBlock) else None
            ),
        )
        share.prepare()
        share.start(time.perf_counter(), time.time())
        result = await asyncio.wait_for(share.run(), 60)
    assert len(blocks) > 1
    numbers = [*chain(*blocks), *(row.request_id for row in result.rows)]
    assert sorted(numbers) == list(range(len(numbers)))


async def test_sessions_that_are_not_begun_any_more_have_a_row_that_says_so():
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(0.5)
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server:
        request = order(server.url, batch=40, arrival="rate=10")
        share = WorkerShare(Prepare(request, 0, 1), lambda event: None)
        share.prepare()
        share.start(time.perf_counter(), time.time())
        running = asyncio.create_task(share.run())
        while share._failed_count < 3:
            await asyncio.sleep(0.05)
        share.halt(3)
        rows = sorted((await asyncio.wait_for(running, 60)).rows)
    kinds = Counter(row.error_type for row in rows)
    assert [row.request_id for row in rows] == list(range(40))
    assert kinds["not_started"] > 10
    assert kinds["not_started"] + kinds["handshake_status"] == 40
    assert all(row.judged == (row.error_type != "not_started") for row in rows)
    assert all(row.start_s is None for row in rows if row.error_type == "not_started")


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_a_share_that_is_halted_before_it_came_to_begin_begins_nothing(mode: str):
    share = WorkerShare(Prepare(order("http://127.0.0.1:9", batch=4, arrival="burst", mode=mode), 0, 1), lambda _: None)
    share.prepare()
    share.start(time.perf_counter(), time.time())
    share.halt(3)
    result = await asyncio.wait_for(share.run(), 60)
    assert [(row.error_type, row.start_s) for row in result.rows] == [("not_started", None)] * 4
