"""A plugin for the pytest runs that tests start: whatever shares this machine, the client is not found too slow.

For tests whose subject is a server or a report: they run beside others, which is what the guard notices. Those of the
guard itself run without this plugin, and alone.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import pytest

LIMITS = {
    "pytest_openenv_scale.load.client_health": (
        "MAX_LOOP_LAG_S",
        "MAX_BUSY_SHARE",
        "MAX_STARVED_SHARE",
        "MAX_ANSWER_LAG_P50_S",
        "MAX_ANSWER_LAG_P99_S",
    )
}


@contextmanager
def lifted() -> Generator[None]:
    """Let the client be as late as it is for the length of the block."""
    with ExitStack() as stack:
        for module, names in LIMITS.items():
            for name in names:
                stack.enter_context(patch(f"{module}.{name}", math.inf))
        yield


# Not where this is imported: pytest warns of plugins whose package was imported before it could look at them.
def pytest_configure(config: pytest.Config) -> None:
    """Do so until pytest ends."""
    stack = ExitStack()
    stack.enter_context(lifted())
    config.add_cleanup(stack.close)
