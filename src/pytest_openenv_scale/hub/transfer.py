"""Pushes runs to a dataset byte for byte, and pulls them as the same directories; no local run is overwritten."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.analysis.run import Run, load_run
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import is_locked
from pytest_openenv_scale.reporting import write_reports
from pytest_openenv_scale.results.location import make_results
from pytest_openenv_scale.results.manifest import SAMPLES, read_manifest
from pytest_openenv_scale.results.run_directory import PARTS, WRITER_LOCK

from .access import HubError, hub_calls
from .dataset import (
    CARD,
    CELLS,
    RUNS,
    RunSection,
    cells_parquet,
    cells_path,
    cells_table,
    git_oid,
    is_measured,
    path_in_dataset,
    run_files,
    runs_in_dataset,
    sha256,
    updated_card,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TRIES = 3


@dataclass(frozen=True)
class PlannedRun:
    """A run to push and its files, relative to its directory; some may be `replaced` by others."""

    run: Run
    files: tuple[Path, ...]
    replaced: Mapping[Path, Path] = field(default_factory=dict[Path, Path])

    @property
    def section(self) -> RunSection:
        """Its section of the card."""
        return RunSection(self.run, [file.as_posix() for file in self.files])

    @property
    def sources(self) -> dict[str, Path]:
        """The local path of each file, by its path in the dataset."""
        return {path_in_dataset(self.run.run_id, file): self.source(file) for file in self.files}

    def source(self, file: Path) -> Path:
        """Return where the content of a file is."""
        return self.replaced.get(file, self.run.path / file)

    def without_samples(self, folder: Path) -> PlannedRun:
        """Return the run with reports, made in `folder`, that hold no sample of the messages of sessions."""
        if not (self.run.path / SAMPLES).is_file():
            return self
        directory = folder / self.run.run_id
        formats = tuple(name for name in ("md", "html") if Path(f"report.{name}") in self.files)
        write_reports(load_run(self.run.path, samples=False), formats=formats, directory=directory)
        reports = {path.relative_to(directory): path for path in directory.iterdir()}
        return replace(self, replaced={file: path for file, path in reports.items() if file in self.files})


@dataclass(frozen=True)
class PushResult:
    """What a push did: `url` of the dataset, the ids of the runs `added`, `updated` (their reports) and `unchanged`."""

    url: str
    created: bool
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


def plan_push(paths: Sequence[Path]) -> tuple[PlannedRun, ...]:
    """Read the runs to push; any that ended may be, whole or not.

    Raises:
        RunError: a path is no run, is still going on, or is not named by the run's id.
    """
    planned: dict[str, PlannedRun] = {}
    for path in paths:
        run = load_run(path)
        if is_locked(run.path / WRITER_LOCK):
            raise RunError(f"{run.path} is still going on; push it when it has ended")
        if run.path.resolve().name != run.run_id:
            raise RunError(f"{run.path} holds the run {run.run_id}; give the folder that name again")
        planned[run.run_id] = PlannedRun(run, tuple(run_files(run.path)))
    return tuple(planned.values())


def dataset_configs(paths: Collection[str], planned: Sequence[PlannedRun]) -> set[str]:
    """Return which of "cells" and "sessions" a dataset has files of once these runs are in it."""
    has_rows = any(cells_table(planned_run.run).num_rows for planned_run in planned)
    in_sessions = any(path.startswith(f"{RUNS}/") and f"/{PARTS}/" in path for path in paths)
    in_cells = any(path.startswith(f"{CELLS}/") for path in paths)
    return {name for name, is_there in (("cells", in_cells), ("sessions", in_sessions)) if is_there or has_rows}


def push(api: HfApi, repo_id: str, planned: Sequence[PlannedRun], *, private: bool) -> PushResult:
    """Add runs to a dataset, which is made where it does not exist; one commit holds them all or none.

    Raises:
        HubError: the Hub refused, the dataset is public though `private` is asked for, or it has another
            run of the same id.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with hub_calls(f"pushing to {repo_id}"):
        created = not api.repo_exists(repo_id, repo_type="dataset")
        if created:
            api.create_repo(repo_id, repo_type="dataset", private=private)
        with tempfile.TemporaryDirectory(prefix="openenv-push-") as folder:
            planned = [planned_run.without_samples(Path(folder)) for planned_run in planned]
            for attempt in range(1, _TRIES + 1):
                try:
                    return _push(api, repo_id, planned, private=private, created=created)
                except HfHubHTTPError as error:
                    # Somebody else has pushed meanwhile: what is there is looked at again.
                    if error.response.status_code != 412 or attempt == _TRIES:
                        raise
    raise AssertionError("unreachable")


