"""Waiting for what nothing announces: look, pause, look again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], timeout_s: float, pause_s: float, *, until: Callable[[T], object] = bool) -> T:
    """Call `look` again and again, with pauses, until what it returns is true, or `until` says so; return its last.

    After `timeout_s` seconds that is whatever it returned last; it is called once at least.
    """
    deadline = time.monotonic() + timeout_s
    while not until(seen := look()) and time.monotonic() < deadline:
        time.sleep(pause_s)
    return seen
