"""The files a Space consists of, and creating or updating a Space from them."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, cast

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.formatting import size as size_text
from pytest_openenv_scale.hub.access import HubError, hub_calls, join_card, split_card
from pytest_openenv_scale.results.location import FORMER_RESULTS
from pytest_openenv_scale.targets.common.application import is_app_name, manifest_app
from pytest_openenv_scale.targets.common.files import deploy_file, write_own_wheel

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README, DOCKERFILE, REQUIREMENTS = "README.md", "Dockerfile", "requirements.txt"
OWN_FOLDERS = ("app/", "package/")
"""Folders of a Space that belong to its deployment: what an earlier one left there goes."""

_TEMPLATE = (DOCKERFILE, REQUIREMENTS, "serve.sh")
_SKIPPED = {"__pycache__", "node_modules", FORMER_RESULTS}
_EXPOSE = re.compile(r"^\s*EXPOSE\s+(\d+)", re.MULTILINE | re.IGNORECASE)
_APP_ARG = re.compile(r"^ARG APP=$", re.MULTILINE)
_PORT = 8000


@dataclass(frozen=True)
class SpaceSource:
    """What to deploy: neither `folder` nor `app` is the benchmark environment.

    `folder` is an environment's repository; its Dockerfile is used where it has one. `app` (module:app) is
    served from `folder` whatever Dockerfile there is.
    """

    folder: Path | None = None
    app: str | None = None

    @classmethod
    def parse(cls, *, app: str | None, folder: str | None, root: Path) -> Self:
        """Return the source that is written as `app` and `folder`; without a folder, an app is one of `root`."""
        if folder is None:
            return cls(root if app else None, app)
        path = Path(folder).expanduser()
        return cls(path if path.is_absolute() or path.exists() else root / path, app)

    def check(self) -> None:
        """Check that it can be served, before anything is created for it.

        Raises:
            TargetError: as of `space_files`.
        """
        if self.folder is not None:
            space_files(self, "name")

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        if self.folder is None:
            return "the benchmark environment"
        return f"{self.app} of {self.folder}" if self.app else f"{self.folder}"


def space_files(source: SpaceSource, name: str) -> dict[str, bytes]:
    """Return the files of a Space by path; `name` is the Space's, for a card that has no title.

    Raises:
        TargetError: the folder cannot be served: it is none, or has neither a Dockerfile nor an app.
    """
    if source.folder is None:
        return _benchmark_files()
    folder = source.folder.expanduser().resolve()
    if not folder.is_dir():
        raise TargetError(f"there is no folder {source.folder} to deploy")
    if source.app is not None and not is_app_name(source.app):
        raise TargetError(f"app {source.app!r} is not module:app; write for example server.app:app")
    files = dict(_read_files(folder))
    if source.app is None and (dockerfile := _find_dockerfile(files)) is not None:
        files[DOCKERFILE] = dockerfile
        exposed = _EXPOSE.search(dockerfile.decode("utf-8", "replace"))
        files[README] = _card(files.get(README, b""), name, int(exposed[1]) if exposed else _PORT)
        return files
    app = source.app or manifest_app(folder)
    if app is None:
        raise TargetError(
            f"{folder} has neither a Dockerfile (or server/Dockerfile) nor an openenv.yaml that names its app; "
            "write one of them, or give --app MODULE:ATTR"
        )
    return _application_files(folder, app, files, name)


def _benchmark_files() -> dict[str, bytes]:
    files = {name: deploy_file(f"hf_spaces/{name}").read_bytes() for name in (README, *_TEMPLATE)}
    with tempfile.TemporaryDirectory(prefix="openenv-space-") as folder:
        wheel = write_own_wheel(Path(folder))
        return {**files, f"package/{wheel.name}": wheel.read_bytes()}


def _application_files(folder: Path, app: str, files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """Lay out the template with the folder below app/, under its own name: it may be imported as a package."""
    template = {file: deploy_file(f"hf_spaces/{file}").read_bytes() for file in _TEMPLATE}
    dockerfile = _APP_ARG.sub(f"ARG APP={app}", template[DOCKERFILE].decode())
    requirements = template[REQUIREMENTS].decode() + "".join(f"{line}\n" for line in _requirements(folder, files))
    return {
        **template,
        DOCKERFILE: dockerfile.encode(),
        REQUIREMENTS: requirements.encode(),
        README: _card(files.get(README, b""), name, _PORT, force_port=True),
        **{f"app/{folder.name}/{path}": content for path, content in files.items()},
    }


def _requirements(folder: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield what the application needs: its project's dependencies and its lists of requirements."""
    if "pyproject.toml" in files:
        try:
            content = tomllib.loads(files["pyproject.toml"].decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TargetError(f"{folder / 'pyproject.toml'} is not TOML: {error}") from None
        project: Any = content.get("project", {})
        yield from (str(line) for line in cast("list[object]", project.get("dependencies", [])))
    for path in (REQUIREMENTS, f"server/{REQUIREMENTS}"):
        yield from files.get(path, b"").decode("utf-8", "replace").splitlines()


def _find_dockerfile(files: Mapping[str, bytes]) -> bytes | None:
    return files.get(DOCKERFILE) or files.get(f"server/{DOCKERFILE}")


def _read_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a folder but for hidden ones (`.env`, `.git`), results, caches and virtual environments."""
    for directory, folders, names in os.walk(folder):
        directory_path = Path(directory)
        folders[:] = sorted(
            name
            for name in folders
            if not (name.startswith(".") or name in _SKIPPED or name.endswith(".egg-info"))
            and not (directory_path / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = directory_path / name
            hidden = name.startswith(".") and name != ".dockerignore"
            if not hidden and path.suffix != ".pyc" and path.is_file():
                try:
                    yield PurePosixPath(path.relative_to(folder)).as_posix(), path.read_bytes()
                except OSError as error:
                    raise TargetError(f"{path} cannot be read: {error.strerror}") from None


def _card(readme: bytes, name: str, port: int, *, force_port: bool = False) -> bytes:
    """Return a README.md with the front matter a Docker Space needs; what else it says stays."""
    existing, text = split_card(readme.decode("utf-8", "replace"), "the README.md to deploy")
    merged: dict[str, Any] = {"title": name, **existing, "sdk": "docker"}
    if force_port or "app_port" not in merged:
        merged["app_port"] = port
    tags = cast("list[object]", merged["tags"]) if isinstance(merged.get("tags"), list) else []
    merged["tags"] = tags if "openenv" in tags else [*tags, "openenv"]
    return join_card(merged, text).encode()


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
    show_progress: Callable[[str], None] = lambda line: None,
) -> Deployed:
    """Make a Space of these files, or bring one up to date; it builds by itself afterwards.

    Files of an earlier deployment go from app/ and package/; other files of a Space that is there stay.
    `hardware` and `variables` that are not given stay as they are. `show_progress` gets what is uploaded.

    Raises:
        TargetError: the source cannot be served, the Hub refused, or the Space that is there is no Docker Space,
            or public though `private` is asked for.
    """
    files = space_files(source, repo_id.partition("/")[2])
    size = sum(map(len, files.values()))
    show_progress(f"spaces: uploading {source.description} to {repo_id}: {len(files)} files, {size_text(size)}")
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
            _check_existing(api, repo_id, private=private)
            _apply_settings(api, repo_id, hardware, variables or {})
        changed = _upload(api, repo_id, files)
    return Deployed(f"{api.endpoint}/spaces/{repo_id}", created, changed, len(files), size)


def _check_existing(api: HfApi, repo_id: str, *, private: bool) -> None:
    info = api.space_info(repo_id)
    if info.sdk not in (None, "docker"):
        raise HubError(f"{repo_id} is a {info.sdk} Space, not a Docker one; give another name, or delete it first")
    if private and info.private is False:
        raise HubError(
            f"{repo_id} exists and is public, so nothing was deployed; "
            "make it private in its settings, or leave out --private"
        )


def _apply_settings(api: HfApi, repo_id: str, hardware: str | None, variables: Mapping[str, str]) -> None:
    """Set what differs only: each change restarts the Space."""
    current = api.get_space_variables(repo_id) if variables else {}
    for name, value in variables.items():
        if name not in current or current[name].value != value:
            api.add_space_variable(repo_id, name, value)
    if hardware is not None:
        runtime = api.get_space_runtime(repo_id)
        if hardware not in (runtime.requested_hardware, runtime.hardware if not runtime.requested_hardware else None):
            api.request_space_hardware(repo_id, hardware)  # pyright: ignore[reportArgumentType]


def _upload(api: HfApi, repo_id: str, files: Mapping[str, bytes]) -> bool:
    """Commit what differs and say whether anything did."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    existing = api.list_repo_files(repo_id, repo_type="space")
    stale = [path for path in existing if path.startswith(OWN_FOLDERS) and path not in files and "serve.sh" in files]
    previous_sha = api.space_info(repo_id).sha
    commit = api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(path, content) for path, content in files.items()),
            *(CommitOperationDelete(path) for path in stale),
        ],
        commit_message="Deploy with openenv-scale",
        repo_type="space",
    )
    return commit.oid != previous_sha
