"""How far a measurement is: what load and engine pass on while it lasts, and reports show; nothing of it is stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a repetition is: sessions asked for, open, finished and failed among those; seconds since its start.

    `steps` is how many were taken by all of them together.
    """

    asked: int
    open: int
    finished: int
    failed: int
    elapsed_s: float
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a sweep is as a repetition begins.

    It belongs to cell `number` of `cells`, counted over all curves, and is repetition `repetition` of `repetitions`. In
    a search, which has no number of cells (None), it is probe `number`, and the batch that is searched lies between
    `passed` and `failed` (None: not known yet). `expected_s` is about how long the repetition takes, `later_s` what
    follows it to the end of the sweep: in a search at most. `steps` are those its sessions are to take together; None
    where nobody knows how many that will be.
    """

    number: int
    cells: int | None
    repetition: int
    repetitions: int
    expected_s: float
    later_s: float
    steps: int | None = None
    passed: int | None = None
    failed: int | None = None

    @property
    def is_probe(self) -> bool:
        """Whether a search asks for it."""
        return self.cells is None

    def left_s(self, elapsed_s: float, steps: int = 0) -> float:
        """Return about how many seconds are left of the sweep, after so many of the repetition and so many steps.

        By the time that is expected until a step is answered; from then on the steps left take their share of it, or of
        what it has taken already where that is more.
        """
        share = min(steps / self.steps, 1.0) if self.steps else 0.0
        left_s = (1.0 - share) * max(self.expected_s, elapsed_s) if share else max(self.expected_s - elapsed_s, 0.0)
        return left_s + self.later_s
