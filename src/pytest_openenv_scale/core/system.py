"""How many descriptors a process may open."""

from __future__ import annotations

import resource
from contextlib import suppress

_OPEN_MAX = 10_240
"""What macOS lets any process have."""


def descriptor_limit() -> int:
    """Return how many descriptors a load process may open: it raises its soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        return hard
    reached = raise_descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return reached


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, or as far as the system lets it; returns what it is then.

    macOS says "infinity" and means less, how much less only trying tells: at most 1,048,576 and at least half of
    what could be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = [hard] if hard != resource.RLIM_INFINITY else [1 << power for power in range(20, 13, -1)] + [_OPEN_MAX]
    for limit in wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return limit
    return soft
