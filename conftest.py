"""For all tests: pytester, and the rule that what is real may be missing here but not in CI.

Read by whoever runs pytest in a checkout, the ready-made suite too: it needs no more than pytest itself.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from importlib.util import find_spec
from typing import TypeVar

import pytest

pytest_plugins = ["pytester"]

_REAL = ("real", "stand_in", "alone", "matrix")
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the keys of pyproject.toml that are pytest-asyncio's where it is not installed."""
    if find_spec("pytest_asyncio") is None:
        for name in ("asyncio_mode", "asyncio_default_fixture_loop_scope"):
            parser.addini(name, "Read by pytest-asyncio.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for want of a real component into a failure under CI=true."""
    report = yield
    return _strict(report) if any(map(item.get_closest_marker, _REAL)) else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips as a whole (`pytest.importorskip` at its top)."""
    return _strict((yield))


def _strict(report: _Report) -> _Report:
    if report.skipped and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where CI=true asks for every real component: {reason}"
    return report
