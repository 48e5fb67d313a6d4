"""The failures of one repetition of a cell and what else is known of it, as the rules of refusal see them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .summary import CellSummary, ErrorCount

BROKEN_OFF = frozenset({"closed_early", "connection_reset", "refused", "timeout"})
"""Failures that do not say why: the connection went away, was turned down or stayed silent."""


@dataclass
class Evidence:
    """One repetition of a cell; rules claim the failures they explain, so that no failure has two causes.

    `needed` is how many sessions the server should hold, for the arithmetic of the remedy.
    """

    summary: CellSummary
    needed: int
    unclaimed: list[ErrorCount] = field(init=False)

    def __post_init__(self) -> None:
        self.unclaimed = [error for error in self.summary.errors if error.type != "client_limit"]

    @property
    def batch(self) -> int:
        """How many sessions were asked for."""
        return self.summary.batch

    @property
    def workers(self) -> int | None:
        """How many processes answer: as the endpoint says, else as many as told their pid; None if unknown.

        The endpoint tells `workers` of each of its `replicas` or `nodes`.
        """
        limits = self.summary.limits
        told, servers = limits.get("workers"), limits.get("replicas", limits.get("nodes", 1))
        if told is not None and str(told).isdecimal():
            return int(told) * (int(servers) if str(servers).isdecimal() else 1)
        return self.summary.pids

    @property
    def is_space(self) -> bool:
        """Whether the server is a Hugging Face Space, behind the platform's own proxy."""
        return self.summary.cell.target.startswith("spaces")

    @property
    def is_uvicorn(self) -> bool:
        """Whether the server is known to be uvicorn: by its settings, its log or its answers."""
        answers = any("uvicorn" in (error.message or "").lower() for error in self.summary.errors)
        return self.summary.limits.get("server") == "uvicorn" or answers or self.log("uvicorn") is not None

    def log(self, pattern: str) -> re.Match[str] | None:
        """Search the tail of the server's log, case ignored."""
        return re.search(pattern, self.summary.log_tail or "", re.IGNORECASE)

    def said(self, pattern: str) -> bool:
        """Whether a failure's message matches, case ignored."""
        return any(re.search(pattern, error.message or "", re.IGNORECASE) for error in self.unclaimed)

    def claim(self, fits: Callable[[ErrorCount], bool]) -> list[ErrorCount]:
        """Take the failures that fit out of the unclaimed ones and return them."""
        claimed = [error for error in self.unclaimed if fits(error)]
        self.unclaimed = [error for error in self.unclaimed if not fits(error)]
        return claimed


def total(errors: list[ErrorCount]) -> int:
    """Return how many sessions a list of failures stands for."""
    return sum(error.count for error in errors)
