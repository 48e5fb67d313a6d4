"""Sessions as Arrow tables, and the sealed Parquet parts a run keeps them in.

One part holds one repetition of one cell. A part is written under a name that begins with a dot and
renamed when it is complete, so that whoever reads the directory sees whole parts only.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.files import replacing
from pytest_openenv_scale.core.serialization import JsonError

from .cell import CellMeta, Int32, SessionRow

META_KEY = b"openenv_scale"
"""Where a part's Parquet schema metadata holds its `CellMeta` as JSON."""

_LABEL = pa.dictionary(pa.int32(), pa.string())


class _CellFacts(NamedTuple):
    cell: Cell
    run_id: str
    repetition: int
    attempt: int
    hardware: str | None


_CELL_COLUMNS: Mapping[str, tuple[pa.DataType, Callable[[_CellFacts], object]]] = {
    "run_id": (_LABEL, lambda facts: facts.run_id),
    "test": (_LABEL, lambda facts: facts.cell.test),
    "target": (_LABEL, lambda facts: facts.cell.target),
    "cell_id": (_LABEL, lambda facts: facts.cell.id),
    "infrastructure": (_LABEL, lambda facts: facts.cell.infrastructure),
    "hardware": (_LABEL, lambda facts: facts.hardware),
    "mode": (_LABEL, lambda facts: facts.cell.mode),
    "batch_size": (pa.int32(), lambda facts: facts.cell.batch),
    "wait_requested": (pa.float64(), lambda facts: facts.cell.wait),
    "steps": (pa.int32(), lambda facts: facts.cell.steps),
    "repetition": (pa.int32(), lambda facts: facts.repetition),
    "attempt": (pa.int32(), lambda facts: facts.attempt),
    "arrival": (_LABEL, lambda facts: facts.cell.arrival),
    "think": (_LABEL, lambda facts: facts.cell.think or None),
}
"""The columns that all rows of a part have in common: type, and value."""

_TYPES: Mapping[Any, pa.DataType] = {
    Int32: pa.int32(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    Sequence[float]: pa.list_(pa.float64()),
}


def _row_columns() -> Iterator[tuple[str, pa.DataType]]:
    """Yield name and type of the columns that `SessionRow` declares."""
    for name, hint in get_type_hints(SessionRow, include_extras=True).items():
        optional = get_origin(hint) in (Union, UnionType)
        kinds = [kind for kind in get_args(hint) if kind is not type(None)] if optional else [hint]
        yield ("timestamp", pa.timestamp("us", "UTC")) if name == "started_at" else (name, _TYPES[kinds[0]])


SCHEMA = pa.schema([*((name, kind) for name, (kind, _) in _CELL_COLUMNS.items()), *_row_columns()])
"""One row per session. Times are seconds, null where there is nothing; `timestamp` is UTC."""


BATCH_ROWS = 2**17
"""Most rows of a large part that are in memory at once; row groups hold a multiple of it."""

_ROW_GROUP = 2**20

_VALUES_BEFORE = {"attempt": 1, "judged": True}
"""What stands in columns that older parts do not have; null in others."""


class PartError(ValueError):
    """A part that cannot be read: one line naming the file and what is wrong with it."""


def rows_to_table(
    rows: Sequence[SessionRow],
    *,
    cell: Cell,
    run_id: str,
    repetition: int,
    attempt: int = 1,
    hardware: str | None = None,
) -> pa.Table:
    """Return the sessions of one repetition of a cell as a table of `SCHEMA`."""
    facts = _CellFacts(cell, run_id, repetition, attempt, hardware)
    arrays = [_constant(value(facts), len(rows), kind) for kind, value in _CELL_COLUMNS.values()]
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(SessionRow._fields)
    for name, (stored, kind), values in zip(SessionRow._fields, _row_columns(), columns, strict=True):
        arrays.append(pa.array([round(at * 1e6) for at in values] if stored != name else values, kind))
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
    attempt = f"-a{meta.attempt}" if meta.attempt > 1 else ""
    path = _free_path(directory, f"{meta.cell.id}-r{meta.repetition}{attempt}")
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


REPEATING_COLUMNS = frozenset({"host_url", "error_phase", "error_type", "error_code", "error_message"})
"""Text columns that hold few different values: read as dictionaries, they need no memory per row."""


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
        return self.read(*(name for name in SCHEMA.names if columns is None or name in columns), dictionaries=())

    def read(self, *columns: str, dictionaries: Collection[str] = REPEATING_COLUMNS) -> pa.Table:
        """Read the rows of some columns at once, texts that repeat as `dictionaries`.

        Raises:
            PartError: the file is damaged.
        """
        with self._open(columns, dictionaries) as file:
            # Parts are many and small: a thread costs more than it saves.
            return _complete(file.read(columns=list(columns), use_threads=False), columns, dictionaries)

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows of some columns, `BATCH_ROWS` at a time, texts that repeat as dictionaries.

        Raises:
            PartError: the file is damaged.
        """
        with self._open(columns, REPEATING_COLUMNS) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield _complete(pa.Table.from_batches([batch]), columns, REPEATING_COLUMNS)

    @contextmanager
    def _open(self, columns: Collection[str], dictionaries: Collection[str]) -> Generator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(
                self.path,
                read_dictionary=[name for name in columns if name in dictionaries],
                page_checksum_verification=True,
                pre_buffer=False,
            ) as file:
                yield file
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise _damage_error(self.path, error) from None


def _complete(table: pa.Table, columns: Sequence[str], dictionaries: Collection[str]) -> pa.Table:
    """Return these columns of a table in this order, with those that parts of older versions do not have."""
    table = table.replace_schema_metadata(None)
    for name in columns:
        if name not in table.column_names:
            kind = _LABEL if name in dictionaries else SCHEMA.field(name).type
            table = table.append_column(name, pa.repeat(pa.scalar(_VALUES_BEFORE.get(name), kind), table.num_rows))
    return table if table.column_names == list(columns) else table.select(list(columns))


def latest_attempts(parts: Iterable[Part]) -> list[Part]:
    """Return, in their order, the parts that count: of each repetition the one that was measured last."""
    parts = list(parts)
    last: dict[tuple[str, str, int], int] = {}
    for meta in (part.meta for part in parts):
        key = meta.sweep_id, meta.cell.id, meta.repetition
        last[key] = max(last.get(key, 0), meta.attempt)
    return [
        part for part in parts if part.meta.attempt == last[part.meta.sweep_id, part.meta.cell.id, part.meta.repetition]
    ]


def read_parts(directory: Path, on_problem: Callable[[str], None] | None = None) -> Iterator[Part]:
    """Yield the sealed parts of a directory by name; files beginning with a dot are unfinished and skipped.

    A damaged part is reported to `on_problem` in one line and left out; without `on_problem` it raises.

    Raises:
        PartError: a part is damaged and there is no `on_problem`.
    """
    for path in sorted(directory.glob("[!.]*.parquet")):
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
