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
