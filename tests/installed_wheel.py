"""The project's wheel, built and installed as a user gets it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_run import environ

ROOT = Path(__file__).resolve().parents[1]
INSTALL_TIMEOUT_S = 600
# There is no pip, or no index that answers; a requirement that does not exist is our mistake and no excuse.
CANNOT_INSTALL = re.compile(
    r"No module named pip|Retrying \(Retry|NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError"
)


def pip(*arguments: object) -> None:
    """Run pip; the test is skipped where it cannot reach a package index."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = run(command, ROOT.parent, INSTALL_TIMEOUT_S)
    if done.returncode and CANNOT_INSTALL.search(done.stdout + done.stderr):
        pytest.skip(f"pip cannot install anything here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def run(command: list[str], folder: Path, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in environ().items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**alone, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def build_wheel(folder: Path, source: Path = ROOT) -> Path:
    """Build the wheel of `source`, a checkout or a source distribution, into `folder`."""
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (built,) = folder.glob("pytest_openenv_scale-*.whl")
    return built


def make_venv(folder: Path, *requirements: object) -> Path:
    """Make an environment without pip that holds these requirements; return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    if requirements:
        install(folder / "bin", *requirements)
    return folder / "bin"


def install(programs: Path, *requirements: object) -> None:
    pip("--python", programs / "python", "install", "--quiet", "--no-compile", *requirements)
