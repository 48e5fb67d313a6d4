"""Figures with a row per infrastructure: bars of max batch, tiles of p99, phases of a session.

`…_content` says what a figure shows as plain values, `draw_…` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import wording

from . import content
from .content import heat_colour

_BAR_COLUMNS = ("infrastructure", "panel", "value", "upper", "kind", "text")
_EXACT, _OPEN, _UNSURE = "exact", "open", "unsure"


def max_batch_content(study: Study) -> content.FigureContent | None:
    """Return the max batch of every curve and up to where it may lie; None where nothing was measured."""
    curves = [curve for curve in study.curves if curve.points]
    if not curves:
        return None
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    rows = [_bar(curve, 1.0) for curve in curves]
    bar_texts = [f"{row[0]} {row[1]}: {row[5]}" for row in rows]
    return content.FigureContent(
        key="max_batch",
        title="Max batch: how many sessions each infrastructure holds",
        subtitle=content.subtitle_of(panels),
        alt_text=f"Max batch by infrastructure. {'; '.join(bar_texts)}.",
        frames={"bars": content.frame(_BAR_COLUMNS, rows)},
        facts={"infrastructures": names, "panels": panels, "x": "sessions at once", "whole": True},
        notes=_bar_notes(rows),
    )


def batch_per_core_content(study: Study) -> content.FigureContent | None:
    """Return the max batch per core of every curve whose cores are known; None where there is none."""
    curves = [curve for curve in study.curves if curve.cores and curve.points]
    if not curves:
        return None
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    rows = [_bar(curve, float(curve.cores or 1)) for curve in curves]
    bar_texts = [f"{row[0]} {row[1]}: {row[5]}" for row in rows]
    unknown = [name for name in study.infrastructures if name not in names]
    without = (f"Cores not known, so not shown: {content.names_text(unknown)}.",) if unknown else ()
    return content.FigureContent(
        key="batch_per_core",
        title="Max batch per core of the server",
        subtitle=content.subtitle_of(panels),
        alt_text=f"Max batch per core by infrastructure. {'; '.join(bar_texts)}.",
        frames={"bars": content.frame(_BAR_COLUMNS, rows)},
        facts={"infrastructures": names, "panels": panels, "x": "sessions at once per core"},
        notes=(*_bar_notes(rows), *without),
    )


def _bar(curve: StudyCurve, share: float) -> tuple[Any, ...]:
    """Return a bar: what is held for certain, and up to where nothing is known (None: there is no end)."""
    verdict = curve.verdict
    best, worst = verdict.max_batch, verdict.infeasible_min
    doubtful = any(cell.passed is None and cell.batch > (best or 0) for cell in verdict.cells)
    kind = _OPEN if wording.is_open(verdict) else _UNSURE if worst is None or doubtful else _EXACT
    largest = max((point.batch for point in curve.points), default=0)
    upper = None if kind == _OPEN else (worst or largest) / share
    return (
        curve.infrastructure,
        content.panel_of(curve),
        (best or 0) / share,
        upper,
        kind,
        _bar_text(curve, share, kind),
    )


def _bar_text(curve: StudyCurve, share: float, kind: str) -> str:
    verdict = curve.verdict
    text = wording.max_batch_text(verdict)
    if verdict.max_batch is None:
        return "none passes" if text == "none" else "unknown (inconclusive)"
    if share != 1 or curve.cores == 1:
        text = f"{'≥ ' if kind == _OPEN else ''}{formatting.number(verdict.max_batch / share)}"
    cores = (
        f"  ({formatting.count(verdict.max_batch)} on {formatting.count_of(round(share), 'core')})"
        if share != 1
        else ""
    )
    return (f"at least {text}" if kind == _UNSURE else text) + cores


def _bar_notes(rows: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    notes = ["Solid: the largest batch that passes, all smaller ones passing too."]
    kinds = {row[4] for row in rows}
    if _EXACT in kinds:
        notes.append("Pale: up to the smallest batch that failed; the limit lies in between.")
    if _UNSURE in kinds:
        notes.append("Dashed: measured, but inconclusive, so it may hold more.")
    if _OPEN in kinds:
        notes.append("▶ and ≥: the largest batch asked for passes, nothing larger was tried.")
    return ("  ".join(notes),)


def draw_bars(figure: content.FigureContent) -> Any:
    """Draw max batch, or max batch per core, with plotnine."""
    import plotnine as p9

    from .theme import RowLayout, data_frame, figure_labels, figure_theme, infrastructure_scales

    names, panels = figure.facts["infrastructures"], figure.facts["panels"]
    bars = data_frame(figure.frames["bars"]).astype({"value": float, "upper": float})
    layout = RowLayout.for_rows(zip(bars["panel"], bars["infrastructure"], strict=True), panels, names)
    bars["y"] = layout.column(bars)
    bars["low"], bars["high"] = bars["y"] - 0.36, bars["y"] + 0.36
    longest = float(max(bars["value"].max(), bars["upper"].fillna(0).max())) or 1.0
    text_share = max(len(text) for text in bars["text"]) * 0.075 / layout.panel_width
    room = text_share / (1 - min(text_share, 0.6)) + 0.05
    pale = bars[bars["upper"].notna() & (bars["upper"] > bars["value"])]
    exact, unsure = pale[pale["kind"] == _EXACT], pale[pale["kind"] == _UNSURE]
    ends = bars[bars["kind"] == _OPEN].assign(to=lambda table: table["value"] + 0.008 * longest)
    bars["end"] = bars["upper"].where(bars["upper"].notna(), bars["value"] + 0.02 * longest)
    bars["end"] = bars[["end", "value"]].max(axis=1) + 0.01 * longest
    span = {"ymin": "low", "ymax": "high"}
    text = {"size": 8.5, "ha": "left", "inherit_aes": False, "colour": content.INK}
    ticks = [tick for tick in round_ticks(longest) if tick == int(tick) or not figure.facts.get("whole")]
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
        + infrastructure_scales(names, "fill", "colour")
        + p9.scale_x_continuous(
            limits=(0, longest * (1 + room)),
            breaks=ticks,
            labels=[formatting.number(tick) for tick in ticks],
            expand=(0, 0),
        )
        + layout.layers(0.0)
        + figure_labels(figure, x=figure.facts["x"], y="")
        + figure_theme(*layout.size(figure, 0.34), grid="x", legend="none")
    )


def round_ticks(largest: float, most: int = 6) -> list[float]:
    """Return round numbers from 0 on that an axis up to `largest` names."""
    if largest <= 0:
        return [0.0]
    size = 10 ** floor(log10(largest / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if largest / (size * factor) <= most)
    return [step * at for at in range(int(largest / step) + 1)]


HEAT_KEY = "p99"
_SIGNS = {content.PASSES: "", content.FAILS: "✕", content.DOUBTFUL: "?"}
_ONE_LINE_IN, _LABEL_IN, _FIGURE_IN = 0.6, 0.4, 0.35
"""Inches a tile needs for a figure with its sign in one line, for the label of its batch, and for a figure at all."""
_TILE_COLUMNS = ("infrastructure", "panel", "batch", "p99", "state", "shade", "text")


def heat_content(study: Study) -> content.FigureContent | None:
    """Return the overhead p99 of every batch, the slowest repetition; None where no session succeeded."""
    measured = [
        (curve, point, point.latency(content.phase_beyond_waits(curve)))
        for curve in study.curves
        for point in curve.points
    ]
    latencies = [value for _, _, value in measured if value is not None]
    if not latencies:
        return None
    low, high = (log10(max(value, 1e-4)) for value in (min(latencies), max(latencies)))
    span = max(high - low, 1.0)
    rows: list[tuple[Any, ...]] = []
    for curve, point, value in measured:
        state = content.point_state(point)
        shade = None if value is None else heat_colour((log10(max(value, 1e-4)) - low) / span)
        text = "none" if value is None else formatting.seconds(value)
        tile = curve.infrastructure, content.panel_of(curve), point.batch
        rows.append((*tile, value, state, shade, f"{text} {_SIGNS[state]}".rstrip()))
    curves = [curve for curve in study.curves if curve.points]
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    states = {row[4] for row in rows}
    notes = [
        "p99 of total latency less the waits asked for, of successful sessions; the slowest repetition. "
        "Darker is slower, in equal steps of a logarithm, the same in all panels."
    ]
    signs = [("✕  fails a limit", content.FAILS), ("?  inconclusive", content.DOUBTFUL)]
    legend = [sign for sign, state in signs if state in states]
    legend += ["none  no session succeeded"] if any(row[3] is None for row in rows) else []
    legend += (
        ["empty  not measured"] if len(rows) < len({row[:2] for row in rows}) * len({row[2] for row in rows}) else []
    )
    notes += ["    ".join(legend)] if legend else []
    worst = max((row for row in rows if row[3] is not None), key=lambda row: row[3])
    return content.FigureContent(
        key=HEAT_KEY,
        title="p99 latency beyond the waits, by batch and infrastructure",
        subtitle=content.subtitle_of(panels),
        alt_text=(
            f"p99 of the latency beyond the waits asked for, from {formatting.seconds(min(latencies))} to"
            f" {formatting.seconds(max(latencies))} ({worst[0]}, {worst[1]}, batch {content.batch_text(worst[2])})."
        ),
        frames={"tiles": content.frame(_TILE_COLUMNS, rows)},
        facts={"infrastructures": names, "panels": panels},
        notes=tuple(notes),
    )


def draw_heat(figure: content.FigureContent) -> Any:
    """Draw the tiles of p99 latency with plotnine."""
    import plotnine as p9

    from .theme import RowLayout, data_frame, figure_labels, figure_theme

    names, panels = figure.facts["infrastructures"], figure.facts["panels"]
    tiles = data_frame(figure.frames["tiles"])
    layout = RowLayout.for_rows(zip(tiles["panel"], tiles["infrastructure"], strict=True), panels, names)
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
        tiles["text"] = [_narrow_tile_text(text, _SIGNS[state], room) for text, state in texts]
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
        + figure_labels(figure, x="batch (sessions asked for at once)", y="")
        + figure_theme(*layout.size(figure, 0.42), grid="", legend="none")
        + p9.theme(axis_line_x=p9.element_blank())
        + (p9.theme(axis_text_x=p9.element_text(size=7)) if narrow else p9.theme())
    )


def _narrow_tile_text(text: str, sign: str, room: float) -> str:
    """Return the text of a tile `room` inches wide: the sign below the figure, or the sign alone."""
    if room < _FIGURE_IN:
        return sign
    return f"{text.removesuffix(f' {sign}')}\n{sign}" if sign else text


LATENCY_KEY = "latency"
PHASES = ("queue", "connect", "reset", "step")
_PHASE_NAMES = {
    "queue": "queue in this client",
    "connect": "connect",
    "reset": "reset",
    "step": "steps beyond their waits",
}
_PART_COLUMNS = ("infrastructure", "panel", "phase", "start", "end")
_ROW_COLUMNS = ("infrastructure", "panel", "batch", "mean", "p99", "text")


def latency_content(study: Study) -> content.FigureContent | None:
    """Return mean seconds by phase at max batch, or at the largest batch where sessions succeeded; None without any."""
    measured = [
        (curve, point, cell)
        for curve in study.curves
        if (point := _shown_point(curve)) and (cell := _slowest_repetition(point, content.phase_beyond_waits(curve)))
    ]
    if not measured:
        return None
    parts: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    for curve, point, cell in measured:
        series, at = (curve.infrastructure, content.panel_of(curve)), 0.0
        for phase, value in phase_breakdown(cell, content.phase_beyond_waits(curve)).items():
            parts.append((*series, phase, at, at + value))
            at += value
        p99 = cell.phases[content.phase_beyond_waits(curve)].p99
        state = "" if point.passed else " ✕" if point.passed is False else " ?"
        batch = content.batch_text(point.batch)
        text = f"batch {batch}{state}: mean {formatting.seconds(at)}, p99 {formatting.seconds(p99)}"
        rows.append((*series, point.batch, at, p99, text))
    curves = [curve for curve, _, _ in measured]
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    note = "Bars: means over successful sessions beyond the waits, in the slowest repetition.   ◆  p99 of the same."
    failing = any("✕" in row[5] or "?" in row[5] for row in rows)
    other = (
        ("✕ ?  no batch passes for certain: shown is the largest batch at which sessions succeeded.",)
        if failing
        else ()
    )
    return content.FigureContent(
        key=LATENCY_KEY,
        title="Where the time goes at max batch",
        subtitle=content.subtitle_of(panels),
        alt_text=f"Latency by phase. {'; '.join(f'{row[0]} {row[1]}, {row[5]}' for row in rows)}.",
        frames={"parts": content.frame(_PART_COLUMNS, parts), "rows": content.frame(_ROW_COLUMNS, rows)},
        facts={"infrastructures": names, "panels": panels},
        notes=(note, *other),
    )


def _shown_point(curve: StudyCurve) -> BatchPoint | None:
    successful = [point for point in curve.points if point.samples]
    return curve.best or max(successful, key=lambda point: point.batch, default=None)


def _slowest_repetition(point: BatchPoint, beyond: str) -> CellSummary | None:
    cells = [cell for cell in point.repetitions if cell.phase(beyond)]
    return max(cells, key=lambda cell: cell.phases[beyond].p99, default=None)


def phase_breakdown(cell: CellSummary, beyond: str = "overhead") -> dict[str, float]:
    """Return the mean seconds of each phase; they sum up to the mean of `beyond`, as medians would not.

    What is neither queue, connect nor reset belongs to the steps: their time beyond the waits and resets after `done`.
    """
    parts = {phase: max(stats.mean, 0.0) for phase in PHASES[:-1] if (stats := cell.phase(phase))}
    rest = cell.phases[beyond].mean - sum(parts.values())
    return {**parts, "step": max(rest, 0.0)}


def draw_latency(figure: content.FigureContent) -> Any:
    """Draw the latencies by phase with plotnine."""
    import plotnine as p9

    from .theme import RowLayout, data_frame, figure_labels, figure_theme, legend_height, seconds_ticks

    names, panels = figure.facts["infrastructures"], figure.facts["panels"]
    rows = data_frame(figure.frames["rows"])
    phases = [phase for phase in PHASES if phase in set(figure.frames["parts"]["phase"])]
    parts = data_frame(figure.frames["parts"], phase=phases)
    layout = RowLayout.for_rows(zip(rows["panel"], rows["infrastructure"], strict=True), panels, names)
    rows["y"], parts["y"] = layout.column(rows), layout.column(parts)
    parts["low"], parts["high"] = parts["y"] - 0.34, parts["y"] + 0.34
    longest = float(max(rows["mean"].max(), rows["p99"].max())) or 1e-3
    rows["end"] = rows[["mean", "p99"]].max(axis=1) + 0.022 * longest
    share = max(len(text) for text in rows["text"]) * 0.073 / layout.panel_width
    room = share / (1 - min(share, 0.6)) + 0.04
    ticks = round_ticks(longest)
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
        + p9.scale_x_continuous(
            limits=(0, longest * (1 + room)),
            breaks=ticks,
            labels=seconds_ticks(ticks),
            expand=(0, 0),
        )
        + layout.layers(0.0)
        + figure_labels(figure, x="latency beyond the waits", y="")
        + figure_theme(*layout.size(figure, 0.36, legend_height(list(_PHASE_NAMES.values()))), grid="x")
    )
