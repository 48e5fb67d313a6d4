"""The scripts of deploy/slurm on a real Slurm, run by hand as an operator runs them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from goldens import Golden
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.slurm.spec import last_complaint, read_connection
from server_process import server_environ
from slurm_cluster import SlurmCluster, slurm_or_skip

pytestmark = pytest.mark.real

WAIT_S = 40.0
TEST = """\
import pytest
@pytest.mark.scaling(batches="6", waits=[0.1])
@pytest.mark.slo(max_batch=6{limits})
def test_it(scaling): scaling.run()
"""


@pytest.fixture(scope="module")
def cluster() -> Generator[SlurmCluster]:
    with slurm_or_skip(nodes=3) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: SlurmCluster) -> Generator[None]:
    """After every test all nodes are free again, and no job's process is left on one."""
    yield
    cluster.cancel_all()
    _, alive = psutil.wait_procs(processes(cluster), timeout=10)
    assert alive == []


def processes(cluster: SlurmCluster, node: str | None = None) -> list[psutil.Process]:
    """The processes of jobs, on one node or on all."""
    return [
        process
        for process in psutil.process_iter()
        if (environ := environ_or_none(process)).get("SLURM_CONF") == cluster.environ["SLURM_CONF"]
        and environ.get("SLURMD_NODENAME", "") in ([node] if node else ["node1", "node2", "node3"])
    ]


def environ_or_none(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error):
        return process.environ()
    return {}


def environ_of(cluster: SlurmCluster, **settings: str) -> dict[str, str]:
    ports = {name: str(free_port(cluster)) for name in ("PORT", "ENVOY_PORT", "ENVOY_ADMIN_PORT")}
    return server_environ(**{**cluster.environ, "PYTHON": sys.executable, **ports, **settings})


def free_port(cluster: SlurmCluster) -> int:
    """Return a port that is free on every node: other clusters on this machine have the same addresses."""
    while True:
        with ExitStack() as bound:
            port = 0
            with suppress(OSError):
                for address in ("127.0.0.1", *cluster.addresses):
                    free = bound.enter_context(socket.socket())
                    free.bind((address, port))
                    port = int(free.getsockname()[1])
                return port


def until(holds: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)


