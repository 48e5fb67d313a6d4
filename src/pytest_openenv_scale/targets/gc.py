"""Removes what runs left behind that were killed before they could clean up themselves."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.core.errors import PartlyCollectedError, TargetError
from pytest_openenv_scale.core.files import is_locked
from pytest_openenv_scale.results.run_directory import WRITER_LOCK

from . import KINDS

Collector = Callable[[bool], list[str]]
"""Removes the leftovers of one kind whose run is gone, or with True only looks for them; one line for each.

Raises `TargetError` where it cannot look, for want of an engine for example.
"""

_SETTLED_S = 60.0
"""Seconds a folder is left alone at first: a run that just begins has made it but not yet locked it."""


@dataclass(frozen=True)
class Collected:
    """What was found: a line for each leftover, why others stay, and by kind why it could not be looked for."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]
    unreached: Mapping[str, str]


def _folders(dry_run: bool) -> list[str]:
    """Remove the run directories of `--openenv-results none` that nobody writes any more."""
    folders = [folder for folder in Path(tempfile.gettempdir()).glob("openenv-scale-*") if _is_abandoned(folder)]
    if not dry_run:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return [f"temporary results {folder}" for folder in sorted(folders)]


def _is_abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        locks = list(folder.glob(f"*/{WRITER_LOCK}"))
        settled = all(time.time() - lock.stat().st_mtime > _SETTLED_S for lock in locks)
    except OSError:
        return False
    return status.st_uid == os.getuid() and bool(locks) and settled and not any(map(is_locked, locks))


COLLECTORS: Mapping[str, Collector] = {
    **{name: kind.collect for name, kind in sorted(KINDS.items()) if kind.collector},
    "folders": _folders,
}


def collect(
    kinds: Sequence[str] = (), *, dry_run: bool = False, others: Mapping[str, Collector] | None = None
) -> Collected:
    """Remove leftovers of these kinds (none named: of every kind of ours); what belongs to a living run stays.

    `others` are the collectors of targets that are not ours, by the kind they are named with.
    """
    collectors = {**COLLECTORS, **(others or {})}
    lines: list[str] = []
    problems: list[str] = []
    unreached: dict[str, str] = {}
    for kind in kinds or COLLECTORS:
        try:
            lines += collectors[kind](dry_run)
        except PartlyCollectedError as error:
            lines += error.lines
            problems += error.problems
        except TargetError as error:
            unreached[kind] = str(error).partition("\n")[0].removeprefix(f"{kind}: ")
    return Collected(tuple(lines), tuple(problems), unreached)
