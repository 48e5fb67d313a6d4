"""A planted token and header: in no file, on no terminal, in no error, whatever the Hub does with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import TOKEN, Hub, HubError, running_hub
from pytest_openenv_scale.__main__ import main
from pytest_run import environ, run_pytest, write_test

pytestmark = pytest.mark.stand_in
pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

HEADER = "planted-header-value-9d1c"
USERINFO = "planted-user:planted-password"
SECRETS = (TOKEN, HEADER, "planted-user", "planted-password")
SWEEP = """
@pytest.mark.scaling(batches="1,4", waits=[0.05])
def test_it(scaling): scaling.run()
"""
ECHO = f"Bearer {TOKEN} is not welcome; Authorization: Bearer {TOKEN}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


def found_in(folder: Path) -> list[str]:
    """Every file below a folder in which a secret stands, also inside what is compressed as a whole."""
    leaks: list[str] = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            leaks += [f"{path}: {secret}" for secret in SECRETS if secret.encode() in content]
    return leaks


def clean(text: str) -> str:
    """Check that no secret is in what a command said."""
    assert [secret for secret in SECRETS if secret in text] == []
    return text


def scale(folder: Path, hub: Hub, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_openenv_scale", *map(str, arguments)],
        cwd=folder,
        env=environ(**hub.environ(folder / ".home"), PYTHONUNBUFFERED="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    clean(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    return done


def measured(folder: Path, hub: Hub, target: str, *arguments: str) -> Path:
    """Measure something with the token and a header at hand; return the run."""
    write_test(folder, SWEEP)
    run = run_pytest(
        folder,
        *("--openenv-target", target, "--openenv-header", f"X-Key: {HEADER}", "--openenv-inconclusive", "warn"),
        *("-v", "-s", "-p", "no:randomly", "--junitxml", str(folder / "junit.xml"), *arguments),
        **hub.environ(folder / ".home"),
    )
    clean(run.output)
    assert "max batch ≥ 4" in run.output, run.output
    return run.run_dir


def test_a_private_space_is_measured_pushed_and_pulled_without_a_trace_of_the_token(hub: Hub, tmp_path: Path) -> None:
    assert scale(tmp_path, hub, "deploy", "spaces", "alice/env", "--private", "--workers", "1").returncode == 0
    run = measured(tmp_path, hub, "spaces:alice/env,max_envs=64")
    assert scale(tmp_path, hub, "report", run).returncode == 0
    assert scale(tmp_path, hub, "push", run, "alice/runs", "--dry-run").returncode == 0
    assert scale(tmp_path, hub, "push", run, "alice/runs", "--private").returncode == 0
    assert scale(tmp_path, hub, "pull", "alice/runs", "--results", "back").returncode == 0
    assert scale(tmp_path, hub, "report", tmp_path / "back" / run.name).returncode == 0
    assert (tmp_path / "back" / run.name / "manifest.json").read_bytes() == (run / "manifest.json").read_bytes()
    assert found_in(tmp_path) == []
    for repo in hub.repos.values():
        assert [path for path, content in repo.files.items() if any(one.encode() in content for one in SECRETS)] == []
    # It was in use all the time.
    assert len([one for one in hub.requests if one.authorized]) > 10


def test_userinfo_of_a_url_reaches_neither_the_manifest_nor_the_dataset(hub: Hub, tmp_path: Path) -> None:
    from server_process import running_server

    with running_server("--workers", "1") as (_, address):
        run = measured(tmp_path, hub, f"http://{USERINFO}@{address}")
    assert scale(tmp_path, hub, "push", run, "alice/runs").returncode == 0
    assert found_in(tmp_path) == []
    stored = hub.repos["dataset", "alice/runs"].files
    assert [path for path, content in stored.items() if any(one.encode() in content for one in SECRETS)] == []
    assert re.search(rb"http://127\.0\.0\.1:\d+", stored[f"runs/{run.name}/manifest.json"])


ASKED = {
    "push-create": ("POST /api/repos/create", ["push", "{run}", "alice/runs"]),
    "push-commit": ("POST /api/datasets/alice/there/commit/main", ["push", "{run}", "alice/there"]),
    "pull": ("GET /api/datasets/alice/there", ["pull", "alice/there"]),
    "deploy": ("POST /api/repos/create", ["deploy", "spaces", "alice/env"]),
}


def refuse(hub: Hub, where: str, status: int) -> None:
    hub.add_dataset("alice/there")
    hub.failures += [(where, HubError(status, ECHO))] * 9  # Some requests are tried again.


@pytest.mark.parametrize(("where", "arguments"), ASKED.values(), ids=ASKED)
def test_a_hub_that_echoes_the_token_is_not_quoted(
    hub: Hub, stored_run: Path, tmp_path: Path, where: str, arguments: list[str]
) -> None:
    refuse(hub, where, 400)
    done = scale(tmp_path, hub, *(argument.format(run=stored_run) for argument in arguments))
    assert done.returncode == 2
    error_lines = [line for line in done.stderr.splitlines() if line.startswith(f"openenv-scale {arguments[0]}: ")]
    assert len(error_lines) == 1
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 409, 500])
@pytest.mark.parametrize(("where", "arguments"), ASKED.values(), ids=ASKED)
def test_whatever_status_it_echoes_the_token_with(
    hub: Hub,
    stored_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    status: int,
    where: str,
    arguments: list[str],
) -> None:
    """In this process, which has the libraries imported already; what they log is looked at too."""
    caplog.set_level("INFO")
    hub.patch(monkeypatch, tmp_path / ".home")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    refuse(hub, where, status)
    assert main([argument.format(run=stored_run) for argument in arguments]) == 2
    captured = capfd.readouterr()
    clean(captured.out + captured.err + caplog.text)
    assert captured.err.count(f"openenv-scale {arguments[0]}: ") == 1
    assert "Traceback" not in captured.err
    assert found_in(tmp_path) == []


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    write_test(folder, SWEEP)
    return run_pytest(folder, "--openenv-target", "local:builtin", "--openenv-inconclusive", "warn").run_dir


def test_a_token_that_cannot_be_sent_is_not_shown_either(hub: Hub, stored_run: Path, tmp_path: Path) -> None:
    odd = "hf_planted\x01odd\x02token"
    done = subprocess.run(
        [sys.executable, "-m", "pytest_openenv_scale", "push", str(stored_run), "alice/runs"],
        env={**environ(**hub.environ(tmp_path)), "HF_TOKEN": odd, "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "planted" not in done.stdout + done.stderr
    assert "odd" not in done.stderr
