"""What differs between two machines and may matter to what was measured there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from . import format as text_of
from .comparison import Difference

_MEMORY_TOLERANCE = 0.05
"""What the kernel keeps for itself differs by about this share from one boot or virtual machine to the next."""

_FIGURES = {
    "cpu": ("machine", "cpu"),
    "architecture": ("machine", "architecture"),
    "cores": ("machine", "cores"),
    "usable cores": ("machine", "usable_cores"),
    "memory": ("machine", "memory_bytes"),
    "system": ("os", "system"),
    "kernel": ("os", "release"),
    "python": ("python", "version"),
    "interpreter": ("python", "implementation"),
}


def machine_differences(baseline: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Compare two fingerprints; host names, load, paths and commits are no difference between machines.

    What one of them does not tell is left out, but for packages: one that was not installed is a difference.
    """
    found: list[Difference] = []
    for name, (group, key) in _FIGURES.items():
        then, today = _group(baseline, group).get(key), _group(now, group).get(key)
        if then is not None and today is not None and not _same(key, then, today):
            found.append(Difference(name, _told(key, then), _told(key, today)))
    then, today = _group(baseline, "packages"), _group(now, "packages")
    if then and today:
        names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
        found += [Difference(name, _told(name, then.get(name)), _told(name, today.get(name))) for name in names]
    return tuple(found)


def _group(fingerprint: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = fingerprint.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _same(key: str, then: Any, now: Any) -> bool:
    if key == "memory_bytes" and isinstance(then, int) and isinstance(now, int):
        return abs(now - then) <= _MEMORY_TOLERANCE * max(then, now)
    return then == now


def _told(key: str, value: object) -> str:
    if value is None:
        return "not installed"
    return text_of.size(value) if key == "memory_bytes" and isinstance(value, int) else f"{value}"
