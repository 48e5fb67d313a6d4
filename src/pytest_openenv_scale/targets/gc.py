"""Removes what runs left behind that were killed before they could clean up themselves."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.files import is_locked
from pytest_openenv_scale.results.run_directory import WRITER_LOCK

from . import KINDS
from .common.leftovers import Leftover

Collector = Callable[[bool], list[str]]
"""Removes the leftovers of a target that is not ours, or with True only looks for them; one line for each."""

_SETTLED_S = 60.0
"""Seconds a folder is left alone at first: a run that just begins has made it but not yet locked it."""


@dataclass(frozen=True)
class Collected:
    """What was found: a line for each leftover, why others stay, and by kind why it could not be looked for."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]
    unreached: Mapping[str, str]


def _folders() -> Iterator[Leftover]:
    """Yield the run directories of `--openenv-results none` that nobody writes any more."""
    for folder in sorted(Path(tempfile.gettempdir()).glob("openenv-scale-*")):
        if _is_abandoned(folder):
            yield Leftover(f"temporary results {folder}", partial(shutil.rmtree, folder, ignore_errors=True))


def _is_abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        locks = list(folder.glob(f"*/{WRITER_LOCK}"))
        settled = all(time.time() - lock.stat().st_mtime > _SETTLED_S for lock in locks)
    except OSError:
        return False
    return status.st_uid == os.getuid() and bool(locks) and settled and not any(map(is_locked, locks))


FINDERS: Mapping[str, Callable[[], Iterable[Leftover]]] = {
    **{name: kind.leftovers for name, kind in sorted(KINDS.items()) if kind.finder},
    "folders": _folders,
}


def _remove(leftover: Leftover, dry_run: bool, lines: list[str]) -> str | None:
    """Remove it, or with `dry_run` leave it, and add its line to `lines`; returns why it stays."""
    if leftover.remove is None:
        return leftover.line
    try:
        if dry_run or leftover.remove() is not False:
            lines.append(leftover.line)
    except TargetError as error:
        return str(error).removeprefix("target ")
    return None


def collect(
    kinds: Sequence[str] = (), *, dry_run: bool = False, others: Mapping[str, Collector] | None = None
) -> Collected:
    """Remove leftovers of these kinds (default: every kind); what belongs to a living run stays.

    `others` are the collectors of targets that are not ours, by the kind they are named with.
    """
    lines: list[str] = []
    problems: list[str] = []
    unreached: dict[str, str] = {}
    for kind in kinds or FINDERS:
        try:
            if others and kind in others:
                lines += others[kind](dry_run)
                continue
            for leftover in FINDERS[kind]():
                problem = _remove(leftover, dry_run, lines)
                problems += [problem] if problem else []
        except TargetError as error:
            unreached[kind] = str(error).partition("\n")[0].removeprefix(f"{kind}: ")
    return Collected(tuple(lines), tuple(problems), unreached)
