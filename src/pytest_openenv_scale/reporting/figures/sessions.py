"""Sessions over the time of a cell: how many were asked for, open and stepping."""

from __future__ import annotations

from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.reports.study import Point, Study, StudyCurve

from . import content as c
from .bars import nice
from .rows import Rows, concurrency

KEY = "concurrency"
ASKED, OPEN, STEPPING = "asked for", "open", "stepping"
PANELS = 12
"""So many cells are shown; of more, those with the longest wait of each infrastructure and mode."""

_LINES = ("panel", "measure", "seconds", "sessions")
_PEAKS = ("panel", "peak", "text")


def content(study: Study, rows: Rows) -> c.Content | None:
    """Return the lines of the cell of max batch and of the smallest one that does not pass; None without rows."""
    cells = [(curve, point) for curve in study.curves for point in _cells(curve)]
    if len(cells) > PANELS:
        longest = {(curve.infrastructure, curve.mode): curve for curve in study.curves}
        kept = [(curve, point) for curve, point in cells if longest[curve.infrastructure, curve.mode] is curve]
        if len(kept) > PANELS:
            kept = [(curve, point) for curve, point in kept if point is _cells(curve)[-1]]
    else:
        kept = cells
    lines: list[tuple[Any, ...]] = []
    peaks: list[tuple[Any, ...]] = []
    for curve, point in kept[:PANELS]:
        cell = min(
            point.repetitions, key=lambda one: (one.success_rate is None, one.success_rate or 0.0, one.repetition)
        )
        parts = [part for part in rows.of_cell(curve, point.batch) if part.meta.repetition == cell.repetition]
        found = concurrency(parts[0]) if parts else None
        if found is None or cell.peak_concurrency is None:
            continue
        which = f"batch {c.batch_text(point.batch)} {_STATES[c.state_of(point)]}"
        panel = f"{curve.infrastructure}\n{c.panel_of(curve)} · {which}"
        for measure, values in ((ASKED, found.asked), (OPEN, found.opened), (STEPPING, found.stepping)):
            kept_at = _corners(values)
            lines += [(panel, measure, found.times[at], values[at]) for at in kept_at]
        peaks.append(
            (
                panel,
                cell.held,
                f"at most {text_of.count(cell.held)} open of {text_of.count(cell.asked)}",
            )
        )
    if not lines:
        return None
    left_out = len(cells) - len(peaks)
    notes = [
        "Each curve at its max batch and at the smallest batch that does not pass, in the worst repetition."
        " Open: from the answered reset to the close; stepping: once the whole batch is up."
    ]
    if left_out:
        notes.append(f"{text_of.count_of(left_out, 'more cell')} not shown: shorter waits, or without rows.")
    return c.Content(
        key=KEY,
        title="Sessions over time: asked for, open and stepping",
        subtitle=peaks[0][0].replace("\n", " · ") if len(peaks) == 1 else "",
        alt_text="Sessions over time. "
        + "; ".join(f"{panel.replace(chr(10), ' ')}: {text}" for panel, _, text in peaks)
        + ".",
        frames={"lines": c.frame(_LINES, lines), "peaks": c.frame(_PEAKS, peaks)},
        facts={"panels": [peak[0] for peak in peaks]},
        notes=tuple(notes),
    )


_STATES = {c.PASSES: "passes", c.FAILS: "fails ✕", c.DOUBTFUL: "inconclusive ?"}


def _cells(curve: StudyCurve) -> list[Point]:
    """Return the point of max batch and the first beyond it; where none passes, the smallest."""
    beyond = next((point for point in curve.points if not point.passed), None)
    return [point for point in (curve.best, beyond) if point is not None]


def _corners(values: list[int]) -> list[int]:
    """Return where a line of steps changes, and its ends: all that is needed to draw it."""
    last = len(values) - 1
    return [
        at
        for at in range(len(values))
        if at in (0, last) or values[at] != values[at - 1] or values[at] != values[at + 1]
    ]


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .theme import Grid, data, labels, seconds_ticks, the_theme

    names = {
        panel: "\n".join([c.wrapped(panel.split("\n")[0], 46), panel.split("\n")[1]]) for panel in shown.facts["panels"]
    }
    order = list(names.values())
    frames = {
        key: {**columns, "panel": [names[panel] for panel in columns["panel"]]} for key, columns in shown.frames.items()
    }
    lines = data(frames["lines"], panel=order, measure=[ASKED, OPEN, STEPPING])
    filled = lines[lines["measure"] == STEPPING]
    top = lines.groupby("panel", observed=True)["sessions"].max()
    peaks = data(frames["peaks"], panel=order)
    peaks["top"] = [float(top[panel]) * 1.03 for panel in peaks["panel"]]
    colours = {ASKED: palette.MUTED, OPEN: palette.PHASES["connect"], STEPPING: palette.PHASES["reset"]}
    grid = Grid(len(order), [ASKED], height=1.55, scales="free", strip=0.48)
    return (
        p9.ggplot(lines, p9.aes("seconds", "sessions", colour="measure"))
        + p9.geom_polygon(p9.aes(group="panel"), _areas(filled), fill=colours[STEPPING], alpha=0.3, colour="none")
        + p9.geom_step(p9.aes(linetype="measure", size="measure"), direction="hv")
        + p9.geom_text(
            p9.aes(x=0, y="top", label="text"),
            peaks,
            colour=palette.MUTED,
            size=8,
            ha="left",
            va="bottom",
            inherit_aes=False,
        )
        + p9.scale_colour_manual(colours)
        + p9.scale_linetype_manual({ASKED: "dashed", OPEN: "solid", STEPPING: "solid"})
        + p9.scale_size_manual({ASKED: 0.6, OPEN: 1.0, STEPPING: 0.8})
        + p9.scale_x_continuous(
            breaks=lambda limits: nice(limits[1], 5), labels=seconds_ticks, expand=(0.01, 0, 0.02, 0)
        )
        + p9.scale_y_continuous(
            breaks=lambda limits: [tick for tick in nice(limits[1], 4) if tick == int(tick)],
            labels=lambda ticks: [c.batch_text(tick) for tick in ticks],
            limits=lambda limits: (0, max(limits[1], 1) * 1.16),
            expand=(0, 0),
        )
        + grid.facets()
        + labels(shown, x="time since the start of the cell", y="sessions")
        + the_theme(*grid.size(shown), grid="y")
    )


def _areas(lines: Any) -> Any:
    """Return the outline of the area below every line of steps."""
    import pandas as pd

    found: list[Any] = []
    for _, line in lines.groupby("panel", observed=True):
        # A step has two corners: where the value before it ends, and where its own begins.
        before = line.assign(sessions=line["sessions"].shift(1)).iloc[1:]
        corners = pd.concat([before.assign(turn=0), line.assign(turn=1)]).sort_values(["seconds", "turn"])
        base = line.iloc[[-1, 0]].assign(sessions=0)
        found.append(pd.concat([corners, base]))
    return pd.concat(found)
