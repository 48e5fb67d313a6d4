"""The rules of these tests, and waits that pass quickly where one asks for it."""

from __future__ import annotations

import pytest

import unit_rules
from quick_waits import pass_quickly

unit_rules.apply()


@pytest.fixture
def quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waits of event loops pass twenty times as fast; see `quick_waits.py` for whom this is."""
    pass_quickly(monkeypatch)
