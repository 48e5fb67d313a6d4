"""Runs go to a dataset: byte for byte, with a table of their cells and a section of the card."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.locks import is_held
from pytest_openenv_scale.core.run import Run, RunError, load_run
from pytest_openenv_scale.core.rundir import PARTS, WRITER_LOCK

from .access import HubError, hub_calls
from .card import RunSection, updated_card
from .cells import cells_parquet, cells_table
from .layout import CARD, CELLS, RUNS, cells_path, git_oid, is_measured, path_in_dataset, run_files, runs_in, sha256

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TRIES = 3


@dataclass(frozen=True)
class PlannedRun:
    """A run to push and its files, relative to its directory."""

    run: Run
    files: tuple[Path, ...]

    @property
    def section(self) -> RunSection:
        """What the card says of it."""
        return RunSection(self.run, [file.as_posix() for file in self.files])

    @property
    def sources(self) -> dict[str, Path]:
        """Where each file goes in the dataset, and where it lies."""
        return {path_in_dataset(self.run.run_id, file): self.run.path / file for file in self.files}


@dataclass(frozen=True)
class Pushed:
    """What a push did: `url` of the dataset, the ids of the runs `added`, `updated` (their reports) and `unchanged`."""

    url: str
    created: bool
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


def plan_push(paths: Sequence[Path]) -> tuple[PlannedRun, ...]:
    """Read the runs to push; any that ended may be, whole or not.

    Raises:
        RunError: one is no run, or is still going on, or two have the same id.
    """
    planned: dict[str, PlannedRun] = {}
    for path in paths:
        run = load_run(path)
        if is_held(run.path / WRITER_LOCK):
            raise RunError(f"{run.path} is still going on; push it when it has ended")
        if run.path.resolve().name != run.run_id:
            raise RunError(f"{run.path} holds the run {run.run_id}; give the folder that name again")
        planned[run.run_id] = PlannedRun(run, tuple(run_files(run.path)))
    return tuple(planned.values())


def configs_of(paths: Collection[str], planned: Sequence[PlannedRun]) -> set[str]:
    """Return which of cells and sessions a dataset has files of, with these runs in it."""
    has_rows = any(cells_table(one.run).num_rows for one in planned)
    in_sessions = any(path.startswith(f"{RUNS}/") and f"/{PARTS}/" in path for path in paths)
    in_cells = any(path.startswith(f"{CELLS}/") for path in paths)
    return {name for name, there in (("cells", in_cells), ("sessions", in_sessions)) if there or has_rows}


def push(api: HfApi, repo_id: str, planned: Sequence[PlannedRun], *, private: bool) -> Pushed:
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
        for tried in range(1, _TRIES + 1):
            try:
                return _push(api, repo_id, planned, private=private, created=created)
            except HfHubHTTPError as error:
                # Somebody else has pushed meanwhile: what is there is looked at again.
                if error.response.status_code != 412 or tried == _TRIES:
                    raise
    raise AssertionError("unreachable")


def _push(api: HfApi, repo_id: str, planned: Sequence[PlannedRun], *, private: bool, created: bool) -> Pushed:
    from huggingface_hub import CommitOperationAdd

    info = api.dataset_info(repo_id)
    if private and info.private is False:
        raise HubError(
            f"{repo_id} exists and is public, so nothing was pushed; "
            "make it private in its settings, or leave out --private"
        )
    there = dataset_files(api, repo_id, info.sha)
    added, updated, unchanged = _compared(planned, there)
    with tempfile.TemporaryDirectory(prefix="openenv-push-") as folder:
        changed = {one.run.run_id for one in planned} - set(unchanged)
        contents: dict[str, str | bytes] = {}
        for one in planned:
            if one.run.run_id in changed:
                contents |= {path: str(source) for path, source in one.sources.items()}
                if cells_table(one.run).num_rows:
                    table = Path(folder) / f"{one.run.run_id}.parquet"
                    cells_parquet(one.run, table)
                    contents[cells_path(one.run.run_id)] = str(table)
        url = f"{api.endpoint}/datasets/{repo_id}"
        if not contents:
            return Pushed(url, created, unchanged=unchanged)
        card = _card(api, repo_id, info.sha) if CARD in there else None
        sections = [one.section for one in planned]
        contents[CARD] = updated_card(card, repo_id, sections, configs_of(there, planned)).encode()
        api.create_commit(
            repo_id,
            [CommitOperationAdd(path, content) for path, content in contents.items()],
            commit_message=f"Runs: {', '.join(sorted(changed))}",
            repo_type="dataset",
            parent_commit=info.sha,
        )
    return Pushed(url, created, added, updated, unchanged)


def dataset_files(api: HfApi, repo_id: str, revision: str | None) -> dict[str, Any]:
    """Return the files of a dataset at a revision as `huggingface_hub` describes them, by path."""
    listed = api.list_repo_tree(repo_id, repo_type="dataset", recursive=True, revision=revision)
    return {entry.path: entry for entry in listed if hasattr(entry, "blob_id")}


def is_same(path: Path, entry: Any) -> bool:
    """Say whether a local file has the content of one on the Hub."""
    content = path.read_bytes()
    return sha256(content) == entry.lfs.sha256 if entry.lfs else git_oid(content) == entry.blob_id


def _compared(
    planned: Sequence[PlannedRun], there: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the ids of runs that are new, that have other reports there, and that are there as they are here."""
    known = runs_in(there)
    added: list[str] = []
    updated: list[str] = []
    unchanged: list[str] = []
    for one in planned:
        run_id = one.run.run_id
        if run_id not in known:
            added.append(run_id)
            continue
        ours = {file.as_posix() for file in one.files}
        differing = {
            file
            for file in ours | set(filter(is_measured, known[run_id]))
            if file not in known[run_id]
            or file not in ours
            or not is_same(one.run.path / file, there[path_in_dataset(run_id, Path(file))])
        }
        if any(map(is_measured, differing)):
            raise HubError(
                f"the dataset has another run {run_id}: {min(filter(is_measured, differing))} differs; "
                "push to another dataset, or delete that run there"
            )
        (updated if differing else unchanged).append(run_id)
    return tuple(added), tuple(updated), tuple(unchanged)


def _card(api: HfApi, repo_id: str, revision: str | None) -> str:
    # Not the shared cache: this is read once, to be written anew.
    with tempfile.TemporaryDirectory(prefix="openenv-push-") as folder:
        hub: Any = api  # Its types are partly unknown.
        path = hub.hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision, local_dir=folder)
        return Path(path).read_text(encoding="utf-8")
