"""A Space is made, or brought up to date, from files; what it is told (variables, hardware) comes before they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_openenv_scale.core.format import size as size_text
from pytest_openenv_scale.hub.access import HubError, hub_calls

from .spaces_source import OURS, SpaceSource, space_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Deployed:
    """A Space after its deployment: its page, how many files it was made of and their bytes.

    `created` says that it was not there before, `changed` that any of its files is another one now.
    """

    url: str
    created: bool
    changed: bool
    files: int
    size: int


def create_or_update(
    api: HfApi,
    repo_id: str,
    source: SpaceSource,
    *,
    private: bool = False,
    hardware: str | None = None,
    variables: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Deployed:
    """Make a Space of these files, or bring one up to date; it builds by itself afterwards.

    Files of an earlier deployment go from app/ and package/; other files of a Space that is there stay.
    `hardware` and `variables` that are not given stay as they are. `say` is told what is uploaded.

    Raises:
        TargetError: the source cannot be served, the Hub refused, or the Space that is there is no Docker Space,
            or public though `private` is asked for.
    """
    files = space_files(source, repo_id.partition("/")[2])
    size = sum(map(len, files.values()))
    say(f"spaces: uploading {source.says} to {repo_id}: {len(files)} files, {size_text(size)}")
    with hub_calls(f"deploying to {repo_id}"):
        created = not api.repo_exists(repo_id, repo_type="space")
        if created:
            api.create_repo(
                repo_id,
                repo_type="space",
                space_sdk="docker",
                private=private,
                space_hardware=hardware,  # pyright: ignore[reportArgumentType]
                space_variables=[{"key": name, "value": value} for name, value in (variables or {}).items()] or None,
            )
        else:
            _check(api, repo_id, private=private)
            _tell(api, repo_id, hardware, variables or {})
        changed = _upload(api, repo_id, files)
    return Deployed(f"{api.endpoint}/spaces/{repo_id}", created, changed, len(files), size)


def _check(api: HfApi, repo_id: str, *, private: bool) -> None:
    info = api.space_info(repo_id)
    if info.sdk not in (None, "docker"):
        raise HubError(f"{repo_id} is a {info.sdk} Space, not a Docker one; give another name, or delete it first")
    if private and info.private is False:
        raise HubError(
            f"{repo_id} exists and is public, so nothing was deployed; "
            "make it private in its settings, or leave out --private"
        )


def _tell(api: HfApi, repo_id: str, hardware: str | None, variables: Mapping[str, str]) -> None:
    """Set what differs only: each change restarts the Space."""
    known = api.get_space_variables(repo_id) if variables else {}
    for name, value in variables.items():
        if name not in known or known[name].value != value:
            api.add_space_variable(repo_id, name, value)
    if hardware is not None:
        runtime = api.get_space_runtime(repo_id)
        if hardware not in (runtime.requested_hardware, runtime.hardware if not runtime.requested_hardware else None):
            api.request_space_hardware(repo_id, hardware)  # pyright: ignore[reportArgumentType]


def _upload(api: HfApi, repo_id: str, files: Mapping[str, bytes]) -> bool:
    """Commit what differs and say whether anything did."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.list_repo_files(repo_id, repo_type="space")
    stale = [path for path in there if path.startswith(OURS) and path not in files and "serve.sh" in files]
    before = api.space_info(repo_id).sha
    done = api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(path, content) for path, content in files.items()),
            *(CommitOperationDelete(path) for path in stale),
        ],
        commit_message="Deploy with openenv-scale",
        repo_type="space",
    )
    return done.oid != before
