"""Sentences computed from the tables of a study: each figure in them is the value of a cell, shown as it is there.

Nothing is said of what is inconclusive, and one thing is said to hold more than another only where it passed a batch
at which the other definitely failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_openenv_scale.analysis import axes
from pytest_openenv_scale.analysis.axes import ServerAxis, without_count
from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.verdict.sweep import max_batch_certainty

from .refusals import error_kind
from .tables import MISSING, Table, Value, wait_text
from .wording import mode_and_wait

FEW_PER_CORE = 10
"""Fewer sessions per core than this are worth a sentence."""

_CLEAR_FACTOR = 1.1
"""A latency is told apart from another from this factor on, if their repetitions do not overlap either."""

_EVEN_FACTOR = 1.25
"""Hosts are evenly loaded up to this factor between the most and the fewest sessions."""


TOPICS = {
    "best": "Most sessions",
    "fastest": "Latency",
    "protocols": "WebSocket and HTTP",
    "wait": "Wait",
    "nodes": "Replicas and nodes",
    "cliff": "Where it breaks",
    "hosts": "Load balance",
    "cores": "Use of cores",
}
"""The kinds of findings in the order of reports, and their headings."""


@dataclass(frozen=True, slots=True)
class StudyFinding:
    """One sentence and what it is about: a key of `TOPICS`."""

    kind: str
    text: str


def findings(study: Study, tables: Sequence[Table]) -> tuple[StudyFinding, ...]:
    """Return what the tables of a study say in sentences, the widest first; none where there is nothing to compare."""
    facts = Facts(study, tables)
    all_findings = (
        *_findings_about("best", _capacity_sentences(facts)),
        *_findings_about("fastest", _latency_sentences(facts)),
        *_findings_about("protocols", _protocol_sentences(facts)),
        *_findings_about("wait", _wait_sentences(facts)),
        *_findings_about("nodes", _node_sentences(facts)),
        *_findings_about("cliff", _cliff_sentences(facts)),
        *_findings_about("hosts", _host_sentences(facts)),
        *_findings_about("cores", _core_sentences(facts)),
    )
    return tuple(dict.fromkeys(all_findings))


def _findings_about(kind: str, sentences: Iterator[str]) -> Iterator[StudyFinding]:
    """Turn sentences into findings of one kind."""
    return (StudyFinding(kind, text) for text in sentences)


def _capacity_sentences(facts: Facts) -> Iterator[str]:
    """Say which infrastructure holds the most, at each mode and wait, where that is certain."""
    for load, group in facts.groups():
        ranked = sorted(group, key=lambda curve: -(curve.verdict.max_batch or 0))
        first, exact = ranked[0], [curve for curve in ranked[1:] if Facts.is_exact(curve)]
        inexact = [curve for curve in ranked[1:] if not Facts.is_exact(curve)]
        most, capacity = first.verdict.max_batch, facts.max_batch(first)
        if not most or not exact or any((curve.verdict.max_batch or 0) >= most for curve in inexact):
            continue
        doubt = one_repetition_note(ranked)
        if all(holds_more(first, other) for other in exact):
            yield (
                f"Over {load}, {first.infrastructure} holds the most sessions at once: {capacity};"
                f" {_runner_up(facts, exact)}{_unknown_limits(inexact)}{_caps(ranked)}{doubt}."
            )
        elif not inexact and all(_hold_equally_many(first, other) for other in exact):
            names = join_names(curve.infrastructure for curve in group)
            more = f"{_next_fails(facts, first)}{_caps(ranked)}{doubt}"
            yield f"Over {load}, {names} hold equally many sessions at once: {capacity}{more}."


def _runner_up(facts: Facts, ranked: Sequence[StudyCurve]) -> str:
    max_batch = ranked[0].verdict.max_batch
    if not max_batch:
        return "of the others none holds even its smallest batch" if len(ranked) > 1 else "the other holds no batch"
    behind = [curve.infrastructure for curve in ranked if curve.verdict.max_batch == max_batch]
    return f"next {'is' if len(behind) == 1 else 'are'} {join_names(behind)} with {facts.max_batch(ranked[0])}"


def _unknown_limits(curves: Sequence[StudyCurve]) -> str:
    if not curves:
        return ""
    return f"; not known of {join_names(curve.infrastructure for curve in curves)}, the limit of which was not found"


def _caps(curves: Iterable[StudyCurve]) -> str:
    """Say of which curves a limit that was set refused the rest, so that it is what their max batch tells of."""
    curves = list(curves)
    names = dict.fromkeys(curve.infrastructure for curve in curves if curve.verdict.cap)
    if not names:
        return ""
    on = f" on {join_names(names)}" if len({curve.infrastructure for curve in curves}) > 1 else ""
    return f"; a limit that was set refused more{on}"


def _next_fails(facts: Facts, curve: StudyCurve) -> str:
    """Return which batch is the next: what holds equally many may differ by less than lies between the two."""
    failing = curve.verdict.infeasible_min
    return f"; batch {facts.scaling_value(curve, failing, 'batch')} fails each time" if failing else ""


def _hold_equally_many(curve: StudyCurve, other: StudyCurve) -> bool:
    return axes.hold_equally_many(curve.curve, other.curve)


def _latency_sentences(facts: Facts) -> Iterator[str]:
    """Say which infrastructure answers fastest at the largest batch that all of a group hold."""
    for load, group in facts.groups():
        passing = [{point.batch for point in curve.points if point.passed and not point.seen_late} for curve in group]
        common = set[int].intersection(*passing) if len(group) > 1 else set[int]()
        if not common:
            continue
        batch = max(common)
        ranked = sorted(
            ((curve, point) for curve in group if (point := curve.point(batch)) and point.latency("total")),
            key=lambda pair: pair[1].latency("total") or 0.0,
        )
        if len(ranked) < len(group) or not _clearly_faster(ranked[0][1], ranked[1][1]):
            continue
        (first, _), (last, _) = ranked[0], ranked[-1]
        quick, slow = facts.scaling_value(first, batch, "total p99"), facts.scaling_value(last, batch, "total p99")
        of_batch = facts.scaling_value(first, batch, "batch")
        yield (
            f"At batch {of_batch} over {load}, {first.infrastructure} answers fastest: total p99 {quick},"
            f" against {slow} on {last.infrastructure}{' as the slowest' if len(ranked) > 2 else ''}"
            f"{one_repetition_note(group)}."
        )


def _clearly_faster(point: BatchPoint, other: BatchPoint) -> bool:
    if min(len(point.repetitions), len(other.repetitions)) < 2:
        return False  # One repetition each differs by that much by chance.
    slowest = max(stats.p99 for summary in point.repetitions if (stats := summary.phase("total")))
    quickest = min(stats.p99 for summary in other.repetitions if (stats := summary.phase("total")))
    return quickest > _CLEAR_FACTOR * slowest


def _protocol_sentences(facts: Facts) -> Iterator[str]:
    """Say which protocol holds more, where the comparison names a winner."""
    table = facts.table("protocols")
    names = {"ws": "WebSocket", "http": "HTTP"}
    if table is None:
        return
    for row in table.rows:
        infrastructure, wait, ws, http, winner = (
            table.value(row, head) for head in ("infrastructure", "wait", "ws max", "http max", "winner")
        )
        curves = [curve for mode in names if (curve := facts.curve(infrastructure.text, mode, wait.number)) is not None]
        subject = f"On {infrastructure}{'' if wait.number is None else f' at wait {wait}'}"
        doubt = one_repetition_note(curves)
        if winner.text == "equal":
            more = f"{_next_fails(facts, curves[0])}{doubt}"
            yield f"{subject}, WebSocket and HTTP hold equally many sessions: {ws}{more}."
        elif winner.text in names:
            other = next(mode for mode in names if mode != winner.text)
            more, less = (ws, http) if winner.text == "ws" else (http, ws)
            against = "none" if less.number is None else f"{less}"
            claim = f"{names[winner.text]} holds more sessions than {names[other]}"
            yield f"{subject}, {claim}: {more} against {against}{doubt}."


def _wait_sentences(facts: Facts) -> Iterator[str]:
    """Say what longer waits do to max batch: at the ends of the waits measured."""
    for curves in facts.by_mode():
        timed = [curve for curve in curves if curve.wait is not None and Facts.comparable(curves[0], curve)]
        if len(timed) < 2 or len(timed) < len(curves):
            continue
        short, long = timed[0], timed[-1]
        short_batch, long_batch = facts.max_batch(short), facts.max_batch(long)
        ends = facts.wait(short), facts.wait(long)
        subject, doubt = f"The max batch of {short.infrastructure} over {short.mode}", one_repetition_note(timed)
        doubt = f"{_caps(timed)}{doubt}"
        same = _next_fails(facts, short)
        if all(_hold_equally_many(short, curve) for curve in timed[1:]) and short_batch.number:
            yield f"{subject} does not depend on the wait: {short_batch} from wait {ends[0]} to {ends[1]}{same}{doubt}."
        elif short.verdict.max_batch and long.verdict.max_batch:
            change = f"from {short_batch} at wait {ends[0]} to {long_batch} at wait {ends[1]}"
            steps = list(pairwise(timed))
            if holds_more(long, short) and not any(holds_more(earlier, later) for earlier, later in steps):
                yield f"{subject} rises with the wait: {change}{doubt}."
            elif holds_more(short, long) and not any(holds_more(later, earlier) for earlier, later in steps):
                yield f"{subject} falls with the wait: {change}{doubt}."


def _node_sentences(facts: Facts) -> Iterator[str]:
    """Say how much more the most replicas hold than the fewest, where both are known."""
    table = facts.table("nodes")
    if table is None:
        return
    groups: dict[tuple[str, ...], list[tuple[Value, ...]]] = {}
    for row in table.rows:
        groups.setdefault(tuple(cell.text for cell in row[:4]), []).append(row)
    for (target, mode, wait, axis_text), rows in groups.items():
        axis: ServerAxis = "nodes" if axis_text == "nodes" else "replicas"
        cells = [[table.value(row, head) for head in ("number", "max batch")] for row in (rows[0], rows[-1])]
        (few, few_batch), (many, many_batch) = cells
        gained, efficiency = (table.value(rows[-1], head) for head in ("batch factor", "batch efficiency"))
        ends = [facts.curve_with_count(target, mode, wait, axis, cell) for cell in (few, many)]
        verb = _comparison_phrase(*ends)
        if verb is None or gained.number is None:
            continue
        load = mode if wait == MISSING.text else f"{mode} at wait {wait}"
        curves = [curve for curve in ends if curve is not None]
        same = _next_fails(facts, curves[0]) if verb == "no more than" else ""
        yield (
            f"{many} {axis} of {target} hold {verb} {few} over {load}: {many_batch} sessions against {few_batch},"
            f" {gained}, an efficiency of {efficiency}{_perfect(few, many, curves)}{same}{_caps(curves)}"
            f"{one_repetition_note(curves)}."
        )


def _perfect(few: Value, many: Value, curves: Sequence[StudyCurve]) -> str:
    """Return that scaling is perfect: each of many holds as much as one alone, for no limit that was set on each.

    One alone holds less than the batch that failed, so that batches far apart show no such thing.
    """
    alone, together = (curve.verdict for curve in curves)
    if (
        few.number != 1
        or alone.cap
        or together.cap
        or not (alone.infeasible_min and together.max_batch and many.number)
    ):
        return ""
    each, most_alone = together.max_batch / many.number, alone.infeasible_min - 1
    return ", perfect scaling" if most_alone and each >= _PERFECT * most_alone else ""


_PERFECT = 0.95
"""Share of what one server may hold alone, at most, from which on several that hold it each scale perfectly."""


def _comparison_phrase(few: StudyCurve | None, many: StudyCurve | None) -> str | None:
    """Return "more than", "less than" or "no more than" for what `many` hold against `few`; None if uncertain."""
    if few is None or many is None or not Facts.comparable(few, many):
        return None
    if not (Facts.is_exact(few) and Facts.is_exact(many)):
        return None
    if holds_more(many, few):
        return "more than"
    if holds_more(few, many):
        return "less than"
    return "no more than" if _hold_equally_many(few, many) else None


def _cliff_sentences(facts: Facts) -> Iterator[str]:
    """Say where sessions begin to fail and how, for the wait of each infrastructure and mode with the lowest limit."""
    for curves in facts.by_mode():
        exact = [curve for curve in curves if Facts.is_exact(curve)]
        if not exact:
            continue
        curve = min(exact, key=lambda curve: curve.verdict.max_batch or 0)
        failing = curve.verdict.infeasible_min
        point = curve.point(failing)
        if failing is None or point is None:
            continue
        max_batch = facts.max_batch(curve)
        holds = (
            f"holds {max_batch} {'session' if max_batch.number == 1 else 'sessions'} over"
            if max_batch.number
            else "holds none of the batches asked for over"
        )
        batch, success = facts.scaling_value(curve, failing, "batch"), facts.scaling_value(curve, failing, "success")
        yield (
            f"{curve.infrastructure} {holds} {load_text(curve)}; at batch {batch}"
            f" {facts.how_it_fails(curve, point, success)}{one_repetition_note([curve])}."
        )


def _host_sentences(facts: Facts) -> Iterator[str]:
    """Say how evenly the largest passing batch of each infrastructure and mode spread over its hosts."""
    for curves in facts.by_mode():
        passing = [(point.batch, curve) for curve in curves for point in curve.points if point.passed]
        rows = [(facts.hosts_row(curve, batch), curve) for batch, curve in sorted(passing, key=lambda pair: -pair[0])]
        measured = next(((row, curve) for row, curve in rows if row is not None), None)
        if measured is None:
            continue
        row, curve = measured
        batch, hosts, used, fewest, most = row
        subject = f"At batch {batch} over {load_text(curve)}"
        if not (batch.number and hosts.number) or batch.number < 2 * hosts.number:
            continue
        if used.number != hosts.number:
            yield f"{subject}, only {used} of the {hosts} hosts of {curve.infrastructure} got sessions."
        elif (most.number or 0) <= max(_EVEN_FACTOR * (fewest.number or 0), (fewest.number or 0) + 1):
            yield (
                f"{subject}, the {hosts} hosts of {curve.infrastructure} share the sessions evenly:"
                f" {fewest if fewest == most else f'{fewest} to {most}'} each."
            )
        else:
            yield (
                f"{subject}, the {hosts} hosts of {curve.infrastructure} share the sessions unevenly:"
                f" {fewest} on one, {most} on another."
            )


def _core_sentences(facts: Facts) -> Iterator[str]:
    """Say which curves hold fewer than `FEW_PER_CORE` sessions per core, at the worst wait of each target and mode."""
    for curves in facts.by_mode():
        exact = [curve for curve in curves if Facts.is_exact(curve) and curve.verdict.max_batch_per_core]
        few = [curve for curve in exact if (curve.verdict.max_batch_per_core or 0) < FEW_PER_CORE]
        if not few:
            continue
        curve = min(few, key=lambda curve: curve.verdict.max_batch_per_core or 0)
        max_batch, cores, per_core = (
            facts.summary_value(curve, head) for head in ("max batch", "cores", "batch per core")
        )
        yield (
            f"{curve.infrastructure} holds fewer than ten sessions per core over {load_text(curve)}: {per_core}"
            f" ({max_batch} on {cores}{' core' if cores.number == 1 else ' cores'}){_caps([curve])}."
        )


_CurveKey = tuple[str, str, str]


class Facts:
    """Looks up the tables of a study by key, and their rows by curve."""

    def __init__(self, study: Study, tables: Sequence[Table]) -> None:
        self._study = study
        self._tables = {table.key: table for table in tables}
        self._curves = {(curve.infrastructure, curve.mode, curve.wait): curve for curve in study.curves}
        self._results = {_row_key(row): row for row in self._rows("summary")}
        self._batches, self._hosts = (
            {(_row_key(row), self._tables[key].value(row, "batch").number): row for row in self._rows(key)}
            for key in ("scaling", "hosts")
        )

    def _rows(self, key: str) -> tuple[tuple[Value, ...], ...]:
        table = self._tables.get(key)
        return table.rows if table else ()

    def table(self, key: str) -> Table | None:
        """Return a table; None where the study has none of it."""
        return self._tables.get(key)

    def curve(self, infrastructure: str, mode: str, wait: float | None) -> StudyCurve | None:
        """Return a curve; None where it was not measured."""
        return self._curves.get((infrastructure, mode, wait))

    def groups(self) -> Iterator[tuple[str, tuple[StudyCurve, ...]]]:
        """Yield the curves of all infrastructures that may be compared, after the name of their load.

        They are equal in mode, wait, steps, arrival and the limits that make a cell pass. Where one mode and wait
        was measured under several terms the name tells the tests; where these do not tell them apart, nothing is said.
        """
        by_terms: dict[object, list[StudyCurve]] = {}
        for curve in self._study.curves:
            if curve.curve.summaries:
                by_terms.setdefault((curve.mode, curve.wait, *_terms(curve)), []).append(curve)
        groups = [tuple(curves) for curves in by_terms.values() if len(curves) > 1]
        short_names, full_names = (
            Counter(load_text(group[0]) for group in groups),
            Counter(map(_load_and_tests, groups)),
        )
        for group in groups:
            name = load_text(group[0]) if short_names[load_text(group[0])] == 1 else _load_and_tests(group)
            if name != _load_and_tests(group) or full_names[name] == 1:
                yield name, group

    def by_mode(self) -> Iterator[tuple[StudyCurve, ...]]:
        """Yield the curves of each infrastructure and mode that were measured, by wait."""
        for name in self._study.infrastructures:
            for mode in self._study.modes:
                if curves := tuple(curve for curve in self._study.curves_of(name, mode) if curve.curve.summaries):
                    yield curves

    @staticmethod
    def comparable(curve: StudyCurve, other: StudyCurve) -> bool:
        """Say whether two curves have the same limits, steps and arrival; mode and wait may differ."""
        return _terms(curve) == _terms(other)

    @staticmethod
    def is_exact(curve: StudyCurve) -> bool:
        """Say whether the batch after max batch definitely failed."""
        return max_batch_certainty(curve.curve) == "exact"

    def summary_value(self, curve: StudyCurve, head: str) -> Value:
        """Return the cell of a curve in the results table, under this head."""
        return self._cell("summary", self._results.get(_curve_key(curve)), head)

    def max_batch(self, curve: StudyCurve) -> Value:
        """Return the max batch of a curve as the tables show it."""
        return self.summary_value(curve, "max batch")

    def wait(self, curve: StudyCurve) -> Value:
        """Return the wait of a curve as the tables show it."""
        return self.summary_value(curve, "wait")

    def scaling_value(self, curve: StudyCurve, batch: int, head: str) -> Value:
        """Return the cell of a batch of a curve in the scaling table, under this head."""
        return self._cell("scaling", self._batches.get((_curve_key(curve), batch)), head)

    def hosts_row(self, curve: StudyCurve, batch: int) -> tuple[Value, ...] | None:
        """Return batch, hosts, hosts used, fewest and most sessions; None where hosts are not known."""
        row = self._hosts.get((_curve_key(curve), batch))
        return None if row is None else row[-5:]

    def _cell(self, key: str, row: tuple[Value, ...] | None, head: str) -> Value:
        return MISSING if row is None else self._tables[key].value(row, head)

    def curve_with_count(self, target: str, mode: str, wait: str, axis: ServerAxis, count: Value) -> StudyCurve | None:
        """Return the curve with this number of replicas or nodes; None where several curves match."""
        matches = [
            curve
            for curve in self._study.curves
            if curve.sweep.record.limits.get(axis) == count.number
            and (curve.mode, wait_text(curve.wait)) == (mode, wait)
            and on_one_line(without_count(curve.sweep.target, axis)) == target
        ]
        return matches[0] if len(matches) == 1 else None

    def how_it_fails(self, curve: StudyCurve, point: BatchPoint, success: Value) -> str:
        """Say what breaks at a failing batch: sessions and how they fail, else the limit."""
        died = any(summary.server_exit for summary in point.repetitions)
        counts: dict[tuple[str | None, str | None, str | None], int] = {}
        for error in (error for summary in point.repetitions for error in summary.errors):
            if error.type != "client_limit":
                kind = (error.phase, error.type, error.code)
                counts[kind] = counts.get(kind, 0) + error.count
        breaches = point.verdict.breaches if point.verdict else ()
        limits = dict.fromkeys(breach.limit for breach in breaches)
        broken = [limit for limit in limits if limit not in ("server", "success")]
        clauses = ["the server dies"] if died else []
        if counts and "success" in limits and success.number is not None:
            most_frequent = max(counts, key=lambda kind: counts[kind])
            few = "only " if success.number else ""
            most = "most" if 2 * counts[most_frequent] > sum(counts.values()) else "the most frequent"
            clauses.append(
                f"{few}{success} of the sessions succeed,"
                f" {most} failures being {self._failure_phrase(curve, most_frequent)}"
            )
        if broken:
            clauses.append(f"{join_names(broken)} {'are' if len(broken) > 1 else 'is'} over the limit")
        return " and ".join(clauses) or "it does not pass"

    def _failure_phrase(self, curve: StudyCurve, kind: tuple[str | None, str | None, str | None]) -> str:
        phase, name, code = (on_one_line(part or "") for part in kind)
        row_texts = [curve.infrastructure, curve.mode, *(part or MISSING.text for part in (phase, name, code))]
        is_listed = any([cell.text for cell in row[:5]] == row_texts for row in self._rows("errors"))
        return error_kind(name, code if is_listed else None, phase)


def join_names(names: Iterable[str]) -> str:
    """Return names joined for a sentence: "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _load_and_tests(curves: Sequence[StudyCurve]) -> str:
    """Return the load of curves together with the tests that asked for it."""
    tests = dict.fromkeys(on_one_line(curve.sweep.test).rpartition("::")[2] for curve in curves)
    return f"{load_text(curves[0])} in {join_names(tests)}"


