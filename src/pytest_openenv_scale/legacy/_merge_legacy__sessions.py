"""One session of `raw.jsonl` as a row of a run."""

from __future__ import annotations

from pytest_openenv_scale.core.row import SessionRow

from .files import RawRow, kind_of


def session_row(row: RawRow) -> SessionRow:
    """Return a session as a row; 0.0 in a phase that a failed session did not reach becomes null."""

    def reached(value: float | None) -> float | None:
        return value if row.success or value else None

    connect = None if row.mode == "http" and not row.connect_latency else reached(row.connect_latency)
    phase, kind = (None, None) if row.success else _failure(row)
    return SessionRow(
        request_id=row.request_id,
        process=0,
        started_at=row.at.timestamp(),
        due_s=0.0,
        closed_s=None if row.success else reached(row.total_latency),
        connect_latency=connect,
        reset_latency=reached(row.reset_latency),
        step_latency=reached(row.step_latency),
        step_latencies=() if reached(row.step_latency) is None else (row.step_latency or 0.0,),
        total_latency=row.total_latency if row.success else None,
        waited_seconds=reached(row.waited_seconds),
        steps_done=1 if row.success else 0,
        pid=row.pid,
        session_hash=row.session_hash,
        host_url=row.host_url,
        success=row.success,
        error_phase=phase,
        error_type=kind,
        error_code=row.error_type,
        error_message=row.error_message,
    )


def _failure(row: RawRow) -> tuple[str, str | None]:
    """Return the phase after the last one that has a time, and the kind of the failure."""
    phases = (("connect", row.connect_latency), ("reset", row.reset_latency), ("step", row.step_latency))
    if row.mode == "http":
        phases = phases[1:]
    phase = next((name for name, value in phases if not value), "close")
    return phase, kind_of(row.error_type or "", row.error_message)
