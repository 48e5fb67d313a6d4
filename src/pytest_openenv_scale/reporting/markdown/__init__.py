"""Reports as Markdown, and its signs: tables, code and text in which nothing is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content.tables import Table

_BACKTICKS = re.compile(r"`+")
_MARKUP_SIGNS = re.compile(r"[\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|<(?=[A-Za-z/!?])|^>|&(?=#?\w+;)")


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> list[str]:
    """Return a Markdown table padded so that it also reads as text; its cells are escaped already."""
    aligned = [head in set(right) for head in heads]
    widths = [max(3, *(len(row[at]) for row in (heads, *rows))) for at in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, aligned, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (width - 1)}{':' if is_right else '-'}" for width, is_right in zip(widths, aligned, strict=True)]
    return [line(heads), line(rule), *(line(row) for row in rows)]


def table_lines(table: Table) -> list[str]:
    """Return a table with its notes and an empty line below; nothing where it has no rows."""
    if not table:
        return []

    def cell(head: str, text: str) -> str:
        shown = inline_code(text, in_table=True) if head in table.code else escape(text)
        return f"**{shown}**" if head in table.bold else shown

    rows = [list(map(cell, table.heads, row)) for row in table.texts]
    notes = [f"- {escape(note)}" for note in table.notes]
    return [*markdown_table(table.heads, rows, right=table.right), "", *notes, *([""] if notes else [])]


def table_section(table: Table, heading: str | None = None) -> list[str]:
    """Return a table as a section under its title or `heading`, signs included; nothing where it has no rows."""
    return [heading or f"## {escape(table.title)}", "", *table_lines(table)] if table else []


def escape(value: str) -> str:
    """Return text in which nothing is taken for Markdown or HTML, on one line."""
    return _MARKUP_SIGNS.sub(lambda match: f"\\{match[0]}", on_one_line(value))


def inline_code(value: str, *, in_table: bool = False) -> str:
    """Return text as inline code, whatever backticks it holds."""
    value = on_one_line(value)
    fence = "`" * (max(map(len, _BACKTICKS.findall(value)), default=0) + 1)
    pad = " " if "`" in value else ""
    spanned = f"{fence}{pad}{value}{pad}{fence}"
    return spanned.replace("|", r"\|") if in_table else spanned


def code_block(value: str, language: str = "") -> list[str]:
    """Return text as a fenced block, whatever fences it holds."""
    fence = "`" * max(3, max(map(len, _BACKTICKS.findall(value)), default=0) + 1)
    return [f"{fence}{language}", *value.splitlines(), fence]
