"""The rows of one repetition of a cell, as the figures a verdict and a report need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .jsonable import Jsonable
from .meta import CellMeta, Finding, ServerSamples
from .plan import Cell
from .spread import ProxyFacts

PHASES = ("queue", "connect", "reset", "hold", "step", "total", "overhead")
"""The phases reports show; `total_unqueued` and `overhead_unqueued` leave out the client's own queue."""


@dataclass(frozen=True, slots=True)
class PhaseStats(Jsonable):
    """Exact statistics in seconds over `count` values of successful sessions.

    Percentiles interpolate linearly between the two nearest values.
    """

    count: int
    min: float
    mean: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class ErrorCount(Jsonable):
    """How many sessions failed in one way: the phase, the type and code, and the first message seen."""

    phase: str | None
    type: str | None
    code: str | None
    count: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class LostWorker(Jsonable):
    """A server process all of whose sessions (at least two) ended without a close handshake."""

    pid: int
    host: str | None
    sessions: int


@dataclass(frozen=True, slots=True)
class CellSummary(Jsonable):
    """One repetition of a cell; seconds, fractions and rates per second, None where unknown.

    `asked` = successful + failed + client_limited. Sessions the client could not start (`client_limited`)
    leave the denominator of `success_rate`. `requests_per_second` is successful ÷ wall,
    `effective_concurrency` Σ waited of successes ÷ wall, `peak_concurrency` the most sessions at one instant
    whose reset was answered. `step` counts every single step; the other phases count sessions.
    `hosts` (distinct) and `host_counts` are over successful sessions; so are `pids` and `sessions`.
    `failed_hosts` are where failed sessions had been answered; `proxy` is what a proxy counted.
    """

    run_id: str
    sweep_id: str
    cell: Cell
    repetition: int
    asked: int
    successful: int
    failed: int
    client_limited: int
    success_rate: float | None
    wall_s: float
    started_at: datetime
    phases: Mapping[str, PhaseStats]
    requests_per_second: float | None
    effective_concurrency: float | None
    peak_concurrency: int
    pids: int | None = None
    sessions: int | None = None
    hosts: int | None = None
    host_counts: Mapping[str, int] = field(default_factory=dict[str, int])
    errors: tuple[ErrorCount, ...] = ()
    lost_workers: tuple[LostWorker, ...] = ()
    findings: tuple[Finding, ...] = ()
    client: Mapping[str, Any] = field(default_factory=dict[str, Any])
    server: ServerSamples = field(default_factory=ServerSamples)
    server_exit: str | None = None
    log_tail: str | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    hardware: str | None = None
    cores: int | None = None
    hosts_available: int | None = None
    notes: tuple[str, ...] = ()
    failed_hosts: Mapping[str, int] = field(default_factory=dict[str, int])
    proxy: ProxyFacts | None = None

    @property
    def batch(self) -> int:
        """How many sessions the cell asks for at once."""
        return self.cell.batch

    @property
    def hosts_known(self) -> bool:
        """Whether every successful session told which host it ran on."""
        return self.successful > 0 and sum(self.host_counts.values()) == self.successful

    def phase(self, name: str) -> PhaseStats | None:
        """Return the statistics of a phase of `PHASES`, or None where it has no values."""
        return self.phases.get(name)


COLUMNS = (
    "wait_requested",
    "reset_done_s",
    "closed_s",
    "queue_latency",
    "connect_latency",
    "reset_latency",
    "hold_latency",
    "step_latencies",
    "total_latency",
    "waited_seconds",
    "steps_done",
    "pid",
    "session_hash",
    "host_url",
    "success",
    "error_phase",
    "error_type",
    "error_code",
    "error_message",
)
"""The columns `summarise` reads."""


def summarise(table: pa.Table, meta: CellMeta) -> CellSummary:
    """Reduce the rows of one repetition of a cell to its summary."""
    good = table.filter(table["success"])
    bad = table.filter(pc.invert(table["success"]))
    limited = bad.filter(pc.equal(pc.fill_null(bad["error_type"], ""), "client_limit")).num_rows
    asked = max(meta.cell.batch, table.num_rows)
    failed = bad.num_rows - limited
    judged = good.num_rows + failed
    hosts = _counts(good["host_url"])
    waited = pc.sum(good["waited_seconds"]).as_py()
    wall = meta.wall_s
    return CellSummary(
        run_id=meta.run_id,
        sweep_id=meta.sweep_id,
        cell=meta.cell,
        repetition=meta.repetition,
        asked=asked,
        successful=good.num_rows,
        failed=failed,
        client_limited=asked - judged,
        success_rate=good.num_rows / judged if judged else None,
        wall_s=wall,
        started_at=meta.started_at,
        phases=_phases(good),
        requests_per_second=good.num_rows / wall if wall > 0 else None,
        effective_concurrency=waited / wall if waited is not None and wall > 0 else None,
        peak_concurrency=peak_concurrency(table["reset_done_s"], table["closed_s"]),
        pids=_processes(good),
        sessions=_distinct(good["session_hash"]),
        hosts=len(hosts) or None,
        host_counts=hosts,
        errors=_errors(bad),
        lost_workers=_lost_workers(table),
        findings=meta.findings,
        client=meta.client,
        server=meta.server,
        server_exit=meta.server_exit,
        log_tail=meta.log_tail,
        limits=meta.limits,
        hardware=meta.hardware,
        cores=meta.cores,
        hosts_available=meta.hosts,
        notes=meta.notes,
        failed_hosts=_counts(bad["host_url"]),
        proxy=meta.proxy,
    )


