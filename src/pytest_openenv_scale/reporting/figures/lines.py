"""Figures of lines: success and throughput against batch, more replicas or nodes, and curves over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_openenv_scale.analysis.axes import CurveHistory, HistoryPoint, ServerCount, ServerScaling, server_scalings
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve, probe_points
from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS, METRICS
from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.results.comparison import Side

from . import content

THROUGHPUT_KEY = "throughput"
_THROUGHPUT_COLUMNS = ("infrastructure", "panel", "measure", "batch", "value", "state")
RATE, EFFICIENCY = "sess/s", "efficiency"


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
                ideal[content.panel_of(curve), point.batch] = _timing(curve).ideal_rate(point.batch) or 0.0
    thinks = any(curve.sweep.record.think_mean_s for curve in study.curves)
    if not any(row[2] == RATE for row in rows):
        return None
    best = max((row for row in rows if row[2] == RATE), key=lambda row: row[4])
    cycle = "the waits and think times of a session" if thinks else "(steps × wait)"
    # One batch alone has no line.
    has_line = len(ideal) > len({panel for panel, _ in ideal})
    notes = [content.states_note(row[5] for row in rows) + (f"    - - -  ideal: batch ÷ {cycle}" if has_line else "")]
    if ideal:
        notes.append(
            f"Efficiency: seconds that successful sessions spent in their waits{' and think times' * thinks} ÷ (batch ×"
            " duration of the cell);"
            " connecting, resetting, queueing and failing make it less than 100 %."
        )
    return content.figure_of(
        study,
        content.curves_in(study, rows),
        key=THROUGHPUT_KEY,
        title="Throughput and efficiency by batch" if ideal else "Throughput by batch",
        alt_text=(
            f"Throughput and efficiency against batch; the most is {formatting.rate(best[4])} sess/s"
            f" ({best[0]}, {best[1]}, batch {content.batch_text(best[3])})."
        ),
        frames={
            "points": content.frame(_THROUGHPUT_COLUMNS, rows),
            "ideal": content.frame(
                ("panel", "measure", "batch", "value"),
                [(panel, RATE, batch, rate) for (panel, batch), rate in sorted(ideal.items())],
            ),
        },
        notes=notes,
        measures=[RATE, *([EFFICIENCY] if ideal else [])],
    )


def efficiency(curve: StudyCurve, point: BatchPoint) -> float | None:
    """Return the share of a batch's time that successful sessions waited or thought, a fraction.

    None where neither was asked for, or where it is not known: of sessions that end with their episode, how long they
    thought.
    """
    timing = _timing(curve)
    waiting = point.effective_concurrency if curve.wait else 0.0
    unknown = timing.think_s and curve.sweep.record.settings.get("until_done")
    if waiting is None or unknown or not (curve.wait or timing.think_s):
        return None
    return (waiting + (point.requests_per_second or 0.0) * timing.thought_s) / point.batch


def _timing(curve: StudyCurve) -> Timing:
    return Timing.of_curve(curve.curve.curve, curve.sweep.record.think_mean_s)


NODES_KEY = "nodes"
_NODES_COLUMNS = ("panel", "measure", "replicas", "factor", "open", "text", "side")
CAPACITY, THROUGHPUT = "max batch", "throughput"


def nodes_content(study: Study) -> content.FigureContent | None:
    """Return the factor gained by every number of replicas of the same target; None where none was repeated."""
    tables = server_scalings(study.sweeps)
    rows = [row for table in tables for row in _node_rows(table)]
    if not rows:
        return None
    panels = list(dict.fromkeys(row[0] for row in rows))
    ideal = [(_node_panel(table), row.count, row.count / table.rows[0].count) for table in tables for row in table.rows]
    notes = ["- - -  ideal: twice as many bring twice as much.   Per cent: efficiency, the share of the ideal reached."]
    if any(row[4] for row in rows):
        notes.append("▲ and ≥: the largest batch asked for passes there, so that it may hold more.")
    shared = (
        f"All {table.axis} of {on_one_line(table.target)} share {formatting.count_of(table.cores, 'core')}."
        for table in tables
        if table.cores is not None
    )
    notes += dict.fromkeys(shared)
    texts = [f"{row[0]} {row[1]} with {row[2]}: {row[5]}" for row in rows]
    return content.FigureContent(
        key=NODES_KEY,
        title=f"Single- vs multi-{' and multi-'.join(dict.fromkeys(table.unit for table in tables))} scaling",
        subtitle=content.subtitle_of(panels),
        alt_text=f"Factor gained by more replicas or nodes. {'; '.join(texts)}.",
        frames={
            "points": content.frame(_NODES_COLUMNS, rows),
            "ideal": content.frame(("panel", "replicas", "factor"), ideal),
        },
        facts={"panels": panels},
        notes=tuple(notes),
    )


def _node_panel(table: ServerScaling) -> str:
    wait = "" if table.wait is None else f" · wait {format_number(table.wait)} s"
    return f"{on_one_line(table.target)} · {table.mode}{wait}"


def _node_rows(table: ServerScaling) -> list[tuple[Any, ...]]:
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


def _node_measures(row: ServerCount) -> list[tuple[str, float | None, bool, str]]:
    capacity = f"{wording.max_batch_text(row.verdict)} ({formatting.percent(row.capacity_efficiency)})"
    rate = f"{formatting.rate(row.requests_per_second)} sess/s ({formatting.percent(row.efficiency)})"
    return [
        (CAPACITY, row.capacity_efficiency, wording.is_open(row.verdict), capacity),
        (THROUGHPUT, row.efficiency, False, rate),
    ]


SCALING_KEY = "scaling"
_SCALING_COLUMNS = ("infrastructure", "panel", "batch", "success", "least", "most", "state")


def scaling_content(study: Study) -> content.FigureContent | None:
    """Return the worst success of every batch over its repetitions, their range, and the limits; None without any."""
    rows = [row for curve in study.curves for row in _scaling_rows(curve)]
    if not rows:
        return None
    curves = content.curves_in(study, rows)
    limits = sorted({(content.panel_of(curve), _success_limit(curve)) for curve in curves})
    open_ends = [
        (curve.infrastructure, content.panel_of(curve), curve.verdict.max_batch, point.success)
        for curve in curves
        if wording.is_open(curve.verdict) and (point := curve.best) and point.success is not None
    ]
    notes = [
        content.states_note(row[6] for row in rows)
        + ("    ▶  the largest batch asked for passes, nothing larger was tried" if open_ends else "")
    ]
    brackets = [
        (content.panel_of(curve), curve.verdict.feasible_max, curve.verdict.infeasible_min)
        for curve in curves
        if curve.verdict.search and curve.verdict.feasible_max and curve.verdict.infeasible_min
    ]
    if brackets:
        notes.append(
            "Searched: a marker is one repetition; shaded is the bracket, from the largest batch that passes to the"
            " smallest that fails."
        )
    if any(row[4] != row[5] for row in rows):
        notes.append("A marker is the worst repetition; the line through it is the range of the repetitions.")
    if len({curve.infrastructure for curve in curves}) > 1:
        notes.append("Markers of one batch stand side by side, so that none hides another.")
    return content.figure_of(
        study,
        curves,
        key=SCALING_KEY,
        title="Success rate by batch",
        alt_text=_scaling_alt_text(curves),
        frames={
            "points": content.frame(_SCALING_COLUMNS, rows),
            "limits": content.frame(("panel", "limit"), limits),
            "open": content.frame(("infrastructure", "panel", "batch", "success"), open_ends),
            "brackets": content.frame(("panel", "low", "high"), brackets),
        },
        notes=notes,
    )


def _scaling_rows(curve: StudyCurve) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for point in probe_points(curve.curve):
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


HISTORY_KEY = "history"
CERTAIN = "certain"
OPEN = "at least"
DOUBTFUL = "inconclusive"
CUT_SHORT = "not a whole run"
SHAPES = {CERTAIN: "o", OPEN: "^", DOUBTFUL: "o", CUT_SHORT: "x"}
_MOST_TICKS = 10


def history_content(curves: Sequence[CurveHistory]) -> content.FigureContent:
    """Return what the figure shows: a point per curve and run, and where the machine changed."""
    runs = sorted(
        {point.run for curve in curves for point in curve.points}, key=lambda run: (run.started_at, run.run_id)
    )
    positions = {run.run_id: at for at, run in enumerate(runs)}
    kind = METRICS[curves[0].metric]
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
    return content.FigureContent(
        key=HISTORY_KEY,
        title=f"{kind.shown_name} over {len(runs)} run{'s' if len(runs) != 1 else ''}",
        alt_text=f"{kind.shown_name} of {len(curves)} curves over {len(runs)} runs",
        frames={
            "points": content.frame(("at", "value", "panel", "infrastructure", "state"), rows),
            "moved": content.frame(("at", "panel"), dict.fromkeys(machine_changes)),
        },
        notes=("    ".join(notes), *machines),
        facts={"ticks": ticks, "unit": kind.unit, "metric": kind.shown_name},
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
    """Return the commit, a + where files differed from it, and the minute."""
    commit = f"{run.commit[:7]}{'+' if run.dirty else ''}\n" if run.commit else ""
    return f"{commit}{run.started_at:%Y-%m-%d\n%H:%M}"
