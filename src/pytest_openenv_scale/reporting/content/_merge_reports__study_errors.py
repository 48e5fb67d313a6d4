"""How sessions failed, over all batches and repetitions of an infrastructure and mode, by phase and kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.summary import CellSummary

from .study import Study
from .study_table import StudyTable, Value, count, percent
from .text import collapse

_MOST = 12
"""So many ways of failing are listed of an infrastructure and mode; servers can make up any number."""

_MESSAGE = 120


@dataclass
class _Way:
    """One way of failing: how many sessions, at which batches, and the first message."""

    sessions: int
    smallest: int
    largest: int
    message: str


def errors(study: Study) -> StudyTable:
    """Return the failures of a study by infrastructure, mode, phase and kind, the most frequent first."""
    rows: list[tuple[Value, ...]] = []
    notes: list[str] = []
    for name in study.infrastructures:
        for mode in dict.fromkeys(curve.mode for curve in study.of(name)):
            curves = study.of(name, mode)
            ways = _ways(summary for curve in curves for summary in curve.curve.summaries)
            failed = sum(way.sessions for way in ways.values())
            listed = sorted(ways.items(), key=lambda item: -item[1].sessions)
            rows += [
                (
                    Value(name),
                    Value(mode),
                    *(Value(collapse(part or text_of.MISSING)) for part in kind),
                    count(way.sessions),
                    percent(way.sessions / failed),
                    Value(_batches(way), way.smallest),
                    Value(collapse(way.message)[:_MESSAGE] or text_of.MISSING),
                )
                for kind, way in listed[:_MOST]
            ]
            if left := listed[_MOST:]:
                others = sum(way.sessions for _, way in left)
                ways_left = text_of.count_of(len(left), "more way")
                notes.append(f"{name}, {mode}: {text_of.count_of(others, 'session')} failed in {ways_left}")
    heads = ("infrastructure", "mode", "phase", "kind", "code", "sessions", "share", "batches", "first message")
    right = frozenset({"sessions", "share", "batches"})
    if rows:
        notes.append("over all batches and repetitions; share is of the failures of an infrastructure and mode")
    return StudyTable("errors", "Errors by phase and kind", heads, tuple(rows), right, tuple(notes))


def _ways(summaries: Iterable[CellSummary]) -> dict[tuple[str | None, str | None, str | None], _Way]:
    found: dict[tuple[str | None, str | None, str | None], _Way] = {}
    for summary in summaries:
        for error in summary.errors:
            kind = (error.phase, error.type, error.code)
            way = found.setdefault(kind, _Way(0, summary.batch, summary.batch, error.message or ""))
            way.sessions += error.count
            way.smallest = min(way.smallest, summary.batch)
            way.largest = max(way.largest, summary.batch)
    return found


def _batches(way: _Way) -> str:
    smallest, largest = text_of.count(way.smallest), text_of.count(way.largest)
    return smallest if smallest == largest else f"{smallest} to {largest}"
