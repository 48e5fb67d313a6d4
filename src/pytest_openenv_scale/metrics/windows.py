"""A steady state in windows of time."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_openenv_scale.core.serialization import Jsonable


@dataclass(frozen=True, slots=True)
class Window(Jsonable):
    """What happened from `start_s` to `end_s`, in seconds from the start of the cell; None where nothing tells.

    `begun` sessions began in it (their sockets), `failed` of those ended badly, `success_rate` is of those whose end
    counts. `finished` ended well in it, `sessions_per_second` are these by time. `steps` were answered in it, with
    latencies in seconds. `open_least` is the least number of sessions that were open at once, reset and not closed.
    Memory (bytes), threads and descriptors are the server's at its end, `cpu_share` how many cores it used.
    In a window that is not `judged` slots were still beginning, or time was up.
    """

    start_s: float
    end_s: float
    judged: bool
    begun: int = 0
    failed: int = 0
    finished: int = 0
    success_rate: float | None = None
    sessions_per_second: float | None = None
    steps: int = 0
    step_p50_s: float | None = None
    step_p99_s: float | None = None
    open_least: int | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    cpu_share: float | None = None
