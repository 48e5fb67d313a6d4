"""Sentences computed from the tables of a study: each figure in them is the value of a cell, shown as it is there.

Nothing is said of what is inconclusive, and one thing is said to hold more than another only where it passed a batch
at which the other definitely failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .finding_facts import Facts, list_of, more_than, rests_on_one, where
from .replicas import Axis
from .study import Point, Study, StudyCurve
from .study_table import MISSING, StudyTable, Value

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
class Finding:
    """One sentence and what it is about: a key of `TOPICS`."""

    kind: str
    text: str


def findings(study: Study, tables: Sequence[StudyTable]) -> tuple[Finding, ...]:
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


def _named(kind: str, sentences: Iterator[str]) -> Iterator[Finding]:
    return (Finding(kind, text) for text in sentences)


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


def _clearly_faster(one: Point, other: Point) -> bool:
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
