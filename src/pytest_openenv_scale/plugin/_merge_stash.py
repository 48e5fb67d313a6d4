"""What the plugin keeps on pytest's own objects, by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .invocation import Invocation
    from .runner import Scaling
    from .selection import Declaration

INVOCATION: pytest.StashKey[Invocation] = pytest.StashKey()
"""On the configuration: what the whole invocation shares."""

DECLARATION: pytest.StashKey[Declaration] = pytest.StashKey()
"""On a test: what its marks ask for."""

SCALING: pytest.StashKey[Scaling] = pytest.StashKey()
"""On a test: what its fixture measures with."""
