"""The tables of a study as files for papers and spreadsheets: LaTeX and CSV, a file per table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import replace_file
from pytest_openenv_scale.reporting.content.tables import Table

from .csv import table_csv
from .latex import table_latex

__all__ = ["table_csv", "table_latex", "write_tables"]


def write_tables(tables: Iterable[Table], folder: Path, suffix: str, text_of: Callable[[Table], str]) -> list[Path]:
    """Write a file per table that has rows and return their paths; those of an earlier rendering are removed.

    Raises:
        RunError: a file cannot be written or removed.
    """
    written: list[Path] = []
    for table in tables:
        path = folder / f"{table.key}{suffix}"
        if table:
            written.append(replace_file(path, text_of(table)))
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be removed: {error.strerror}") from None
    return written
