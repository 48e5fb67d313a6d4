"""The cells of a run as a table: one row per cell and repetition, for a reader who wants no sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_openenv_scale.core.run import CurveView, Run, SweepView
from pytest_openenv_scale.core.summary import CellSummary

_PHASES = ("connect", "reset", "step", "total", "overhead")
_STATISTICS = ("p50", "p90", "p95", "p99", "min", "mean", "max")
_SECONDS = pa.float64()

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_started_at", pa.timestamp("us", "UTC")),
        ("run_status", pa.string()),
        ("version", pa.string()),
        ("git_commit", pa.string()),
        ("test", pa.string()),
        ("target", pa.string()),
        ("infrastructure", pa.string()),
        ("hardware", pa.string()),
        ("cores", pa.int32()),
        ("mode", pa.string()),
        ("wait", _SECONDS),
        ("steps", pa.int32()),
        ("arrival", pa.string()),
        ("max_batch", pa.int32()),
        ("outcome", pa.string()),
        ("batch_size", pa.int32()),
        ("repetition", pa.int32()),
        ("passed", pa.bool_()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("asked", pa.int32()),
        ("successful", pa.int32()),
        ("failed", pa.int32()),
        ("client_limited", pa.int32()),
        ("success_rate", pa.float64()),
        ("wall_s", _SECONDS),
        ("requests_per_second", pa.float64()),
        ("effective_concurrency", pa.float64()),
        ("peak_concurrency", pa.int32()),
        ("pids", pa.int32()),
        ("sessions", pa.int32()),
        ("hosts", pa.int32()),
        *((f"{phase}_{statistic}", _SECONDS) for phase in _PHASES for statistic in _STATISTICS),
        ("server_peak_rss_bytes", pa.int64()),
    ]
)
"""One row per cell and repetition. Latencies are seconds, shares fractions of 1, null where there is nothing.

`max_batch` and `outcome` are the curve's, `passed` the batch's over all repetitions (null: inconclusive).
"""


def cells_table(run: Run) -> pa.Table:
    """Return the cells of a run in the order they are reported; of one that measured none, an empty table."""
    rows = list(_rows(run))
    columns = [pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def cells_parquet(run: Run, path: Path) -> None:
    """Write the cells of a run as a Parquet file; equal runs make equal files."""
    pq.write_table(cells_table(run), path, compression="zstd")


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for view in run.sweeps:
        for curve in view.curves:
            for summary in curve.summaries:
                yield {**_of_run(run), **_of_curve(view, curve), **_of_cell(curve, summary)}


def _of_run(run: Run) -> dict[str, Any]:
    known = run.record.fingerprint
    git: Any = known.get("git") or {}
    packages: Any = known.get("packages") or {}
    return {
        "run_id": run.run_id,
        "run_started_at": run.record.started_at,
        "run_status": run.status,
        "version": packages.get("pytest-openenv-scale"),
        "git_commit": git.get("commit"),
    }


def _of_curve(view: SweepView, curve: CurveView) -> dict[str, Any]:
    return {
        "test": view.test,
        "target": view.target,
        "infrastructure": view.infrastructure,
        "mode": curve.curve.mode,
        "wait": curve.curve.wait,
        "steps": curve.curve.steps,
        "arrival": curve.curve.arrival,
        "max_batch": curve.verdict.max_batch,
        "outcome": str(curve.verdict.outcome),
    }


def _of_cell(curve: CurveView, summary: CellSummary) -> dict[str, Any]:
    same = (
        *("hardware", "cores", "repetition", "started_at", "asked", "successful", "failed", "client_limited"),
        *("success_rate", "wall_s", "requests_per_second", "effective_concurrency", "peak_concurrency"),
        *("pids", "sessions", "hosts"),
    )
    judged = curve.verdict.cell(summary.batch)
    peak = summary.server.peak
    row = {name: getattr(summary, name) for name in same}
    row |= {"batch_size": summary.batch, "passed": judged.passed if judged else None}
    row["server_peak_rss_bytes"] = peak.rss_bytes if peak else None
    for phase in _PHASES:
        stats = summary.phase(phase)
        row |= {f"{phase}_{name}": getattr(stats, name) if stats else None for name in _STATISTICS}
    return row
