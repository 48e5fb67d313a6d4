"""The order of the suite: what may use a server up comes last, so that it spoils no other answer."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent

LAST = ("test_capacity.py", "test_protocol.py", "test_churn.py")
"""Modules whose questions can leave a bad server full, dead or both, the worst last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of these modules behind the others of the suite; tests of other people stay where they are."""
    here = [index for index, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted(
        (items[index] for index in here), key=lambda item: LAST.index(item.path.name) if item.path.name in LAST else -1
    )
    for index, item in zip(here, ordered, strict=True):
        items[index] = item
