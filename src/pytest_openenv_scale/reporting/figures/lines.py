"""Figures against batch or number of servers: success, throughput, and what more replicas or nodes bring."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log2, log10
from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.replicas import ScalingRow, ScalingTable, scaling_tables

from . import content

THROUGHPUT_KEY = "throughput"
_THROUGHPUT_COLUMNS = ("infrastructure", "panel", "measure", "batch", "value", "state")
RATE, EFFICIENCY = "sessions per second", "efficiency"


def throughput_content(study: Study) -> content.FigureContent | None:
    """Return sessions per second at every batch, and which share of the asked concurrency was kept busy."""
    rows: list[tuple[Any, ...]] = []
    ideal: dict[tuple[str, int], float] = {}
    for curve in study.curves:
        for point in curve.points:
            series, state = (curve.infrastructure, content.panel_of(curve)), content.point_state(point)
            if point.requests_per_second:
                rows.append((*series, RATE, point.batch, point.requests_per_second, state))
            if (share := efficiency(curve, point)) is not None:
                rows.append((*series, EFFICIENCY, point.batch, share, state))
                ideal[content.panel_of(curve), point.batch] = point.batch / (
                    (curve.wait or 1.0) * curve.curve.curve.steps
                )
    if not any(row[2] == RATE for row in rows):
        return None
    curves = [curve for curve in study.curves if any(row[0] == curve.infrastructure for row in rows)]
    names = content.infrastructures_of(study, curves)
    panels = [panel for panel in content.panels_of(study.curves) if any(row[1] == panel for row in rows)]
    best = max((row for row in rows if row[2] == RATE), key=lambda row: row[4])
    notes = [content.STATES_NOTE + ("    - - -  ideal: batch ÷ (steps × wait)" if ideal else "")]
    if ideal:
        notes.append(
            "Efficiency: seconds that successful sessions spent in their waits ÷ (batch × duration of the cell);"
            " connecting, resetting, queueing and failing make it less than 100 %."
        )
    return content.FigureContent(
        key=THROUGHPUT_KEY,
        title="Throughput against batch, and its efficiency" if ideal else "Throughput against batch",
        subtitle=content.subtitle_of(panels),
        alt_text=(
            f"Throughput and efficiency against batch; the most is {formatting.rate(best[4])} sessions per second"
            f" ({best[0]}, {best[1]}, batch {content.batch_text(best[3])})."
        ),
        frames={
            "points": content.frame(_THROUGHPUT_COLUMNS, rows),
            "ideal": content.frame(
                ("panel", "measure", "batch", "value"),
                [(panel, RATE, batch, rate) for (panel, batch), rate in sorted(ideal.items())],
            ),
        },
        facts={"infrastructures": names, "panels": panels, "measures": [RATE, *([EFFICIENCY] if ideal else [])]},
        notes=tuple(notes),
    )


def efficiency(curve: StudyCurve, point: BatchPoint) -> float | None:
    """Return effective concurrency ÷ batch, a fraction; None where no wait was asked for or nothing is known."""
    if not curve.wait or point.effective_concurrency is None:
        return None
    return point.effective_concurrency / point.batch


_RATE_OFFSET = 1000.0
"""Added to the logarithms of rates, so that an axis tells by its limits which of both measures it is for."""


def draw_throughput(figure: content.FigureContent) -> Any:
    """Draw throughput and efficiency against batch with plotnine."""
    import plotnine as p9

    from .theme import (
        WIDTH,
        batch_axis,
        data_frame,
        figure_labels,
        figure_theme,
        infrastructure_scales,
        legend_height,
        state_layers,
        text_height,
    )

    names, panels, measures = (figure.facts[key] for key in ("infrastructures", "panels", "measures"))
    points = data_frame(figure.frames["points"], infrastructure=names, panel=panels, measure=measures)
    ideal = data_frame(figure.frames["ideal"], panel=panels, measure=measures)
    beside = side_by_side(names, list(points["batch"]))
    points["x"] = points["batch"] * points["infrastructure"].astype(str).map(beside).astype(float)
    for table in (points, ideal):
        table["y"] = [
            _RATE_OFFSET + log10(value) if measure == RATE else value
            for value, measure in zip(table["value"], table["measure"], strict=True)
        ]
    height = text_height(figure) + 0.85 + 2.5 * len(measures) + legend_height(names)
    split = p9.facet_grid("measure", "panel" if len(panels) > 1 else None, scales="free_y")
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
        + figure_labels(figure, x="batch (sessions asked for at once)", y="")
        + figure_theme(WIDTH, height, grid="y")
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


NODES_KEY = "nodes"
_NODES_COLUMNS = ("panel", "measure", "replicas", "factor", "open", "text", "side")
CAPACITY, THROUGHPUT = "max batch", "throughput"


def nodes_content(study: Study) -> content.FigureContent | None:
    """Return the factor gained by every number of replicas of the same target; None where none was repeated."""
    tables = scaling_tables(study.sweeps)
    rows = [row for table in tables for row in _node_rows(table)]
    if not rows:
        return None
    panels = list(dict.fromkeys(row[0] for row in rows))
    ideal = [(_node_panel(table), row.count, row.count / table.rows[0].count) for table in tables for row in table.rows]
    notes = ["- - -  ideal: twice as many bring twice as much.   Per cent: efficiency, the share of the ideal reached."]
    if any(row[4] for row in rows):
        notes.append("▶ and ≥: the largest batch asked for passes there, so that it may hold more.")
    shared = (
        f"All {table.axis} of {on_one_line(table.target)} share {formatting.count_of(table.cores, 'core')}."
        for table in tables
        if table.cores is not None
    )
    notes += dict.fromkeys(shared)
    texts = [f"{row[0]} {row[1]} with {row[2]}: {row[5]}" for row in rows]
    return content.FigureContent(
        key=NODES_KEY,
        title="Single against several: what more replicas or nodes bring",
        subtitle=content.subtitle_of(panels),
        alt_text=f"Factor gained by more replicas or nodes. {'; '.join(texts)}.",
        frames={
            "points": content.frame(_NODES_COLUMNS, rows),
            "ideal": content.frame(("panel", "replicas", "factor"), ideal),
        },
        facts={"panels": panels},
        notes=tuple(notes),
    )


def _node_panel(table: ScalingTable) -> str:
    wait = "" if table.wait is None else f" · wait {format_number(table.wait)} s"
    return f"{on_one_line(table.target)} · {table.mode}{wait}"


def _node_rows(table: ScalingTable) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for row in table.rows:
        times = row.count / table.rows[0].count
        measures = _node_measures(row)
        # The higher of two points has its text above, the lower one below.
        higher = max((share for _, share, _, _ in measures if share is not None), default=None)
        for measure, share, is_open, text in measures:
            if share is not None:
                side = (
                    1 if share == higher and not any(other[2:4] == (row.count, share * times) for other in rows) else -1
                )
                rows.append((_node_panel(table), measure, row.count, share * times, is_open, text, side))
    return rows


def _node_measures(row: ScalingRow) -> list[tuple[str, float | None, bool, str]]:
    capacity = f"{row.max_batch_text} ({formatting.percent(row.capacity_efficiency)})"
    rate = f"{formatting.rate(row.requests_per_second)}/s ({formatting.percent(row.efficiency)})"
    return [(CAPACITY, row.capacity_efficiency, row.is_open, capacity), (THROUGHPUT, row.efficiency, False, rate)]


def draw_nodes(figure: content.FigureContent) -> Any:
    """Draw the factors gained by replicas or nodes with plotnine."""
    import plotnine as p9

    from .theme import PanelGrid, data_frame, figure_labels, figure_theme

    panels = [content.wrap_label(panel, 52) for panel in figure.facts["panels"]]
    names = dict(zip(figure.facts["panels"], panels, strict=True))
    frames = {
        key: {**columns, "panel": [names[panel] for panel in columns["panel"]]}
        for key, columns in figure.frames.items()
    }
    points = data_frame(frames["points"], panel=panels, measure=[CAPACITY, THROUGHPUT])
    ideal = data_frame(frames["ideal"], panel=panels)
    # The same axis on both sides, so that the ideal is a diagonal.
    highest = float(max(points["factor"].max(), ideal["factor"].max()))
    points["text_y"] = points["factor"] + points["side"] * 0.055 * highest
    ends = points[points["open"]].assign(top=lambda table: table["factor"] + 0.03 * highest)
    colours = {CAPACITY: content.PHASES["connect"], THROUGHPUT: content.PHASES["step"]}
    grid = PanelGrid(len(panels), [CAPACITY], height=3.1)
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
        + figure_labels(figure, x="replicas or nodes", y="times what the fewest reach")
        + figure_theme(*grid.size(figure), grid="y")
    )


SCALING_KEY = "scaling"
_SCALING_COLUMNS = ("infrastructure", "panel", "batch", "success", "least", "most", "state")


def scaling_content(study: Study) -> content.FigureContent | None:
    """Return the worst success of every batch over its repetitions, their range, and the limits; None without any."""
    rows = [row for curve in study.curves for row in _scaling_rows(curve)]
    if not rows:
        return None
    curves = [curve for curve in study.curves if any(True for _ in _scaling_rows(curve))]
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    limits = sorted({(content.panel_of(curve), _success_limit(curve)) for curve in curves})
    open_ends = [
        (curve.infrastructure, content.panel_of(curve), curve.verdict.max_batch, point.success)
        for curve in curves
        if wording.is_open(curve.verdict) and (point := curve.best) and point.success is not None
    ]
    notes = [
        content.STATES_NOTE
        + ("    ▶  the largest batch asked for passes, nothing larger was tried" if open_ends else "")
    ]
    if any(row[4] != row[5] for row in rows):
        notes.append("A marker is the worst repetition; the line through it is the range of the repetitions.")
    if len(names) > 1:
        notes.append("Markers of one batch stand side by side, so that none hides another.")
    return content.FigureContent(
        key=SCALING_KEY,
        title="How many sessions succeed at each batch",
        subtitle=content.subtitle_of(panels),
        alt_text=_scaling_alt_text(curves),
        frames={
            "points": content.frame(_SCALING_COLUMNS, rows),
            "limits": content.frame(("panel", "limit"), limits),
            "open": content.frame(("infrastructure", "panel", "batch", "success"), open_ends),
        },
        facts={"infrastructures": names, "panels": panels},
        notes=tuple(notes),
    )


def _scaling_rows(curve: StudyCurve) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for point in curve.points:
        rates = [summary.success_rate for summary in point.repetitions if summary.success_rate is not None]
        if rates:
            series = (curve.infrastructure, content.panel_of(curve), point.batch)
            rows.append((*series, min(rates), min(rates), max(rates), content.point_state(point)))
    return rows


def _success_limit(curve: StudyCurve) -> float:
    limit = curve.verdict.slo.limit("success")
    return DEFAULT_SUCCESS if limit is None else limit.allowed


def _scaling_alt_text(curves: list[StudyCurve]) -> str:
    texts = [
        f"{curve.infrastructure} {content.panel_of(curve)}: max batch {wording.max_batch_text(curve.verdict)}"
        for curve in curves
    ]
    return f"Share of successful sessions against batch. {'; '.join(texts)}."


def side_by_side(names: list[str], batches: list[int]) -> dict[str, float]:
    """Return a factor per infrastructure that sets its markers beside the batch, within the gap to the next batch."""
    logs = sorted({log2(batch) for batch in batches})
    gaps = [right - left for left, right in pairwise(logs)]
    total_shift = 0.05 * max(logs[-1] - logs[0], 1.0)
    step = min(total_shift / max(len(names) - 1, 3), 0.5 * min(gaps, default=1.0) / max(len(names), 1))
    return {name: 2 ** ((at - (len(names) - 1) / 2) * step) for at, name in enumerate(names)}


def draw_scaling(figure: content.FigureContent) -> Any:
    """Draw success against batch with plotnine."""
    import plotnine as p9

    from .theme import (
        PanelGrid,
        batch_axis,
        data_frame,
        figure_labels,
        figure_theme,
        infrastructure_scales,
        state_layers,
    )

    names, panels = figure.facts["infrastructures"], figure.facts["panels"]
    points = data_frame(figure.frames["points"], infrastructure=names, panel=panels)
    limits = data_frame(figure.frames["limits"], panel=panels)
    ends = data_frame(figure.frames["open"], infrastructure=names, panel=panels)
    beside = side_by_side(names, list(points["batch"]))
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
        + figure_labels(figure, x="batch (sessions asked for at once)", y="successful sessions")
        + figure_theme(*grid.size(figure), grid="y")
    )
