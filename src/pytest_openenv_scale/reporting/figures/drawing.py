"""The figures drawn with plotnine, which only the process that draws may import: a function per kind of figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log, log10
from typing import Any

import pandas as pd
import plotnine as p9

from pytest_openenv_scale.core import formatting

from . import content
from .bars import EXACT, PHASES, SIGNS, UNSURE
from .bars import OPEN as OPEN_ENDED
from .lines import CAPACITY, DOUBTFUL, RATE, SHAPES, THROUGHPUT
from .over_time import MEMORY, P50, P99, SINGLE, STEPS, SUCCESS
from .over_time import OPEN as SESSIONS_OPEN
from .sessions import ASKED, OPEN, STEPPING
from .theme import (
    WIDTH,
    PanelGrid,
    RowLayout,
    batch_axis,
    data_frame,
    figure_frame,
    infrastructure_scales,
    legend_height,
    panel_labels,
    renamed_panels,
    seconds_ticks,
    state_layers,
    text_height,
    time_breaks,
    time_ticks,
    with_order,
)


def draw_bars(figure: content.FigureContent) -> Any:
    """Draw max batch, or max batch per core, with plotnine."""
    bars = data_frame(figure.frames["bars"]).astype({"value": float, "upper": float})
    layout = RowLayout.of(figure, bars)
    bars["y"] = layout.column(bars)
    bars["low"], bars["high"] = bars["y"] - 0.36, bars["y"] + 0.36
    longest = float(max(bars["value"].max(), bars["upper"].fillna(0).max())) or 1.0
    pale = bars[bars["upper"].notna() & (bars["upper"] > bars["value"])]
    exact, unsure = pale[pale["kind"] == EXACT], pale[pale["kind"] == UNSURE]
    ends = bars[bars["kind"] == OPEN_ENDED].assign(to=lambda table: table["value"] + 0.008 * longest)
    bars["end"] = bars["upper"].where(bars["upper"].notna(), bars["value"] + 0.02 * longest)
    bars["end"] = bars[["end", "value"]].max(axis=1) + 0.01 * longest
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
    legend = legend_height(list(_PHASE_NAMES.values()))
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
        + p9.scale_fill_manual(content.PHASES, breaks=phases, labels=[_PHASE_NAMES[phase] for phase in phases])
        + layout.value_axis(longest, ticks, seconds_ticks(ticks), texts=rows["text"], per_sign=0.073, beside=0.04)
        + layout.layers(0.0)
        + figure_frame(figure, layout.size(figure, 0.36, legend), x="latency beyond the waits", grid="x")
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


def draw_concurrency(figure: content.FigureContent) -> Any:
    """Draw sessions over time with plotnine."""
    names = {panel: _two_lines(panel, 46) for panel in figure.facts["panels"]}
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


_NO_BREAK = re.compile(r" (?=·|s\b)")
"""Where a line does not end: before a dot that parts two facts, and before the unit of a number."""


def _two_lines(panel: str, width: int) -> str:
    """Return the name of a cell's panel, lines before the last broken where they are longer than `width` characters."""
    place, line_end, cell = panel.rpartition("\n")
    wrapped = content.wrap_label(_NO_BREAK.sub("\xa0", place), width) if place else ""
    return f"{wrapped}{line_end}{cell}"


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


_PANEL_STEP = 10.0
"""How far apart the values of two measures are moved, so that one axis of numbers serves panels of several units."""


def draw_over_time(figure: content.FigureContent) -> Any:
    """Draw the windows of a steady state with plotnine: a row of panels per measure, a column per cell."""
    measures = figure.facts["measures"]
    panels = figure.facts["panels"]
    names = {panel: _two_lines(panel, 88 // len(panels)) for panel in panels}
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
    SESSIONS_OPEN: lambda ticks: [content.batch_text(tick) for tick in ticks],
    STEPS: seconds_ticks,
    SUCCESS: lambda ticks: [f"{tick * 100:.0f} %" for tick in ticks],
    MEMORY: lambda ticks: [formatting.binary_size(tick) for tick in ticks],
}
"""How the axis of each measure names its values."""


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


def draw_history(figure: content.FigureContent) -> Any:
    """Draw the history of curves with plotnine."""
    points, machine_changes = data_frame(figure.frames["points"]), data_frame(figure.frames["moved"])
    names, panels = (list(dict.fromkeys(figure.frames["points"][column])) for column in ("infrastructure", "panel"))
    ticks, unit = figure.facts["ticks"], figure.facts["unit"]
    height = 2.3 * max(len(panels), 1) + text_height(figure) + 0.9
    unit = {"seconds": "seconds", "fraction": "share of sessions"}.get(unit, unit)
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
