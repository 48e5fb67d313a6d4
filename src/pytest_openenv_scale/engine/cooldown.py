"""Waits between two cells until the server has closed the sessions of the first.

The client's own sockets are closed by then. A server on this machine shows its descriptors: they must be back
where they were. Where sessions failed, a slot may outlive its socket (a client that gives up in mid-step keeps its
slot until the step is over), so that one session is played, and played again until it is answered; where all
succeeded, each ended with the server's own goodbye and there is nothing to ask. When all is well this costs one
look at the server's processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.results.cell import SessionRow

MAX_WAIT_S = 5.0
"""Longest to wait between two cells, in seconds; the wait of a step comes on top."""

DESCRIPTOR_SLACK = 16
"""Descriptors a server may hold more than before without being taken to hold sessions."""

_PAUSE_S = 0.02
_UNANSWERED_ERRORS = frozenset(
    {"refused", "connection_reset", "timeout", "handshake_status", "capacity", "closed_early"}
)


class Cooldown:
    """Waits before every cell but the first; `play_session(timeout_s)` plays one session that is not recorded."""

    def __init__(self, endpoint: Endpoint, play_session: Callable[[float], SessionRow]) -> None:
        self._endpoint = endpoint
        self._play_session = play_session
        self._baseline_descriptors: int | None = None
        self._pending_step_s: float | None = None

    def cell_ended(self, *, mode: str, failed: bool, wait_s: float) -> None:
        """Note that a cell ended: its mode, whether sessions failed, and how many seconds their steps may go on.

        Over HTTP a server holds connections, no sessions, and may keep them as long as it likes (hypercorn does
        until its keep-alive ends): the descriptors it has then are the new baseline.
        """
        self._pending_step_s = wait_s if failed else None
        if mode == "http":
            self._baseline_descriptors = None

    def await_server(self) -> tuple[ServerSample | None, tuple[str, ...]]:
        """Wait until the server is ready for a cell; returns its last sample, and notes on what was still amiss."""
        deadline = time.monotonic() + MAX_WAIT_S + (self._pending_step_s or 0.0)
        sample, notes = self._await_descriptors(deadline)
        if self._pending_step_s is not None:
            notes += self._await_answer(deadline)
        return sample, notes

    def _await_descriptors(self, deadline: float) -> tuple[ServerSample | None, tuple[str, ...]]:
        while True:
            sample = self._endpoint.sample()
            if sample is None or sample.descriptors is None:
                return sample, ()
            if self._baseline_descriptors is None:
                self._baseline_descriptors = sample.descriptors
            excess = sample.descriptors - self._baseline_descriptors
            if excess <= DESCRIPTOR_SLACK or self._endpoint.exit_status() is not None:
                return sample, ()
            if time.monotonic() >= deadline:
                # The server will not close these descriptors: no cell waits for them again.
                self._baseline_descriptors = sample.descriptors
                return sample, (
                    f"the server still held {excess:,} descriptors of earlier sessions when the cell began,"
                    f" {MAX_WAIT_S:g} s after they had ended",
                )
            time.sleep(_PAUSE_S)

    def _await_answer(self, deadline: float) -> tuple[str, ...]:
        pause = _PAUSE_S
        while self._endpoint.exit_status() is None:
            row = self._play_session(round(max(0.5, deadline - time.monotonic()), 1))
            if row.reset_done_s is not None or row.success or row.error_type not in _UNANSWERED_ERRORS:
                return ()  # It has a slot for a session, whatever becomes of that in its steps.
            if row.error_type == "refused" and self._endpoint.rejoin():
                return ("nothing listened before the cell began; a server listens again",)
            if time.monotonic() + pause >= deadline:
                reason = row.error_message or row.error_type
                return (f"the server did not answer a single session before the cell began ({reason})",)
            time.sleep(pause)
            pause *= 2
        return ()
