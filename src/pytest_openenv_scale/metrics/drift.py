"""Whether a series of figures goes up: how it is told, and what counts as drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .certainty import slope

WARM_UP_SHARE = 0.2
"""The share of the time that is left out of every slope: caches, pools and allocators fill up in it."""

LATENCY_RATIO, LATENCY_LEAST_S = 0.5, 0.005
"""A median latency that rises over the time by this share of itself and by this many seconds is a drift."""

MEMORY_RATIO, MEMORY_LEAST_BYTES = 0.1, 16 * 1024**2
"""Memory that grows over the time by this share of itself and by this many bytes is a drift."""

PER_STEP_BYTES, PER_STEP_LEAST_BYTES = 1000.0, 4 * 1024**2
"""So is, where no sessions come and go, growth by this many bytes per step and this many in all: less cannot be told
from what allocators do."""

COUNT_RATIO, COUNT_LEAST = 0.2, 20
"""Threads or descriptors that grow over the time by this share of themselves and by this many are a drift."""

ERROR_RATIO, FEWEST_ERRORS = 0.01, 5
"""Errors come with time where their share of the steps exceeds that in the warm-up by this much, and they are this
many; failures of sessions, where their share rises by this much over the time."""

LEAST_POINTS = 8
"""Fewer points than this say nothing about a slope."""

_LEVEL_POINTS = 3
"""A level next to a step has this many points at least: a single outlier at an end would look like a step."""

_CLEAR_STEP_SHARE = 0.8
"""A step fits clearly better than a line where the scatter around it is below this share of that around the line."""

_CONFIDENCE = 0.99
"""How often the interval of a slope covers it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a series goes up, each slope per unit of its x.

    `slope` is the median of all slopes between two points (Theil–Sen), `low` and `high` the ends of its interval at
    99 %. `start` is the median of the first third. `steady` tells that a line fits the series better than one step
    does, `stepped` that the step fits clearly better: a neighbour that begins to work and a growth that ends soon are
    no drift.
    """

    start: float
    slope: float
    low: float
    high: float
    steady: bool
    stepped: bool

    def rises(self, length: float, *, ratio: float, least: float) -> bool:
        """Whether the series surely rises over `length` units of x by this share of its start and by `least`."""
        return self.steady and self.low * length >= max(least, ratio * self.start)

    def may_rise(self, length: float, *, ratio: float, least: float) -> bool:
        """Whether it surely rises, by so much if its slope is taken as it is, and not clearly in one step."""
        return not self.stepped and self.low > 0 and self.slope * length >= max(least, ratio * self.start)

    def jumps(self, length: float, *, ratio: float, least: float) -> bool:
        """Whether it goes up by so much, but clearly in one step rather than on and on."""
        return self.stepped and self.slope * length >= max(least, ratio * self.start)


def drift(x: Sequence[float], y: Sequence[float | None]) -> Drift | None:
    """Return how `y` goes up with a rising `x`, points without a value left out; None where too few are left."""
    points = [(at, value) for at, value in zip(x, y, strict=True) if value is not None]
    count = len(points)
    if count < LEAST_POINTS or points[0][0] == points[-1][0]:
        return None
    values = [value for _, value in points]
    growth = slope(points, _CONFIDENCE)
    around_line = _scatter([value - growth.value * at for at, value in points])
    around_step = _scatter_around_step(values)
    return Drift(
        start=median(values[: count // 3]),
        slope=growth.value,
        low=growth.low,
        high=growth.high,
        steady=around_line < around_step,
        stepped=around_step < _CLEAR_STEP_SHARE * around_line,
    )


def _scatter(values: Sequence[float]) -> float:
    """Return the sum of distances from the median: squared ones would leave all to the one point that stands out."""
    middle = median(values)
    return math.fsum(abs(value - middle) for value in values)


def _scatter_around_step(values: Sequence[float]) -> float:
    """Return the least scatter around two levels, wherever the step between them is."""
    cuts = range(_LEVEL_POINTS, len(values) - _LEVEL_POINTS + 1)
    return min(_scatter(values[:cut]) + _scatter(values[cut:]) for cut in cuts)
