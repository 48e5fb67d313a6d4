"""Where the time of a session goes at max batch, phase by phase."""

from __future__ import annotations

from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.summary import CellSummary
from pytest_openenv_scale.reports.study import Point, Study, StudyCurve

from . import content as c
from .bars import nice

KEY = "latency"
PHASES = ("queue", "connect", "reset", "step")
_NAMES = {
    "queue": "queue in this client",
    "connect": "connect",
    "reset": "reset",
    "step": "steps beyond their waits",
}
_PARTS = ("infrastructure", "panel", "phase", "start", "end")
_ROWS = ("infrastructure", "panel", "batch", "mean", "p99", "text")


def content(study: Study) -> c.Content | None:
    """Return mean seconds by phase at max batch, or at the largest batch where sessions succeeded; None without any."""
    found = [
        (curve, point, cell)
        for curve in study.curves
        if (point := _point(curve)) and (cell := _slowest(point, c.beyond_waits(curve)))
    ]
    if not found:
        return None
    parts: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    for curve, point, cell in found:
        place, at = (curve.infrastructure, c.panel_of(curve)), 0.0
        for phase, value in breakdown(cell, c.beyond_waits(curve)).items():
            parts.append((*place, phase, at, at + value))
            at += value
        p99 = cell.phases[c.beyond_waits(curve)].p99
        state = "" if point.passed else " ✕" if point.passed is False else " ?"
        text = f"batch {c.batch_text(point.batch)}{state}: mean {text_of.seconds(at)}, p99 {text_of.seconds(p99)}"
        rows.append((*place, point.batch, at, p99, text))
    curves = [curve for curve, _, _ in found]
    names, panels = c.infrastructures_of(study, curves), c.panels_of(curves)
    note = "Bars: means over successful sessions beyond the waits, in the slowest repetition.   ◆  p99 of the same."
    failing = any("✕" in row[5] or "?" in row[5] for row in rows)
    other = (
        ("✕ ?  no batch passes for certain: shown is the largest batch at which sessions succeeded.",)
        if failing
        else ()
    )
    return c.Content(
        key=KEY,
        title="Where the time goes at max batch",
        subtitle=c.subtitle_of(panels),
        alt_text=f"Latency by phase. {'; '.join(f'{row[0]} {row[1]}, {row[5]}' for row in rows)}.",
        frames={"parts": c.frame(_PARTS, parts), "rows": c.frame(_ROWS, rows)},
        facts={"infrastructures": names, "panels": panels},
        notes=(note, *other),
    )


def _point(curve: StudyCurve) -> Point | None:
    successful = [point for point in curve.points if point.samples]
    return curve.best or max(successful, key=lambda point: point.batch, default=None)


def _slowest(point: Point, beyond: str) -> CellSummary | None:
    cells = [cell for cell in point.repetitions if cell.phase(beyond)]
    return max(cells, key=lambda cell: cell.phases[beyond].p99, default=None)


def breakdown(cell: CellSummary, beyond: str = "overhead") -> dict[str, float]:
    """Return the mean seconds of each phase; they sum up to the mean of `beyond`, as medians would not.

    What is neither queue, connect nor reset belongs to the steps: their time beyond the waits and resets after `done`.
    """
    parts = {phase: max(stats.mean, 0.0) for phase in PHASES[:-1] if (stats := cell.phase(phase))}
    rest = cell.phases[beyond].mean - sum(parts.values())
    return {**parts, "step": max(rest, 0.0)}


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .stack import Stack
    from .theme import data, labels, legend_height, seconds_ticks, the_theme

    names, panels = shown.facts["infrastructures"], shown.facts["panels"]
    rows = data(shown.frames["rows"])
    there = [phase for phase in PHASES if phase in set(shown.frames["parts"]["phase"])]
    parts = data(shown.frames["parts"], phase=there)
    stack = Stack.of(zip(rows["panel"], rows["infrastructure"], strict=True), panels, names)
    rows["y"], parts["y"] = stack.column(rows), stack.column(parts)
    parts["low"], parts["high"] = parts["y"] - 0.34, parts["y"] + 0.34
    longest = float(max(rows["mean"].max(), rows["p99"].max())) or 1e-3
    rows["end"] = rows[["mean", "p99"]].max(axis=1) + 0.022 * longest
    share = max(len(text) for text in rows["text"]) * 0.073 / stack.panel_width
    room = share / (1 - min(share, 0.6)) + 0.04
    ticks = nice(longest)
    return (
        p9.ggplot(parts)
        + p9.geom_rect(p9.aes(xmin="start", xmax="end", ymin="low", ymax="high", fill="phase"))
        + p9.geom_segment(p9.aes(x="mean", xend="p99", y="y", yend="y"), rows, colour=palette.MUTED, size=0.5)
        + p9.geom_point(
            p9.aes("p99", "y"), rows, shape="D", size=2.3, fill=palette.SURFACE, colour=palette.INK, stroke=0.7
        )
        + p9.geom_text(p9.aes("end", "y", label="text"), rows, size=8.5, ha="left", colour=palette.INK)
        + p9.scale_fill_manual(palette.PHASES, breaks=there, labels=[_NAMES[phase] for phase in there])
        + p9.scale_x_continuous(
            limits=(0, longest * (1 + room)),
            breaks=ticks,
            labels=seconds_ticks(ticks),
            expand=(0, 0),
        )
        + stack.layers(0.0)
        + labels(shown, x="latency beyond the waits", y="")
        + the_theme(*stack.size(shown, 0.36, legend_height(list(_NAMES.values()))), grid="x")
    )
