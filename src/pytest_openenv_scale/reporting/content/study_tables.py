"""Every table of a study: functions of its curves, as values that Markdown, HTML and findings share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.analysis.protocols import FOOTNOTE
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Outcome

from . import replicas, wording
from .overview import tally
from .tables import (
    MISSING,
    PLACE,
    StudyTable,
    Value,
    count,
    factor,
    number,
    percent,
    place,
    rate,
    reading_notes,
    seconds,
    size,
    wait_text,
)

__all__ = ["tables"]

_OPEN = "≥: the largest batch asked for passes; a larger one may too"


def tables(study: Study) -> tuple[StudyTable, ...]:
    """Return every table of a study in the order reports show them; one without rows tells nothing here."""
    return (
        runs(study),
        max_batch(study),
        summary(study),
        comparison(study),
        latency(study),
        scaling(study),
        nodes(study),
        hosts(study),
        errors(study),
    )


def runs(study: Study) -> StudyTable:
    """List the runs of a study; a single one speaks for itself elsewhere."""
    rows = [
        (
            Value(run.run_id),
            Value(f"{run.record.started_at:%Y-%m-%d %H:%M} UTC"),
            Value(run.status),
            Value(tally(run.sweeps)),
            Value(on_one_line(f"{run.record.fingerprint.get('hostname') or formatting.MISSING}")),
            Value(_commit(run.record.fingerprint.get("git"))),
            Value(on_one_line(run.record.note or formatting.MISSING)),
        )
        for run in (study.runs if len(study.runs) > 1 else ())
    ]
    heads = ("run", "started", "status", "outcome", "measured from", "commit", "note")
    return StudyTable("runs", "Runs", heads, tuple(rows))


def _commit(git: object) -> str:
    commit = git.get("commit") if isinstance(git, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return f"{commit}"[:12] if commit else formatting.MISSING


def max_batch(study: Study) -> StudyTable:
    """Return max batch by infrastructure and mode, a column per wait."""
    rows: list[tuple[Value, ...]] = []
    for name in study.infrastructures:
        for mode in dict.fromkeys(curve.mode for curve in study.of(name)):
            found = [study.curve(name, mode, wait) for wait in study.waits]
            rows.append((Value(name), Value(mode), *(_max_batch(curve) for curve in found)))
    waits = tuple("no wait" if wait is None else f"wait {format_number(wait)} s" for wait in study.waits)
    shown = [cell.text for row in rows for cell in row[2:]]
    notes = [_OPEN] if any(text.startswith("≥") for text in shown) else []
    notes += [f"{formatting.MISSING}: not measured"] if formatting.MISSING in shown else []
    return StudyTable(
        "max-batch",
        "Max batch by infrastructure, mode and wait",
        ("infrastructure", "mode", *waits),
        tuple(rows),
        frozenset(waits),
        tuple(notes),
    )


def _max_batch(curve: StudyCurve | None) -> Value:
    return MISSING if curve is None else Value(wording.max_batch(curve.verdict), curve.verdict.max_batch)


def summary(study: Study) -> StudyTable:
    """Return the results of every curve, those that depend on the load at its max batch."""
    rows = [
        (
            *place(curve),
            _max_batch(curve),
            count(curve.cores),
            number(curve.verdict.max_batch_per_core),
            seconds(curve.best.latency("total") if curve.best else None),
            rate(curve.best.requests_per_second if curve.best else None),
            seconds(curve.startup_s),
            size(curve.memory_per_session),
        )
        for curve in study.curves
    ]
    numbers = ("max batch", "cores", "batch per core", "total p99", "rps", "start-up", "memory per session")
    notes = ["total p99, rps and memory are those at max batch", *reading_notes(curve.best for curve in study.curves)]
    if any(row[-1].number is not None for row in rows):
        notes.append("memory per session: what the server grew by since its smallest, per open session")
    if any(row[3].text.startswith("≥") for row in rows):
        notes.append(_OPEN)
    return _table("summary", "Results", numbers, rows, notes)


def comparison(study: Study) -> StudyTable:
    """Return ws against http for every infrastructure and wait measured over both."""
    rows: list[tuple[Value, ...]] = []
    notes: list[str] = []
    for name, found in study.comparisons():
        maxima = [Value(replicas.max_batch(result), result.max_batch) for result in found.modes]
        decided = Value(replicas.ratio(found), found.ratio), Value(found.winner or "unknown")
        figures = map(Value, replicas.figures(found))
        rows.append(
            (Value(name), Value(wait_text(found.wait), found.wait), *maxima, *decided, count(found.batch), *figures)
        )
        notes += [on_one_line(f"{name}, wait {wait_text(found.wait)}: {note}") for note in found.notes]
    numbers = ("ws max", "http max", "ratio", "at batch", *(f"{figure} ws / http" for figure, _ in replicas.AT))
    heads = ("infrastructure", "wait", *numbers[:3], "winner", *numbers[3:])
    right = frozenset({"wait", *numbers})
    return StudyTable(
        "protocols", replicas.PROTOCOL_TITLE.capitalize(), heads, tuple(rows), right, (*notes, FOOTNOTE) if rows else ()
    )


def latency(study: Study) -> StudyTable:
    """Return where the time goes at max batch, phase by phase."""
    found = [(curve, best) for curve in study.curves if (best := curve.best) is not None]
    rows = [
        (
            *place(curve),
            count(best.batch),
            *(seconds(best.latency(phase, "p50")) for phase in ("connect", "reset", "step")),
            seconds(best.latency("total")),
        )
        for curve, best in found
    ]
    heads = ("batch", "connect p50", "reset p50", "step p50", "total p99")
    return _table("latency", "Latency at max batch", heads, rows, reading_notes(best for _, best in found))


def scaling(study: Study) -> StudyTable:
    """Return what became of every batch of every curve."""
    found = [(curve, point) for curve in study.curves for point in curve.points]
    rows = [
        (
            *place(curve),
            count(point.batch),
            percent(point.success),
            seconds(point.latency("total")),
            rate(point.requests_per_second),
            Value(wording.scaling_note(curve.verdict, point.batch, point.success)),
        )
        for curve, point in found
    ]
    notes = reading_notes(point for _, point in found)
    return _table("scaling", "Scaling", ("batch", "success", "total p99", "rps"), rows, notes, ("behaviour",))


def nodes(study: Study) -> StudyTable:
    """Return what more replicas or nodes of the same target bring, relative to the fewest that were measured."""
    rows: list[tuple[Value, ...]] = []
    notes: dict[str, None] = {}
    for found in replicas.scaling_tables(study.sweeps):
        rows += [
            (
                Value(on_one_line(found.target)),
                Value(found.mode),
                Value(wait_text(found.wait), found.wait),
                Value(found.axis),
                count(row.count),
                number(row.sessions_each),
                Value(row.max_batch_text, row.max_batch),
                factor(row.capacity_factor),
                percent(row.capacity_efficiency),
                rate(row.requests_per_second),
                factor(row.scaling_factor),
                percent(row.efficiency),
            )
            for row in found.rows
        ]
        notes |= dict.fromkeys(replicas.remarks(found))
    factors = ("max batch", "batch factor", "batch efficiency", "rps", "rps factor", "rps efficiency")
    numbers = ("number", "sessions each", *factors)
    heads = ("target", "mode", "wait", "of", *numbers)
    right = frozenset({"wait", *numbers})
    return StudyTable("nodes", "Scaling over replicas and nodes", heads, tuple(rows), right, tuple(notes))


def _table(
    key: str,
    title: str,
    numbers: Sequence[str],
    rows: Sequence[tuple[Value, ...]],
    notes: Sequence[str],
    texts: Sequence[str] = (),
) -> StudyTable:
    """Return a table with a row per curve or batch: which curve, then numbers, then texts."""
    heads = (*PLACE, *numbers, *texts)
    return StudyTable(key, title, heads, tuple(rows), frozenset({"wait", *numbers}), tuple(notes) if rows else ())


_MOST = 12
"""So many ways of failing are listed of an infrastructure and mode; servers can make up any number."""

_MESSAGE = 120


@dataclass
class _FailureGroup:
    """One way of failing: how many sessions, at which batches, and the first message."""

    sessions: int
    smallest: int
    largest: int
    message: str


def errors(study: Study) -> StudyTable:
    """Return the failures of a study by infrastructure, mode, phase and kind, the most frequent first."""
    rows: list[tuple[Value, ...]] = []
    notes: list[str] = []
    for name in study.infrastructures:
        for mode in dict.fromkeys(curve.mode for curve in study.of(name)):
            curves = study.of(name, mode)
            ways = _ways(summary for curve in curves for summary in curve.curve.summaries)
            failed = sum(way.sessions for way in ways.values())
            listed = sorted(ways.items(), key=lambda item: -item[1].sessions)
            rows += [
                (
                    Value(name),
                    Value(mode),
                    *(Value(on_one_line(part or formatting.MISSING)) for part in kind),
                    count(way.sessions),
                    percent(way.sessions / failed),
                    Value(_batches(way), way.smallest),
                    Value(on_one_line(way.message)[:_MESSAGE] or formatting.MISSING),
                )
                for kind, way in listed[:_MOST]
            ]
            if left := listed[_MOST:]:
                others = sum(way.sessions for _, way in left)
                ways_left = formatting.count_of(len(left), "more way")
                notes.append(f"{name}, {mode}: {formatting.count_of(others, 'session')} failed in {ways_left}")
    heads = ("infrastructure", "mode", "phase", "kind", "code", "sessions", "share", "batches", "first message")
    right = frozenset({"sessions", "share", "batches"})
    if rows:
        notes.append("over all batches and repetitions; share is of the failures of an infrastructure and mode")
    return StudyTable("errors", "Errors by phase and kind", heads, tuple(rows), right, tuple(notes))


def _ways(summaries: Iterable[CellSummary]) -> dict[tuple[str | None, str | None, str | None], _FailureGroup]:
    found: dict[tuple[str | None, str | None, str | None], _FailureGroup] = {}
    for summary in summaries:
        for error in summary.errors:
            kind = (error.phase, error.type, error.code)
            way = found.setdefault(kind, _FailureGroup(0, summary.batch, summary.batch, error.message or ""))
            way.sessions += error.count
            way.smallest = min(way.smallest, summary.batch)
            way.largest = max(way.largest, summary.batch)
    return found


def _batches(way: _FailureGroup) -> str:
    smallest, largest = formatting.count(way.smallest), formatting.count(way.largest)
    return smallest if smallest == largest else f"{smallest} to {largest}"


HEADS = (*PLACE, "batch", "hosts", "hosts used", "fewest", "most")


def hosts(study: Study) -> StudyTable:
    """Return, for each batch on several hosts, the sessions of the host with the fewest and of that with the most."""
    rows = [row for curve in study.curves for point in curve.points if (row := _row(curve, point)) is not None]
    notes = ("sessions that succeeded, by host, in the least even repetition",) if rows else ()
    return StudyTable("hosts", "Sessions per host", HEADS, tuple(rows), frozenset({"wait", *HEADS[3:]}), notes)


def _row(curve: StudyCurve, point: BatchPoint) -> tuple[Value, ...] | None:
    told = [summary for summary in point.repetitions if summary.hosts_known and _available(summary) > 1]
    if not told:
        return None
    worst = max(told, key=lambda summary: max(_counts(summary)) - min(_counts(summary)))
    counts = _counts(worst)
    used = len(worst.host_counts)
    return (
        *place(curve),
        *map(count, (point.batch, _available(worst), used, min(counts), max(counts))),
    )


def _available(summary: CellSummary) -> int:
    return max(summary.hosts_available or 0, len(summary.host_counts))


def _counts(summary: CellSummary) -> list[int]:
    """Return the sessions of each host, of those that got none too."""
    seen = list(summary.host_counts.values())
    return [*seen, *([0] * (_available(summary) - len(seen)))]


def study_facts(study: Study) -> str:
    """Return what a study is made of: "2 runs · 3 infrastructures · 5 curves: 4 met, 1 missed"."""
    outcomes = [curve.verdict.outcome for curve in study.curves]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes)
    facts = [count_of(len(study.runs), "run"), count_of(len(study.infrastructures), "infrastructure")]
    facts.append(f"{count_of(len(outcomes), 'curve')}{': ' if counts else ''}{counts}")
    return " · ".join(facts)
