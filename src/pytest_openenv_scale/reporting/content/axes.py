"""Curves along an axis in words: WebSocket with HTTP, and one server with several."""

from __future__ import annotations

from pytest_openenv_scale.analysis.axes import COMPARED_LATENCIES, ModeResult, ProtocolComparison, ServerScaling
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line

from . import wording
from .tables import MISSING, Table, Value, count_value, number_value, percent_value, rate_value, wait_text
from .verdicts import reason_words
from .wording import render_seconds

HTTP_FOOTNOTE = (
    "HTTP gives every request an environment of its own: it cannot hold an episode, so its sessions are only a"
    " reset and steps that know nothing of each other"
)


def replicas_table(table: ServerScaling) -> Table:
    """Return what more servers bring, under what it is of: "replicas · envoy · ws · wait 1 s · test_scale.py"."""
    wait = [] if table.wait is None else [f"wait {wait_text(table.wait)}"]
    title = " · ".join([table.axis, table.target, table.mode, *wait, on_one_line(table.test)])
    rows = tuple(
        (
            count_value(row.count),
            number_value(row.sessions_each),
            Value(wording.max_batch_text(row.verdict), row.max_batch),
            rate_value(row.requests_per_second),
            MISSING if row.scaling_factor is None else Value(f"{row.scaling_factor:.2f} ×", row.scaling_factor),
            percent_value(row.efficiency),
        )
        for row in table.rows
    )
    heads = (table.axis, f"sessions per {table.unit}", "max batch", "rps", "scaling factor", "efficiency")
    return Table(table.axis, title, heads, rows, frozenset(heads), ("; ".join(scaling_remarks(table)),))


def scaling_remarks(table: ServerScaling) -> list[str]:
    """Return how the table is to be read."""
    fewest = table.rows[0].count
    unit = f"1 {table.unit}" if fewest == 1 else f"{fewest} {table.axis}"
    remarks = [f"scaling factor is throughput relative to {unit}, efficiency the same per {table.unit}"]
    if table.axis == "replicas" and table.cores is not None:
        remarks.append(f"all share the same {formatting.count_of(table.cores, 'core')}")
    if any(wording.is_open(row.verdict) for row in table.rows):
        remarks.append("≥: every batch asked for passes there, so that larger ones would tell more")
    return remarks


PROTOCOL_TITLE = "protocol comparison"
PROTOCOL_FIGURES = (
    ("ok", "success"),
    *((f"{phase} {statistic}", f"{phase}_{statistic}") for phase, statistic in COMPARED_LATENCIES),
)
"""What is compared at the largest common batch: its name and the field of `ModeResult` it is in."""

PROTOCOL_HEADS = ("wait", "ws max", "http max", "ratio", "winner")
PROTOCOL_RIGHT = ("wait", "ws max", "http max", "ratio")
"""Those of `PROTOCOL_HEADS` that are numbers."""


def protocol_cells(comparison: ProtocolComparison) -> tuple[Value, ...]:
    """Return what a comparison says, in the order of `PROTOCOL_HEADS`."""
    return (
        Value(wait_text(comparison.wait), comparison.wait),
        *(Value(mode_max_batch_text(result), result.max_batch) for result in comparison.modes),
        Value(ratio_text(comparison), comparison.ratio),
        Value(comparison.winner or "unknown"),
    )


def protocol_notes(comparison: ProtocolComparison) -> list[str]:
    """Say why the max batch of a mode is not its limit, where it is not."""
    return [note for result in comparison.modes if (note := _max_batch_note(result))]


def _max_batch_note(result: ModeResult) -> str | None:
    if result.known == "exact":
        return None
    if result.known == "open":
        return f"{result.mode}: the largest batch asked for passes; it may hold more"
    if result.doubtful_batch is None:
        return f"{result.mode}: inconclusive, larger batches were not measured"
    why = "it could not be judged" if result.doubt is None else reason_words(result.doubt)
    return f"{result.mode}: inconclusive from batch {formatting.count(result.doubtful_batch)} on: {why}"


def mode_max_batch_text(result: ModeResult) -> str:
    """Return the max batch of a mode, with ≥ where it may be more: "128", "≥ 128", "none", "unknown"."""
    if result.max_batch is None:
        return "unknown" if result.known == "inconclusive" else "none"
    return f"{'' if result.known == 'exact' else '≥ '}{formatting.count(result.max_batch)}"


def ratio_text(comparison: ProtocolComparison) -> str:
    """Return ws max ÷ http max, with ≥ or ≤ where one of them may be more; "–" where it is not known."""
    signs = {("exact", "exact"): "", ("open", "exact"): "≥ ", ("inconclusive", "exact"): "≥ "}
    signs |= {("exact", "open"): "≤ ", ("exact", "inconclusive"): "≤ "}
    sign = signs.get((comparison.ws.known, comparison.http.known))
    return formatting.MISSING if comparison.ratio is None or sign is None else f"{sign}{comparison.ratio:.3g}"


def figure_texts(comparison: ProtocolComparison) -> tuple[str, ...]:
    """Return what is compared at the largest common batch, "ws / http" each, in the order of `PROTOCOL_FIGURES`."""
    texts: list[str] = []
    for _, field in PROTOCOL_FIGURES:
        values = [getattr(result, field) for result in comparison.modes]
        success_text = f"{' / '.join(map(formatting.percent_number, values))} %"
        texts.append(success_text if field == "success" else render_seconds([values])[0])
    return tuple(texts)
