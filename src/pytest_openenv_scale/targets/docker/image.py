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

from .engine import Engine, explained

_LAST_LINES = 15
_PLACES = ("Dockerfile", "server/Dockerfile")
_NEEDS_BUILDKIT = re.compile(r"buildkit|unknown flag: (mount|link|chmod|network|security)|unknown instruction", re.I)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Build:
    """What to build: `folder` is sent to the engine, `dockerfile` is a path inside it.

    `what` begins every error; `arguments` are the Dockerfile's ARGs.
    """

    folder: Path
    dockerfile: str
    tag: str
    what: str = "target docker"
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])


def build_of(path: str, root: Path, what: str = "target docker") -> Build:
    """Return the build of a folder or Dockerfile, looked for from the current directory, then from `root`.

    Raises:
        TargetError: there is no such path, or no Dockerfile in the folder or its `server/`.
    """
    given = Path(path).expanduser()
    found = next((place for place in (Path.cwd() / given, root / given) if place.exists()), None)
    if found is None:
        where = f" from {Path.cwd()}" + ("" if root == Path.cwd() else f" or {root}")
        raise TargetError(f"{what}: there is no folder {path!r}{'' if given.is_absolute() else where} to build")
    found = found.resolve()
    if found.is_file():
        folder = _context_of(found)
        return Build(folder, str(found.relative_to(folder)), _tag(found), what)
    for place in _PLACES:
        if (found / place).is_file():
            return Build(found, place, _tag(found), what)
    raise TargetError(f"{what}: there is no Dockerfile in {found} or {found / 'server'}; write one, or name its path")


def build_image(engine: Engine, build: Build, say: Callable[[str], None]) -> str:
    """Build and return the image's id; `say` gets each line of the output as it comes.

    The image keeps its tag afterwards, so that the next build finds its layers; the one it replaces goes.

    Raises:
        TargetError: the build failed; its last lines follow the first.
    """
    before = engine.image_id(build.tag)
    last: deque[str] = deque(maxlen=_LAST_LINES)
    say(f"docker: building {build.folder}")
    failure = _follow(_by_engine(engine, build), last, say)
    if failure is not None and _NEEDS_BUILDKIT.search(failure):
        last.clear()
        failure = _follow(_by_command(build), last, say)
    if failure is not None:
        ends = "\n".join(last)
        raise TargetError(
            f"{build.what}: building {build.folder} failed: {failure}" + (f"\nthe build ends:\n{ends}" if ends else "")
        )
    built = engine.image_id(build.tag)
    if built is None:
        raise TargetError(f"{build.what}: {build.folder} was built, but the engine does not have {build.tag}")
    if before not in (None, built):
        _forget(engine, before)
    return built


class _BuildFailed(Exception):
    """One line of why."""


def _follow(lines: Iterator[str], last: deque[str], say: Callable[[str], None]) -> str | None:
    """Show the output, keep its end in `last`, and return why it failed, or None."""
    try:
        for text in lines:
            for line in _COLOUR.sub("", text).replace("\r", "\n").split("\n"):
                if line.strip():
                    last.append(line.rstrip())
                    say(f"  {line.rstrip()}")
    except _BuildFailed as failure:
        return str(failure)
    return None


def _by_engine(engine: Engine, build: Build) -> Iterator[str]:
    """Build with the engine's own builder, which every engine has."""
    try:
        told: Iterator[Mapping[str, Any]] = engine.client.api.build(
            path=str(build.folder),
            dockerfile=build.dockerfile,
            tag=build.tag,
            buildargs=dict(build.arguments),
            # Without a bridge a build has no other way to reach a package index.
            network_mode=None if engine.publishes else "host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        partial = ""
        for message in told:
            if "error" in message:
                yield partial
                raise _BuildFailed(" ".join(str(message["error"]).split()))
            if "stream" in message:
                # The engine cuts output where it likes; lines are put together again.
                *whole, partial = (partial + str(message["stream"])).split("\n")
                yield from whole
            elif "status" in message and not message.get("progressDetail"):
                yield str(message["status"])
        yield partial
    except _BuildFailed:
        raise
    except Exception as error:
        raise _BuildFailed(explained(error)) from None


def _by_command(build: Build) -> Iterator[str]:
    """Build with the docker command, which brings BuildKit: for `RUN --mount` and the like."""
    by_hand = f"docker build -t NAME -f {build.folder / build.dockerfile} {build.folder}"
    if shutil.which("docker") is None:
        raise _BuildFailed(
            f"its Dockerfile needs BuildKit, and there is no docker command here; run {by_hand}, then use docker:NAME"
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
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            yield line
    except BaseException:
        process.terminate()
        raise
    finally:
        with process:
            pass
    if process.returncode:
        hint = "; install docker-buildx, which its Dockerfile needs" if "buildx" in last else ""
        raise _BuildFailed(f"docker build exited with code {process.returncode}: {last}{hint}")


def _context_of(dockerfile: Path) -> Path:
    """Return the folder a Dockerfile is built from: the environment repository it is in, else its own."""
    return next((folder for folder in dockerfile.parents if (folder / "openenv.yaml").exists()), dockerfile.parent)


def _tag(path: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "environment"
    return f"openenv-scale/{slug}:{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _forget(engine: Engine, image: str | None) -> None:
    """Remove the image a build has replaced, unless something still uses it."""
    try:
        engine.client.images.remove(image)
    except Exception:
        return


PULL = ("missing", "always", "never")
BENCHMARK_TAG = "openenv-scale/benchmark:latest"


@dataclass(frozen=True)
class ImageSource:
    """Which image: a name, a path (it begins with `.`, `/` or `~`), or None for the packaged Dockerfile.

    `pull` is one of `PULL`. `arguments` are a build's ARGs; `wheels` is a folder of wheels the packaged
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


def is_path(name: str) -> bool:
    """Say whether a target's image is a path to build."""
    return name.startswith((".", "/", "~"))


def obtain_image(engine: Engine, source: ImageSource, say: Callable[[str], None]) -> str:
    """Return what the engine calls the image, after it was built or pulled; `say` gets the output of that.

    Raises:
        TargetError: there is no such image or path, or the build or the pull failed.
    """
    if source.name is None:
        with tempfile.TemporaryDirectory(prefix="openenv-docker-") as folder:
            return build_image(engine, _benchmark(Path(folder), source, engine.what), say)
    if is_path(source.name):
        build = build_of(source.name, source.root, engine.what)
        return build_image(engine, replace(build, arguments=source.arguments), say)
    engine.ensure_image(source.name, source.pull, say)
    return source.name


def _benchmark(folder: Path, source: ImageSource, what: str) -> Build:
    """Lay out the build of the packaged Dockerfile, with a wheel of the code that runs here."""
    for path in deploy_file("docker").iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    (folder / "package").mkdir()
    wheel = write_own_wheel(folder / "package")
    if source.wheels is not None:
        _copy_wheels(Path(source.wheels).expanduser(), source.root, folder / "wheels", what)
    arguments = {"PACKAGE": f"package/{wheel.name}", **source.arguments}
    return Build(folder, "Dockerfile", BENCHMARK_TAG, what, arguments)


def _copy_wheels(given: Path, root: Path, folder: Path, what: str) -> None:
    found = next((place for place in (Path.cwd() / given, root / given) if place.is_dir()), None)
    wheels = sorted(found.glob("*.whl")) if found is not None else []
    if not wheels:
        raise TargetError(f"{what}: wheels={given} has no wheels; fill it with pip wheel, or leave the key out")
    folder.mkdir()
    for wheel in wheels:
        shutil.copyfile(wheel, folder / wheel.name)
