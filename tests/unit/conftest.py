"""How hypothesis tries examples: how long one takes on a shared machine is no property of what is tested.

Every `report.json` that a test makes is held to its schema.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

import report_schema
from quick_waits import pass_quickly

report_schema.check_every_report()
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waits of event loops pass twenty times as fast; see `quick_waits.py` for whom this is."""
    pass_quickly(monkeypatch)