def _row_key(row: Sequence[Value]) -> _CurveKey:
    return row[0].text, row[1].text, row[2].text


def _curve_key(curve: StudyCurve) -> _CurveKey:
    return curve.infrastructure, curve.mode, wait_text(curve.wait)


def _terms(curve: StudyCurve) -> tuple[object, ...]:
    """Return the limits that make a cell pass, and what its sessions do when: what curves must share to be compared."""
    limits = tuple((limit.name, limit.allowed) for limit in curve.verdict.slo.limits if limit.kind.scope == "cell")
    return limits, curve.curve.curve.steps, curve.curve.curve.arrival, curve.curve.curve.think


def holds_more(curve: StudyCurve, other: StudyCurve) -> bool:
    """Say whether one curve certainly holds more than another, see `axes.holds_more`."""
    return axes.holds_more(curve.curve, other.curve)


def load_text(curve: StudyCurve) -> str:
    """Return mode and wait for a sentence: "ws at wait 1 s"."""
    return mode_and_wait(curve.curve.curve)


def one_repetition_note(curves: Iterable[StudyCurve]) -> str:
    """Return a note that the spread is unknown if a batch of these curves was measured once, else ""."""
    gridded = [curve for curve in curves if curve.verdict.search is None]  # A search repeats what decides.
    once = any(len(point.repetitions) < 2 for curve in gridded for point in curve.points)
    return " (one repetition: spread unknown)" if once else ""
