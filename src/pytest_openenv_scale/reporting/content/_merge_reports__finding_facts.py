"""What findings rest on: the cells of the tables by curve and batch, and what may be compared with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pytest_openenv_scale.core.compare_modes import known_max_batch
from pytest_openenv_scale.core.grammar import format_number

from .replicas import Axis, without_count
from .study import Point, Study, StudyCurve
from .study_table import MISSING, StudyTable, Value, wait_text
from .text import collapse

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
            and collapse(without_count(curve.sweep.target, axis)) == target
        ]
        return found[0] if len(found) == 1 else None

    def how_it_fails(self, curve: StudyCurve, point: Point, success: Value) -> str:
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
        phase, name, code = (collapse(part or "") for part in kind)
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
    tests = dict.fromkeys(collapse(curve.sweep.test).rpartition("::")[2] for curve in curves)
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