def _push(api: HfApi, repo_id: str, planned: Sequence[PlannedRun], *, private: bool, created: bool) -> PushResult:
    from huggingface_hub import CommitOperationAdd

    info = api.dataset_info(repo_id)
    if private and info.private is False:
        raise HubError(
            f"{repo_id} exists and is public, so nothing was pushed; "
            "make it private in its settings, or leave out --private"
        )
    remote_files = dataset_files(api, repo_id, info.sha)
    added, updated, unchanged = _compare_with_dataset(planned, remote_files)
    with tempfile.TemporaryDirectory(prefix="openenv-push-") as folder:
        changed = {planned_run.run.run_id for planned_run in planned} - set(unchanged)
        contents: dict[str, str | bytes] = {}
        for planned_run in planned:
            if planned_run.run.run_id in changed:
                contents |= {path: str(source) for path, source in planned_run.sources.items()}
                if cells_table(planned_run.run).num_rows:
                    table = Path(folder) / f"{planned_run.run.run_id}.parquet"
                    cells_parquet(planned_run.run, table)
                    contents[cells_path(planned_run.run.run_id)] = str(table)
        url = f"{api.endpoint}/datasets/{repo_id}"
        if not contents:
            return PushResult(url, created, unchanged=unchanged)
        card = _download_card(api, repo_id, info.sha) if CARD in remote_files else None
        sections = [planned_run.section for planned_run in planned]
        contents[CARD] = updated_card(card, repo_id, sections, dataset_configs(remote_files, planned)).encode()
        api.create_commit(
            repo_id,
            [CommitOperationAdd(path, content) for path, content in contents.items()],
            commit_message=f"Runs: {', '.join(sorted(changed))}",
            repo_type="dataset",
            parent_commit=info.sha,
        )
    return PushResult(url, created, added, updated, unchanged)


def dataset_files(api: HfApi, repo_id: str, revision: str | None) -> dict[str, Any]:
    """Return the files of a dataset at a revision as `huggingface_hub` describes them, by path."""
    entries = api.list_repo_tree(repo_id, repo_type="dataset", recursive=True, revision=revision)
    return {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}


def is_same(path: Path, entry: Any) -> bool:
    """Say whether a local file has the content of one on the Hub."""
    content = path.read_bytes()
    return sha256(content) == entry.lfs.sha256 if entry.lfs else git_oid(content) == entry.blob_id


