"""The rows of one repetition of a cell, batch by batch, and how many of its sessions came out how."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pytest_openenv_scale.core.serialization import Jsonable
from pytest_openenv_scale.results.cell import NOT_STARTED
from pytest_openenv_scale.results.outcome import ErrorCount

from .percentiles import hold_pieces, value_counts

MAX_LISTED = 1_000
"""Most kinds of failures, and most lost workers, listed of a cell; servers can make up any number."""

MAX_TEXTS_HELD = 2**22
"""Most texts that are compared in memory at once."""

OTHERS = "others"
"""The code under which kinds of failures beyond `MAX_LISTED` are counted, by phase and type."""


@dataclass(frozen=True, slots=True)
class LostWorker(Jsonable):
    """A server process of which all sessions that were left, two at least, ended without a close handshake."""

    pid: int
    host: str | None
    sessions: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What is counted of the rows of a cell; `limited` are among the `bad`. Hosts are by name.

    `busiest` are the successful sessions of the process that had most of them, 0 where no process is known.
    """

    good: int
    bad: int
    limited: int
    pids: int
    busiest: int
    hosts: Mapping[str, int]
    failed_hosts: Mapping[str, int]
    errors: tuple[ErrorCount, ...]
    lost_workers: tuple[LostWorker, ...]


