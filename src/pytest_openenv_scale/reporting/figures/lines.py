"""Throughput against batch, and how much of the ideal it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.reports.study import Point, Study, StudyCurve

from . import content as c

KEY = "throughput"
_POINTS = ("infrastructure", "panel", "measure", "batch", "value", "state")
RATE, EFFICIENCY = "sessions per second", "efficiency"


def content(study: Study) -> c.Content | None:
    """Return sessions per second at every batch, and which share of the asked concurrency was kept busy."""
    rows: list[tuple[Any, ...]] = []
    ideal: dict[tuple[str, int], float] = {}
    for curve in study.curves:
        for point in curve.points:
            place, state = (curve.infrastructure, c.panel_of(curve)), c.state_of(point)
            if point.requests_per_second:
                rows.append((*place, RATE, point.batch, point.requests_per_second, state))
            if (share := efficiency(curve, point)) is not None:
                rows.append((*place, EFFICIENCY, point.batch, share, state))
                ideal[c.panel_of(curve), point.batch] = point.batch / ((curve.wait or 1.0) * curve.curve.curve.steps)
    if not any(row[2] == RATE for row in rows):
        return None
    curves = [curve for curve in study.curves if any(row[0] == curve.infrastructure for row in rows)]
    names = c.infrastructures_of(study, curves)
    panels = [panel for panel in c.panels_of(study.curves) if any(row[1] == panel for row in rows)]
    best = max((row for row in rows if row[2] == RATE), key=lambda row: row[4])
    notes = [c.STATES_NOTE + ("    - - -  ideal: batch ÷ (steps × wait)" if ideal else "")]
    if ideal:
        notes.append(
            "Efficiency: seconds that successful sessions spent in their waits ÷ (batch × duration of the cell);"
            " connecting, resetting, queueing and failing make it less than 100 %."
        )
    return c.Content(
        key=KEY,
        title="Throughput against batch, and its efficiency" if ideal else "Throughput against batch",
        subtitle=c.subtitle_of(panels),
        alt_text=(
            f"Throughput and efficiency against batch; the most is {text_of.rate(best[4])} sessions per second"
            f" ({best[0]}, {best[1]}, batch {c.batch_text(best[3])})."
        ),
        frames={
            "points": c.frame(_POINTS, rows),
            "ideal": c.frame(
                ("panel", "measure", "batch", "value"),
                [(panel, RATE, batch, rate) for (panel, batch), rate in sorted(ideal.items())],
            ),
        },
        facts={"infrastructures": names, "panels": panels, "measures": [RATE, *([EFFICIENCY] if ideal else [])]},
        notes=tuple(notes),
    )


def efficiency(curve: StudyCurve, point: Point) -> float | None:
    """Return effective concurrency ÷ batch, a fraction; None where no wait was asked for or nothing is known."""
    if not curve.wait or point.effective_concurrency is None:
        return None
    return point.effective_concurrency / point.batch


_APART = 1000.0
"""Added to the logarithms of rates, so that an axis tells by its limits which of both measures it is for."""


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .scaling import side_by_side
    from .theme import (
        WIDTH,
        axis_of_batches,
        data,
        infrastructure_scales,
        labels,
        legend_height,
        note_height,
        state_layers,
        the_theme,
    )

    names, panels, measures = (shown.facts[key] for key in ("infrastructures", "panels", "measures"))
    points = data(shown.frames["points"], infrastructure=names, panel=panels, measure=measures)
    ideal = data(shown.frames["ideal"], panel=panels, measure=measures)
    beside = side_by_side(names, list(points["batch"]))
    points["x"] = points["batch"] * points["infrastructure"].astype(str).map(beside).astype(float)
    for table in (points, ideal):
        table["y"] = [
            _APART + log10(value) if measure == RATE else value
            for value, measure in zip(table["value"], table["measure"], strict=True)
        ]
    height = note_height(shown) + 0.85 + 2.5 * len(measures) + legend_height(names)
    split = p9.facet_grid("measure", "panel" if len(panels) > 1 else None, scales="free_y")
    return (
        p9.ggplot(points, p9.aes("x", "y", colour="infrastructure"))
        + p9.geom_line(
            p9.aes("batch", "y"), ideal, linetype="dashed", colour=palette.MUTED, size=0.6, inherit_aes=False
        )
        + p9.geom_line(p9.aes(group="infrastructure", linetype="infrastructure"), size=0.75)
        + state_layers(points, "x", "y", size=2.9 if len(panels) <= 2 else 2.3)
        + infrastructure_scales(names, "colour", "shape", "linetype")
        + axis_of_batches(points, (WIDTH - 1.0) / len(panels) - 0.15)
        + p9.scale_y_continuous(breaks=_breaks, labels=_labels, limits=_limits)
        + split
        + labels(shown, x="batch (sessions asked for at once)", y="")
        + the_theme(WIDTH, height, grid="y")
        + p9.theme(strip_text_y=p9.element_text(size=9.5, weight="bold", ha="center", color=palette.INK))
    )


def _limits(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[1] < _APART / 2:
        return 0.0, max(limits[1], 1.0)
    # At least a decade, so that there is always a round number to name.
    room = max(1.0 - (limits[1] - limits[0]), 0.0) / 2
    return limits[0] - room, limits[1] + room


def _breaks(limits: tuple[float, float]) -> list[float]:
    if limits[1] < _APART / 2:
        return [0, 0.25, 0.5, 0.75, 1]
    low, high = limits[0] - _APART, limits[1] - _APART
    decades = range(int(low) - 1, int(high) + 2)
    factors = (1, 2, 5) if high - low < 2.2 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [_APART + log10(tick) for tick in ticks if low <= log10(tick) <= high]


def _labels(breaks: Sequence[Any]) -> list[str]:
    rates = bool(breaks) and breaks[-1] > _APART / 2
    return [text_of.number(10 ** (at - _APART)) if rates else f"{at * 100:.0f} %" for at in breaks]
