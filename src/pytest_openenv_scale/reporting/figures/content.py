"""What a figure shows, as plain values: found in the caller's process, drawn in another."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.reports.study import Point, Study, StudyCurve

Columns = Mapping[str, Sequence[Any]]

PASSES, FAILS, DOUBTFUL = "passes", "fails", "inconclusive"
STATES_NOTE = "●  passes    ✕  fails a limit    ○  inconclusive"
"""How markers are to be read, the same in every figure."""


@dataclass(frozen=True, slots=True)
class Content:
    """One figure before it is drawn.

    `frames` are tables by name, each a sequence of values per column (seconds and fractions as everywhere); `facts`
    is whatever else the drawing needs. `alt_text` says in words what is to be seen.
    """

    key: str
    title: str
    alt_text: str
    frames: Mapping[str, Columns]
    subtitle: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


PNG_DPI = 130
"""Dots per inch of what is written; a figure is 9 inches wide."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn, and where modules are found."""

    path: tuple[str, ...]
    contents: tuple[Content, ...]
    dpi: int = PNG_DPI


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure as matplotlib writes it."""

    key: str
    svg: str
    png: bytes


def frame(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Columns:
    """Turn rows into columns; without rows the columns are empty."""
    found = list(rows)
    return {name: [row[at] for row in found] for at, name in enumerate(columns)}


def state_of(point: Point) -> str:
    """Say in one word what was judged of a batch."""
    return DOUBTFUL if point.passed is None else PASSES if point.passed else FAILS


def beyond_waits(curve: StudyCurve) -> str:
    """Return the phase of `CellSummary` that is latency beyond the waits; without waits it is all of it."""
    return "total" if curve.wait is None else "overhead"


def panel_of(curve: StudyCurve) -> str:
    """Return the name of the panel a curve stands in: "ws · wait 1 s"."""
    return curve.mode if curve.wait is None else f"{curve.mode} · wait {format_number(curve.wait)} s"


def panels_of(curves: Iterable[StudyCurve]) -> list[str]:
    """Return the names of the panels of these curves: ws first, then by wait."""
    found = {
        (curve.mode != "ws", curve.mode, -1.0 if curve.wait is None else curve.wait): panel_of(curve)
        for curve in curves
    }
    return [found[key] for key in sorted(found)]


def infrastructures_of(study: Study, curves: Iterable[StudyCurve]) -> list[str]:
    """Return the infrastructures of these curves in the order of the study."""
    found = {curve.infrastructure for curve in curves}
    return [name for name in study.infrastructures if name in found]


def subtitle_of(panels: Sequence[str], *more: str) -> str:
    """Return the name of the panel where there is but one, so that it needs no strip, and what else is to be said."""
    return "  ·  ".join([*(panels if len(panels) == 1 else ()), *(text for text in more if text)])


def wrapped(label: str, width: int = 24) -> str:
    """Break a long label into lines, also one without blanks such as a host name."""
    whole = textwrap.wrap(label, width, break_on_hyphens=True) or [label]
    return "\n".join(whole[:3]) + ("…" if len(whole) > 3 else "")


def several(names: Sequence[str]) -> str:
    """Return names as a list for people, a long one cut."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def batch_breaks(batches: Iterable[int], most: int) -> list[int]:
    """Return the batches an axis names: no more than `most`, ends included, far enough apart on a log scale."""
    found = sorted(set(batches))
    if len(found) <= 2:
        return found
    gap = (log2(found[-1]) - log2(found[0])) / max(most - 1, 1)
    kept = [found[0]]
    for batch in found[1:-1]:
        apart = min(log2(batch / kept[-1]), log2(found[-1] / batch))
        if apart >= gap * 0.7:
            kept.append(batch)
    return [*kept, found[-1]]


def batch_text(batch: Any) -> str:
    """Return a batch as an axis names it: "512", "16,384"."""
    return text_of.count(round(batch))
