"""pytest's header: which servers are measured and what else was set, each with its source; no secrets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import pytest

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.plan import curve_batches
from pytest_openenv_scale.config.settings import AXES, Settings, option_name
from pytest_openenv_scale.core.loads import think_text
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target

from .collection import CHECK_FIXTURE, FIXTURE
from .marks import DECLARATION

_SET_BESIDES = (
    *("again", "steps", "think", "ramp", "for_", "timeout", "until_done", "full_grid", "precision", "budget"),
    *("max_sessions", "lock_timeout", "played", "ping", "no_samples", "insecure", "proxy"),
    *("seed", "processes", "inconclusive", "report", "figure_formats", "dpi"),
)
"""The settings that the header names where they are written somewhere."""


def header_lines(settings: Settings, environment: Path | None, rootpath: Path, *, with_grid: bool = False) -> list[str]:
    """Return the targets and what else was set.

    `environment` is the folder of the run's `openenv.yaml`, None where each test has to have its own. What the grid is
    that tests measure is known once they are collected; where that is elsewhere, it is said `with_grid` what it is
    where no mark says otherwise.
    """
    targets = ", ".join(_describe_target(spec, environment, rootpath) for spec in settings.targets)
    lines = [f"openenv-scale: {targets} ({settings.sources['target']})"]
    if with_grid:
        lines.append(f"  {_grid([(settings, ())])}; marks outrank ini and default")
    others = [_describe_setting(settings, name) for name in _SET_BESIDES if _is_set(settings, name)]
    if "http" in settings.modes:
        others.append(_describe_setting(settings, "http_connections"))
    if settings.slo:
        others.append(f"limits {', '.join(f'{limit.text} ({limit.source})' for limit in settings.slo)}")
    if settings.baseline is not None:
        others.append(f"baseline {settings.baseline} ({settings.sources['baseline']})")
    if settings.fail_on:
        others.append(f"fail on {', '.join(map(str, settings.fail_on))} ({settings.sources['fail-on']})")
    if settings.headers:
        others.append(f"headers {', '.join(settings.headers)} (values hidden)")
    if _is_set(settings, "results"):
        others.append(f"results {settings.results or 'nowhere'} ({settings.sources['results']})")
    if others:
        lines.append(f"  {', '.join(others)}")
    return lines


def grid_lines(items: Iterable[pytest.Item], settings: Settings) -> list[str]:
    """Return what the selected tests measure: batches, waits, and what of modes, repetitions and arrival was set."""
    measured: list[tuple[Settings, tuple[Slo, ...]]] = []
    for item in items:
        fixtures: Sequence[str] = getattr(item, "fixturenames", ())
        declared = item.stash.get(DECLARATION, None)
        if FIXTURE in fixtures and declared is not None and declared.problem is None:
            measured.append((declared.settings, declared.slos))
        elif CHECK_FIXTURE in fixtures:
            measured.append((settings, ()))
    return [f"  {_grid(measured)}"] if measured else []


def _grid(measured: Sequence[tuple[Settings, tuple[Slo, ...]]]) -> str:
    """Return the axes of tests, each with its source; "or" stands between what different tests measure."""
    every = [settings for settings, _ in measured]
    names = [name for name in ("modes", "reps", "arrival") if any(_is_set(settings, name) for settings in every)]
    axes = (_alternatives(_describe_setting(settings, name) for settings in every) for name in ("waits", *names))
    return ", ".join([_alternatives(_batches(settings, slos) for settings, slos in measured), *axes])


def _alternatives(texts: Iterable[str]) -> str:
    """Return texts that begin with the same name joined, without repeating it: "waits 1 (mark) or 0,1 (default)"."""
    first, *others = dict.fromkeys(texts)
    name = f"{first.partition(' ')[0]} "
    return " or ".join([first, *(other.removeprefix(name) for other in others)])


def _batches(settings: Settings, slos: tuple[Slo, ...]) -> str:
    if settings.search:
        return _describe_setting(settings, "search")
    added = sorted({batch for slo in slos for batch in curve_batches((), slo)} - set(settings.batches))
    more = f" +{_format_value(tuple(added))} from max_batch" if added else ""
    return f"{_describe_setting(settings, 'batches')}{more}"


def _is_set(settings: Settings, name: str) -> bool:
    return settings.sources[option_name(name)] != "default"


def _describe_target(spec: TargetSpec, environment: Path | None, rootpath: Path) -> str:
    text = redact_target(spec)
    if environment == rootpath or not _names_no_app(spec):
        return text
    if environment is None:
        return f"{text}: the app of the openenv.yaml that is nearest to each test"
    return f"{text}: the app of {environment / 'openenv.yaml'}"


def _names_no_app(spec: TargetSpec) -> bool:
    keys = {key for key, _ in spec.options} | {(spec.argument or "").partition("=")[0]}
    if spec.name == "local":
        return spec.argument is None and "app" not in keys
    return spec.name in ("envoy", "slurm") and keys.isdisjoint(("app", "image", "urls"))


_UNSET_TEXTS = {"ping": "off", "processes": "auto", "think": "0"}
"""What None means, as it is written on the command line."""


def _describe_setting(settings: Settings, name: str) -> str:
    source = settings.sources[option_name(name)]
    value = getattr(settings, name)
    declared = settings.declared.get(name) if name in AXES else None
    instead = f" instead of {_format_value(declared)}" if declared is not None and declared != value else ""
    text = _UNSET_TEXTS[name] if value is None else _format_value(value)
    if name == "steps" and settings.until_done:
        text = f"until_done={text}"
    if name == "think" and settings.think:
        return f"{think_text(str(settings.think))} ({source})"
    return f"{option_name(name)} {text} ({source}{instead})"


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_format_value, cast("tuple[object, ...]", value)))
    if isinstance(value, bool):
        return "on" if value else "off"
    return format_number(value) if isinstance(value, float) else str(value)
