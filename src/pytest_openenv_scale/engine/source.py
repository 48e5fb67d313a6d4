"""Where the cells of a curve come from: a grid that was laid out before, or a search that asks as it learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS, Slo
from pytest_openenv_scale.config.plan import Curve, should_stop
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.parsing import Arrival
from pytest_openenv_scale.load.client_health import most_sessions_of_client
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import CellVerdict, StopReason
from pytest_openenv_scale.verdict.cell import judge_cell
from pytest_openenv_scale.verdict.refusals import name_refusals

from .search import Search


class CellSource(Protocol):
    """Gives the repetitions of a curve one by one, and is told what became of each."""

    def next_repetition(self) -> tuple[int, int] | None:
        """Return the batch and the number of the repetition to measure next; None where there is no more to learn."""
        ...

    def record(self, attempts: Sequence[CellSummary], *, server_exited: bool) -> None:
        """Note the attempts at a repetition, and whether the server has exited since."""
        ...

    def courses_left(self) -> Sequence[Sequence[int]]:
        """Return the batches that may follow the repetition given last; which of several lists nobody knows yet."""
        ...

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """The largest batch known to pass and the smallest known to fail, where one between them is searched."""
        ...

    @property
    def stop_reason(self) -> StopReason | None:
        """Why it ended, where that does not follow from what was measured."""
        ...

    @property
    def cells(self) -> Sequence[CellVerdict] | None:
        """The verdicts on its batches where it has judged whole ones, the smallest first."""
        ...


class Grid:
    """The batches of a curve from the smallest up, each in all its repetitions, until two in a row fail."""

    bounds = (None, None)

    def __init__(self, curve: Curve, slo: Slo, settings: Settings) -> None:
        self.cells: list[CellVerdict] = []
        self.stop_reason: StopReason | None = None
        self._slo = slo
        self._settings = settings
        self._left = [(batch, number + 1) for batch in curve.batches for number in range(settings.repetitions)]
        self._measured: list[CellSummary] = []

    def next_repetition(self) -> tuple[int, int] | None:
        """Return the batch and the number of the repetition to measure next; None where there is no more to learn."""
        return self._left.pop(0) if self._left else None

    def courses_left(self) -> Sequence[Sequence[int]]:
        """Return the batches that are left, in one list: fewer follow where two fail."""
        return [[batch for batch, _ in self._left]]

    def record(self, attempts: Sequence[CellSummary], *, server_exited: bool) -> None:
        """Note the attempts at a repetition; the last one of a batch decides whether there is another batch."""
        self._measured += attempts
        batch = attempts[0].batch
        if self._left and self._left[0][0] == batch:
            return
        repetitions = self._settings.repetitions
        self.cells.append(judge_cell(batch, self._measured, self._slo, repetitions))
        self._measured = []
        failing = not self._settings.full_grid and should_stop([cell.passed for cell in self.cells])
        if server_exited or failing:
            self._left = []


class Searching:
    """A search of a curve: its next batch depends on what became of those before."""

    cells = None

    def __init__(self, plan: SearchPlan, slo: Slo) -> None:
        self._search = Search(plan)
        self._slo = slo

    @property
    def stop_reason(self) -> StopReason | None:
        """Why it ended."""
        return self._search.stop_reason

    def next_repetition(self) -> tuple[int, int] | None:
        """Return the batch and the number of the repetition to measure next; None where there is no more to learn."""
        batch = self._search.next_batch()
        return None if batch is None else (batch, self._search.times_asked(batch) + 1)

    def courses_left(self) -> Sequence[Sequence[int]]:
        """Return what may follow, for several limits that the server may have."""
        return [course[1:] for course in self._search.courses_left()]

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """The largest batch that passed so far, and the smallest that failed."""
        bracket = self._search.bracket
        return bracket.floor, bracket.ceiling

    def record(self, attempts: Sequence[CellSummary], *, server_exited: bool) -> None:
        """Note whether a repetition passed, and which batch a refusal in it hints at."""
        summary = attempts[-1]
        passed = judge_cell(summary.batch, attempts, self._slo, 1).passed
        self._search.record(summary.batch, passed, _largest_served(summary, self._slo))
        if server_exited:
            self._search.stop("server_died")


def _largest_served(summary: CellSummary, slo: Slo) -> int | None:
    """Return the largest batch whose success can suffice if the server holds no more than it said, or showed."""
    for refusal in name_refusals([summary]):
        if refusal.cause in ("capacity", "one_session"):
            limit, workers = refusal.figures.get("limit"), refusal.figures.get("workers")
            slots = int(limit) * int(workers) if limit and workers else summary.held
            # In a steady state one slot that is refused tries again and again: how many fail is not in the batch.
            return slots if summary.is_steady else served_with(slots, slo)
    return None


def served_with(slots: int, slo: Slo) -> int:
    """Return the largest batch of which as many sessions as may fail are refused by a server of so many slots."""
    limit = slo.limit("success")
    share = limit.allowed if limit else DEFAULT_SUCCESS
    return max(math.floor(slots / share + 1e-9), 1)


def most_failures(batch: int, slo: Slo, arrival: Arrival) -> int | None:
    """Return how many sessions of a batch may fail while its success can still suffice.

    None where all are to be played in any case: a batch that is open together, or for as long as was asked for.
    """
    if arrival.kind == "hold" or arrival.seconds is not None:
        return None
    limit = slo.limit("success")
    share = limit.allowed if limit else DEFAULT_SUCCESS
    return math.floor(batch * (1 - share) + 1e-9)


def plan_search(slo: Slo, settings: Settings, endpoint: Endpoint, *, hints: Sequence[int] = ()) -> SearchPlan:
    """Return the plan of the search of one curve of a server; `hints` are batches at which it ended before."""
    plan = search_of(slo, settings, on_loopback=endpoint.on_loopback)
    slots = served = _known_slots(endpoint.limits)
    if slots and settings.arrival.kind != "steady":
        served = served_with(slots, slo)
    known = (served, served + 1) if served else ()
    return replace(plan, hints=tuple(sorted({*plan.hints, *hints, *known})))


def search_of(slo: Slo, settings: Settings, *, on_loopback: bool) -> SearchPlan:
    """Return the plan of a search before anything is known of its server."""
    search, limit = settings.search, slo.limit("max_batch")
    needed = None if limit is None else int(limit.allowed)
    most = most_sessions_of_client(settings.processes)
    only_needed = needed is not None and search.high is None
    largest = 1 if only_needed else search.largest(on_loopback=on_loopback)
    high = max(largest, needed or 1)
    bound = "auto" if search.high is None else "range"
    if high > most:
        high, bound = max(most, search.low), "client"
    return SearchPlan(
        low=search.low,
        high=high,
        precision=settings.precision,
        repetitions=settings.repetitions,
        first=tuple(settings.batches),
        hints=(needed,) if needed and not only_needed else (),
        needed=needed if only_needed else None,
        bound=bound,
    )


def _known_slots(limits: Mapping[str, str | int]) -> int | None:
    """Return how many sessions a server was set to hold, where its endpoint tells."""
    each, workers = limits.get("max_envs"), limits.get("workers")
    servers = limits.get("replicas", limits.get("nodes", 1))
    numbers = [str(value) for value in (each, workers, servers)]
    return math.prod(map(int, numbers)) if all(number.isdecimal() for number in numbers) else None
