"""What replicas bring: one row per number of replicas of the same target, from the run alone.

A run that repeats a target with `replicas=1`, `2`, `4` ends in this table, per test, mode and wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, format_number, parse_target
from pytest_openenv_scale.core.jsonable import Jsonable
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases
from .text import DEFAULT_WIDTH, Line, Page, collapse

TITLES = ("replicas", "sessions per replica", "max batch", "rps", "efficiency")
_GAP = "  "


@dataclass(frozen=True, slots=True)
class ReplicasRow(Jsonable):
    """One number of replicas: its max batch (`is_open`: a larger one might pass too) and its throughput.

    `requests_per_second` is that of the fastest passing batch, the slowest of its repetitions. `efficiency`
    and `capacity_efficiency` are fractions: throughput, and max batch, per replica, relative to the same
    with the fewest replicas that were measured.
    """

    replicas: int
    max_batch: int | None
    max_batch_text: str
    is_open: bool
    sessions_per_replica: float | None
    requests_per_second: float | None
    efficiency: float | None
    capacity_efficiency: float | None


@dataclass(frozen=True, slots=True)
class ReplicasTable(Jsonable):
    """One test, target, mode and wait over numbers of replicas, ascending; `target` is without `replicas=`.

    `cores` is what all of them shared; None where it differs or is not known.
    """

    test: str
    target: str
    mode: str
    wait: float | None
    cores: int | None
    rows: tuple[ReplicasRow, ...]


def replicas_tables(sweeps: Iterable[SweepView]) -> list[ReplicasTable]:
    """Return a table for every curve that was measured with at least two numbers of replicas."""
    groups: dict[tuple[str, str, str, float | None], dict[int, tuple[SweepView, CurveView]]] = {}
    for view in sweeps:
        replicas = view.record.limits.get("replicas")
        if not isinstance(replicas, int):
            continue
        for curve in view.curves:
            key = (view.test, _without_replicas(view.target), curve.curve.mode, curve.curve.wait)
            groups.setdefault(key, {})[replicas] = (view, curve)
    return [_table(*key, dict(sorted(found.items()))) for key, found in groups.items() if len(found) > 1]


def _without_replicas(target: str) -> str:
    """Return the target's text without what tells numbers of replicas apart."""
    try:
        spec = parse_target(target)
    except GrammarError:
        return target
    argument = None if (spec.argument or "").startswith("replicas=") else spec.argument
    options = tuple((key, value) for key, value in spec.options if key not in ("replicas", "label"))
    return str(TargetSpec(spec.name, argument, options))


def _table(
    test: str, target: str, mode: str, wait: float | None, found: dict[int, tuple[SweepView, CurveView]]
) -> ReplicasTable:
    fewest, (_, first) = next(iter(found.items()))
    rate, batch = _throughput(first), first.verdict.max_batch
    rows = tuple(
        _row(replicas, curve, _each(rate, fewest), _each(batch, fewest)) for replicas, (_, curve) in found.items()
    )
    cores = {view.record.cores for view, _ in found.values()}
    return ReplicasTable(test, target, mode, wait, cores.pop() if len(cores) == 1 else None, rows)


def _row(replicas: int, curve: CurveView, rate_each: float | None, batch_each: float | None) -> ReplicasRow:
    verdict, rate = curve.verdict, _throughput(curve)
    return ReplicasRow(
        replicas=replicas,
        max_batch=verdict.max_batch,
        max_batch_text=phrases.max_batch(verdict),
        is_open=phrases.is_open(verdict),
        sessions_per_replica=_each(verdict.max_batch, replicas),
        requests_per_second=rate,
        efficiency=efficiency(rate, replicas, rate_each),
        capacity_efficiency=efficiency(verdict.max_batch, replicas, batch_each),
    )


def _each(value: float | None, replicas: int) -> float | None:
    return None if value is None else value / replicas


def efficiency(value: float | None, replicas: int, each_at_first: float | None) -> float | None:
    """Return what each replica brings, relative to each of the fewest: 1.0 is as much, 0.5 half as much.

    Speed-up divided by the number of processors, with one replica (or the fewest measured) as the unit:
    E(N) = (X(N) / N) / (X(1) / 1), after Eager, Zahorjan and Lazowska, "Speedup versus efficiency in
    parallel systems", IEEE Transactions on Computers 38(3), 1989.
    """
    if value is None or not each_at_first:
        return None
    return value / replicas / each_at_first


def _throughput(curve: CurveView) -> float | None:
    passing = {cell.batch for cell in curve.verdict.cells if cell.passed}
    rates: dict[int, list[float]] = {}
    for summary in curve.summaries:
        if summary.batch in passing and summary.requests_per_second is not None:
            rates.setdefault(summary.batch, []).append(summary.requests_per_second)
    return max((min(found) for found in rates.values()), default=None)


def heading(table: ReplicasTable) -> str:
    """Return what the table is about: "envoy · ws · wait 1 s"."""
    facts = [table.target, table.mode]
    facts += [] if table.wait is None else [f"wait {format_number(table.wait)} s"]
    return " · ".join(facts)


def cells(row: ReplicasRow) -> list[str]:
    """Return a row as text, in the order of `TITLES`."""
    return [
        text_of.count(row.replicas),
        text_of.number(row.sessions_per_replica),
        row.max_batch_text,
        text_of.rate(row.requests_per_second),
        text_of.percent(row.efficiency),
    ]


def remarks(table: ReplicasTable) -> list[str]:
    """Return how the table is to be read."""
    fewest = table.rows[0].replicas
    unit = "1 replica" if fewest == 1 else f"{fewest} replicas"
    said = [f"efficiency is throughput per replica relative to {unit}"]
    if table.cores is not None and len(table.rows) > 1:
        said.append(f"all share the same {text_of.count_of(table.cores, 'core')}")
    if any(row.is_open for row in table.rows):
        said.append("≥: every batch asked for passes there, so that larger ones would tell more")
    return said


def replicas_lines(
    sweeps: Iterable[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the tables of a run as lines of text; nothing where no target was repeated."""
    page = Page(width, encoding)
    for table in replicas_tables(sweeps):
        page.blank()
        page.say(f"replicas · {heading(table)} · {collapse(table.test)}", indent=0, bold=True)
        texts = [[page.fit(text) for text in row] for row in (TITLES, *(cells(row) for row in table.rows))]
        widths = [max(len(row[at]) for row in texts) for at in range(len(TITLES))]
        page.verbatim(_aligned(texts[0], widths), bold=True)
        for row in texts[1:]:
            page.verbatim(_aligned(row, widths))
        page.say("; ".join(remarks(table)), light=True)
    return page.lines


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP + _GAP.join(text.rjust(width) for text, width in zip(row, widths, strict=True))
