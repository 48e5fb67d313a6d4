"""The self-test for real: this client, its load process, the null server, and latency planted in the client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.load.runner import LoadError, LoadGenerator
from pytest_openenv_scale.selftest.figures import SelfTestRequest
from pytest_openenv_scale.selftest.search import measure, self_test

pytestmark = pytest.mark.alone

PLANTED_S = 0.020

SLOW_READER = f"""
import asyncio

import aiohttp

from pytest_openenv_scale.load.session import WebSocketSession

received, read = WebSocketSession.received, aiohttp.ClientResponse.read


def later(self, text, at):
    return received(self, text, at + {PLANTED_S})


async def slower(self):
    await asyncio.sleep({PLANTED_S})
    return await read(self)


WebSocketSession.received, aiohttp.ClientResponse.read = later, slower


def act(session, step):
    return {{"wait_seconds": "$wait"}}
"""
"""A module of actions that, imported by a load process, slows down how that process reads answers.

Replies over WebSocket carry the kernel's time: being late to read them is nothing. Hence the time itself.
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    (tmp_path / "slow_reader.py").write_text(SLOW_READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Workload(function="slow_reader:act")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail where a process that a test started is still there."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    leftovers = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert [process.cmdline() for process in leftovers if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("mode", ["ws", "http"])
@pytest.mark.parametrize("arrival", ["hold", "burst"])
def test_latency_planted_in_the_client_is_shown_as_invented(planted, mode, arrival, nothing_left):
    with LoadGenerator(1) as plain, LoadGenerator(1) as slower:
        requests = {plain: SelfTestRequest(wait_s=0.05), slower: SelfTestRequest(wait_s=0.05, workload=planted)}
        # The first sessions of a process pay for what it never did before.
        for generator in requests:
            measure(generator, requests[generator], mode, arrival, 4)
        # In turns, and the best of each: what else the machine does only adds, what was planted is always there.
        turns = [
            (generator, measure(generator, requests[generator], mode, arrival, 4)) for generator in [*requests] * 5
        ]
    assert [run.failed for _, run in turns] == [0] * 10
    least = {generator: min(run.invented_p50_s for by, run in turns if by is generator) for generator in requests}
    assert least[slower] >= 0.75 * PLANTED_S
    assert least[slower] > least[plain]


def test_a_client_with_planted_latency_resolves_nothing(planted, nothing_left):
    report = self_test(SelfTestRequest(max_batch=8, wait_s=0.05, workload=planted))
    for ladder in report.ladders:
        assert (ladder.resolved_batch, ladder.end) == (None, "unresolved")
        assert all(batch.failed == 0 and not batch.resolved for batch in ladder.rungs)


def test_a_workload_that_cannot_be_imported_is_an_error(nothing_left):
    with pytest.raises(LoadError, match="no_such_module does not import"):
        self_test(SelfTestRequest(max_batch=8, workload=Workload(function="no_such_module:act")))


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest_openenv_scale", "self-test", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_measures_both_modes_and_writes_what_it_found(tmp_path, nothing_left):
    file = tmp_path / "found.json"
    out, err = start("--max-batch", "8", "--wait", "50ms", "--json", str(file)).communicate(timeout=120)
    assert err == ""
    assert [line.split()[:3] for line in out.splitlines() if line.split()[1:2] in (["hold"], ["burst"])] == [
        [mode, arrival, "8"] for mode in ("ws", "http") for arrival in ("hold", "burst")
    ]
    report = json.loads(file.read_text())
    assert (report["wait_s"], report["cores"]) == (0.05, usable_cores())
    assert [ladder["mode"] for ladder in report["ladders"]] == ["ws", "http"]
    for ladder in report["ladders"]:
        for batch in ladder["rungs"]:
            assert (batch["failed"], batch["batch"], batch["processes"]) == (0, 8, 1)
            assert batch["client_p50_s"] > 0
            assert batch["server_p50_s"] > 0


def test_ctrl_c_prints_what_is_known_and_leaves_nothing_behind(nothing_left):
    process = start("--modes", "ws", "--wait", "300ms")
    lines = []
    while "burst" not in "".join(lines).partition("CPU each")[2]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    text = " ".join(out.split())
    assert "5/40 ms" in text.partition("ws: ")[2]
    assert text.endswith("; interrupted")
    assert children
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_command_that_was_killed_leaves_nothing_behind():
    process = start("--modes", "ws", "--wait", "300ms")
    for _ in range(6):
        assert process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    assert children
    assert psutil.wait_procs(children, timeout=30)[1] == []
