"""How long may still be measured, and how many sessions may still be opened: the budget and the ceiling of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.results.outcome import StopReason

_MARGIN = 1.1
"""A repetition may take so many times as long as the one it is estimated by, or as it is to last."""


class OutOfTime(Exception):
    """The budget is used up in the middle of a repetition, which is then not kept."""


@dataclass
class Allowance:
    """What is left of a run's seconds and sessions; None where nothing bounds them.

    `seconds` are those of the curve that is measured, `spent_s` and `opened` what it and those before it took. `timing`
    is that curve's.
    """

    seconds: float | None = None
    sessions: int | None = None
    spent_s: float = 0.0
    opened: int = 0
    timing: Timing | None = None
    _took: dict[int, float] = field(default_factory=dict[int, float])

    def begin_curve(self, seconds: float | None, timing: Timing | None = None) -> None:
        """Begin with a curve that has so many seconds; what repetitions of another take, with its wait, tells nothing.

        Its first repetition is begun if any time is left, and one that lasts for a time if that is.
        """
        self.seconds = seconds
        self.timing = timing
        self._took.clear()

    def refuses(self, batch: int) -> StopReason | None:
        """Say why a repetition must not begin: it would not fit into the time, or open too many sessions."""
        sessions = batch if self.timing is None else self.timing.sessions(batch)
        if self.sessions is not None and sessions > self.sessions:
            return "max_sessions"
        if self.seconds is not None and self.estimate(batch) >= self.seconds:
            return "budget"
        return None

    def estimate(self, batch: int) -> float:
        """Return how many seconds a repetition may take: as long as one of the next larger batch that was measured did.

        Beyond all of them the line through the two largest goes on. It takes the time that it is to last in any case,
        and some more as the last sessions play on.
        """
        lasts_s = None if self.timing is None else self.timing.arrival.seconds
        return max(self._estimate_by_others(batch), (lasts_s or 0.0) * _MARGIN)

    def _estimate_by_others(self, batch: int) -> float:
        larger = [known for known in self._took if known >= batch]
        if larger or len(self._took) < 2:
            return self._took.get(min(larger, default=max(self._took, default=0)), 0.0) * _MARGIN
        below, largest = sorted(self._took)[-2:]
        slope = max((self._took[largest] - self._took[below]) / (largest - below), 0.0)
        return (self._took[largest] + slope * (batch - largest)) * _MARGIN

    def use(self, batch: int, seconds: float, sessions: int) -> None:
        """Note what a repetition of a batch took."""
        self._took[batch] = max(seconds, self._took.get(batch, 0.0))
        self.spent_s += seconds
        self.opened += sessions
        if self.seconds is not None:
            self.seconds -= seconds
        if self.sessions is not None:
            self.sessions -= sessions
