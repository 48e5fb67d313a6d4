"""The text of Slurm targets, what their jobs are submitted with, and what is said of them; no Slurm is asked."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from goldens import Golden
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.plugin.target import label_suffix
from pytest_openenv_scale.targets import gc, open_target, target_names
from pytest_openenv_scale.targets.common.leftovers import owner_label
from pytest_openenv_scale.targets.common.options import FirstSession, TargetContext
from pytest_openenv_scale.targets.envoy.pool import HostState
from pytest_openenv_scale.targets.slurm import job as slurm_job
from pytest_openenv_scale.targets.slurm import job_info
from pytest_openenv_scale.targets.slurm import servers as slurm_servers
from pytest_openenv_scale.targets.slurm.job import BatchJob, JobFolder, ServingJob
from pytest_openenv_scale.targets.slurm.job_info import (
    Job,
    Node,
    SlurmError,
    call,
    error_summary,
    find_nodes,
    format_nodes,
    is_hopeless,
    parse_unusable,
    pending_remedy,
    refusal_remedy,
    waiting_words,
)
from pytest_openenv_scale.targets.slurm.servers import NodeServers, Serving
from pytest_openenv_scale.targets.slurm.spec import JobIdentity, JobPlan, SlurmSpec, default_folder
from pytest_openenv_scale.targets.slurm.target import SlurmTarget, find_exit_status

JOB = JobIdentity("openenv-scale-run7", "1:2:3", Path("/shared/job-7"), 20001, 20002, 20003, 20004)


def spec(text: str) -> SlurmSpec:
    return SlurmSpec.parse(parse_target(text))


def request(text: str, root: Path, nodes: int = 1, job: JobIdentity = JOB) -> JobPlan:
    return spec(text).plan(TargetContext(root, 100), job, nodes=nodes)


def test_slurm_is_a_target_and_options_may_stand_after_the_colon(tmp_path: Path) -> None:
    assert "slurm" in target_names()
    assert open_target(parse_target("slurm:nodes=2,partition=a"), root=tmp_path).spec == "slurm:nodes=2,partition=a"
    assert spec("slurm:nodes=2").nodes == spec("slurm,nodes=2").nodes == 2
    assert spec("slurm").nodes is None


@pytest.mark.parametrize(
    "text",
    [
        "slurm:two",
        "slurm:nodes=0",
        "slurm:node=2",
        "slurm:time=soon",
        "slurm:envoy=here",
        "slurm:job=7,partition=gpu",
        "slurm:nodes=2,envoy=client,envoy_port=80",
        "slurm:extra=exclusive",
        "slurm:extra=--nodes=4",
        "slurm:extra=-N4",
        "slurm:extra=--comment=x",
        "slurm:extra=-e/dev/null",
        "slurm:extra='--exclusive",
        "slurm:app=mine",
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_starts(golden: Golden, text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        spec(text)
    golden(caught.value)


def test_keys_become_options_of_sbatch(tmp_path: Path) -> None:
    text = (
        "slurm:app=builtin,nodes=2,partition=cpu,account=me,qos=fast,constraint=ib,mem=4G,cpus_per_task=8,time=2:00:00,"
        "extra='--exclusive --gres=gpu:1'"
    )
    assert request(text, tmp_path, 2).directives == (
        "--job-name=openenv-scale-run7",
        "--comment=openenv-scale-owner=1:2:3",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--time=2:00:00",
        "--output=/shared/job-7/job.log",
        f"--chdir={tmp_path}",
        "--no-requeue",
        "--no-kill",
        "--partition=cpu",
        "--account=me",
        "--qos=fast",
        "--constraint=ib",
        "--mem=4G",
        "--cpus-per-task=8",
        "--exclusive",
        "--gres=gpu:1",
    )


def test_a_job_always_has_a_time_limit_and_one_node_ends_with_its_server(tmp_path: Path) -> None:
    directives = request("slurm,app=builtin", tmp_path).directives
    assert "--time=60" in directives
    assert "--no-kill" not in directives


def test_folders_with_spaces_and_percent_signs_are_quoted_for_slurm(tmp_path: Path) -> None:
    job_request = request("slurm,app=builtin", tmp_path, job=replace(JOB, folder=Path("/my 100%/job")))
    assert "'--output=/my 100%%/job/job.log'" in job_request.directives
    assert "'--constraint=a b --wait'" in request("slurm:app=builtin,constraint=a b --wait", tmp_path).directives


def test_settings_become_variables_of_the_scripts_and_secrets_do_not(tmp_path: Path) -> None:
    (tmp_path / "openenv.yaml").write_text("app: server.app:app\n")
    job_request = request("slurm:nodes=2,workers=3,max_envs=50,env.TOKEN=secret", tmp_path, 2)
    assert job_request.envoy
    assert job_request.variables == {
        "OPENENV_APP": "server.app:app",
        "OPENENV_PATH": f"{tmp_path}:{tmp_path.parent}",
        "OPENENV_DIR": str(tmp_path),
        "WORKERS": "3",
        "MAX_CONCURRENT_ENVS": "50",
        "PORT": "20001",
        "BACKLOG": "2048",
        "PYTHON": sys.executable,
        "START_TIMEOUT": "180",
        "CONNECTION": "/shared/job-7/openenv-connection.env",
        "LOG_DIR": "/shared/job-7",
        "ENVOY_PORT": "20002",
        "ENVOY_ADMIN_PORT": "20003",
        "ENVOY_STATS_PORT": "20004",
        "ENVOY_BREAKER": "1024",
        "ENVOY_BACKLOG": "2048",
        "ENVOY_LB": "round_robin",
    }
    assert not request("slurm:nodes=2,envoy=client", tmp_path, 2).envoy
    assert request("slurm:python=/opt/python", tmp_path).variables["PYTHON"] == "/opt/python"


def test_the_example_of_a_job_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    slurm = spec("slurm:nodes=3")
    example = request("slurm:nodes=3,app=builtin", tmp_path, job=slurm.example())
    assert "--job-name=openenv-scale-RUN_ID" in example.directives
    assert "OPENENV_APP" not in example.variables


def test_a_job_serves_what_is_named_or_in_reach_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        request("slurm", tmp_path)
    assert str(caught.value) == (
        f"target slurm: there is no openenv.yaml in {tmp_path}; "
        "add app=module:app for yours, or app=builtin for the built-in environment"
    )
    assert request("slurm:app=a:b", tmp_path).variables["OPENENV_APP"] == "a:b"


def test_one_node_and_several_are_two_labels_that_do_not_collide() -> None:
    one, two, four = (parse_target(f"slurm:nodes={count}") for count in (1, 2, 4))
    assert [label_suffix(each, [one, two]) for each in (one, two)] == ["", ""]
    assert [label_suffix(each, [one, two, four]) for each in (one, two, four)] == ["", "-nodes2", "-nodes4"]


@pytest.mark.parametrize(
    ("reason", "hopeless", "helps"),
    [
        ("Resources", False, "pending_timeout="),
        ("Priority", False, "pending_timeout="),
        ("ReqNodeNotAvail, UnavailableNodes:node3", False, "sinfo --list-reasons"),
        ("Nodes required for job are DOWN, DRAINED or reserved", False, "sinfo --list-reasons"),
        ("PartitionNodeLimit", True, "fewer nodes="),
        ("PartitionTimeLimit", True, "shorter time="),
        ("PartitionDown", False, "another partition="),
        ("BadConstraints", True, "constraint="),
        ("InvalidAccount", True, "account="),
        ("QOSMaxJobsPerUserLimit", False, "qos="),
        ("AssocGrpCpuLimit", False, "limit is reached"),
        ("JobHeldUser", True, "scontrol release"),
        ("", False, "scontrol show job 7"),
    ],
)
def test_each_reason_to_wait_has_a_remedy(reason: str, hopeless: bool, helps: str) -> None:
    job = Job(7, "PENDING", reason)
    assert is_hopeless(job) is hopeless
    assert helps in pending_remedy(job)
    assert reason in waiting_words(job)


def test_a_refusal_of_sbatch_is_one_line_with_what_to_write(golden: Golden) -> None:
    text = (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition"
    )
    golden(error_summary(text))
    golden(refusal_remedy(text))
    assert refusal_remedy("Requested time limit invalid") != ""
    assert refusal_remedy("Unable to contact controller") == ""
    golden(error_summary(""))


def test_a_program_that_is_missing_or_fails_is_one_clear_line(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SlurmError) as caught:
        call("squeue-of-nobody")
    golden(caught.value)
    (tmp_path / "complains").write_text("#!/bin/sh\necho 'complains: error: it is late' >&2\nexit 1\n")
    (tmp_path / "complains").chmod(0o755)
    with pytest.raises(SlurmError) as caught:
        call("complains")
    golden(caught.value)
    (tmp_path / "hangs").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "hangs").chmod(0o755)
    monkeypatch.setattr(job_info, "_CALL_S", 0.1)
    with pytest.raises(SlurmError) as caught:
        call("hangs")
    golden(caught.value)


def recorded(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]) -> list[Sequence[str]]:
    """Answer in Slurm's stead, and keep what was asked."""
    calls: list[Sequence[str]] = []

    def fake_call(*command: str, **given: object) -> str:
        calls.append(command)
        return answer(*command)

    for module in (slurm_job, job_info):
        monkeypatch.setattr(module, "call", fake_call)
    return calls


