"""Load in processes of its own: one start, one release, one row per session; what cannot be run is said in one line."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from independent_servers import AUTHORITY, server_tls
from load_processes import actions, environment, generators, kinds, run_beside, workers
from playing import order
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load.runner import LoadError, LoadGenerator, LoadProgress
from scripted_server import Peer, good, observation, scripted

__all__ = ["actions", "environment", "generators"]  # fixtures

# A cell


@pytest.mark.parametrize(
    ("processes", "mode", "arrival"),
    [(1, "ws", "burst"), *((2, mode, arrival) for mode in ("ws", "http") for arrival in ("burst", "hold", "rate=500"))],
)
def test_every_session_asked_for_has_one_row_whoever_ran_it(environment, generators, mode, arrival, processes):
    request = order(environment, batch=31, wait=0.05, steps=2, arrival=arrival, mode=mode)
    result = generators(processes).run_cell(request)
    assert [row.request_id for row in result.rows] == list(range(31))
    assert [row.success for row in result.rows] == [True] * 31
    assert [row.process for row in result.rows] == [number % processes for number in range(31)]
    assert all(row.waited_seconds is not None and row.waited_seconds >= 0.1 for row in result.rows)
    assert result.wall_s >= 0.1
    assert "process_died" not in kinds(result)
    assert result.client.processes == len(result.client.cpu_s) == processes


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_once_a_cell_has_failed_for_certain_no_other_session_begins(generators, mode):
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server:
        request = replace(order(server.url, batch=400, arrival="rate=100", mode=mode), most_failures=20)
        result = await run_beside(generators(2), request)
    begun = [row for row in result.rows if row.error_type != "not_started"]
    assert [row.request_id for row in result.rows] == list(range(400))
    assert 20 < len(begun) < 400
    assert {row.error_type for row in begun} == {"handshake_status"}
    assert {row.judged for row in begun} == {True}
    assert result.wall_s < 4.0


async def test_rows_of_slots_that_play_on_are_given_away_as_they_come(environment, generators):
    given: list[int] = []
    request = order(environment, batch=64, arrival="steady=4", wait=0.02)
    result = await asyncio.to_thread(
        generators(2).run_cell, request, on_rows=lambda rows, errors: given.extend(row.request_id for row in rows)
    )
    numbers = [*given, *(row.request_id for row in result.rows)]
    assert len(given) > 0
    assert sorted(numbers) == sorted(set(numbers))
    assert {number % 64 for number in numbers} == set(range(64))


def test_one_generator_runs_cells_one_after_the_other_in_the_same_processes(environment, generators):
    generator = generators(2)
    generator.run_cell(order(environment, batch=1))
    pids = {process.pid for process in workers(generator)}
    for batch in (7, 3):
        result = generator.run_cell(order(environment, batch=batch, arrival="hold"))
        assert [row.success for row in result.rows] == [True] * batch
    assert {process.pid for process in workers(generator)} == pids


async def test_a_hold_over_two_processes_steps_only_when_the_whole_batch_is_reset(generators):
    resets = 0
    early: list[int] = []

    async def script(peer: Peer) -> None:
        nonlocal resets
        await peer.accept()
        await peer.asked()
        await asyncio.sleep(0.005 * (peer.number % 10))
        resets += 1
        peer.say(observation())
        await peer.asked()
        early.append(resets)
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        result = await run_beside(generators(2), order(server.url, batch=60, arrival="hold"))
    assert [row.success for row in result.rows] == [True] * 60
    assert set(early) == {60}


@pytest.mark.parametrize(("mode", "collects"), [("ws", False), ("http", True)])
def test_garbage_is_collected_where_any_number_of_sessions_leave_some(environment, actions, generators, mode, collects):
    seen = actions / f"seen_{mode}.txt"
    act = f"def act(session, step):\n    open({str(seen)!r}, 'a').write(f'{{gc.isenabled()}}\\n')\n    return {{}}\n"
    (actions / f"look_in_{mode}.py").write_text(f"import gc\n{act}")
    workload = Workload(function=f"look_in_{mode}:act")
    result = generators(1).run_cell(order(environment, mode=mode, arrival="steady=1", workload=workload))
    assert all(row.success for row in result.rows)
    # The first session's actions are made before the cell.
    assert seen.read_text().split()[-1] == str(collects)


async def test_no_process_starts_before_the_last_is_ready(actions, generators):
    text = "import time\ndef act(session, step):\n    time.sleep(0.6 * (session == 1))\n    return {}\n"
    (actions / "slow_to_say.py").write_text(text)
    arrived: list[float] = []

    async def script(peer: Peer) -> None:
        arrived.append(time.monotonic())
        await good(peer)

    async with scripted(script) as server:
        began = time.monotonic()
        request = order(server.url, batch=20, workload=Workload(function="slow_to_say:act"))
        result = await run_beside(generators(2), request)
    assert [row.success for row in result.rows] == [True] * 20
    assert min(arrived) - began > 0.6


async def test_progress_counts_the_sessions_of_all_processes(generators):
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        await asyncio.sleep(1.3)
        peer.say(observation())
        await peer.asked()
        await peer.part()

    reports: list[LoadProgress] = []
    async with scripted(script) as server:
        await run_beside(generators(2), order(server.url, batch=10), reports.append)
    assert {progress.asked for progress in reports} == {10}
    assert max(progress.open for progress in reports) == 10
    assert 0 < reports[0].elapsed_s < 5


async def test_a_batch_that_is_held_is_reported_with_all_of_its_sessions_open(generators):
    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(2):
            await peer.asked()
            peer.say(observation())
        await peer.asked()
        await peer.part()

    reports: list[LoadProgress] = []
    async with scripted(script) as server:
        await run_beside(generators(2), order(server.url, batch=10, arrival="hold"), reports.append)
    assert max(progress.open for progress in reports) == 10


async def test_wss_works_in_load_processes_where_the_environment_names_the_authority(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    async with scripted(good, tls=server_tls()) as server:
        with LoadGenerator(1) as generator:
            result = await run_beside(generator, order(server.url, batch=10))
    assert [row.success for row in result.rows] == [True] * 10


async def test_headers_reach_the_server_and_nobody_who_looks_at_the_processes(generators):
    heads: list[bytes] = []
    visible: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.accept())
        visible.extend(
            " ".join(process.cmdline()) + json.dumps(process.environ()) for process in workers(generators(1))
        )
        await peer.serve()
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        request = order(server.url, headers={"Authorization": "Bearer hunter2"})
        assert (await run_beside(generators(1), request)).rows[0].success
    assert b"Authorization: Bearer hunter2" in heads[0]
    assert visible
    assert "hunter2" not in "".join(visible) + repr(request)


# What cannot be run


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("said_nowhere", None),
        ("said_elsewhere", "other = 1"),
        ("said_loudly", "def act(session, step): return 1 / 0"),
        ("said_in_a_list", "def act(session, step): return [1]"),
    ],
)
def test_a_callable_that_cannot_be_used_is_one_clear_error(golden, actions, generators, name, body):
    if body is not None:
        (actions / f"{name}.py").write_text(body)
    with pytest.raises(LoadError) as caught:
        generators(1).run_cell(order("http://127.0.0.1:9", batch=4, workload=Workload(function=f"{name}:act")))
    golden(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "headers", "why"),
    [
        ("ftp://user:hunter2@127.0.0.1", {}, "^not an http"),
        ("http://127.0.0.1:9", {"X-A": "hunter2\n"}, "^the value of header 'X-A'"),
    ],
)
def test_a_url_or_header_that_cannot_be_used_is_one_clear_error(generators, url, headers, why):
    with pytest.raises(LoadError, match=why) as caught:
        generators(1).run_cell(order(url, headers=headers))
    assert "hunter2" not in str(caught.value)


def test_after_an_order_that_was_refused_the_next_one_runs(environment, actions, generators):
    """What the other processes have yet to say about it must not be taken for an answer to the next."""
    text = "import time\ndef act(session, step):\n    time.sleep(0.2 * session)\n    raise ValueError('zero')\n"
    (actions / "says_no_once.py").write_text(text)
    generator = generators(2)
    with pytest.raises(LoadError, match="zero"):
        generator.run_cell(order(environment, batch=2, workload=Workload(function="says_no_once:act")))
    result = generator.run_cell(order(environment, batch=10, arrival="hold"))
    assert [row.success for row in result.rows] == [True] * 10
