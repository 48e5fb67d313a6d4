"""The main job on real servers: what refuses is named with its own setting, and what dies is reported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest

from openenv_venvs import OPENENV_0_10, openenv_python
from pytest_run import command, environ, run_pytest, write_test
from server_process import SRC, server_environ
from uvicorn_servers import uvicorn_server

pytestmark = pytest.mark.real

SCALING = """
@pytest.mark.scaling(batches={batches!r}, waits=[{wait}], timeout="6s", modes={modes!r})
@pytest.mark.slo(max_batch={most})
def test_scale(scaling):
    scaling.run()
"""


def scaling_test(folder: Path, batches: str, most: int, *, wait: float = 0.1, modes: str = "ws") -> None:
    write_test(folder, SCALING.format(batches=batches, most=most, wait=wait, modes=modes))


def test_a_full_server_is_named_with_max_concurrent_envs(tmp_path: Path) -> None:
    scaling_test(tmp_path, "1,4,16", 16)
    run = run_pytest(tmp_path, "--openenv-target", "local:builtin,max_envs=5,workers=1")
    assert run.code == 1
    assert "max_envs=16 in the target" in run.output
    (cause,) = run.refusals()
    assert (cause["cause"], cause["count"], cause["batch"]) == ("capacity", 11, 16)
    assert (cause["figures"]["limit"], cause["figures"]["workers"]) == (5, 1)
    refused = run.rows().filter(pc.equal(pc.field("error_type"), "capacity"))
    assert refused.num_rows == 11
    assert set(refused["error_code"].to_pylist()) == {"CAPACITY_REACHED"}


def test_uvicorns_limit_concurrency_is_named(tmp_path: Path) -> None:
    scaling_test(tmp_path, "1,8,64", 64, modes="http")
    with uvicorn_server(tmp_path, "--limit-concurrency", "20") as url:
        run = run_pytest(tmp_path, "--openenv-url", url)
    assert run.code == 1
    assert "--limit-concurrency" in run.output
    (refused,) = run.refusals()
    assert (refused["cause"], refused["batch"]) == ("limit_concurrency", 64)


ENDS_ITSELF = """
import asyncio, os, pathlib, signal
from pytest_openenv_scale.server.app import app as built_in
sessions = 0
async def app(scope, receive, send):
    global sessions
    if scope["type"] == "websocket":
        sessions += 1
        marker = pathlib.Path(__file__).with_name("ended")
        if sessions == {after} and not marker.exists():
            marker.touch()
            asyncio.get_running_loop().call_later(1.0, os.kill, os.getpid(), signal.{signal})
    await built_in(scope, receive, send)
"""
"""Ends its process in the middle of the steps of its Nth session, once."""


def test_a_server_that_its_supervisor_starts_again_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDS_ITSELF.format(after=5, signal="SIGTERM"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = f"{sys.executable} -m uvicorn ending:app --port {port} --timeout-graceful-shutdown 1"
    scaling_test(tmp_path, "4,8", 8, wait=3)
    loop = f"trap 'kill $!; exit' TERM; for i in 1 2; do {serve} & wait $!; done"
    with subprocess.Popen(["bash", "-c", loop], cwd=tmp_path, env=server_environ()) as supervisor:
        try:
            run = run_pytest(tmp_path, "--openenv-url", f"http://127.0.0.1:{port}")
        finally:
            supervisor.terminate()
    (refusal,) = run.refusals()
    assert (refusal["cause"], refusal["batch"], refusal["figures"]["listens_again"]) == ("restarted", 4, True)
    assert "a server listens again" in " ".join(run.output.split())
    assert "the server died" not in run.output
    rows = run.rows()
    assert rows.filter(pc.equal(rows["batch_size"], 8))["success"].to_pylist() == [True] * 8


def test_a_worker_that_is_killed_while_others_go_on_is_named(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDS_ITSELF.format(after=6, signal="SIGKILL"))
    scaling_test(tmp_path, "32", 32, wait=3)
    run = run_pytest(tmp_path, "--openenv-target", "local:ending:app,workers=2,server=uvicorn")
    (refusal,) = run.refusals()
    rows = run.rows()
    pids = set(rows.filter(rows["success"])["pid"].to_pylist())
    assert (refusal["cause"], refusal["figures"]["pid"] in pids) == ("worker_killed", False)


def test_a_server_out_of_descriptors_is_named_with_ulimit(tmp_path: Path) -> None:
    scaling_test(tmp_path, "1,8,128", 128)
    with uvicorn_server(tmp_path, prefix="ulimit -n 64;") as url:
        run = run_pytest(tmp_path, "--openenv-url", url)
    assert run.code == 1
    assert "ulimit -n" in run.output
    assert "descriptors" in [refused["cause"] for refused in run.refusals()]


def test_a_real_openenv_server_under_uvicorn_is_measured(tmp_path: Path) -> None:
    python = openenv_python(OPENENV_0_10)
    (tmp_path / "served.py").write_text(
        "from openenv.core.env_server import Action, Environment, Observation, State, create_app\n"
        "class Hello(Environment):\n"
        "    SUPPORTS_CONCURRENT_SESSIONS = True\n"
        "    def reset(self, seed=None, episode_id=None, **kwargs):\n"
        "        return Observation(done=False, reward=0.0)\n"
        "    def step(self, action, timeout_s=None, **kwargs):\n"
        "        return Observation(done=False, reward=1.0)\n"
        "    @property\n"
        "    def state(self):\n"
        "        return State(episode_id='e', step_count=0)\n"
        "app = create_app(Hello, Action, Observation, env_name='hello', max_concurrent_envs=32)\n"
    )
    scaling_test(tmp_path, "1,16,64", 64)
    with uvicorn_server(tmp_path, app="served:app", python=str(python)) as url:
        run = run_pytest(tmp_path, "--openenv-url", url)
    assert run.code == 1, run.output
    assert "max batch 16" in run.output
    assert "CAPACITY_REACHED at 32 sessions" in run.output


def test_a_server_killed_in_mid_cell_leaves_a_verdict_and_every_row(tmp_path: Path) -> None:
    scaling_test(tmp_path, "2,16", 16, wait=3)
    process = subprocess.Popen(
        command("--openenv-target", "local:builtin,workers=1", "--openenv-full-grid"),
        cwd=tmp_path,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "batch 2 ·" in line:
                break
        (sealed,) = (tmp_path / ".openenv-results").glob("*/sessions.parquet/*.parquet")
        before = sealed.read_bytes()
        time.sleep(1)  # Into the three seconds of the second cell's step.
        (server,) = {child.pid for child in psutil.Process(process.pid).children(recursive=True) if _listens(child)}
        os.kill(server, signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    output = "".join(lines) + rest
    assert process.returncode == 1
    assert "SIGKILL" in output
    assert "SLO missed" in output
    assert sealed.read_bytes() == before
    (run_dir,) = (tmp_path / ".openenv-results").glob("2*")
    report = json.loads((run_dir / "report.json").read_text())
    assert report["status"] in ("complete", "failed")
    rebuilt = subprocess.run(
        [sys.executable, "-m", "pytest_openenv_scale", "report", str(run_dir)],
        env={**environ(), "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert rebuilt.returncode == 0, rebuilt.stderr
    import pyarrow.parquet as pq

    rows = pq.read_table(run_dir / "sessions.parquet")
    killed = rows.filter(pc.equal(rows["batch_size"], 16))
    assert sorted(killed["request_id"].to_pylist()) == list(range(16))
    assert set(killed["error_phase"].to_pylist()) == {"step"}


def _listens(process: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections())
