"""The rows of one repetition of a cell, as the figures a verdict and a report need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import compress
from operator import not_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import ExitStatus, ProxyFacts, SessionSettings
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.results.cell import NOT_STARTED, AnsweredErrors, CellMeta, ClientFinding, ServerSamples
from pytest_openenv_scale.results.parts import Part

from .concurrency import peak_concurrency
from .errors import (
    ErrorCount,
    JudgedRows,
    LostWorker,
    RepetitionRows,
    RowCounts,
    TableRows,
    count_distinct,
    count_rows,
    count_unjudged,
)
from .percentiles import PhaseStats, column_stats, concatenate, quantile_bounds
from .windows import Window, judged_time, windows_of

__all__ = ["COLUMNS", "PHASES", "CellSummary", "split_attempts", "summarise", "summarise_part", "summarise_rows"]

PHASES = ("queue", "connect", "reset", "hold", "step", "total", "overhead")
"""The phases reports show; `total_unqueued` and `overhead_unqueued` leave out the client's own queue."""


@dataclass(frozen=True, slots=True)
class DoubtfulSessions(Jsonable):
    """Sessions of a repetition that the client left in doubt: a standstill kept their messages back, or it lost them.

    `successful` and `failed` count those that ended so, `lost` those that were not played to their end. `bounds` are,
    by phase and percentile, the least and the most it can be whichever way they had gone, in seconds (None: no bound).
    """

    successful: int
    failed: int
    lost: int
    bounds: Mapping[str, Mapping[str, tuple[float, float | None]]]

    @property
    def count(self) -> int:
        """How many they are."""
        return self.successful + self.failed + self.lost


@dataclass(frozen=True, slots=True)
class CellSummary(Jsonable):
    """One repetition of a cell; seconds, fractions and rates per second, None where unknown.

    Sessions that were `not_started`, as enough others had failed (in a steady state: slots that never began, as time
    was up), and those that are `unjudged`, as they began in a ramp, are in no other figure but `peak_concurrency` and
    `steps`. Those of a steady state that ran on when its time was up count by how they ended, but not in the times of
    `phases`: load was less by then. Left out of success they would leave those that fail at once too large a share.
    `asked` = successful + failed + client_limited. Sessions the client could not start (`client_limited`)
    leave the denominator of `success_rate`. `requests_per_second` is successful ÷ wall, without a ramp,
    `effective_concurrency` Σ waited of successes ÷ the same; in a steady state both are of all sessions that ended well
    in its judged time, whenever they began. `peak_concurrency` is the most sessions at one instant
    whose reset was answered (None where rows do not tell when). `step` counts every single step; the other
    phases count sessions.
    `hosts` (distinct) and `host_counts` are over successful sessions; so are `pids` and `sessions`.
    `busiest_worker` are the successful sessions of the process that answered most.
    `failed_hosts` are where failed sessions had been answered; `proxy` is what a proxy counted. `attempt` counts how
    often the repetition was measured; the last time counts. `ended_pids`, `listens_again` and
    `log_lines` are those of `CellMeta`.
    `doubtful` is None where the client was not at fault, or may have been at fault with all sessions.
    `open_least` is the least number of sessions open at once in the judged time of a steady state, `windows` are what
    happened in it and around it.
    `steps` counts those that were answered in any session, also in one that failed or is not judged.
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
    peak_concurrency: int | None
    pids: int | None = None
    sessions: int | None = None
    hosts: int | None = None
    host_counts: Mapping[str, int] = field(default_factory=dict[str, int])
    errors: tuple[ErrorCount, ...] = ()
    lost_workers: tuple[LostWorker, ...] = ()
    findings: tuple[ClientFinding, ...] = ()
    client: Mapping[str, Any] = field(default_factory=dict[str, Any])
    server: ServerSamples = field(default_factory=ServerSamples)
    server_exit: ExitStatus | None = None
    log_tail: str | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    hardware: str | None = None
    cores: int | None = None
    hosts_available: int | None = None
    notes: tuple[str, ...] = ()
    failed_hosts: Mapping[str, int] = field(default_factory=dict[str, int])
    proxy: ProxyFacts | None = None
    answered_errors: AnsweredErrors | None = None
    busiest_worker: int | None = None
    session_settings: SessionSettings | None = None
    attempt: int = 1
    ended_pids: tuple[int, ...] | None = None
    listens_again: bool = False
    log_lines: int | None = None
    doubtful: DoubtfulSessions | None = None
    not_started: int = 0
    unjudged: int = 0
    open_least: int | None = None
    windows: tuple[Window, ...] = ()
    steps: int = 0

    @property
    def rss_bytes(self) -> int | None:
        """The most memory the server's processes held, in bytes."""
        return self.server.peak and self.server.peak.rss_bytes

    @property
    def cpu_seconds(self) -> float | None:
        """The CPU time the server used while the cell lasted, in seconds; None where that cannot be seen."""
        first, last = self.server.first, self.server.last
        if first is None or last is None or first.cpu_seconds is None or last.cpu_seconds is None:
            return None
        used = last.cpu_seconds - first.cpu_seconds
        return used if used >= 0 else None  # Less than before is another server's.

    @property
    def cpu_per_step(self) -> float | None:
        """All the CPU time of the cell by its steps, in seconds: what the server does at rest is in it."""
        return self.cpu_seconds / self.steps if self.cpu_seconds is not None and self.steps else None

    @property
    def clock_moved_s(self) -> float:
        """By how much the wall clock was set during the cell, in seconds: it stamps what arrives."""
        return float(self.client.get("clock_moved_s") or 0.0)

    @property
    def seen_late(self) -> ClientFinding | None:
        """The finding that HTTP answers were seen late, which is in their latencies; None where they were not."""
        return next((finding for finding in self.findings if finding.kind == "http_lag"), None)

    def lateness(self, phase: str) -> float:
        """Return by how much a latency of a phase may be too long, as HTTP answers were seen late, in seconds.

        Infinite where only that is known, as of runs of version 0.1; 0 in ws mode, where the kernel tells the time.
        """
        whole_session = phase in ("total", "overhead")
        lag = self.client.get("session_lag_max_s" if whole_session else "answer_lag_max_s")
        return float(lag) if lag is not None else math.inf if self.seen_late else 0.0

    @property
    def batch(self) -> int:
        """How many sessions the cell asks for at once."""
        return self.cell.batch

    @property
    def is_steady(self) -> bool:
        """Whether slots played session after session."""
        return parse_arrival(self.cell.arrival).kind == "steady"

    @property
    def begun(self) -> int:
        """How many sessions the client began, or tried to, whether judged or not."""
        return self.asked + self.unjudged

    @property
    def held(self) -> int:
        """The most sessions known to have been open at once."""
        return self.peak_concurrency or 0

    @property
    def hosts_used(self) -> int | None:
        """Number of hosts that sessions ran on: as sessions reported, else as the proxy counted; None if unknown."""
        by_proxy = not self.hosts_known and self.proxy is not None
        return self.proxy.hosts if by_proxy and self.proxy else self.hosts

    @property
    def hosts_known(self) -> bool:
        """Whether every successful session reported the host it ran on."""
        return self.successful > 0 and sum(self.host_counts.values()) == self.successful

    def phase(self, name: str) -> PhaseStats | None:
        """Return the statistics of a phase of `PHASES`, or None where it has no values."""
        return self.phases.get(name)


