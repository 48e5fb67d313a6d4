"""How figures and verdicts are written, the same everywhere: the table of columns, and what is said in words."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_openenv_scale.config.limits import LIMITS, LimitKind
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.formatting import format_value
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.metrics.errors import ErrorCount
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import Breach, CellVerdict, CurveVerdict, Outcome, Reason, Refusal
from pytest_openenv_scale.verdict.evidence import error_words
from pytest_openenv_scale.verdict.sweep import CurveView

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
    observed = formatting.format_observed(unit, breach.observed, breach.allowed)
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
        return [formatting.MISSING for _ in rows]
    scale, decimals, unit = _unit(min(known), max(known))
    parts = [
        [formatting.MISSING if value is None else f"{value * scale:.{decimals}f}" for value in column]
        for column in zip(*rows, strict=True)
    ]
    widths = [max(map(len, column)) for column in parts]
    whole = sum(widths) + len(" / ") * (len(widths) - 1)
    return [
        f"{' / '.join(text.rjust(width) for text, width in zip(texts, widths, strict=True))} {unit}"
        if any(value is not None for value in row)
        else f"{formatting.MISSING.rjust(whole)}{' ' * (len(unit) + 1)}"
        for row, texts in zip(rows, zip(*parts, strict=True), strict=True)
    ]


def _unit(smallest: float, largest: float) -> tuple[float, int, str]:
    """Return factor, decimals and unit in which both ends of a column are readable, and neither reads as 0."""
    if largest < 1 or (largest < 10 and smallest < 0.1):
        decimals = 2 if largest < 0.001 else 1 if largest < 0.01 or smallest < 0.001 else 0
        return 1000, decimals, "ms"
    return 1, 2 if largest < 100 else 1 if largest < 1000 else 0, "s"


def _whole(rows: Sequence[Figures]) -> list[str]:
    return [formatting.count(None if value is None else int(value)) for (value,) in rows]


def _rates(rows: Sequence[Figures]) -> list[str]:
    largest = max((value for (value,) in rows if value is not None), default=0.0)
    decimals = 0 if largest >= 99.5 else 1 if largest >= 9.95 else 2
    return [formatting.MISSING if value is None else f"{value:,.{decimals}f}" for (value,) in rows]


def _percents(rows: Sequence[Figures]) -> list[str]:
    return [formatting.percent_number(value) for (value,) in rows]


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
    return [formatting.MISSING if (share := spread(row)) is None else f"±{share * 100:.0f} %" for row in rows]


def _repeated(rows: Sequence[Row]) -> bool:
    return any(spread(row) is not None for row in rows)


def _several_hosts(rows: Sequence[Row]) -> bool:
    cells = [summary for row in rows for summary in row.repetitions]
    return any((cell.hosts or 0) > 1 or (cell.hosts_available or 0) > 1 for cell in cells)


COLUMNS: tuple[Column, ...] = (
    Column("batch", "", "batch", lambda rows: [formatting.count(row.batch) for row in rows]),
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

MARKS = {Outcome.MET: "✓", Outcome.MISSED: "✗", Outcome.INCONCLUSIVE: "?"}
COLOURS = {Outcome.MET: "green", Outcome.MISSED: "red", Outcome.INCONCLUSIVE: "yellow"}


def curve_facts(record: SweepRecord, curve: Curve) -> str:
    """Return what tells a curve apart: "local-uvicorn · ws · wait 1 s · hold · 3 reps · 2 cores"."""
    facts = [curve.infrastructure, curve.mode]
    facts += [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    facts += [f"{curve.steps} steps"] if curve.steps > 1 else []
    facts += [curve.arrival, formatting.count_of(record.reps, "rep")]
    facts += [] if record.cores is None else [formatting.count_of(record.cores, "core")]
    return " · ".join(facts)


def max_batch(verdict: CurveVerdict) -> str:
    """Return the max batch as a table shows it: "128", "≥ 128" where no batch was too large, "none", "unknown"."""
    if verdict.max_batch is None:
        return "none" if verdict.infeasible_min is not None else "unknown"
    return f"{'≥ ' if is_open(verdict) else ''}{formatting.count(verdict.max_batch)}"


def is_open(verdict: CurveVerdict) -> bool:
    """Say whether every batch asked for passes, so that a larger one might too."""
    return verdict.max_batch == max(verdict.curve.batches)


def scaling_note(verdict: CurveVerdict, batch: int, success: float | None) -> str:
    """Return what became of a batch: "perfect scaling", "max reliable", "above capacity", "complete failure"."""
    cell = verdict.cell(batch)
    if cell is None or cell.passed is None:
        return "inconclusive"
    if not cell.passed:
        return "complete failure" if success == 0 else "above capacity"
    if batch > (verdict.max_batch or 0):
        return "passes, though a smaller batch does not"
    if batch == verdict.max_batch:
        return "max reliable, the largest asked for" if is_open(verdict) else "max reliable"
    return "perfect scaling" if success == 1 else "reliable"


def max_batch_sentence(verdict: CurveVerdict) -> str:
    """Return the max batch, and per core where the cores are known."""
    per_core = verdict.max_batch_per_core
    text = f"max batch {max_batch(verdict)}"
    text += "" if per_core is None else f" ({formatting.number(per_core)} per core)"
    return f"{text}: the largest batch asked for passes" if is_open(verdict) else text


def first_broken(verdict: CurveVerdict) -> str | None:
    """Return the limit that broke first, observed against allowed; None where none broke."""
    return None if verdict.first_breach is None else f"first limit broken: {verdict.first_breach.text}"


def refusal(found: Refusal) -> str:
    """Return what refused sessions, and what to do about it."""
    remedy = f" → {found.remedy}" if found.remedy else ""
    who = "the platform" if found.cause.startswith("platform") else "the server"
    return f"{who} refused {formatting.count_of(found.count, 'session')} at batch {found.batch}: {found.text}{remedy}"


def repetitions_note(rows: Sequence[Row]) -> str | None:
    """Say how several repetitions are shown as one row; None where there is one of each."""
    most = max((len(row.repetitions) for row in rows), default=0)
    if most < 2:
        return None
    return f"each figure is the worst of {most} repetitions; ± p99 is half their range of total p99"


def few_note(rows: Sequence[Row]) -> str | None:
    """Say for which numbers of sessions a 99th percentile is almost the slowest one; None where for none."""
    counts = {stats.count for row in rows for summary in row.repetitions if (stats := summary.phase("total"))}
    few = sorted(count for count in counts if formatting.small_sample_note(count, "p99"))
    if not few:
        return None
    shown = formatting.list_of_counts(few) if len(few) <= 6 else f"{few[0]} to {few[-1]}"
    return f"p99 of {shown} ≈ max"


def remarks(verdict: CurveVerdict) -> list[Reason]:
    """Return what else is to be said of a curve: its reasons after the headline, and why it ended early."""
    told = (verdict.headline, first_broken(verdict) or "")
    found = [reason for reason in verdict.reasons[1:] if not any(reason.text in text for text in told)]
    if verdict.stop_reason:
        found.append(Reason("incomplete", verdict.stop_reason))
    return found


def error_sentence(error: ErrorCount) -> str:
    """Return one way sessions failed: "56 capacity in reset: Server at capacity"."""
    message = on_one_line(error.message or "")
    return error_words(error) + (f": {message[:200]}" if message else "")


def log_of(summaries: Iterable[CellSummary], lines: int) -> list[str]:
    """Return the last lines of the server's log from the last cell in which something failed."""
    tails = [summary.log_tail for summary in summaries if summary.log_tail]
    found = [line.rstrip() for line in without_escapes(tails[-1]).splitlines() if line.strip()] if tails else []
    return found[-lines:]


