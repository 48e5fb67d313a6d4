"""Success against batch: where each curve leaves the line it has to stay above."""

from __future__ import annotations

from itertools import pairwise
from math import log2
from typing import Any

from pytest_openenv_scale.core.slo import DEFAULT_SUCCESS
from pytest_openenv_scale.reports import phrases
from pytest_openenv_scale.reports.study import Study, StudyCurve

from . import content as c

KEY = "scaling"
_POINTS = ("infrastructure", "panel", "batch", "success", "least", "most", "state")


def content(study: Study) -> c.Content | None:
    """Return the worst success of every batch over its repetitions, their range, and the limits; None without any."""
    rows = [row for curve in study.curves for row in _points(curve)]
    if not rows:
        return None
    shown = [curve for curve in study.curves if any(True for _ in _points(curve))]
    names, panels = c.infrastructures_of(study, shown), c.panels_of(shown)
    limits = sorted({(c.panel_of(curve), _limit(curve)) for curve in shown})
    open_ends = [
        (curve.infrastructure, c.panel_of(curve), curve.verdict.max_batch, point.success)
        for curve in shown
        if phrases.is_open(curve.verdict) and (point := curve.best) and point.success is not None
    ]
    notes = [
        c.STATES_NOTE + ("    ▶  the largest batch asked for passes, nothing larger was tried" if open_ends else "")
    ]
    if any(row[4] != row[5] for row in rows):
        notes.append("A marker is the worst repetition; the line through it is the range of the repetitions.")
    if len(names) > 1:
        notes.append("Markers of one batch stand side by side, so that none hides another.")
    return c.Content(
        key=KEY,
        title="How many sessions succeed at each batch",
        subtitle=c.subtitle_of(panels),
        alt_text=_said(shown),
        frames={
            "points": c.frame(_POINTS, rows),
            "limits": c.frame(("panel", "limit"), limits),
            "open": c.frame(("infrastructure", "panel", "batch", "success"), open_ends),
        },
        facts={"infrastructures": names, "panels": panels},
        notes=tuple(notes),
    )


def _points(curve: StudyCurve) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for point in curve.points:
        rates = [one.success_rate for one in point.repetitions if one.success_rate is not None]
        if rates:
            place = (curve.infrastructure, c.panel_of(curve), point.batch)
            found.append((*place, min(rates), min(rates), max(rates), c.state_of(point)))
    return found


def _limit(curve: StudyCurve) -> float:
    asked = curve.verdict.slo.limit("success")
    return DEFAULT_SUCCESS if asked is None else asked.allowed


def _said(curves: list[StudyCurve]) -> str:
    each = [
        f"{curve.infrastructure} {c.panel_of(curve)}: max batch {phrases.max_batch(curve.verdict)}" for curve in curves
    ]
    return f"Share of successful sessions against batch. {'; '.join(each)}."


def side_by_side(names: list[str], batches: list[int]) -> dict[str, float]:
    """Return a factor per infrastructure that sets its markers beside the batch, within the gap to the next batch."""
    logs = sorted({log2(batch) for batch in batches})
    gaps = [right - left for left, right in pairwise(logs)]
    whole = 0.05 * max(logs[-1] - logs[0], 1.0)
    step = min(whole / max(len(names) - 1, 3), 0.5 * min(gaps, default=1.0) / max(len(names), 1))
    return {name: 2 ** ((at - (len(names) - 1) / 2) * step) for at, name in enumerate(names)}


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .theme import Grid, axis_of_batches, data, infrastructure_scales, labels, state_layers, the_theme

    names, panels = shown.facts["infrastructures"], shown.facts["panels"]
    points = data(shown.frames["points"], infrastructure=names, panel=panels)
    limits = data(shown.frames["limits"], panel=panels)
    ends = data(shown.frames["open"], infrastructure=names, panel=panels)
    beside = side_by_side(names, list(points["batch"]))
    for table in (points, ends):
        table["x"] = table["batch"] * table["infrastructure"].astype(str).map(beside).astype(float)
    limits["text"] = [f"{limit * 100:.4g} % needed" for limit in limits["limit"]]
    first, last = points["batch"].min(), points["batch"].max()
    limits["x"] = first
    span = max(last / first, 2.0) ** 0.045
    ends["to"] = ends["x"] * span
    grid = Grid(len(panels), names, height=2.9 if len(panels) <= 2 else 2.4)
    return (
        p9.ggplot(points, p9.aes("x", "success", colour="infrastructure"))
        + p9.geom_hline(p9.aes(yintercept="limit"), limits, linetype="dashed", colour=palette.MUTED, size=0.6)
        + p9.geom_text(
            p9.aes("x", "limit", label="text"),
            limits,
            colour=palette.MUTED,
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
        + axis_of_batches(points, grid.panel_width, reach=span)
        + p9.scale_y_continuous(
            limits=(-0.03, 1.06),
            breaks=[0, 0.25, 0.5, 0.75, 1],
            labels=["0 %", "25 %", "50 %", "75 %", "100 %"],
            expand=(0, 0),
        )
        + grid.facets()
        + labels(shown, x="batch (sessions asked for at once)", y="successful sessions")
        + the_theme(*grid.size(shown), grid="y")
    )
