"""How much of an HTTP latency is the client's own, and from where on that is too much.

A WebSocket's reply carries the kernel's time; aiohttp's answers are timed when a task sees them, and a busy
event loop sees them late. How late, the kernel tells per connection (`tcpi_last_data_recv`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .meta import Finding

if TYPE_CHECKING:
    from .guard import ClientStats

RESOLVED_P50_S = 0.005
"""What the client may add to half of the HTTP latencies, in seconds."""

RESOLVED_P99_S = 0.040
"""What the client may add to 99 of 100 HTTP latencies, in seconds."""


FEWEST = 20
"""Samples from which half of them say something about the client, and not about one hiccup."""


@dataclass(slots=True)
class Lags:
    """How late connections, resets and steps were seen, in seconds; None where the kernel did not tell."""

    connect: list[float | None] = field(default_factory=list[float | None])
    reset: list[float | None] = field(default_factory=list[float | None])
    step: list[float | None] = field(default_factory=list[float | None])

    def worst(self) -> tuple[float | None, float | None]:
        """Return p50 and p99 of the phase in which they are largest; None where too little is known."""
        known = [sorted(lag for lag in lags if lag is not None) for lags in (self.connect, self.reset, self.step)]
        return (
            max((_percentile(lags, 0.5) for lags in known if len(lags) >= FEWEST), default=None),
            max((_percentile(lags, 0.99) for lags in known if lags), default=None),
        )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(len(ordered) * share) - 1]


def http_findings(client: ClientStats) -> tuple[Finding, ...]:
    """Judge whether the client resolved what it measured over HTTP; nothing where nothing is known (ws mode)."""
    p50, p99 = client.answer_lag_p50_s or 0.0, client.answer_lag_p99_s or 0.0
    if p50 <= RESOLVED_P50_S and p99 <= RESOLVED_P99_S:
        return ()
    return (
        Finding(
            "http_lag",
            "HTTP answers were seen late (use more load processes with --openenv-processes, a smaller batch, or mode"
            f" ws): p50 {p50 * 1000:.0f} ms, allowed {RESOLVED_P50_S * 1000:.0f} ms, and p99 {p99 * 1000:.0f} ms,"
            f" allowed {RESOLVED_P99_S * 1000:.0f} ms",
        ),
    )
