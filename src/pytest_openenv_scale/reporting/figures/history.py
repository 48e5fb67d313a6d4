"""The history of curves as a figure: one panel per test, mode and wait, one line per infrastructure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_openenv_scale.analysis.history import CurveHistory, HistoryPoint
from pytest_openenv_scale.config.limits import METRICS
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.results.comparison import Side

from .content import MUTED, SURFACE, FigureContent, frame

CERTAIN = "certain"
OPEN = "at least"
DOUBTFUL = "inconclusive"
CUT_SHORT = "not a whole run"
_SHAPES = {CERTAIN: "o", OPEN: "^", DOUBTFUL: "o", CUT_SHORT: "x"}
_MOST_TICKS = 12


def history_content(curves: Sequence[CurveHistory]) -> FigureContent:
    """Return what the figure shows: a point per curve and run, and where the machine changed."""
    runs = sorted(
        {point.run for curve in curves for point in curve.points}, key=lambda run: (run.started_at, run.run_id)
    )
    positions = {run.run_id: at for at, run in enumerate(runs)}
    metric = curves[0].metric
    rows: list[tuple[Any, ...]] = []
    machine_changes: list[tuple[Any, ...]] = []
    for curve in curves:
        panel = _panel_name(curve)
        for point in curve.points:
            at = positions[point.run.run_id]
            if point.value is not None:
                rows.append((at, float(point.value), panel, curve.infrastructure, _state(point)))
            if point.machine:
                machine_changes.append((at - 0.5, panel))
    tick_step = -(-len(runs) // _MOST_TICKS)
    ticks = [(at, _tick_text(run)) for at, run in enumerate(runs) if at % tick_step == 0]
    notes = [f"{_sign(state)}  {state}" for state in _SHAPES if any(row[4] == state for row in rows)]
    machines = ("dashed line: the machine changed",) if machine_changes else ()
    return FigureContent(
        key="history",
        title=f"{metric} over {len(runs)} run{'s' if len(runs) != 1 else ''}",
        alt_text=f"{metric} of {len(curves)} curves over {len(runs)} runs",
        frames={
            "points": frame(("at", "value", "panel", "infrastructure", "state"), rows),
            "moved": frame(("at", "panel"), dict.fromkeys(machine_changes)),
        },
        notes=("    ".join(notes), *machines),
        facts={"ticks": ticks, "unit": METRICS[metric].unit, "metric": metric},
    )


def _panel_name(curve: CurveHistory) -> str:
    wait = "" if curve.wait is None else f" · wait {format_number(curve.wait)} s"
    at = "" if curve.batch is None else f" · batch {curve.batch}"
    return f"{curve.test.rpartition('::')[2]} · {curve.mode}{wait}{at}"


def _state(point: HistoryPoint) -> str:
    if not point.is_whole:
        return CUT_SHORT
    return {"open": OPEN, "inconclusive": DOUBTFUL}.get(point.known, CERTAIN)


def _sign(state: str) -> str:
    return {CERTAIN: "●", OPEN: "▲", DOUBTFUL: "○", CUT_SHORT: "✕"}[state]


def _tick_text(run: Side) -> str:
    commit = f"\n{run.commit[:7]}{'+' if run.dirty else ''}" if run.commit else ""
    return f"{run.started_at:%Y-%m-%d\n%H:%M}{commit}"


def write_history(curves: Sequence[CurveHistory], path: Path) -> None:
    """Draw the history into an SVG or PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # plotnine tells of every point and label it places.
        warnings.simplefilter("ignore")
        drawing, height = _draw(history_content(curves))
        drawing.save(path, width=_width(), height=height, units="in", dpi=150, verbose=False)


def _width() -> float:
    from .theme import WIDTH

    return WIDTH


def _draw(content: FigureContent) -> tuple[Any, float]:
    """Return the figure and its height in inches."""
    import plotnine as p9

    from .theme import data_frame, figure_labels, figure_theme, infrastructure_scales, text_height

    points, machine_changes = data_frame(content.frames["points"]), data_frame(content.frames["moved"])
    names = list(dict.fromkeys(content.frames["points"]["infrastructure"]))
    panels = list(dict.fromkeys(content.frames["points"]["panel"]))
    ticks = content.facts["ticks"]
    height = 2.3 * max(len(panels), 1) + text_height(content) + 0.9
    unit = {"seconds": "seconds", "fraction": "share of sessions"}.get(content.facts["unit"], content.facts["unit"])
    drawing = (
        p9.ggplot(points, p9.aes("at", "value", colour="infrastructure", group="infrastructure"))
        + p9.geom_line(size=0.8)
        + p9.geom_point(p9.aes(shape="state"), data=points[points["state"] != DOUBTFUL], size=3)
        + p9.geom_point(
            data=points[points["state"] == DOUBTFUL],
            shape="o",
            fill=SURFACE,
            size=3,
            stroke=0.8,
            show_legend=False,
        )
        + p9.facet_wrap("panel", ncol=1, scales="free_y")
        + p9.scale_shape_manual(_SHAPES, guide=None)
        + p9.scale_x_continuous(breaks=[at for at, _ in ticks], labels=[text for _, text in ticks], minor_breaks=[])
        + p9.geom_blank(data=data_frame({"at": [0], "value": [0.0]}), mapping=p9.aes("at", "value"), inherit_aes=False)
        + figure_labels(content, x="run", y=f"{content.facts['metric']} ({unit})")
        + figure_theme(_width(), height)
    )
    for scale in infrastructure_scales(names, "colour"):
        drawing += scale
    if len(machine_changes):
        drawing += p9.geom_vline(
            p9.aes(xintercept="at"), data=machine_changes, linetype="dashed", colour=MUTED, size=0.6
        )
    return drawing, height
