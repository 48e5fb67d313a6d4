"""What more servers bring: one row per number of replicas, or of nodes, of the same target, from the run alone.

A run that repeats a target with `replicas=1`, `2`, `4`, or with `nodes=`, ends in this table, per test, mode and wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, format_number, parse_target
from pytest_openenv_scale.core.jsonable import Jsonable, encode
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases
from .text import DEFAULT_WIDTH, Line, Page, collapse

Axis = Literal["replicas", "nodes"]
"""What there are several of: servers behind one proxy, or nodes of a cluster with a server each."""

AXES: tuple[Axis, ...] = ("replicas", "nodes")
_GAP = "  "


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
    def one(self) -> str:
        """One of what there are several of: "replica"."""
        return self.axis.removesuffix("s")

    @property
    def titles(self) -> tuple[str, ...]:
        """What stands above the columns, in the order of `cells`."""
        return (self.axis, f"sessions per {self.one}", "max batch", "rps", "scaling factor", "efficiency")

    def to_document(self) -> dict[str, Any]:
        """Return it for the JSON report, its rows in the words of its axis."""
        document: dict[str, Any] = encode(self)
        names = {"count": self.axis, "sessions_each": f"sessions_per_{self.one}"}
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
    return [_table(*key, dict(sorted(found.items()))) for key, found in groups.items() if len(found) > 1]


def without_count(target: str, axis: Axis) -> str:
    """Return the target's text without what tells numbers of replicas or nodes apart."""
    try:
        spec = parse_target(target)
    except GrammarError:
        return target
    argument = None if (spec.argument or "").startswith(f"{axis}=") else spec.argument
    options = tuple((key, value) for key, value in spec.options if key not in (axis, "label"))
    return str(TargetSpec(spec.name, argument, options))


def _table(
    axis: Axis,
    test: str,
    target: str,
    mode: str,
    wait: float | None,
    found: dict[int, tuple[SweepView, CurveView]],
) -> ScalingTable:
    fewest, (_, first) = next(iter(found.items()))
    rate, batch = _throughput(first), first.verdict.max_batch
    rows = tuple(
        _row(count, curve, _each(rate, fewest), _each(batch, fewest), fewest) for count, (_, curve) in found.items()
    )
    cores = {view.record.cores for view, _ in found.values()}
    return ScalingTable(axis, test, target, mode, wait, cores.pop() if len(cores) == 1 else None, rows)


def _row(count: int, curve: CurveView, rate_each: float | None, batch_each: float | None, fewest: int) -> ScalingRow:
    verdict, rate = curve.verdict, _throughput(curve)
    return ScalingRow(
        count=count,
        max_batch=verdict.max_batch,
        max_batch_text=phrases.max_batch(verdict),
        is_open=phrases.is_open(verdict),
        sessions_each=_each(verdict.max_batch, count),
        requests_per_second=rate,
        scaling_factor=factor(rate, fewest, rate_each),
        efficiency=efficiency(rate, count, rate_each),
        capacity_factor=factor(verdict.max_batch, fewest, batch_each),
        capacity_efficiency=efficiency(verdict.max_batch, count, batch_each),
    )


def _each(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def factor(value: float | None, fewest: int, each_at_first: float | None) -> float | None:
    """Return how many times as much there is as with the fewest that were measured."""
    if value is None or not each_at_first:
        return None
    return value / (each_at_first * fewest)


def efficiency(value: float | None, count: int, each_at_first: float | None) -> float | None:
    """Return what each replica or node brings, relative to each of the fewest: 1.0 is as much, 0.5 half as much.

    Speed-up divided by the number of processors, with one replica or node (or the fewest measured) as the unit:
    E(N) = (X(N) / N) / (X(1) / 1), after Eager, Zahorjan and Lazowska, "Speedup versus efficiency in
    parallel systems", IEEE Transactions on Computers 38(3), 1989.
    """
    if value is None or not each_at_first:
        return None
    return value / count / each_at_first


def _throughput(curve: CurveView) -> float | None:
    passing = {cell.batch for cell in curve.verdict.cells if cell.passed}
    rates: dict[int, list[float]] = {}
    for summary in curve.summaries:
        if summary.batch in passing and summary.requests_per_second is not None:
            rates.setdefault(summary.batch, []).append(summary.requests_per_second)
    return max((min(found) for found in rates.values()), default=None)


def heading(table: ScalingTable) -> str:
    """Return what the table is about: "envoy · ws · wait 1 s"."""
    facts = [table.target, table.mode]
    facts += [] if table.wait is None else [f"wait {format_number(table.wait)} s"]
    return " · ".join(facts)


def cells(row: ScalingRow) -> list[str]:
    """Return a row as text, in the order of a table's titles."""
    return [
        text_of.count(row.count),
        text_of.number(row.sessions_each),
        row.max_batch_text,
        text_of.rate(row.requests_per_second),
        text_of.MISSING if row.scaling_factor is None else f"{row.scaling_factor:.2f} ×",
        text_of.percent(row.efficiency),
    ]


def remarks(table: ScalingTable) -> list[str]:
    """Return how the table is to be read."""
    fewest = table.rows[0].count
    unit = f"1 {table.one}" if fewest == 1 else f"{fewest} {table.axis}"
    said = [f"scaling factor is throughput relative to {unit}, efficiency the same per {table.one}"]
    if table.axis == "replicas" and table.cores is not None:
        said.append(f"all share the same {text_of.count_of(table.cores, 'core')}")
    if any(row.is_open for row in table.rows):
        said.append("≥: every batch asked for passes there, so that larger ones would tell more")
    return said


def scaling_lines(
    sweeps: Iterable[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the tables of a run as lines of text; nothing where no target was repeated."""
    page = Page(width, encoding)
    for table in scaling_tables(sweeps):
        page.blank()
        page.say(f"{table.axis} · {heading(table)} · {collapse(table.test)}", indent=0, bold=True)
        texts = [[page.fit(text) for text in row] for row in (table.titles, *(cells(row) for row in table.rows))]
        widths = [max(len(row[at]) for row in texts) for at in range(len(texts[0]))]
        page.verbatim(_aligned(texts[0], widths), bold=True)
        for row in texts[1:]:
            page.verbatim(_aligned(row, widths))
        page.say("; ".join(remarks(table)), light=True)
    return page.lines


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP + _GAP.join(text.rjust(width) for text, width in zip(row, widths, strict=True))
