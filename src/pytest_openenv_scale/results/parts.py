"""Sessions as Arrow tables, and the sealed Parquet parts a run keeps them in.

One part holds one repetition of one cell. A part is written under a name that begins with a dot and
renamed when it is complete, so that whoever reads the directory sees whole parts only.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.files import replacing
from pytest_openenv_scale.core.serialization import JsonError

from .cell_meta import CellMeta
from .row import SessionRow

META_KEY = b"openenv_scale"
"""Where a part's Parquet schema metadata holds its `CellMeta` as JSON."""

_LABEL = pa.dictionary(pa.int32(), pa.string())
_SECONDS = pa.float64()

SCHEMA = pa.schema(
    [
        ("run_id", _LABEL),
        ("test", _LABEL),
        ("target", _LABEL),
        ("cell_id", _LABEL),
        ("infrastructure", _LABEL),
        ("hardware", _LABEL),
        ("mode", _LABEL),
        ("batch_size", pa.int32()),
        ("wait_requested", _SECONDS),
        ("steps", pa.int32()),
        ("repetition", pa.int32()),
        ("arrival", _LABEL),
        ("request_id", pa.int64()),
        ("process", pa.int32()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("due_s", _SECONDS),
        ("start_s", _SECONDS),
        ("connected_s", _SECONDS),
        ("reset_done_s", _SECONDS),
        ("closed_s", _SECONDS),
        ("queue_latency", _SECONDS),
        ("connect_latency", _SECONDS),
        ("reset_latency", _SECONDS),
        ("hold_latency", _SECONDS),
        ("step_latency", _SECONDS),
        ("step_latencies", pa.list_(_SECONDS)),
        ("resets", _SECONDS),
        ("total_latency", _SECONDS),
        ("waited_seconds", _SECONDS),
        ("steps_done", pa.int32()),
        ("pid", pa.int64()),
        ("session_hash", pa.string()),
        ("host_url", pa.string()),
        ("success", pa.bool_()),
        ("error_phase", pa.string()),
        ("error_type", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""One row per session. Times are seconds, null where there is nothing; `timestamp` is UTC."""


BATCH_ROWS = 2**17
"""Most rows of a large part that are in memory at once; row groups hold a multiple of it."""

_ROW_GROUP = 2**20


class PartError(ValueError):
    """A part that cannot be read: one line naming the file and what is wrong with it."""


def rows_to_table(
    rows: Sequence[SessionRow], *, cell: Cell, run_id: str, repetition: int, hardware: str | None = None
) -> pa.Table:
    """Return the sessions of one repetition of a cell as a table of `SCHEMA`."""
    constants: dict[str, object] = {
        "run_id": run_id,
        "test": cell.test,
        "target": cell.target,
        "cell_id": cell.id,
        "infrastructure": cell.infrastructure,
        "hardware": hardware,
        "mode": cell.mode,
        "batch_size": cell.batch,
        "wait_requested": cell.wait,
        "steps": cell.steps,
        "repetition": repetition,
        "arrival": cell.arrival,
    }
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(SessionRow._fields)
    measured = dict(zip(SessionRow._fields, columns, strict=True))
    measured["timestamp"] = [round(at * 1e6) for at in measured.pop("started_at")]
    arrays: list[pa.Array] = []
    for name in SCHEMA.names:
        kind = SCHEMA.field(name).type
        if name in measured:
            arrays.append(pa.array(measured[name], kind))
        else:
            arrays.append(_constant(constants[name], len(rows), kind))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _constant(value: object, length: int, kind: pa.DataType) -> pa.Array:
    if kind != _LABEL:
        return pa.array([value] * length, kind)
    indices = pa.array([None if value is None else 0] * length, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array([] if value is None else [value], pa.string()))


def write_part(directory: Path, table: pa.Table, meta: CellMeta) -> Path:
    """Seal one repetition of a cell as a Parquet file and return its path; an earlier part is never replaced.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    table_with_meta = table.replace_schema_metadata({META_KEY: json.dumps(meta.to_json()).encode()})
    path = _free_path(directory, f"{meta.cell.id}-r{meta.repetition}")
    with replacing(path, synced=True) as file:
        pq.write_table(table_with_meta, file, row_group_size=_ROW_GROUP, compression="zstd", write_page_checksum=True)
    _sync_directory(directory)
    return path


def _free_path(directory: Path, stem: str) -> Path:
    """Return the path of a part; a cell measured again in the same run gets the next that is free."""
    names = itertools.chain([f"{stem}.parquet"], (f"{stem}-{number}.parquet" for number in itertools.count(2)))
    return next(path for name in names if not (path := directory / name).exists())


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut, as `fsync` does for a file's content."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Part:
    """One sealed part: where it lies and what it says of itself; its rows are read when asked for."""

    path: Path
    meta: CellMeta
    num_rows: int

    def table(self, columns: Collection[str] | None = None) -> pa.Table:
        """Read the rows, all columns or some.

        Raises:
            PartError: the file is damaged.
        """
        names = None if columns is None else [name for name in SCHEMA.names if name in columns]
        try:
            return pq.read_table(
                self.path, columns=names, partitioning=None, page_checksum_verification=True
            ).replace_schema_metadata(None)
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise _damage_error(self.path, error) from None

    def read(self, *columns: str) -> pa.Table:
        """Read the rows of some columns at once, texts that repeat as dictionaries.

        Raises:
            PartError: the file is damaged.
        """
        with self._open(columns) as file:
            # Parts are many and small: a thread costs more than it saves.
            return file.read(columns=list(columns), use_threads=False).replace_schema_metadata(None)

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows of some columns, `BATCH_ROWS` at a time, texts that repeat as dictionaries.

        Raises:
            PartError: the file is damaged.
        """
        with self._open(columns) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def _open(self, columns: Collection[str]) -> Generator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(
                self.path,
                read_dictionary=[name for name in columns if name in _REPEATING_COLUMNS],
                page_checksum_verification=True,
                pre_buffer=False,
            ) as file:
                yield file
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise _damage_error(self.path, error) from None


_REPEATING_COLUMNS = frozenset({"host_url", "error_phase", "error_type", "error_code", "error_message"})
"""Text columns that hold few different values: read as dictionaries, they need no memory per row."""


def read_parts(directory: Path, on_problem: Callable[[str], None] | None = None) -> Iterator[Part]:
    """Yield the sealed parts of a directory by name; files beginning with a dot are unfinished and skipped.

    A damaged part is reported to `on_problem` in one line and left out; without `on_problem` it raises.

    Raises:
        PartError: a part is damaged and there is no `on_problem`.
    """
    for path in sorted(directory.glob("*.parquet")):
        if path.name.startswith("."):
            continue
        try:
            yield read_part(path)
        except PartError as error:
            if on_problem is None:
                raise
            on_problem(str(error))


def read_part(path: Path) -> Part:
    """Read the description of a part, not its rows.

    Raises:
        PartError: the file is truncated, damaged or was not written by this project.
    """
    try:
        parquet = pq.read_metadata(path)
        metadata = parquet.metadata or {}
        if META_KEY not in metadata:
            raise PartError(f"{path.name}: holds no description of its cell; not a part of a run")
        return Part(path, CellMeta.from_json(json.loads(metadata[META_KEY])), parquet.num_rows)
    except JsonError as error:
        raise PartError(f"{path.name}: its description does not fit ({error})") from None
    except PartError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _damage_error(path, error) from None


def read_table(directory: Path) -> pa.Table:
    """Return the rows of all parts of a directory that can be read, as one table of `SCHEMA`."""
    tables: list[pa.Table] = [SCHEMA.empty_table()]
    for part in read_parts(directory, lambda problem: None):
        try:
            tables.append(part.table())
        except PartError:
            continue
    return pa.concat_tables(tables)


def _damage_error(path: Path, error: Exception) -> PartError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return PartError(f"{path.name}: damaged or truncated ({reason[:160]})")
