"""The image a target names: one on the engine or in a registry, one built from a folder, or the packaged one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_openenv_scale.core.endpoint import TargetError

from .deployed import deploy_file
from .engine import Engine
from .image_build import Build, build_image, build_of
from .own_wheel import write_own_wheel

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
