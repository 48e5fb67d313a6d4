"""Bars by infrastructure: max batch, and max batch per core."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from typing import Any

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.reports import phrases
from pytest_openenv_scale.reports.study import Study, StudyCurve

from . import content as c

_BARS = ("infrastructure", "panel", "value", "upper", "kind", "text")
_EXACT, _OPEN, _UNSURE = "exact", "open", "unsure"


def max_batch(study: Study) -> c.Content | None:
    """Return the max batch of every curve and how far the truth may lie from it; None where nothing was measured."""
    shown = [curve for curve in study.curves if curve.points]
    if not shown:
        return None
    names, panels = c.infrastructures_of(study, shown), c.panels_of(shown)
    rows = [_bar(curve, 1.0) for curve in shown]
    said = [f"{row[0]} {row[1]}: {row[5]}" for row in rows]
    return c.Content(
        key="max_batch",
        title="Max batch: how many sessions each infrastructure holds",
        subtitle=c.subtitle_of(panels),
        alt_text=f"Max batch by infrastructure. {'; '.join(said)}.",
        frames={"bars": c.frame(_BARS, rows)},
        facts={"infrastructures": names, "panels": panels, "x": "sessions at once", "whole": True},
        notes=_notes(rows),
    )


def batch_per_core(study: Study) -> c.Content | None:
    """Return the max batch per core of every curve whose cores are known; None where there is none."""
    shown = [curve for curve in study.curves if curve.cores and curve.points]
    if not shown:
        return None
    names, panels = c.infrastructures_of(study, shown), c.panels_of(shown)
    rows = [_bar(curve, float(curve.cores or 1)) for curve in shown]
    said = [f"{row[0]} {row[1]}: {row[5]}" for row in rows]
    unknown = [name for name in study.infrastructures if name not in names]
    without = (f"Cores not known, so not shown: {c.several(unknown)}.",) if unknown else ()
    return c.Content(
        key="batch_per_core",
        title="Max batch per core of the server",
        subtitle=c.subtitle_of(panels),
        alt_text=f"Max batch per core by infrastructure. {'; '.join(said)}.",
        frames={"bars": c.frame(_BARS, rows)},
        facts={"infrastructures": names, "panels": panels, "x": "sessions at once per core"},
        notes=(*_notes(rows), *without),
    )


def _bar(curve: StudyCurve, share: float) -> tuple[Any, ...]:
    """Return a bar: what is held for certain, and up to where nothing is known (None: there is no end)."""
    verdict = curve.verdict
    best, worst = verdict.max_batch, verdict.infeasible_min
    doubtful = any(cell.passed is None and cell.batch > (best or 0) for cell in verdict.cells)
    kind = _OPEN if phrases.is_open(verdict) else _UNSURE if worst is None or doubtful else _EXACT
    largest = max((point.batch for point in curve.points), default=0)
    upper = None if kind == _OPEN else (worst or largest) / share
    return curve.infrastructure, c.panel_of(curve), (best or 0) / share, upper, kind, _text(curve, share, kind)


def _text(curve: StudyCurve, share: float, kind: str) -> str:
    verdict = curve.verdict
    text = phrases.max_batch(verdict)
    if verdict.max_batch is None:
        return "none passes" if text == "none" else "unknown (inconclusive)"
    if share != 1 or curve.cores == 1:
        text = f"{'≥ ' if kind == _OPEN else ''}{text_of.number(verdict.max_batch / share)}"
    cores = f"  ({text_of.count(verdict.max_batch)} on {text_of.count_of(round(share), 'core')})" if share != 1 else ""
    return (f"at least {text}" if kind == _UNSURE else text) + cores


def _notes(rows: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    notes = ["Solid: the largest batch that passes, all smaller ones passing too."]
    kinds = {row[4] for row in rows}
    if _EXACT in kinds:
        notes.append("Pale: up to the smallest batch that failed; the limit lies in between.")
    if _UNSURE in kinds:
        notes.append("Dashed: measured, but inconclusive, so it may hold more.")
    if _OPEN in kinds:
        notes.append("▶ and ≥: the largest batch asked for passes, nothing larger was tried.")
    return ("  ".join(notes),)


def draw(shown: c.Content) -> Any:
    """Draw either with plotnine."""
    import plotnine as p9

    from . import palette
    from .stack import Stack
    from .theme import data, infrastructure_scales, labels, the_theme

    names, panels = shown.facts["infrastructures"], shown.facts["panels"]
    bars = data(shown.frames["bars"]).astype({"value": float, "upper": float})
    stack = Stack.of(zip(bars["panel"], bars["infrastructure"], strict=True), panels, names)
    bars["y"] = stack.column(bars)
    bars["low"], bars["high"] = bars["y"] - 0.36, bars["y"] + 0.36
    longest = float(max(bars["value"].max(), bars["upper"].fillna(0).max())) or 1.0
    text_share = max(len(text) for text in bars["text"]) * 0.075 / stack.panel_width
    room = text_share / (1 - min(text_share, 0.6)) + 0.05
    pale = bars[bars["upper"].notna() & (bars["upper"] > bars["value"])]
    exact, unsure = pale[pale["kind"] == _EXACT], pale[pale["kind"] == _UNSURE]
    ends = bars[bars["kind"] == _OPEN].assign(to=lambda table: table["value"] + 0.008 * longest)
    bars["end"] = bars["upper"].where(bars["upper"].notna(), bars["value"] + 0.02 * longest)
    bars["end"] = bars[["end", "value"]].max(axis=1) + 0.01 * longest
    span = {"ymin": "low", "ymax": "high"}
    text = {"size": 8.5, "ha": "left", "inherit_aes": False, "colour": palette.INK}
    ticks = [tick for tick in nice(longest) if tick == int(tick) or not shown.facts.get("whole")]
    return (
        p9.ggplot(bars, p9.aes(fill="infrastructure"))
        + p9.geom_rect(p9.aes(xmin="value", xmax="upper", **span), exact, alpha=0.28, colour="none")
        + p9.geom_rect(
            p9.aes(xmin="value", xmax="upper", colour="infrastructure", **span),
            unsure,
            fill=palette.SURFACE,
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
            labels=[text_of.number(tick) for tick in ticks],
            expand=(0, 0),
        )
        + stack.layers(0.0)
        + labels(shown, x=shown.facts["x"], y="")
        + the_theme(*stack.size(shown, 0.34), grid="x", legend="none")
    )


def nice(largest: float, most: int = 6) -> list[float]:
    """Return round numbers from 0 on that an axis up to `largest` names."""
    if largest <= 0:
        return [0.0]
    size = 10 ** floor(log10(largest / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if largest / (size * factor) <= most)
    return [step * at for at in range(int(largest / step) + 1)]