def rerun(record: SweepRecord, curve: Curve) -> str | None:
    """Return the command that measures one curve again: that of the sweep, narrowed to the curve."""
    if not record.rerun:
        return None
    axes = {
        "--openenv-waits": None if curve.wait is None else format_number(curve.wait),
        "--openenv-modes": curve.mode,
    }
    several = {
        "--openenv-waits": len({other.wait for other in record.curves}) > 1,
        "--openenv-modes": len({other.mode for other in record.curves}) > 1,
    }
    words = shlex.split(record.rerun)
    for option, value in axes.items():
        if value is not None and several[option]:
            while option in words:
                at = words.index(option)
                del words[at : at + 2]
            words += [option, value]
    return shlex.join(words)


def by_repetition(view: CurveView) -> str | None:
    """Return the figure of the limit that broke first in every repetition of that batch, if there are several."""
    breach = view.verdict.first_breach
    kind = LIMITS.get(breach.limit) if breach else None
    if breach is None or kind is None or breach.allowed is None:
        return None
    cells = [summary for summary in view.summaries if summary.batch == breach.batch]
    found = [_figure(summary, kind) for summary in cells]
    if len(found) < 2:
        return None
    unit, name = ("seconds", f"{kind.phase}_{kind.statistic}") if kind.phase else (kind.unit, kind.name)
    shown = [
        formatting.MISSING if value is None else formatting.format_observed(unit, value, breach.allowed)
        for value in found
    ]
    return f"{name} in the {len(shown)} repetitions: {', '.join(shown)}"


def _figure(summary: CellSummary, kind: LimitKind) -> float | None:
    if kind.phase and kind.statistic:
        stats = summary.phase(kind.phase)
        return getattr(stats, kind.statistic) if stats else None
    return summary.success_rate if kind.name == "success" else summary.hosts
