"""The order of the suite: tests that may leave a server unusable run last, so that they spoil no other result."""

from pathlib import Path

import pytest

SUITE_DIRECTORY = Path(__file__).parent

LAST_MODULES = ("test_capacity.py", "test_protocol.py", "test_churn.py")
"""Modules whose checks can leave a bad server full, dead or both, the worst last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of `LAST_MODULES` behind the others of the suite; tests outside of it stay where they are."""
    positions = [index for index, item in enumerate(items) if item.path.parent == SUITE_DIRECTORY]
    ordered = sorted(
        (items[index] for index in positions),
        key=lambda item: LAST_MODULES.index(item.path.name) if item.path.name in LAST_MODULES else -1,
    )
    for index, item in zip(positions, ordered, strict=True):
        items[index] = item
