"""`openenv-scale show`: what a target would start, in text, without starting it and without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target, target_names
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.local.target import ServedApplication, ServerOptions

GOLDEN = Path(__file__).with_name("golden")
SECRET = "hunter2"

SPECS = {
    "local": "local:server.app:app,workers=2,max_envs=5,port=8123,env.API_KEY=hunter2",
    "docker": "docker:my-env:1,cpus=2,memory=1g,workers=3,nofile=5000,env.TOKEN=hunter2",
    "docker_built": "docker,build.MIRROR=hunter2",
    "envoy": "envoy:replicas=2,app=builtin,max_envs=5,lb=least_request,env.API_KEY=hunter2",
    "envoy_image": "envoy:replicas=2,image=my-env:1,cpus=1",
    "envoy_urls": "envoy:urls=http://127.0.0.1:8001|http://127.0.0.1:8002",
    "provider": "provider:package.module:Class,api_key=hunter2,project_path=.,replicas=2,env.X=hunter2",
    "slurm_single": "slurm:partition=cpu,app=builtin,time=30,cpus_per_task=8,env.TOKEN=hunter2",
    "slurm_multi": "slurm:nodes=3,app=builtin,account=me,mem=16G,max_envs=100,extra=--exclusive",
    "slurm_job": "slurm:job=77,app=builtin",
    "spaces": "spaces:alice/env",
    "spaces_settings": "spaces:alice/env,hardware=cpu-upgrade,workers=4,max_envs=64,env.MODE=hunter2",
    "spaces_temporary": "spaces,temporary,app=builtin,hardware=t4-small,sleep_time=5m",
    "spaces_temporary_app": "spaces:alice/bench,temporary,app=server.app:app,env.MODE=hunter2",
    "url": "http://user:hunter2@one:8000,cores=8",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with nothing of this machine's around it."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setenv("XDG_CACHE_HOME", "/CACHE")
    for name in ("HOST", "PORT", "WORKERS", "MAX_CONCURRENT_ENVS", "PYTHONPATH", "PYTHONUNBUFFERED", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "repository"


def show(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["show", *arguments])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    places = {str(root): "/ROOT", str(deploy_file("slurm").parent): "/DEPLOY", sys.executable: "/PYTHON"}
    text = captured.out
    for path, name in places.items():
        text = text.replace(path, name)
    return text.replace(f"-{version('pytest-openenv-scale')}-", "-VERSION-")


@pytest.mark.parametrize("name", SPECS)
def test_what_is_shown_is_what_was_agreed_on(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = show(root, capsys, SPECS[name])
    assert text == (GOLDEN / f"show_{name}.txt").read_text(encoding="utf-8")
    assert SECRET not in text


def test_every_target_can_be_shown(root: Path) -> None:
    assert {parse_target(text).name for text in SPECS.values()} == {*target_names(), "url"}


def test_backlogs_and_breakers_are_sized_to_the_batch_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "max_connections: 18064\n" in show(root, capsys, "envoy:replicas=2,app=builtin", "--batch", "9000")
    assert "--backlog 9000" in show(root, capsys, "local:builtin", "--batch", "9000")


def test_several_targets_are_shown_one_after_the_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = [line for line in show(root, capsys, "local:builtin", "http://h:1").splitlines() if line.startswith("### ")]
    assert heads == ["### local:builtin", "### http://h:1"]


def test_the_app_of_an_environment_repository_is_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "openenv.yaml").write_text("app: server.app:app\n")
    (root / "tests").mkdir()
    text = show(root, capsys, "local", "--root", "tests")
    assert "--app server.app:app" in text
    assert f"PYTHONPATH=/ROOT{os.pathsep}" in text


def test_a_server_is_shown_as_it_is_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that goes on, so that its command line is there to be read.
    (root / "waits.py").write_text("import time\ntime.sleep(60)\n")
    served = ServedApplication(ServerOptions(app="waits:app"), TargetContext(root), target="local")
    launch = served.launch()
    served.start()
    try:
        deadline = time.monotonic() + 30
        started: list[str] = []
        # What ties its life to ours executes it: while that happens there is no command line.
        while "--fd" not in started and time.monotonic() < deadline:
            started = Path(f"/proc/{served.process.pid}/cmdline").read_text().rstrip("\0").split("\0")
    finally:
        served.stop()
    started = started[-len(launch.command) :]  # In front of it stands what ties its life to ours.
    at = started.index("--fd") + 1
    assert [*started[:at], *started[at + 1 :]] == [*launch.command[:at], *launch.command[at + 1 :]]


@pytest.mark.parametrize(
    "spec",
    [
        "nope",
        "local:worker=2",
        "local,worker=2",
        "docker:./missing",
        "local",
        "envoy",
        "slurm:nodez=2",
        "",
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(
    golden: Golden, spec: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "local:builtin", spec]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("openenv-scale show: ")
    golden(captured.err)
    assert captured.err.count("\n") == 1


def test_a_wrong_batch_is_refused(golden: Golden, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "local:builtin", "--batch", "0"]) == 2
    golden(capsys.readouterr().err)


def test_inside_an_allocation_what_is_shown_is_not_submitted(
    golden: Golden, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    text = show(root, capsys, "slurm,app=builtin")
    assert "SLURM_JOB_ID=77 \\\nbash SCRIPT" in text
    golden([line for line in text.splitlines() if line.startswith("##")])
    assert "sbatch --parsable" not in text


def test_nothing_is_started_or_reached(root: Path) -> None:
    environ = {**os.environ, "PATH": "/nothing", "DOCKER_HOST": "tcp://127.0.0.1:1"}
    command = [sys.executable, "-m", "pytest_openenv_scale", "show", *SPECS.values()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout


def test_a_description_is_text_with_a_title(golden: Golden, root: Path) -> None:
    (part,) = open_target(parse_target("http://h:1"), root=root).describe()
    golden((part.title, part.text))
