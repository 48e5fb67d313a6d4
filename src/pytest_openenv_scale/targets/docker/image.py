"""The image a target names: one on the engine or in a registry, or one built from a folder or of this package."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.files import deploy_file, write_own_wheel
from pytest_openenv_scale.targets.common.options import ignore_line, is_path

from .engine import Engine, explain_error

_SHOWN_LOG_LINES = 15
_DOCKERFILE_PATHS = ("Dockerfile", "server/Dockerfile")
_NEEDS_BUILDKIT = re.compile(r"buildkit|unknown flag: (mount|link|chmod|network|security)|unknown instruction", re.I)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Build:
    """What to build: `folder` is sent to the engine, `dockerfile` is a path inside it.

    `error_prefix` begins every error; `arguments` are the Dockerfile's ARGs.
    """

    folder: Path
    dockerfile: str
    tag: str
    error_prefix: str = "target docker"
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])


def find_build(path: str, root: Path, error_prefix: str = "target docker") -> Build:
    """Return the build of a folder or Dockerfile, looked for from the current directory, then from `root`.

    Raises:
        TargetError: there is no such path, or no Dockerfile in the folder or its `server/`.
    """
    given_path = Path(path).expanduser()
    source_path = next(
        (candidate for candidate in (Path.cwd() / given_path, root / given_path) if candidate.exists()), None
    )
    if source_path is None:
        searched = f" from {Path.cwd()}" + ("" if root == Path.cwd() else f" or {root}")
        raise TargetError(
            f"{error_prefix}: there is no folder {path!r}{'' if given_path.is_absolute() else searched} to build"
        )
    source_path = source_path.resolve()
    if source_path.is_file():
        folder = _build_context(source_path)
        return Build(folder, str(source_path.relative_to(folder)), _image_tag(source_path), error_prefix)
    for dockerfile in _DOCKERFILE_PATHS:
        if (source_path / dockerfile).is_file():
            return Build(source_path, dockerfile, _image_tag(source_path), error_prefix)
    raise TargetError(
        f"{error_prefix}: there is no Dockerfile in {source_path} or {source_path / 'server'}; "
        "write one, or name its path"
    )


def build_image(
    engine: Engine, build: Build, show_progress: Callable[[str], None], show_status: Callable[[str], None] = ignore_line
) -> str:
    """Build and return the image's id; `show_status` gets each line of the output as it comes.

    The image keeps its tag afterwards, so that the next build finds its layers; the one it replaces goes.

    Raises:
        TargetError: the build failed; its last lines follow the first.
    """
    previous_id = engine.image_id(build.tag)
    last_lines: deque[str] = deque(maxlen=_SHOWN_LOG_LINES)
    show_progress(f"docker: building {build.folder}")
    failure = _show_output(_build_by_engine(engine, build), last_lines, show_status)
    if failure is not None and _NEEDS_BUILDKIT.search(failure):
        last_lines.clear()
        failure = _show_output(_build_by_command(build), last_lines, show_status)
    if failure is not None:
        log_end = "\n".join(last_lines)
        raise TargetError(
            f"{build.error_prefix}: building {build.folder} failed: {failure}"
            + (f"\nthe build ends:\n{log_end}" if log_end else "")
        )
    image_id = engine.image_id(build.tag)
    if image_id is None:
        raise TargetError(f"{build.error_prefix}: {build.folder} was built, but the engine does not have {build.tag}")
    if previous_id not in (None, image_id):
        _remove_replaced(engine, previous_id)
    return image_id


class _BuildFailed(Exception):
    """A build failed; the text is one line that says why."""


def _show_output(lines: Iterator[str], last_lines: deque[str], show_status: Callable[[str], None]) -> str | None:
    """Show the output, keep its end in `last_lines`, and return why it failed, or None."""
    try:
        for text in lines:
            for line in _COLOUR.sub("", text).replace("\r", "\n").split("\n"):
                if line.strip():
                    last_lines.append(line.rstrip())
                    show_status(line.strip())
    except _BuildFailed as failure:
        return str(failure)
    return None


def _build_by_engine(engine: Engine, build: Build) -> Iterator[str]:
    """Build with the engine's own builder, which every engine has."""
    try:
        messages: Iterator[Mapping[str, Any]] = engine.client.api.build(
            path=str(build.folder),
            dockerfile=build.dockerfile,
            tag=build.tag,
            buildargs=dict(build.arguments),
            # Without a bridge a build has no other way to reach a package index.
            network_mode=None if engine.has_bridge else "host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        partial = ""
        for message in messages:
            if "error" in message:
                yield partial
                raise _BuildFailed(" ".join(str(message["error"]).split()))
            if "stream" in message:
                # The engine cuts output where it likes; lines are put together again.
                *complete_lines, partial = (partial + str(message["stream"])).split("\n")
                yield from complete_lines
            elif "status" in message and not message.get("progressDetail"):
                yield str(message["status"])
        yield partial
    except _BuildFailed:
        raise
    except Exception as error:
        raise _BuildFailed(explain_error(error)) from None


def _build_by_command(build: Build) -> Iterator[str]:
    """Build with the docker command, which brings BuildKit: for `RUN --mount` and the like."""
    manual_command = f"docker build -t NAME -f {build.folder / build.dockerfile} {build.folder}"
    if shutil.which("docker") is None:
        raise _BuildFailed(
            "its Dockerfile needs BuildKit, and there is no docker command here; "
            f"run {manual_command}, then use docker:NAME"
        )
    command = ["docker", "build", "--progress=plain", "--tag", build.tag]
    command += ["--file", str(build.folder / build.dockerfile)]
    for name, value in build.arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    process = subprocess.Popen(
        [*command, str(build.folder)],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last_line = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last_line = line.strip() or last_line
            yield line
    except BaseException:
        process.terminate()
        raise
    finally:
        with process:
            pass
    if process.returncode:
        hint = "; install docker-buildx, which its Dockerfile needs" if "buildx" in last_line else ""
        raise _BuildFailed(f"docker build exited with code {process.returncode}: {last_line}{hint}")


def _build_context(dockerfile: Path) -> Path:
    """Return the folder a Dockerfile is built from: the environment repository it is in, else its own."""
    return next((folder for folder in dockerfile.parents if (folder / "openenv.yaml").exists()), dockerfile.parent)


def _image_tag(path: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "environment"
    return f"openenv-scale/{slug}:{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _remove_replaced(engine: Engine, image: str | None) -> None:
    """Remove the image a build has replaced, unless something still uses it."""
    try:
        engine.client.images.remove(image)
    except Exception:
        return


PULL_POLICIES = ("missing", "always", "never")
BENCHMARK_TAG = "openenv-scale/benchmark:latest"


@dataclass(frozen=True)
class ImageSource:
    """Which image: a name, a path (it begins with `.`, `/` or `~`), or None for the packaged Dockerfile.

    `pull` is one of `PULL_POLICIES`. `arguments` are a build's ARGs; `wheels` is a folder of wheels the packaged
    Dockerfile installs from instead of a package index. `root` is where a relative path may begin as well.
    """

    name: str | None
    root: Path
    pull: str = "missing"
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    wheels: str | None = None

    @property
    def is_built(self) -> bool:
        """Whether the image is built here and not fetched."""
        return self.name is None or is_path(self.name)


def obtain_image(
    engine: Engine,
    source: ImageSource,
    show_progress: Callable[[str], None],
    show_status: Callable[[str], None] = ignore_line,
) -> str:
    """Return what the engine calls the image, after it was built or pulled; `show_status` gets a build's output.

    Raises:
        TargetError: there is no such image or path, or the build or the pull failed.
    """
    if source.name is None:
        with tempfile.TemporaryDirectory(prefix="openenv-docker-") as folder:
            build = _benchmark_build(Path(folder), source, engine.error_prefix)
            return build_image(engine, build, show_progress, show_status)
    if is_path(source.name):
        build = find_build(source.name, source.root, engine.error_prefix)
        return build_image(engine, replace(build, arguments=source.arguments), show_progress, show_status)
    engine.ensure_image(source.name, source.pull, show_progress)
    return source.name


def _benchmark_build(folder: Path, source: ImageSource, error_prefix: str) -> Build:
    """Lay out the build of the packaged Dockerfile, with a wheel of the code that runs here."""
    for path in deploy_file("docker").iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    (folder / "package").mkdir()
    wheel = write_own_wheel(folder / "package")
    if source.wheels is not None:
        _copy_wheels(Path(source.wheels).expanduser(), source.root, folder / "wheels", error_prefix)
    arguments = {"PACKAGE": f"package/{wheel.name}", **source.arguments}
    return Build(folder, "Dockerfile", BENCHMARK_TAG, error_prefix, arguments)


def _copy_wheels(wheels_path: Path, root: Path, folder: Path, error_prefix: str) -> None:
    wheels_folder = next(
        (candidate for candidate in (Path.cwd() / wheels_path, root / wheels_path) if candidate.is_dir()), None
    )
    wheels = sorted(wheels_folder.glob("*.whl")) if wheels_folder is not None else []
    if not wheels:
        raise TargetError(
            f"{error_prefix}: wheels={wheels_path} has no wheels; fill it with pip wheel, or leave the key out"
        )
    folder.mkdir()
    for wheel in wheels:
        shutil.copyfile(wheel, folder / wheel.name)
