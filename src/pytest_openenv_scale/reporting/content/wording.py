"""How runs, curves, checks and figures are written, the same in every report: tallies, columns, short notes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import BatchPoint, StudyCurve, batch_points
from pytest_openenv_scale.config.limits import LIMITS
from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.loads import arrival_text, think_text
from pytest_openenv_scale.core.parsing import format_number, parse_arrival
from pytest_openenv_scale.core.text import end_of_log, on_one_line, without_escapes
from pytest_openenv_scale.metrics.certainty import Interval
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import Manifest, SweepRecord
from pytest_openenv_scale.results.outcome import (
    CheckOutcome,
    CheckRecord,
    CurveVerdict,
    ErrorCount,
    Outcome,
    Transcript,
)
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .cell_verdicts import breach_words
from .refusals import error_words

Figures = Sequence[float | None]


def is_steady(curve: Curve) -> bool:
    """Say whether a batch is a number of slots, each of which plays session after session."""
    return parse_arrival(curve.arrival).kind == "steady"


def load_name(cell: Cell) -> str:
    """Return what a cell asks for: "batch 64", in a steady state "64 slots"."""
    if is_steady(cell.curve):
        return formatting.count_of(cell.batch, "slot")
    return f"batch {formatting.count(cell.batch)}"


def mode_and_wait(curve: Curve) -> str:
    """Return which curve of a sweep it is, for a sentence: "ws at wait 1 s"."""
    return curve.mode if curve.wait is None else f"{curve.mode} at wait {format_number(curve.wait)} s"


def batch_mark(point: BatchPoint) -> str:
    """Return ✓ for a batch that passed, ✗ for one that failed, ? for one that is inconclusive."""
    return "?" if point.passed is None else "✓" if point.passed else "✗"


def batch_remark(point: BatchPoint) -> str:
    """Return the first limit a batch broke, observed against allowed; else in short why it is inconclusive."""
    verdict = point.verdict
    if verdict is None or verdict.passed:
        return ""
    if not verdict.breaches:
        kind = verdict.reasons[0].kind if verdict.reasons else ""
        return _INCONCLUSIVE_TEXTS.get(kind, "inconclusive")
    first = verdict.breaches[0]
    others = {breach.limit for breach in verdict.breaches} - {first.limit}
    return breach_words(first) + (f", also {', '.join(sorted(others))}" if others else "")


_INCONCLUSIVE_TEXTS = {
    "client": "the client was the limit",
    "queue": "the client was too slow",
    "late": "answers were seen late",
    "clock": "the clock was set",
    "cut_off": "cut off",
    "hold": "never all open at once",
    "hosts": "hosts unknown",
    "no_data": "nothing measured",
    "incomplete": "repetitions missing",
    "stopped_early": "stopped early",
    "unmeasurable": "a limit cannot be judged",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One display column; several repetitions of a batch are shown by the worst of each figure.

    `group` and `title` are its heading, on two lines or as one ("connect p50/p99"). `texts` renders it for
    all rows at once, in one unit, so that rows compare at a glance. Where the width is too small, the column
    of the highest `drop` is left out first; those of 0 stay. `useful` says whether it is worth showing.
    """

    name: str
    group: str
    title: str
    texts: Callable[[Sequence[BatchPoint]], list[str]]
    drop: int = 0
    useful: Callable[[Sequence[BatchPoint]], bool] = lambda rows: True

    @property
    def heading(self) -> str:
        """The heading on one line."""
        return f"{self.group} {self.title}".lstrip()


def visible_columns(view: CurveView, rows: Sequence[BatchPoint]) -> list[Column]:
    """Return the columns worth showing for a curve, in order; those of its limits are the last to be left out."""
    limited = {limit.kind.phase or limit.name for limit in view.verdict.slo.limits}
    others = _STEADY_COLUMNS if is_steady(view.curve) else {}
    return [
        replace(column, drop=1) if column.name in limited and column.drop else column
        for column in (others.get(column.name, column) for column in COLUMNS)
        if column.name in limited or column.useful(rows)
    ]


