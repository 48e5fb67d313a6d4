"""Load processes that die, stand still, lag or lack descriptors: told as the client's own, and none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from multiprocessing import Pipe
from typing import cast

import psutil
import pytest

from load_processes import actions, environment, generators, kinds, run_beside, workers
from playing import failure, order
from pytest_openenv_scale.load import client_health, ipc, runner
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator, LoadProgress
from pytest_openenv_scale.load.worker import Worker
from pytest_openenv_scale.load.worker_share import WorkerShare
from scripted_server import Peer, observation, scripted
from server_process import SRC

__all__ = ["actions", "environment", "generators"]  # fixtures

# A load process that is lost


async def at_reset(generator: LoadGenerator, batch: int, act: Callable[[], None], **details) -> CellResult:
    """Run a cell; `act` is called once, when every session has sent its reset."""
    arrived = 0
    everyone = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal arrived
        await peer.accept()
        await peer.asked()
        arrived += 1
        if arrived == batch:
            act()
            everyone.set()
        await everyone.wait()
        peer.say(observation())
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(script) as server:
        return await run_beside(generator, order(server.url, batch=batch, **details))


@pytest.mark.parametrize("arrival", ["hold", "burst"])
async def test_a_load_process_that_is_killed_takes_only_its_own_sessions_with_it(golden, generators, arrival):
    victims: list[int] = []

    def kill() -> None:
        victim = workers(generators(2))[0]
        victims.append(victim.pid)
        victim.kill()

    began = time.monotonic()
    result = await at_reset(generators(2), 20, kill, arrival=arrival)
    assert time.monotonic() - began < 20
    assert victims
    assert [row.request_id for row in result.rows] == list(range(20))
    failed_rows = [row for row in result.rows if not row.success]
    assert len(failed_rows) == 10
    assert {failure(row) for row in failed_rows} == {("connect", "client_limit", None)}
    golden({row.error_message for row in failed_rows})
    assert len({row.process for row in failed_rows}) == 1
    (died,) = [finding for finding in result.findings if finding.kind == "process_died"]
    golden(died.message)


def test_sessions_that_a_lost_load_process_had_open_are_open_no_more():
    told: list[LoadProgress] = []
    lost, other = (cast("runner._LoadProcess", object()) for _ in range(2))
    needs = client_health.check_resources(order("http://127.0.0.1:9", batch=5), 2)
    run = runner._CellRun(order("http://127.0.0.1:9", batch=5), needs, {}, told.append, None)
    run._progress = {lost: ipc.ShareProgress(2, 1, 1), other: ipc.ShareProgress(1, 1, 0)}
    run._dead[lost] = runner._UNKNOWN_ENDING
    run._report_progress()
    assert [(progress.open, progress.finished, progress.failed) for progress in told] == [(1, 2, 1)]


async def test_a_load_process_that_stands_still_does_not_keep_a_hold_waiting_for_ever(generators, monkeypatch):
    monkeypatch.setattr(runner, "_SILENCE_TIMEOUT_S", 1.5)
    began = time.monotonic()
    result = await at_reset(generators(2), 10, lambda: workers(generators(2))[0].suspend(), arrival="hold")
    assert time.monotonic() - began < 15
    assert sorted(row.error_type or "fine" for row in result.rows) == ["client_limit"] * 5 + ["fine"] * 5
    assert "process_died" in kinds(result)
    assert len(workers(generators(2))) == 1


def test_after_a_process_died_the_next_cell_has_all_it_needs(environment, generators):
    generator = generators(2)
    generator.run_cell(order(environment, batch=2))
    process = generator._processes[0].popen
    process.kill()
    process.wait(30)
    result = generator.run_cell(order(environment, batch=10, arrival="hold"))
    assert [row.success for row in result.rows] == [True] * 10
    assert "process_died" not in kinds(result)


async def test_a_process_that_fails_in_a_cell_ends_instead_of_falling_silent(monkeypatch):
    async def fail(self: WorkerShare) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(WorkerShare, "run", fail)
    ours, theirs = Pipe()
    with ours, theirs:
        ours.send(ipc.Prepare(order("http://127.0.0.1:9"), 0, 1))
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await asyncio.wait_for(Worker(theirs).run(), 5)
        assert isinstance(ours.recv(), ipc.Ready)


def test_a_message_that_comes_after_the_end_of_the_loop_is_no_second_error():
    loop = asyncio.new_event_loop()
    loop.close()
    ours, theirs = Pipe()
    with ours, theirs:
        ours.send(ipc.Release())
        Worker(theirs)._listen(loop)  # It raised "Event loop is closed" over what had ended the process.


# Nothing stays behind


def test_no_load_process_outlives_the_generator(environment):
    with LoadGenerator(2) as generator:
        generator.run_cell(order(environment, batch=2))
        processes = workers(generator)
        assert len(processes) == 2
    assert not any(process.is_running() for process in processes)


def test_no_load_process_outlives_an_interrupt_in_the_middle_of_a_cell(environment):
    processes: list[psutil.Process] = []

    def interrupt(progress: LoadProgress) -> None:
        processes.extend(workers(generator))
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LoadGenerator(2) as generator:
        generator.run_cell(order(environment, batch=20, wait=20.0), interrupt)
    assert time.monotonic() - began < 15
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)


PARENT = """
    import os, sys, threading, time
    sys.path.insert(0, {tests!r})
    import psutil
    from playing import order
    from pytest_openenv_scale.load.runner import LoadGenerator

    def tell(progress):
        if progress.open == 10:
            print(*(child.pid for child in psutil.Process().children()), flush=True)

    try:
        with LoadGenerator(2) as generator:
            generator.run_cell(order({url!r}, batch=10, wait=30.0), tell)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def runs(pid: int) -> bool:
    """Whether a process is there and not dead, only waiting for an init to notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT], ids=lambda sent: sent.name)
def test_no_load_process_outlives_its_parent(environment, signal_number):
    code = textwrap.dedent(PARENT).format(tests=str(SRC.parent / "tests"), url=environment)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        os.kill(parent.pid, signal_number)
        assert parent.wait(15) == (130 if signal_number == signal.SIGINT else -signal_number)
        deadline = time.monotonic() + 30
        while alive := [pid for pid in children if runs(pid)]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.05)


# The client's own limits

NARROW = """
    import dataclasses, json, resource, sys
    sys.path.insert(0, {tests!r})
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
    from playing import order
    from pytest_openenv_scale.load.runner import LoadGenerator

    with LoadGenerator({processes!r}) as generator:
        result = generator.run_cell(order({url!r}, batch=200, arrival="hold"))
    print(json.dumps({{
        "findings": [[finding.kind, finding.message] for finding in result.findings],
        "errors": [row.error_type for row in result.rows],
        "messages": sorted({{row.error_message or "" for row in result.rows}}),
        "processes": result.client.processes,
    }}))
