"""The scripts of deploy/slurm with programs that stand in for Slurm's: what is run, written and said."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from components import shellcheck
from goldens import Golden
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.envoy.config import Backend, EnvoySettings, render
from pytest_openenv_scale.targets.slurm.spec import JobPlan, last_complaint, read_connection

SCRIPTS = ("alloc.sh", "serve_multi.sh", "serve_multi.sbatch", "serve_single.sbatch")
GOLDEN = Path(__file__).with_name("golden")

PROGRAMS = {
    "scontrol": """\
        case "$2" in
        hostnames) printf '%s\\n' node1 node2 ;;
        node) echo "NodeName=$3 Arch=x86_64 NodeAddr=$(sed -n "s/^$3 //p" "$FAKE/addresses") NodeHostName=$3" ;;
        job) printf '   UserId=x\\n   Command=%s\\n   WorkDir=/\\n' "$FAKE/a folder/serve_multi.sbatch" ;;
        esac""",
    "squeue": "echo 'node[1-2]'",
    "srun": """\
        echo "$*" >>"$FAKE/sruns"
        log=/dev/stdout
        while [[ $1 == --* ]]; do
            [[ $1 != --output=* ]] || log=${1#--output=}
            shift
        done
        exec "$@" >"$log" 2>&1""",
    "hostname": 'if [[ ${1:-} == -I ]]; then echo "127.0.0.9 10.0.0.9"; else echo login; fi',
    "salloc": 'printf "%s\\n" "$@" "CPUS_PER_WORKER=$CPUS_PER_WORKER" "WORKERS=${WORKERS-unset}"',
    "python": f"""\
        [[ $1 != -c ]] || exit 1
        [[ -z ${{FAIL:-}} ]] || {{ echo "No module named 'nowhere'"; exit 3; }}
        echo "$HOST $WORKERS $MAX_CONCURRENT_ENVS $PYTHONPATH $PWD $*" >>"$FAKE/servers"
        exec {sys.executable} "$FAKE/answer.py" "$HOST" "$PORT" """,
    "envoy": f"""\
        exec {sys.executable} "$FAKE/answer.py" 127.0.0.2 "$ENVOY_PORT" """,
}
ANSWER = """\
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder with the programs, of which the nodes are 127.0.0.2 and 127.0.0.3."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, body in PROGRAMS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "answer.py").write_text(ANSWER)
    (folder / "addresses").write_text("node1 127.0.0.2\nnode2 127.0.0.3\n")
    return folder


def environ(fake: Path | None = None, **settings: str) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(fake) if fake else "", os.environ["PATH"]]))
    programs = {"FAKE": str(fake), "PYTHON": str(fake / "python"), "ENVOY": str(fake / "envoy")} if fake else {}
    return {"PATH": paths, "HOME": "/home/somebody", **programs, **settings}