def _compare_with_dataset(
    planned: Sequence[PlannedRun], remote_files: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the ids of runs that are new, that differ in their reports, and that are the same in the dataset.

    Raises:
        HubError: the dataset has another run of the same id.
    """
    remote_runs = runs_in_dataset(remote_files)
    added: list[str] = []
    updated: list[str] = []
    unchanged: list[str] = []
    for planned_run in planned:
        run_id = planned_run.run.run_id
        if run_id not in remote_runs:
            added.append(run_id)
            continue
        ours = {file.as_posix() for file in planned_run.files}
        differing = {
            file
            for file in ours | set(filter(is_measured, remote_runs[run_id]))
            if file not in remote_runs[run_id]
            or file not in ours
            or not is_same(planned_run.source(Path(file)), remote_files[path_in_dataset(run_id, Path(file))])
        }
        if any(map(is_measured, differing)):
            raise HubError(
                f"the dataset has another run {run_id}: {min(filter(is_measured, differing))} differs; "
                "push to another dataset, or delete that run there"
            )
        (updated if differing else unchanged).append(run_id)
    return tuple(added), tuple(updated), tuple(unchanged)


def _download_card(api: HfApi, repo_id: str, revision: str | None) -> str:
    # Not the shared cache: this is read once, to be written anew.
    with tempfile.TemporaryDirectory(prefix="openenv-push-") as folder:
        hub: Any = api  # Its types are partly unknown.
        path = hub.hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision, local_dir=folder)
        return Path(path).read_text(encoding="utf-8")


@dataclass(frozen=True)
class PullResult:
    """The local run directories: `new`, `unchanged`, and those that are `different` in the dataset and stay."""

    new: tuple[Path, ...] = ()
    unchanged: tuple[Path, ...] = ()
    different: tuple[Path, ...] = ()


def pull(api: HfApi, repo_id: str, results: Path) -> PullResult:
    """Bring every run of a dataset into `results`; a directory is complete or not there.

    Raises:
        HubError: the Hub refused, the dataset holds no run, what came is not what the Hub announced, or
            `results` cannot be written.
    """
    with hub_calls(f"pulling from {repo_id}"):
        info = api.dataset_info(repo_id)
        entries = dataset_files(api, repo_id, info.sha)
        runs = runs_in_dataset(entries)
        if not runs:
            raise HubError(f"{repo_id} holds no run; openenv-scale push puts some there")
        local = {run_id: results / run_id for run_id in runs if (results / run_id).exists()}
        unchanged = {
            run_id for run_id, path in local.items() if _is_measured_alike(path, run_id, runs[run_id], entries)
        }
        missing = [run_id for run_id in runs if run_id not in local]
        if missing:
            _download_runs(api, repo_id, info.sha, missing, runs, entries, results)
    return PullResult(
        tuple(results / run_id for run_id in missing),
        tuple(path for run_id, path in local.items() if run_id in unchanged),
        tuple(path for run_id, path in local.items() if run_id not in unchanged),
    )


def _is_measured_alike(path: Path, run_id: str, files: Sequence[str], entries: dict[str, Any]) -> bool:
    """Say whether a directory here holds the same measurements; its reports may have been rendered again."""
    theirs = {file for file in files if is_measured(file)}
    ours = {file.as_posix() for file in run_files(path) if is_measured(file.as_posix())}
    return ours == theirs and all(is_same(path / file, _remote_entry(entries, run_id, file)) for file in theirs)


def _remote_entry(entries: dict[str, Any], run_id: str, file: str) -> Any:
    return entries[path_in_dataset(run_id, Path(file))]


def _download_runs(
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
        make_results(partial)
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
            _check_download(folder, repo_id, run_id, runs[run_id], entries)
            folder.rename(results / run_id)
    except OSError as error:
        if error.filename is None:
            raise
        raise HubError(f"{error.filename} cannot be written: {error.strerror}; give another --results") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_download(folder: Path, repo_id: str, run_id: str, files: Sequence[str], entries: dict[str, Any]) -> None:
    """Check that the downloaded files are those the Hub announced, and hold the run they are named for.

    Raises:
        HubError: a file is damaged, or the run has another id.
    """
    for file in files:
        path = folder / file
        if not path.is_file() or not is_same(path, _remote_entry(entries, run_id, file)):
            raise HubError(f"{file} of the run {run_id} came damaged from {repo_id}; do it again")
    try:
        actual_id = read_manifest(folder).run_id
    except RunError as error:
        raise HubError(f"{repo_id} holds a damaged run {run_id}: {error}") from None
    if actual_id != run_id:
        raise HubError(f"{repo_id} calls a run {run_id} that is {actual_id}; it is not taken")
