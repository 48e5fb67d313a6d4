"""How overhead is distributed over sessions, a line per batch."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.reports.study import Study, StudyCurve

from . import content as c
from .rows import Rows, overhead_distribution

KEY = "overhead"
_LINES = ("infrastructure", "panel", "batch", "seconds", "share")


def content(study: Study, rows: Rows) -> c.Content | None:
    """Return the distribution of every batch over all of its repetitions; None where there are no rows."""
    lines: list[tuple[Any, ...]] = []
    found: list[tuple[StudyCurve, int, int]] = []
    for curve in study.curves:
        for point in curve.points:
            count, seconds, shares = overhead_distribution(rows.of_cell(curve, point.batch))
            if count:
                found.append((curve, point.batch, count))
                place = curve.infrastructure, c.panel_of(curve), point.batch
                # From the foot of the first step on.
                lines.append((*place, seconds[0], 0.0))
                lines += [(*place, at, share) for at, share in zip(seconds, shares, strict=True)]
    if not lines:
        return None
    curves = [curve for curve, _, _ in found]
    names, panels = c.infrastructures_of(study, curves), c.panels_of(curves)
    low, high = min(line[3] for line in lines), max(line[3] for line in lines)
    return c.Content(
        key=KEY,
        title="How many sessions had at most which overhead",
        subtitle=c.subtitle_of(panels, names[0] if len(names) == 1 else ""),
        alt_text=(
            f"Distribution of overhead at each batch of {c.several(names)}, from {text_of.seconds(low)}"
            f" to {text_of.seconds(high)}."
        ),
        frames={"lines": c.frame(_LINES, lines)},
        facts={"infrastructures": names, "panels": panels, "batches": sorted({batch for _, batch, _ in found})},
        notes=(
            "Overhead: total latency less the waits asked for, of successful sessions, all repetitions together."
            " Further left is faster; where a line crosses the dashed one, 99 % are done.",
        ),
    )


def draw(shown: c.Content) -> Any:
    """Draw it with plotnine."""
    import plotnine as p9

    from . import palette
    from .theme import WIDTH, data, labels, note_height, ordered, seconds_ticks, the_theme

    names, panels, batches = (shown.facts[key] for key in ("infrastructures", "panels", "batches"))
    wrapped = {name: c.wrapped(name, 18) for name in names}
    texts = [c.batch_text(batch) for batch in batches]
    lines = data(shown.frames["lines"], panel=panels)
    lines["row"] = lines["infrastructure"].map(wrapped)
    lines["shade"] = lines["batch"].map(c.batch_text)
    lines = ordered(ordered(lines, "row", list(wrapped.values())), "shade", texts)
    ticks = _ticks(lines["seconds"].min(), lines["seconds"].max(), 6 if len(panels) <= 2 else 3)
    split: Any = []
    if len(names) > 1:
        split = p9.facet_grid("row", "panel")
    elif len(panels) > 1:
        split = p9.facet_wrap("panel", ncol=2)
    rows = len(names) if len(names) > 1 else -(-len(panels) // 2)
    height = rows * (1.35 if len(names) > 2 else 2.3)
    return (
        p9.ggplot(lines, p9.aes("seconds", "share", colour="shade"))
        + p9.geom_hline(yintercept=0.99, linetype="dashed", colour=palette.MUTED, size=0.45)
        + p9.geom_step(p9.aes(group="shade"), size=0.8)
        + p9.scale_colour_manual(dict(zip(texts, palette.shades(len(texts)), strict=True)), name="batch")
        + p9.scale_x_log10(breaks=ticks, minor_breaks=[], labels=seconds_ticks(ticks))
        + p9.scale_y_continuous(breaks=[0, 0.5, 1], labels=["0 %", "50 %", "100 %"], limits=(0, 1.02))
        + p9.guides(colour=p9.guide_legend(nrow=1 if len(texts) <= 12 else 2))
        + split
        + labels(shown, x="overhead", y="successful sessions")
        + the_theme(WIDTH, note_height(shown) + 1.2 + height + (0.3 if len(panels) > 1 else 0))
        + p9.theme(
            legend_title=p9.element_text(size=9, color=palette.INK),
            strip_text_y=p9.element_text(size=9, weight="bold", ha="center", color=palette.INK),
        )
    )


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return round durations between two, no more than `most` where decades alone do."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in found if low * 0.98 <= tick <= high * 1.02]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]
