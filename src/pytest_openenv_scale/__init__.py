"""How many sessions does an OpenEnv environment server hold at once? A pytest plugin that judges it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checks.lone import lone as single_session
    from .checks.subject import Subject
    from .core.check import CheckOutcome, CheckResult
    from .core.endpoint import Endpoint, Target, TargetError
    from .core.grammar import TargetSpec
    from .core.outcome import CurveVerdict as Verdict
    from .core.plan import Cell, Curve
    from .core.run import Run
    from .core.settings import Settings
    from .core.summary import CellSummary
    from .core.sweep import Sweep
    from .core.workload import Workload
    from .marks import scaling, slo
    from .selftest.climb import self_test
    from .targets.deployed import deploy_file

__all__ = [
    "Cell",
    "CellSummary",
    "CheckOutcome",
    "CheckResult",
    "Curve",
    "Endpoint",
    "Run",
    "Settings",
    "Subject",
    "Sweep",
    "Target",
    "TargetError",
    "TargetSpec",
    "Verdict",
    "Workload",
    "deploy_file",
    "scaling",
    "self_test",
    "single_session",
    "slo",
]

_HOMES = {
    "Cell": ("core.plan", "Cell"),
    "CellSummary": ("core.summary", "CellSummary"),
    "CheckOutcome": ("core.check", "CheckOutcome"),
    "CheckResult": ("core.check", "CheckResult"),
    "Curve": ("core.plan", "Curve"),
    "Endpoint": ("core.endpoint", "Endpoint"),
    "Run": ("core.run", "Run"),
    "Settings": ("core.settings", "Settings"),
    "Subject": ("checks.subject", "Subject"),
    "Sweep": ("core.sweep", "Sweep"),
    "Target": ("core.endpoint", "Target"),
    "TargetError": ("core.endpoint", "TargetError"),
    "TargetSpec": ("core.grammar", "TargetSpec"),
    "Verdict": ("core.outcome", "CurveVerdict"),
    "Workload": ("core.workload", "Workload"),
    "deploy_file": ("targets.deployed", "deploy_file"),
    "scaling": ("marks", "scaling"),
    "self_test": ("selftest.climb", "self_test"),
    "single_session": ("checks.lone", "lone"),
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
