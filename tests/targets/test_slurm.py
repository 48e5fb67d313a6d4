"""`slurm` on a real Slurm: submitted, attached to, measured and cancelled; every way out leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from components import lacking
from goldens import Golden
from measuring import measure
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.sweep import Observer, Sweep
from pytest_openenv_scale.load.runner import LoadProgress
from pytest_openenv_scale.reporting import sweep_lines
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.envoy.pool import find_envoy
from pytest_run import command, environ, run_pytest, write_test
from slurm_cluster import SlurmCluster, slurm_or_skip

JOB = {r"\bjob \d+": "job ID"}

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("no_guard")]

SWEEP = """
@pytest.mark.scaling(batches="4", waits=[0.05])
def test_it(scaling): scaling.run()
"""

HOLD = """
import pathlib, time
def test_hold(openenv_target):
    pathlib.Path("up").touch()
    time.sleep(300)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own for the logs of jobs, and no allocation it could be in."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openenv-scale" / "slurm"


@pytest.fixture(scope="module")
def shared() -> Generator[SlurmCluster]:
    with slurm_or_skip(3) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environ.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture
def cluster(shared: SlurmCluster) -> Generator[SlurmCluster]:
    """Three free nodes before and after; what a test leaves behind fails it."""
    shared.wait_idle()
    yield shared
    jobs = [line for line in shared.jobs() if " COMPLETING " not in line]
    shared.cancel_all()
    assert jobs == []


@pytest.fixture
def envoy() -> str:
    try:
        return find_envoy()
    except TargetError as error:
        lacking(str(error))


def serve(text: str, root: Path, **options: Any) -> Any:
    return open_target(parse_target(text), root=root, **options)