def render_seconds(rows: Sequence[Figures]) -> list[str]:
    """Render seconds in one unit and with equal decimals for the whole column, parts joined by " / "."""
    values = [value for row in rows for value in row if value is not None]
    if not values:
        return [formatting.MISSING for _ in rows]
    scale, decimals, unit = _seconds_unit(min(values), max(values))
    parts = [
        [formatting.MISSING if value is None else f"{value * scale:.{decimals}f}" for value in column]
        for column in zip(*rows, strict=True)
    ]
    widths = [max(map(len, column)) for column in parts]
    total_width = sum(widths) + len(" / ") * (len(widths) - 1)
    return [
        f"{' / '.join(text.rjust(width) for text, width in zip(texts, widths, strict=True))} {unit}"
        if any(value is not None for value in row)
        else f"{formatting.MISSING.rjust(total_width)}{' ' * (len(unit) + 1)}"
        for row, texts in zip(rows, zip(*parts, strict=True), strict=True)
    ]


def _seconds_unit(smallest: float, largest: float) -> tuple[float, int, str]:
    """Return factor, decimals and unit in which both ends of a column are readable, and neither reads as 0."""
    if largest < 1 or (largest < 10 and smallest < 0.1):
        decimals = 2 if largest < 0.001 else 1 if largest < 0.01 or smallest < 0.001 else 0
        return 1000, decimals, "ms"
    return 1, 2 if largest < 100 else 1 if largest < 1000 else 0, "s"


def _render_rates(rates: Sequence[float | None]) -> list[str]:
    largest = max((value for value in rates if value is not None), default=0.0)
    decimals = 0 if largest >= 99.5 else 1 if largest >= 9.95 else 2
    return [formatting.MISSING if value is None else f"{value:,.{decimals}f}" for value in rates]


def _latencies(phase: str, *statistics: str) -> Callable[[Sequence[BatchPoint]], list[str]]:
    return lambda rows: render_seconds([[row.latency(phase, statistic) for statistic in statistics] for row in rows])


def p99_spread(row: BatchPoint) -> float | None:
    """Return half the range of total p99 between repetitions as a share of its middle; None for fewer than 2."""
    p99s = [stats.p99 for summary in row.repetitions if (stats := summary.phase("total"))]
    if len(p99s) < 2 or min(p99s) + max(p99s) == 0:
        return None
    return (max(p99s) - min(p99s)) / (max(p99s) + min(p99s))


def _render_spreads(rows: Sequence[BatchPoint]) -> list[str]:
    return [formatting.MISSING if (share := p99_spread(row)) is None else f"±{share * 100:.0f} %" for row in rows]


def _has_spread(rows: Sequence[BatchPoint]) -> bool:
    return any(p99_spread(row) is not None for row in rows)


def _has_overhead(rows: Sequence[BatchPoint]) -> bool:
    """Return whether steps were asked to wait: without that there is nothing to be over."""
    return any(summary.phase("overhead") for row in rows for summary in row.repetitions)


def _has_several_hosts(rows: Sequence[BatchPoint]) -> bool:
    cells = [summary for row in rows for summary in row.repetitions]
    return any((cell.hosts or 0) > 1 or (cell.hosts_available or 0) > 1 for cell in cells)


def _has_others_than_asked(rows: Sequence[BatchPoint]) -> bool:
    cells = [summary for row in rows for summary in row.repetitions]
    return any(summary.not_started or summary.unjudged or summary.is_steady for summary in cells)