def submit(cluster: SlurmCluster, folder: Path, name: str, *options: str, **settings: str) -> str:
    """Submit a script of deploy/slurm from a folder and return the job's number."""
    command = ["sbatch", "--parsable", "--cpus-per-task=2", *options, str(deploy_file(f"slurm/{name}"))]
    environ = environ_of(cluster, **settings)
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def allocated(cluster: SlurmCluster, folder: Path, **settings: str) -> Generator[subprocess.Popen[bytes]]:
    """Run alloc.sh with serve_multi.sh in it, as at a terminal, until the block ends."""
    command = [str(deploy_file("slurm/alloc.sh")), str(deploy_file("slurm/serve_multi.sh"))]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            command,
            cwd=folder,
            env=environ_of(cluster, CPUS_PER_WORKER="2", **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
        running.wait(30)


def measure(folder: Path, limits: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TEST.format(limits=limits))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--openenv-url", "env:openenv-connection.env"]
    return subprocess.run(
        [*command, "test_it.py"], cwd=folder, env=server_environ(), capture_output=True, text=True, check=False
    )


def kill_server(cluster: SlurmCluster, node: str) -> None:
    """Kill a node's server and its workers with SIGKILL."""
    servers = [one for one in processes(cluster, node) if "python" in one.name()]
    assert servers
    for process in servers:
        process.kill()


def test_a_job_of_one_node_serves_until_it_is_cancelled(cluster: SlurmCluster, tmp_path: Path) -> None:
    port = free_port(cluster)
    job = submit(cluster, tmp_path, "serve_single.sbatch", PORT=str(port))
    connection, log = tmp_path / "openenv-connection.env", tmp_path / f"openenv-{job}.log"
    until(connection.exists, log)
    settings = read_connection(connection)
    assert settings is not None
    assert settings["OPENENV_URL"] == settings["WORKER_URLS"] == f"http://{cluster.addresses[0]}:{port}"
    assert (settings["ENVOY_NODE"], settings["WORKER_NODES"], settings["NUM_WORKERS"], settings["JOB_ID"]) == (
        "",
        "node1",
        "1",
        job,
    )
    tested = measure(tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert f"{cluster.addresses[0]}:{port} · ws" in tested.stdout
    cluster.run("scancel", job)
    until(lambda: not connection.exists(), log)


def test_a_job_of_three_nodes_serves_through_envoy_from_its_first_node(cluster: SlurmCluster, tmp_path: Path) -> None:
    port = free_port(cluster)
    job = submit(cluster, tmp_path, "serve_multi.sbatch", "--nodes=3", ENVOY_PORT=str(port))
    until((tmp_path / "openenv-connection.env").exists, tmp_path / f"openenv-{job}.log")
    settings = read_connection(tmp_path / "openenv-connection.env")
    assert settings is not None
    assert (settings["OPENENV_URL"], settings["ENVOY_NODE"]) == (f"http://{cluster.addresses[0]}:{port}", "node1")
    assert (settings["WORKER_NODES"], settings["NUM_WORKERS"]) == ("node1 node2 node3", "3")
    shell = subprocess.run(
        ["bash", "-c", "source openenv-connection.env; echo $OPENENV_URL $WORKER_NODES"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.split() == [f"http://{cluster.addresses[0]}:{port}", "node1", "node2", "node3"]
    tested = measure(tmp_path, limits=", hosts=3")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout


def test_in_an_allocation_made_by_hand_the_death_of_a_server_is_told_and_the_others_go_on(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    connection, log = tmp_path / "openenv-connection.env", tmp_path / "log"
    with allocated(cluster, tmp_path, WORKERS="3") as running:
        until(connection.exists, log)
        kill_server(cluster, "node2")
        until(lambda: "server on node2 ended with code 137" in log.read_text(), log)
        (code,) = tmp_path.glob("openenv-logs/*/server-node2.exit")
        assert code.read_text() == "137\n"
        tested = measure(tmp_path, limits=", hosts=2")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        running.wait(30)
    assert not connection.exists()
    cluster.wait_idle()


def test_several_servers_without_envoy_are_spread_over_by_the_client(cluster: SlurmCluster, tmp_path: Path) -> None:
    port = free_port(cluster)
    settings = {"PORT": str(port), "ENVOY": "none", "SERVER": "uvicorn"}
    job = submit(cluster, tmp_path, "serve_multi.sbatch", "--nodes=2", **settings)
    until((tmp_path / "openenv-connection.env").exists, tmp_path / f"openenv-{job}.log")
    connection_settings = read_connection(tmp_path / "openenv-connection.env")
    assert connection_settings is not None
    assert (
        connection_settings["OPENENV_URL"]
        == f"http://{cluster.addresses[0]}:{port},http://{cluster.addresses[1]}:{port}"
    )
    tested = measure(tmp_path, limits=", hosts=2")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_an_application_that_cannot_be_served_ends_the_job_with_its_log(
    cluster: SlurmCluster, tmp_path: Path, golden: Golden
) -> None:
    job = submit(cluster, tmp_path, "serve_multi.sbatch", OPENENV_APP="no_such_app:app", ENVOY="true")
    log = tmp_path / f"openenv-{job}.log"
    until(lambda: not cluster.jobs(), log)
    complaint = last_complaint(log.read_text())
    assert complaint is not None
    golden(complaint, masks={r"node[12]": "NODE", r"code \d+": "code N", "job-[^/]*|openenv-logs/[^/]*": "JOB"})
    assert "No module named 'no_such_app'" in log.read_text()
    assert not (tmp_path / "openenv-connection.env").exists()


def test_a_missing_envoy_is_told_before_any_server_is_started(
    cluster: SlurmCluster, tmp_path: Path, golden: Golden
) -> None:
    job = submit(cluster, tmp_path, "serve_multi.sbatch", ENVOY="/opt/no/envoy")
    log = tmp_path / f"openenv-{job}.log"
    until(lambda: not cluster.jobs(), log)
    golden(last_complaint(log.read_text()) or "")
    assert list(tmp_path.glob("openenv-logs/*/server-*")) == []