def _phases(good: pa.Table) -> dict[str, PhaseStats]:
    """Return the statistics of every phase that has values; `overhead` is total − steps done × wait."""
    total, queue = good["total_latency"], good["queue_latency"]
    overhead = pc.subtract(total, pc.multiply(good["steps_done"], good["wait_requested"]))
    values = {
        "queue": queue,
        "connect": good["connect_latency"],
        "reset": good["reset_latency"],
        "hold": good["hold_latency"],
        "step": pc.list_flatten(good["step_latencies"]),
        "total": total,
        "overhead": overhead,
        "total_unqueued": pc.subtract(total, queue),
        "overhead_unqueued": pc.subtract(overhead, queue),
    }
    found = {name: phase_stats(column) for name, column in values.items()}
    return {name: stats for name, stats in found.items() if stats is not None}


def phase_stats(values: pa.Array | pa.ChunkedArray) -> PhaseStats | None:
    """Return the exact statistics of a column of seconds, nulls left out; None where nothing is left."""
    present = pc.drop_null(values)
    if len(present) == 0:
        return None
    extremes: dict[str, float] = pc.min_max(present).as_py()
    p50, p90, p95, p99 = pc.quantile(present, q=[0.5, 0.9, 0.95, 0.99], interpolation="linear").to_pylist()
    return PhaseStats(
        count=len(present),
        min=extremes["min"],
        mean=pc.mean(present).as_py(),
        max=extremes["max"],
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
    )


def peak_concurrency(reset_done: pa.ChunkedArray, closed: pa.ChunkedArray) -> int:
    """Return the most sessions at one instant whose reset was answered and which are not closed.

    A session is open from its answered reset up to, not including, its close; one without a close stays
    open to the end.
    """
    still_open = pc.fill_null(closed, float("inf"))
    lived = pc.fill_null(pc.greater(still_open, reset_done), False)
    spans = pa.table({"up": reset_done, "down": still_open}).filter(lived)
    if spans.num_rows == 0:
        return 0
    changes = pa.table(
        {
            "at": pa.concat_arrays([spans["up"].combine_chunks(), spans["down"].combine_chunks()]),
            "change": pa.concat_arrays([pa.repeat(1, spans.num_rows), pa.repeat(-1, spans.num_rows)]),
        }
    )
    in_order = pc.sort_indices(changes, sort_keys=[("at", "ascending"), ("change", "ascending")])
    return int(pc.max(pc.cumulative_sum(pc.take(changes["change"], in_order))).as_py())


def _errors(bad: pa.Table) -> tuple[ErrorCount, ...]:
    """Return the failures grouped by phase, type and code, the most frequent first."""
    keys = ["error_phase", "error_type", "error_code"]
    grouped = bad.group_by(keys, use_threads=False).aggregate([([], "count_all"), ("error_message", "first")])
    counts = [
        ErrorCount(
            row["error_phase"],
            row["error_type"],
            row["error_code"],
            row["count_all"],
            row["error_message_first"],
        )
        for row in grouped.to_pylist()
    ]
    return tuple(sorted(counts, key=lambda error: -error.count))


def _processes(good: pa.Table) -> int | None:
    """Return how many processes answered; two containers may well number theirs alike."""
    known = good.filter(pc.is_valid(good["pid"]))
    return known.group_by(["pid", "host_url"], use_threads=False).aggregate([([], "count_all")]).num_rows or None


def _lost_workers(table: pa.Table) -> tuple[LostWorker, ...]:
    """Return the server processes all of whose known sessions were cut off without a close handshake."""
    known = table.filter(pc.is_valid(table["pid"]))
    reset = pc.equal(known["error_type"], "connection_reset")
    no_close_frame = pc.and_(pc.equal(known["error_type"], "closed_early"), pc.equal(known["error_code"], "1006"))
    cut = pc.or_(pc.fill_null(reset, False), pc.fill_null(no_close_frame, False))
    grouped = (
        known.append_column("cut", cut)
        .group_by(["pid", "host_url"], use_threads=False)
        .aggregate([("cut", "min"), ([], "count_all")])
    )
    return tuple(
        LostWorker(row["pid"], row["host_url"], row["count_all"])
        for row in grouped.to_pylist()
        if row["cut_min"] and row["count_all"] > 1
    )


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs, nulls left out, by name."""
    present = pa.table({"value": pc.drop_null(values)})
    grouped = present.group_by("value", use_threads=False).aggregate([([], "count_all")])
    return {row["value"]: row["count_all"] for row in grouped.sort_by("value").to_pylist()}


def _distinct(values: pa.ChunkedArray) -> int | None:
    """Return the number of distinct values, None where there are none at all."""
    return pc.count_distinct(values, mode="only_valid").as_py() or None