COLUMNS: tuple[Column, ...] = (
    Column("batch", "", "batch", lambda rows: [formatting.count(row.batch) for row in rows]),
    Column(
        "sessions",
        "",
        "sessions",
        lambda rows: [formatting.count(row.judged) for row in rows],
        useful=_has_others_than_asked,
    ),
    Column("success", "", "ok %", lambda rows: [formatting.percent_number(row.success) for row in rows]),
    Column("open", "", "open", lambda rows: [formatting.count(row.peak_concurrency) for row in rows]),
    Column("connect", "connect", "p50/p99", _latencies("connect", "p50", "p99"), drop=2),
    Column("reset", "reset", "p50/p99", _latencies("reset", "p50", "p99"), drop=5),
    Column("step", "step", "p50/p99", _latencies("step", "p50", "p99"), drop=3),
    Column("total", "total", "p50/p99", _latencies("total", "p50", "p99"), drop=1),
    Column("spread", "", "± p99", _render_spreads, drop=6, useful=_has_spread),
    Column("overhead", "overhead", "p99", _latencies("overhead", "p99"), drop=4, useful=_has_overhead),
    Column("rps", "", "sess/s", lambda rows: _render_rates([row.requests_per_second for row in rows]), drop=7),
    Column(
        "hosts",
        "",
        "hosts",
        lambda rows: [formatting.count(row.hosts) for row in rows],
        drop=8,
        useful=_has_several_hosts,
    ),
)
"""Every figure of a batch that a report shows; max batch and the verdict are the curve's, beneath the table."""

_STEADY_COLUMNS = {
    "batch": Column("batch", "", "slots", lambda rows: [formatting.count(row.batch) for row in rows]),
    "open": Column("open", "open", "least", lambda rows: [formatting.count(row.open_least) for row in rows]),
}
"""Columns in place of those of the same name where a batch is a number of slots; `open` is what its limit is about."""

OUTCOME_MARKS = {Outcome.MET: "✓", Outcome.MISSED: "✗", Outcome.INCONCLUSIVE: "?"}
OUTCOME_COLOURS = {Outcome.MET: "green", Outcome.MISSED: "red", Outcome.INCONCLUSIVE: "yellow"}