_OVERHEAD_COLUMNS = ("total_latency", "steps_done", "wait_requested")

COLUMNS = (
    "request_id",
    "due_s",
    "wait_requested",
    "start_s",
    "reset_done_s",
    "closed_s",
    "queue_latency",
    "connect_latency",
    "reset_latency",
    "hold_latency",
    "step_latencies",
    "step_pauses",
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
    "late_s",
    "judged",
)
"""The columns `summarise` reads."""

_ROWS_READ_AT_ONCE = 2**18
"""A part of at most this many rows is read whole, a larger one column by column."""


def summarise(table: pa.Table, meta: CellMeta) -> CellSummary:
    """Reduce the rows of one repetition of a cell to its summary."""
    return summarise_rows(TableRows(table), meta)


def summarise_part(part: Part) -> CellSummary:
    """Reduce the rows of a stored repetition of a cell to its summary.

    Raises:
        PartError: the part is damaged.
    """
    if part.num_rows <= _ROWS_READ_AT_ONCE:
        return summarise(part.read(*COLUMNS), part.meta)
    return summarise_rows(part, part.meta)


def summarise_rows(rows: RepetitionRows, meta: CellMeta) -> CellSummary:
    """Reduce rows to their summary, reading a column or two at a time, so that any number of them fits into memory."""
    all_rows, judged_rows, rows = rows, JudgedRows(rows), counted_rows(rows, meta)
    counts, (not_started, unjudged) = count_rows(rows), count_unjudged(all_rows)
    unjudged -= counts.good + counts.bad - _count(judged_rows)
    failed = counts.bad - counts.limited
    peak = peak_concurrency(lambda: all_rows.batches("reset_done_s", "closed_s"))
    asked = max(_least_sessions(meta) - not_started - unjudged, counts.good + counts.bad)
    judged = counts.good + failed
    requests_per_second, effective_concurrency = _rates(all_rows, meta)
    windows, steady = windows_of(all_rows, meta), parse_arrival(meta.cell.arrival).kind == "steady"
    least = [window.open_least for window in windows if window.judged and window.open_least is not None]
    return CellSummary(
        run_id=meta.run_id,
        sweep_id=meta.sweep_id,
        cell=meta.cell,
        repetition=meta.repetition,
        asked=asked,
        successful=counts.good,
        failed=failed,
        client_limited=asked - judged,
        success_rate=counts.good / judged if judged else None,
        wall_s=meta.wall_s,
        started_at=meta.started_at,
        phases=_phases(judged_rows),
        requests_per_second=requests_per_second,
        effective_concurrency=effective_concurrency,
        peak_concurrency=peak if peak or not counts.good else None,
        pids=counts.pids or None,
        sessions=count_distinct(
            lambda: (_successful_values(batch, "session_hash") for batch in rows.batches("success", "session_hash"))
        ),
        hosts=len(counts.hosts) or None,
        host_counts=counts.hosts,
        errors=counts.errors,
        lost_workers=counts.lost_workers,
        findings=meta.findings,
        client=meta.client,
        server=meta.server,
        server_exit=meta.ending,
        log_tail=meta.log_tail,
        limits=meta.limits,
        hardware=meta.hardware,
        cores=meta.cores,
        hosts_available=meta.hosts,
        notes=meta.notes,
        failed_hosts=counts.failed_hosts,
        proxy=meta.proxy,
        answered_errors=meta.answered_errors,
        ended_pids=meta.ended_pids,
        listens_again=meta.listens_again,
        log_lines=meta.log_lines,
        busiest_worker=counts.busiest or None,
        session_settings=meta.session_settings,
        attempt=meta.attempt,
        doubtful=_doubtful_sessions(rows, judged_rows, counts, meta),
        not_started=not_started,
        unjudged=unjudged,
        open_least=min(least, default=None) if steady else None,
        windows=windows,
        steps=sum(pc.sum(batch["steps_done"]).as_py() or 0 for batch in all_rows.batches("steps_done")),
    )


