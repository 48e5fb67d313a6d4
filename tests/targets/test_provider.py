"""`provider:MODULE:CLASS` has somebody's class start servers, and stops them whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from docker_engine import started_processes
from goldens import Golden
from pytest_openenv_scale.client.session import open_session
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
from pytest_run import run_pytest, write_test

pytestmark = pytest.mark.real

# Each call is a line of events.txt, so that a test sees what a provider was asked after everything is over.
PROVIDERS = """
import os, socket, subprocess, sys, time
from pathlib import Path

def event(text):
    with Path("events.txt").open("a") as events:
        print(text, file=events)

class Served:
    def __init__(self, app: str = "pytest_openenv_scale.server.app:app", api_key: str = ""):
        self.server = None

    def start(self, port: int | None = None, env_vars: dict | None = None, **more):
        print("noise of a provider")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = port or free.getsockname()[1]
        command = [sys.executable, "-m", "pytest_openenv_scale.server", "--port", str(port), "--workers", "1"]
        self.server = subprocess.Popen(command, env={**os.environ, **(env_vars or {})})
        event(f"start {self.server.pid} {sorted((env_vars or {}).items())} {sorted(more.items())}")
        return f"http://127.0.0.1:{port}/"

    def wait_for_ready(self, timeout_s: float = 30.0):
        event(f"ready within {timeout_s:g}")

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait()
            event(f"stop {self.server.pid}")

class NoRoom(Served):
    def start(self, port=None, env_vars=None):
        raise RuntimeError("no room\\nCommand: run -e API_KEY=hush-hush")

class NeverReady(Served):
    def wait_for_ready(self):
        raise TimeoutError("not ready within 30 s")

class NoUrl(Served):
    def start(self):
        super().start()

class StaysUp(Served):
    def stop(self):
        super().stop()
        raise RuntimeError("the machine is gone")

class Leaves(Served):
    def start(self):
        sys.exit("see you")

class Crashes(Served):
    def start(self):
        os._exit(7)

class Slow(Served):
    def start(self):
        event("starting")
        while not Path("go").exists():
            time.sleep(0.02)
        return super().start()
"""

HOLDER = """
import sys, time
from pathlib import Path
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
with open_target(parse_target(sys.argv[1]), root=Path.cwd()):
    print("up", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROVIDERS)
    return tmp_path


def serve(text: str, root: Path) -> Any:
    return open_target(parse_target(text), root=root)


def events(root: Path, word: str) -> list[str]:
    path = root / "events.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(word)]


def refusal(text: str, root: Path) -> tuple[str, str]:
    """Return the first line of the error, and the rest of it."""
    with pytest.raises(TargetError) as caught, serve(text, root):
        pytest.fail("the target started")
    assert not started_processes()
    first, _, rest = str(caught.value).partition("\n")
    assert "provider_host.py" not in rest
    return first, rest


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def server_pids(root: Path) -> list[int]:
    return [int(line.split()[1]) for line in events(root, "start ")]


def pids_that_answer(endpoint: Endpoint) -> list[int]:
    async def play(url: str) -> int:
        async with open_session(url, timeout_s=10) as session:
            return int((await session.reset()).observation["pid"])

    return [asyncio.run(play(url)) for url in endpoint.urls]


def test_a_provider_starts_waits_and_stops(root: Path) -> None:
    with serve("provider:mine:Served,max_envs=7,workers=2,env.MODE=fast,start.size=3,timeout_s=90", root) as endpoint:
        (server,) = server_pids(root)
        assert psutil.Process(pids_that_answer(endpoint)[0]).ppid() == server
        sample = endpoint.sample()
        assert endpoint.exit_status() is None
        assert "noise of a provider" in endpoint.log_tail(1000)
    assert not runs(server)
    assert not started_processes()
    expected = "[('MAX_CONCURRENT_ENVS', '7'), ('MODE', 'fast'), ('WORKERS', '2')] [('size', 3)]"
    assert events(root, "start") == [f"start {server} {expected}"]
    assert events(root, "ready") == ["ready within 90"]
    assert events(root, "stop") == [f"stop {server}"]
    assert (endpoint.label, endpoint.hosts, endpoint.cores) == ("Served", 1, len(os.sched_getaffinity(0)))
    assert endpoint.limits == {"workers": 2, "max_envs": 7}
    assert not endpoint.urls[0].endswith("/")
    assert sample is not None
    assert (sample.processes or 0) >= 1
    assert 0 < endpoint.startup_s < 60


