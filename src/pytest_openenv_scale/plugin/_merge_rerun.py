"""Which test it was, and the command that measures it again."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, cast

import pytest

from .core.grammar import TargetSpec, format_number
from .core.settings import Settings, rerun_options


def test_name(item: pytest.Item, target_id: str | None) -> str:
    """Return the node id of a test without the part that names the target, so that runs compare.

    That of a file outside the root directory, named as such, begins with `::`: it gets the file's name, which it has
    where its folder or package is named. So does that of an installed package, wherever its environment lies.
    """
    path, colons, name = item.nodeid.partition("::")
    test = f"{path if path and not _is_installed(item.path) else item.path.name}{colons}{name}"
    if target_id is None:
        return test
    alone, last = f"[{target_id}]", f"-{target_id}]"
    return f"{test.removesuffix(last)}]" if test.endswith(last) else test.removesuffix(alone)


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def rerun_command(item: pytest.Function, test: str, settings: Settings, target: TargetSpec) -> str:
    """Return the command that repeats the sweep of one test on one target, quoted for a shell, no secrets."""
    config = item.config
    words = ["pytest", *_place(item, test)]
    if config.option.markexpr:
        words += ["-m", config.option.markexpr]
    options = rerun_options(settings, target=target, mode=",".join(settings.modes), wait=None)
    words += shlex.split(options)
    if settings.sources["waits"] == "command line":
        words += ["--openenv-waits", ",".join(map(format_number, settings.waits))]
    return shlex.join(words)


def _place(item: pytest.Function, test: str) -> list[str]:
    """Return how to name a test from the directory pytest was started in: by its file, or by its module."""
    path, colons, name = test.partition("::")
    file = item.config.rootpath / path
    if item.config.option.pyargs and not file.is_file():
        module: str = cast(Any, item.module).__name__
        return ["--pyargs", f"{module}{colons}{name}"]
    return [f"{os.path.relpath(item.path, item.config.invocation_params.dir)}{colons}{name}"]
