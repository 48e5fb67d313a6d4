"""How many sessions does an OpenEnv environment server hold at once? A pytest plugin that judges it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis.run import Run
    from .checks.background import single_session as single_session
    from .checks.subject import Subject
    from .config.plan import Cell, Curve
    from .config.settings import Settings
    from .config.workload import Workload
    from .core.endpoint import Endpoint, Target
    from .core.errors import TargetError
    from .core.target_spec import TargetSpec
    from .engine.sweep import Sweep
    from .metrics.summary import CellSummary
    from .plugin.marks import scaling, slo
    from .results.outcome import CheckOutcome, CheckResult
    from .results.outcome import CurveVerdict as Verdict
    from .selftest.search import self_test
    from .targets.common.files import deploy_file

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

_LOCATIONS = {
    "Cell": ("config.plan", "Cell"),
    "CellSummary": ("metrics.summary", "CellSummary"),
    "CheckOutcome": ("results.outcome", "CheckOutcome"),
    "CheckResult": ("results.outcome", "CheckResult"),
    "Curve": ("config.plan", "Curve"),
    "Endpoint": ("core.endpoint", "Endpoint"),
    "Run": ("analysis.run", "Run"),
    "Settings": ("config.settings", "Settings"),
    "Subject": ("checks.subject", "Subject"),
    "Sweep": ("engine.sweep", "Sweep"),
    "Target": ("core.endpoint", "Target"),
    "TargetError": ("core.errors", "TargetError"),
    "TargetSpec": ("core.target_spec", "TargetSpec"),
    "Verdict": ("results.outcome", "CurveVerdict"),
    "Workload": ("config.workload", "Workload"),
    "deploy_file": ("targets.common.files", "deploy_file"),
    "scaling": ("plugin.marks", "scaling"),
    "self_test": ("selftest.search", "self_test"),
    "single_session": ("checks.background", "single_session"),
    "slo": ("plugin.marks", "slo"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that importing the package costs nothing."""
    if name not in _LOCATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LOCATIONS[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
