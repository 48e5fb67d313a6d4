# The part of pyarrow.dataset this project uses.
from pathlib import Path

from pyarrow import Schema, Table

class Dataset:
    files: list[str]
    schema: Schema
    def count_rows(self) -> int: ...
    def to_table(self, columns: list[str] | None = ...) -> Table: ...

def dataset(source: str | Path, *, format: str = ...) -> Dataset: ...