"""


def narrowly(url: str, processes: int | None) -> dict:
    code = textwrap.dedent(NARROW).format(tests=str(SRC.parent / "tests"), url=url, processes=processes)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_more_sessions_than_descriptors_are_not_started_and_the_remedy_works(golden, environment):
    outcome = narrowly(environment, 1)
    assert outcome["errors"] == ["client_limit"] * 200
    golden(outcome["messages"])
    ((kind, message),) = outcome["findings"]
    assert kind == "descriptors"
    assert "200 sessions need 264 descriptors" in message
    assert "the limit is 120" in message
    match = re.search(r"--openenv-processes (\d+)", message)
    assert match
    outcome = narrowly(environment, int(match[1]))
    assert outcome["errors"] == [None] * 200
    assert "descriptors" not in [kind for kind, _ in outcome["findings"]]


def test_left_to_itself_the_client_takes_as_many_processes_as_the_descriptors_ask_for(environment):
    outcome = narrowly(environment, None)
    assert outcome["errors"] == [None] * 200
    assert outcome["processes"] == 4


def test_processes_are_added_for_descriptors_and_for_cores_there_are_to_spare(monkeypatch):
    monkeypatch.setattr(client_health, "descriptor_limit", lambda: 20_000)
    for cores, batch, processes in [(2, 1, 1), (2, 8192, 1), (2, 16_384, 1), (8, 16_384, 2), (8, 32_768, 4)]:
        monkeypatch.setattr(client_health, "usable_cores", lambda cores=cores: cores)
        assert client_health.choose_processes(batch) == processes
    monkeypatch.setattr(client_health, "usable_cores", lambda: 2)
    assert client_health.choose_processes(32_768) == 2
    monkeypatch.setattr(client_health, "descriptor_limit", lambda: 1_064)
    assert client_health.choose_processes(4_001) == 5


async def test_a_load_process_that_was_kept_from_its_core_is_found_by_its_lag(generators):
    def suspend() -> None:
        process = workers(generators(2))[0]
        process.suspend()
        asyncio.get_running_loop().call_later(0.5, process.resume)

    result = await at_reset(generators(2), 10, suspend, arrival="hold")
    assert [row.success for row in result.rows] == [True] * 10
    (lag,) = [finding for finding in result.findings if finding.kind == "loop_lag"]
    match = re.search(r"stood still for (\d+) ms \(allowed 200 ms\)", lag.message)
    assert match
    assert 400 <= int(match[1]) < 5000


async def test_a_load_process_that_was_left_alone_is_not(generators):
    # A machine that is busy with something else may keep it waiting by itself: once in three is enough.
    for _ in range(3):
        if "loop_lag" not in kinds(await at_reset(generators(2), 10, lambda: None, arrival="hold")):
            return
    pytest.fail("every undisturbed cell was found to lag")


def test_a_cell_tells_what_its_load_processes_used_of_their_cores(environment, generators, monkeypatch):
    monkeypatch.setattr(client_health, "MAX_BUSY_SHARE", 1e-6)
    monkeypatch.setattr(client_health, "MAX_LOOP_LAG_S", 1e-6)
    result = generators(1).run_cell(order(environment, batch=10, steps=20))
    (busy,) = [finding for finding in result.findings if finding.kind == "cpu"]
    assert f"used {result.client.cpu_share:.0%} of a core" in busy.message
    assert 0 < result.client.cpu_share <= 1.5
    assert result.client.busy_share >= result.client.cpu_share