def batch(tmp_path: Path, lines: list[str]) -> BatchJob:
    folder = JobFolder(tmp_path)
    return BatchJob("#!/bin/sh\n", "name", folder, env={}, show_progress=lines.append)


def test_a_job_is_cancelled_however_its_submission_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*command: str) -> str:
        if command[0] == "sbatch":
            raise KeyboardInterrupt
        return ""

    calls = recorded(monkeypatch, answer)
    with pytest.raises(KeyboardInterrupt), batch(tmp_path, []):
        pass
    assert ("scancel", "--name=name", "--quiet") in calls


@pytest.mark.parametrize("printed", ["12", "12;cluster\n", "sbatch: a greeting of this site\n12\n"])
def test_the_number_of_a_job_is_read_past_what_sites_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    calls = recorded(monkeypatch, lambda *command: printed if command[0] == "sbatch" else "")
    with batch(tmp_path, []) as job:
        assert job.id == 12
    assert ("scancel", "--quiet", "12") in calls


def test_a_job_that_cannot_be_cancelled_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*command: str) -> str:
        if command[0] == "scancel":
            raise SlurmError("target slurm: scancel: Unable to contact slurm controller")
        return "12"

    recorded(monkeypatch, answer)
    with pytest.raises(TargetError, match="may still run: scancel 12"), batch(tmp_path, []):
        pass


