"""Sessions as Arrow tables, and the sealed Parquet parts a run keeps them in, one per repetition of a cell.

How a part comes to be is in `spool`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pytest_openenv_scale.core.serialization import JsonError

from .cell import CellMeta, Int32, SessionRow

META_KEY = b"openenv_scale"
"""Where a part's Parquet schema metadata holds its `CellMeta` as JSON."""

_LABEL = pa.dictionary(pa.int32(), pa.string())


_CELL_COLUMNS: Mapping[str, tuple[pa.DataType, Callable[[CellMeta], object]]] = {
    "run_id": (_LABEL, lambda meta: meta.run_id),
    "test": (_LABEL, lambda meta: meta.cell.test),
    "target": (_LABEL, lambda meta: meta.cell.target),
    "cell_id": (_LABEL, lambda meta: meta.cell.id),
    "infrastructure": (_LABEL, lambda meta: meta.cell.infrastructure),
    "hardware": (_LABEL, lambda meta: meta.hardware),
    "mode": (_LABEL, lambda meta: meta.cell.mode),
    "batch_size": (pa.int32(), lambda meta: meta.cell.batch),
    "wait_requested": (pa.float64(), lambda meta: meta.cell.wait),
    "steps": (pa.int32(), lambda meta: meta.cell.steps),
    "repetition": (pa.int32(), lambda meta: meta.repetition),
    "attempt": (pa.int32(), lambda meta: meta.attempt),
    "arrival": (_LABEL, lambda meta: meta.cell.arrival),
    "think": (_LABEL, lambda meta: meta.cell.think or None),
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


ROW_SCHEMA = pa.schema(list(_row_columns()))
"""The columns that each session has for itself."""

SCHEMA = pa.schema([*((name, kind) for name, (kind, _) in _CELL_COLUMNS.items()), *_row_columns()])
"""One row per session. Times are seconds, null where there is nothing; `timestamp` is UTC."""


BATCH_ROWS = 2**17
"""Most rows of a large part that are in memory at once."""

_VALUES_BEFORE = {"attempt": 1, "judged": True}
"""What stands in columns that older parts do not have; null in others."""


class PartError(ValueError):
    """A part that cannot be read: one line naming the file and what is wrong with it."""


def rows_to_table(rows: Sequence[SessionRow], meta: CellMeta) -> pa.Table:
    """Return sessions of one repetition of a cell as a table of `SCHEMA`."""
    return pa.Table.from_arrays([*cell_arrays(meta, len(rows)), *row_arrays(rows)], schema=SCHEMA)


def row_arrays(rows: Sequence[SessionRow]) -> list[pa.Array]:
    """Return the columns of `ROW_SCHEMA`."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(SessionRow._fields)
    return [
        pa.array([round(at * 1e6) for at in values] if field.name == "timestamp" else values, field.type)
        for field, values in zip(ROW_SCHEMA, columns, strict=True)
    ]


def cell_arrays(meta: CellMeta, length: int) -> list[pa.Array]:
    """Return the columns of `SCHEMA` that are the same in all rows of a part, for `length` rows."""
    return [_constant(value(meta), length, kind) for kind, value in _CELL_COLUMNS.values()]


def _constant(value: object, length: int, kind: pa.DataType) -> pa.Array:
    if kind != _LABEL:
        return pa.repeat(pa.scalar(value, kind), length)
    indices = pa.repeat(pa.scalar(None if value is None else 0, pa.int32()), length)
    return pa.DictionaryArray.from_arrays(indices, pa.array([] if value is None else [value], pa.string()))


_TEXTS = (pa.string(), _LABEL)

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
            table = file.read(columns=list(columns), use_threads=False)
            return _complete(table, file.metadata.num_rows, columns, dictionaries)

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows of some columns, `BATCH_ROWS` at a time, texts that repeat as dictionaries.

        Raises:
            PartError: the file is damaged.
        """
        with self._open(columns, REPEATING_COLUMNS) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield _complete(pa.Table.from_batches([batch]), batch.num_rows, columns, REPEATING_COLUMNS)

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


def _complete(table: pa.Table, num_rows: int, columns: Sequence[str], dictionaries: Collection[str]) -> pa.Table:
    """Return these columns of a table in this order, with those that parts of older versions do not have.

    Raises:
        ValueError: a column is of another type than `SCHEMA` says, or holds a number that is not finite.
    """
    there = set(table.column_names)
    return pa.table(
        {
            name: _of_schema(name, table[name]) if name in there else _column_before(name, num_rows, dictionaries)
            for name in columns
        }
    )


def _of_schema(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    expected = SCHEMA.field(name).type
    if column.type != expected and not (column.type in _TEXTS and expected in _TEXTS):
        raise ValueError(f"column {name} is {column.type}, not {expected}")
    numbers = pc.list_flatten(column) if expected == _TYPES[Sequence[float]] else column
    if numbers.type == _TYPES[float] and not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise ValueError(f"column {name} holds a number that is not finite")
    return column


def _column_before(name: str, num_rows: int, dictionaries: Collection[str]) -> pa.Array:
    kind = _LABEL if name in dictionaries else SCHEMA.field(name).type
    return pa.repeat(pa.scalar(_VALUES_BEFORE.get(name), kind), num_rows)


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
        return Part(path, CellMeta.read_json(metadata[META_KEY]), parquet.num_rows)
    except JsonError as error:
        raise PartError(f"{path.name}: its description does not fit ({error})") from None
    except PartError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _damage_error(path, error) from None


def join_parts(parts: Iterable[Part], on_problem: Callable[[str], None] | None = None) -> pa.Table:
    """Return the rows of parts as one table of `SCHEMA`; damaged parts are treated as by `read_parts`.

    Raises:
        PartError: a part is damaged and there is no `on_problem`.
    """
    tables: list[pa.Table] = [SCHEMA.empty_table()]
    for part in parts:
        try:
            tables.append(part.table())
        except PartError as error:
            if on_problem is None:
                raise
            on_problem(str(error))
    return pa.concat_tables(tables)


def _damage_error(path: Path, error: Exception) -> PartError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return PartError(f"{path.name}: damaged or truncated ({reason[:160]})")
