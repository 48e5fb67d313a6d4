"""The gate is honest: the same server again passes, a slower or a smaller one fails, by pytest and by `compare`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_run import environ, run_pytest, write_test

pytestmark = pytest.mark.alone

BODY = """
@pytest.mark.scaling(batches="4,16,64", waits=[0.5], reps=3)
def test_scale(scaling):
    scaling.run()
"""

SERVED = """
import asyncio
import os

from pytest_openenv_scale.server.app import app as benchmark


async def app(scope, receive, send):
    async def late(message):
        if message["type"] == "websocket.send":
            await asyncio.sleep(float(os.environ.get("LATE", "0")))
        await send(message)

    await benchmark(scope, receive, late)
"""

TARGET = "local:served:app,workers=2,label=served"
# Generous, as the machine is shared: what is looked for is several times as large.
FAIL_ON = "max_batch:-10%,overhead_p50:+250ms"


def measure(folder: Path, *options: str, target: str = TARGET):
    return run_pytest(folder, "--openenv-target", target, *options)


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_openenv_scale", "compare", *arguments]
    return subprocess.run(command, cwd=folder, env=environ(), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose server was measured once: the baseline, and a new one for a test that is asked again."""
    write_test(tmp_path, BODY)
    (tmp_path / "served.py").write_text(SERVED)
    run = measure(tmp_path)
    assert run.code == 0, run.output
    return tmp_path


@pytest.fixture
def baseline(folder: Path) -> str:
    return run_ids(folder)[0]


def run_ids(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".openenv-results").glob("2*"))


def test_the_same_server_again_passes(folder: Path, baseline: str) -> None:
    run = measure(folder, "--openenv-baseline", baseline, "--openenv-fail-on", FAIL_ON)
    assert run.code == 0, run.output
    assert "no regression: 1 curve within" in run.output
    comparison = compare(folder, baseline, run_ids(folder)[-1], "--fail-on", FAIL_ON)
    assert comparison.returncode == 0, comparison.stdout


def test_a_slowed_server_fails(folder: Path, baseline: str) -> None:
    slow = f"{TARGET},env.LATE=0.5"
    run = measure(folder, "--openenv-baseline", baseline, "--openenv-fail-on", FAIL_ON, target=slow)
    assert run.code == 1, run.output
    assert "regressed: overhead_p50 at batch 4" in run.output
    assert "regressed: max_batch" not in run.output
    comparison = compare(folder, baseline, run_ids(folder)[-1], "--fail-on", FAIL_ON)
    assert comparison.returncode == 1
    assert "δ +1.00 large" in comparison.stdout


def test_a_server_that_holds_less_fails(folder: Path, baseline: str) -> None:
    small = f"{TARGET},max_envs=4"
    run = measure(folder, "--openenv-baseline", baseline, "--openenv-fail-on", FAIL_ON, target=small)
    assert run.code == 1, run.output
    assert "regressed: max_batch ≥ 64 → " in run.output
    assert "max envs" in run.output or "max_envs" in run.output
