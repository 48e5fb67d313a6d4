"""What refusals are told from: one repetition of a cell, whose failures rules claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import ErrorCount, Refusal

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
        workers, servers = limits.get("workers"), limits.get("replicas", limits.get("nodes", 1))
        if workers is not None and str(workers).isdecimal():
            return int(workers) * (int(servers) if str(servers).isdecimal() else 1)
        return self.summary.pids

    @property
    def is_space(self) -> bool:
        """Whether the server is a Hugging Face Space, behind the platform's own proxy."""
        return self.summary.cell.target.startswith("spaces")

    @property
    def is_uvicorn(self) -> bool:
        """Whether the server is known to be uvicorn: by its settings, its log or its answers."""
        answers = any("uvicorn" in (error.message or "").lower() for error in self.summary.errors)
        return self.summary.limits.get("server") == "uvicorn" or answers or self.search_log("uvicorn") is not None

    def search_log(self, pattern: str) -> re.Match[str] | None:
        """Search the tail of the server's log, case ignored."""
        return re.search(pattern, self.summary.log_tail or "", re.IGNORECASE)

    def any_message_matches(self, pattern: str) -> bool:
        """Whether a failure's message matches, case ignored."""
        return any(re.search(pattern, error.message or "", re.IGNORECASE) for error in self.unclaimed)

    def claim(self, fits: Callable[[ErrorCount], bool]) -> list[ErrorCount]:
        """Take the failures that fit out of the unclaimed ones and return them."""
        claimed = [error for error in self.unclaimed if fits(error)]
        self.unclaimed = [error for error in self.unclaimed if not fits(error)]
        return claimed

    def refusal(
        self,
        cause: str,
        claimed: Sequence[ErrorCount],
        *,
        words: str | None = None,
        **figures: float | int | str | bool | None,
    ) -> Refusal:
        """Return what refused the claimed sessions; `needed` joins its figures."""
        count = sum(error.count for error in claimed)
        return Refusal(cause, count, self.batch, {"needed": self.needed, **figures}, words)
