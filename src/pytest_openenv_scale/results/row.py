"""What the client measured of one session: one row of the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pytest_openenv_scale.core.text import Secrets

Int32 = Annotated[int, "int32"]
"""A whole number that is stored in 32 bits; any other takes 64."""


class SessionRow(NamedTuple):
    """One session as its client saw it; seconds as floats, None where a phase was not reached.

    Each field is a column of what a run keeps, of the type written here; `started_at` is its `timestamp`.

    Times ending in `_s` are offsets from the start of the cell. `queue_latency` runs from the moment the
    session was due to the start of its socket, `connect_latency` to the finished handshake,
    `reset_latency` over the first reset, `hold_latency` while the rest of the batch came up,
    `step_latency` sums `step_latencies`, `resets` sums the resets made after `done`, and
    `total_latency` is queue + connect + reset + steps + resets.
    """

    request_id: int
    process: Int32
    started_at: float
    due_s: float
    start_s: float | None = None
    connected_s: float | None = None
    reset_done_s: float | None = None
    closed_s: float | None = None
    queue_latency: float | None = None
    connect_latency: float | None = None
    reset_latency: float | None = None
    hold_latency: float | None = None
    step_latency: float | None = None
    step_latencies: Sequence[float] = ()
    resets: float | None = None
    total_latency: float | None = None
    waited_seconds: float | None = None
    steps_done: Int32 = 0
    pid: int | None = None
    session_hash: str | None = None
    host_url: str | None = None
    success: bool = False
    error_phase: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    def without(self, secrets: Secrets) -> SessionRow:
        """Return the row with no secret in any text that the server wrote."""
        texts = {name: getattr(self, name) for name in _WRITTEN_BY_SERVERS}
        return self._replace(**{name: secrets.hide(text) for name, text in texts.items() if text is not None})


_WRITTEN_BY_SERVERS = ("session_hash", "host_url", "error_code", "error_message")
