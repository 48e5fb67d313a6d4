"""At which width which columns of a table are shown: estimated from its texts, so that a page needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.reporting.content.tables import Table

WIDTHS = (*range(24, 60, 2), *range(60, 201, 4))
"""The widths that the style sheet knows, in digits of the table's font."""

_PHONE = 34
"""The width of a table on a phone, in digits."""

_PADDING = 2
"""What stands beside the text of a cell, in digits."""

_SHORT = 14
"""A text of so many characters stands on one line."""

_WRAPPED, _LONGEST_WORD, _CODE = 18, 22, 20
"""The room for texts that are broken into lines, for a word before it is broken too, and for code."""


@dataclass(frozen=True, slots=True)
class FittedColumns:
    """The classes of the cells of each column, by its head, and what is left out first: class and name."""

    classes: Mapping[str, str]
    left_out: tuple[tuple[str, str], ...]


def fit_columns(table: Table) -> FittedColumns:
    """Return at which widths the columns of a table are left out, one after the other, and how its cells are set."""
    columns = dict(zip(table.heads, zip(*table.texts, strict=True), strict=True))
    widths = {head: _width(table, head, texts) + _PADDING for head, texts in columns.items()}
    names = table.drop or {head: head for head in _drop_order(table, columns)}
    needed, left_out = sum(widths.values()), dict[str, str]()
    for head in names:
        if needed > WIDTHS[0]:
            left_out[head] = f"w{next((width for width in WIDTHS if width >= needed), WIDTHS[-1])}"
        needed -= widths[head]
    classes = {
        head: [_setting(table, head, texts, broken=needed > _PHONE), left_out.get(head, "")]
        for head, texts in columns.items()
    }
    return FittedColumns(
        {head: " ".join(filter(None, names)) for head, names in classes.items()},
        tuple((width, names[head]) for head, width in left_out.items()),
    )


def _drop_order(table: Table, columns: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """Return the columns beyond the first two: those of numbers, then of short texts, then others, from the right."""
    others = [head for head in reversed(table.heads[2:]) if head not in table.bold]
    return sorted(others, key=lambda head: (head not in table.right, max(map(len, columns[head])) > _SHORT))


def _width(table: Table, head: str, texts: Sequence[str]) -> int:
    """Return how many digits wide a column is at least, its padding apart."""
    head_width = _longest_word([head])
    longest = max(map(_digits, texts))
    if head in table.code:
        return max(head_width, min(longest, _CODE))
    if head in table.right or max(map(len, texts)) <= _SHORT:
        return max(head_width, longest)
    return max(head_width, min(_longest_word(texts), _LONGEST_WORD), min(longest, _WRAPPED))


def _setting(table: Table, head: str, texts: Sequence[str], *, broken: bool) -> str:
    """Return how the cells of a column are set: `broken` where words have to be, as no column can be left out."""
    if head in table.right:
        return "number"
    if head in table.code:
        return "code"
    if max(map(len, texts)) <= _SHORT:
        return "short"
    return "broken" if broken else ""


def _longest_word(texts: Iterable[str]) -> int:
    return max((_digits(word) for text in texts for word in text.split()), default=0)


_NARROW = frozenset(" .,:;/|'il()[]")
"""Signs that take half the room of a digit, in the fonts that pages are shown in."""


def _digits(text: str) -> int:
    """Return how many digits are as wide as a text."""
    narrow = sum(sign in _NARROW for sign in text)
    return len(text) - narrow // 2
