"""The scripts of deploy/local serve sessions, without pytest and until they are told to stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from docker_engine import BASE_IMAGE, docker, engine_or_skip, server_wheels
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.common.files import deploy_file, write_own_wheel
from server_process import server_environ

pytestmark = pytest.mark.real

START_S = 180


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def script(name: str, folder: Path, **settings: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a script until the block ends."""
    environ = server_environ(PYTHON=sys.executable, **settings)
    with (folder / "log").open("wb") as log:
        command = ["bash", str(deploy_file(f"local/{name}"))]
        running = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        try:
            running.wait(30)
        finally:
            running.kill()
            running.wait()


def play_a_session(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a real session was answered."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            with open_target(parse_target(f"http://127.0.0.1:{port}"), root=Path("/")):
                return
        except TargetError:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()


@pytest.mark.parametrize("name", ["run_hypercorn.sh", "run_uvicorn.sh"])
def test_a_server_is_up_until_it_is_told_to_stop(name: str, tmp_path: Path) -> None:
    port = free_port()
    with script(name, tmp_path, PORT=str(port), WORKERS="2", MAX_CONCURRENT_ENVS="5") as running:
        play_a_session(running, port, tmp_path / "log")
        processes = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        assert len(processes) >= 3
        hard = psutil.Process(running.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert hard[0] == hard[1]
        running.send_signal(signal.SIGTERM)
        running.wait(30)
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert alive == []


def test_docker_builds_the_packaged_dockerfile_and_serves_it(tmp_path: Path) -> None:
    folder = tmp_path / "script_env"
    shutil.copytree(deploy_file("docker"), folder)
    shutil.copytree(server_wheels(), folder / "wheels")
    (folder / "package").mkdir()
    package = write_own_wheel(folder / "package")
    port = free_port()
    settings = {"IMAGE": str(folder), "BASE_IMAGE": BASE_IMAGE, "PACKAGE": f"package/{package.name}"}
    with engine_or_skip() as host:
        bridged = "bridge" in docker("network", "ls", "--format", "{{.Driver}}", host=host).split()
        settings |= {"DOCKER_HOST": host, "NETWORK": "bridge" if bridged else "host", "MEMORY": "500m"}
        with script("run_docker.sh", tmp_path, PORT=str(port), WORKERS="1", **settings) as running:
            play_a_session(running, port, tmp_path / "log")
            (container,) = docker("ps", "--quiet", "--filter", "ancestor=openenv-script_env", host=host).split()
            limits = "{{.HostConfig.Memory}} {{range .HostConfig.Ulimits}}{{.Soft}}{{end}}"
            hard = psutil.Process(os.getpid()).rlimit(psutil.RLIMIT_NOFILE)[1]
            assert docker("inspect", "--format", limits, container, host=host) == f"{500 * 2**20} {hard}"
            running.terminate()
            running.wait(60)
            assert docker("ps", "--all", "--quiet", "--filter", f"id={container}", host=host) == ""
