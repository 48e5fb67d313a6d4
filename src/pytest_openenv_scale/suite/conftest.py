"""The marks of the suite, and its order: tests that may leave a server unusable run last, so they spoil no result."""

from pathlib import Path

import pytest

from pytest_openenv_scale.plugin.check import SUITE_MARKS

SUITE_DIRECTORY = Path(__file__).parent

LAST_MODULES = ("test_capacity.py", "test_protocol.py", "test_churn.py")
"""Modules whose checks can leave a bad server full, dead or both, the worst last."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of the suite, where it runs and nowhere else."""
    for name, sentence in SUITE_MARKS.items():
        config.addinivalue_line("markers", f"{name}: {sentence}.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of `LAST_MODULES` behind the others of the suite; tests outside of it stay where they are."""
    positions = [index for index, item in enumerate(items) if item.path.parent == SUITE_DIRECTORY]
    ordered = sorted(
        (items[index] for index in positions),
        key=lambda item: LAST_MODULES.index(item.path.name) if item.path.name in LAST_MODULES else -1,
    )
    for index, item in zip(positions, ordered, strict=True):
        items[index] = item