def test_replicas_are_servers_of_their_own_over_which_sessions_are_spread(root: Path) -> None:
    with serve("provider:mine:Served,replicas=3", root) as endpoint:
        assert len(set(pids_that_answer(endpoint))) == len(set(endpoint.urls)) == 3
        assert endpoint.hosts == 3
    assert len(events(root, "stop")) == 3
    assert not any(map(runs, server_pids(root)))


def test_a_server_that_dies_is_noticed(root: Path) -> None:
    with serve("provider:mine:Served", root) as endpoint:
        os.kill(server_pids(root)[0], signal.SIGKILL)
        assert eventually(lambda: str(endpoint.exit_status()) == "ended")


def test_what_a_provider_raises_is_one_line_and_its_details_are_in_the_log_without_secrets(root: Path) -> None:
    first, rest = refusal("provider:mine:NoRoom,api_key=hush-hush", root)
    assert "NoRoom.start" in first
    assert first.endswith("RuntimeError: no room")
    assert "Command: run -e API_KEY=***" in rest
    assert "mine.py" in rest
    assert "hush-hush" not in rest


def test_a_provider_that_never_gets_ready_is_stopped(root: Path) -> None:
    first, _ = refusal("provider:mine:NeverReady,replicas=2", root)
    assert "NeverReady.wait_for_ready" in first
    assert "TimeoutError: " in first
    (server,) = server_pids(root)
    assert events(root, "stop") == [f"stop {server}"]


@pytest.mark.parametrize(
    "text", ["mine:NoUrl", "mine:Leaves", "mine:Crashes", "mine:Served,colour=red", "mine:Absent", "absent:P"]
)
def test_what_cannot_start_says_why_in_one_line(root: Path, golden: Golden, text: str) -> None:
    golden(refusal(f"provider:{text}", root)[0])


def test_a_provider_that_fails_to_stop_is_told_about(root: Path, golden: Golden) -> None:
    with pytest.raises(TargetError) as caught, serve("provider:mine:StaysUp", root):
        pass
    error = str(caught.value)
    golden(error)
    assert not started_processes()

    write_test(root, "@pytest.mark.scaling(batches='1', waits=[0.1])\ndef test_it(scaling): scaling.run()\n")
    for workers in ([], ["-n", "1"]):
        run = run_pytest(root, "--openenv-inconclusive", "warn", "--openenv-target", "provider:mine:StaysUp", *workers)
        assert run.code == 0, run.output
        assert "1 passed" in run.output
        assert run.output.count(error) == 1
        assert "noise of a provider" not in run.output


@pytest.fixture
def holder(root: Path) -> Generator[Callable[[str], subprocess.Popen[str]]]:
    """Start another Python that holds a target."""
    started: list[subprocess.Popen[str]] = []

    def start(spec: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, spec],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_pytest_the_provider_is_stopped_in_order(
    root: Path, holder: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = holder("provider:mine:Served,replicas=2")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (host,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    process.wait()
    assert eventually(lambda: not host.is_running())
    assert sorted(server_pids(root)) == sorted(int(line.split()[1]) for line in events(root, "stop"))
    assert not any(map(runs, server_pids(root)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_start_that_is_interrupted_finishes_and_is_stopped(
    root: Path, holder: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = holder("provider:mine:Slow")
    assert eventually(lambda: events(root, "starting"))
    (host,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    (root / "go").touch()
    process.wait()
    assert eventually(lambda: not host.is_running())
    (server,) = server_pids(root)
    assert events(root, "stop") == [f"stop {server}"]
    assert not runs(server)
