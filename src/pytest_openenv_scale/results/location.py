"""Where runs go: the folder of runs, and their ids.

The controller of xdist workers asks before anything is measured, so this imports little.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from pytest_openenv_scale.config.options import DEFAULT_RESULTS

FORMER_RESULTS = "openenv-results"
"""What the folder was called before it was hidden."""

RUN_NAMES = "a path, a run id or its beginning, latest, latest~1, or a git commit, branch or tag"
"""What a stored run may be named by."""


def default_results(root: Path) -> Path:
    """Return the folder below a root directory that runs go to where nobody names one.

    One of the former name goes on being used where there is none of today's.
    """
    folder, former = root / DEFAULT_RESULTS, root / FORMER_RESULTS
    return former if former.is_dir() and not folder.exists() else folder


def stored_results(root: Path) -> tuple[Path, ...]:
    """Return the folders below a root directory in which runs are looked for where nobody names one."""
    folders = (root / DEFAULT_RESULTS, root / FORMER_RESULTS)
    return tuple(folder for folder in folders if folder.is_dir()) or folders[:1]


def make_results(folder: Path) -> None:
    """Make a folder of runs, or one in it, where it is missing; git is told to ignore one of the default name.

    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if each.name == DEFAULT_RESULTS and not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        (each / ".gitignore").write_text("*\n", encoding="utf-8")


def new_run_id() -> str:
    """Return an id for a run that sorts by time and is unique: "20261121T101530.042Z-3fa9c21b"."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{os.urandom(4).hex()}"