def eventually(holds: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def terminal_text(sweep: Sweep) -> str:
    """What the terminal shows of a sweep, on one line."""
    return " ".join(" ".join(line.text for line in sweep_lines(sweep.view, width=200)).split())


def server_exits(sweep: Sweep) -> list[ExitStatus]:
    """How the server ended that refused the ten sessions of the one batch."""
    refusals = sweep.verdicts[0].refused
    assert [(refusal.cause, refusal.count, refusal.batch) for refusal in refusals] == [("server_died", 10, 10)]
    return [refusal.exit for refusal in refusals if refusal.exit is not None]


def refused(text: str, root: Path) -> str:
    with pytest.raises(TargetError) as caught, serve(text, root):
        pass
    return str(caught.value)


def start_pytest(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), cwd=folder, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def collect_garbage(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_openenv_scale", "gc", "slurm", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class InMidStep(Observer):
    """Does something once, while every session of the cell is in its step."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._looks = 0

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        # The first look at a batch that is up comes before its steps begin.
        self._looks += progress.open == progress.asked
        if self._looks == 2:
            self._looks += 1
            self._act()


def test_one_node_is_a_server_alone_and_the_job_is_told_live(cluster: SlurmCluster, tmp_path: Path, home: Path) -> None:
    write_test(tmp_path, SWEEP)
    run = run_pytest(tmp_path, "--openenv-target", "slurm:cpus_per_task=2,partition=debug,app=builtin")
    assert run.code == 0, run.output
    assert "submitted job " in run.output
    assert f"openenv-scale-{run.run_dir.name}" in run.output
    assert " runs on node1" in run.output
    assert "is ready after " in run.output
    (record,) = json.loads((run.run_dir / "manifest.json").read_text())["sweeps"]
    assert (record["infrastructure"], record["hosts"], record["cores"]) == ("slurm-single", 1, 2)
    assert record["limits"] == {"nodes": 1, "server": "hypercorn", "workers": 2}
    assert record["hardware"] == "Slurm partition debug: 1 × 2 CPUs"
    assert record["startup_s"] > 0
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("envoy_on", ["node", "client"])
def test_several_nodes_are_one_url_and_every_host_must_share_a_batch(
    cluster: SlurmCluster, tmp_path: Path, envoy: str, envoy_on: str
) -> None:
    with serve(f"slurm:nodes=2,envoy={envoy_on},app=builtin", tmp_path, largest_batch=40) as endpoint:
        assert (endpoint.label, endpoint.hosts, endpoint.cores) == ("slurm-multi", 2, 2)
        assert endpoint.default_limits == {"hosts": 2}
        assert not endpoint.on_loopback  # Others may use the nodes, whichever address they are reached at.
        assert endpoint.sample().processes >= 2
        assert len(endpoint.urls) == 1
        assert (cluster.addresses[0] in endpoint.urls[0]) == (envoy_on == "node")
        sweep = measure(endpoint, tmp_path, 1, 40)
    one, forty = sweep.cells
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert set(forty.host_counts) == {host for host in forty.proxy.requests if host.startswith("127.0.")}
    assert forty.proxy.requests == forty.host_counts
    assert sum(forty.host_counts.values()) == 40
    # A batch of one need not reach two hosts.
    assert one.proxy.hosts == 1


def test_an_app_of_ones_own_is_served_from_its_folder_with_its_limit(cluster: SlurmCluster, tmp_path: Path) -> None:
    root = tmp_path / "my env"
    root.mkdir()
    (root / "openenv.yaml").write_text("app: mine:app\n")
    (root / "mine.py").write_text("from pytest_openenv_scale.server.app import app\n")
    with serve("slurm:max_envs=3,env.NOTE=secret,dir=" + str(tmp_path / "lo gs"), root) as endpoint:
        assert endpoint.limits["max_envs"] == 3
        assert endpoint.limits["workers"] == 1
        (number,) = [line.split()[0] for line in cluster.jobs()]
        assert "secret" not in cluster.run("scontrol", "write", "batch_script", number, "-")
        assert "Running on" in endpoint.log_tail(20)
        sweep = measure(endpoint, tmp_path, 6)
    (cell,) = sweep.cells
    assert cell.successful == 3
    assert "MAX_CONCURRENT_ENVS" in terminal_text(sweep)
    assert list((tmp_path / "lo gs").iterdir()) == []


@pytest.fixture
def allocation(cluster: SlurmCluster) -> Generator[str]:
    """The number of an allocation of two nodes that somebody else made."""
    done = subprocess.run(
        ["salloc", "--no-shell", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    number = done.stderr.split("Granted job allocation ")[1].split()[0]
    yield number
    cluster.run("scancel", number)
    cluster.wait_idle()


def test_an_allocation_that_exists_is_used_and_left_as_it_was(
    cluster: SlurmCluster, tmp_path: Path, envoy: str, allocation: str, home: Path
) -> None:
    with serve(f"slurm:job={allocation},app=builtin", tmp_path) as endpoint:
        assert (endpoint.label, endpoint.hosts, endpoint.cores) == ("slurm-multi", 2, 4)
        assert endpoint.limits["workers"] == 2
        sweep = measure(endpoint, tmp_path, 20)
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert [line.split()[:2] for line in cluster.jobs()] == [[allocation, "RUNNING"]]
    assert eventually(lambda: not steps(cluster, allocation), 10)
    assert list(home.iterdir()) == []


def steps(cluster: SlurmCluster, job: str) -> list[str]:
    """The steps of a job but for the one every allocation has."""
    lines = cluster.run("squeue", "--steps", "--noheader", f"--jobs={job}", "--format=%i").splitlines()
    return [line for line in lines if not line.endswith((".extern", ".batch"))]


def test_inside_an_allocation_it_is_used_as_it_is(cluster: SlurmCluster, tmp_path: Path, golden: Golden) -> None:
    write_test(tmp_path, SWEEP)
    done = subprocess.run(
        ["salloc", "--nodes=2", *command("--openenv-target", "slurm:nodes=1,partition=short,app=builtin", "-rA")],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "submitted job" not in output
    golden("\n".join(line for line in output.splitlines() if "changed nothing" in line), masks=JOB)
    assert "slurm-single" in output


def test_nodes_that_were_killed_with_pytest_leave_the_allocation_empty(
    cluster: SlurmCluster, tmp_path: Path, allocation: str
) -> None:
    write_test(tmp_path, HOLD)
    process = start_pytest(tmp_path, "--openenv-target", f"slurm:job={allocation},nodes=1,app=builtin")
    assert eventually((tmp_path / "up").exists), process.communicate()[0]
    assert steps(cluster, allocation)
    process.kill()
    process.communicate()
    assert eventually(lambda: not steps(cluster, allocation), 20)
    assert [line.split()[:2] for line in cluster.jobs()] == [[allocation, "RUNNING"]]


def test_an_allocation_that_is_over_or_too_small_is_refused(
    cluster: SlurmCluster, tmp_path: Path, golden: Golden
) -> None:
    golden(refused("slurm:job=99999,app=builtin", tmp_path))


def test_a_drained_node_is_named_with_its_reason(cluster: SlurmCluster, tmp_path: Path, golden: Golden) -> None:
    cluster.run("scontrol", "update", "nodename=node3", "state=drain", "reason=bad disk")
    try:
        message = refused("slurm:nodes=3,pending_timeout=4s,app=builtin", tmp_path)
    finally:
        cluster.run("scontrol", "update", "nodename=node3", "state=resume")
    golden(message, masks=JOB | {"Slurm says [^(]*": "Slurm says REASON "})
    assert cluster.jobs() == []


@pytest.mark.parametrize("json_support", [True, False], ids=["json", "text"])
def test_a_job_that_stays_pending_is_cancelled_at_the_deadline_with_slurms_reason(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json_support: bool
) -> None:
    if not json_support:
        no_json(tmp_path, monkeypatch)
    busy(cluster)
    lines: list[str] = []
    target = serve("slurm:cpus_per_task=2,pending_timeout=3s,app=builtin", tmp_path, show_progress=lines.append)
    with pytest.raises(TargetError) as caught, target:
        pass
    error = str(caught.value)
    assert "is cancelled" in error
    assert " Resources" in error
    assert "pending_timeout=" in error
    assert any("is pending: Resources" in line for line in lines), lines
    assert [line.split()[2] for line in cluster.jobs()] == ["somebody"]
    cluster.cancel_all()


def busy(cluster: SlurmCluster) -> None:
    """Give every node to somebody else."""
    arguments = ["--job-name=somebody", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 300"]
    cluster.run("sbatch", *arguments)
    assert eventually(lambda: "RUNNING" in "".join(cluster.jobs()), 20)


def no_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a squeue in front that knows as little of JSON as one without its plugin."""
    programs = folder / "bin"
    programs.mkdir()
    squeue = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout.strip()
    script = f'case "$*" in *--json*) echo "squeue: unrecognized option" >&2; exit 1;; esac\nexec {squeue} "$@"\n'
    (programs / "squeue").write_text(f"#!/bin/sh\n{script}")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_slurm_without_json_serves_too(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_json(tmp_path, monkeypatch)
    with serve("slurm,app=builtin", tmp_path) as endpoint:
        assert (endpoint.hosts, endpoint.cores) == (1, 1)


def test_ctrl_c_while_pending_cancels_the_job(cluster: SlurmCluster, tmp_path: Path, home: Path) -> None:
    busy(cluster)
    write_test(tmp_path, HOLD)
    process = start_pytest(tmp_path, "--openenv-target", "slurm:nodes=3,cpus_per_task=2,app=builtin")
    assert eventually(lambda: any("PENDING" in line for line in cluster.jobs()))
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 2, output
    assert [line.split()[2] for line in cluster.jobs()] == ["somebody"]
    assert list(home.iterdir()) == []
    cluster.cancel_all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_while_running_cancel_the_job(
    cluster: SlurmCluster, tmp_path: Path, home: Path, number: signal.Signals
) -> None:
    write_test(tmp_path, HOLD)
    process = start_pytest(tmp_path, "--openenv-target", "slurm,app=builtin")
    assert eventually((tmp_path / "up").exists), process.communicate()[0]
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 2, output
    assert cluster.jobs() == []
    assert list(home.iterdir()) == []


def test_what_a_kill_9_leaves_is_cancelled_by_gc_and_a_living_run_is_not(
    cluster: SlurmCluster, tmp_path: Path, home: Path
) -> None:
    write_test(tmp_path, HOLD)
    process = start_pytest(tmp_path, "--openenv-target", "slurm,app=builtin")
    assert eventually((tmp_path / "up").exists), process.communicate()[0]
    assert collect_garbage() == "nothing left behind"
    (job,) = cluster.jobs()
    number, state, name = job.split()
    time_limit = cluster.run("squeue", "--noheader", f"--jobs={number}", "--format=%l")
    process.kill()
    process.communicate()
    assert cluster.jobs() == [job]
    assert state == "RUNNING"
    # Slurm itself ends it within the hour.
    assert time_limit == "1:00:00"
    assert f"would remove Slurm job {number} ({name})" in collect_garbage("--dry-run")
    assert cluster.jobs() == [job]
    assert f"removed Slurm job {number} ({name})" in collect_garbage()
    assert eventually(lambda: not cluster.jobs(), 20)
    assert list(home.iterdir()) == []


def test_a_server_that_is_killed_alone_on_its_node_ends_the_job_and_is_named(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    with serve("slurm,app=builtin", tmp_path) as endpoint:

        def kill() -> None:
            for process in cluster.processes("node1"):
                if process.name().startswith("python"):
                    process.kill()

        sweep = measure(endpoint, tmp_path, 10, wait=3.0, observer=InMidStep(kill))
    assert sweep.outcome is Outcome.MISSED
    (ended,) = server_exits(sweep)
    assert (ended.kind, ended.stage, ended.code, ended.signal) == ("job", "FAILED", 137, "SIGKILL")
    assert "node1" in ended.text


def test_a_node_that_dies_in_mid_cell_is_named_in_the_verdict(tmp_path: Path, envoy: str) -> None:
    with slurm_or_skip(2) as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", own.environ["SLURM_CONF"])
        with serve("slurm:nodes=2,app=builtin", tmp_path) as endpoint:
            sweep = measure(endpoint, tmp_path, 20, wait=4.0, observer=InMidStep(lambda: own.kill("node2")))
            # The other node serves on.
            assert own.jobs()[0].split()[1] == "RUNNING"
            own.notice("node2")
    (cell,) = sweep.cells
    assert sweep.outcome is Outcome.MISSED
    assert cell.successful == 10
    (refusal,) = sweep.verdicts[0].refused
    (incident,) = refusal.incidents
    assert (refusal.cause, refusal.count) == ("host_lost", 10)
    assert incident.host.startswith(f"{own.addresses[1]}:")
    assert incident.text is not None
    assert "on node2" in incident.text


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_somebody_cancels_in_mid_cell_is_named(
    cluster: SlurmCluster, tmp_path: Path, envoy: str, nodes: int
) -> None:
    with serve(f"slurm:nodes={nodes},app=builtin", tmp_path) as endpoint:
        # As many as Slurm gave CPUs on a node, not as many as the machine has.
        assert endpoint.limits["workers"] == 1
        (job,) = [line.split()[0] for line in cluster.jobs()]
        sweep = measure(endpoint, tmp_path, 10, wait=3.0, observer=InMidStep(lambda: cluster.run("scancel", job)))
    assert sweep.outcome is Outcome.MISSED
    (ended,) = server_exits(sweep)
    assert (ended.kind, ended.stage) == ("job", "CANCELLED")
    assert f"job {job} " in ended.text
    assert "still runs" not in terminal_text(sweep)


def test_what_sbatch_refuses_is_said_in_one_line_with_what_to_write(
    cluster: SlurmCluster, tmp_path: Path, golden: Golden
) -> None:
    invalid_keys = ("partition=nope", "nodes=40", "partition=short,time=30")
    texts = [refused(f"slurm:{keys},app=builtin", tmp_path) for keys in invalid_keys]
    assert not [text for text in texts if "\n" in text]
    golden("\n".join(texts), masks={"submission failed: [^:]*": "submission failed: REASON"})


def test_a_missing_slurm_is_said_before_anything_starts(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    golden(refused("slurm,app=builtin", tmp_path))
    assert not home.exists()


def test_a_missing_envoy_on_the_node_is_said(cluster: SlurmCluster, tmp_path: Path) -> None:
    message = refused("slurm:nodes=2,app=builtin,env.ENVOY=/nonexistent/envoy", tmp_path)
    assert "/nonexistent/envoy" in message.partition("\n")[0]


def test_a_port_that_is_taken_on_a_node_names_the_node_and_shows_its_log(cluster: SlurmCluster, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind((cluster.addresses[0], 0))
        port = listener.getsockname()[1]
        message = refused(f"slurm:port={port},start_timeout=20s,app=builtin", tmp_path)
    assert f"node1 ({cluster.addresses[0]}:{port})" in message or "server on node1" in message
    assert "address already in use" in message.lower()


@pytest.mark.matrix
def test_three_nodes_behind_envoy_hold_3000_sessions_each(cluster: SlurmCluster, tmp_path: Path, envoy: str) -> None:
    with serve("slurm:nodes=3,envoy=node,app=builtin", tmp_path, largest_batch=9000) as endpoint:
        sweep = measure(endpoint, tmp_path, 9000, wait=1.0, timeout=120.0, slo={"success": 1.0})
    (cell,) = sweep.cells
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert cell.peak_concurrency == 9000
    assert cell.host_counts == cell.proxy.requests
    assert max(cell.host_counts.values()) - min(cell.host_counts.values()) <= 1
    assert "hosts ≥ 3" in terminal_text(sweep)
