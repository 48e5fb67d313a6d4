"""Finding stored runs by name: a path, an id or its beginning, latest or latest~1, or what git calls a commit."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_openenv_scale.config.limits import Reference
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import short_repr

from .location import RUN_NAMES
from .manifest import MANIFEST, Manifest, git_state, read_manifest, run_paths

LATEST = "latest"
_LATEST = re.compile(rf"{LATEST}(?:~(\d{{1,6}}))?")
_MOST_NAMED = 5
_HEX = re.compile(r"[0-9a-f]{7,64}")


def find_run(
    reference: Reference, folders: Sequence[Path], *, other_than: str | None = None, to_compare: bool = True
) -> Path:
    """Return the directory of the run that is meant; `other_than` is a run id that is not.

    A path comes first, then a run id in one of the folders, then latest (latest~1 is the one before it), then the
    beginning of one run's id, then a commit: its first digits, or what git calls by that name here. The latest is the
    newest complete run where it is `to_compare`, else the newest there is. Of several complete runs of a commit the
    newest counts, one of an unchanged checkout first.

    Raises:
        RunError: there is no such run, or several ids begin so; one line.
    """
    if (path := _run_at_path(reference)) is not None:
        return path
    if not folders:
        _refuse_other_than_run(reference)
        text = f"there is no run at {short_repr(reference.text)}"
        raise RunError(f"{text}, and no results directory to look in; give the path of a run")
    for folder in folders if "/" not in reference.text else ():
        if (path := _run_at_path(Reference(reference.text, folder))) is not None:
            return path
    if latest := _LATEST.fullmatch(reference.text):
        paths = [path for path, _ in _complete_runs(folders)] if to_compare else run_paths(folders)[::-1]
        return _run_before_latest(
            int(latest[1] or 0), [path for path in paths if path.name != other_than], folders, to_compare=to_compare
        )
    if (path := _run_that_begins(reference.text, folders, other_than)) is not None:
        return path
    runs = [(path, manifest) for path, manifest in _complete_runs(folders) if manifest.run_id != other_than]
    return _run_of_commit(reference, folders, runs)


def _run_before_latest(before: int, paths: Sequence[Path], folders: Sequence[Path], *, to_compare: bool) -> Path:
    """Return the run so many before the newest of `paths`, the newest first."""
    if before < len(paths):
        return paths[before]
    kind, where = "complete run" if to_compare else "run", folders_text(folders)
    if not paths:
        raise RunError(f"there is no {kind} in {where}{' to compare with' if to_compare else ''}")
    oldest = LATEST if len(paths) == 1 else f"{LATEST}~{len(paths) - 1}"
    raise RunError(f"there is no {LATEST}~{before}: {where} holds {count_of(len(paths), kind)}, the oldest is {oldest}")


def _run_that_begins(text: str, folders: Sequence[Path], other_than: str | None) -> Path | None:
    """Return the run whose id begins so; None where there is none.

    Raises:
        RunError: there are several.
    """
    # Of a run that lies in two folders the one in the first counts.
    newest_first = {path.name: path for path in reversed(run_paths(folders)) if path.name.startswith(text)}
    newest_first.pop(other_than or "", None)
    if len(newest_first) > 1:
        named = ", ".join(list(newest_first)[:_MOST_NAMED])
        more = f" and {len(newest_first) - _MOST_NAMED} more" if len(newest_first) > _MOST_NAMED else ""
        raise RunError(f"{len(newest_first)} run ids begin with {short_repr(text)}: {named}{more}; write more of one")
    return next(iter(newest_first.values()), None)


def _run_at_path(reference: Reference) -> Path | None:
    """Return the run at the path a reference names; None where there is none or the text is no valid path."""
    try:
        path = reference.directory / Path(reference.text).expanduser()
        path = path.parent if path.name == MANIFEST else path
        return path if (path / MANIFEST).is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _refuse_other_than_run(reference: Reference) -> None:
    """Refuse a path that exists but is no run.

    Raises:
        RunError: it is no run; where it is a folder of runs, the message names one.
    """
    path = reference.directory / reference.text
    try:
        exists = path.exists()
    except (OSError, ValueError):
        return
    if exists:
        read_manifest(path)


def folders_text(folders: Sequence[Path]) -> str:
    """Return folders in which something is not, in words."""
    return " or ".join(map(str, folders))


def _complete_runs(folders: Sequence[Path]) -> Iterator[tuple[Path, Manifest]]:
    """Yield the complete runs that can be read and measured something, the newest first."""
    for path in reversed(run_paths(folders)):
        try:
            manifest = read_manifest(path)
        except RunError:
            continue
        if manifest.status == "complete" and manifest.sweeps:
            yield path, manifest


def _run_of_commit(reference: Reference, folders: Sequence[Path], runs: list[tuple[Path, Manifest]]) -> Path:
    name = reference.text
    resolved = _resolve_commit(name, reference.directory)
    commit_prefix = resolved or (name.lower() if _HEX.fullmatch(name.lower()) else None)
    if commit_prefix is None:
        _refuse_other_than_run(reference)
        raise RunError(f"there is no run {short_repr(name)} in {folders_text(folders)}; write {RUN_NAMES}")
    matches = [
        (path, manifest) for path, manifest in runs if (git_state(manifest).commit or "").startswith(commit_prefix)
    ]
    if not matches:
        commits = list(dict.fromkeys(commit[:10] for _, run in runs if (commit := git_state(run).commit)))
        hint = f"; there are runs of {', '.join(commits[:5])}" if commits else ""
        label = (
            f"{short_repr(name)} (commit {commit_prefix[:10]})"
            if resolved and not resolved.startswith(name)
            else short_repr(name)
        )
        raise RunError(f"there is no complete run of {label} in {folders_text(folders)}{hint}")
    clean = [path for path, manifest in matches if not git_state(manifest).dirty]
    return clean[0] if clean else matches[0][0]


def _resolve_commit(name: str, folder: Path) -> str | None:
    """Return the commit that git knows by this name in a folder; None where it knows none, or there is no git."""
    if name.startswith("-"):
        return None
    return run_git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") or None


_TIMEOUT_S = 5.0


def run_git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command prints in a folder; None where it fails, takes too long, or there is no git."""
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None
