"""Where a run lies in a dataset, and which of its files go there.

    README.md                    the card
    cells/<run id>.parquet       one row per cell and repetition
    runs/<run id>/               the run directory, byte for byte

Paths in a dataset are POSIX and relative to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from pytest_openenv_scale.core.manifest import MANIFEST
from pytest_openenv_scale.core.rundir import PARTS

CARD = "README.md"
CELLS = "cells"
RUNS = "runs"
SESSIONS_GLOB = f"{RUNS}/*/{PARTS}/*.parquet"
CELLS_GLOB = f"{CELLS}/*.parquet"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IN_RUN = re.compile(rf"{RUNS}/({_RUN_ID.pattern})/(.+)")


def run_files(run: Path) -> list[Path]:
    """Return the files of a run directory, relative to it: no locks, nothing unfinished and no links."""
    found = (path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    inside = (path.relative_to(run) for path in found)
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.parts))


def path_in_dataset(run_id: str, file: Path) -> str:
    """Return where a file of a run lies in the dataset."""
    return f"{RUNS}/{run_id}/{file.as_posix()}"


def cells_path(run_id: str) -> str:
    """Return where the table of a run's cells lies in the dataset."""
    return f"{CELLS}/{run_id}.parquet"


def runs_in(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the runs of a dataset by id: the paths of their files, relative to the run.

    What is no run (it has no manifest, or a path that leads elsewhere) is left out.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        matched = _IN_RUN.fullmatch(path)
        if matched and not any(part.startswith(".") for part in matched[2].split("/")):
            found.setdefault(matched[1], []).append(matched[2])
    return {run_id: sorted(files) for run_id, files in sorted(found.items()) if MANIFEST in files}


def is_measured(file: str) -> bool:
    """Say whether a file of a run holds what was measured; reports are rendered from that again and may differ."""
    return file == MANIFEST or file.startswith(f"{PARTS}/")


def git_oid(content: bytes) -> str:
    """Return git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    """Return the Hub's name for the content of a large file."""
    return hashlib.sha256(content).hexdigest()
