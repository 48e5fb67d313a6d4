"""One process's share of a cell: who starts when, who waits for whom, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from playing import failure, order, play, play_share
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load import worker_share
from scripted_server import CAPACITY, Peer, error, good, message, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


async def test_a_hold_steps_only_when_every_session_is_reset():
    resets = steps = 0
    early: list[int] = []

    async def script(peer: Peer) -> None:
        nonlocal resets, steps
        await peer.accept()
        await peer.asked()
        await asyncio.sleep(0.002 * (peer.number % 20))
        resets += 1
        peer.say(observation())
        await peer.asked()
        steps += 1
        early.append(resets)
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        rows = await play(server.url, batch=60, arrival="hold")
    assert [row.success for row in rows] == [True] * 60
    assert set(early) == {60}
    assert steps == 60
    assert all(row.hold_latency is not None and row.hold_latency >= 0 for row in rows)
    slowest = max(row.reset_done_s or 0 for row in rows)
    assert all((row.reset_done_s or 0) + (row.hold_latency or 0) >= slowest - 1e-6 for row in rows)
    # What a session waits for the others is no part of its own total.
    assert all((row.total_latency or 9) < (row.hold_latency or 0) + 1 for row in rows)


async def test_a_hold_may_last_longer_than_any_answer(monkeypatch):
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 1)

    async def script(peer: Peer) -> None:
        await asyncio.sleep(0.15)
        await good(peer)

    async with scripted(script) as server:
        rows = await play(server.url, batch=5, arrival="hold", timeout=0.5)
    assert [row.success for row in rows] == [True] * 5
    assert max(row.hold_latency or 0 for row in rows) > 0.5


async def test_a_hold_does_not_wait_for_sessions_that_failed():
    async def script(peer: Peer) -> None:
        if peer.number % 3 == 0:
            peer.reset()
        elif peer.number % 3 == 1:
            await peer.accept(message(CAPACITY))
            await peer.part()
        else:
            await good(peer)

    async with scripted(script) as server:
        rows = await play(server.url, batch=30, arrival="hold")
    assert (
        sorted(row.error_type or "fine" for row in rows)
        == ["capacity"] * 10 + ["connection_reset"] * 10 + ["fine"] * 10
    )


@pytest.mark.parametrize("arrival", ["burst", "hold", "rate=2000"])
async def test_silent_servers_do_not_keep_the_rest_of_the_batch_out(monkeypatch, arrival):
    """More sessions than handshakes in flight, none of them answered: each has its row, in rounds of the window."""
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 8)

    async with scripted(Peer.gone) as server:
        rows = await play(server.url, batch=20, timeout=0.15, arrival=arrival)
    assert [failure(row) for row in rows] == [("connect", "timeout", None)] * 20


async def test_no_more_handshakes_are_in_flight_than_the_window_allows(monkeypatch):
    monkeypatch.setattr(worker_share, "HANDSHAKE_WINDOW", 5)
    flying = most = 0

    async def script(peer: Peer) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        head = await peer.head()
        await asyncio.sleep(0.01)
        flying -= 1
        peer.reader.feed_data(head)
        await good(peer)

    async with scripted(script) as server:
        rows = await play(server.url, batch=40)
    assert [row.success for row in rows] == [True] * 40
    assert 2 <= most <= 5
    assert max(row.queue_latency or 0 for row in rows) > 0.05


async def test_sessions_are_spread_over_the_urls_in_turn():
    async with scripted(good) as one, scripted(good) as two:
        await play(one.url, two.url, batch=10)
        assert (len(one.peers), len(two.peers)) == (5, 5)


async def test_every_session_asked_for_has_one_row_also_over_several_processes():
    async with scripted(good) as server:
        parts = [await play_share(order(server.url, batch=11), process, 3) for process in range(3)]
    numbers = [row.request_id for rows, _ in parts for row in rows.rows]
    assert sorted(numbers) == list(range(11))
    assert [row.process for rows, _ in parts for row in rows.rows] == [0] * 4 + [1] * 4 + [2] * 3


@pytest.mark.parametrize(("mode", "needed"), [("ws", False), ("http", True)])
def test_aiohttp_is_loaded_before_the_cell_begins_and_only_where_it_is_needed(mode, needed):
    code = f"""
import asyncio, sys
from pytest_openenv_scale.load import worker
from pytest_openenv_scale.load.ipc import CellRequest, Prepare
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.workload import Workload

async def main():
    cell = Cell("t", "x", "x", {mode!r}, 0.0, 1, 1, "burst")
    request = CellRequest(cell, 1, ("http://127.0.0.1:9",), {{}}, Workload(({{}},)), 1.0)
    worker.WorkerShare(Prepare(request, 0, 1), print).prepare()
    assert ("aiohttp" in sys.modules) is {needed}

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_share_without_sessions_is_over_at_once():
    rows, _ = await play_share(order("http://127.0.0.1:9", batch=1, arrival="hold"), 1, 2)
    assert rows.rows == []


async def test_arrivals_at_a_rate_are_poisson_and_repeat_with_the_seed():
    async def dues(**details) -> list[float]:
        async with scripted(good) as server:
            return [row.due_s for row in await play(server.url, batch=200, arrival="rate=1000", **details)]

    first, repeated, other, later = [
        await dues(seed=1),
        await dues(seed=1),
        await dues(seed=2),
        await dues(seed=1, repetition=2),
    ]
    assert first == pytest.approx(repeated, abs=1e-6)
    assert first != pytest.approx(other, abs=1e-4)
    assert first != pytest.approx(later, abs=1e-4)
    gaps = [after - before for before, after in zip([0.0, *first], first, strict=False)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 1000, rel=0.3)
    assert spread == pytest.approx(mean, rel=0.4)  # as an exponential's, where a steady rate has none


async def test_sessions_of_a_rate_begin_when_they_are_due():
    async with scripted(good) as server:
        rows = await play(server.url, batch=30, arrival="rate=200")
    assert all((row.start_s or 0) >= row.due_s - 0.001 for row in rows)
    # Not all: a busy machine may stand still for some of them.
    assert sorted(row.queue_latency or 0 for row in rows)[3] < 0.05


async def test_several_processes_share_one_poisson_stream():
    async with scripted(good) as server:
        request = order(server.url, batch=20, arrival="rate=500", seed=3)
        due_times = [row.due_s for row in (await play_share(request))[0].rows]
        halves = [row for process in range(2) for row in (await play_share(request, process, 2))[0].rows]
    assert [row.due_s for row in sorted(halves)] == pytest.approx(due_times, abs=1e-6)


async def test_progress_is_told_while_sessions_are_open():
    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(2):
            await peer.asked()
            peer.say(observation())
        await peer.asked()
        await asyncio.sleep(0.8)
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        _, progress = await play_share(order(server.url, batch=5, steps=2))
    first = progress[0]
    assert (first.open, first.finished, first.failed, first.steps) == (5, 0, 0, 5)


async def test_a_function_says_something_else_in_every_session_and_step(tmp_path, monkeypatch):
    (tmp_path / "said_by_tests.py").write_text(
        "def act(session, step):\n    return {'session': session, 'step': step}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    actions: list[dict] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            peer.say(observation())
            actions.extend([message["data"]] if message["type"] == "step" else [])
        await peer.part()

    async with scripted(script) as server:
        rows = await play(server.url, batch=3, steps=2, workload=Workload(function="said_by_tests:act"))
    assert [row.success for row in rows] == [True] * 3
    assert sorted(json.dumps(action) for action in actions) == [
        json.dumps({"session": session, "step": step}) for session in range(3) for step in range(2)
    ]


@pytest.mark.parametrize("processes", [1, 2])
async def test_each_session_resets_with_its_own_seed_the_same_in_every_repetition(processes):
    seeds: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        seeds.append((await peer.asked())["data"]["seed"])
        peer.say(observation())
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        await peer.part()

    workload = Workload(({},), reset={"seed": "$seed"})
    for repetition in (1, 2):
        seeds.clear()
        async with scripted(script) as server:
            request = order(server.url, batch=5, workload=workload, seed=100, repetition=repetition)
            for process in range(processes):
                await play_share(request, process, processes)
        assert sorted(seeds) == [100, 101, 102, 103, 104]


async def test_a_header_that_the_server_repeats_is_in_no_row():
    async def script(peer: Peer) -> None:
        head = (await peer.accept()).decode()
        token = next(line for line in head.split("\r\n") if line.startswith("Authorization: ")).partition(": ")[2]
        await peer.asked()
        peer.say(observation(host_url=f"http://{token.removeprefix('Bearer ')}/", session_hash=token))
        await peer.asked()
        peer.say(error(f"NOT {token}", f"who is {token}?"))
        await peer.part()

    async with scripted(script) as server:
        (row,) = (await play_share(order(server.url, headers={"Authorization": "Bearer hunter2-hunter2"})))[0].rows
    assert (row.error_code, row.error_message) == ("NOT ***", "who is ***?")
    assert (row.host_url, row.session_hash) == ("http://***/", "***")
    assert row.pid is None
