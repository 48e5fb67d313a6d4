"""What the sessions of a repetition came to, added up as they end: their rows do not stay in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from pytest_openenv_scale.load.ipc import AnsweredError
from pytest_openenv_scale.results.cell import SERVICE_RESTART, SessionRow

MAX_REPLAYED = 1_000
"""Most sessions that are kept as they were answered with an error, to be played again alone."""


class SessionTally:
    """Counts of the sessions of a repetition so far: `played` in all, `reset` of them, `answered_errors` with an error.

    `errors` are, by the number of a session, the first of those. `says_restart` tells that the server closed a session
    as it restarts.
    """

    def __init__(self) -> None:
        self.played = self.reset = self.answered_errors = 0
        self.failed = self.says_restart = False
        self.errors: dict[int, AnsweredError] = {}

    def add(self, rows: Sequence[SessionRow], answered_errors: Mapping[int, AnsweredError]) -> None:
        """Count sessions, and what they were answered that is an error, by their number."""
        self.played += len(rows)
        self.answered_errors += len(answered_errors)
        self.errors.update(islice(answered_errors.items(), MAX_REPLAYED - len(self.errors)))
        for row in rows:
            self.reset += row.reset_latency is not None
            self.failed = self.failed or not row.success
            if row.error_type == "closed_early" and row.error_code == SERVICE_RESTART:
                self.says_restart = True
