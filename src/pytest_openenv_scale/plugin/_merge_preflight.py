"""Mistakes that concern the whole run, found before anything starts: pytest ends with exit code 4 and one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .baselines import check_baseline
from .core.extras import cannot_draw
from .core.grammar import GrammarError, TargetSpec
from .core.settings import Settings


def check(config: pytest.Config, settings: Settings) -> None:
    """Refuse targets that do not exist, places that cannot be written and figures that cannot be drawn.

    Raises:
        pytest.UsageError: naming the option or ini key.
    """
    if hasattr(config, "workerinput"):
        return
    if settings.sources["target"] != "default":
        _check_targets(config, settings)
    if settings.results is not None and settings.sources["results"] != "default":
        _check_writable(settings.results, _place(settings, "results"), "give a folder that can be written, or none")
    if settings.json is not None:
        _check_writable(settings.json, _place(settings, "json"), "give a file that can be written")
    if "figures" in settings.report and (problem := cannot_draw()):
        raise pytest.UsageError(f"{_place(settings, 'report')}: {problem}")
    check_baseline(settings)


def _place(settings: Settings, name: str) -> str:
    ini = settings.sources[name] == "ini"
    return f"openenv_{name}" if ini else f"--openenv-{name}"


def _check_targets(config: pytest.Config, settings: Settings) -> None:
    place = "--openenv-url" if "url" in settings.given else _place(settings, "target")
    for spec in settings.targets:
        try:
            _check_target(config, settings, spec)
        except GrammarError as error:
            raise pytest.UsageError(f"{place}: {error}") from None


def _check_target(config: pytest.Config, settings: Settings, spec: TargetSpec) -> None:
    """Let the target check its own specification; nothing is started.

    Names that are not built in are left to hooks, where there are any. A target named in the ini file is
    looked at by name only: most runs of such a project measure nothing and should not pay for it.
    """
    from .targets import open_target, target_names

    built_in = spec.name in (*target_names(), "url")
    if config.hook.pytest_openenv_scale_target.get_hookimpls():
        return
    if built_in and settings.sources["target"] == "ini":
        return
    open_target(spec, root=config.rootpath, headers=settings.headers)


def _check_writable(path: Path, place: str, advice: str) -> None:
    """Look at the nearest folder that exists, as the rest is made when it is needed."""
    folder = path if path.is_dir() else path.parent
    if path.exists() and not path.is_dir() and place.endswith("results"):
        raise pytest.UsageError(f"{place}: {path} is not a folder; {advice}")
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise pytest.UsageError(f"{place}: {folder} is not a folder; {advice}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise pytest.UsageError(f"{place}: {folder} cannot be written; {advice}")
