"""The one table of display columns: what the terminal and the Markdown report show of a batch, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.outcome import Breach, CellVerdict
from pytest_openenv_scale.core.slo import LIMITS, format_value
from pytest_openenv_scale.core.summary import CellSummary
from pytest_openenv_scale.core.view import CurveView

Figures = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One batch of a curve: its repetitions and what was judged of them."""

    batch: int
    repetitions: tuple[CellSummary, ...]
    verdict: CellVerdict | None

    @property
    def mark(self) -> str:
        """✓ passed, ✗ failed, ? inconclusive."""
        passed = self.verdict.passed if self.verdict else None
        return "?" if passed is None else "✓" if passed else "✗"

    @property
    def remark(self) -> str:
        """The first limit this batch broke, observed against allowed; else in short why it is inconclusive."""
        verdict = self.verdict
        if verdict is None or verdict.passed:
            return ""
        if not verdict.breaches:
            kind = verdict.reasons[0].kind if verdict.reasons else ""
            return _DOUBTS.get(kind, "inconclusive")
        first = verdict.breaches[0]
        others = {breach.limit for breach in verdict.breaches} - {first.limit}
        return breach_words(first) + (f", also {', '.join(sorted(others))}" if others else "")


_DOUBTS = {
    "client": "the client was the limit",
    "queue": "the client was too slow",
    "hold": "never all open at once",
    "hosts": "hosts unknown",
    "no_data": "nothing measured",
    "incomplete": "repetitions missing",
    "unmeasurable": "a limit cannot be judged",
}


def breach_words(breach: Breach) -> str:
    """Return a broken limit in short: "success 78.1 % < 95 %", "total_p99 3.1 s > 2.5 s"."""
    kind = LIMITS.get(breach.limit)
    if kind is None or breach.observed is None or breach.allowed is None:
        return "the server died" if breach.limit == "server" else breach.text
    unit = "seconds" if kind.phase else kind.unit
    name = f"{kind.phase}_{kind.statistic}" if kind.phase else kind.name
    sign = "<" if kind.direction == ">=" else ">"
    observed = text_of.observed(unit, breach.observed, breach.allowed)
    return f"{name} {observed} {sign} {format_value(unit, breach.allowed)}"


def rows_of(view: CurveView) -> tuple[Row, ...]:
    """Return a row per measured batch of a curve, the smallest first."""
    measured: dict[int, list[CellSummary]] = {}
    for summary in sorted(view.summaries, key=lambda summary: (summary.batch, summary.repetition)):
        measured.setdefault(summary.batch, []).append(summary)
    return tuple(Row(batch, tuple(found), view.verdict.cell(batch)) for batch, found in measured.items())


@dataclass(frozen=True, slots=True)
class Column:
    """One display column; several repetitions of a batch are shown by the worst of each figure.

    `group` and `title` are its heading, on two lines or as one ("connect p50/p99"). `texts` renders it for
    all rows at once, in one unit, so that rows compare at a glance. Where the width does not do, the column
    of the highest `drop` leaves first; those of 0 stay. `useful` says whether it tells anything here.
    """

    name: str
    group: str
    title: str
    texts: Callable[[Sequence[Row]], list[str]]
    drop: int = 0
    useful: Callable[[Sequence[Row]], bool] = lambda rows: True

    @property
    def heading(self) -> str:
        """The heading on one line."""
        return f"{self.group} {self.title}".lstrip()


def chosen(view: CurveView, rows: Sequence[Row]) -> list[Column]:
    """Return the columns worth showing for a curve, in order; those of its limits leave last."""
    asked = {limit.kind.phase or limit.name for limit in view.verdict.slo.limits}
    return [
        replace(column, drop=1) if column.name in asked and column.drop else column
        for column in COLUMNS
        if column.name in asked or column.useful(rows)
    ]


def seconds(rows: Sequence[Figures]) -> list[str]:
    """Render seconds in one unit and with equal decimals for the whole column, parts joined by " / "."""
    known = [value for row in rows for value in row if value is not None]
    if not known:
        return [text_of.MISSING for _ in rows]
    scale, decimals, unit = _unit(min(known), max(known))
    parts = [
        [text_of.MISSING if value is None else f"{value * scale:.{decimals}f}" for value in column]
        for column in zip(*rows, strict=True)
    ]
    widths = [max(map(len, column)) for column in parts]
    whole = sum(widths) + len(" / ") * (len(widths) - 1)
    return [
        f"{' / '.join(text.rjust(width) for text, width in zip(texts, widths, strict=True))} {unit}"
        if any(value is not None for value in row)
        else f"{text_of.MISSING.rjust(whole)}{' ' * (len(unit) + 1)}"
        for row, texts in zip(rows, zip(*parts, strict=True), strict=True)
    ]


