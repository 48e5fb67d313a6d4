"""Values for tests of tables, summaries and verdicts: each takes what the test is about and fills in the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pytest_openenv_scale.config.limits import Slo, make_limit
from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.metrics.summary import CellSummary, summarise
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.results.cell import CellMeta, SessionRow
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.results.parts import Part, rows_to_table
from pytest_openenv_scale.results.spool import PartWriter

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def a_cell(batch=4, *, wait=1.0, mode="ws", steps=1, arrival="hold", target="local") -> Cell:
    return Cell("test_scale.py::test_it", target, "local-uvicorn", mode, wait, batch, steps, arrival)


def a_curve(*batches: int, **cell) -> Curve:
    return replace(a_cell(**cell).curve, batches=batches)


def a_meta(cell: Cell | None = None, *, repetition=1, wall_s=2.0, **fields) -> CellMeta:
    return CellMeta(
        run_id="run",
        sweep_id="sweep",
        cell=cell or a_cell(),
        repetition=repetition,
        wall_s=wall_s,
        started_at=NOON,
        **fields,
    )


def a_row(number=0, *, step=1.0, **fields) -> SessionRow:
    """A session that connects in 10 ms, resets in 20 ms, makes one step, and is up from 0.03 s."""
    row = SessionRow(
        request_id=number,
        process=0,
        started_at=NOON.timestamp(),
        due_s=0.0,
        start_s=0.0,
        connected_s=0.01,
        reset_done_s=0.03,
        closed_s=0.03 + step,
        queue_latency=0.0,
        connect_latency=0.01,
        reset_latency=0.02,
        hold_latency=0.0,
        step_latency=step,
        step_latencies=[step],
        resets=0.0,
        total_latency=0.03 + step,
        waited_seconds=1.0,
        steps_done=1,
        pid=100,
        session_hash=f"s{number}",
        host_url="node1:8000",
        success=True,
    )
    return row._replace(**fields)


def a_failure(
    number=0, *, phase="reset", type="capacity", code="CAPACITY_REACHED", message="full", **fields
) -> SessionRow:
    """A session that connected, and was turned away."""
    return SessionRow(
        request_id=number,
        process=0,
        started_at=NOON.timestamp(),
        due_s=0.0,
        start_s=0.0,
        connected_s=0.01,
        closed_s=0.02,
        queue_latency=0.0,
        connect_latency=0.01,
        error_phase=phase,
        error_type=type,
        error_code=code,
        error_message=message,
    )._replace(**fields)


def a_table(rows, meta: CellMeta | None = None):
    return rows_to_table(rows, meta or a_meta())


def a_part(directory: Path, rows, meta: CellMeta | None = None) -> Part:
    """The sealed part of rows that are all there."""
    with PartWriter(directory, meta or a_meta()) as writer:
        writer.write(rows)
        return writer.seal(meta or a_meta())


def summary_of(rows, cell: Cell | None = None, **meta) -> CellSummary:
    described = a_meta(cell or a_cell(len(rows)), **meta)
    return summarise(a_table(rows, described), described)


def stats(value: float, count=100) -> PhaseStats:
    return PhaseStats(count, value, value, value, value, value, value, value)


def a_summary(
    batch=4, *, failed=0, repetition=1, cell: Cell | None = None, errors=None, phases=None, **fields
) -> CellSummary:
    """A repetition in which `failed` sessions found the server full and the rest were fast."""
    base = replace(_one_session(), repetition=repetition)
    limited = fields.get("client_limited", 0)
    judged = batch - limited
    good = judged - failed
    usual = (ErrorCount("reset", "capacity", "CAPACITY_REACHED", failed, "full"),) if failed else ()
    values = {
        "cell": cell or a_cell(batch),
        "asked": batch,
        "successful": good,
        "failed": failed,
        "success_rate": good / judged if judged else None,
        "peak_concurrency": good,
        "host_counts": {"node1:8000": good} if good else {},
        "hosts": 1 if good else None,
        "errors": usual if errors is None else errors,
        "phases": {**({name: stats(0.01) for name in base.phases} if good else {}), **(phases or {})},
    }
    return replace(base, **{**values, **fields})


@cache
def _one_session() -> CellSummary:
    return summary_of([a_row()], a_cell(1))


def steady_windows(*, seconds=60, ramp=10, width=5, drain=2.5, slots=64, rss_bytes=210_000_000) -> tuple[Window, ...]:
    """Windows of a steady state in which steps take 9 to 15 ms and memory grows by 0.4 MB a window; one session failed.

    In the ramp slots begin; two windows before the end one is missing of those that are open.
    """
    bounds = [(at, at + width) for at in range(0, seconds, width)] + [(seconds, seconds + drain)]
    return tuple(
        Window(
            start_s=float(start),
            end_s=float(end),
            judged=ramp <= start < seconds,
            begun=58 if start < seconds else 0,
            failed=int(at == 4),
            finished=57 if start < seconds else 40,
            success_rate=(0.99 if at == 4 else 1.0) if ramp <= start < seconds else None,
            sessions_per_second=11.4 if start < seconds else 16.0,
            steps=500,
            step_p50_s=0.009,
            step_p99_s=0.012 + 0.001 * (at % 4),
            open_least=0 if start in (0, seconds) else slots - int(at == len(bounds) - 3),
            rss_bytes=rss_bytes + 400_000 * at,
            threads=12,
            descriptors=90 + at,
            cpu_share=0.42,
        )
        for at, (start, end) in enumerate(bounds)
    )


def an_slo(**limits) -> Slo:
    return Slo(tuple(make_limit(name, value) for name, value in limits.items()))
