"""Every script of the action and of docs/ci.md is run, in the order in which pull requests and merges come."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ci_jobs import BRANCH, GitHub, GitLab, Job, documented, loaded
from environments import make_environment
from installed_wheel import ROOT, build_wheel
from pytest_run import environ

pytestmark = pytest.mark.real

ACTION, STEPS, GITLAB = documented()
NOT_COMPARED = "No baseline: this run is not compared."
# No latency is limited: what else this machine does is no part of these tests.
SCALING_TEST = """\
import pytest
@pytest.mark.scaling(batches="1,8,32")
@pytest.mark.slo(max_batch=32)
def test_holds_32_sessions(scaling): scaling.run()
"""

Run = Callable[..., Job]
"""Runs the job for a branch, with what is added to its environment."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a Python in which the plugin is installed, and with which a checkout can be."""
    folder = tmp_path_factory.mktemp("ci")
    return make_environment(folder / "venv", build_wheel(folder / "wheels"), "pip", "setuptools>=77", "hatchling")


@pytest.fixture
def environment(programs: Path) -> dict[str, str]:
    """What an installation asks for is there already, so that none needs an index."""
    installed = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "VIRTUAL_ENV": str(programs.parent)}
    return environ(**installed) | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(params=["action", "steps", "gitlab"])
def run(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the job in a fresh checkout of an environment that holds 64 sessions."""
    if request.param == "gitlab":
        service, job = GitLab(tmp_path, environment), loaded(GITLAB)["scaling"]
    else:
        workflow = loaded({"action": ACTION, "steps": STEPS}[request.param])
        service, job = GitHub(tmp_path, environment), workflow["jobs"]["scaling"]
        if request.param == "action":
            job["outputs"] = {
                name: f"${{{{ steps.scaling.outputs.{output} }}}}"
                for name, output in (("openenv_max_batch", "max-batch"), ("openenv_verdict", "verdict"))
            }
        else:
            job["outputs"] = {f"openenv_{name.replace('-', '_')}": value for name, value in job["outputs"].items()}

    def run_job(branch: str, **variables: str) -> Job:
        workspace = tmp_path / "checkout"
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(ROOT / "example_envs" / "echo", workspace)
        (workspace / "tests" / "test_scaling.py").write_text(SCALING_TEST)
        return service.run(job, workspace, branch, **variables)

    return run_job


def failures(job: Job) -> int:
    """How many tests failed by the JUnit file that was uploaded."""
    (file,) = job.uploaded.rglob("junit.xml")
    return sum(int(suite.attrib["failures"]) for suite in ElementTree.parse(file).iter("testsuite"))


def test_a_change_is_compared_with_the_last_run_of_main_that_passed(run: Run) -> None:
    first = run("7/merge")
    assert first.passed, first.log
    assert NOT_COMPARED in first.log

    main = run(BRANCH)
    assert main.passed, main.log
    assert NOT_COMPARED in main.log
    assert main.outputs["openenv_verdict"] == "met"

    worse = run("8/merge", MAX_CONCURRENT_ENVS="16")
    assert not worse.passed, worse.log
    assert NOT_COMPARED not in worse.log
    assert "regressed: max_batch" in worse.log, worse.log
    assert (worse.outputs["openenv_verdict"], worse.outputs["openenv_max_batch"]) == ("missed", "8")
    assert failures(worse) == 1
    (report,) = worse.uploaded.glob(".openenv-results/*/report.json")
    assert report.exists()

    merged = run(BRANCH, MAX_CONCURRENT_ENVS="16")
    assert not merged.passed
    same = run("9/merge")
    assert same.passed, same.log
    assert NOT_COMPARED not in same.log