def run(name: str, *arguments: str, fake: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(deploy_file(f"slurm/{name}")), *arguments]
    cwd = fake.parent if fake else None
    return subprocess.run(
        command, cwd=cwd, env=environ(fake, **settings), capture_output=True, text=True, check=False, timeout=60
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(fake: Path, **settings: str) -> Generator[dict[str, str]]:
    """Run serve_multi.sh on two nodes until the block ends; yields what its connection file says."""
    connection, log = fake.parent / "openenv-connection.env", fake.parent / "log"
    ports = {"PORT": str(free_port()), "ENVOY_PORT": str(free_port())}
    with log.open("wb") as out:
        running = subprocess.Popen(
            ["bash", str(deploy_file("slurm/serve_multi.sh"))],
            cwd=fake.parent,
            env=environ(fake, **{"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", **ports, **settings}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        while not connection.exists():
            assert running.poll() is None, log.read_text()
            time.sleep(0.02)
        yield read_connection(connection) or {}
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
        assert not connection.exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_can_be_run_and_says_where_it_belongs(golden: Golden, name: str) -> None:
    assert os.access(deploy_file(f"slurm/{name}"), os.X_OK)
    if name.endswith(".sbatch"):
        completed = run(name)
        assert (completed.returncode, completed.stdout) == (2, "")
        golden(completed.stderr)
    else:
        completed = run(name, "--help")
        assert (completed.returncode, completed.stderr) == (0, "")
        assert completed.stdout.startswith(f"usage: {name} ")


def test_shellcheck_finds_nothing() -> None:
    paths = [str(deploy_file(f"slurm/{name}")) for name in SCRIPTS]
    assert shellcheck(*paths) == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_site_is_in_a_script(name: str) -> None:
    text = deploy_file(f"slurm/{name}").read_text()
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert not [line for line in directives if "partition" in line or "account" in line or "qos" in line]
    assert not any(word in text for word in ("/home/", "/fsx", "/scratch"))


def test_every_knob_that_is_read_is_explained() -> None:
    text = deploy_file("slurm/serve_multi.sh").read_text()
    usage = text[text.index("usage: ") : text.index("TEXT\n}")]
    read = set(re.findall(r"\$\{([A-Z][A-Z_]+):?[-+]", text))
    not_knobs = {"APP", "PYTHONPATH", "SLURM_CPUS_PER_TASK", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_NODELIST"}
    assert {"OPENENV_APP", "CPUS_PER_WORKER", "ENVOY_PORT", "CONNECTION", "LOG_DIR"} <= read
    assert [knob for knob in sorted(read - not_knobs) if not re.search(rf"\b{knob}\b", usage)] == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SLURM_JOB_ID": "7", "PORT": "x"},
        {"SLURM_JOB_ID": "7", "WORKERS": "0"},
        {"SLURM_JOB_ID": "7", "SERVER": "nginx"},
        {"SLURM_JOB_ID": "7", "ENVOY_LB": "x"},
        {"SLURM_JOB_ID": "7", "OPENENV_DIR": "/no/such"},
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(golden: Golden, settings: dict[str, str], fake: Path) -> None:
    done = run("serve_multi.sh", fake=fake, **settings)
    assert done.returncode == 2
    golden(done.stderr)
    assert done.stderr == f"serve_multi.sh: {last_complaint(done.stderr)}\n"
    assert not (fake / "sruns").exists()


def test_servers_and_envoy_are_steps_on_their_nodes_and_the_connection_file_tells_of_them(fake: Path) -> None:
    settings = {"CPUS_PER_WORKER": "4", "MAX_CONCURRENT_ENVS": "500", "OPENENV_PATH": "/x:/y", "ENVOY_STATS_PORT": "9"}
    with serving(fake, **settings) as connection:
        port, url = connection["WORKER_URLS"].rpartition(":")[2], connection["OPENENV_URL"]
        assert connection["WORKER_URLS"] == f"http://127.0.0.2:{port} http://127.0.0.3:{port}"
        assert url.startswith("http://127.0.0.2:")
        assert not url.endswith(f":{port}")
        assert (connection["ENVOY_NODE"], connection["WORKER_NODES"], connection["NUM_WORKERS"]) == (
            "node1",
            "node1 node2",
            "2",
        )
        assert (connection["JOB_ID"], connection["ENVOY_STATS"]) == ("7", "127.0.0.2:9")
        servers = sorted((fake / "servers").read_text().splitlines())
    assert [line.split()[:5] for line in servers] == [
        [address, "4", "500", "/x:/y", str(fake.parent)] for address in ("127.0.0.2", "127.0.0.3")
    ]
    steps = (fake / "sruns").read_text().splitlines()
    assert {step.partition(" --output")[0] for step in steps[:2]} == {
        f"--jobid=7 --overlap --export=ALL --input=none --nodes=1 --ntasks=1 --nodelist={node} --cpus-per-task=4"
        for node in ("node1", "node2")
    }
    assert "--nodelist=node1" in steps[2]
    assert str(fake / "envoy") in steps[2]
    assert "--concurrency 2" in steps[2]


@pytest.mark.parametrize("stats", ["", "9902"])
def test_the_configuration_of_envoy_is_the_one_the_targets_use(fake: Path, stats: str) -> None:
    settings = {
        "ENVOY_STATS_PORT": stats,
        "ENVOY_BREAKER": "5000",
        "ENVOY_BACKLOG": "4096",
        "ENVOY_LB": "least_request",
    }
    with serving(fake, **settings) as connection:
        (written,) = fake.parent.glob("openenv-logs/7/envoy.yaml")
        configuration = written.read_text()
    port = int(connection["WORKER_URLS"].rpartition(":")[2])
    assert configuration.rstrip("\n") == render(
        EnvoySettings(
            port=int(connection["OPENENV_URL"].rpartition(":")[2]),
            backends=(Backend("127.0.0.2", port), Backend("127.0.0.3", port)),
            policy="least_request",
            breaker=5000,
            backlog=4096,
            address="127.0.0.2",
            admin_port=9901,
            stats_port=int(stats or 0),
        )
    ).rstrip("\n")


def test_without_envoy_clients_are_told_all_servers(fake: Path) -> None:
    with serving(fake, ENVOY="none") as connection:
        assert connection["OPENENV_URL"].split(",") == connection["WORKER_URLS"].split()
        assert connection["ENVOY_NODE"] == ""


def test_a_file_of_an_earlier_job_is_gone_before_the_servers_start(fake: Path) -> None:
    (fake.parent / "openenv-connection.env").write_text("OPENENV_URL=http://gone:1\n")
    done = run("serve_multi.sh", fake=fake, SLURM_JOB_ID="7", FAIL="1", PORT=str(free_port()))
    assert done.returncode == 1
    assert not (fake.parent / "openenv-connection.env").exists()


def test_a_server_that_ends_at_once_is_named_with_its_code_and_its_log(golden: Golden, fake: Path) -> None:
    done = run("serve_multi.sh", fake=fake, SLURM_JOB_ID="7", FAIL="1", PORT=str(free_port()))
    assert done.returncode == 1
    complaint = last_complaint(done.stderr)
    assert complaint is not None
    golden(complaint)
    assert "No module named 'nowhere'" in done.stderr
    assert "3\n" in {code.read_text() for code in fake.parent.glob("openenv-logs/7/server-*.exit")}


def test_a_server_that_never_answers_is_named_when_its_time_is_up(golden: Golden, fake: Path) -> None:
    (fake / "answer.py").write_text("import time; time.sleep(60)")
    done = run("serve_multi.sh", fake=fake, SLURM_JOB_ID="7", START_TIMEOUT="1", PORT="8123")
    assert done.returncode == 1
    golden(done.stderr)


def test_a_missing_envoy_is_told_before_anything_starts(golden: Golden, fake: Path) -> None:
    done = run("serve_multi.sh", fake=fake, SLURM_JOB_ID="7", ENVOY="/no/envoy")
    golden(last_complaint(done.stderr))
    assert not (fake / "sruns").exists()


def test_a_node_whose_name_does_not_resolve_here_is_asked_itself(fake: Path) -> None:
    (fake / "addresses").write_text("node1 node1.no-such-host.invalid\nnode2 127.0.0.3\n")
    with serving(fake, ENVOY="none") as connection:
        assert connection["WORKER_URLS"].startswith("http://127.0.0.9:")
        assert "--nodelist=node1 hostname -I" in (fake / "sruns").read_text()


def test_a_node_without_any_address_is_named(golden: Golden, fake: Path) -> None:
    (fake / "addresses").write_text("node1 127.0.0.2\nnode2 node2.no-such-host.invalid\n")
    (fake / "hostname").write_text("#!/bin/sh\nexit 1\n")
    done = run("serve_multi.sh", fake=fake, SLURM_JOB_ID="7")
    golden(last_complaint(done.stderr))


@pytest.mark.parametrize(("has", "uses"), [("2", "2"), ("8(x2)", "8"), ("8,4(x3)", "8")])
def test_where_nobody_asked_for_cpus_a_server_has_those_of_the_job_on_a_node(has: str, uses: str, fake: Path) -> None:
    with serving(fake, ENVOY="none", SLURM_JOB_CPUS_PER_NODE=has):
        assert f"--cpus-per-task={uses} " in (fake / "sruns").read_text()


def test_alloc_asks_for_a_node_per_worker_and_leaves_the_number_of_processes_open(fake: Path) -> None:
    settings = {"WORKERS": "3", "CPUS_PER_WORKER": "8", "TIME": "2:00:00", "PARTITION": "cpu", "MEM": "16G"}
    done = run("alloc.sh", "--exclusive", "./serve_multi.sh", fake=fake, **settings)
    assert done.stdout.splitlines() == [
        *("--job-name=openenv", "--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=8", "--time=2:00:00"),
        *("--no-kill", "--mem=16G", "--partition=cpu", "--exclusive", "./serve_multi.sh"),
        *("CPUS_PER_WORKER=8", "WORKERS=unset"),
    ]


@pytest.mark.parametrize("name", ["serve_single.sbatch", "serve_multi.sbatch"])
def test_a_job_finds_what_serves_beside_the_file_it_was_submitted_from(golden: Golden, name: str, fake: Path) -> None:
    (fake / "a folder").mkdir()
    done = run(name, fake=fake, SLURM_JOB_ID="7")
    assert done.returncode == 2
    golden(last_complaint(done.stderr))
    (fake / "a folder" / "serve_multi.sh").write_text("echo served by job $SLURM_JOB_ID\n")
    assert run(name, fake=fake, SLURM_JOB_ID="7").stdout == "served by job 7\n"


PLAN = JobPlan(
    nodes=2,
    directives=("--job-name=openenv-scale-1", "--nodes=2", "--time=60"),
    variables={"OPENENV_APP": "server.app:app", "PORT": "8000", "OPENENV_DIR": "/a folder/it's"},
)


def without_place(text: str) -> str:
    return text.replace(str(deploy_file("slurm")), "/DEPLOY/slurm")


def test_the_job_of_a_target_is_the_script_with_its_own_directives_and_settings() -> None:
    assert without_place(PLAN.script) == (GOLDEN / "slurm_multi.sbatch").read_text()


def test_in_an_allocation_that_exists_it_is_the_same_without_directives() -> None:
    text = PLAN.script
    assert replace(PLAN, directives=()).script == "\n".join(
        line for line in text.split("\n") if not line.startswith("#SBATCH")
    )


def test_the_settings_of_a_job_reach_what_serves(fake: Path) -> None:
    (fake / "serve_multi.sh").write_text('echo "$OPENENV_APP|$PORT|$OPENENV_DIR|$ENVOY"\n')
    script = JobPlan(1, (), PLAN.variables, envoy=False).script
    script = script.replace(str(deploy_file("slurm")), str(fake))
    done = subprocess.run(
        ["bash"], input=script, env=environ(fake, SLURM_JOB_ID="7"), capture_output=True, text=True, check=False
    )
    assert done.stdout == "server.app:app|8000|/a folder/it's|none\n"


def test_a_connection_file_that_is_not_there_yet_tells_nothing(tmp_path: Path) -> None:
    assert read_connection(tmp_path / "openenv-connection.env") is None


def test_output_without_a_complaint_has_none() -> None:
    assert last_complaint("10:00:00 serving on node1\n") is None
    assert last_complaint("serve_multi.sh: one\nlog\nserve_multi.sh: two\n") == "two"
