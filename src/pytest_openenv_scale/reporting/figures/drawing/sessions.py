"""Draws figures of single sessions."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

import pandas as pd
import plotnine as p9

from pytest_openenv_scale.reporting.figures import content
from pytest_openenv_scale.reporting.figures.sessions import ASKED, OPEN, STEPPING

from .theme import (
    WIDTH,
    PanelGrid,
    data_frame,
    figure_frame,
    panel_labels,
    renamed_panels,
    seconds_ticks,
    text_height,
    time_breaks,
    time_ticks,
    two_lines,
    with_order,
)


def draw_concurrency(figure: content.FigureContent) -> Any:
    """Draw sessions over time with plotnine."""
    names = {panel: two_lines(panel, 46) for panel in figure.facts["panels"]}
    order = list(names.values())
    lines = data_frame(renamed_panels(figure, "lines", names), panel=order, measure=figure.facts["measures"])
    stepping = lines[lines["measure"] == STEPPING]
    top = lines.groupby("panel", observed=True)["sessions"].max()
    peaks = data_frame(renamed_panels(figure, "peaks", names), panel=order)
    peaks["top"] = [float(top[panel]) * 1.03 for panel in peaks["panel"]]
    colours = {
        ASKED: content.MUTED,
        OPEN: content.PHASES["connect"],
        STEPPING: content.PHASES["reset"],
    }
    shade: dict[str, Any] = {"fill": colours[STEPPING], "alpha": 0.3, "colour": "none"}
    filled: Any = [p9.geom_polygon(p9.aes(group="panel"), _areas(stepping), **shade)] if len(stepping) else []
    grid = PanelGrid(len(order), [ASKED], height=1.55, scales="free", strip=0.48)
    return (
        p9.ggplot(lines, p9.aes("seconds", "sessions", colour="measure"))
        + filled
        + p9.geom_step(p9.aes(linetype="measure", size="measure"), direction="hv")
        + p9.geom_text(
            p9.aes(x=0, y="top", label="text"),
            peaks,
            colour=content.MUTED,
            size=8,
            ha="left",
            va="bottom",
            inherit_aes=False,
        )
        + p9.scale_colour_manual(colours)
        + p9.scale_linetype_manual({ASKED: "dashed", OPEN: "solid", STEPPING: "solid"})
        + p9.scale_size_manual({ASKED: 0.6, OPEN: 1.0, STEPPING: 0.8})
        + p9.scale_x_continuous(breaks=time_breaks, labels=time_ticks, expand=(0.01, 0, 0.02, 0))
        + p9.scale_y_continuous(
            breaks=lambda limits: [tick for tick in content.round_ticks(limits[1], 4) if tick == int(tick)],
            labels=lambda ticks: [content.batch_text(tick) for tick in ticks],
            limits=lambda limits: (0, max(limits[1], 1) * 1.16),
            expand=(0, 0),
        )
        + grid.facets()
        + figure_frame(figure, grid.size(figure), x="time since the start of the cell", y="sessions", grid="y")
    )


def _areas(lines: Any) -> Any:
    """Return the outline of the area below every line of steps."""
    outlines: list[Any] = []
    for _, line in lines.groupby("panel", observed=True):
        # A step has two corners: where the value before it ends, and where its own begins.
        before = line.assign(sessions=line["sessions"].shift(1)).iloc[1:]
        corners = pd.concat([before.assign(turn=0), line.assign(turn=1)]).sort_values(["seconds", "turn"])
        base = line.iloc[[-1, 0]].assign(sessions=0)
        outlines.append(pd.concat([corners, base]))
    return pd.concat(outlines)


def draw_overhead(figure: content.FigureContent) -> Any:
    """Draw the distributions of overhead with plotnine."""
    names, panels, batches = (figure.facts[key] for key in ("infrastructures", "panels", "batches"))
    wrapped = {name: content.wrap_label(name, 18) for name in names}
    texts = [content.batch_text(batch) for batch in batches]
    lines = data_frame(figure.frames["lines"], panel=panels)
    lines["row"] = lines["infrastructure"].map(wrapped)
    lines["shade"] = lines["batch"].map(content.batch_text)
    lines = with_order(with_order(lines, "row", list(wrapped.values())), "shade", texts)
    ticks = _decade_ticks(lines["seconds"].min(), lines["seconds"].max(), 6 if len(panels) <= 2 else 3)
    split: Any = []
    if len(names) > 1:
        split = p9.facet_grid("row", "panel", labeller=panel_labels(len(panels)))
    elif len(panels) > 1:
        split = p9.facet_wrap("panel", ncol=2, labeller=panel_labels(2))
    rows = len(names) if len(names) > 1 else -(-len(panels) // 2)
    height = text_height(figure) + 1.2 + rows * (1.35 if len(names) > 2 else 2.3) + (0.3 if len(panels) > 1 else 0)
    return (
        p9.ggplot(lines, p9.aes("seconds", "share", colour="shade"))
        + p9.geom_hline(yintercept=0.99, linetype="dashed", colour=content.MUTED, size=0.45)
        + p9.geom_step(p9.aes(group="shade"), size=0.8)
        + p9.scale_colour_manual(dict(zip(texts, content.batch_colours(len(texts)), strict=True)), name="batch")
        + p9.scale_x_log10(breaks=ticks, minor_breaks=[], labels=seconds_ticks(ticks))
        + p9.scale_y_continuous(breaks=[0, 0.5, 1], labels=["0 %", "50 %", "100 %"], limits=(0, 1.02))
        + p9.guides(colour=p9.guide_legend(nrow=1 if len(texts) <= 12 else 2))
        + split
        + figure_frame(figure, (WIDTH, height), x="overhead", y="successful sessions")
        + p9.theme(
            legend_title=p9.element_text(size=9, color=content.INK),
            strip_text_y=p9.element_text(size=9, weight="bold", ha="center", color=content.INK),
        )
    )


def _decade_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round durations between two, no more than `most` where decades alone do."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        candidates = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in candidates if low * 0.98 <= tick <= high * 1.02]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]
