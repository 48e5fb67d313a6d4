"""What more replicas or nodes bring, against the ideal of twice as much from twice as many."""

from __future__ import annotations

from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.reports.replicas import ScalingRow, ScalingTable, scaling_tables
from pytest_openenv_scale.reports.study import Study
from pytest_openenv_scale.reports.text import collapse

from . import content as c

KEY = "nodes"
_POINTS = ("panel", "measure", "replicas", "factor", "open", "text", "side")
CAPACITY, THROUGHPUT = "max batch", "throughput"


def content(study: Study) -> c.Content | None:
    """Return the factor gained by every number of replicas of the same target; None where none was repeated."""
    tables = scaling_tables(study.sweeps)
    rows = [row for table in tables for row in _rows(table)]
    if not rows:
        return None
    panels = list(dict.fromkeys(row[0] for row in rows))
    ideal = [(_panel(table), row.count, row.count / table.rows[0].count) for table in tables for row in table.rows]
    notes = ["- - -  ideal: twice as many bring twice as much.   Per cent: efficiency, the share of the ideal reached."]
    if any(row[4] for row in rows):
        notes.append("▶ and ≥: the largest batch asked for passes there, so that it may hold more.")
    shared = (
        f"All {table.axis} of {collapse(table.target)} share {text_of.count_of(table.cores, 'core')}."
        for table in tables
        if table.cores is not None
    )
    notes += dict.fromkeys(shared)
    said = [f"{row[0]} {row[1]} with {row[2]}: {row[5]}" for row in rows]
    return c.Content(
        key=KEY,
        title="Single against several: what more replicas or nodes bring",
        subtitle=c.subtitle_of(panels),
        alt_text=f"Factor gained by more replicas or nodes. {'; '.join(said)}.",
        frames={"points": c.frame(_POINTS, rows), "ideal": c.frame(("panel", "replicas", "factor"), ideal)},
        facts={"panels": panels},
        notes=tuple(notes),
    )


def _panel(table: ScalingTable) -> str:
    wait = "" if table.wait is None else f" · wait {format_number(table.wait)} s"
    return f"{collapse(table.target)} · {table.mode}{wait}"


def _rows(table: ScalingTable) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for row in table.rows:
        times = row.count / table.rows[0].count
        shown = _measures(row)
        # The higher of two points has its text above, the lower one below.
        higher = max((share for _, share, _, _ in shown if share is not None), default=None)
        for measure, share, is_open, text in shown:
            if share is not None:
                side = (
                    1
                    if share == higher and not any(found_row[2:4] == (row.count, share * times) for found_row in found)
                    else -1
                )
                found.append((_panel(table), measure, row.count, share * times, is_open, text, side))
    return found


def _measures(row: ScalingRow) -> list[tuple[str, float | None, bool, str]]:
    capacity = f"{row.max_batch_text} ({text_of.percent(row.capacity_efficiency)})"
    rate = f"{text_of.rate(row.requests_per_second)}/s ({text_of.percent(row.efficiency)})"
    return [(CAPACITY, row.capacity_efficiency, row.is_open, capacity), (THROUGHPUT, row.efficiency, False, rate)]


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .theme import Grid, data, labels, the_theme

    panels = [c.wrapped(panel, 52) for panel in shown.facts["panels"]]
    names = dict(zip(shown.facts["panels"], panels, strict=True))
    frames = {
        key: {**columns, "panel": [names[panel] for panel in columns["panel"]]} for key, columns in shown.frames.items()
    }
    points = data(frames["points"], panel=panels, measure=[CAPACITY, THROUGHPUT])
    ideal = data(frames["ideal"], panel=panels)
    # The same axis on both sides, so that the ideal is a diagonal.
    highest = float(max(points["factor"].max(), ideal["factor"].max()))
    points["text_y"] = points["factor"] + points["side"] * 0.055 * highest
    ends = points[points["open"]].assign(top=lambda table: table["factor"] + 0.03 * highest)
    colours = {CAPACITY: palette.PHASES["connect"], THROUGHPUT: palette.PHASES["step"]}
    grid = Grid(len(panels), [CAPACITY], height=3.1)
    spread = float(points["replicas"].max() - points["replicas"].min())
    return (
        p9.ggplot(points, p9.aes("replicas", "factor"))
        + p9.geom_line(data=ideal, linetype="dashed", colour=palette.MUTED, size=0.6)
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
            labels=lambda values: [f"×{text_of.number(float(value))}" for value in values],
            expand=(0, 0),
        )
        + grid.facets()
        + labels(shown, x="replicas or nodes", y="times what the fewest reach")
        + the_theme(*grid.size(shown), grid="y")
    )
