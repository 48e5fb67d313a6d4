"""Figures with a row per infrastructure: bars of max batch, tiles of p99, phases of a session.

`…_content` says what a figure shows as plain values, `draw_…` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import wording

from . import content
from .content import heat_colour

_BAR_COLUMNS = ("infrastructure", "panel", "value", "upper", "kind", "text")
EXACT, OPEN, UNSURE = "exact", "open", "unsure"


def max_batch_content(study: Study) -> content.FigureContent | None:
    """Return the max batch of every curve and up to where it may lie; None where nothing was measured."""
    rows = [_bar(curve, 1.0) for curve in study.curves if curve.points]
    title = "Max batch by infrastructure"
    return _bars_content(study, rows, "max_batch", title, "Max batch", x="sessions at once", whole=True)


def batch_per_core_content(study: Study) -> content.FigureContent | None:
    """Return the max batch per core of every curve whose cores are known; None where there is none."""
    rows = [_bar(curve, float(curve.cores)) for curve in study.curves if curve.cores and curve.points]
    unknown = [name for name in study.infrastructures if name not in {row[0] for row in rows}]
    without = (f"Cores not known, so not shown: {content.names_text(unknown)}.",) if unknown else ()
    title = "Max batch per core by infrastructure"
    return _bars_content(
        study, rows, "batch_per_core", title, "Max batch per core", *without, x="sessions at once per core"
    )


def _bars_content(
    study: Study, rows: Sequence[tuple[Any, ...]], key: str, title: str, what: str, *notes: str, **facts: Any
) -> content.FigureContent | None:
    if not rows:
        return None
    bar_texts = [f"{row[0]} {row[1]}: {row[5]}" for row in rows]
    return content.figure_of(
        study,
        content.curves_in(study, rows),
        key=key,
        title=title,
        alt_text=f"{what} by infrastructure. {'; '.join(bar_texts)}.",
        frames={"bars": content.frame(_BAR_COLUMNS, rows)},
        notes=(*_bar_notes(rows), *notes),
        **facts,
    )


def _bar(curve: StudyCurve, share: float) -> tuple[Any, ...]:
    """Return a bar: what is held for certain, and up to where nothing is known (None: there is no end)."""
    verdict = curve.verdict
    best, worst = verdict.max_batch, verdict.infeasible_min
    doubtful = any(cell.passed is None and cell.batch > (best or 0) for cell in verdict.cells)
    kind = OPEN if wording.is_open(verdict) else UNSURE if worst is None or doubtful else EXACT
    largest = max((point.batch for point in curve.points), default=0)
    upper = None if kind == OPEN else (worst or largest) / share
    return (
        curve.infrastructure,
        content.panel_of(curve),
        (best or 0) / share,
        upper,
        kind,
        _bar_text(curve, share, kind),
    )


def _bar_text(curve: StudyCurve, share: float, kind: str) -> str:
    verdict = curve.verdict
    text = wording.max_batch_text(verdict)
    if verdict.max_batch is None:
        return "none passes" if text == "none" else "unknown (inconclusive)"
    if share != 1 or curve.cores == 1:
        text = f"{'≥ ' if kind == OPEN else ''}{formatting.number(verdict.max_batch / share)}"
    cores = (
        f"  ({formatting.count(verdict.max_batch)} on {formatting.count_of(round(share), 'core')})"
        if share != 1
        else ""
    )
    return (f"at least {text}" if kind == UNSURE else text) + cores


def _bar_notes(rows: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    has_solid = any(row[2] for row in rows)
    notes = ["Solid: the largest batch that passes, all smaller ones passing too."] if has_solid else []
    kinds = {row[4] for row in rows}
    if EXACT in kinds:
        notes.append("Pale: up to the smallest batch that failed; the limit lies in between.")
    if UNSURE in kinds:
        notes.append("Dashed: measured, but inconclusive, so it may hold more.")
    if OPEN in kinds:
        notes.append("▶ and ≥: the largest batch asked for passes, nothing larger was tried.")
    return ("  ".join(notes),)


HEAT_KEY = "p99"
SIGNS = {content.PASSES: "", content.FAILS: "✕", content.DOUBTFUL: "?"}
_TILE_COLUMNS = ("infrastructure", "panel", "batch", "p99", "state", "shade", "text")


def heat_content(study: Study) -> content.FigureContent | None:
    """Return the overhead p99 of every batch, the slowest repetition; None where no session succeeded."""
    measured = [
        (curve, point, point.latency(content.phase_beyond_waits(curve)))
        for curve in study.curves
        for point in curve.points
    ]
    latencies = [value for _, _, value in measured if value is not None]
    if not latencies:
        return None
    low, high = (log10(max(value, 1e-4)) for value in (min(latencies), max(latencies)))
    span = max(high - low, 1.0)
    rows: list[tuple[Any, ...]] = []
    for curve, point, value in measured:
        state = content.point_state(point)
        shade = None if value is None else heat_colour((log10(max(value, 1e-4)) - low) / span)
        text = "none" if value is None else formatting.seconds(value)
        tile = curve.infrastructure, content.panel_of(curve), point.batch
        rows.append((*tile, value, state, shade, f"{text} {SIGNS[state]}".rstrip()))
    states = {row[4] for row in rows}
    notes = [
        "p99 of total latency less the waits asked for, of successful sessions; the slowest repetition. "
        "Darker is slower, in equal steps of a logarithm, the same in all panels."
    ]
    signs = [("✕  fails a limit", content.FAILS), ("?  inconclusive", content.DOUBTFUL)]
    legend = [sign for sign, state in signs if state in states]
    legend += ["none  no session succeeded"] if any(row[3] is None for row in rows) else []
    legend += (
        ["empty  not measured"] if len(rows) < len({row[:2] for row in rows}) * len({row[2] for row in rows}) else []
    )
    notes += ["    ".join(legend)] if legend else []
    worst = max((row for row in rows if row[3] is not None), key=lambda row: row[3])
    return content.figure_of(
        study,
        content.curves_in(study, rows),
        key=HEAT_KEY,
        title="p99 overhead by batch and infrastructure",
        alt_text=(
            f"p99 of the latency beyond the waits asked for, from {formatting.seconds(min(latencies))} to"
            f" {formatting.seconds(max(latencies))} ({worst[0]}, {worst[1]}, batch {content.batch_text(worst[2])})."
        ),
        frames={"tiles": content.frame(_TILE_COLUMNS, rows)},
        notes=notes,
    )


LATENCY_KEY = "latency"
PHASES = ("queue", "connect", "reset", "step")
_PART_COLUMNS = ("infrastructure", "panel", "phase", "start", "end")
_ROW_COLUMNS = ("infrastructure", "panel", "batch", "mean", "p99", "text")


def latency_content(study: Study) -> content.FigureContent | None:
    """Return mean seconds by phase at max batch, or at the largest batch where sessions succeeded; None without any."""
    measured = [
        (curve, point, cell)
        for curve in study.curves
        if (point := _shown_point(curve)) and (cell := _slowest_repetition(point, content.phase_beyond_waits(curve)))
    ]
    if not measured:
        return None
    parts: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    for curve, point, cell in measured:
        series, at = (curve.infrastructure, content.panel_of(curve)), 0.0
        for phase, value in phase_breakdown(cell, content.phase_beyond_waits(curve)).items():
            parts.append((*series, phase, at, at + value))
            at += value
        p99 = cell.phases[content.phase_beyond_waits(curve)].p99
        state = "" if point.passed else " ✕" if point.passed is False else " ?"
        batch = content.batch_text(point.batch)
        text = f"batch {batch}{state}: mean {formatting.seconds(at)}, p99 {formatting.seconds(p99)}"
        rows.append((*series, point.batch, at, p99, text))
    note = "Bars: means over successful sessions beyond the waits, in the slowest repetition.   ◆  p99 of the same."
    failing = any("✕" in row[5] or "?" in row[5] for row in rows)
    other = (
        ("✕ ?  no batch passes for certain: shown is the largest batch at which sessions succeeded.",)
        if failing
        else ()
    )
    return content.figure_of(
        study,
        content.curves_in(study, rows),
        key=LATENCY_KEY,
        title="Latency breakdown at max batch",
        alt_text=f"Latency by phase. {'; '.join(f'{row[0]} {row[1]}, {row[5]}' for row in rows)}.",
        frames={"parts": content.frame(_PART_COLUMNS, parts), "rows": content.frame(_ROW_COLUMNS, rows)},
        notes=(note, *other),
    )


def _shown_point(curve: StudyCurve) -> BatchPoint | None:
    successful = [point for point in curve.points if point.samples]
    return curve.best or max(successful, key=lambda point: point.batch, default=None)


def _slowest_repetition(point: BatchPoint, beyond: str) -> CellSummary | None:
    cells = [cell for cell in point.repetitions if cell.phase(beyond)]
    return max(cells, key=lambda cell: cell.phases[beyond].p99, default=None)


def phase_breakdown(cell: CellSummary, beyond: str = "overhead") -> dict[str, float]:
    """Return the mean seconds of each phase; they sum up to the mean of `beyond`, as medians would not.

    What is neither queue, connect nor reset belongs to the steps: their time beyond the waits and resets after `done`.
    """
    parts = {phase: max(stats.mean, 0.0) for phase in PHASES[:-1] if (stats := cell.phase(phase))}
    rest = cell.phases[beyond].mean - sum(parts.values())
    return {**parts, "step": max(rest, 0.0)}
