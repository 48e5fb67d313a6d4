"""What the older files hold: their columns, each line checked, and their sessions as rows and repetitions of cells."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from pytest_openenv_scale.core.errors import ScaleError
from pytest_openenv_scale.core.text import redact_text
from pytest_openenv_scale.results.cell import SessionRow

RAW, SUMMARY = "raw.jsonl", "summary.csv"

SUMMARY_COLUMNS = (
    "mode",
    "url",
    "num_requests",
    "batch_size",
    "wait_seconds",
    "repetition",
    "timestamp",
    "hardware",
    "successful",
    "failed",
    "error_rate",
    "total_wall_time",
    *(f"{phase}_{statistic}" for phase in ("connect", "reset", "step") for statistic in ("p50", "p95", "p99")),
    *(f"total_{statistic}" for statistic in ("min", "max", "avg", "p50", "p90", "p95", "p99")),
    "requests_per_second",
    "effective_concurrency",
    "unique_pids",
    "unique_sessions",
    "unique_hosts",
)
"""The columns of `summary.csv`, in order. Seconds; `error_rate` is a share of 1."""

_MOST_COUNT = 2**31 - 1
_MOST_ID = 2**63 - 1
_MOST_SECONDS = 1e9
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_MOST_SECONDS)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=_MOST_ID)]

_REQUIRED_COLUMNS = ("mode", "num_requests", "wait_seconds", "repetition", "total_wall_time")


_COMPRESSED = (b"\x1f\x8b", b"BZh", b"PK\x03\x04", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, zip, xz and zstd files begin."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LegacyError(ScaleError, ValueError):
    """A file that cannot be used: one line naming the file and line, what is wrong, and what to do."""


class RawRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `raw.jsonl`: one session. Seconds; 0.0, not null, where a phase was not reached."""

    request_id: _Id
    mode: Literal["ws", "http"]
    timestamp: str
    wait_requested: _Seconds | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=_MOST_COUNT)] | None = None
    hardware: str | None = None
    connect_latency: _Seconds | None = None
    reset_latency: _Seconds | None = None
    step_latency: _Seconds | None = None
    total_latency: _Seconds | None = None
    waited_seconds: _Seconds | None = None
    pid: _Id | None = None
    session_hash: str | None = None
    host_url: str | None = None
    success: bool
    error_type: str | None = None
    error_message: str | None = None

    @property
    def moment(self) -> datetime:
        """The moment of the session, UTC; the files write it without an offset or with Z.

        Raises:
            ValueError: it is no moment, or none of a measurement.
        """
        moment = parse_time(self.timestamp)
        if not _EARLIEST <= moment <= _LATEST:
            raise ValueError(f"no moment of a measurement: {self.timestamp!r}")
        return moment


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One line of `summary.csv`: one repetition of a cell. `texts` are its columns as they stand there."""

    line: int
    mode: str
    sessions: int
    batch: int
    wait: float | None
    repetition: str
    wall_s: float
    texts: Mapping[str, str]

    @property
    def key(self) -> tuple[str, float | None, int]:
        """What names its cell in a file: mode, wait and batch."""
        return self.mode, self.wait, self.batch


def parse_time(text: str) -> datetime:
    """Read a moment of the older files as UTC.

    Raises:
        ValueError: it is no moment.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else datetime.fromisoformat(f"{text}Z")


