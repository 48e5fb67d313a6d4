"""Rows of one repetition of a cell on their way to its part.

A writer is opened before load begins and takes rows in blocks, as sessions end. Each block is appended to a stream of
Arrow record batches in the directory of the parts, `.<name of the part>.arrows`, whose schema metadata says whose rows
they are. Sealing makes the part of it, a limited number of rows at a time:

    with run.open_part(meta) as writer:
        for rows, answered_errors in blocks:
            writer.write(rows, answered_errors)
        part = writer.seal(replace(meta, wall_s=…, findings=…))

Whatever ends the block earlier leaves the stream, if it holds rows, as does the end of the process; `cut_off_parts`
reads what is whole of it. `discard` leaves nothing.

The rows of a part stand in the order in which they were written: by `request_id` where a cell's rows came at once, else
as the sessions ended.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import replacing
from pytest_openenv_scale.core.formatting import count_of

from .cell import CUT_OFF, CellMeta, ClientFinding, SessionRow
from .parts import BATCH_ROWS, META_KEY, REPEATING_COLUMNS, ROW_SCHEMA, SCHEMA, Part, cell_arrays, row_arrays

STREAM_SUFFIX = ".arrows"
"""The end of the name of a stream, which begins with a dot and the name of its part."""

_ANSWERED_PHASE, _ANSWERED_WORDS = "answered_phase", "answered_words"
_STREAM_SCHEMA = pa.schema([*ROW_SCHEMA, (_ANSWERED_PHASE, pa.string()), (_ANSWERED_WORDS, pa.string())])
"""What a stream keeps of a session: its row, and the first error it was answered in an observation."""

_BLOCK_ROWS = 2**14
"""Most rows made a record batch at once."""

_HELD_BYTES = 2**26
"""About how much of a stream is in memory at once; the row groups of a part hold no more, nor than `BATCH_ROWS`."""

_BYTES_OF_A_BATCH = 2**13
"""About what a record batch takes besides its values."""


class PartWriter:
    """Keeps the rows of one repetition of a cell as they come, and makes its part of them; a context manager.

    `meta` is what is known of the cell before it begins; a killed process leaves no more of it.

    Raises:
        RunError: the stream cannot be made.
    """

    def __init__(self, directory: Path, meta: CellMeta) -> None:
        self._directory = directory
        self.num_rows = 0
        """How many rows were written."""
        with self._write_errors():
            directory.mkdir(parents=True, exist_ok=True)
            self._path, self._stream = _free_paths(directory, meta)
            self._file = self._stream.open("xb")
        self._writer = ipc.new_stream(self._file, _STREAM_SCHEMA.with_metadata(_metadata(meta)))
        # With its first array pyarrow imports pandas, where there is one; that is not to happen while sessions play.
        pa.array((), pa.float64())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.num_rows:
            self._close()
        else:
            self.discard()

    def write(self, rows: Sequence[SessionRow], answered_errors: Mapping[int, tuple[str, str]] | None = None) -> None:
        """Append rows; they are with the operating system when this returns.

        `answered_errors` are, by `request_id`, the phase and the words of the first observation that was an error.

        Raises:
            RunError: they cannot be written.
        """
        errors = answered_errors or {}
        with self._write_errors():
            for at in range(0, len(rows), _BLOCK_ROWS):
                block = rows[at : at + _BLOCK_ROWS]
                answered = [errors.get(row.request_id, (None, None)) for row in block]
                arrays = [*row_arrays(block), *(pa.array([each[n] for each in answered], pa.string()) for n in (0, 1))]
                self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_STREAM_SCHEMA))
            self._file.flush()
        self.num_rows += len(rows)

    def seal(self, meta: CellMeta) -> Part:
        """Make the part, under a name that begins with a dot until it is complete, and remove the stream.

        Where `meta` tells that errors in answers came under load only, the sessions that were answered with one failed.

        Raises:
            RunError: the part cannot be written.
        """
        with self._write_errors():
            self._writer.close()
            self._file.close()
            failing = meta.answered_errors is not None and meta.answered_errors.under_load
            with (
                replacing(self._path, synced=True) as file,
                pq.ParquetWriter(
                    file, SCHEMA.with_metadata(_metadata(meta)), compression="zstd", write_page_checksum=True
                ) as parquet,
            ):
                for rows in _gather(_read_batches(self._stream)):
                    table = _part_table(_with_failures(rows) if failing else rows, meta)
                    parquet.write_table(table, row_group_size=table.num_rows)
            _sync_directory(self._directory)
        self.discard()
        return Part(self._path, meta, self.num_rows)

    def discard(self) -> None:
        """Remove the stream with what was written; doing so twice is harmless."""
        self._close()
        self._stream.unlink(missing_ok=True)

    def _close(self) -> None:
        with suppress(OSError):  # What cannot be written has been told.
            self._file.close()

    @contextmanager
    def _write_errors(self) -> Generator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"a part of the run cannot be written: {self._directory}: {reason}") from None


def _metadata(meta: CellMeta) -> dict[bytes, bytes]:
    return {META_KEY: json.dumps(meta.to_json()).encode()}


def _free_paths(directory: Path, meta: CellMeta) -> tuple[Path, Path]:
    """Return the paths of a part and its stream; a cell measured again in the same run gets the next that are free."""
    attempt = f"-a{meta.attempt}" if meta.attempt > 1 else ""
    stem = f"{meta.cell.id}-r{meta.repetition}{attempt}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    pairs = ((directory / f"{name}.parquet", directory / f".{name}{STREAM_SUFFIX}") for name in names)
    return next(pair for pair in pairs if not any(path.exists() for path in pair))


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut, as `fsync` does for a file's content."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_batches(stream: Path) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a stream."""
    with pa.OSFile(str(stream)) as file:
        yield from ipc.open_stream(file)


