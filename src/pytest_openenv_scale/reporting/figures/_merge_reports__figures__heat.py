"""The 99th percentile at every batch on every infrastructure, as a map of tiles."""

from __future__ import annotations

from math import ceil, log10
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.reports.study import Study

from . import content as c
from .palette import heat

KEY = "p99"
_SIGNS = {c.PASSES: "", c.FAILS: "✕", c.DOUBTFUL: "?"}
_ONE_LINE_IN, _LABEL_IN, _FIGURE_IN = 0.6, 0.4, 0.35
"""Inches a tile needs for a figure with its sign in one line, for the label of its batch, and for a figure at all."""
_TILES = ("infrastructure", "panel", "batch", "p99", "state", "shade", "text")


def content(study: Study) -> c.Content | None:
    """Return the overhead p99 of every batch, the slowest repetition; None where no session succeeded."""
    measured = [
        (curve, point, point.latency(c.beyond_waits(curve))) for curve in study.curves for point in curve.points
    ]
    known = [value for _, _, value in measured if value is not None]
    if not known:
        return None
    low, high = (log10(max(value, 1e-4)) for value in (min(known), max(known)))
    span = max(high - low, 1.0)
    rows: list[tuple[Any, ...]] = []
    for curve, point, value in measured:
        state = c.state_of(point)
        shade = None if value is None else heat((log10(max(value, 1e-4)) - low) / span)
        text = "none" if value is None else text_of.seconds(value)
        place = curve.infrastructure, c.panel_of(curve), point.batch
        rows.append((*place, value, state, shade, f"{text} {_SIGNS[state]}".rstrip()))
    curves = [curve for curve in study.curves if curve.points]
    names, panels = c.infrastructures_of(study, curves), c.panels_of(curves)
    states = {row[4] for row in rows}
    notes = [
        "p99 of total latency less the waits asked for, of successful sessions; the slowest repetition. "
        "Darker is slower, in equal steps of a logarithm, the same in all panels."
    ]
    signs = [("✕  fails a limit", c.FAILS), ("?  inconclusive", c.DOUBTFUL)]
    told = [sign for sign, state in signs if state in states]
    told += ["none  no session succeeded"] if any(row[3] is None for row in rows) else []
    told += (
        ["empty  not measured"] if len(rows) < len({row[:2] for row in rows}) * len({row[2] for row in rows}) else []
    )
    notes += ["    ".join(told)] if told else []
    worst = max((row for row in rows if row[3] is not None), key=lambda row: row[3])
    return c.Content(
        key=KEY,
        title="p99 latency beyond the waits, by batch and infrastructure",
        subtitle=c.subtitle_of(panels),
        alt_text=(
            f"p99 of the latency beyond the waits asked for, from {text_of.seconds(min(known))} to"
            f" {text_of.seconds(max(known))} ({worst[0]}, {worst[1]}, batch {c.batch_text(worst[2])})."
        ),
        frames={"tiles": c.frame(_TILES, rows)},
        facts={"infrastructures": names, "panels": panels},
        notes=tuple(notes),
    )


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .stack import Stack
    from .theme import data, labels, the_theme

    names, panels = shown.facts["infrastructures"], shown.facts["panels"]
    tiles = data(shown.frames["tiles"])
    stack = Stack.of(zip(tiles["panel"], tiles["infrastructure"], strict=True), panels, names)
    batches = sorted(set(tiles["batch"]))
    tiles["x"], tiles["y"] = (
        tiles["batch"].map({batch: float(at) for at, batch in enumerate(batches)}),
        stack.column(tiles),
    )
    tiles["fill"] = tiles["shade"].fillna(palette.GRID)
    # Text on a tile keeps its colour on every page, except on that of "none", which changes with the page.
    tiles["ink"] = [
        palette.INK if shade is None else "#fdfdfd" if palette.is_dark(shade) else "#101010"
        for shade in shown.frames["tiles"]["shade"]
    ]
    room = stack.panel_width / len(batches)
    narrow, labelled = room < _ONE_LINE_IN, batches[:: ceil(_LABEL_IN / room)]
    if narrow:
        texts = zip(tiles["text"], tiles["state"], strict=True)
        tiles["text"] = [_in_little_room(text, _SIGNS[state], room) for text, state in texts]
    return (
        p9.ggplot(tiles, p9.aes("x", "y"))
        + p9.geom_tile(p9.aes(fill="fill"), width=0.94, height=0.88)
        + p9.geom_text(p9.aes(label="text", colour="ink"), size=7 if narrow else 8.5)
        + p9.scale_fill_identity()
        + p9.scale_colour_identity()
        + p9.scale_x_continuous(
            breaks=[batches.index(batch) for batch in labelled],
            labels=[c.batch_text(batch) for batch in labelled],
            limits=(-0.55, max(len(batches), 3) - 0.45),
            expand=(0, 0),
        )
        + stack.layers(-0.48)
        + labels(shown, x="batch (sessions asked for at once)", y="")
        + the_theme(*stack.size(shown, 0.42), grid="", legend="none")
        + p9.theme(axis_line_x=p9.element_blank())
        + (p9.theme(axis_text_x=p9.element_text(size=7)) if narrow else p9.theme())
    )


def _in_little_room(text: str, sign: str, room: float) -> str:
    """Return what a tile of so many inches says: the sign below the figure, or the sign alone."""
    if room < _FIGURE_IN:
        return sign
    return f"{text.removesuffix(f' {sign}')}\n{sign}" if sign else text
