"""Virtual environments that hold the real OpenEnv packages, one each because they install the same modules.

They are made on first use, in a folder outside the repository (OPENENV_SCALE_VENVS, else the user's cache), and kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from environments import make_environment, outside

OPENENV_0_10 = "openenv==0.10.0"
PACKAGES = (OPENENV_0_10, "openenv-core==0.3.0", "openenv-core==0.2.3", "openenv-core==0.2.0")
"""Newest first."""


def newest_and_oldest(cases: Iterable[Any], package: Callable[[Any], str] = str) -> list[Any]:
    """Parametrise a test over things of several packages; those of versions in between belong to the matrix."""
    return [
        pytest.param(case, id=getattr(case, "id", None) or str(case), marks=_marks(package(case))) for case in cases
    ]


def _marks(package: str) -> tuple[pytest.MarkDecorator, ...]:
    return () if package in (PACKAGES[0], PACKAGES[-1]) else (pytest.mark.matrix,)


def openenv_python(spec: str) -> Path:
    """The python of a virtual environment that holds exactly `spec`, for example `openenv==0.10.0`.

    Made on first use; callers in other processes wait for it. The test is skipped where uv cannot install it.
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
            make_environment(folder, spec)
            _check_version(python, name, version)
            finished.touch()
    return python


def openenv_and_project(spec: str, folder: Path) -> Path:
    """A python in `folder` that holds the real openenv and, where that has no say, what these tests run with.

    Installing the project beside openenv would take a minute and test what the index serves today. Instead an empty
    environment gets both site-packages: openenv's first, so that its versions are the ones its installation chose,
    then ours with the project in it, editable or not: `addsitedir` reads the `.pth` files of both, as Python does.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    python = folder / "venv" / "bin" / "python"
    both = (openenv_python(spec), Path(sys.executable))
    lines = [f"import site; site.addsitedir({str(_site_packages(of))!r})" for of in both]
    (_site_packages(python) / "both.pth").write_text("\n".join(lines) + "\n")
    return python


def _site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return Path(done.stdout.strip())


def _pinned(spec: str) -> tuple[str, str]:
    match = re.fullmatch(r"(openenv(?:-core)?)==([\w.]+)", spec)
    if not match:
        raise ValueError(f"{spec!r}: expected a pinned package such as openenv==0.10.0")
    return match[1], match[2]


def _cache() -> Path:
    if folder := os.environ.get("OPENENV_SCALE_VENVS"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pytest-openenv-scale" / "venvs"


def _interpreter() -> str:
    """Another python of the same version must not be handed a virtual environment of this one."""
    return hashlib.sha256(sys.base_prefix.encode()).hexdigest()[:8]


def _check_version(python: Path, name: str, version: str) -> None:
    code = f"import importlib.metadata as m; import openenv.core; print(m.version({name!r}))"
    done = subprocess.run([python, "-c", code], env=outside(), capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == version