def _least_sessions(meta: CellMeta) -> int:
    """Return how many rows a repetition has at least, where the client lost none.

    Of a steady state nobody knows, and of one that was cut off neither.
    """
    return 0 if meta.cut_off or parse_arrival(meta.cell.arrival).kind == "steady" else meta.cell.batch


_OF_SOME_SESSIONS = frozenset({"loop_lag", "process_died"})
"""Findings that leave in doubt how some of the sessions would have gone, and tell which."""


def _doubtful_sessions(
    rows: RepetitionRows, judged_rows: RepetitionRows, counts: RowCounts, meta: CellMeta
) -> DoubtfulSessions | None:
    kinds = {finding.kind for finding in meta.findings} - {"http_lag"}
    if "process_died" in kinds and parse_arrival(meta.cell.arrival).kind == "steady":
        return None  # Its slots would have played nobody knows how many sessions more.
    if not kinds or kinds - _OF_SOME_SESSIONS or ("loop_lag" in kinds and meta.client.get("late_sessions") is None):
        return None
    certain_counts, certain = count_rows(_CertainRows(rows)), _CertainRows(judged_rows)
    successful = counts.good - certain_counts.good
    failed = counts.bad - counts.limited - certain_counts.bad
    count = successful + failed + counts.limited
    return DoubtfulSessions(
        successful=successful,
        failed=failed,
        lost=counts.limited,
        bounds={
            name: quantile_bounds(
                pa.chunked_array([chunk for piece in values for chunk in piece.chunks], pa.float64()),
                count * (meta.cell.steps if name == "step" else 1),
            )
            for name, (columns, compute) in _PHASE_SOURCES.items()
            if (values := list(_phase_values(certain, columns, compute)))
        },
    )


def counted_rows(rows: RepetitionRows, meta: CellMeta) -> RepetitionRows:
    """Return the rows whose sessions count for success; the latencies of those that are judged count as well."""
    arrival = parse_arrival(meta.cell.arrival)
    return _BegunRows(rows, arrival.ramp) if arrival.kind == "steady" else JudgedRows(rows)


def _count(rows: RepetitionRows) -> int:
    return sum(batch.num_rows for batch in rows.batches("success"))


@dataclass(frozen=True, slots=True)
class _BegunRows:
    """The rows of a steady state whose sessions began, and were due after its ramp."""

    rows: RepetitionRows
    ramp_s: float

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        for batch in self.rows.batches(*dict.fromkeys((*columns, "due_s", "error_type", "judged"))):
            begun = pc.fill_null(pc.not_equal(batch["error_type"], NOT_STARTED), True)
            ran_on = pc.and_(begun, pc.greater_equal(batch["due_s"], self.ramp_s))
            yield batch.filter(pc.or_(batch["judged"], ran_on)).select(list(columns))


