"""`action.yml` and the workflows of docs/ci.md, as the services read them; tests/targets/test_ci.py runs them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ci_jobs import ROOT, GitHub, documented, loaded
from components import shellcheck

ACTION, STEPS, GITLAB = documented()
SCHEMAS = {"github-actions": (ROOT / "action.yml").read_text(), "gitlab-ci": GITLAB}
OURS = loaded(SCHEMAS["github-actions"])


@pytest.mark.parametrize(
    ("schema", "text"),
    [*SCHEMAS.items(), ("github-workflows", ACTION), ("github-workflows", STEPS)],
    ids=["action.yml", "GitLab", "workflow with the action", "workflow of steps"],
)
def test_the_service_would_accept_it(schema: str, text: str, tmp_path: Path) -> None:
    # Half a second, which only who runs these tests should pay for.
    from check_jsonschema import main as check_jsonschema
    from click.testing import CliRunner

    file = tmp_path / "file.yml"
    file.write_text(text)
    checked = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{schema}", str(file)])
    assert checked.exit_code == 0, checked.output


def scripts() -> list[str]:
    """Every script of GitHub's steps."""
    jobs = [loaded(text)["jobs"]["scaling"]["steps"] for text in (ACTION, STEPS)]
    return [step["run"] for steps in (OURS["runs"]["steps"], *jobs) for step in steps if "run" in step]


def test_no_value_from_outside_is_ever_part_of_a_script() -> None:
    assert not [script for script in scripts() if "${{" in script]


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.sh" for number, _ in enumerate(scripts())]
    for file, script in zip(files, scripts(), strict=True):
        file.write_text(script)
    assert shellcheck("--shell=bash", *files) == ""


def test_every_input_and_output_of_the_action_is_documented() -> None:
    document = (ROOT / "docs" / "ci.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ", document, re.MULTILINE)
    assert rows == [*OURS["inputs"], *OURS["outputs"]]
    for name, entry in OURS["inputs"].items():
        assert not entry["default"] or re.search(rf"^\| `{name}` \| `{re.escape(entry['default'])}` \|", document, re.M)


def test_whose_copy_of_the_action_is_used_is_left_to_write() -> None:
    assert "# OWNER is a placeholder" in ACTION
    assert "uses: OWNER/pytest-openenv-scale@v0" in ACTION


def arguments_of_pytest(folder: Path, branch: str = "7/merge", **inputs: str) -> list[str]:
    """What the action calls pytest with, on a Python that only prints what it is told."""
    (folder / "checkout").mkdir()
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    job = {"steps": [{"uses": "OWNER/pytest-openenv-scale@v0", "with": inputs}]}
    environ = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    done = GitHub(folder, environ).run(job, folder / "checkout", branch)
    assert done.passed, done.log
    _, _, arguments = done.log.replace(str(folder / "checkout"), "CHECKOUT").partition("-m\npytest\n")
    return [line for line in arguments.splitlines() if not re.match(r"-m$|scaling$|--junitxml|--openenv-outputs", line)]


def test_inputs_reach_pytest_as_they_are_written(tmp_path: Path) -> None:
    assert arguments_of_pytest(
        tmp_path,
        target="local,env.NOTE=$(touch pwned)",
        sessions="64",
        slo="success>=0.99\n\n  total_p99<=2s\n",
        tests="tests/one two.py\ntests/three.py",
        args="--openenv-note=`touch pwned`; touch pwned\n-v",
        baseline="runs/a run",
        **{"fail-on": "max_batch:-1\nrps:-20%"},
    ) == [
        "--openenv-results=CHECKOUT/.openenv-results",
        "--openenv-target=local,env.NOTE=$(touch pwned)",
        "--openenv-slo=max_batch>=64",
        "--openenv-slo=success>=0.99",
        "--openenv-slo=total_p99<=2s",
        "--openenv-baseline=runs/a run",
        "--openenv-fail-on=max_batch:-1",
        "--openenv-fail-on=rps:-20%",
        "--openenv-note=`touch pwned`; touch pwned",
        "-v",
        "tests/one two.py",
        "tests/three.py",
    ]
    assert not list(tmp_path.rglob("pwned"))


def test_without_inputs_the_test_of_the_plugin_measures_and_nothing_is_compared(tmp_path: Path) -> None:
    assert arguments_of_pytest(tmp_path, baseline="none") == [
        "--openenv-results=CHECKOUT/.openenv-results",
        "--pyargs",
        "pytest_openenv_scale.suite",
    ]
