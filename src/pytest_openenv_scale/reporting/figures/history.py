"""The history of curves as a figure: one panel per test, mode and wait, one line per infrastructure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_openenv_scale.analysis.axes import CurveHistory, HistoryPoint
from pytest_openenv_scale.config.limits import METRICS
from pytest_openenv_scale.core.files import replacing
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.results.comparison import Side

from .content import FigureContent, frame
from .write import draw_all, for_file

HISTORY_KEY = "history"
CERTAIN = "certain"
OPEN = "at least"
DOUBTFUL = "inconclusive"
CUT_SHORT = "not a whole run"
SHAPES = {CERTAIN: "o", OPEN: "^", DOUBTFUL: "o", CUT_SHORT: "x"}
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
    notes = [f"{_sign(state)}  {state}" for state in SHAPES if any(row[4] == state for row in rows)]
    machines = ("dashed line: the machine changed",) if machine_changes else ()
    return FigureContent(
        key=HISTORY_KEY,
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
        FiguresError: it cannot be drawn.
        OSError: the file cannot be written.
    """
    content = history_content(curves)
    (picture,) = draw_all([content])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(for_file(picture.svg, content.alt_text).encode() if path.suffix == ".svg" else picture.png)
