"""A table as values: what each cell shows and the number behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number

from .study import Point, StudyCurve


@dataclass(frozen=True, slots=True)
class Value:
    """One cell: the text that is shown and, where there is one, the number it stands for.

    Numbers are in the units of the run: seconds, bytes, fractions of 1, sessions, sessions per second.
    """

    text: str
    number: float | None = None

    def __str__(self) -> str:
        return self.text


MISSING = Value(text_of.MISSING)
"""Where there is nothing to show; never 0."""


@dataclass(frozen=True, slots=True)
class StudyTable:
    """One table of a study; heads are unique, `right` names the columns of numbers, `notes` say how to read it."""

    key: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    right: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def value(self, row: Sequence[Value], head: str) -> Value:
        """Return the cell of a row under a head."""
        return row[self.heads.index(head)]

    def select(self, **texts: str) -> tuple[tuple[Value, ...], ...]:
        """Return the rows that show these texts: `table.select(infrastructure="local-docker", mode="ws")`."""
        return tuple(
            row for row in self.rows if all(self.value(row, head).text == text for head, text in texts.items())
        )


def count(value: int | None) -> Value:
    """Return a whole number as a cell."""
    return Value(text_of.count(value), value)


def number(value: float | None) -> Value:
    """Return a number without a unit as a cell."""
    return Value(text_of.number(value), value)


def seconds(value: float | None) -> Value:
    """Return a duration in seconds as a cell."""
    return Value(text_of.seconds(value), value)


def percent(fraction: float | None) -> Value:
    """Return a fraction of 1 as a cell that shows per cent."""
    return Value(text_of.percent(fraction), fraction)


def rate(value: float | None) -> Value:
    """Return a number per second as a cell."""
    return Value(text_of.rate(value), value)


def size(value: float | None) -> Value:
    """Return bytes as a cell."""
    return Value(text_of.size(None if value is None else round(value)), value)


def factor(value: float | None) -> Value:
    """Return a ratio as a cell: "×1.83"."""
    return MISSING if value is None else Value(f"×{value:.2f}", value)


def wait_text(wait: float | None) -> str:
    """Return a wait as a row shows it; "–" where waits mean nothing."""
    return text_of.MISSING if wait is None else f"{format_number(wait)} s"


def place(curve: StudyCurve) -> tuple[Value, Value, Value]:
    """Return the cells under `PLACE`: which curve a row is of."""
    return Value(curve.infrastructure), Value(curve.mode), Value(wait_text(curve.wait), curve.wait)


PLACE = ("infrastructure", "mode", "wait")


def reading_notes(points: Iterable[Point | None]) -> tuple[str, ...]:
    """Say how the figures of these points are to be read: repetitions, and percentiles of few sessions."""
    shown = [point for point in points if point is not None]
    notes: list[str] = []
    if any(len(point.repetitions) > 1 for point in shown):
        notes.append("each figure is the worst of its repetitions")
    few = sorted({point.samples for point in shown if point.samples and text_of.few(point.samples, "p99")})
    if few:
        several = text_of.several(few) if len(few) <= 6 else f"{few[0]} to {few[-1]}"
        notes.append(f"p99 of {several} ≈ max")
    return tuple(notes)
