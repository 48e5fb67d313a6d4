"""Where and with what a run was made: machine, interpreter, versions and commit; nothing secret."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .references import run_git

PACKAGES = (
    "pytest-openenv-scale",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "aiohttp",
    "uvloop",
    "starlette",
    "hypercorn",
    "uvicorn",
    "websockets",
    "wsproto",
    "pyarrow",
    "psutil",
    "openenv",
    "openenv-core",
)
"""The packages whose versions a run keeps, where they are installed."""


def fingerprint(folder: Path | None = None) -> dict[str, Any]:
    """Describe this machine, this interpreter and the git checkout of `folder` (default: the current one).

    `memory_bytes` is bytes, `load_average` that of the last minute; what cannot be known is None.
    """
    return {
        "hostname": platform.node(),
        "machine": {
            "cpu": _cpu_model(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "memory_bytes": psutil.virtual_memory().total,
            "load_average": os.getloadavg()[0],
        },
        "os": {"system": platform.system(), "release": platform.release(), "name": platform.platform()},
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "packages": _versions(),
        "git": _git_state(folder or Path.cwd()),
    }


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or None


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and whether tracked files were changed; None outside a git checkout."""
    commit = run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": run_git(folder, "symbolic-ref", "--short", "--quiet", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }
