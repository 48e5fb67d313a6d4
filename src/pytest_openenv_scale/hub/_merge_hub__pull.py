"""Runs come back from a dataset as the directories they were, and none of yours is overwritten."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.manifest import RunError, read_manifest

from .access import HubError, hub_calls
from .layout import is_measured, path_in_dataset, run_files, runs_in
from .push import dataset_files, is_same

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Pulled:
    """The run directories `new` here and those `already` there; those `kept` differ from the dataset's and stay."""

    new: tuple[Path, ...] = ()
    already: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()


def pull(api: HfApi, repo_id: str, results: Path) -> Pulled:
    """Bring every run of a dataset into `results`; a directory is complete or not there.

    Raises:
        HubError: the Hub refused, the dataset holds no run, what came is not what the Hub announced, or
            `results` cannot be written.
    """
    with hub_calls(f"pulling from {repo_id}"):
        info = api.dataset_info(repo_id)
        entries = dataset_files(api, repo_id, info.sha)
        runs = runs_in(entries)
        if not runs:
            raise HubError(f"{repo_id} holds no run; openenv-scale push puts some there")
        here = {run_id: results / run_id for run_id in runs if (results / run_id).exists()}
        same = {run_id for run_id, path in here.items() if _is_measured_alike(path, run_id, runs[run_id], entries)}
        missing = [run_id for run_id in runs if run_id not in here]
        if missing:
            _fetch(api, repo_id, info.sha, missing, runs, entries, results)
    return Pulled(
        tuple(results / run_id for run_id in missing),
        tuple(path for run_id, path in here.items() if run_id in same),
        tuple(path for run_id, path in here.items() if run_id not in same),
    )


def _is_measured_alike(path: Path, run_id: str, files: Sequence[str], entries: dict[str, Any]) -> bool:
    """Say whether a directory here holds the same measurements; its reports may have been rendered again."""
    theirs = {file for file in files if is_measured(file)}
    ours = {file.as_posix() for file in run_files(path) if is_measured(file.as_posix())}
    return ours == theirs and all(is_same(path / file, _entry(entries, run_id, file)) for file in theirs)


def _entry(entries: dict[str, Any], run_id: str, file: str) -> Any:
    return entries[path_in_dataset(run_id, Path(file))]


def _fetch(
    api: HfApi,
    repo_id: str,
    revision: str | None,
    run_ids: Sequence[str],
    runs: dict[str, list[str]],
    entries: dict[str, Any],
    results: Path,
) -> None:
    partial = results / f".pull-{secrets.token_hex(4)}"
    try:
        partial.mkdir(parents=True)
        hub: Any = api  # Its types are partly unknown.
        hub.snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            local_dir=partial,
            allow_patterns=[path_in_dataset(run_id, Path(file)) for run_id in run_ids for file in runs[run_id]],
        )
        for run_id in run_ids:
            folder = partial / path_in_dataset(run_id, Path())
            _check(folder, repo_id, run_id, runs[run_id], entries)
            folder.rename(results / run_id)
    except OSError as error:
        if error.filename is None:
            raise
        raise HubError(f"{error.filename} cannot be written: {error.strerror}; give another --results") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(folder: Path, repo_id: str, run_id: str, files: Sequence[str], entries: dict[str, Any]) -> None:
    """Make sure that what came is what the Hub announced, and is the run it is named for."""
    for file in files:
        path = folder / file
        if not path.is_file() or not is_same(path, _entry(entries, run_id, file)):
            raise HubError(f"{file} of the run {run_id} came damaged from {repo_id}; do it again")
    try:
        named = read_manifest(folder).run_id
    except RunError as error:
        raise HubError(f"{repo_id} holds a damaged run {run_id}: {error}") from None
    if named != run_id:
        raise HubError(f"{repo_id} calls a run {run_id} that is {named}; it is not taken")
