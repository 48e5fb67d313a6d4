"""Figure of a steady state over time: sessions open, step times, success and the server's memory, by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.reporting.content.windows import check_windows, window_spans
from pytest_openenv_scale.reporting.content.wording import check_name, load_name

from . import content

OVER_TIME_KEY = "over_time"
OPEN, STEPS, SUCCESS, MEMORY = "sessions open", "step time", "success", "memory"
P50, P99, SINGLE = "step p50", "step p99", ""
MOST_CELLS = 4
"""The most cells shown, side by side; the first of the study's."""

_SERIES: Sequence[tuple[str, str, str, Callable[[Window], float | None]]] = (
    (OPEN, SINGLE, "open", lambda window: window.open_least),
    (STEPS, P50, "step_p50", lambda window: window.step_p50_s),
    (STEPS, P99, "step_p99", lambda window: window.step_p99_s),
    (SUCCESS, SINGLE, "success", lambda window: window.success_rate),
    (MEMORY, SINGLE, "", lambda window: window.rss_bytes),
)
"""What is drawn of a window: its row, its line there, the limit that is about it, and the value."""

_POINT_COLUMNS = ("panel", "measure", "line", "seconds", "value")


def over_time_content(study: Study) -> content.FigureContent | None:
    """Return the windows of the batches on either side of each max batch, and of checks; None where there are none."""
    measured = [*_cells(study)]
    if not measured:
        return None
    places = list(dict.fromkeys(cell.place for cell in measured[:MOST_CELLS]))
    # One place for all is the subtitle's.
    names = [cell.name if len(places) == 1 else f"{cell.place}\n{cell.name}" for cell in measured]
    cells = dict(zip(names, measured, strict=True))
    points: list[tuple[Any, ...]] = []
    unjudged: list[tuple[Any, ...]] = []
    limits: list[tuple[Any, ...]] = []
    texts: list[str] = []
    for panel, cell in [*cells.items()][:MOST_CELLS]:
        windows = cell.windows
        for measure, line, limit_name, value in _SERIES:
            values = [(_middle(window), value(window)) for window in windows]
            points += [(panel, measure, line, at, known) for at, known in values if known is not None]
            limit = cell.slo.limit(limit_name) if limit_name else None
            if limit is not None:
                limits.append((panel, measure, limit.allowed))
        unjudged += [(panel, window.start_s, window.end_s) for window in windows if not window.judged]
        texts.append(f"{panel.replace(chr(10), ' ')}: {', '.join(window_spans([w for w in windows if w.judged]))}")
    measures = [measure for measure in (OPEN, STEPS, SUCCESS, MEMORY) if any(row[1] == measure for row in points)]
    notes = [
        "A point is a window, in its middle: the fewest sessions that were open at once in it, percentiles of the steps"
        " that were answered in it, the share of its sessions that ended well, the server's memory at its end."
    ]
    legend = ["Grey: not judged, as what plays was still beginning, or time was up."] if unjudged else []
    legend += ["- - -  a limit."] if any(row[1] in measures for row in limits) else []
    notes += ["  ".join(legend)] if legend else []
    if len(cells) > MOST_CELLS:
        notes.append(f"{formatting.count_of(len(cells) - MOST_CELLS, 'more cell')} not shown.")
    panels = list(dict.fromkeys(row[0] for row in points))
    return content.FigureContent(
        key=OVER_TIME_KEY,
        title="Steady state over time",
        subtitle=" · ".join([*places, *(panels if len(panels) == 1 else ())]) if len(places) == 1 else "",
        alt_text=f"Windows of a steady state. {'; '.join(texts)}.",
        frames={
            "points": content.frame(_POINT_COLUMNS, points),
            "unjudged": content.frame(("panel", "start", "end"), unjudged),
            "limits": content.frame(
                ("panel", "measure", "value"), [row for row in dict.fromkeys(limits) if row[1] in measures]
            ),
        },
        notes=tuple(notes),
        facts={"panels": panels, "measures": measures},
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """What was measured over time: where and under which load, what it is called there, and what its limits are."""

    place: str
    name: str
    windows: Sequence[Window]
    slo: Slo


def _cells(study: Study) -> Iterator[_Cell]:
    for curve in study.curves:
        place = f"{curve.infrastructure} · {content.panel_of(curve)}"
        for point in curve.bracket:
            state = content.STATE_TEXTS[content.point_state(point)]
            if windows := point.worst.windows:
                yield _Cell(place, f"{load_name(point.worst.cell)}: {state}", windows, curve.verdict.slo)
    for check in (check for run in study.runs for check in run.checks):
        if windows := check_windows(check.result):
            name = f"{check_name(check)}: {check.result.outcome}"
            yield _Cell(on_one_line(check.infrastructure), name, windows, Slo())


def _middle(window: Window) -> float:
    return (window.start_s + window.end_s) / 2
