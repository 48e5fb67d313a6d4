"""Real tests that a busy client left open whenever they were asked (`[again]` in tox.ini), and garbage collection."""

from __future__ import annotations

import gc
import re
from collections.abc import Generator

import pytest

LEFT_OPEN_AT_MOST = 3
"""Of one process: with more, the machine is no place to test on or the client has become too slow, and they fail."""

_left_open = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip it, and say why: it has neither passed nor failed."""
    report = yield
    left_open = item.config.stash.setdefault(_left_open, [])
    if report.failed and _asked_for_the_last_time(item) and (said := _said(item, call)):
        left_open.append(item.nodeid)
        if len(left_open) <= LEFT_OPEN_AT_MOST:
            path, line, _ = item.location
            report.outcome = "skipped"
            report.longrepr = (path, (line or 0) + 1, f"Skipped: left open each time it was asked: {said}")
    return report


def _asked_for_the_last_time(item: pytest.Item) -> bool:
    """Whether tests are asked again at all, and this one no more."""
    reruns: int | None = item.config.getoption("reruns", None)
    asked: int = getattr(item, "execution_count", 0)
    return bool(reruns) and asked > reruns


def _said(item: pytest.Item, call: pytest.CallInfo[None]) -> str | None:
    """Return what the guard said of the client in the failure of a test; None where it failed otherwise."""
    patterns: list[str] = item.config.getoption("only_rerun", None) or []
    text = "" if call.excinfo is None else str(call.excinfo.value)
    found = (re.search(f"(?:{pattern}).{{,200}}", text) for pattern in patterns)
    return next((match[0] for match in found if match), None)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: garbage is not looked for among thousands of tests."""
    gc.freeze()
