"""A run that ends in the middle of a steady state keeps the sessions that had ended."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.pytest_run import command, environ, write_test
from tests.server_process import running_server

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.results.manifest import read_manifest
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.results.run_directory import PARTS
from pytest_openenv_scale.results.spool import cut_off_parts

STEADY = ["--openenv-batches=8", "--openenv-waits=0.05", "--openenv-arrival=steady=60s", "--openenv-slo=success>=1"]


def await_rows(process: subprocess.Popen[bytes], results: Path, count: int) -> Path:
    """Wait until so many rows are stored, and return the directory of the run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for run in results.glob("2*"):
            if sum(part.num_rows for part in cut_off_parts(run / PARTS)) >= count:
                return run
        time.sleep(0.1)
    pytest.fail(f"no {count} rows were stored; pytest {process.poll()}")


@pytest.mark.parametrize(
    "end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_what_came_before_the_end_is_reported_and_judges_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: signal.Signals
) -> None:
    write_test(
        tmp_path, "@pytest.mark.scaling\n@pytest.mark.slo(success=1.0)\ndef test_it(scaling):\n    scaling.run()\n"
    )
    with running_server() as (_, address):
        process = subprocess.Popen(
            command(f"--openenv-url=http://{address}", *STEADY),
            cwd=tmp_path,
            env=environ(TMPDIR=str(tmp_path)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            path = await_rows(process, tmp_path / ".openenv-results", 20)
            running = load_run(path)
            assert (running.status, running.sweeps[0].summaries, running.table().num_rows) == ("running", (), 0)
            process.send_signal(end)
            process.wait(30)
        finally:
            process.kill()
            process.wait()
    ended_by_itself = end is not signal.SIGKILL
    assert process.returncode == (pytest.ExitCode.INTERRUPTED if ended_by_itself else -end)
    assert (read_manifest(path).status, (path / "report.md").exists()) == (
        ("interrupted", True) if ended_by_itself else ("running", False)
    )
    run = load_run(path)
    (summary,) = run.sweeps[0].summaries
    assert (run.status, run.outcome, run.problems) == ("interrupted", Outcome.INCONCLUSIVE, ())
    assert [finding.kind for finding in summary.findings] == ["cut_off"]
    assert run.table().num_rows == summary.successful + summary.failed + summary.unjudged >= 20
    assert {row["slot"] for row in run.table().to_pylist()} == set(range(8))
    assert main(["report", str(path), "--formats", "md"]) == 0
    out = capsys.readouterr().out
    assert "cut off when the run ended" in out
    assert "the client was the limit" not in out
    assert "cut off when the run ended" in (path / "report.md").read_text()
