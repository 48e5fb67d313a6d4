"""Sentences computed from the tables of a study: each figure in them is the value of a cell, shown as it is there.

Nothing is said of what is inconclusive, and one thing is said to hold more than another only where it passed a batch
at which the other definitely failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.verdict.sweep import known_max_batch

from .replicas import Axis, without_count
from .tables import MISSING, StudyTable, Value, wait_text

FEW_PER_CORE = 10
"""Fewer sessions per core than this are worth a sentence."""

_CLEAR = 1.1
"""A latency is told apart from another from this factor on, if their repetitions do not overlap either."""

_EVEN = 1.25
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
"""The kinds of findings in the order they are told, and their names for people."""


@dataclass(frozen=True, slots=True)
class StudyFinding:
    """One sentence and what it is about: a key of `TOPICS`."""

    kind: str
    text: str


def findings(study: Study, tables: Sequence[StudyTable]) -> tuple[StudyFinding, ...]:
    """Return what the tables of a study say in sentences, the widest first; none where there is nothing to compare."""
    facts = Facts(study, tables)
    found = (
        *_named("best", _best(facts)),
        *_named("fastest", _fastest(facts)),
        *_named("protocols", _protocols(facts)),
        *_named("wait", _waits(facts)),
        *_named("nodes", _nodes(facts)),
        *_named("cliff", _cliffs(facts)),
        *_named("hosts", _hosts(facts)),
        *_named("cores", _cores(facts)),
    )
    return tuple(dict.fromkeys(found))


def _named(kind: str, sentences: Iterator[str]) -> Iterator[StudyFinding]:
    return (StudyFinding(kind, text) for text in sentences)


def _best(facts: Facts) -> Iterator[str]:
    """Say which infrastructure holds the most, at each mode and wait, where that is certain."""
    for load, group in facts.groups():
        ranked = sorted(group, key=lambda curve: -(curve.verdict.max_batch or 0))
        first, known = ranked[0], [curve for curve in ranked[1:] if Facts.is_exact(curve)]
        unknown = [curve for curve in ranked[1:] if not Facts.is_exact(curve)]
        most, held = first.verdict.max_batch, facts.max_batch(first)
        if not most or not known or any((curve.verdict.max_batch or 0) >= most for curve in unknown):
            continue
        doubt = rests_on_one(ranked)
        if all(more_than(first, other) for other in known):
            yield (
                f"Over {load}, {first.infrastructure} holds the most sessions at once: {held};"
                f" {_next(facts, known)}{_not_known(unknown)}{doubt}."
            )
        elif not unknown and all(_equal(first, other) for other in known):
            names = list_of(curve.infrastructure for curve in group)
            yield f"Over {load}, {names} hold equally many sessions at once: {held}{doubt}."


def _next(facts: Facts, ranked: Sequence[StudyCurve]) -> str:
    held = ranked[0].verdict.max_batch
    if not held:
        return "of the others none holds even its smallest batch" if len(ranked) > 1 else "the other holds no batch"
    behind = [curve.infrastructure for curve in ranked if curve.verdict.max_batch == held]
    return f"next {'is' if len(behind) == 1 else 'are'} {list_of(behind)} with {facts.max_batch(ranked[0])}"


def _not_known(curves: Sequence[StudyCurve]) -> str:
    if not curves:
        return ""
    return f"; not known of {list_of(curve.infrastructure for curve in curves)}, the limit of which was not found"


def _equal(one: StudyCurve, other: StudyCurve) -> bool:
    same = one.verdict.max_batch == other.verdict.max_batch
    steps = one.verdict.infeasible_min == other.verdict.infeasible_min
    return same and steps and Facts.is_exact(one) and Facts.is_exact(other)


def _fastest(facts: Facts) -> Iterator[str]:
    """Say which infrastructure answers fastest at the largest batch that all of a group hold."""
    for load, group in facts.groups():
        passing = [{point.batch for point in curve.points if point.passed} for curve in group]
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
        quick, slow = facts.at(first, batch, "total p99"), facts.at(last, batch, "total p99")
        of_batch = facts.at(first, batch, "batch")
        yield (
            f"At batch {of_batch} over {load}, {first.infrastructure} answers fastest: total p99 {quick},"
            f" against {slow} on {last.infrastructure}{' as the slowest' if len(ranked) > 2 else ''}"
            f"{rests_on_one(group)}."
        )


def _clearly_faster(one: BatchPoint, other: BatchPoint) -> bool:
    slowest = max(stats.p99 for summary in one.repetitions if (stats := summary.phase("total")))
    quickest = min(stats.p99 for summary in other.repetitions if (stats := summary.phase("total")))
    return quickest > _CLEAR * slowest


def _protocols(facts: Facts) -> Iterator[str]:
    """Say which protocol holds more, where the comparison names a winner."""
    table = facts.table("protocols")
    names = {"ws": "WebSocket", "http": "HTTP"}
    if table is None:
        return
    for row in table.rows:
        of, wait, ws, http, winner = (
            table.value(row, head) for head in ("infrastructure", "wait", "ws max", "http max", "winner")
        )
        curves = [found for mode in names if (found := facts.curve(of.text, mode, wait.number)) is not None]
        place = f"On {of}{'' if wait.number is None else f' at wait {wait}'}"
        doubt = rests_on_one(curves)
        if winner.text == "equal":
            yield f"{place}, WebSocket and HTTP hold equally many sessions: {ws}{doubt}."
        elif winner.text in names:
            other = next(mode for mode in names if mode != winner.text)
            more, less = (ws, http) if winner.text == "ws" else (http, ws)
            against = "none" if less.number is None else f"{less}"
            claim = f"{names[winner.text]} holds more sessions than {names[other]}"
            yield f"{place}, {claim}: {more} against {against}{doubt}."


def _waits(facts: Facts) -> Iterator[str]:
    """Say what longer waits do to max batch: at the ends of the waits measured."""
    for curves in facts.by_mode():
        timed = [curve for curve in curves if curve.wait is not None and Facts.comparable(curves[0], curve)]
        if len(timed) < 2 or len(timed) < len(curves):
            continue
        short, long = timed[0], timed[-1]
        held, later = facts.max_batch(short), facts.max_batch(long)
        ends = facts.wait(short), facts.wait(long)
        subject, doubt = f"The max batch of {short.infrastructure} over {short.mode}", rests_on_one(timed)
        if all(_equal(short, curve) for curve in timed[1:]) and held.number:
            yield f"{subject} does not depend on the wait: {held} from wait {ends[0]} to {ends[1]}{doubt}."
        elif short.verdict.max_batch and long.verdict.max_batch:
            change = f"from {held} at wait {ends[0]} to {later} at wait {ends[1]}"
            if more_than(long, short):
                yield f"{subject} rises with the wait: {change}{doubt}."
            elif more_than(short, long):
                yield f"{subject} falls with the wait: {change}{doubt}."


def _nodes(facts: Facts) -> Iterator[str]:
    """Say what the most replicas hold of what the fewest hold, where both are known."""
    table = facts.table("nodes")
    if table is None:
        return
    groups: dict[tuple[str, ...], list[tuple[Value, ...]]] = {}
    for row in table.rows:
        groups.setdefault(tuple(cell.text for cell in row[:4]), []).append(row)
    for (target, mode, wait, of), rows in groups.items():
        axis: Axis = "nodes" if of == "nodes" else "replicas"
        cells = [[table.value(row, head) for head in ("number", "max batch")] for row in (rows[0], rows[-1])]
        (few, held), (many, more) = cells
        gained, efficiency = (table.value(rows[-1], head) for head in ("batch factor", "batch efficiency"))
        ends = [facts.repeated(target, mode, wait, axis, cell) for cell in (few, many)]
        verb = _change(*ends)
        if verb is None or gained.number is None:
            continue
        place = mode if wait == MISSING.text else f"{mode} at wait {wait}"
        yield (
            f"{many} {axis} of {target} hold {verb} {few} over {place}: {more} sessions against {held},"
            f" {gained}, an efficiency of {efficiency}{rests_on_one(curve for curve in ends if curve)}."
        )


def _change(few: StudyCurve | None, many: StudyCurve | None) -> str | None:
    """Say what the second holds compared with the first; None where that is not certain."""
    if few is None or many is None or not Facts.comparable(few, many):
        return None
    if not (Facts.is_exact(few) and Facts.is_exact(many)):
        return None
    if more_than(many, few):
        return "more than"
    if more_than(few, many):
        return "less than"
    return "no more than" if _equal(few, many) else None


def _cliffs(facts: Facts) -> Iterator[str]:
    """Say where sessions begin to fail and how, for the wait of each infrastructure and mode with the lowest limit."""
    for curves in facts.by_mode():
        known = [curve for curve in curves if Facts.is_exact(curve)]
        if not known:
            continue
        curve = min(known, key=lambda curve: curve.verdict.max_batch or 0)
        failing = curve.verdict.infeasible_min
        point = curve.point(failing)
        if failing is None or point is None:
            continue
        held = facts.max_batch(curve)
        holds = (
            f"holds {held} {'session' if held.number == 1 else 'sessions'} over"
            if held.number
            else "holds none of the batches asked for over"
        )
        batch, success = facts.at(curve, failing, "batch"), facts.at(curve, failing, "success")
        yield (
            f"{curve.infrastructure} {holds} {where(curve)}; at batch {batch}"
            f" {facts.how_it_fails(curve, point, success)}{rests_on_one([curve])}."
        )


def _hosts(facts: Facts) -> Iterator[str]:
    """Say how evenly the largest passing batch of each infrastructure and mode spread over its hosts."""
    for curves in facts.by_mode():
        passing = [(point.batch, curve) for curve in curves for point in curve.points if point.passed]
        rows = [(facts.hosts_row(curve, batch), curve) for batch, curve in sorted(passing, key=lambda pair: -pair[0])]
        found = next(((row, curve) for row, curve in rows if row is not None), None)
        if found is None:
            continue
        row, curve = found
        batch, hosts, used, fewest, most = row
        place = f"At batch {batch} over {where(curve)}"
        if not (batch.number and hosts.number) or batch.number < 2 * hosts.number:
            continue
        if used.number != hosts.number:
            yield f"{place}, only {used} of the {hosts} hosts of {curve.infrastructure} got sessions."
        elif (most.number or 0) <= max(_EVEN * (fewest.number or 0), (fewest.number or 0) + 1):
            yield (
                f"{place}, the {hosts} hosts of {curve.infrastructure} share the sessions evenly:"
                f" {fewest if fewest == most else f'{fewest} to {most}'} each."
            )
        else:
            yield (
                f"{place}, the {hosts} hosts of {curve.infrastructure} share the sessions unevenly:"
                f" {fewest} on one, {most} on another."
            )


def _cores(facts: Facts) -> Iterator[str]:
    """Name what holds few sessions for its cores, at the wait of each infrastructure and mode with the fewest."""
    for curves in facts.by_mode():
        known = [curve for curve in curves if Facts.is_exact(curve) and curve.verdict.max_batch_per_core]
        few = [curve for curve in known if (curve.verdict.max_batch_per_core or 0) < FEW_PER_CORE]
        if not few:
            continue
        curve = min(few, key=lambda curve: curve.verdict.max_batch_per_core or 0)
        held, cores, each = (facts.result(curve, head) for head in ("max batch", "cores", "batch per core"))
        yield (
            f"{curve.infrastructure} holds fewer than ten sessions per core over {where(curve)}: {each}"
            f" ({held} on {cores}{' core' if cores.number == 1 else ' cores'})."
        )


_Place = tuple[str, str, str]


class Facts:
    """The tables of a study, by key, and their rows, by curve."""

    def __init__(self, study: Study, tables: Sequence[StudyTable]) -> None:
        self._study = study
        self._tables = {table.key: table for table in tables}
        self._curves = {(curve.infrastructure, curve.mode, curve.wait): curve for curve in study.curves}
        self._results = {_place(row): row for row in self._rows("summary")}
        self._batches = {(_place(row), row[3].number): row for row in self._rows("scaling")}
        self._hosts = {(_place(row), row[3].number): row for row in self._rows("hosts")}

    def _rows(self, key: str) -> tuple[tuple[Value, ...], ...]:
        table = self._tables.get(key)
        return table.rows if table else ()

    def table(self, key: str) -> StudyTable | None:
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
        found: dict[object, list[StudyCurve]] = {}
        for curve in self._study.curves:
            if curve.curve.summaries:
                found.setdefault((curve.mode, curve.wait, *_terms(curve)), []).append(curve)
        groups = [tuple(curves) for curves in found.values() if len(curves) > 1]
        plain, full = Counter(where(group[0]) for group in groups), Counter(map(_in_full, groups))
        for group in groups:
            name = where(group[0]) if plain[where(group[0])] == 1 else _in_full(group)
            if name != _in_full(group) or full[name] == 1:
                yield name, group

    def by_mode(self) -> Iterator[tuple[StudyCurve, ...]]:
        """Yield the curves of each infrastructure and mode that were measured, by wait."""
        for name in self._study.infrastructures:
            for mode in self._study.modes:
                if curves := tuple(curve for curve in self._study.of(name, mode) if curve.curve.summaries):
                    yield curves

    @staticmethod
    def comparable(one: StudyCurve, other: StudyCurve) -> bool:
        """Say whether two curves were asked for under equal terms but for mode and wait."""
        return _terms(one) == _terms(other)

    @staticmethod
    def is_exact(curve: StudyCurve) -> bool:
        """Say whether the batch after max batch definitely failed."""
        return known_max_batch(curve.curve) == "exact"

    def result(self, curve: StudyCurve, head: str) -> Value:
        """Return a cell of the results of a curve."""
        return self._cell("summary", self._results.get(_place_of(curve)), head)

    def max_batch(self, curve: StudyCurve) -> Value:
        """Return the max batch of a curve as the tables show it."""
        return self.result(curve, "max batch")

    def wait(self, curve: StudyCurve) -> Value:
        """Return the wait of a curve as the tables show it."""
        return self.result(curve, "wait")

    def at(self, curve: StudyCurve, batch: int, head: str) -> Value:
        """Return a cell of the scaling table."""
        return self._cell("scaling", self._batches.get((_place_of(curve), batch)), head)

    def hosts_row(self, curve: StudyCurve, batch: int) -> tuple[Value, ...] | None:
        """Return batch, hosts, hosts used, fewest and most sessions; None where hosts are not known."""
        row = self._hosts.get((_place_of(curve), batch))
        return None if row is None else row[3:]

    def _cell(self, key: str, row: tuple[Value, ...] | None, head: str) -> Value:
        return MISSING if row is None else self._tables[key].value(row, head)

    def repeated(self, target: str, mode: str, wait: str, axis: Axis, count: Value) -> StudyCurve | None:
        """Return the one curve a row of the table of nodes is about; None where it could be of several."""
        found = [
            curve
            for curve in self._study.curves
            if curve.sweep.record.limits.get(axis) == count.number
            and (curve.mode, wait_text(curve.wait)) == (mode, wait)
            and on_one_line(without_count(curve.sweep.target, axis)) == target
        ]
        return found[0] if len(found) == 1 else None

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
        said = ["the server dies"] if died else []
        if counts and "success" in limits and success.number is not None:
            most = max(counts, key=lambda kind: counts[kind])
            few = "only " if success.number else ""
            said.append(f"{few}{success} of the sessions succeed, most failures being {self._words(curve, most)}")
        if broken:
            said.append(f"{list_of(broken)} {'are' if len(broken) > 1 else 'is'} over the limit")
        return " and ".join(said) or "it does not pass"

    def _words(self, curve: StudyCurve, kind: tuple[str | None, str | None, str | None]) -> str:
        phase, name, code = (on_one_line(part or "") for part in kind)
        shown = [curve.infrastructure, curve.mode, *(part or MISSING.text for part in (phase, name, code))]
        listed = any([cell.text for cell in row[:5]] == shown for row in self._rows("errors"))
        told = f" {code}" if code and listed and name != "capacity" else ""
        return f"{name.replace('_', ' ') or 'failure'}{told}{f' in {phase}' if phase else ''}"


def list_of(names: Iterable[str]) -> str:
    """Return names as a list for people: "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _in_full(curves: Sequence[StudyCurve]) -> str:
    """Return the load of curves together with the tests that asked for it."""
    tests = dict.fromkeys(on_one_line(curve.sweep.test).rpartition("::")[2] for curve in curves)
    return f"{where(curves[0])} in {list_of(tests)}"


