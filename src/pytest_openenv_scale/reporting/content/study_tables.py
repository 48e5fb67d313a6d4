"""Every table of a study, as values that Markdown, HTML and findings share: curves, ws against http, replicas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.analysis.axes import (
    COMPARED_LATENCIES,
    ModeResult,
    ProtocolComparison,
    ServerScaling,
    compare_study_modes,
    server_scalings,
)
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.manifest import git_state
from pytest_openenv_scale.results.outcome import Cost, Outcome

from . import wording
from .cell_verdicts import reason_words
from .searches import CUT_SHORT
from .tables import (
    MISSING,
    Table,
    Value,
    count_value,
    curve_cells,
    curve_heads,
    drop_order,
    factor_value,
    number_value,
    percent_value,
    rate_value,
    reading_notes,
    seconds_value,
    size_value,
    wait_text,
)
from .wording import curve_tally, render_seconds

__all__ = ["study_tables"]

_OPEN_NOTE = "≥: the largest batch asked for passes; a larger one may too"


def study_tables(study: Study) -> tuple[Table, ...]:
    """Return every table of a study in the order reports show them; those without rows are left out by reports."""
    return (
        runs_table(study),
        max_batch_table(study),
        summary_table(study),
        protocols_table(study),
        latency_table(study),
        scaling_table(study),
        nodes_table(study),
        hosts_table(study),
        errors_table(study),
    )


def runs_table(study: Study) -> Table:
    """Return a row per run of a study; none where there is a single run, which reports describe elsewhere."""
    rows = [
        (
            Value(run.run_id),
            Value(f"{run.record.started_at:%Y-%m-%d %H:%M} UTC"),
            Value(run.status),
            Value(curve_tally(run.sweeps)),
            Value(on_one_line(f"{run.record.fingerprint.get('hostname') or formatting.MISSING}")),
            Value((git_state(run.record).commit or formatting.MISSING)[:12]),
            Value(on_one_line(run.record.note or formatting.MISSING)),
        )
        for run in (study.runs if len(study.runs) > 1 else ())
    ]
    heads = ("run", "started", "status", "outcome", "measured from", "commit", "note")
    return Table("runs", "Runs", heads, tuple(rows))


def max_batch_table(study: Study) -> Table:
    """Return max batch by infrastructure and mode, a column per wait."""
    rows: list[tuple[Value, ...]] = []
    for name in study.infrastructures:
        for mode in dict.fromkeys(curve.mode for curve in study.curves_of(name)):
            curves = [study.curve(name, mode, wait) for wait in study.waits]
            rows.append((Value(name), Value(mode), *(_max_batch_value(curve) for curve in curves)))
    waits = tuple("no wait" if wait is None else f"wait {format_number(wait)} s" for wait in study.waits)
    texts = [cell.text for row in rows for cell in row[2:]]
    notes = [_OPEN_NOTE] if _has_open_end(study) else []
    notes += [f"{formatting.MISSING}: not measured"] if formatting.MISSING in texts else []
    return Table(
        "max-batch",
        "Max batch by infrastructure, mode and wait",
        ("infrastructure", "mode", *waits),
        tuple(rows),
        frozenset(waits),
        tuple(notes),
    )


def _has_open_end(study: Study) -> bool:
    return any(wording.is_open(curve.verdict) for curve in study.curves)


def _max_batch_value(curve: StudyCurve | None) -> Value:
    return MISSING if curve is None else Value(wording.max_batch_text(curve.verdict), curve.verdict.max_batch)


def summary_table(study: Study) -> Table:
    """Return the results of every curve, those that depend on the load at its max batch."""
    rows = [
        (
            *curve_cells(study, curve),
            _max_batch_value(curve),
            count_value(curve.cores),
            number_value(curve.verdict.max_batch_per_core),
            seconds_value(curve.best.latency("total") if curve.best else None),
            rate_value(curve.best.requests_per_second if curve.best else None),
            seconds_value(curve.startup_s),
            size_value(_cost_value(curve.verdict.cost.memory_per_session)),
            seconds_value(_cost_value(curve.verdict.cost.cpu_per_step)),
        )
        for curve in study.curves
    ]
    numbers = (
        "max batch",
        "cores",
        "batch per core",
        "total p99",
        "sess/s",
        "start-up",
        "memory per session",
        "CPU per step",
    )
    notes = ["total p99 and sess/s (sessions per second) are those at max batch"]
    notes += reading_notes(curve.best for curve in study.curves)
    if any(cell.number is not None for row in rows for cell in row[-2:]):
        notes.append("memory per open session and CPU per step of the server: slopes over the batches")
    if _has_open_end(study):
        notes.append(_OPEN_NOTE)
    return _curve_table(study, "summary", "Results", numbers, rows, notes)


def _cost_value(cost: Cost | None) -> float | None:
    return cost and cost.value


def protocols_table(study: Study) -> Table:
    """Return ws against http for every infrastructure and wait measured over both."""
    rows: list[tuple[Value, ...]] = []
    notes: list[str] = []
    compared = compare_study_modes(study)
    for name, comparison in compared:
        figures = map(Value, figure_texts(comparison))
        rows.append((Value(name), *protocol_cells(comparison), count_value(comparison.batch), *figures))
        row_name = f"{name}, wait {wait_text(comparison.wait)}"
        notes += [on_one_line(f"{row_name}: {note}") for note in protocol_notes(comparison)]
    figures = ("at batch", *(f"{figure} ws / http" for figure, _ in PROTOCOL_FIGURES))
    return Table(
        "protocols",
        PROTOCOL_TITLE.capitalize(),
        ("infrastructure", *PROTOCOL_HEADS, *figures),
        tuple(rows),
        frozenset({*PROTOCOL_RIGHT, *figures}),
        (*notes, *protocol_footnotes(comparison for _, comparison in compared)),
        drop=drop_order(*reversed(figures), "winner", "wait", "ratio"),
    )


def latency_table(study: Study) -> Table:
    """Return the latencies of each phase at max batch, a row per curve."""
    best_points = [(curve, best) for curve in study.curves if (best := curve.best) is not None]
    rows = [
        (
            *curve_cells(study, curve),
            count_value(best.batch),
            *(seconds_value(best.latency(phase, "p50")) for phase in ("connect", "reset", "step")),
            seconds_value(best.latency("total")),
        )
        for curve, best in best_points
    ]
    heads = ("batch", "connect p50", "reset p50", "step p50", "total p99")
    notes = reading_notes(best for _, best in best_points)
    return _curve_table(study, "latency", "Latency at max batch", heads, rows, notes)


def scaling_table(study: Study) -> Table:
    """Return success, latency, throughput and behaviour of every batch of every curve."""
    points = [(curve, point) for curve in study.curves for point in curve.points]
    steady = any(wording.is_steady(curve.curve.curve) for curve in study.curves)
    rows = [
        (
            *curve_cells(study, curve),
            count_value(point.batch),
            *((count_value(point.judged),) if steady else ()),
            percent_value(point.success),
            *((count_value(point.open_least),) if steady else ()),
            seconds_value(point.latency("total")),
            rate_value(point.requests_per_second),
            size_value(point.rss_bytes),
            seconds_value(point.cpu_per_step),
            Value(wording.scaling_note(curve.verdict, point.batch, point.success)),
        )
        for curve, point in points
    ]
    heads = ("batch", "success", "total p99", "sess/s")
    notes = reading_notes(point for _, point in points)
    if steady:
        heads = ("batch", "sessions", "success", "least open", *heads[2:])
        notes = (*notes, "a batch in a steady state is a number of slots; least open is of the judged time")
    if any(cell.number is not None for row in rows for cell in row[-3:-1]):
        notes = (*notes, "server memory is its peak, server CPU all it used by the steps of the cell")
    heads = (*heads, "server memory", "server CPU per step")
    return _curve_table(study, "scaling", "Scaling", heads, rows, notes, ("behaviour",))


def nodes_table(study: Study) -> Table:
    """Return max batch and throughput by number of replicas or nodes, relative to the fewest that were measured."""
    rows: list[tuple[Value, ...]] = []
    notes: dict[str, None] = {}
    for table in server_scalings(study.sweeps):
        rows += [
            (
                Value(on_one_line(table.target)),
                Value(table.mode),
                Value(wait_text(table.wait), table.wait),
                Value(table.axis),
                count_value(row.count),
                number_value(row.sessions_each),
                Value(wording.max_batch_text(row.verdict), row.max_batch),
                factor_value(row.capacity_factor),
                percent_value(row.capacity_efficiency),
                rate_value(row.requests_per_second),
                factor_value(row.scaling_factor),
                percent_value(row.efficiency),
            )
            for row in table.rows
        ]
        notes |= dict.fromkeys(scaling_remarks(table))
    factors = ("max batch", "batch factor", "batch efficiency", "sess/s", "sess/s factor", "sess/s efficiency")
    numbers = ("number", "sessions each", *factors)
    heads = ("target", "mode", "wait", "of", *numbers)
    right = frozenset({"wait", *numbers})
    drop = drop_order(*reversed(factors[1:]), "sessions each", "wait", "mode", "of")
    return Table("nodes", "Scaling over replicas and nodes", heads, tuple(rows), right, tuple(notes), drop=drop)


def _curve_table(
    study: Study,
    key: str,
    title: str,
    numbers: Sequence[str],
    rows: Sequence[tuple[Value, ...]],
    notes: Sequence[str],
    texts: Sequence[str] = (),
) -> Table:
    """Return a table with a row per curve or batch: which curve, then numbers, then texts."""
    heads = (*curve_heads(study), *numbers, *texts)
    # Of a curve its first number, as max batch or batch, stays.
    drop = drop_order(*reversed(numbers[1:]), *(head for head in ("arrival", "wait", *texts, "mode") if head in heads))
    right = frozenset({"wait", *numbers})
    return Table(key, title, heads, tuple(rows), right, tuple(notes) if rows else (), drop=drop)


_MOST_FAILURES = 12
"""The most ways of failing that are listed per infrastructure and mode; servers can make up any number."""

_MESSAGE_CHARACTERS = 120


@dataclass
class _FailureGroup:
    """One way of failing: how many sessions, at which batches, and the first message."""

    sessions: int
    smallest: int
    largest: int
    message: str


def errors_table(study: Study) -> Table:
    """Return the failures of a study by infrastructure, mode, phase and kind, the most frequent first."""
    rows: list[tuple[Value, ...]] = []
    notes: list[str] = []
    for name in study.infrastructures:
        for mode in dict.fromkeys(curve.mode for curve in study.curves_of(name)):
            curves = study.curves_of(name, mode)
            groups = _failure_groups(summary for curve in curves for summary in curve.curve.summaries)
            failed = sum(group.sessions for group in groups.values())
            ranked = sorted(groups.items(), key=lambda item: -item[1].sessions)
            rows += [
                (
                    Value(name),
                    Value(mode),
                    *(Value(on_one_line(part or formatting.MISSING)) for part in kind),
                    count_value(group.sessions),
                    percent_value(group.sessions / failed),
                    Value(_batch_range(group), group.smallest if group.smallest == group.largest else None),
                    Value(on_one_line(group.message)[:_MESSAGE_CHARACTERS] or formatting.MISSING),
                )
                for kind, group in ranked[:_MOST_FAILURES]
            ]
            if unlisted := ranked[_MOST_FAILURES:]:
                others = sum(group.sessions for _, group in unlisted)
                more_ways = formatting.count_of(len(unlisted), "more way")
                notes.append(f"{name}, {mode}: {formatting.count_of(others, 'session')} failed in {more_ways}")
    heads = ("infrastructure", "mode", "phase", "kind", "code", "sessions", "share", "batches", "first message")
    right = frozenset({"sessions", "share", "batches"})
    if rows:
        notes.append("over all batches and repetitions; share is of the failures of an infrastructure and mode")
    drop = drop_order("batches", "share", "phase", "mode", "code", "first message")
    return Table("errors", "Errors by phase and kind", heads, tuple(rows), right, tuple(notes), drop=drop)


def _failure_groups(summaries: Iterable[CellSummary]) -> dict[tuple[str | None, str | None, str | None], _FailureGroup]:
    groups: dict[tuple[str | None, str | None, str | None], _FailureGroup] = {}
    for summary in summaries:
        for error in summary.errors:
            kind = (error.phase, error.type, error.code)
            group = groups.setdefault(kind, _FailureGroup(0, summary.batch, summary.batch, error.message or ""))
            group.sessions += error.count
            group.smallest = min(group.smallest, summary.batch)
            group.largest = max(group.largest, summary.batch)
    return groups


def _batch_range(group: _FailureGroup) -> str:
    smallest, largest = formatting.count(group.smallest), formatting.count(group.largest)
    return smallest if smallest == largest else f"{smallest} to {largest}"


def hosts_table(study: Study) -> Table:
    """Return, for each batch on several hosts, the sessions of the host with the fewest and of that with the most."""
    points = [(curve, point) for curve in study.curves for point in curve.points]
    rows = [row for curve, point in points if (row := _host_row(study, curve, point)) is not None]
    heads = ("batch", "hosts", "hosts used", "fewest", "most")
    notes = ("sessions that succeeded, by host, in the least even repetition",)
    return _curve_table(study, "hosts", "Sessions per host", heads, rows, notes)


def _host_row(study: Study, curve: StudyCurve, point: BatchPoint) -> tuple[Value, ...] | None:
    repetitions = [summary for summary in point.repetitions if summary.hosts_known and _host_count(summary) > 1]
    if not repetitions:
        return None
    worst = max(repetitions, key=lambda summary: max(_sessions_per_host(summary)) - min(_sessions_per_host(summary)))
    counts = _sessions_per_host(worst)
    used = len(worst.host_counts)
    return (
        *curve_cells(study, curve),
        *map(count_value, (point.batch, _host_count(worst), used, min(counts), max(counts))),
    )


def _host_count(summary: CellSummary) -> int:
    return max(summary.hosts_available or 0, len(summary.host_counts))


def _sessions_per_host(summary: CellSummary) -> list[int]:
    """Return the number of sessions of each host, hosts without any included."""
    counts = list(summary.host_counts.values())
    return [*counts, *([0] * (_host_count(summary) - len(counts)))]


def study_facts(study: Study) -> str:
    """Return what a study is made of: "2 runs · 3 infrastructures · 5 curves: 4 met, 1 missed"."""
    outcomes = [curve.verdict.outcome for curve in study.curves]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes)
    facts = [count_of(len(study.runs), "run"), count_of(len(study.infrastructures), "infrastructure")]
    facts.append(f"{count_of(len(outcomes), 'curve')}{': ' if counts else ''}{counts}")
    return " · ".join(facts)


HTTP_FOOTNOTE = (
    "HTTP gives every request an environment of its own: it cannot hold an episode, so its sessions are only a"
    " reset and steps that know nothing of each other, and no winner is named"
)


def protocol_footnotes(comparisons: Iterable[ProtocolComparison]) -> tuple[str, ...]:
    """Return what to know of HTTP's sessions; nothing where those of every comparison were seen to hold an episode."""
    return () if all(comparison.http.episodes for comparison in comparisons) else (HTTP_FOOTNOTE,)


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
    heads = (table.axis, f"sessions per {table.unit}", "max batch", "sess/s", "scaling factor", "efficiency")
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
        Value(comparison.winner) if comparison.winner else MISSING,
    )


def protocol_notes(comparison: ProtocolComparison) -> list[str]:
    """Say why the max batch of a mode is not its limit, where it is not, and which cap leaves the winner open."""
    notes = [note for result in comparison.modes if (note := _max_batch_note(result))]
    caps = [result for result in comparison.modes if result.cap is not None and comparison.http.episodes]
    return notes + [f"{result.mode}: a limit that was set refused more ({result.cap}): no winner" for result in caps]


def _max_batch_note(result: ModeResult) -> str | None:
    if result.known == "exact":
        return None
    if result.known == "open":
        return f"{result.mode}: the largest batch asked for passes; it may hold more"
    if result.cut_short is not None:
        return f"{result.mode}: inconclusive, {CUT_SHORT[result.cut_short]}"
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
