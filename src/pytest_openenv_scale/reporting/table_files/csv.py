"""A table as CSV (RFC 4180, UTF-8): numbers as they were measured, texts that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content.tables import Table, Value

_SECONDS = (
    *("wait", "start-up", "CPU per step", "server CPU per step"),
    *("total p99", "connect p50", "reset p50", "step p50"),
)
_FRACTIONS = ("success", "share", "batch efficiency", "sess/s efficiency")

UNITS: Mapping[str, str] = {
    **dict.fromkeys(_SECONDS, "s"),
    **dict.fromkeys(_FRACTIONS, "fraction"),
    **dict.fromkeys(("memory per session", "server memory"), "bytes"),
}
"""What the numbers of a column are in, by its head, where its texts have units of their own."""

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
"""How a text begins that spreadsheets compute (OWASP, CSV injection)."""

_BOUND = re.compile(r"[≥≤] ")


def table_csv(table: Table) -> str:
    """Return a table as CSV; the heads of columns of numbers name their units."""
    heads = [f"{head} ({UNITS[head]})" if head in UNITS else head for head in table.heads]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(map(safe_text, heads))
    writer.writerows([map(_cell, row) for row in table.rows])
    return file.getvalue()


def _cell(value: Value) -> str:
    """Return a number in digits, with its sign where it is a bound ("≥ 128"); nothing for what is not known."""
    if value.text == formatting.MISSING:
        return ""
    if value.number is None:
        return safe_text(value.text)
    bound = _BOUND.match(value.text)
    return f"{bound[0] if bound else ''}{value.number:.15g}"


def safe_text(text: str) -> str:
    """Return text on one line, behind an apostrophe where a spreadsheet would compute it."""
    line = on_one_line(text)
    return f"'{line}" if _FORMULA.match(line) else line
