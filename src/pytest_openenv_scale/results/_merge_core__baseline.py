"""Which stored run is meant: by path, run id, the word latest, or a git commit, branch or tag."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .grammar import GrammarError, shown
from .manifest import MANIFEST, Manifest, RunError, read_manifest, run_paths

LATEST = "latest"
_HEX = re.compile(r"[0-9a-f]{7,64}")
_GIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Reference:
    """A run as it was named, and the directory a path in it is relative to."""

    text: str
    directory: Path

    def __str__(self) -> str:
        return self.text


def parse_reference(text: object, directory: Path) -> Reference:
    """Check that a run is named at all.

    Raises:
        GrammarError: it is empty, or no line of text.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text or "\n" in text:
        raise GrammarError(f'a baseline is a path, a run id, "latest" or a git commit, got {shown(text)}')
    return Reference(text.strip(), directory)


def find_run(reference: Reference, results: Path | None, *, other_than: str | None = None) -> Path:
    """Return the directory of the run that is meant; `other_than` is a run id that is not.

    A path comes first, then a run id in `results`, then the word latest (the newest complete run), then a
    commit: its first digits, or what git calls by that name here. Of several complete runs of a commit the
    newest counts, one of an unchanged checkout first.

    Raises:
        RunError: there is no such run; one line.
    """
    if (path := _as_path(reference)) is not None:
        return path
    if results is None:
        _say_what_lies_there(reference)
        text = f"there is no run at {shown(reference.text)}"
        raise RunError(f"{text}, and no results directory to look in; give the path of a run")
    if "/" not in reference.text and (path := _as_path(Reference(reference.text, results))) is not None:
        return path
    runs = [(path, manifest) for path, manifest in _complete(results) if manifest.run_id != other_than]
    if reference.text == LATEST:
        if not runs:
            raise RunError(f"there is no complete run in {results} to compare with")
        return runs[0][0]
    return _of_commit(reference, results, runs)


def _as_path(reference: Reference) -> Path | None:
    """Return the run that lies there, or None; what the system does not take for a path is none."""
    try:
        path = reference.directory / Path(reference.text).expanduser()
        path = path.parent if path.name == MANIFEST else path
        return path if (path / MANIFEST).is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _say_what_lies_there(reference: Reference) -> None:
    """Refuse a path at which something else than a run lies.

    Raises:
        RunError: it names the runs in a folder of them.
    """
    path = reference.directory / reference.text
    try:
        there = path.exists()
    except (OSError, ValueError):
        return
    if there:
        read_manifest(path)


def _complete(results: Path) -> Iterator[tuple[Path, Manifest]]:
    """Yield the complete runs that can be read and measured something, the newest first."""
    for path in reversed(run_paths(results)):
        try:
            manifest = read_manifest(path)
        except RunError:
            continue
        if manifest.status == "complete" and manifest.sweeps:
            yield path, manifest


def _of_commit(reference: Reference, results: Path, runs: list[tuple[Path, Manifest]]) -> Path:
    name = reference.text
    resolved = _resolve(name, reference.directory)
    wanted = resolved or (name.lower() if _HEX.fullmatch(name.lower()) else None)
    if wanted is None:
        _say_what_lies_there(reference)
        what = "a path, a run id, latest, or a commit, branch or tag of the git repository here"
        raise RunError(f"there is no run {shown(name)} in {results}; write {what}")
    found = [(path, manifest) for path, manifest in runs if (_git(manifest).get("commit") or "").startswith(wanted)]
    if not found:
        commits = list(dict.fromkeys(commit[:10] for _, run in runs if (commit := _git(run).get("commit"))))
        known = f"; there are runs of {', '.join(commits[:5])}" if commits else ""
        called = f"{shown(name)} (commit {wanted[:10]})" if resolved and not resolved.startswith(name) else shown(name)
        raise RunError(f"there is no complete run of {called} in {results}{known}")
    clean = [path for path, manifest in found if not _git(manifest).get("dirty")]
    return clean[0] if clean else found[0][0]


def _git(manifest: Manifest) -> dict[str, Any]:
    return manifest.fingerprint.get("git") or {}


def _resolve(name: str, folder: Path) -> str | None:
    """Return the commit that git knows by this name in a folder; None where it knows none, or there is no git."""
    if name.startswith("-"):
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
