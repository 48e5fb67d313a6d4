# The part of pyarrow.parquet this project uses.
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pyarrow import RecordBatch, Schema, Table

class FileMetaData:
    num_rows: int
    metadata: dict[bytes, bytes] | None

class ParquetFile:
    metadata: FileMetaData
    def __init__(
        self,
        source: str | Path,
        *,
        read_dictionary: Sequence[str] | None = ...,
        pre_buffer: bool = ...,
        page_checksum_verification: bool = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def read(self, columns: Sequence[str] | None = ..., use_threads: bool = ...) -> Table: ...
    def iter_batches(self, batch_size: int = ..., *, columns: Sequence[str] | None = ...) -> Iterator[RecordBatch]: ...

def read_metadata(where: str | Path) -> FileMetaData: ...
def read_schema(where: str | Path) -> Schema: ...
def read_table(
    source: str | Path,
    *,
    columns: Sequence[str] | None = ...,
    partitioning: str | None = ...,
    page_checksum_verification: bool = ...,
) -> Table: ...

class ParquetWriter:
    def __init__(
        self, where: IO[bytes], schema: Schema, *, compression: str = ..., write_page_checksum: bool = ...
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def write_table(self, table: Table, row_group_size: int | None = ...) -> None: ...

def write_table(
    table: Table,
    where: str | Path | IO[bytes],
    *,
    row_group_size: int | None = ...,
    compression: str = ...,
    write_page_checksum: bool = ...,
) -> None: ...