def count_rows(rows: RepetitionRows) -> RowCounts:
    """Count the rows of one repetition of a cell."""
    failures = _ErrorCounts()
    workers = _WorkerCounts()
    of_errors = ("error_phase", "error_type", "error_code", "error_message")
    for batch in rows.batches("success", *of_errors, "pid", "host_url", "closed_s"):
        failures.add(batch)
        workers.add(batch)
    errors = failures.errors()
    limited = sum(error.count for error in errors if error.type == "client_limit")
    return RowCounts(
        good=failures.good,
        bad=failures.bad,
        limited=limited,
        pids=workers.pids,
        busiest=workers.busiest,
        hosts=_sorted(workers.hosts[True]),
        failed_hosts=_sorted(workers.hosts[False]),
        errors=errors,
        lost_workers=workers.lost(),
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


class _ErrorCounts:
    """Failures by phase, type and code, each with its first message."""

    def __init__(self) -> None:
        self.good = self.bad = 0
        self._counts: dict[tuple[str | None, str | None, str | None], tuple[int, str | None]] = {}

    def add(self, batch: pa.Table) -> None:
        bad = batch.filter(pc.invert(batch["success"]))
        self.bad += bad.num_rows
        self.good += batch.num_rows - bad.num_rows
        keys = ["error_phase", "error_type", "error_code"]
        grouped = (
            _without_dictionaries(bad)
            .group_by(keys, use_threads=False)
            .aggregate([([], "count_all"), ("error_message", "first")])
        )
        for row in grouped.to_pylist():
            phase, kind, code = (row[key] for key in keys)
            if (phase, kind, code) not in self._counts and len(self._counts) >= MAX_LISTED:
                code = OTHERS
            count, message = self._counts.get((phase, kind, code), (0, None))
            first = row["error_message_first"] if message is None else message
            self._counts[phase, kind, code] = count + row["count_all"], first

    def errors(self) -> tuple[ErrorCount, ...]:
        """Return the failures, the most frequent first."""
        counts = [ErrorCount(*key, count, message) for key, (count, message) in self._counts.items()]
        return tuple(sorted(counts, key=lambda error: -error.count))


@dataclass(slots=True)
class _Worker:
    """How many sessions of a process were cut off, the first at `first_cut_s`, and when the last of the others ended.

    Seconds from the start of the cell; infinity where nothing tells when others ended.
    """

    cut_off: int = 0
    first_cut_s: float = math.inf
    last_other_s: float = -math.inf


class _WorkerCounts:
    """Sessions by the process that answered them; two containers may well number theirs alike."""

    def __init__(self) -> None:
        self.hosts: dict[bool, dict[str, int]] = {True: {}, False: {}}
        self._good = Counter[tuple[int, str | None]]()
        self._workers: dict[tuple[int, str | None], _Worker] = {}

    def add(self, batch: pa.Table) -> None:
        reset = pc.equal(batch["error_type"], "connection_reset")
        no_close_frame = pc.and_(pc.equal(batch["error_type"], "closed_early"), pc.equal(batch["error_code"], "1006"))
        cut_off = pc.or_(pc.fill_null(reset, False), pc.fill_null(no_close_frame, False))
        ended = pc.fill_null(batch["closed_s"], math.inf)
        grouped = (
            _without_dictionaries(batch.select(["success", "pid", "host_url"]))
            .append_column("cut", cut_off)
            .append_column("ended", ended)
            .group_by(["success", "pid", "host_url", "cut"], use_threads=False)
            .aggregate([("ended", "min"), ("ended", "max"), ([], "count_all")])
        )
        for row in grouped.to_pylist():
            success, pid, host, sessions = row["success"], row["pid"], row["host_url"], row["count_all"]
            if host is not None:
                self.hosts[success][host] = self.hosts[success].get(host, 0) + sessions
            if pid is None:
                continue
            if success:
                self._good[pid, host] += sessions
            worker = self._workers.setdefault((pid, host), _Worker())
            if row["cut"]:
                worker.cut_off += sessions
                worker.first_cut_s = min(worker.first_cut_s, row["ended_min"])
            else:
                worker.last_other_s = max(worker.last_other_s, row["ended_max"])

    @property
    def pids(self) -> int:
        """How many processes answered successful sessions."""
        return len(self._good)

    @property
    def busiest(self) -> int:
        """The most successful sessions that one process answered."""
        return max(self._good.values(), default=0)

    def lost(self) -> tuple[LostWorker, ...]:
        """Return the processes all of whose known sessions were cut off that had not ended before."""
        lost_workers = (
            LostWorker(pid, host, worker.cut_off)
            for (pid, host), worker in self._workers.items()
            if worker.cut_off > 1 and worker.last_other_s <= worker.first_cut_s
        )
        return tuple(worker for worker, _ in zip(lost_workers, range(MAX_LISTED), strict=False))


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries, which cannot be grouped by."""
    return pa.table(
        {name: _as_strings(table[name]) if name in _TEXT_COLUMNS else table[name] for name in table.column_names}
    )


_TEXT_COLUMNS = frozenset({"host_url", "error_phase", "error_type", "error_code", "error_message"})


def _as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string())


Texts = Callable[[], Iterator[pa.ChunkedArray]]
"""A column of texts without nulls, piece by piece, from its start each time it is called."""


def count_distinct(texts: Texts, *, max_held: int = MAX_TEXTS_HELD) -> int | None:
    """Return the number of distinct texts; None where there are none at all.

    Many texts are compared in groups, by their last character, as a set of all would not fit into memory.
    """
    pieces = hold_pieces(texts(), len, max_held)
    if pieces is not None:
        return _count_distinct(pieces) or None
    return sum(_count_distinct(_with_ending(texts, endings)) for endings in _ending_groups(texts, max_held))


def _count_distinct(pieces: Iterable[pa.ChunkedArray]) -> int:
    return pc.count_distinct(
        pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pa.string())
    ).as_py()


def _ending_groups(texts: Texts, max_held: int) -> Iterator[pa.Array]:
    """Yield last characters, so many together that few more than `max_held` texts end in one of them."""
    counts = Counter[str]()
    for piece in texts():
        counts.update(value_counts(_last_characters(piece)))
    endings: list[str] = []
    size = 0
    for ending, count in counts.items():
        if endings and size + count > max_held:
            yield pa.array(endings, pa.string())
            endings, size = [], 0
        endings.append(ending)
        size += count
    yield pa.array(endings, pa.string())


def _with_ending(texts: Texts, endings: pa.Array) -> Iterator[pa.ChunkedArray]:
    for piece in texts():
        yield piece.filter(pc.is_in(_last_characters(piece), endings))


def _last_characters(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(texts, -1)


class RepetitionRows(Protocol):
    """The rows of one repetition of a cell, of a table or of a part on disk; may be read again and again."""

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield some columns, a limited number of rows at a time."""
        ...


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of a table in memory."""

    table: pa.Table

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield some columns at once: they are in memory anyway."""
        yield self.table.select(list(columns)).combine_chunks()


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """The rows of a repetition that its figures count."""

    rows: RepetitionRows

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield some columns of the sessions that are judged."""
        for batch in self.rows.batches(*dict.fromkeys((*columns, "judged"))):
            yield batch.filter(batch["judged"]).select(list(columns))


def count_unjudged(rows: RepetitionRows) -> tuple[int, int]:
    """Return how many sessions never began, and how many others no figure counts."""
    not_started = unjudged = 0
    for batch in rows.batches("judged", "error_type"):
        left_out = batch.filter(pc.invert(batch["judged"]))
        never_began = pc.sum(pc.equal(left_out["error_type"], NOT_STARTED)).as_py() or 0
        not_started += never_began
        unjudged += left_out.num_rows - never_began
    return not_started, unjudged
