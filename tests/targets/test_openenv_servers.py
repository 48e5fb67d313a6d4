"""Servers of the real OpenEnv packages play, refuse and are measured as what the project says about OpenEnv."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from openenv_servers import SERVERS, OpenEnvServer, RunningServer, openenv_server
from openenv_venvs import newest_and_oldest
from pytest_openenv_scale.client.session import ClientSession, SessionFailed, open_session
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.verdict.bracket import Tally
from pytest_run import run_pytest, write_test

pytestmark = pytest.mark.real

ANSWER_S = 30.0
"""Seconds an answer may take on a machine that is busy with other things."""

ACTIONS: dict[str, dict[str, Any]] = {
    "echo": {"message": "hello"},
    "benchmark": {"wait_seconds": 0.02},
    "seeded": {"stake": 2},
}
QUICKEST = next(server for server in SERVERS if server.package == "openenv-core==0.2.0" and server.workers == 2)
"""0.2.0 is up in a second, where later ones take seven: for what is about starting and stopping."""


@pytest.fixture(scope="module", params=newest_and_oldest(SERVERS, lambda server: server.package))
def server(request: pytest.FixtureRequest) -> OpenEnvServer:
    return request.param


@pytest.fixture(scope="module")
def running(server: OpenEnvServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server, started once for all tests of this file."""
    with openenv_server(server, tmp_path_factory.mktemp("server")) as running:
        yield running


async def test_an_episode_counts_its_steps_and_keeps_its_id(server, running):
    async with open_session(running.url, timeout_s=ANSWER_S) as session:
        await session.reset(seed=7, episode_id="mine")
        for _ in range(3):
            assert (await session.step(ACTIONS[server.environment])).done is False
        assert await session.state() == {"episode_id": "mine", "step_count": 3}
        await session.reset()
        state = await session.state()
    assert state["step_count"] == 0
    assert state["episode_id"] not in ("mine", None)


async def test_an_environment_does_what_its_kind_does(server, running):
    await KINDS[server.environment](server, running)


async def test_sessions_fit_up_to_workers_times_the_limit_and_one_more_is_refused_by_name(server, running):
    capacity = server.workers * server.max_envs
    async with AsyncExitStack() as stack:
        sessions = [await admitted(stack, running.url) for _ in range(capacity)]
        for _ in range(3 * server.workers):
            with pytest.raises(SessionFailed) as refused:
                await admit(stack, running.url)
            assert (refused.value.type, refused.value.code) == ("capacity", "CAPACITY_REACHED")
            assert f"{server.max_envs}/{server.max_envs} sessions active" in (refused.value.message or "")
        await asyncio.gather(*(session.step(ACTIONS[server.environment]) for session in sessions))
        await sessions.pop().close()
        await admitted(stack, running.url)


def test_there_are_as_many_workers_as_asked_for_and_they_may_be_busy(server, running):
    leader = psutil.Process(running.pid)
    workers = [process for process in leader.children() if "spawn_main" in " ".join(process.cmdline())]
    assert len(workers) == (0 if server.workers == 1 else server.workers)
    assert leader.cmdline()[-2:] == ["--timeout-worker-healthcheck", "120"]


def test_a_server_that_does_not_start_says_so_with_the_end_of_its_log(tmp_path):
    broken = replace(QUICKEST, id="broken", app="echo:nothing", workers=1)
    with pytest.raises(TargetError) as failed, openenv_server(broken, tmp_path):
        pass
    headline, *log = str(failed.value).splitlines()
    assert re.match(r"broken: .* exited with code \d+ ", headline)
    # uvicorn's words.
    assert '"nothing" not found' in log[-1]


def test_a_server_that_is_not_up_in_time_says_so_and_is_stopped(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(TargetError, match="2 workers"),
        openenv_server(QUICKEST, tmp_path, start_s=0.3),
    ):
        pass
    assert alive(set(psutil.Process().children(recursive=True)) - before) == []


def test_nothing_of_a_server_outlives_the_block(tmp_path):
    with openenv_server(QUICKEST, tmp_path) as running:
        leader = psutil.Process(running.pid)
        family = [leader, *leader.children(recursive=True)]
        assert len(family) > QUICKEST.workers
    assert alive(family) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(address_of(running.url), 5):
        pass
    assert running.log_path.read_text().count("Finished server process") == QUICKEST.workers


def test_a_sweep_of_a_given_url_names_the_limit_and_reads_the_servers_memory(tmp_path):
    swept = replace(QUICKEST, id="swept", max_envs=8)
    marks = '@pytest.mark.scaling(batches="1,4,64", waits=[0.05])\n@pytest.mark.slo(max_batch=4)\n'
    write_test(tmp_path, f"{marks}def test_it(scaling):\n    scaling.run()\n")
    with openenv_server(swept, tmp_path) as running:
        run = run_pytest(tmp_path, "--openenv-url", running.url, "--openenv-json", "report.json")
    assert run.code == 0, run.output
    (sweep,) = json.loads((tmp_path / "report.json").read_text())["sweeps"]
    (curve,) = sweep["curves"]
    assert curve["max_batch"] == 4
    (refused,) = curve["refused"]
    assert (refused["cause"], refused["figures"]["needed"]) == ("capacity", 64)
    peak = curve["cells"][-1]["repetitions"][0]["server"]["peak"]
    assert peak["processes"] > swept.workers
    assert peak["rss_bytes"] > swept.workers * 20e6
    assert peak["threads"] is not None
    assert peak["descriptors"] is not None


