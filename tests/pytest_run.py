"""pytest as a user runs it: in a folder of its own, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

INNER = str(Path(__file__).with_name("inner"))
QUIET_CONFIG = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"


@dataclass(frozen=True)
class PytestRun:
    """What a run said, how it ended, and where its results are."""

    folder: Path
    code: int
    output: str

    @property
    def run_dir(self) -> Path:
        """The one run directory."""
        (folder,) = (self.folder / ".openenv-results").glob("2*")
        return folder

    def sweeps(self) -> list[dict[str, Any]]:
        """What report.json has of every sweep."""
        return json.loads((self.run_dir / "report.json").read_text())["sweeps"]

    def refusals(self) -> list[dict[str, Any]]:
        """What refused sessions, in the order of the curves."""
        return [refused for sweep in self.sweeps() for curve in sweep["curves"] for refused in curve["refused"]]

    def rows(self) -> pa.Table:
        """Every session of the run."""
        return pq.read_table(self.run_dir / "sessions.parquet")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]


def environ(**extra: str) -> dict[str, str]:
    """The environment of a user's shell; pytest in it leaves out the guard (`inner.unguarded`)."""
    dropped = ("CI", "GITHUB_STEP_SUMMARY", "MAX_CONCURRENT_ENVS", "WORKERS", "HOST", "PORT")
    inherited = {
        name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("PYTEST_")
    }
    environ = {**inherited, "COLUMNS": "120", "PYTEST_ADDOPTS": "-p unguarded", **extra}
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, (environ.get("PYTHONPATH"), INNER)))}


def write_test(folder: Path, body: str, name: str = "test_it.py") -> None:
    (folder / name).write_text(f"import pytest\n\n{body}")
    (folder / "pytest.ini").write_text(QUIET_CONFIG)


def run_pytest(folder: Path, *arguments: str, timeout_s: float = 120, **env: str) -> PytestRun:
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environ(**env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return PytestRun(folder, done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))
