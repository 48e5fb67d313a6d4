"""The scripts of deploy/local: what they run, and that it is set up as the local target sets up its servers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypercorn.__main__
import hypercorn.run
import pytest
import uvicorn
from hypercorn.config import Config

from components import shellcheck
from goldens import Golden
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.local import serving
from pytest_openenv_scale.targets.local.serving import ServeSettings

SCRIPTS = ("run_docker.sh", "run_hypercorn.sh", "run_uvicorn.sh")
RECORDER = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1:2] != ["-c"]:
    names = ("HOST", "PORT", "WORKERS", "MAX_CONCURRENT_ENVS")
    print(json.dumps([sys.argv[1:], {{name: os.environ.get(name) for name in names}}]))
"""


def script(name: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/somebody", **settings}
    command = ["bash", str(deploy_file(f"local/{name}")), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def recorded(name: str, folder: Path, **settings: str) -> tuple[list[str], dict[str, str | None]]:
    """Return the arguments and the settings that python would get."""
    recorder = folder / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    done = script(name, PYTHON=str(recorder), **settings)
    assert done.returncode == 0, done.stderr
    arguments, environ = json.loads(done.stdout)
    return arguments, environ


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_can_be_run_and_tells_its_settings(golden: Golden, name: str) -> None:
    assert os.access(deploy_file(f"local/{name}"), os.X_OK)
    completed = script(name, "--help")
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout.startswith(f"usage: {name} ")
    for setting in ("HOST", "PORT", "WORKERS", "MAX_CONCURRENT_ENVS"):
        assert f"  {setting}" in completed.stdout
    wrong = script(name, "--bakclog")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    golden(wrong.stderr)


def test_shellcheck_finds_nothing() -> None:
    paths = [str(deploy_file(f"local/{name}")) for name in SCRIPTS]
    assert shellcheck(*paths) == ""


def test_uvicorn_is_set_up_as_by_the_local_target(tmp_path: Path) -> None:
    arguments, _ = recorded("run_uvicorn.sh", tmp_path, BACKLOG="4096", WORKERS="3", APP="server.app:app")
    assert arguments[:2] == ["-m", "uvicorn"]
    parsed = uvicorn.main.make_context("uvicorn", arguments[2:]).params
    ours = serving._uvicorn_settings(ServeSettings("server.app:app", "uvicorn", 3, 4096))
    shared_settings = {
        *("workers", "backlog", "ws", "ws_per_message_deflate", "limit_concurrency"),
        *("timeout_keep_alive", "timeout_worker_healthcheck", "access_log"),
    }
    assert {key: parsed[key] for key in shared_settings} == {key: ours[key] for key in shared_settings}
    assert parsed["app"] == "server.app:app"


def hypercorn_config(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Config:
    """Return what hypercorn's command makes of its arguments."""
    configs: list[Config] = []
    monkeypatch.setattr(hypercorn.__main__, "run", lambda config: configs.append(config) or 0)
    hypercorn.__main__.main(arguments)
    return configs[0]


def local_config(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Config:
    """Return what the local target runs hypercorn with."""
    configs: list[Config] = []
    monkeypatch.setattr(hypercorn.run, "run", lambda config: configs.append(config) or 0)
    monkeypatch.setattr(serving, "_notice_killed_workers", list)
    serving._run_hypercorn(ServeSettings("server.app:app", "hypercorn", **settings), SimpleNamespace(fileno=lambda: 9))  # pyright: ignore
    return configs[0]


def test_hypercorn_is_set_up_as_by_the_local_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"BACKLOG": "4096", "WORKERS": "3", "APP": "server.app:app", "PORT": "8123"}
    recording, _ = recorded("run_hypercorn.sh", tmp_path, **settings)
    assert recording[:2] == ["-m", "hypercorn"]
    config = hypercorn_config(monkeypatch, recording[2:])
    ours = local_config(monkeypatch, workers=3, backlog=4096)
    for name in ("workers", "backlog", "keep_alive_timeout", "worker_class", "accesslog", "websocket_ping_interval"):
        assert getattr(config, name) == getattr(ours, name), name
    assert config.application_path == "server.app:app"
    assert config.bind == ["127.0.0.1:8123"]


@pytest.mark.parametrize("name", ["run_hypercorn.sh", "run_uvicorn.sh"])
def test_the_benchmark_environment_gets_all_cores_and_an_application_of_yours_one_worker(
    name: str, tmp_path: Path
) -> None:
    arguments, environ = recorded(name, tmp_path)
    assert "pytest_openenv_scale.server.app:app" in arguments
    assert environ == {
        "HOST": "127.0.0.1",
        "PORT": "8000",
        "WORKERS": str(usable_cores()),
        "MAX_CONCURRENT_ENVS": None,
    }
    _, environ = recorded(name, tmp_path, APP="mine:app", MAX_CONCURRENT_ENVS="7")
    assert (environ["WORKERS"], environ["MAX_CONCURRENT_ENVS"]) == ("1", "7")


def dry_run(**settings: str) -> list[list[str]]:
    done = script("run_docker.sh", "--dry-run", NOFILE="5000", **settings)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_docker_publishes_one_port_on_loopback_with_the_descriptors_sessions_need() -> None:
    assert dry_run(IMAGE="my-env:latest", PORT="8123", WORKERS="2", MAX_CONCURRENT_ENVS="500") == [
        [
            *("docker", "run", "--rm", "--init", "--env", "PORT=8123", "--ulimit", "nofile=5000:5000"),
            *("--publish", "127.0.0.1:8123:8123", "--env", "HOST=0.0.0.0"),
            *("--env", "WORKERS=2", "--env", "MAX_CONCURRENT_ENVS=500", "my-env:latest"),
        ]
    ]


def test_docker_takes_limits_a_gpu_and_the_hosts_network() -> None:
    limits = {"CPUS": "2", "MEMORY": "4g", "GPUS": "device=0"}
    (command,) = dry_run(IMAGE="x", NETWORK="host", HOST="127.0.0.5", DOCKER="podman", **limits)
    assert command[0] == "podman"
    assert command[-7:] == ["--cpus", "2", "--memory", "4g", "--gpus", "device=0", "x"]
    assert "--network host --env HOST=127.0.0.5" in " ".join(command)
    assert "--publish" not in command


def test_docker_builds_a_folder_first_and_the_packaged_dockerfile_by_default(golden: Golden, tmp_path: Path) -> None:
    folder = tmp_path / "My_env"
    folder.mkdir()
    build, run = dry_run(IMAGE=str(folder), BASE_IMAGE="python:3.13-slim")
    golden(shlex.join(build))
    assert run[-1] == "openenv-my_env"
    build, run = dry_run()
    golden(shlex.join(build))
    assert run[-1] == "openenv-benchmark"
