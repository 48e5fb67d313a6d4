"""Between two cells: wait until the server has let go of the sessions of the first.

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
from pytest_openenv_scale.results.row import SessionRow

PATIENCE_S = 5.0
"""Longest to wait between two cells, in seconds; the wait of a step comes on top."""

SLACK = 16
"""Descriptors a server may hold more than before without being taken to hold sessions."""

_PAUSE_S = 0.02
_NOT_ANSWERED = frozenset({"refused", "connection_reset", "timeout", "handshake_status", "capacity", "closed_early"})


class Cooldown:
    """Waits before every cell but the first; `play(timeout_s)` plays one session that is not recorded."""

    def __init__(self, endpoint: Endpoint, play: Callable[[float], SessionRow]) -> None:
        self._endpoint = endpoint
        self._play = play
        self._at_rest: int | None = None
        self._owed: float | None = None

    def after(self, *, mode: str, failed: bool, wait_s: float) -> None:
        """A cell is over: its mode, whether some of its sessions failed, how long their steps may still go on.

        Over HTTP a server holds connections, no sessions, and may keep them as long as it likes (hypercorn does
        until its keep-alive ends): what it holds by then is what it rests at.
        """
        self._owed = wait_s if failed else None
        if mode == "http":
            self._at_rest = None

    def before(self) -> tuple[ServerSample | None, tuple[str, ...]]:
        """Wait; returns the last look at the server, and what was not as it should be when waiting ended."""
        until = time.monotonic() + PATIENCE_S + (self._owed or 0.0)
        sample, notes = self._await_descriptors(until)
        if self._owed is not None:
            notes += self._await_answer(until)
        return sample, notes

    def _await_descriptors(self, until: float) -> tuple[ServerSample | None, tuple[str, ...]]:
        while True:
            sample = self._endpoint.sample()
            if sample is None or sample.descriptors is None:
                return sample, ()
            if self._at_rest is None:
                self._at_rest = sample.descriptors
            held = sample.descriptors - self._at_rest
            if held <= SLACK or self._endpoint.exit_status() is not None:
                return sample, ()
            if time.monotonic() >= until:
                self._at_rest = sample.descriptors  # It will not let go of these: no cell waits for them again.
                return sample, (
                    f"the server still held {held:,} descriptors of earlier sessions when the cell began,"
                    f" {PATIENCE_S:g} s after they had ended",
                )
            time.sleep(_PAUSE_S)

    def _await_answer(self, until: float) -> tuple[str, ...]:
        pause = _PAUSE_S
        while self._endpoint.exit_status() is None:
            row = self._play(max(0.5, until - time.monotonic()))
            if row.success or row.error_type not in _NOT_ANSWERED:
                return ()
            if time.monotonic() + pause >= until:
                why = row.error_message or row.error_type
                return (f"the server did not answer a single session before the cell began ({why})",)
            time.sleep(pause)
            pause *= 2
        return ()