def test_a_pending_job_tells_each_new_reason_once_and_ends_at_one_that_does_not_pass(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter(["", "Priority", "Priority", "Resources", "BadConstraints"])
    recorded(monkeypatch, lambda *command: "12" if command[0] == "sbatch" else "")
    lines: list[str] = []
    with batch(tmp_path, lines) as job:
        monkeypatch.setattr(slurm_job, "read_job", lambda number: Job(number, "PENDING", next(reasons)))
        monkeypatch.setattr(slurm_job.time, "sleep", lambda seconds: None)
        with pytest.raises(TargetError) as caught:
            job.wait_until_running(60)
        golden(caught.value)
    assert [line.partition("is ")[2] for line in lines[:2]] == ["pending: Priority", "pending: Resources"]


def test_a_job_that_ends_before_it_serves_shows_what_it_said(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(monkeypatch, lambda *command: "12" if command[0] == "sbatch" else "")
    with JobFolder(tmp_path) as folder:
        (folder.path / "job.log").write_text("serve_multi.sh: there is no envoy on PATH\nbye\n")
        with BatchJob("", "name", folder, env={}, show_progress=[].append) as job:
            ended = Job(12, "FAILED", "NonZeroExitCode", exit_code=1)
            monkeypatch.setattr(slurm_job, "read_job", lambda number: ended)
            with pytest.raises(TargetError) as caught:
                job.wait_until_running(60)
    golden(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_logs_that_cannot_be_made_names_the_key(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetError) as caught, JobFolder(tmp_path / "file"):
        pass
    golden(caught.value)


def test_addresses_are_slurms_own_and_names_only_where_they_resolve(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (
        "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=n1 OS=Linux 6.1 #1 SMP @0 State=IDLE\n"
        "NodeName=n2 NodeAddr=localhost NodeHostName=n2 State=IDLE Reason=a b [root@2026]\n"
        "NodeName=n3 NodeAddr=2001:db8::3 State=IDLE\n"
    )
    recorded(monkeypatch, lambda *command: "n1\nn2\nn3\n" if "hostnames" in command else answer)
    assert find_nodes("n[1-3]") == (Node("n1", "10.0.0.1"), Node("n2", "127.0.0.1"), Node("n3", "2001:db8::3"))
    assert Node("n3", "2001:db8::3").url(80) == "http://[2001:db8::3]:80"
    recorded(monkeypatch, lambda *command: "n9" if "hostnames" in command else "NodeName=n9 NodeAddr=n9.invalid")
    with pytest.raises(TargetError) as caught:
        find_nodes("n9")
    golden(caught.value)


def test_nodes_that_are_out_are_listed_once_with_the_administrators_reason() -> None:
    text = "n1|idle|none\nn2|drained|bad disk\nn2|drained|bad disk\nn3|down*|Not responding\nn4|mixed|none\nn5|idle*|\n"
    assert parse_unusable(text) == ("n2 is drained: bad disk", "n3 is down: Not responding", "n5 is idle")
    assert format_nodes([Node(f"n{number}", "") for number in range(9)]) == "n0, n1, …, n8 (9 nodes)"


class _Runs:
    id = 7

    def exit_status(self, *, now: bool = False) -> ExitStatus | None:
        return None


class _Cancelled:
    """A job of which only a new question tells that it is over."""

    id = 7

    def exit_status(self, *, now: bool = False) -> ExitStatus | None:
        return ExitStatus("job", "job 7 ended as CANCELLED") if now else None


def servers(folder: JobFolder, job: ServingJob | None = None, port: int = 8000) -> NodeServers:
    return NodeServers(serving(folder, job, port), TargetContext(Path()), limits={}, start_s=1.0)


def serving(folder: JobFolder, job: ServingJob | None = None, port: int = 8000) -> Serving:
    nodes = (Node("n1", "127.0.0.2"), Node("n2", "127.0.0.3"))
    return Serving(job or _Runs(), Job(7, "RUNNING", cpus=2), nodes, replace(JOB, port=port), folder)


def test_a_job_cancelled_a_moment_ago_is_named_and_not_said_to_run(golden: Golden, tmp_path: Path) -> None:
    with JobFolder(tmp_path) as folder:
        golden(str(servers(folder, _Cancelled(), port=1).servers_end()))


def test_what_a_cancelled_job_took_along_is_not_blamed(golden: Golden, tmp_path: Path) -> None:
    class Endpoint:
        def exit_status(self) -> ExitStatus | None:
            return ExitStatus("other", "Envoy on n1 takes no connections any more")

    endpoint: Any = Endpoint()
    with JobFolder(tmp_path) as folder:
        golden(str(find_exit_status(endpoint, servers(folder, _Cancelled()))))
        golden(str(find_exit_status(endpoint, servers(folder))))


def test_a_job_asks_slurm_anew_where_a_second_old_answer_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(monkeypatch, lambda *command: "12" if command[0] == "sbatch" else "")
    states = iter(["RUNNING", "COMPLETING", "COMPLETING", "CANCELLED"])
    with batch(tmp_path, []) as job:
        monkeypatch.setattr(slurm_job, "read_job", lambda number: Job(number, next(states), nodes="n1"))
        job.wait_until_running(60)
        monkeypatch.setattr(job, "_polled_at", math.inf)
        monkeypatch.setattr(slurm_job, "_PAUSE_S", 0.0)
        assert job.exit_status() is None
        assert str(job.exit_status(now=True)) == "job 12 ended as CANCELLED"


def test_a_controller_that_restarts_does_not_cost_a_waiting_job_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(monkeypatch, lambda *command: "12" if command[0] == "sbatch" else "")
    answers: list[Job | Exception] = [SlurmError("away"), SlurmError("away"), Job(12, "RUNNING", nodes="n1")]

    def read(number: int) -> Job:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(slurm_job.time, "sleep", lambda seconds: None)
    with batch(tmp_path, []) as job:
        monkeypatch.setattr(slurm_job, "read_job", read)
        assert job.wait_until_running(60).state == "RUNNING"


def test_an_envoy_that_may_open_too_few_files_is_refused_with_what_helps(golden: Golden, tmp_path: Path) -> None:
    context = TargetContext(tmp_path, 600)
    with JobFolder(tmp_path) as folder:
        connection_file = folder.path / "openenv-connection.env"
        target = SlurmTarget(parse_target("slurm:nodes=2"), context)
        connection_file.write_text('export ENVOY_NOFILE="1024"\n')
        with pytest.raises(TargetError) as caught:
            target._check_descriptors(serving(folder))
        golden(caught.value)
        connection_file.write_text('export ENVOY_NOFILE="2048"\n')
        target._check_descriptors(serving(folder))


def test_a_node_that_a_burst_does_not_reach_is_named(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        played = 0
        count = threads = 1
        url = "http://e"

        def hosts(self) -> tuple[HostState, ...]:
            return (HostState("127.0.0.2:8000", self.played, 0, ""), HostState("127.0.0.3:8000", 0, 0, "out"))

    pool: Any = Pool()
    monkeypatch.setattr(slurm_servers, "wait_until_ready", lambda *args, **named: setattr(pool, "played", 8) or 0.0)
    with JobFolder(tmp_path) as folder, pytest.raises(TargetError) as caught:
        slurm_servers.reach_every_host(servers(folder), pool, {}, FirstSession(), session_s=1.0)
    golden(caught.value)
    assert "extra=--exclude=n2" in str(caught.value)


def test_how_a_nodes_server_ended_is_read_from_what_the_scripts_left(tmp_path: Path) -> None:
    with JobFolder(tmp_path) as folder:
        (folder.path / "server-n2.exit").write_text("137\n")
        (folder.path / "server-n1.log").write_text("one\ntwo\n")
        node_servers = servers(folder)
        assert (node_servers.exit_status(0), str(node_servers.exit_status(1))) == (None, "on n2 killed by SIGKILL")
        (folder.path / "server-n2.exit").write_text("3\n")
        assert str(node_servers.exit_status(1)) == "on n2 exited with code 3"
        assert node_servers.log_tail(0, 1) == "two"
        assert node_servers.log_tail(1, 5) == ""
        assert node_servers.node_names["127.0.0.3:8000"] == "n2"


def test_gc_cancels_the_jobs_of_dead_owners_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    alive = owner_label()
    pid, started, machine = alive.split(":")
    dead = f"{pid}:{started}0:{machine}"
    elsewhere = f"{pid}:{started}0:another"
    for name, owner in (("job-a", alive), ("job-b", dead), ("job-c", elsewhere)):
        (default_folder() / name).mkdir(parents=True)
        (default_folder() / name / "owner").write_text(owner)
    text = "".join(
        f"{number}|openenv-scale-x|openenv-scale-owner={owner}\n"
        for number, owner in ((1, alive), (2, dead), (3, elsewhere))
    )
    calls = recorded(monkeypatch, lambda *command: f"{text}4|mine|(null)\n5|a|b|c\n" if command[0] == "squeue" else "")
    lines = ["Slurm job 2 (openenv-scale-x)", f"logs of a job {default_folder() / 'job-b'}"]
    assert list(gc.collect(["slurm"], dry_run=True).lines) == lines
    assert [command for command in calls if command[0] == "scancel"] == []
    assert list(gc.collect(["slurm"]).lines) == lines
    assert [command for command in calls if command[0] == "scancel"] == [("scancel", "--quiet", "2")]
    assert sorted(path.name for path in default_folder().iterdir()) == ["job-a", "job-c"]
