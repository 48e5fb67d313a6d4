"""The project's wheel, built and installed as a user gets it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from environments import uv
from pytest_run import environ

ROOT = Path(__file__).resolve().parents[1]


def run(command: list[str], folder: Path, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of such an environment as a user does, in a folder that is no checkout."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environ(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def build_wheel(folder: Path, source: Path = ROOT) -> Path:
    """Build the wheel of `source`, a checkout or a source distribution, into `folder`. Raises InstallError."""
    uv("build", "--quiet", "--wheel", "--out-dir", folder, source)
    (built,) = folder.glob("pytest_openenv_scale-*.whl")
    return built