def _unit(smallest: float, largest: float) -> tuple[float, int, str]:
    """Return factor, decimals and unit in which both ends of a column are readable, and neither reads as 0."""
    if largest < 1 or (largest < 10 and smallest < 0.1):
        decimals = 2 if largest < 0.001 else 1 if largest < 0.01 or smallest < 0.001 else 0
        return 1000, decimals, "ms"
    return 1, 2 if largest < 100 else 1 if largest < 1000 else 0, "s"


def _whole(rows: Sequence[Figures]) -> list[str]:
    return [text_of.count(None if value is None else int(value)) for (value,) in rows]


def _rates(rows: Sequence[Figures]) -> list[str]:
    largest = max((value for (value,) in rows if value is not None), default=0.0)
    decimals = 0 if largest >= 99.5 else 1 if largest >= 9.95 else 2
    return [text_of.MISSING if value is None else f"{value:,.{decimals}f}" for (value,) in rows]


def _percents(rows: Sequence[Figures]) -> list[str]:
    return [text_of.percent_number(value) for (value,) in rows]


def _worst(
    figures: Callable[[CellSummary], Figures],
    worst: Callable[[Iterable[float]], float],
    render: Callable[[Sequence[Figures]], list[str]],
) -> Callable[[Sequence[Row]], list[str]]:
    def of_row(row: Row) -> Figures:
        columns = zip(*(figures(summary) for summary in row.repetitions), strict=True)
        known = ([value for value in column if value is not None] for column in columns)
        return [worst(values) if values else None for values in known]

    return lambda rows: render([of_row(row) for row in rows])


def _latency(phase: str, *statistics: str) -> Callable[[Sequence[Row]], list[str]]:
    def figures(summary: CellSummary) -> Figures:
        stats = summary.phase(phase)
        return [getattr(stats, statistic) if stats else None for statistic in statistics]

    return _worst(figures, max, seconds)


def spread(row: Row) -> float | None:
    """Return half the range of total p99 between repetitions as a share of its middle; None for fewer than 2."""
    found = [stats.p99 for summary in row.repetitions if (stats := summary.phase("total"))]
    if len(found) < 2 or min(found) + max(found) == 0:
        return None
    return (max(found) - min(found)) / (max(found) + min(found))


def _spreads(rows: Sequence[Row]) -> list[str]:
    return [text_of.MISSING if (share := spread(row)) is None else f"±{share * 100:.0f} %" for row in rows]


def _repeated(rows: Sequence[Row]) -> bool:
    return any(spread(row) is not None for row in rows)


def _several_hosts(rows: Sequence[Row]) -> bool:
    cells = [summary for row in rows for summary in row.repetitions]
    return any((cell.hosts or 0) > 1 or (cell.hosts_available or 0) > 1 for cell in cells)


COLUMNS: tuple[Column, ...] = (
    Column("batch", "", "batch", lambda rows: [text_of.count(row.batch) for row in rows]),
    Column("success", "", "ok %", _worst(lambda cell: [cell.success_rate], min, _percents)),
    Column("open", "", "open", _worst(lambda cell: [cell.peak_concurrency], min, _whole)),
    Column("connect", "connect", "p50/p99", _latency("connect", "p50", "p99"), drop=2),
    Column("reset", "reset", "p50/p99", _latency("reset", "p50", "p99"), drop=5),
    Column("step", "step", "p50/p99", _latency("step", "p50", "p99"), drop=3),
    Column("total", "total", "p50/p99", _latency("total", "p50", "p99"), drop=1),
    Column("spread", "", "± p99", _spreads, drop=6, useful=_repeated),
    Column("overhead", "overhead", "p99", _latency("overhead", "p99"), drop=4),
    Column("rps", "", "rps", _worst(lambda cell: [cell.requests_per_second], min, _rates), drop=7),
    Column("hosts", "", "hosts", _worst(lambda cell: [cell.hosts], min, _whole), drop=8, useful=_several_hosts),
)
"""Every figure of a batch that a report shows; max batch and the verdict are the curve's, beneath the table."""
