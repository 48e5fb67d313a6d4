"""Virtual environments of their own, for tests of what is installed: made by uv, a tenth of the time pip takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from components import lacking

INSTALL_TIMEOUT_S = 900
"""A large package on a slow index takes minutes; a dead index must not hang."""


def uv(*arguments: object, timeout_s: float = INSTALL_TIMEOUT_S) -> str:
    """Run uv outside the tests' own environment and import path; return what it printed.

    The test is skipped where uv cannot do it, for want of an index for one; under CI=true it fails.
    """
    # Certificates as pip checks them: by those of the system.
    environ = outside() | {"UV_SYSTEM_CERTS": "true"}
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        lacking(f"uv {arguments[0]}: gave up after {timeout_s:.0f} s")
    if done.returncode:
        last_words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        lacking(f"uv {arguments[0]}: exit code {done.returncode}: {last_words}")
    return done.stdout


def outside() -> dict[str, str]:
    """The environment variables of this process but for those that lead to its own Python and packages."""
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in own}


def make_environment(folder: Path, *requirements: object) -> Path:
    """Make an environment without pip that holds these requirements; return the folder of its programs."""
    uv("venv", "--quiet", "--python", sys.executable, folder)
    if requirements:
        install(folder / "bin", *requirements)
    return folder / "bin"


def install(programs: Path, *requirements: object) -> None:
    """Install these into the environment whose programs are there."""
    uv("pip", "install", "--quiet", "--python", programs / "python", *requirements)


def download_wheels(folder: Path, *requirements: str) -> None:
    """Put the wheels of these requirements, and of theirs, into a folder: what uv cannot do yet, and pip can."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--wheel-dir", folder]
    done = subprocess.run(
        [*command, *requirements],
        env=outside(),
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        lacking(f"pip cannot get the wheels: {done.stderr.strip()[-300:]}")
