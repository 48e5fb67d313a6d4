"""Virtual environments that hold the real OpenEnv packages, one each because they install the same modules.

They are made once, in a folder outside the repository (OPENENV_SCALE_VENVS, else the user's cache), and kept: on first
use, or all of them at once by `python tests/openenv_venvs.py`, so that no installation runs between two measurements.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

OPENENV_0_10 = "openenv==0.10.0"
PACKAGES = (OPENENV_0_10, "openenv-core==0.3.0", "openenv-core==0.2.3", "openenv-core==0.2.0")

# Each of these takes about a minute and half a gigabyte; a slow index takes longer, a dead one must not hang.
INSTALL_TIMEOUT_S = 900


class OpenEnvUnavailableError(Exception):
    """The package could not be installed; the message holds the end of what pip said."""


def openenv_python(spec: str) -> Path:
    """The python of a virtual environment that holds exactly `spec`, for example `openenv==0.10.0`.

    Made on first use; callers in other processes wait for it. Raises OpenEnvUnavailableError.
    """
    name, version = _pinned(spec)
    folder = _cache() / f"{name}-{version}-py{sys.version_info[0]}.{sys.version_info[1]}-{_interpreter()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last, so that an installation that was interrupted is never taken for a whole one.
        finished = folder / "finished"
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, spec)
            _check_version(python, name, version)
            finished.touch()
    return python


def openenv_python_or_skip(spec: str) -> Path:
    """As `openenv_python`; where it cannot be made the test is skipped, under CI=true it fails."""
    try:
        return openenv_python(spec)
    except OpenEnvUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def _pinned(spec: str) -> tuple[str, str]:
    found = re.fullmatch(r"(openenv(?:-core)?)==([\w.]+)", spec)
    if not found:
        raise ValueError(f"{spec!r}: expected a pinned package such as openenv==0.10.0")
    return found[1], found[2]


def _cache() -> Path:
    if given := os.environ.get("OPENENV_SCALE_VENVS"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pytest-openenv-scale" / "venvs"


def _interpreter() -> str:
    """Another python of the same version must not be handed a virtual environment of this one."""
    return hashlib.sha256(sys.base_prefix.encode()).hexdigest()[:8]


def _make(folder: Path, spec: str) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], f"cannot make a virtual environment for {spec}")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    _run([*pip, "--quiet", "--no-input", spec], f"cannot install {spec}")


def _check_version(python: Path, name: str, version: str) -> None:
    code = f"import importlib.metadata as m; import openenv.core; print(m.version({name!r}))"
    found = _run([str(python), "-c", code], f"cannot import {name} {version}").strip()
    if found != version:
        raise OpenEnvUnavailableError(f"asked for {name} {version}, pip installed {found}")


def _run(command: list[str], failure: str) -> str:
    # The tests' own import path must not reach into the other environment.
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise OpenEnvUnavailableError(f"{failure}: gave up after {INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise OpenEnvUnavailableError(f"{failure}: exit code {done.returncode}\n{said}")
    return done.stdout


def make_all() -> None:
    """Make the environment of every package, two at a time; one that cannot be made is told, and its tests will say."""

    def make(spec: str) -> None:
        try:
            print(f"{spec}: {openenv_python(spec)}", flush=True)
        except OpenEnvUnavailableError as error:
            print(f"{spec}: {error}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, PACKAGES))


if __name__ == "__main__":
    make_all()