def _read_whole_batches(stream: Path) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a stream up to where it was cut off."""
    with suppress(pa.ArrowException, OSError):
        yield from _read_batches(stream)


def _gather(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield batches joined to tables that are not small, and fit into memory."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes + _BYTES_OF_A_BATCH
        if rows + _BLOCK_ROWS > BATCH_ROWS or size >= _HELD_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _part_table(rows: pa.Table, meta: CellMeta) -> pa.Table:
    """Return rows of a stream as rows of the part of a cell."""
    own = (rows[name] for name in ROW_SCHEMA.names)
    return pa.Table.from_arrays([*cell_arrays(meta, rows.num_rows), *own], schema=SCHEMA)


def _with_failures(rows: pa.Table) -> pa.Table:
    """Return the rows of a stream in which sessions that were answered with an error have failed."""
    failed = pc.and_(rows["success"], pc.is_valid(rows[_ANSWERED_PHASE]))
    values = {
        "success": False,
        "total_latency": None,
        "error_phase": rows[_ANSWERED_PHASE],
        "error_type": "environment",
        "error_code": "answered_error",
        "error_message": rows[_ANSWERED_WORDS],
    }
    for name, value in values.items():
        given = value if isinstance(value, pa.ChunkedArray) else pa.scalar(value, ROW_SCHEMA.field(name).type)
        rows = rows.set_column(rows.column_names.index(name), name, pc.if_else(failed, given, rows[name]))
    return rows


@dataclass(frozen=True, slots=True)
class CutOffPart(Part):
    """What a killed process left of a repetition of a cell: the rows of its stream, and a finding that says so."""

    def read(self, *columns: str, dictionaries: Collection[str] = REPEATING_COLUMNS) -> pa.Table:
        """Read the rows of some columns at once, texts that repeat as `dictionaries`."""
        return pa.concat_tables(self._tables(columns, dictionaries))

    def batches(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows of some columns, no more at once than of a sealed part."""
        yield from self._tables(columns, REPEATING_COLUMNS)

    def _tables(self, columns: Sequence[str], dictionaries: Collection[str]) -> Iterator[pa.Table]:
        for rows in _gather(_read_whole_batches(self.path)):
            table = _part_table(rows, self.meta)
            yield pa.table({name: _encoded(table[name]) if name in dictionaries else table[name] for name in columns})


def _encoded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return texts.dictionary_encode()


def cut_off_parts(directory: Path) -> Iterator[CutOffPart]:
    """Yield what killed processes left in the directory of the parts of a run that is over, by name.

    Their `wall_s` is the moment of the last close. A stream without a whole block has nothing to tell, nor has one of
    which the part is sealed.
    """
    for path in sorted(directory.glob(f".*{STREAM_SUFFIX}")):
        if not path.with_name(f"{path.stem[1:]}.parquet").exists() and (part := _cut_off_part(path)) is not None:
            yield part


def _cut_off_part(path: Path) -> CutOffPart | None:
    try:
        with pa.OSFile(str(path)) as file:
            metadata = ipc.open_stream(file).schema.metadata or {}
        meta = CellMeta.read_json(metadata[META_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    rows, wall_s = 0, 0.0
    for batch in _read_whole_batches(path):
        rows += batch.num_rows
        wall_s = max(wall_s, pc.max(batch["closed_s"]).as_py() or 0.0)
    if not rows:
        return None
    finding = ClientFinding(CUT_OFF, f"cut off when the run ended, {count_of(rows, 'session')} kept")
    return CutOffPart(path, replace(meta, wall_s=wall_s, findings=(finding,)), rows)
