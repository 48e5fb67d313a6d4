"""Figures of single sessions: how overhead is distributed, and how many were open over time."""

from __future__ import annotations

from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting

from . import content
from .rows import StudyRows, overhead_distribution, session_concurrency

CONCURRENCY_KEY = "concurrency"
ASKED, OPEN, STEPPING = "asked for", "open", "stepping"
MOST_PANELS = 12
"""The most cells shown; of more, those with the longest wait of each infrastructure and mode."""

_CONCURRENCY_COLUMNS = ("panel", "measure", "seconds", "sessions")
_PEAK_COLUMNS = ("panel", "peak", "text")


def concurrency_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the lines of the cell of max batch and of the smallest one that does not pass; None without rows."""
    cells = [(curve, point) for curve in study.curves for point in _shown_points(curve)]
    if len(cells) > MOST_PANELS:
        longest = {(curve.infrastructure, curve.mode): curve for curve in study.curves}
        selected = [(curve, point) for curve, point in cells if longest[curve.infrastructure, curve.mode] is curve]
        if len(selected) > MOST_PANELS:
            selected = [(curve, point) for curve, point in selected if point is _shown_points(curve)[-1]]
    else:
        selected = cells
    lines: list[tuple[Any, ...]] = []
    peaks: list[tuple[Any, ...]] = []
    for curve, point in selected[:MOST_PANELS]:
        cell = min(
            point.repetitions, key=lambda rep: (rep.success_rate is None, rep.success_rate or 0.0, rep.repetition)
        )
        parts = [part for part in rows.parts_of(curve, point.batch) if part.meta.repetition == cell.repetition]
        concurrency = session_concurrency(parts[0]) if parts else None
        if concurrency is None or cell.peak_concurrency is None:
            continue
        batch_state = f"batch {content.batch_text(point.batch)} {_STATE_TEXTS[content.point_state(point)]}"
        panel = f"{curve.infrastructure}\n{content.panel_of(curve)} · {batch_state}"
        for measure, values in (
            (ASKED, concurrency.asked),
            (OPEN, concurrency.opened),
            (STEPPING, concurrency.stepping),
        ):
            corners = _corners(values)
            lines += [(panel, measure, concurrency.times[at], values[at]) for at in corners]
        peaks.append(
            (
                panel,
                cell.held,
                f"at most {formatting.count(cell.held)} open of {formatting.count(cell.asked)}",
            )
        )
    if not lines:
        return None
    left_out = len(cells) - len(peaks)
    notes = [
        "Each curve at its max batch and at the smallest batch that does not pass, in the worst repetition."
        " Open: from the answered reset to the close; stepping: once the whole batch is up."
    ]
    if left_out:
        notes.append(f"{formatting.count_of(left_out, 'more cell')} not shown: shorter waits, or without rows.")
    return content.FigureContent(
        key=CONCURRENCY_KEY,
        title="Sessions over time: asked for, open and stepping",
        subtitle=peaks[0][0].replace("\n", " · ") if len(peaks) == 1 else "",
        alt_text="Sessions over time. "
        + "; ".join(f"{panel.replace(chr(10), ' ')}: {text}" for panel, _, text in peaks)
        + ".",
        frames={"lines": content.frame(_CONCURRENCY_COLUMNS, lines), "peaks": content.frame(_PEAK_COLUMNS, peaks)},
        facts={"panels": [peak[0] for peak in peaks]},
        notes=tuple(notes),
    )


_STATE_TEXTS = {content.PASSES: "passes", content.FAILS: "fails ✕", content.DOUBTFUL: "inconclusive ?"}


def _shown_points(curve: StudyCurve) -> list[BatchPoint]:
    """Return the point of max batch and the first beyond it; where none passes, the smallest."""
    beyond = next((point for point in curve.points if not point.passed), None)
    return [point for point in (curve.best, beyond) if point is not None]


def _corners(values: list[int]) -> list[int]:
    """Return the indices at which a line of steps changes, and its ends: all that is needed to draw it."""
    last = len(values) - 1
    return [
        at
        for at in range(len(values))
        if at in (0, last) or values[at] != values[at - 1] or values[at] != values[at + 1]
    ]


OVERHEAD_KEY = "overhead"
_OVERHEAD_COLUMNS = ("infrastructure", "panel", "batch", "seconds", "share")


def overhead_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the distribution of every batch over all of its repetitions; None where there are no rows."""
    lines: list[tuple[Any, ...]] = []
    for curve in study.curves:
        for point in curve.points:
            count, seconds, shares = overhead_distribution(rows.parts_of(curve, point.batch))
            if count:
                series = curve.infrastructure, content.panel_of(curve), point.batch
                # From the foot of the first step on.
                lines.append((*series, seconds[0], 0.0))
                lines += [(*series, at, share) for at, share in zip(seconds, shares, strict=True)]
    if not lines:
        return None
    curves = content.curves_in(study, lines)
    names = content.infrastructures_of(study, curves)
    low, high = min(line[3] for line in lines), max(line[3] for line in lines)
    return content.figure_of(
        study,
        curves,
        key=OVERHEAD_KEY,
        title="How many sessions had at most which overhead",
        alt_text=(
            f"Distribution of overhead at each batch of {content.names_text(names)}, from {formatting.seconds(low)}"
            f" to {formatting.seconds(high)}."
        ),
        frames={"lines": content.frame(_OVERHEAD_COLUMNS, lines)},
        notes=(
            "Overhead: total latency less the waits asked for, of successful sessions, all repetitions together."
            " Further left is faster; where a line crosses the dashed one, 99 % are done.",
        ),
        more=names if len(names) == 1 else (),
        batches=sorted({line[2] for line in lines}),
    )