def read_raw(path: Path, on_note: list[str]) -> Iterator[RawRow]:
    """Yield the sessions of a `raw.jsonl`, in order; a last line cut short by a kill is noted and left out.

    Raises:
        LegacyError: the file cannot be read, or a line holds no session.
    """
    decoder = msgspec.json.Decoder(RawRow)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                line = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                try:
                    row = decoder.decode(line)
                    _ = row.moment
                except (msgspec.DecodeError, ValueError, UnicodeDecodeError) as error:
                    where = f"{path}:{number}"
                    if line.startswith(_COMPRESSED):
                        raise LegacyError(f"{path} is compressed; unpack it first, for example with gunzip") from None
                    if not line.endswith(b"\n") and not isinstance(error, msgspec.ValidationError):
                        on_note.append(f"{where}: the last line was cut short and is left out")
                        return
                    raise LegacyError(f"{where}: no session of the older format: {_first_line(error)}") from None
                yield row
    except OSError as error:
        raise LegacyError(f"{path} cannot be read: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def read_summary(path: Path) -> list[SummaryRow]:
    """Read a `summary.csv`.

    Raises:
        LegacyError: the file cannot be read, lacks a column, or a line holds something else than it should.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise LegacyError(f"{path}: no summary of the older format: it has no column {', '.join(missing)}")
            return [_summary_row(path, reader.line_num, texts) for texts in reader]
    except OSError as error:
        raise LegacyError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LegacyError(f"{path}: no summary of the older format: {_first_line(error)}") from None


def _summary_row(path: Path, line: int, texts: Mapping[str | None, str | list[str] | None]) -> SummaryRow:
    where = f"{path}:{line}"
    if None in texts:
        raise LegacyError(f"{where}: it has more values than the heading has columns")
    # A password in a URL goes no further: runs are passed on.
    columns = {str(name): redact_text(value) for name, value in texts.items() if isinstance(value, str)}
    short = [str(name) for name, value in texts.items() if value is None]
    if short:
        raise LegacyError(f"{where}: it ends before {short[0]}")
    if columns["mode"] not in ("ws", "http"):
        raise LegacyError(f"{where}: mode must be ws or http, got {columns['mode']!r}")
    sessions = int(_number(where, columns, "num_requests"))
    return SummaryRow(
        line,
        columns["mode"],
        sessions,
        int(_number(where, columns, "batch_size")) if columns.get("batch_size") else sessions,
        _number(where, columns, "wait_seconds") if columns["wait_seconds"] else None,
        columns["repetition"],
        _number(where, columns, "total_wall_time"),
        columns,
    )


def _number(where: str, texts: Mapping[str, str], name: str) -> float:
    try:
        value = float(texts[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise LegacyError(f"{where}: {name} must be a number, got {texts[name]!r}")
    return value


_ERROR_TYPES = (
    "refused",
    "connection_reset",
    "timeout",
    "handshake_status",
    "capacity",
    "environment",
    "protocol",
    "closed_early",
    "client_limit",
)
_TYPES_BY_EXCEPTION: Mapping[str, str] = {
    "ConnectionRefusedError": "refused",
    "ConnectionResetError": "connection_reset",
    "BrokenPipeError": "connection_reset",
    "TimeoutError": "timeout",
    "ConnectTimeout": "timeout",
    "ReadTimeout": "timeout",
    "WriteTimeout": "timeout",
    "PoolTimeout": "timeout",
    "InvalidStatus": "handshake_status",
    "InvalidStatusCode": "handshake_status",
    "ConnectionClosed": "closed_early",
    "ConnectionClosedOK": "closed_early",
    "ConnectionClosedError": "closed_early",
    "RemoteProtocolError": "closed_early",
    "JSONDecodeError": "protocol",
    "KeyError": "protocol",
    "InvalidMessage": "protocol",
}
_TYPES_BY_MESSAGE = (
    ("CAPACITY_REACHED", "capacity"),
    ("Too many open files", "client_limit"),
    ("Cannot assign requested address", "client_limit"),
    ("EXECUTION_ERROR", "environment"),
)


def error_type_of(name: str, message: str | None) -> str | None:
    """Return the `error_type` of a failure whose exception had this name; None where neither tells."""
    for pattern, kind in _TYPES_BY_MESSAGE:
        if pattern == name or pattern in (message or ""):
            return kind
    return name if name in _ERROR_TYPES else _TYPES_BY_EXCEPTION.get(name.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class Block:
    """The sessions of one repetition of a cell, in the order of the file."""

    rows: tuple[RawRow, ...]

    @property
    def batch(self) -> int:
        """How many sessions were asked for."""
        return self.rows[0].batch_size or len(self.rows)

    @property
    def key(self) -> tuple[str, float | None, int]:
        """What names its cell in a file: mode, wait and batch."""
        return self.rows[0].mode, self.rows[0].wait_requested, self.batch

    @property
    def started_at(self) -> datetime:
        """The earliest moment of its sessions, UTC."""
        return min(row.moment for row in self.rows)


def split_blocks(rows: Iterable[RawRow]) -> Iterator[Block]:
    """Cut a file into repetitions: a new one starts with another cell, or where a request id comes again."""
    block_rows: list[RawRow] = []
    request_ids: set[int] = set()
    for row in rows:
        if block_rows and (row.request_id in request_ids or _cell_of(row) != _cell_of(block_rows[0])):
            yield Block(tuple(block_rows))
            block_rows, request_ids = [], set()
        block_rows.append(row)
        request_ids.add(row.request_id)
    if block_rows:
        yield Block(tuple(block_rows))


def _cell_of(row: RawRow) -> tuple[object, ...]:
    return row.mode, row.wait_requested, row.batch_size, row.hardware


class SummaryMatcher:
    """Gives each block its line of the summary: the n-th of a cell belongs to the n-th line of that cell."""

    def __init__(self, lines: Sequence[SummaryRow]) -> None:
        self._unmatched = list(lines)
        self._runs: dict[int, int] = {}
        repetition_keys: set[tuple[object, ...]] = set()
        run = 0
        for line in lines:
            key = (*line.key, line.texts.get("hardware"), line.repetition)
            if key in repetition_keys:
                run += 1
                repetition_keys.clear()
            repetition_keys.add(key)
            self._runs[line.line] = run
        self._current = 0

    def take_line(self, block: Block) -> SummaryRow | None:
        """Return and use up the first unmatched line of the block's cell; None where there is none."""
        for line in self._unmatched:
            hardware = line.texts.get("hardware"), block.rows[0].hardware
            if line.key == block.key and (not all(hardware) or hardware[0] == hardware[1]):
                self._unmatched.remove(line)
                return line
        return None

    def run_number(self, line: SummaryRow | None) -> int:
        """Return the number of the run a line belongs to: a new one starts where a repetition comes again."""
        if line is not None:
            self._current = self._runs[line.line]
        return self._current

    @property
    def unmatched(self) -> list[SummaryRow]:
        """The lines no block belongs to."""
        return self._unmatched


def summary_differences(block: Block, line: SummaryRow | None) -> tuple[str, ...]:
    """Return notes on where the sessions and their summary line disagree; the sessions are what counts."""
    if line is None:
        return ()
    good = sum(row.success for row in block.rows)
    counted = line.texts.get("successful", "")
    problems: list[str] = []
    if line.sessions != len(block.rows):
        problems.append(f"{SUMMARY} speaks of {line.sessions} sessions, {RAW} has {len(block.rows)}")
    if counted and counted != str(good):
        problems.append(f"{SUMMARY} counts {counted} successful sessions, {RAW} has {good}")
    return tuple(problems)


def session_row(row: RawRow) -> SessionRow:
    """Return a session as a row; 0.0 in a phase that a failed session did not reach becomes null."""

    def reached(value: float | None) -> float | None:
        return value if row.success or value else None

    connect = None if row.mode == "http" and not row.connect_latency else reached(row.connect_latency)
    phase, kind = (None, None) if row.success else _failed_phase(row)
    return SessionRow(
        request_id=row.request_id,
        process=0,
        started_at=row.moment.timestamp(),
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


def _failed_phase(row: RawRow) -> tuple[str, str | None]:
    """Return the phase after the last one that has a time, and the kind of the failure."""
    phases = (("connect", row.connect_latency), ("reset", row.reset_latency), ("step", row.step_latency))
    if row.mode == "http":
        phases = phases[1:]
    phase = next((name for name, value in phases if not value), "close")
    return phase, error_type_of(row.error_type or "", row.error_message)