SEARCH = (
    '@pytest.mark.scaling(waits=[0.05], search="1..128")\n@pytest.mark.slo(success=1)\n'
    "def test_it(scaling):\n    scaling.run()\n"
)


def searched(folder: Path, url: str) -> dict[str, Any]:
    """Search the max batch of a server and return its curve; the kernel may come to prefer a worker meanwhile."""
    write_test(folder, SEARCH)
    run = run_pytest(folder, "--openenv-url", url, "--openenv-json", "report.json")
    curve = json.loads((folder / "report.json").read_text())["sweeps"][0]["curves"][0]
    assert run.code == (1 if curve["search"]["drift"] else 0), run.output
    return curve


def holds(curve: dict[str, Any]) -> bool:
    """Whether the max batch of a search passed in 3 of 3 repetitions, or in so many of more that it is as sure."""
    passed = [probe["passed"] for probe in curve["search"]["probes"] if probe["batch"] == curve["max_batch"]]
    return Tally(passed.count(True), passed.count(False)).holds(3)


def test_a_search_of_two_workers_ends_between_one_and_both_of_them(tmp_path):
    swept = replace(QUICKEST, id="swept", max_envs=24)
    with openenv_server(swept, tmp_path) as running:
        curve = searched(tmp_path, running.url)
    probes = [(probe["batch"], probe["passed"]) for probe in curve["search"]["probes"]]
    assert all(passed for batch, passed in probes if batch <= 24)
    assert not any(passed for batch, passed in probes if batch > 48)
    if curve["search"]["drift"]:
        assert curve["max_batch"] is None
        return
    assert 24 <= curve["max_batch"] < curve["infeasible_min"] <= 49  # The kernel spreads connections by chance.
    assert holds(curve)
    assert curve["search"]["stop_reason"] in ("precision", "slope")


@pytest.mark.matrix
def test_five_searches_of_two_workers_agree(tmp_path):
    swept = replace(QUICKEST, id="swept", max_envs=24)
    with openenv_server(swept, tmp_path) as running:
        searches = [searched(tmp_path, running.url) for _ in range(5)]
    curves = [curve for curve in searches if not curve["search"]["drift"]]
    assert len(curves) >= 3
    numbers = [curve["max_batch"] for curve in curves]
    assert all(map(holds, curves))
    assert max(numbers) <= 1.5 * min(numbers), numbers


async def play_echo(server: OpenEnvServer, running: RunningServer) -> None:
    async with open_session(running.url, timeout_s=ANSWER_S) as session:
        await session.reset()
        replies = [await session.step({"message": text}) for text in ("one", "naïve ☃")]
        with pytest.raises(SessionFailed) as refused:
            await session.step({"massage": "one"})
        last = await session.step({"message": "again"})
    assert [reply.observation["echo"] for reply in replies] == ["one", "naïve ☃"]
    assert refused.value.code == "VALIDATION_ERROR"
    assert last.observation["steps"] == 3


async def wait_together(server: OpenEnvServer, running: RunningServer) -> None:
    """Steps of all sessions wait side by side, four in each worker of this server."""
    capacity = server.workers * server.max_envs
    async with AsyncExitStack() as stack:
        sessions = [await admitted(stack, running.url) for _ in range(capacity)]
        began = time.monotonic()
        replies = await asyncio.gather(*(session.step({"wait_seconds": 1.0}) for session in sessions))
        took_s = time.monotonic() - began
    assert all(reply.observation["waited_seconds"] >= 1.0 for reply in replies)
    assert took_s < 3.0
    assert len({reply.observation["session_hash"] for reply in replies}) == capacity
    assert len({reply.observation["pid"] for reply in replies}) == server.workers


async def throw_dice(server: OpenEnvServer, running: RunningServer) -> None:
    """The seed decides what is thrown, and five throws are an episode."""

    async def throws(seed: int) -> list[tuple[int, int, bool]]:
        async with open_session(running.url, timeout_s=ANSWER_S) as session:
            replies = [await session.reset(seed=seed)]
            replies += [await session.step({"stake": stake}) for stake in (1, 2, 3, 4, 5)]
        return [(reply.observation["thrown"], reply.observation["total"], reply.done) for reply in replies]

    first, repeated, other = await throws(1), await throws(1), await throws(2)
    assert first == repeated != other
    assert [done for _, _, done in first] == [False] * 5 + [True]


KINDS: dict[str, Callable[[OpenEnvServer, RunningServer], Awaitable[None]]] = {
    "echo": play_echo,
    "benchmark": wait_together,
    "seeded": throw_dice,
}


async def admit(stack: AsyncExitStack, url: str) -> ClientSession:
    """Open a session that has answered a reset and hold it until `held` ends."""
    async with AsyncExitStack() as attempt:
        session = await attempt.enter_async_context(open_session(url, timeout_s=ANSWER_S))
        await session.reset()
        stack.push_async_callback(attempt.pop_all().aclose)
        return session


async def admitted(stack: AsyncExitStack, url: str) -> ClientSession:
    """As `admit`, trying again while refused: of several workers, one that is full may get the connection."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            return await admit(stack, url)
        except SessionFailed as failure:
            if failure.type != "capacity" or time.monotonic() >= deadline:
                raise


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run, and are not merely waiting to be reaped by somebody."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
