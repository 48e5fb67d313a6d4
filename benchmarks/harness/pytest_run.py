"""The ready-made sweep as a user starts it: a pytest run in a folder of its own, and the one curve of its report."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .problem import Problem

_PYTEST = ("pytest", "-p", "no:cacheprovider", "-c", "pytest.ini", "--rootdir", ".")
_REPORT = "report.json"
_SWEEP = ("--pyargs", "pytest_openenv_scale.suite", "-m", "scaling")


def sweep_command(target: str, **options: object) -> list[str]:
    """Return the arguments of Python for a sweep of one curve; `options` are those named --openenv-…."""
    named = [part for name, value in options.items() for part in (f"--openenv-{name}", str(value))]
    return ["-m", *_PYTEST, *_SWEEP, "--openenv-target", target, *named]


def judged_curve(command: list[str], patience_s: float) -> tuple[int, dict[str, Any]]:
    """Run a `sweep_command()`, and return pytest's exit code and the curve of its JSON report.

    Raises:
        Problem: pytest ended without a report, or not within so many seconds.
    """
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as name:
        folder = Path(name)
        try:
            done = subprocess.run(
                [sys.executable, *command, *reporting_in(folder)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Problem(f"pytest did not end within {patience_s:.0f} s: {shlex.join(command[1:])}") from None
        return done.returncode, curve_in(folder, done.stdout.strip() or done.stderr.strip())


def reporting_in(folder: Path) -> list[str]:
    """Prepare a folder for pytest to run in, and return the options that leave there what `curve_in` reads."""
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return ["--openenv-json", str(folder / _REPORT), "--openenv-results", "none"]


def curve_in(folder: Path, output: str) -> dict[str, Any]:
    """Return the one curve of the report in a folder where pytest has run and said `output`.

    Raises:
        Problem: there is no report.
    """
    if not (folder / _REPORT).exists():
        raise Problem(f"pytest ended without a report: {(output or 'it said nothing').splitlines()[-1]}")
    (curve,) = json.loads((folder / _REPORT).read_text())["sweeps"][0]["curves"]
    return curve
