"""What a run compares within itself: WebSocket with HTTP, and one server with several, from the run alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_openenv_scale.analysis.protocols import COMPARED_LATENCIES, ModeResult, ProtocolComparison
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.serialization import Jsonable, encode
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from . import wording
from .tables import MISSING, Table, Value, count_value, number_value, percent_value, rate_value, wait_text
from .verdicts import reason_words
from .wording import render_seconds

Axis = Literal["replicas", "nodes"]
"""What there are several of: servers behind one proxy, or nodes of a cluster with a server each."""

AXES: tuple[Axis, ...] = ("replicas", "nodes")


@dataclass(frozen=True, slots=True)
class ScalingRow(Jsonable):
    """One number of replicas or nodes: its max batch (`is_open`: a larger one might pass too) and its throughput.

    `requests_per_second` is that of the fastest passing batch, the slowest of its repetitions. `scaling_factor` and
    `capacity_factor` are throughput, and max batch, relative to those with the fewest that were measured;
    `efficiency` and `capacity_efficiency` are the same per replica or node, as fractions.
    """

    count: int
    max_batch: int | None
    max_batch_text: str
    is_open: bool
    sessions_each: float | None
    requests_per_second: float | None
    scaling_factor: float | None
    efficiency: float | None
    capacity_factor: float | None
    capacity_efficiency: float | None


@dataclass(frozen=True, slots=True)
class ScalingTable(Jsonable):
    """One test, target, mode and wait over numbers of replicas or nodes, ascending; `target` is without them.

    `cores` is what all of them shared; None where it differs or is not known.
    """

    axis: Axis
    test: str
    target: str
    mode: str
    wait: float | None
    cores: int | None
    rows: tuple[ScalingRow, ...]

    @property
    def unit(self) -> str:
        """The singular of the axis: "replica" or "node"."""
        return self.axis.removesuffix("s")

    def to_document(self) -> dict[str, Any]:
        """Return the table for the JSON report; keys of its rows name the axis: "replicas", "sessions_per_replica"."""
        document: dict[str, Any] = encode(self)
        names = {"count": self.axis, "sessions_each": f"sessions_per_{self.unit}"}
        rows = [{names.get(name, name): value for name, value in row.items()} for row in document["rows"]]
        return {name: value for name, value in document.items() if name != "axis"} | {"rows": rows}


def scaling_tables(sweeps: Iterable[SweepView], axes: Sequence[Axis] = AXES) -> list[ScalingTable]:
    """Return a table for every curve that was measured with at least two numbers of replicas, or of nodes."""
    groups: dict[tuple[Axis, str, str, str, float | None], dict[int, tuple[SweepView, CurveView]]] = {}
    for view in sweeps:
        for axis in axes:
            count = view.record.limits.get(axis)
            if not isinstance(count, int):
                continue
            for curve in view.curves:
                key = (axis, view.test, without_count(view.target, axis), curve.curve.mode, curve.curve.wait)
                groups.setdefault(key, {})[count] = (view, curve)
    return [
        _scaling_table(*key, dict(sorted(by_count.items()))) for key, by_count in groups.items() if len(by_count) > 1
    ]


def without_count(target: str, axis: Axis) -> str:
    """Return the target without its number of replicas or nodes and its label."""
    try:
        spec = parse_target(target)
    except GrammarError:
        return target
    argument = None if (spec.argument or "").startswith(f"{axis}=") else spec.argument
    options = tuple((key, value) for key, value in spec.options if key not in (axis, "label"))
    return str(TargetSpec(spec.name, argument, options))


def _scaling_table(
    axis: Axis,
    test: str,
    target: str,
    mode: str,
    wait: float | None,
    by_count: dict[int, tuple[SweepView, CurveView]],
) -> ScalingTable:
    fewest, (_, first) = next(iter(by_count.items()))
    rate, batch = _throughput(first), first.verdict.max_batch
    rows = tuple(
        _scaling_row(count, curve, _per_server(rate, fewest), _per_server(batch, fewest), fewest)
        for count, (_, curve) in by_count.items()
    )
    cores = {view.record.cores for view, _ in by_count.values()}
    return ScalingTable(axis, test, target, mode, wait, cores.pop() if len(cores) == 1 else None, rows)


def _scaling_row(
    count: int, curve: CurveView, rate_each: float | None, batch_each: float | None, fewest: int
) -> ScalingRow:
    verdict, rate = curve.verdict, _throughput(curve)
    return ScalingRow(
        count=count,
        max_batch=verdict.max_batch,
        max_batch_text=wording.max_batch_text(verdict),
        is_open=wording.is_open(verdict),
        sessions_each=_per_server(verdict.max_batch, count),
        requests_per_second=rate,
        scaling_factor=growth_factor(rate, fewest, rate_each),
        efficiency=efficiency(rate, count, rate_each),
        capacity_factor=growth_factor(verdict.max_batch, fewest, batch_each),
        capacity_efficiency=efficiency(verdict.max_batch, count, batch_each),
    )


def _per_server(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def growth_factor(value: float | None, fewest: int, unit_value: float | None) -> float | None:
    """Return the value as a multiple of that of the fewest servers; `unit_value` is what each of these reached."""
    if value is None or not unit_value:
        return None
    return value / (unit_value * fewest)


def efficiency(value: float | None, count: int, unit_value: float | None) -> float | None:
    """Return what each replica or node brings, relative to each of the fewest: 1.0 is as much, 0.5 half as much.

    Speed-up divided by the number of processors, with one replica or node (or the fewest measured) as the unit:
    E(N) = (X(N) / N) / (X(1) / 1), after Eager, Zahorjan and Lazowska, "Speedup versus efficiency in
    parallel systems", IEEE Transactions on Computers 38(3), 1989.
    """
    if value is None or not unit_value:
        return None
    return value / count / unit_value


def _throughput(curve: CurveView) -> float | None:
    passing = {cell.batch for cell in curve.verdict.cells if cell.passed}
    rates: dict[int, list[float]] = {}
    for summary in curve.summaries:
        if summary.batch in passing and summary.requests_per_second is not None:
            rates.setdefault(summary.batch, []).append(summary.requests_per_second)
    return max((min(repetition_rates) for repetition_rates in rates.values()), default=None)


def replicas_table(table: ScalingTable) -> Table:
    """Return a scaling table as text, under what it is about: "replicas · envoy · ws · wait 1 s · test_scale.py"."""
    wait = [] if table.wait is None else [f"wait {wait_text(table.wait)}"]
    title = " · ".join([table.axis, table.target, table.mode, *wait, on_one_line(table.test)])
    rows = tuple(
        (
            count_value(row.count),
            number_value(row.sessions_each),
            Value(row.max_batch_text, row.max_batch),
            rate_value(row.requests_per_second),
            MISSING if row.scaling_factor is None else Value(f"{row.scaling_factor:.2f} ×", row.scaling_factor),
            percent_value(row.efficiency),
        )
        for row in table.rows
    )
    heads = (table.axis, f"sessions per {table.unit}", "max batch", "rps", "scaling factor", "efficiency")
    return Table(table.axis, title, heads, rows, frozenset(heads), ("; ".join(scaling_remarks(table)),))


def scaling_remarks(table: ScalingTable) -> list[str]:
    """Return how the table is to be read."""
    fewest = table.rows[0].count
    unit = f"1 {table.unit}" if fewest == 1 else f"{fewest} {table.axis}"
    remarks = [f"scaling factor is throughput relative to {unit}, efficiency the same per {table.unit}"]
    if table.axis == "replicas" and table.cores is not None:
        remarks.append(f"all share the same {formatting.count_of(table.cores, 'core')}")
    if any(row.is_open for row in table.rows):
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
