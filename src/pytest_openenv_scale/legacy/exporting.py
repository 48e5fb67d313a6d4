"""Writes a run as `raw.jsonl` and `summary.csv`, for programs that read the older files.

They have no place for the queue, held sessions, single steps, offsets and think times, nor for sessions that do not
count, which are left out; the repetition follows from the order, and the infrastructure from the folder's name.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from pytest_openenv_scale.metrics.errors import TableRows
from pytest_openenv_scale.metrics.percentiles import PhaseStats, phase_stats
from pytest_openenv_scale.metrics.summary import CellSummary, counted_rows, summarise
from pytest_openenv_scale.results.parts import Part, latest_attempts, read_parts
from pytest_openenv_scale.results.run_directory import PARTS

from .files import RAW, SUMMARY, SUMMARY_COLUMNS, LegacyError, RawRow
from .importing import OLDER_POSITION, OLDER_SUMMARY

_ROWS_AT_ONCE = 16_384


def export_older(run: Path, directory: Path) -> tuple[Path, Path]:
    """Write the two files of a run into a directory and return their paths; existing ones are never replaced.

    Cells follow in the order they were measured. A line of the summary that was imported is given back as it stood.

    Raises:
        LegacyError: the files are there already, cannot be written, or a part of the run is damaged.
        RunError: there is no run at this path.
    """
    from pytest_openenv_scale.results.manifest import read_manifest

    manifest = read_manifest(run)
    raw, summary = directory / RAW, directory / SUMMARY
    for path in (raw, summary):
        if path.exists():
            raise LegacyError(f"{path} is there already; name another folder with --output")
    problems: list[str] = []
    parts = sorted(latest_attempts(read_parts(run / PARTS, problems.append)), key=_part_order)
    if problems:
        raise LegacyError(f"a part of the run cannot be read: {problems[0]}")
    lines_without_sessions: list[Mapping[str, str]] = list(manifest.plan.get("summary_lines_without_sessions", ()))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with raw.open("x", encoding="utf-8") as rows, summary.open("x", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, SUMMARY_COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            for part in parts:
                table = part.table()
                counted = pa.concat_tables(counted_rows(TableRows(table), part.meta).batches(*table.column_names))
                rows.writelines(_raw_lines(counted, imported=OLDER_POSITION in part.meta.client))
                writer.writerow(_summary_line(part, table))
            writer.writerows(lines_without_sessions)
    except OSError as error:
        raise LegacyError(f"{error.filename or directory} cannot be written: {error.strerror}") from None
    return raw, summary


def _part_order(part: Part) -> tuple[int, datetime, Path]:
    """Return the sort key of a part: its position when it was imported, else the time it was measured."""
    return part.meta.client.get(OLDER_POSITION, 0), part.meta.started_at, part.path


def _raw_lines(table: pa.Table, *, imported: bool) -> Iterator[str]:
    table = table if imported else table.sort_by("request_id")
    for at in range(0, table.num_rows, _ROWS_AT_ONCE):
        for row in table.slice(at, _ROWS_AT_ONCE).to_pylist():
            yield json.dumps(_raw_session(row, imported=imported)) + "\n"


def _raw_session(row: Mapping[str, Any], *, imported: bool) -> dict[str, Any]:
    """Return a session as the older script wrote it: 0.0 where there is nothing."""
    failed = not row["success"]
    # The kind of an imported failure was read off its message, and is nothing the file said.
    error = row["error_code"] if imported else row["error_code"] or row["error_type"] if failed else None
    measured = {name: row[name] for name in RawRow.__struct_fields__}
    return {
        **measured,
        **{name: row[name] or 0.0 for name in ("connect_latency", "reset_latency", "step_latency", "waited_seconds")},
        "timestamp": _timestamp_text(row["timestamp"]),
        "total_latency": (_lifetime(row) if failed else row["total_latency"]) or 0.0,
        "error_type": error,
    }


def _lifetime(row: Mapping[str, Any]) -> float | None:
    """Return how long a failed session lived, from the moment it was due."""
    return None if row["closed_s"] is None else row["closed_s"] - row["due_s"]


def _timestamp_text(value: datetime) -> str:
    """Write a moment as the older script did: naive UTC with Z."""
    return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


def _summary_line(part: Part, table: pa.Table) -> Mapping[str, Any]:
    imported_line = cast("Mapping[str, str] | None", part.meta.client.get(OLDER_SUMMARY))
    if imported_line is not None:
        return imported_line
    summary = summarise(table, part.meta)
    good = table.filter(pc.and_(table["success"], table["judged"]))
    step = phase_stats(good["step_latency"])
    return {
        "mode": summary.cell.mode,
        "url": summary.cell.target,
        "num_requests": summary.asked,
        "batch_size": summary.batch,
        "wait_seconds": summary.cell.wait,
        "repetition": summary.repetition,
        "timestamp": _timestamp_text(summary.started_at),
        "hardware": summary.hardware,
        "successful": summary.successful,
        "failed": summary.asked - summary.successful,
        "error_rate": (summary.asked - summary.successful) / summary.asked if summary.asked else None,
        "total_wall_time": summary.wall_s,
        **_statistics("connect", summary.phase("connect"), ("p50", "p95", "p99")),
        **_statistics("reset", summary.phase("reset"), ("p50", "p95", "p99")),
        **_statistics("step", step, ("p50", "p95", "p99")),
        **_statistics("total", summary.phase("total"), ("min", "max", "mean", "p50", "p90", "p95", "p99")),
        "requests_per_second": summary.requests_per_second,
        "effective_concurrency": _effective_concurrency(summary),
        "unique_pids": summary.pids or 0,
        "unique_sessions": summary.sessions or 0,
        "unique_hosts": summary.hosts or 0,
    }


def _effective_concurrency(summary: CellSummary) -> float | None:
    """Return N × wait ÷ wall, as the older files have it; ours sums what the successful sessions really waited."""
    wait = summary.cell.wait
    return summary.asked * wait / summary.wall_s if wait is not None and summary.wall_s > 0 else None


def _statistics(phase: str, stats: PhaseStats | None, names: Iterable[str]) -> dict[str, float | None]:
    return {
        f"{phase}_{'avg' if name == 'mean' else name}": None if stats is None else getattr(stats, name)
        for name in names
    }
