"""Draws the figure of a steady state over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, inf, log
from typing import Any

import pandas as pd
import plotnine as p9

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.reporting.figures import content
from pytest_openenv_scale.reporting.figures.over_time import MEMORY, OPEN, P50, P99, SINGLE, STEPS, SUCCESS

from .theme import (
    WIDTH,
    data_frame,
    figure_frame,
    renamed_panels,
    seconds_ticks,
    text_height,
    time_breaks,
    time_ticks,
    two_lines,
    with_order,
)

_PANEL_STEP = 10.0
"""How far apart the values of two measures are moved, so that one axis of numbers serves panels of several units."""


def draw_over_time(figure: content.FigureContent) -> Any:
    """Draw the windows of a steady state with plotnine: a row of panels per measure, a column per cell."""
    measures = figure.facts["measures"]
    panels = figure.facts["panels"]
    names = {panel: two_lines(panel, 88 // len(panels)) for panel in panels}
    order = list(names.values())
    points, unjudged, limits = (
        data_frame(renamed_panels(figure, frame, names), panel=order) for frame in ("points", "unjudged", "limits")
    )
    shown = pd.concat([points, limits]).groupby("measure")["value"]
    axes = {
        measure: _WindowAxis.of(measure, _PANEL_STEP * at, [*shown.get_group(measure)])
        for at, measure in enumerate(measures)
    }
    for table in (points, limits):
        pairs = zip(table["measure"], table["value"], strict=True)
        table["y"] = [axes[measure].position(value) for measure, value in pairs]
    points, limits = (with_order(table, "measure", measures) for table in (points, limits))
    lines = {P50: content.PHASES["connect"], P99: content.PHASES["step"], SINGLE: content.PHASES["connect"]}
    strip = 0.17 * max(name.count("\n") + 1 for name in order) + 0.1 if len(order) > 1 else 0
    height = text_height(figure) + 0.95 + 1.25 * len(measures) + strip
    split = p9.facet_grid("measure", "panel" if len(order) > 1 else None, scales="free")
    return (
        p9.ggplot(points, p9.aes("seconds", "y", colour="line"))
        + p9.geom_rect(
            p9.aes(xmin="start", xmax="end"),
            unjudged,
            ymin=-inf,
            ymax=inf,
            fill=content.MUTED,
            alpha=0.18,
            inherit_aes=False,
        )
        + p9.geom_hline(p9.aes(yintercept="y"), limits, linetype="dashed", colour=content.MUTED, size=0.6)
        + p9.geom_line(p9.aes(group="line"), size=0.8)
        + p9.geom_point(size=1.5 if len(set(points["seconds"])) <= _MOST_MARKERS else 0.4)
        + p9.scale_colour_manual(lines, breaks=[P50, P99])
        + p9.scale_x_continuous(breaks=time_breaks, labels=time_ticks, expand=(0.01, 0, 0.02, 0))
        + p9.scale_y_continuous(
            breaks=[axis.position(tick) for axis in axes.values() for tick in axis.ticks],
            labels=[text for measure, axis in axes.items() for text in _OF_MEASURE[measure](axis.ticks)],
            limits=lambda limits: (_place_below(limits[0]), _place_below(limits[0]) + 1.08),
            expand=(0, 0),
        )
        + split
        + figure_frame(figure, (WIDTH, height), x="time since the start of the cell", grid="y")
        + p9.theme(strip_text_y=p9.element_text(size=9, weight="bold", ha="center", color=content.INK))
    )


_MOST_MARKERS = 100
"""With more windows their markers are no wider than the line."""


@dataclass(frozen=True, slots=True)
class _WindowAxis:
    """The axis of a measure: it begins at `place`, where `low` is, and is 1 long up to `high`."""

    place: float
    low: float
    high: float
    ticks: list[float]

    @classmethod
    def of(cls, measure: str, place: float, values: Sequence[float]) -> _WindowAxis:
        """Return an axis from 0 on; that of success begins nearer to its values, where they differ."""
        least, most = min(values), max(values)
        if measure == SUCCESS:
            low = next(low for low in (0.9, 0.5, 0.0) if low <= least)
            return cls(place, low, 1.0, [low, (1 + low) / 2, 1.0])
        unit = 1024.0 ** floor(log(most, 1024)) if measure == MEMORY and most > 0 else 1.0
        return cls(place, 0.0, most or 1.0, [tick * unit for tick in content.round_ticks(most / unit, 4)])

    def position(self, value: float) -> float:
        """Return where a value stands."""
        return self.place + (value - self.low) / (self.high - self.low)


def _place_below(y: float) -> float:
    return floor(y / _PANEL_STEP) * _PANEL_STEP


_OF_MEASURE: dict[str, Callable[[Sequence[float]], list[str]]] = {
    OPEN: lambda ticks: [content.batch_text(tick) for tick in ticks],
    STEPS: seconds_ticks,
    SUCCESS: lambda ticks: [f"{tick * 100:.0f} %" for tick in ticks],
    MEMORY: lambda ticks: [formatting.size(tick) for tick in ticks],
}
"""How the axis of each measure names its values."""
