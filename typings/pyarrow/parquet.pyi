# The part of pyarrow.parquet this project uses.
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pyarrow import Schema, Table

def read_schema(where: str | Path) -> Schema: ...
def read_table(
    source: str | Path,
    *,
    columns: Sequence[str] | None = ...,
    partitioning: str | None = ...,
    page_checksum_verification: bool = ...,
) -> Table: ...
def write_table(
    table: Table,
    where: str | Path | IO[bytes],
    *,
    compression: str = ...,
    write_page_checksum: bool = ...,
) -> None: ...