@dataclass(frozen=True, slots=True)
class _CertainRows:
    """The rows of a repetition without those that the client left in doubt."""

    rows: RepetitionRows

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        for batch in self.rows.batches(*dict.fromkeys((*columns, "late_s", "error_type"))):
            lost = pc.fill_null(pc.equal(batch["error_type"], "client_limit"), False)
            doubtful = pc.or_(pc.is_valid(batch["late_s"]), lost)
            yield batch.filter(pc.invert(doubtful)).select(list(columns))


def split_attempts(summaries: Iterable[CellSummary]) -> tuple[tuple[CellSummary, ...], tuple[CellSummary, ...]]:
    """Return, by batch and repetition, the summaries that count, and those set aside as they were measured again."""
    ordered = sorted(summaries, key=lambda summary: (summary.batch, summary.repetition, summary.attempt))
    last = {(summary.batch, summary.repetition): summary.attempt for summary in ordered}
    counted = [summary.attempt == last[summary.batch, summary.repetition] for summary in ordered]
    return tuple(compress(ordered, counted)), tuple(compress(ordered, map(not_, counted)))


_PHASE_SOURCES: Mapping[str, tuple[tuple[str, ...], Callable[[pa.Table], pa.ChunkedArray]]] = {
    "queue": (("queue_latency",), lambda good: good["queue_latency"]),
    "connect": (("connect_latency",), lambda good: good["connect_latency"]),
    "reset": (("reset_latency",), lambda good: good["reset_latency"]),
    "hold": (("hold_latency",), lambda good: good["hold_latency"]),
    "step": (("step_latencies",), lambda good: pc.list_flatten(good["step_latencies"])),
    "total": (("total_latency",), lambda good: good["total_latency"]),
    "overhead": (_OVERHEAD_COLUMNS, lambda good: _overhead(good)),
    "total_unqueued": (
        ("total_latency", "queue_latency"),
        lambda good: pc.subtract(good["total_latency"], good["queue_latency"]),
    ),
    "overhead_unqueued": (
        (*_OVERHEAD_COLUMNS, "queue_latency"),
        lambda good: pc.max_element_wise(
            pc.subtract(_overhead(good), good["queue_latency"]), pa.scalar(0.0), skip_nulls=False
        ),
    ),
}
"""The columns each phase is computed from, and how."""


def _overhead(good: pa.Table) -> pa.ChunkedArray:
    """Return total − steps done × wait, and 0 where the environment waited less than it was asked to."""
    overhead = pc.subtract(good["total_latency"], pc.multiply(good["steps_done"], good["wait_requested"]))
    return pc.max_element_wise(overhead, pa.scalar(0.0), skip_nulls=False)


def _phases(rows: RepetitionRows) -> dict[str, PhaseStats]:
    """Return the statistics of every phase that has values."""
    stats_by_phase = {
        name: column_stats(partial(_phase_values, rows, columns, compute))
        for name, (columns, compute) in _PHASE_SOURCES.items()
    }
    return {name: stats for name, stats in stats_by_phase.items() if stats is not None}


def _phase_values(
    rows: RepetitionRows, columns: Sequence[str], compute: Callable[[pa.Table], pa.ChunkedArray]
) -> Iterator[pa.ChunkedArray]:
    """Yield what `compute` makes of the successful rows, nulls left out."""
    for batch in rows.batches("success", *columns):
        good = batch.filter(batch["success"])
        yield pc.drop_null(compute(good))


def _successful_values(batch: pa.Table, column: str) -> pa.ChunkedArray:
    return pc.drop_null(batch[column].filter(batch["success"]))


def _rates(rows: RepetitionRows, meta: CellMeta) -> tuple[float | None, float | None]:
    """Return sessions that ended well, and seconds they waited, each per second; None where there is nothing to add."""
    arrival, time = parse_arrival(meta.cell.arrival), judged_time(meta)
    counted, seconds = JudgedRows(rows), meta.wall_s - arrival.ramp
    if arrival.kind == "steady" and time is not None:
        counted, seconds = _EndedRows(rows, *time), time[1] - time[0]
    successful, waited = 0, list[pa.ChunkedArray]()
    for batch in counted.batches("success", "waited_seconds"):
        successful += pc.sum(batch["success"]).as_py() or 0
        waited.append(_successful_values(batch, "waited_seconds"))
    if seconds <= 0:
        return None, None
    total = pc.sum(concatenate(waited)).as_py()
    return successful / seconds, None if total is None else total / seconds


@dataclass(frozen=True, slots=True)
class _EndedRows:
    """The rows of sessions that ended from one moment until another, in seconds from the start of the cell."""

    rows: RepetitionRows
    start_s: float
    end_s: float

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        for batch in self.rows.batches(*dict.fromkeys((*columns, "closed_s"))):
            ended = batch["closed_s"]
            inside = pc.and_(pc.greater_equal(ended, self.start_s), pc.less(ended, self.end_s))
            yield batch.filter(inside).select(list(columns))
