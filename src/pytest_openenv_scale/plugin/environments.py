"""Which environment each test is about: the folder of the nearest `openenv.yaml`, and from where it is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_openenv_scale.core.target_spec import TargetSpec

_OWN_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class TargetParameter:
    """What `openenv_target` is parametrized with: which target, and the environment's folder where that decides.

    pytest (< 8.4) tells parameters apart by identity: `Environments` returns the same object for equal ones.
    """

    index: int = 0
    environment: Path | None = None


class Environments:
    """Finds the environment each test is about: the folder of the nearest `openenv.yaml`."""

    def __init__(self, config: pytest.Config) -> None:
        self.rootpath = config.rootpath
        self._working_directory = config.invocation_params.dir
        self._folders: dict[Path | None, Path | None] = {}
        self._parameters: dict[TargetParameter, TargetParameter] = {}

    def starts(self, test_file: Path | None) -> tuple[Path, ...]:
        """Return from where is looked upward: a file's folder, the working directory, pytest's root.

        Files of installed packages, ours among them, say nothing of an environment.
        """
        says_so = test_file is not None and not is_installed(test_file) and _OWN_PACKAGE not in test_file.parents
        own = (test_file.parent,) if test_file and says_so else ()
        return tuple(dict.fromkeys((*own, self._working_directory, self.rootpath)))

    def folder(self, test_file: Path | None) -> Path | None:
        """Return the environment of the tests of a file, or None; without a file that of the run."""
        from pytest_openenv_scale.targets.common.application import find_environment

        key = test_file and test_file.parent
        if key not in self._folders:
            self._folders[key] = find_environment(self.starts(test_file))
        return self._folders[key]

    def parameters(self, targets: Sequence[TargetSpec], test_file: Path) -> list[TargetParameter]:
        """Return what the tests of a file are parametrized with, one for each target."""
        from pytest_openenv_scale.targets import serves_environment

        wanted = [
            TargetParameter(index, self.folder(test_file) if serves_environment(spec) else None)
            for index, spec in enumerate(targets)
        ]
        return [self._parameters.setdefault(parameter, parameter) for parameter in wanted]


def is_installed(path: Path) -> bool:
    """Say whether a file is one of an installed package."""
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
