"""What the older files hold: their columns, one line of each read and checked, and the error names they use."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from pytest_openenv_scale.core.redact import redact_text

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

_MOST = 2**31 - 1
_MOST_ID = 2**63 - 1
_MOST_SECONDS = 1e9
_EARLIEST, _LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_MOST_SECONDS)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=_MOST_ID)]

_NEEDED = ("mode", "num_requests", "wait_seconds", "repetition", "total_wall_time")


_COMPRESSED = (b"\x1f\x8b", b"BZh", b"PK\x03\x04", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, zip, xz and zstd files begin."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LegacyError(ValueError):
    """A file that cannot be used: one line naming the file and line, what is wrong, and what to do."""


class RawRow(msgspec.Struct, frozen=True):
    """One line of `raw.jsonl`: one session. Seconds; 0.0, not null, where a phase was not reached."""

    request_id: _Id
    mode: Literal["ws", "http"]
    timestamp: str
    success: bool
    wait_requested: _Seconds | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] | None = None
    hardware: str | None = None
    connect_latency: _Seconds | None = None
    reset_latency: _Seconds | None = None
    step_latency: _Seconds | None = None
    total_latency: _Seconds | None = None
    waited_seconds: _Seconds | None = None
    pid: _Id | None = None
    session_hash: str | None = None
    host_url: str | None = None
    error_type: str | None = None
    error_message: str | None = None

    @property
    def at(self) -> datetime:
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
                    _ = row.at
                except (msgspec.DecodeError, ValueError, UnicodeDecodeError) as error:
                    where = f"{path}:{number}"
                    if line.startswith(_COMPRESSED):
                        raise LegacyError(f"{path} is compressed; unpack it first, for example with gunzip") from None
                    if not line.endswith(b"\n") and not isinstance(error, msgspec.ValidationError):
                        on_note.append(f"{where}: the last line was cut short and is left out")
                        return
                    raise LegacyError(f"{where}: no session of the older format: {_said(error)}") from None
                yield row
    except OSError as error:
        raise LegacyError(f"{path} cannot be read: {error.strerror}") from None


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0]


def read_summary(path: Path) -> list[SummaryRow]:
    """Read a `summary.csv`.

    Raises:
        LegacyError: the file cannot be read, lacks a column, or a line holds something else than it should.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise LegacyError(f"{path}: no summary of the older format: it has no column {', '.join(missing)}")
            return [_summary_row(path, reader.line_num, texts) for texts in reader]
    except OSError as error:
        raise LegacyError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LegacyError(f"{path}: no summary of the older format: {_said(error)}") from None


def _summary_row(path: Path, line: int, texts: Mapping[str | None, str | list[str] | None]) -> SummaryRow:
    where = f"{path}:{line}"
    if None in texts:
        raise LegacyError(f"{where}: it has more values than the heading has columns")
    # A password in a URL goes no further: runs are passed on.
    found = {str(name): redact_text(value) for name, value in texts.items() if isinstance(value, str)}
    short = [str(name) for name, value in texts.items() if value is None]
    if short:
        raise LegacyError(f"{where}: it ends before {short[0]}")
    if found["mode"] not in ("ws", "http"):
        raise LegacyError(f"{where}: mode must be ws or http, got {found['mode']!r}")
    sessions = int(_number(where, found, "num_requests"))
    return SummaryRow(
        line,
        found["mode"],
        sessions,
        int(_number(where, found, "batch_size")) if found.get("batch_size") else sessions,
        _number(where, found, "wait_seconds") if found["wait_seconds"] else None,
        found["repetition"],
        _number(where, found, "total_wall_time"),
        found,
    )


def _number(where: str, texts: Mapping[str, str], name: str) -> float:
    try:
        value = float(texts[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise LegacyError(f"{where}: {name} must be a number, got {texts[name]!r}")
    return value


_OWN_TYPES = (
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
_CLASSES: Mapping[str, str] = {
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
_MESSAGES = (
    ("CAPACITY_REACHED", "capacity"),
    ("Too many open files", "client_limit"),
    ("Cannot assign requested address", "client_limit"),
    ("EXECUTION_ERROR", "environment"),
)


def kind_of(name: str, message: str | None) -> str | None:
    """Return the `error_type` of a failure whose exception had this name; None where it does not tell."""
    for sign, kind in _MESSAGES:
        if sign == name or sign in (message or ""):
            return kind
    return name if name in _OWN_TYPES else _CLASSES.get(name.rpartition(".")[2])
