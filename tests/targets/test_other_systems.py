"""Where names that only Linux has are missing (`tests/elsewhere`), sweeps, checks and the server work all the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_run import environ, run_pytest, write_test
from server_process import server_command

ELSEWHERE = Path(__file__).parents[1] / "elsewhere"

SWEEP = """
@pytest.mark.scaling(batches=[40], waits=[0.0])
def test_a(scaling):
    scaling.run()
"""


@pytest.fixture(scope="module")
def record_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every process that lacks those names leaves its number."""
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def lacking(record_dir: Path) -> dict[str, str]:
    """The environment of such processes."""
    path = os.pathsep.join(filter(None, [str(ELSEWHERE), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "SEEN_IN": str(record_dir)}


@pytest.fixture(scope="module")
def url(lacking: dict[str, str], record_dir: Path) -> Iterator[str]:
    """`openenv-scale serve` with two workers; the supervisor and both are such processes."""
    command = server_command("--port", 0, "--workers", 2)
    with subprocess.Popen(command, env=environ(**lacking), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        match = re.search(r"listening on (\S+) ", server.stderr.readline())
        try:
            assert match, server.stderr.read()
            yield match[1]
        finally:
            server.terminate()
    assert server.returncode == 0
    assert len(list(record_dir.iterdir())) >= 3


def test_those_names_are_missing(lacking: dict[str, str]) -> None:
    code = """if True:
        import os, select, selectors, socket, sys
        print(sys.platform, os.uname().sysname)
        print(hasattr(socket, "SOCK_NONBLOCK"), hasattr(select, "epoll"), hasattr(selectors, "EpollSelector"))
        try:
            open("/proc/self/stat")
        except FileNotFoundError:
            print("no /proc")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ(**lacking), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["darwin Darwin", "False False False", "no /proc"]


def test_a_sweep_over_both_protocols_is_measured(url, lacking, record_dir, tmp_path) -> None:
    before = len(list(record_dir.iterdir()))
    write_test(tmp_path, SWEEP)
    run = run_pytest(tmp_path, "--openenv-url", url, "--openenv-modes", "ws,http", **lacking)
    assert run.code == 0, run.output
    rows = run.rows()
    assert rows["success"].to_pylist() == [True] * 80
    assert len(list(record_dir.iterdir())) >= before + 2, "pytest and a load process"


def test_a_server_is_started_and_measured(lacking, tmp_path) -> None:
    write_test(tmp_path, SWEEP)
    run = run_pytest(tmp_path, "--openenv-target", "local:builtin,workers=1", **lacking)
    assert run.code == 0, run.output


def test_a_server_is_checked(url, lacking, tmp_path) -> None:
    command = [sys.executable, "-m", "pytest_openenv_scale", "check", url, "--sessions", "4"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ(**lacking), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 sessions fit" in done.stdout


def test_the_client_can_be_measured_against_the_null_server(lacking, tmp_path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest_openenv_scale",
        "self-test",
        "--modes",
        "ws",
        "--max-batch",
        "4",
        "--wait",
        "10ms",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ(**lacking), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    assert "ws: " in done.stdout
