"""How long sessions and repetitions take where the server takes next to no time: waits, think times, arrivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core.parsing import Arrival, parse_arrival

from .plan import Curve

_REPETITION_S, _SESSION_S = 1.0, 0.002
"""What a repetition takes besides, and each of its sessions, where the server is a quick one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What follows from a plan of how long its sessions take, in seconds; `think_s` is the mean think time."""

    steps: int
    wait_s: float
    think_s: float
    arrival: Arrival

    @classmethod
    def of_curve(cls, curve: Curve, think_mean_s: float) -> Timing:
        """Return the timing of a curve."""
        return cls(curve.steps, curve.wait or 0.0, think_mean_s, parse_arrival(curve.arrival))

    @property
    def thought_s(self) -> float:
        """What a session thinks, in a steady state before the next one of its slot begins, too."""
        return (self.steps + (self.arrival.kind == "steady")) * self.think_s

    @property
    def session_s(self) -> float:
        """The waits and think times of a session that takes all its steps."""
        return self.steps * (self.wait_s + self.think_s)

    def ideal_rate(self, batch: int) -> float | None:
        """Return the sessions per second of a server that takes no time itself; None where none of them waits."""
        cycle_s = self.steps * self.wait_s + self.thought_s
        return batch / cycle_s if cycle_s else None

    @property
    def judges_few(self) -> bool:
        """Whether fewer than two sessions of a slot can begin after the ramp of a steady state and end in time."""
        if self.arrival.kind != "steady" or self.arrival.seconds is None:
            return False
        return 2 * self.session_s > self.arrival.seconds - self.arrival.ramp

    def sessions(self, batch: int) -> int:
        """Return about how many sessions a repetition opens: in a steady state as many as its slots have time for."""
        if self.arrival.kind != "steady" or self.arrival.seconds is None:
            return batch
        cycle_s = max(self.steps * self.wait_s + self.thought_s, batch * _SESSION_S)
        # Slots begin one by one over the ramp, and the last session of each runs on when time is up.
        return batch * (1 + int((self.arrival.seconds - self.arrival.ramp / 2) / cycle_s))

    def repetition_s(self, batch: int) -> float:
        """Return about how long a repetition takes."""
        last_begins_s = self.arrival.seconds
        if last_begins_s is None:
            last_begins_s = batch / self.arrival.rate if self.arrival.rate else batch * _SESSION_S
        return last_begins_s + self.session_s + _REPETITION_S

    def most(self, courses: Iterable[Sequence[int]]) -> tuple[int, float]:
        """Return about how many sessions and seconds the longest of these courses takes, each a list of batches."""
        costs = [(sum(map(self.sessions, course)), sum(map(self.repetition_s, course))) for course in courses]
        return max(sessions for sessions, _ in costs), max(seconds for _, seconds in costs)
