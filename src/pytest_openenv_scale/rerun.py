"""Which test it was, and the command that measures it again."""

from __future__ import annotations

import os
import shlex

import pytest

from .core.grammar import TargetSpec, format_number
from .core.settings import Settings, rerun_options


def test_name(item: pytest.Item, target_id: str | None) -> str:
    """Return the node id of a test without the part that names the target, so that runs compare."""
    if target_id is None:
        return item.nodeid
    alone, last = f"[{target_id}]", f"-{target_id}]"
    if item.nodeid.endswith(last):
        return f"{item.nodeid.removesuffix(last)}]"
    return item.nodeid.removesuffix(alone)


def rerun_command(config: pytest.Config, test: str, settings: Settings, target: TargetSpec) -> str:
    """Return the command that repeats the sweep of one test on one target, quoted for a shell, no secrets."""
    path, colons, name = test.partition("::")
    here = os.path.relpath(config.rootpath / path, config.invocation_params.dir)
    words = ["pytest", f"{here}{colons}{name}"]
    if config.option.markexpr:
        words += ["-m", config.option.markexpr]
    options = rerun_options(settings, target=target, mode=",".join(settings.modes), wait=None)
    words += shlex.split(options)
    if settings.sources["waits"] == "command line":
        words += ["--openenv-waits", ",".join(map(format_number, settings.waits))]
    return shlex.join(words)