def load_words(curve: Curve) -> list[str]:
    """Return what a curve asks for but for its batches: ["ws", "wait 1 s", "think 2 s", "steady 60 s"].

    An arrival that holds the batch is every curve's unless it says otherwise.
    """
    wait = [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    return [curve.mode, *wait, *arrival_words(curve)]


def arrival_words(curve: Curve) -> list[str]:
    """Return think time and arrival of a curve: ["think 2 s", "steady 60 s"]; nothing of one that holds its batch."""
    think = [think_text(curve.think)] if curve.think else []
    return think + ([] if curve.arrival == "hold" else [arrival_text(curve.arrival)])


def curve_facts(record: SweepRecord, curve: Curve) -> str:
    """Return what distinguishes a curve: "local-uvicorn · ws · wait 1 s · hold · 3 reps · 2 cores"."""
    facts = [curve.infrastructure, curve.mode]
    facts += [] if curve.wait is None else [f"wait {format_number(curve.wait)} s"]
    facts += [f"{'up to ' * bool(record.settings.get('until_done'))}{curve.steps} steps"] if curve.steps > 1 else []
    facts += [think_text(curve.think)] if curve.think else []
    facts += [arrival_text(curve.arrival)]
    facts += ["search"] if curve.id in record.searches else [formatting.count_of(record.reps, "rep")]
    facts += [] if record.cores is None else [formatting.count_of(record.cores, "core")]
    return " · ".join(facts)


def curve_heading(curve: StudyCurve) -> str:
    """Return the facts of a curve under the name that its study has for what was measured."""
    return curve_facts(curve.sweep.record, replace(curve.curve.curve, infrastructure=curve.infrastructure))


def max_batch_text(verdict: CurveVerdict) -> str:
    """Return the max batch as a table shows it: "128", "≥ 128" where no batch was too large, "none", "unknown"."""
    if verdict.max_batch is None:
        if verdict.search is not None and verdict.search.stop_reason == "fails":
            return f"< {formatting.count(verdict.search.plan.needed)}"
        smallest = verdict.infeasible_min if verdict.search is None else verdict.search.plan.low
        return "none" if smallest is not None and verdict.infeasible_min == smallest else "unknown"
    return f"{'≥ ' if is_open(verdict) else ''}{formatting.count(verdict.max_batch)}"


def holds_text(curve: StudyCurve) -> str:
    """Return what a curve holds: "holds 817 sessions", "holds ≥ 64 slots", "max batch unknown"."""
    verdict = curve.verdict
    if verdict.max_batch is None:
        return f"max batch {max_batch_text(verdict)}"
    unit = "slot" if is_steady(curve.curve.curve) else "session"
    return f"holds {max_batch_text(verdict)} {unit}{'' if verdict.max_batch == 1 else 's'}"


def is_open(verdict: CurveVerdict) -> bool:
    """Say whether every batch asked for passes, so that a larger one might too."""
    return verdict.max_batch is not None and verdict.max_batch == max(verdict.curve.batches)


def scaling_note(verdict: CurveVerdict, batch: int, success: float | None) -> str:
    """Return what became of a batch: "all succeed", "max reliable", "above capacity", "complete failure"."""
    cell = verdict.cell(batch)
    if cell is None or cell.passed is None:
        return "inconclusive"
    if not cell.passed:
        return "complete failure" if success == 0 else "above capacity"
    if batch > (verdict.max_batch or 0):
        return "passes, though a smaller batch does not"
    if batch == verdict.max_batch:
        return "max reliable, the largest asked for" if is_open(verdict) else "max reliable"
    return "all succeed" if success == 1 else "reliable"


def max_batch_sentence(view: CurveView) -> str:
    """Return the max batch, per core where the cores are known: "max batch 8 (16 were open at batch 32)".

    How many sessions of the batch that failed were open at once is said where it is more: what the server can hold
    lies between. Of sessions that arrive one by one it is said how many were open at once, which cores have to hold.
    """
    verdict = view.verdict
    facts = [] if verdict.max_batch_per_core is None else [f"{formatting.number(verdict.max_batch_per_core)} per core"]
    if parse_arrival(view.curve.arrival).kind == "rate":
        held = max((summary.held for summary in view.summaries if summary.batch == verdict.max_batch), default=0)
        facts = [f"at most {formatting.count(held)} open at once"] if held else []
    failing = [summary for summary in view.summaries if summary.batch == verdict.infeasible_min]
    most = min((summary.held for summary in failing), default=0)
    if most > (verdict.max_batch or 0):
        facts.append(f"{formatting.count(most)} were open at batch {formatting.count(verdict.infeasible_min)}")
    text = f"max batch {max_batch_text(verdict)}" + (f" ({'; '.join(facts)})" if facts else "")
    return f"{text}: the largest batch asked for passes" if is_open(verdict) and verdict.search is None else text


def certainty_sentence(view: CurveView) -> str | None:
    """Say how sure the figures of max batch are: "batch 128: success 100.0 % (95 %: 97.1–100.0), total p99 …".

    Of several repetitions it is what they span, with the confidence that so few have; None without max batch.
    """
    point = next((point for point in batch_points(view) if point.batch == view.verdict.max_batch), None)
    success = None if point is None else point.success_interval()
    if point is None or success is None or success.low is None or success.high is None:
        return None
    total = point.latency_interval("total", "p99")
    shares = "–".join(dict.fromkeys(map(formatting.percent_number, (success.low, success.high))))
    if success.over == "repetitions":
        spans = [f"success {shares} %"] + ([f"total p99 {_seconds_range(total)}"] if total else [])
        name = f"batch {formatting.count(point.batch)} over {success.samples} repetitions"
        return f"{name}: {', '.join(spans)} ({success.confidence * 100:.0f} % confidence)"
    figures = [f"success {formatting.percent(point.success)} (95 %: {shares})"]
    if total is not None and total.low is not None:
        figures.append(f"total p99 {formatting.seconds(point.latency('total'))} (95 %: {_seconds_range(total)})")
    return f"batch {formatting.count(point.batch)}: {', '.join(figures)}"


def _seconds_range(interval: Interval) -> str:
    """Return "38–55 ms", "53 ms" where both look alike, or "38 ms or more" where too few samples have no upper end."""
    if interval.high is None:
        return f"{formatting.seconds(interval.low)} or more"
    low, high, unit = formatting.seconds_pair(interval.low, interval.high).replace(" / ", " ").split()
    return f"{low} {unit}" if low == high else f"{low}–{high} {unit}"


def repetitions_note(rows: Sequence[BatchPoint]) -> str | None:
    """Say how several repetitions are shown as one row; None where there is one of each."""
    most = max((len(row.repetitions) for row in rows), default=0)
    if most < 2:
        return None
    return f"each figure is the worst of {most} repetitions; ± p99 is half their range of total p99"


def few_sessions_note(rows: Sequence[BatchPoint]) -> str | None:
    """Say for which numbers of sessions a 99th percentile is almost the slowest one; None where there are none."""
    counts = {stats.count for row in rows for summary in row.repetitions if (stats := summary.phase("total"))}
    return few_samples_text(counts)


def few_samples_text(counts: Iterable[int]) -> str | None:
    """Say which of these numbers of sessions are so few that their p99 is almost their maximum; None without any."""
    few = sorted({count for count in counts if count and formatting.small_sample_note(count, "p99")})
    if not few:
        return None
    sessions = formatting.list_of_counts(few) if len(few) <= 6 else f"{few[0]} to {few[-1]}"
    return f"p99 of {sessions} {'session' if few == [1] else 'sessions'} ≈ max"


def error_sentence(error: ErrorCount) -> str:
    """Return one way sessions failed: "56 × CAPACITY_REACHED during reset: Server at capacity"."""
    message = on_one_line(error.message or "")
    return error_words(error) + (f": {message[:200]}" if message else "")


def server_log_tail(summaries: Iterable[CellSummary], lines: int) -> list[str]:
    """Return the end of the server's log, as `end_of_log` does, from the last cell in which something failed."""
    tails = [summary.log_tail for summary in summaries if summary.log_tail]
    text = "\n".join(line.rstrip() for line in without_escapes(tails[-1]).splitlines() if line.strip()) if tails else ""
    return end_of_log(text, lines)


def rerun_commands(record: SweepRecord, curves: Sequence[Curve]) -> list[str]:
    """Return what measures some curves of a sweep again: its own command for all of them, else one for each."""
    if len(curves) == len(record.curves) > 1:
        return [record.rerun] if record.rerun else []
    return [command for curve in curves if (command := rerun_command(record, curve))]


def rerun_command(record: SweepRecord, curve: Curve) -> str | None:
    """Return the command that measures one curve again: that of the sweep, narrowed to the curve."""
    if not record.rerun:
        return None
    words = shlex.split(record.rerun)
    prefix = "--" if words[0] == "openenv-scale" else "--openenv-"
    axes = {
        "waits": (None if curve.wait is None else format_number(curve.wait), {other.wait for other in record.curves}),
        "modes": (curve.mode, {other.mode for other in record.curves}),
    }
    for name, (value, values) in axes.items():
        option = f"{prefix}{name}"
        if value is not None and len(values) > 1:
            while option in words:
                position = words.index(option)
                del words[position : position + 2]
            words += [option, value]
    return shlex.join(words)


def breach_by_repetition(view: CurveView) -> str | None:
    """Return the figure of the limit that broke first in every repetition of that batch, if there are several."""
    breach = view.verdict.first_breach
    kind = LIMITS.get(breach.limit) if breach else None
    if breach is None or kind is None or breach.allowed is None:
        return None
    cells = [summary for summary in view.summaries if summary.batch == breach.batch]
    values = [kind.measure(summary) for summary in cells]
    if len(values) < 2:
        return None
    texts = [
        formatting.MISSING if value is None else formatting.format_observed(kind.figure_unit, value, breach.allowed)
        for value in values
    ]
    return f"{kind.figure} in the {len(texts)} repetitions: {', '.join(texts)}"


CHECK_MARKS = {
    CheckOutcome.MET: "✓",
    CheckOutcome.MISSED: "✗",
    CheckOutcome.INCONCLUSIVE: "?",
    CheckOutcome.SKIPPED: "–",
}
"""The sign of each outcome of a check."""


def check_tally(checks: Sequence[CheckRecord]) -> str:
    """Return how the checks came out: "12 checks: 10 met, 1 missed, 1 skipped, 2 not asked"."""
    words = ["not asked" if check.result.not_asked else check.result.outcome.value for check in checks]
    counts = [f"{words.count(word)} {word}" for word in (*CheckOutcome, "not asked") if word in words]
    return f"{formatting.count_of(len(words), 'check')}: {', '.join(counts)}"


def check_name(check: CheckRecord) -> str:
    """Return the test without its file: "test_isolation[interleaved]"."""
    return on_one_line(check.test.rpartition("::")[2].removeprefix("test_"))


def check_properties(check: CheckRecord) -> list[tuple[str, object]]:
    """Return what a JUnit file says of a check: `openenv_verdict`, `openenv_reason` and its figures by name."""
    result = check.result
    properties: list[tuple[str, object]] = [
        ("openenv_verdict", result.outcome.value),
        ("openenv_target", on_one_line(check.target)),
        ("openenv_infrastructure", on_one_line(check.infrastructure)),
        ("openenv_reason", on_one_line(result.headline)),
    ]
    return [*properties, *((f"openenv_{name}", value) for name, value in result.figures.items() if value is not None)]


def conversation_lines(transcript: Transcript) -> list[str]:
    """Return the messages a session sent (→) and received (←), one per line, with seconds since the check began."""
    return [f"{line.at_s:8.3f} s {'→' if line.by == 'client' else '←'} {line.text}" for line in transcript.said]


def figure_text(value: float | int | str | bool | None) -> str:
    """Return a figure of a check as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return formatting.MISSING if value is None else str(value)


def curve_tally(sweeps: Iterable[SweepView]) -> str:
    """Return how the curves came out: "3 curves: 1 met, 1 missed, 1 inconclusive"."""
    outcomes = [curve.verdict.outcome for view in sweeps for curve in view.curves]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes]
    return f"{formatting.count_of(len(outcomes), 'curve')}{': ' if counts else ''}{', '.join(counts)}"


def run_tally(run: Run) -> str:
    """Return how curves and checks of a run came out: "1 curve: 1 met · 12 checks: 11 met, 1 missed"."""
    parts = [curve_tally(run.sweeps)] if run.sweeps or not run.checks else []
    return " · ".join([*parts, *([check_tally(run.checks)] if run.checks else [])])


def run_times(record: Manifest) -> list[str]:
    """Return when a run started and how long it took: "started 2026-11-21 12:00:00 UTC", "took 4.0 min"."""
    times = [f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"]
    if record.finished_at is not None:
        times.append(f"took {formatting.seconds((record.finished_at - record.started_at).total_seconds())}")
    return times


def report_command(*runs: Run) -> str:
    """Return the command that writes the reports of these runs again."""
    folders = (shlex.quote(f"{run.path.parent.name}/{run.path.name}") for run in runs)
    return " ".join(["openenv-scale report", *folders])


def run_problems(run: Run) -> list[str]:
    """Return what keeps a run from being whole: its status, sweeps that ended early, parts that are damaged."""
    problems = {
        "running": ["the run is still going on; this is what it measured so far"],
        "interrupted": ["the run was interrupted; what it measured until then is shown"],
        "failed": ["the run failed; what it measured until then is shown"],
    }.get(run.status, [])
    if not run.sweeps and not run.checks:
        problems = [*problems, "the run holds no sweep: nothing was measured"]
    cut_short = [view for view in run.sweeps if view.record.status in ("interrupted", "failed")]
    if run.status == "complete":
        problems += [f"{view.test} on {view.infrastructure}: the sweep {_ending_phrase(view)}" for view in cut_short]
    return [*problems, *run.problems]


def _ending_phrase(view: SweepView) -> str:
    return "was interrupted" if view.record.status == "interrupted" else "failed"
