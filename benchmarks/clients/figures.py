"""How the Python clients count, so that all of them and the null server mean the same by the same word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def step_over(latencies: Sequence[float], wait: float) -> dict[str, float]:
    """Return p50 and p99 of step latencies beyond their wait (seconds), picked as the null server picks them."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    p50, p99 = ordered[len(ordered) // 2], ordered[int((len(ordered) - 1) * 0.99)]
    return {"step_over_p50": p50 - wait, "step_over_p99": p99 - wait}


def resident_kib(process: int | str = "self", *, peak: bool = False) -> int:
    """Return a process's resident size now, or the most it ever was since it began its program, in KiB.

    `getrusage` would not do: a child's maximum begins with what its parent held when it was forked.
    """
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def tell(**figures: object) -> None:
    """Print the client's one line."""
    print(json.dumps(figures))
