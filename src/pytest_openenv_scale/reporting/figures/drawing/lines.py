"""Draws figures of lines."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

import plotnine as p9

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.reporting.figures import content
from pytest_openenv_scale.reporting.figures.lines import CAPACITY, DOUBTFUL, RATE, SHAPES, THROUGHPUT

from .theme import (
    WIDTH,
    PanelGrid,
    batch_axis,
    data_frame,
    figure_frame,
    infrastructure_scales,
    legend_height,
    panel_labels,
    renamed_panels,
    state_layers,
    text_height,
)


def draw_scaling(figure: content.FigureContent) -> Any:
    """Draw success against batch with plotnine."""
    names, panels = figure.facts["infrastructures"], figure.facts["panels"]
    points = data_frame(figure.frames["points"], infrastructure=names, panel=panels)
    limits = data_frame(figure.frames["limits"], panel=panels)
    ends = data_frame(figure.frames["open"], infrastructure=names, panel=panels)
    brackets = data_frame(figure.frames["brackets"], panel=panels)
    beside = content.side_by_side(names, list(points["batch"]))
    for table in (points, ends):
        table["x"] = table["batch"] * table["infrastructure"].astype(str).map(beside).astype(float)
    limits["text"] = [f"{limit * 100:.4g} % needed" for limit in limits["limit"]]
    first, last = points["batch"].min(), points["batch"].max()
    limits["x"] = first
    span = max(last / first, 2.0) ** 0.045
    ends["to"] = ends["x"] * span
    grid = PanelGrid(len(panels), names, height=2.9 if len(panels) <= 2 else 2.4)
    return (
        p9.ggplot(points, p9.aes("x", "success", colour="infrastructure"))
        + p9.geom_rect(
            p9.aes(xmin="low", xmax="high"),
            brackets,
            ymin=-0.03,
            ymax=1.06,
            fill=content.MUTED,
            alpha=0.25,
            inherit_aes=False,
        )
        + p9.geom_hline(p9.aes(yintercept="limit"), limits, linetype="dashed", colour=content.MUTED, size=0.6)
        + p9.geom_text(
            p9.aes("x", "limit", label="text"),
            limits,
            colour=content.MUTED,
            size=8,
            ha="left",
            va="top",
            nudge_y=-0.012,
            inherit_aes=False,
        )
        + p9.geom_line(p9.aes(group="infrastructure", linetype="infrastructure"), size=0.75)
        + p9.geom_linerange(p9.aes(ymin="least", ymax="most"), size=1.6, alpha=0.45, show_legend=False)
        + p9.geom_segment(p9.aes(x="x", xend="to", y="success", yend="success"), ends, size=0.75, show_legend=False)
        + p9.geom_point(p9.aes("to", "success"), ends, shape=">", size=2.2, show_legend=False)
        + state_layers(points, "x", "success")
        + infrastructure_scales(names, "colour", "shape", "linetype")
        + batch_axis(points, grid.panel_width, reach=span)
        + p9.scale_y_continuous(
            limits=(-0.03, 1.06),
            breaks=[0, 0.25, 0.5, 0.75, 1],
            labels=["0 %", "25 %", "50 %", "75 %", "100 %"],
            expand=(0, 0),
        )
        + grid.facets()
        + figure_frame(figure, grid.size(figure), x=content.BATCH_AXIS, y="successful sessions", grid="y")
    )


_RATE_OFFSET = 1000.0
"""Added to the logarithms of rates, so that an axis tells by its limits which of both measures it is for."""


def draw_throughput(figure: content.FigureContent) -> Any:
    """Draw throughput and efficiency against batch with plotnine."""
    names, panels, measures = (figure.facts[key] for key in ("infrastructures", "panels", "measures"))
    points = data_frame(figure.frames["points"], infrastructure=names, panel=panels, measure=measures)
    ideal = data_frame(figure.frames["ideal"], panel=panels, measure=measures)
    beside = content.side_by_side(names, list(points["batch"]))
    points["x"] = points["batch"] * points["infrastructure"].astype(str).map(beside).astype(float)
    for table in (points, ideal):
        table["y"] = [
            _RATE_OFFSET + log10(value) if measure == RATE else value
            for value, measure in zip(table["value"], table["measure"], strict=True)
        ]
    height = text_height(figure) + 0.85 + 2.5 * len(measures) + legend_height(names)
    labels = panel_labels(len(panels))
    split = p9.facet_grid("measure", "panel" if len(panels) > 1 else None, scales="free_y", labeller=labels)
    return (
        p9.ggplot(points, p9.aes("x", "y", colour="infrastructure"))
        + p9.geom_line(
            p9.aes("batch", "y"), ideal, linetype="dashed", colour=content.MUTED, size=0.6, inherit_aes=False
        )
        + p9.geom_line(p9.aes(group="infrastructure", linetype="infrastructure"), size=0.75)
        + state_layers(points, "x", "y", size=2.9 if len(panels) <= 2 else 2.3)
        + infrastructure_scales(names, "colour", "shape", "linetype")
        + batch_axis(points, (WIDTH - 1.0) / len(panels) - 0.15)
        + p9.scale_y_continuous(breaks=_axis_breaks, labels=_axis_labels, limits=_axis_limits)
        + split
        + figure_frame(figure, (WIDTH, height), x=content.BATCH_AXIS, grid="y")
        + p9.theme(strip_text_y=p9.element_text(size=9.5, weight="bold", ha="center", color=content.INK))
    )


def _axis_limits(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[1] < _RATE_OFFSET / 2:
        return 0.0, max(limits[1], 1.0)
    # At least a decade, so that there is always a round number to name.
    room = max(1.0 - (limits[1] - limits[0]), 0.0) / 2
    return limits[0] - room, limits[1] + room


def _axis_breaks(limits: tuple[float, float]) -> list[float]:
    if limits[1] < _RATE_OFFSET / 2:
        return [0, 0.25, 0.5, 0.75, 1]
    low, high = limits[0] - _RATE_OFFSET, limits[1] - _RATE_OFFSET
    decades = range(int(low) - 1, int(high) + 2)
    factors = (1, 2, 5) if high - low < 2.2 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [_RATE_OFFSET + log10(tick) for tick in ticks if low <= log10(tick) <= high]


def _axis_labels(breaks: Sequence[Any]) -> list[str]:
    rates = bool(breaks) and breaks[-1] > _RATE_OFFSET / 2
    return [formatting.number(10 ** (at - _RATE_OFFSET)) if rates else f"{at * 100:.0f} %" for at in breaks]


def draw_nodes(figure: content.FigureContent) -> Any:
    """Draw the factors gained by replicas or nodes with plotnine."""
    names = {panel: content.wrap_label(panel, 52) for panel in figure.facts["panels"]}
    points = data_frame(renamed_panels(figure, "points", names), panel=names.values(), measure=[CAPACITY, THROUGHPUT])
    ideal = data_frame(renamed_panels(figure, "ideal", names), panel=names.values())
    # The same axis on both sides, so that the ideal is a diagonal.
    highest = float(max(points["factor"].max(), ideal["factor"].max()))
    points["text_y"] = points["factor"] + points["side"] * 0.055 * highest
    ends = points[points["open"]].assign(top=lambda table: table["factor"] + 0.03 * highest)
    colours = {CAPACITY: content.PHASES["connect"], THROUGHPUT: content.PHASES["step"]}
    grid = PanelGrid(len(names), [CAPACITY], height=3.1)
    spread = float(points["replicas"].max() - points["replicas"].min())
    return (
        p9.ggplot(points, p9.aes("replicas", "factor"))
        + p9.geom_line(data=ideal, linetype="dashed", colour=content.MUTED, size=0.6)
        + p9.geom_line(p9.aes(colour="measure", linetype="measure", group="measure"), size=0.8)
        + p9.geom_point(p9.aes(y="top", colour="measure"), ends, shape="^", size=1.6, show_legend=False)
        + p9.geom_point(p9.aes(colour="measure", shape="measure"), size=3)
        + p9.geom_text(p9.aes(y="text_y", label="text", colour="measure"), size=8.5, show_legend=False)
        + p9.scale_colour_manual(colours)
        + p9.scale_shape_manual({CAPACITY: "o", THROUGHPUT: "s"})
        + p9.scale_linetype_manual({CAPACITY: "solid", THROUGHPUT: "dotted"})
        + p9.scale_x_continuous(
            breaks=sorted(set(points["replicas"])),
            limits=(points["replicas"].min() - 0.18 * spread, points["replicas"].max() + 0.18 * spread),
            expand=(0, 0),
        )
        + p9.scale_y_continuous(
            limits=(0, highest * 1.13),
            labels=lambda values: [f"×{formatting.number(float(value))}" for value in values],
            expand=(0, 0),
        )
        + grid.facets()
        + figure_frame(figure, grid.size(figure), x="replicas or nodes", y="times what the fewest reach", grid="y")
    )


def draw_history(figure: content.FigureContent) -> Any:
    """Draw the history of curves with plotnine."""
    points, machine_changes = data_frame(figure.frames["points"]), data_frame(figure.frames["moved"])
    names, panels = (list(dict.fromkeys(figure.frames["points"][column])) for column in ("infrastructure", "panel"))
    ticks, unit = figure.facts["ticks"], figure.facts["unit"]
    height = 2.3 * max(len(panels), 1) + text_height(figure) + 0.9
    unit = {"seconds": "seconds", "fraction": "share of sessions", "per second": "sess/s"}.get(unit, unit)
    doubtful = points["state"] == DOUBTFUL
    hollow: dict[str, Any] = {"shape": "o", "fill": content.SURFACE, "size": 3, "stroke": 0.8, "show_legend": False}
    dashed = {"linetype": "dashed", "colour": content.MUTED, "size": 0.6}
    changes: Any = [p9.geom_vline(p9.aes(xintercept="at"), machine_changes, **dashed)] if len(machine_changes) else []
    return (
        p9.ggplot(points, p9.aes("at", "value", colour="infrastructure", group="infrastructure"))
        + p9.geom_line(size=0.8)
        + p9.geom_point(p9.aes(shape="state"), data=points[~doubtful], size=3)
        + p9.geom_point(data=points[doubtful], **hollow)
        + p9.facet_wrap("panel", ncol=1, scales="free_y")
        + p9.scale_shape_manual(SHAPES, guide=None)
        + p9.scale_x_continuous(breaks=[at for at, _ in ticks], labels=[text for _, text in ticks], minor_breaks=[])
        + p9.geom_blank(data=data_frame({"at": [0], "value": [0.0]}), mapping=p9.aes("at", "value"), inherit_aes=False)
        + figure_frame(figure, (WIDTH, height), x="run", y=f"{figure.facts['metric']} ({unit})")
        + infrastructure_scales(names, "colour")
        + changes
    )
