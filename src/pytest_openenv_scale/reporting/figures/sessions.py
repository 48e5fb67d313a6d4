"""Figures of single sessions: how overhead is distributed, and how many were open over time."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting

from . import content
from .bars import round_ticks
from .rows import StudyRows, overhead_distribution, session_concurrency

CONCURRENCY_KEY = "concurrency"
ASKED, OPEN, STEPPING = "asked for", "open", "stepping"
MOST_PANELS = 12
"""The most cells shown; of more, those with the longest wait of each infrastructure and mode."""

_CONCURRENCY_COLUMNS = ("panel", "measure", "seconds", "sessions")
_PEAK_COLUMNS = ("panel", "peak", "text")


def concurrency_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the lines of the cell of max batch and of the smallest one that does not pass; None without rows."""
    cells = [(curve, point) for curve in study.curves for point in _shown_points(curve)]
    if len(cells) > MOST_PANELS:
        longest = {(curve.infrastructure, curve.mode): curve for curve in study.curves}
        selected = [(curve, point) for curve, point in cells if longest[curve.infrastructure, curve.mode] is curve]
        if len(selected) > MOST_PANELS:
            selected = [(curve, point) for curve, point in selected if point is _shown_points(curve)[-1]]
    else:
        selected = cells
    lines: list[tuple[Any, ...]] = []
    peaks: list[tuple[Any, ...]] = []
    for curve, point in selected[:MOST_PANELS]:
        cell = min(
            point.repetitions, key=lambda rep: (rep.success_rate is None, rep.success_rate or 0.0, rep.repetition)
        )
        parts = [part for part in rows.parts_of(curve, point.batch) if part.meta.repetition == cell.repetition]
        concurrency = session_concurrency(parts[0]) if parts else None
        if concurrency is None or cell.peak_concurrency is None:
            continue
        batch_state = f"batch {content.batch_text(point.batch)} {_STATE_TEXTS[content.point_state(point)]}"
        panel = f"{curve.infrastructure}\n{content.panel_of(curve)} · {batch_state}"
        for measure, values in (
            (ASKED, concurrency.asked),
            (OPEN, concurrency.opened),
            (STEPPING, concurrency.stepping),
        ):
            corners = _corners(values)
            lines += [(panel, measure, concurrency.times[at], values[at]) for at in corners]
        peaks.append(
            (
                panel,
                cell.held,
                f"at most {formatting.count(cell.held)} open of {formatting.count(cell.asked)}",
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
        notes.append(f"{formatting.count_of(left_out, 'more cell')} not shown: shorter waits, or without rows.")
    return content.FigureContent(
        key=CONCURRENCY_KEY,
        title="Sessions over time: asked for, open and stepping",
        subtitle=peaks[0][0].replace("\n", " · ") if len(peaks) == 1 else "",
        alt_text="Sessions over time. "
        + "; ".join(f"{panel.replace(chr(10), ' ')}: {text}" for panel, _, text in peaks)
        + ".",
        frames={"lines": content.frame(_CONCURRENCY_COLUMNS, lines), "peaks": content.frame(_PEAK_COLUMNS, peaks)},
        facts={"panels": [peak[0] for peak in peaks]},
        notes=tuple(notes),
    )


_STATE_TEXTS = {content.PASSES: "passes", content.FAILS: "fails ✕", content.DOUBTFUL: "inconclusive ?"}


def _shown_points(curve: StudyCurve) -> list[BatchPoint]:
    """Return the point of max batch and the first beyond it; where none passes, the smallest."""
    beyond = next((point for point in curve.points if not point.passed), None)
    return [point for point in (curve.best, beyond) if point is not None]


def _corners(values: list[int]) -> list[int]:
    """Return the indices at which a line of steps changes, and its ends: all that is needed to draw it."""
    last = len(values) - 1
    return [
        at
        for at in range(len(values))
        if at in (0, last) or values[at] != values[at - 1] or values[at] != values[at + 1]
    ]


def draw_concurrency(figure: content.FigureContent) -> Any:
    """Draw sessions over time with plotnine."""
    import plotnine as p9

    from .theme import PanelGrid, data_frame, figure_labels, figure_theme, seconds_ticks

    names = {
        panel: "\n".join([content.wrap_label(panel.split("\n")[0], 46), panel.split("\n")[1]])
        for panel in figure.facts["panels"]
    }
    order = list(names.values())
    frames = {
        key: {**columns, "panel": [names[panel] for panel in columns["panel"]]}
        for key, columns in figure.frames.items()
    }
    lines = data_frame(frames["lines"], panel=order, measure=[ASKED, OPEN, STEPPING])
    filled = lines[lines["measure"] == STEPPING]
    top = lines.groupby("panel", observed=True)["sessions"].max()
    peaks = data_frame(frames["peaks"], panel=order)
    peaks["top"] = [float(top[panel]) * 1.03 for panel in peaks["panel"]]
    colours = {
        ASKED: content.MUTED,
        OPEN: content.PHASES["connect"],
        STEPPING: content.PHASES["reset"],
    }
    grid = PanelGrid(len(order), [ASKED], height=1.55, scales="free", strip=0.48)
    return (
        p9.ggplot(lines, p9.aes("seconds", "sessions", colour="measure"))
        + p9.geom_polygon(p9.aes(group="panel"), _areas(filled), fill=colours[STEPPING], alpha=0.3, colour="none")
        + p9.geom_step(p9.aes(linetype="measure", size="measure"), direction="hv")
        + p9.geom_text(
            p9.aes(x=0, y="top", label="text"),
            peaks,
            colour=content.MUTED,
            size=8,
            ha="left",
            va="bottom",
            inherit_aes=False,
        )
        + p9.scale_colour_manual(colours)
        + p9.scale_linetype_manual({ASKED: "dashed", OPEN: "solid", STEPPING: "solid"})
        + p9.scale_size_manual({ASKED: 0.6, OPEN: 1.0, STEPPING: 0.8})
        + p9.scale_x_continuous(
            breaks=lambda limits: round_ticks(limits[1], 5), labels=seconds_ticks, expand=(0.01, 0, 0.02, 0)
        )
        + p9.scale_y_continuous(
            breaks=lambda limits: [tick for tick in round_ticks(limits[1], 4) if tick == int(tick)],
            labels=lambda ticks: [content.batch_text(tick) for tick in ticks],
            limits=lambda limits: (0, max(limits[1], 1) * 1.16),
            expand=(0, 0),
        )
        + grid.facets()
        + figure_labels(figure, x="time since the start of the cell", y="sessions")
        + figure_theme(*grid.size(figure), grid="y")
    )


def _areas(lines: Any) -> Any:
    """Return the outline of the area below every line of steps."""
    import pandas as pd

    outlines: list[Any] = []
    for _, line in lines.groupby("panel", observed=True):
        # A step has two corners: where the value before it ends, and where its own begins.
        before = line.assign(sessions=line["sessions"].shift(1)).iloc[1:]
        corners = pd.concat([before.assign(turn=0), line.assign(turn=1)]).sort_values(["seconds", "turn"])
        base = line.iloc[[-1, 0]].assign(sessions=0)
        outlines.append(pd.concat([corners, base]))
    return pd.concat(outlines)


OVERHEAD_KEY = "overhead"
_OVERHEAD_COLUMNS = ("infrastructure", "panel", "batch", "seconds", "share")


def overhead_content(study: Study, rows: StudyRows) -> content.FigureContent | None:
    """Return the distribution of every batch over all of its repetitions; None where there are no rows."""
    lines: list[tuple[Any, ...]] = []
    measured: list[tuple[StudyCurve, int, int]] = []
    for curve in study.curves:
        for point in curve.points:
            count, seconds, shares = overhead_distribution(rows.parts_of(curve, point.batch))
            if count:
                measured.append((curve, point.batch, count))
                series = curve.infrastructure, content.panel_of(curve), point.batch
                # From the foot of the first step on.
                lines.append((*series, seconds[0], 0.0))
                lines += [(*series, at, share) for at, share in zip(seconds, shares, strict=True)]
    if not lines:
        return None
    curves = [curve for curve, _, _ in measured]
    names, panels = content.infrastructures_of(study, curves), content.panels_of(curves)
    low, high = min(line[3] for line in lines), max(line[3] for line in lines)
    return content.FigureContent(
        key=OVERHEAD_KEY,
        title="How many sessions had at most which overhead",
        subtitle=content.subtitle_of(panels, names[0] if len(names) == 1 else ""),
        alt_text=(
            f"Distribution of overhead at each batch of {content.names_text(names)}, from {formatting.seconds(low)}"
            f" to {formatting.seconds(high)}."
        ),
        frames={"lines": content.frame(_OVERHEAD_COLUMNS, lines)},
        facts={"infrastructures": names, "panels": panels, "batches": sorted({batch for _, batch, _ in measured})},
        notes=(
            "Overhead: total latency less the waits asked for, of successful sessions, all repetitions together."
            " Further left is faster; where a line crosses the dashed one, 99 % are done.",
        ),
    )


def draw_overhead(figure: content.FigureContent) -> Any:
    """Draw the distributions of overhead with plotnine."""
    import plotnine as p9

    from .theme import WIDTH, data_frame, figure_labels, figure_theme, seconds_ticks, text_height, with_order

    names, panels, batches = (figure.facts[key] for key in ("infrastructures", "panels", "batches"))
    wrapped = {name: content.wrap_label(name, 18) for name in names}
    texts = [content.batch_text(batch) for batch in batches]
    lines = data_frame(figure.frames["lines"], panel=panels)
    lines["row"] = lines["infrastructure"].map(wrapped)
    lines["shade"] = lines["batch"].map(content.batch_text)
    lines = with_order(with_order(lines, "row", list(wrapped.values())), "shade", texts)
    ticks = _decade_ticks(lines["seconds"].min(), lines["seconds"].max(), 6 if len(panels) <= 2 else 3)
    split: Any = []
    if len(names) > 1:
        split = p9.facet_grid("row", "panel")
    elif len(panels) > 1:
        split = p9.facet_wrap("panel", ncol=2)
    rows = len(names) if len(names) > 1 else -(-len(panels) // 2)
    height = rows * (1.35 if len(names) > 2 else 2.3)
    return (
        p9.ggplot(lines, p9.aes("seconds", "share", colour="shade"))
        + p9.geom_hline(yintercept=0.99, linetype="dashed", colour=content.MUTED, size=0.45)
        + p9.geom_step(p9.aes(group="shade"), size=0.8)
        + p9.scale_colour_manual(dict(zip(texts, content.batch_colours(len(texts)), strict=True)), name="batch")
        + p9.scale_x_log10(breaks=ticks, minor_breaks=[], labels=seconds_ticks(ticks))
        + p9.scale_y_continuous(breaks=[0, 0.5, 1], labels=["0 %", "50 %", "100 %"], limits=(0, 1.02))
        + p9.guides(colour=p9.guide_legend(nrow=1 if len(texts) <= 12 else 2))
        + split
        + figure_labels(figure, x="overhead", y="successful sessions")
        + figure_theme(WIDTH, text_height(figure) + 1.2 + height + (0.3 if len(panels) > 1 else 0))
        + p9.theme(
            legend_title=p9.element_text(size=9, color=content.INK),
            strip_text_y=p9.element_text(size=9, weight="bold", ha="center", color=content.INK),
        )
    )


def _decade_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round durations between two, no more than `most` where decades alone do."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        candidates = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in candidates if low * 0.98 <= tick <= high * 1.02]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]