def _place(row: Sequence[Value]) -> _Place:
    return row[0].text, row[1].text, row[2].text


def _place_of(curve: StudyCurve) -> _Place:
    return curve.infrastructure, curve.mode, wait_text(curve.wait)


def _terms(curve: StudyCurve) -> tuple[object, ...]:
    """Return what makes a cell pass, and the load besides mode and wait."""
    limits = tuple((limit.name, limit.allowed) for limit in curve.verdict.slo.limits if limit.kind.scope == "cell")
    return limits, curve.curve.curve.steps, curve.curve.curve.arrival


def more_than(one: StudyCurve, other: StudyCurve) -> bool:
    """Say whether one curve passed a batch at which the other, the limit of which is known, definitely failed."""
    held, failed = one.verdict.max_batch, other.verdict.infeasible_min
    return held is not None and failed is not None and held >= failed and Facts.is_exact(other)


def where(curve: StudyCurve) -> str:
    """Return mode and wait for a sentence: "ws at wait 1 s"."""
    return curve.mode if curve.wait is None else f"{curve.mode} at wait {format_number(curve.wait)} s"


def rests_on_one(curves: Iterable[StudyCurve]) -> str:
    """Say that the spread is not known where one of these curves was measured once."""
    once = any(len(point.repetitions) < 2 for curve in curves for point in curve.points)
    return " (one repetition: spread unknown)" if once else ""
