"""Draws figures with a row per infrastructure."""

from __future__ import annotations

from math import ceil
from typing import Any

import plotnine as p9

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.reporting.figures import content
from pytest_openenv_scale.reporting.figures.bars import EXACT, OPEN, PHASES, SIGNS, UNSURE

from .theme import RowLayout, data_frame, figure_frame, infrastructure_scales, legend_height, seconds_ticks


def draw_bars(figure: content.FigureContent) -> Any:
    """Draw max batch, or max batch per core, with plotnine."""
    bars = data_frame(figure.frames["bars"]).astype({"value": float, "upper": float})
    layout = RowLayout.of(figure, bars)
    bars["y"] = layout.column(bars)
    bars["low"], bars["high"] = bars["y"] - 0.36, bars["y"] + 0.36
    longest = float(max(bars["value"].max(), bars["upper"].fillna(0).max())) or 1.0
    pale = bars[bars["upper"].notna() & (bars["upper"] > bars["value"])]
    exact, unsure = pale[pale["kind"] == EXACT], pale[pale["kind"] == UNSURE]
    ends = bars[bars["kind"] == OPEN].assign(to=lambda table: table["value"] + 0.008 * longest)
    bars["end"] = bars["value"] + longest * bars["kind"].map(lambda kind: 0.03 if kind == OPEN else 0.01)
    span = {"ymin": "low", "ymax": "high"}
    text = {"size": 8.5, "ha": "left", "inherit_aes": False, "colour": content.INK}
    ticks = [tick for tick in content.round_ticks(longest) if tick == int(tick) or not figure.facts.get("whole")]
    labels = list(map(formatting.number, ticks))
    return (
        p9.ggplot(bars, p9.aes(fill="infrastructure"))
        + p9.geom_rect(p9.aes(xmin="value", xmax="upper", **span), exact, alpha=0.28, colour="none")
        + p9.geom_rect(
            p9.aes(xmin="value", xmax="upper", colour="infrastructure", **span),
            unsure,
            fill=content.SURFACE,
            linetype="dashed",
            size=0.6,
        )
        + p9.geom_rect(p9.aes(xmin=0, xmax="value", **span), colour="none")
        + p9.geom_point(p9.aes("to", "y", colour="infrastructure"), ends, shape=">", size=2.6)
        + p9.geom_text(p9.aes("end", "y", label="text"), bars, **text)
        + infrastructure_scales(figure.facts["infrastructures"], "fill", "colour")
        + layout.value_axis(longest, ticks, labels, texts=bars["text"], per_sign=0.075, beside=0.05)
        + layout.layers(0.0)
        + figure_frame(figure, layout.size(figure, 0.34), x=figure.facts["x"], grid="x", legend="none")
    )


_ONE_LINE_IN, _LABEL_IN, _FIGURE_IN = 0.6, 0.4, 0.35
"""Inches a tile needs for a figure with its sign in one line, for the label of its batch, and for a figure at all."""


def draw_heat(figure: content.FigureContent) -> Any:
    """Draw the tiles of p99 latency with plotnine."""
    tiles = data_frame(figure.frames["tiles"])
    layout = RowLayout.of(figure, tiles)
    batches = sorted(set(tiles["batch"]))
    tiles["x"], tiles["y"] = (
        tiles["batch"].map({batch: float(at) for at, batch in enumerate(batches)}),
        layout.column(tiles),
    )
    tiles["fill"] = tiles["shade"].fillna(content.GRID)
    # Text on a tile keeps its colour on every page, except on that of "none", which changes with the page.
    tiles["ink"] = [
        content.INK if shade is None else "#fdfdfd" if content.is_dark(shade) else "#101010"
        for shade in figure.frames["tiles"]["shade"]
    ]
    room = layout.panel_width / len(batches)
    narrow, labelled = room < _ONE_LINE_IN, batches[:: ceil(_LABEL_IN / room)]
    if narrow:
        texts = zip(tiles["text"], tiles["state"], strict=True)
        tiles["text"] = [_narrow_tile_text(text, SIGNS[state], room) for text, state in texts]
    return (
        p9.ggplot(tiles, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="fill"), width=0.94, height=0.88)
        + p9.geom_text(p9.aes(label="text", colour="ink"), size=7 if narrow else 8.5)
        + p9.scale_fill_identity()
        + p9.scale_colour_identity()
        + p9.scale_x_continuous(
            breaks=[batches.index(batch) for batch in labelled],
            labels=[content.batch_text(batch) for batch in labelled],
            limits=(-0.55, max(len(batches), 3) - 0.45),
            expand=(0, 0),
        )
        + layout.layers(-0.48)
        + figure_frame(figure, layout.size(figure, 0.42), x=content.BATCH_AXIS, grid="", legend="none")
        + p9.theme(axis_line_x=p9.element_blank())
        + (p9.theme(axis_text_x=p9.element_text(size=7)) if narrow else p9.theme())
    )


def _narrow_tile_text(text: str, sign: str, room: float) -> str:
    """Return the text of a tile `room` inches wide: the sign below the figure, or the sign alone."""
    if room < _FIGURE_IN:
        return sign
    return f"{text.removesuffix(f' {sign}')}\n{sign}" if sign else text


_PHASE_NAMES = {
    "queue": "queue in this client",
    "connect": "connect",
    "reset": "reset",
    "step": "steps beyond their waits",
}


_VISIBLE = 0.002
"""A part of a bar narrower than this share of the longest is no wider than a line: the legend leaves its phase out."""


def draw_latency(figure: content.FigureContent) -> Any:
    """Draw the latencies by phase with plotnine."""
    rows = data_frame(figure.frames["rows"])
    phases = [phase for phase in PHASES if phase in set(figure.frames["parts"]["phase"])]
    parts = data_frame(figure.frames["parts"], phase=phases)
    layout = RowLayout.of(figure, rows)
    rows["y"], parts["y"] = layout.column(rows), layout.column(parts)
    parts["low"], parts["high"] = parts["y"] - 0.34, parts["y"] + 0.34
    longest = float(max(rows["mean"].max(), rows["p99"].max())) or 1e-3
    rows["end"] = rows[["mean", "p99"]].max(axis=1) + 0.022 * longest
    ticks = content.round_ticks(longest)
    widths = (parts["end"] - parts["start"]).groupby(parts["phase"], observed=True).max()
    visible = [phase for phase in phases if widths[phase] > _VISIBLE * longest]
    legend = legend_height([_PHASE_NAMES[phase] for phase in visible])
    return (
        p9.ggplot(parts)
        + p9.geom_rect(p9.aes(xmin="start", xmax="end", ymin="low", ymax="high", fill="phase"))
        + p9.geom_segment(p9.aes(x="mean", xend="p99", y="y", yend="y"), rows, colour=content.MUTED, size=0.5)
        + p9.geom_point(
            p9.aes("p99", "y"),
            rows,
            shape="D",
            size=2.3,
            fill=content.SURFACE,
            colour=content.INK,
            stroke=0.7,
        )
        + p9.geom_text(p9.aes("end", "y", label="text"), rows, size=8.5, ha="left", colour=content.INK)
        + p9.scale_fill_manual(content.PHASES, breaks=visible, labels=[_PHASE_NAMES[phase] for phase in visible])
        + layout.value_axis(longest, ticks, seconds_ticks(ticks), texts=rows["text"], per_sign=0.073, beside=0.04)
        + layout.layers(0.0)
        + figure_frame(figure, layout.size(figure, 0.36, legend), x="latency beyond the waits", grid="x")
    )
