"""What pytest's header says: what will be measured, and where each value comes from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from .core.grammar import TargetSpec, format_number, redact_target
from .core.settings import AXES, Settings

_MANIFEST = "openenv.yaml"


def header_lines(settings: Settings, root: Path) -> list[str]:
    """Return the targets, the grid and what else was set, each with its source; no secrets."""
    targets = ", ".join(_target(spec, root) for spec in settings.targets)
    lines = [f"openenv-scale: {targets} ({settings.sources['target']})"]
    grid = [_value(settings, name) for name in ("batches", "waits", "modes", "reps", "arrival")]
    lines.append(f"  {', '.join(grid)}; marks outrank ini and default")
    others = [
        _value(settings, name)
        for name in ("steps", "timeout", "until_done", "full_grid", "seed", "processes", "inconclusive", "report")
        if settings.sources[name.replace("_", "-")] != "default"
    ]
    if "http" in settings.modes:
        others.append(_value(settings, "http_connections"))
    if settings.slo:
        others.append(f"limits {', '.join(f'{limit.text} ({limit.source})' for limit in settings.slo)}")
    if settings.baseline is not None:
        others.append(f"baseline {settings.baseline} ({settings.sources['baseline']})")
    if settings.fail_on:
        others.append(f"fail on {', '.join(map(str, settings.fail_on))} ({settings.sources['fail-on']})")
    if settings.headers:
        others.append(f"headers {', '.join(settings.headers)} (values hidden)")
    if others:
        lines.append(f"  {', '.join(others)}")
    results = "nowhere" if settings.results is None else str(settings.results)
    lines.append(f"  results {results} ({settings.sources['results']})")
    return lines


def _target(spec: TargetSpec, root: Path) -> str:
    text = redact_target(spec)
    if _names_no_app(spec) and not (root / _MANIFEST).exists():
        return f"{text}: the built-in environment, as there is no {_MANIFEST} in {root}"
    return text


def _names_no_app(spec: TargetSpec) -> bool:
    if spec.name == "envoy":
        return re.search(r"[:,](app|image|urls)=", str(spec)) is None
    return spec.name == "local" and spec.argument is None and spec.option("app") is None


def _value(settings: Settings, name: str) -> str:
    source = settings.sources[name.replace("_", "-")]
    value = getattr(settings, name)
    declared = settings.declared.get(name) if name in AXES else None
    instead = f" instead of {_text(declared)}" if declared is not None and declared != value else ""
    return f"{name.replace('_', '-')} {_text(value)} ({source}{instead})"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, cast("tuple[object, ...]", value)))
    if isinstance(value, bool):
        return "on" if value else "off"
    return format_number(value) if isinstance(value, float) else str(value)
