"""How many sessions does an OpenEnv environment server hold at once? A pytest plugin that judges it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.endpoint import Endpoint, Target
    from .core.outcome import CurveVerdict as Verdict
    from .core.plan import Cell, Curve
    from .core.run import Run
    from .core.settings import Settings
    from .core.sweep import Sweep
    from .core.workload import Workload
    from .marks import scaling, slo

__all__ = [
    "Cell",
    "Curve",
    "Endpoint",
    "Run",
    "Settings",
    "Sweep",
    "Target",
    "Verdict",
    "Workload",
    "scaling",
    "slo",
]

_HOMES = {
    "Cell": ("core.plan", "Cell"),
    "Curve": ("core.plan", "Curve"),
    "Endpoint": ("core.endpoint", "Endpoint"),
    "Run": ("core.run", "Run"),
    "Settings": ("core.settings", "Settings"),
    "Sweep": ("core.sweep", "Sweep"),
    "Target": ("core.endpoint", "Target"),
    "Verdict": ("core.outcome", "CurveVerdict"),
    "Workload": ("core.workload", "Workload"),
    "scaling": ("marks", "scaling"),
    "slo": ("marks", "slo"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
