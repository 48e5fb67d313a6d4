"""A search for the max batch of a curve: which batch to ask for next, by what became of those before. It does no I/O.

It doubles until a repetition fails, and halves the distance (of logarithms) between what passes and what fails. The
batch that fails is then asked again, so that one unlucky repetition far below decides nothing; the largest one that
passed is verified, and where a repetition of it fails, a smaller one. Where that leaves both farther apart than the
precision, batches in between that passed in a part of their repetitions are asked until it is sure what they do.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.results.outcome import Probe, StopReason
from pytest_openenv_scale.verdict.bracket import DOUBTS, Bracket, Tally, drift_of

RESOLUTION = 0.4
"""Share of the precision to which a bracket is narrowed: a step down from the candidate is then within it, too."""

SLOPE_RESOLUTION = 0.01
"""How closely candidates are tried, as a fraction, where batches pass in some repetitions and fail in others."""

MOST_PROBES = 100
"""Repetitions after which a search ends that comes to no end: a server that answers differently every time."""


class Search:
    """A search under way: ask `next_batch`, play it, `record` what became of it, until there is none."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self.probes: list[Probe] = []
        self.stop_reason: StopReason | None = None
        self.drift: Literal["fell", "rose"] | None = None
        self._hints = set(plan.hints)

    @property
    def bracket(self) -> Bracket:
        """What is known so far."""
        return Bracket.of(self.probes, self.plan.repetitions)

    def next_batch(self) -> int | None:
        """Return how many sessions to ask for next; None where no more is to be learned, and `stop_reason` says why."""
        if self.stop_reason is not None:
            return None
        if len(self.probes) >= MOST_PROBES:
            self.stop("unsteady")
            return None
        chosen = self._choose() if self.plan.needed is None else self._ask_needed(self.plan.needed)
        if isinstance(chosen, int):
            return chosen
        self.stop(chosen)
        return None

    def times_asked(self, batch: int) -> int:
        """Return how many repetitions of a batch there were."""
        return sum(probe.batch == batch for probe in self.probes)

    def record(self, batch: int, passed: bool | None, served: int | None = None) -> None:
        """Note what became of a repetition; a refusal in it says that `served` is the largest batch that can pass."""
        self.probes.append(Probe(batch, passed, self.times_asked(batch) + 1))
        if self.plan.needed is None and (drift := drift_of(self.probes, self.plan.precision)):
            self.drift = drift
            self.stop("drift")
        # Where sessions are spread by chance, each refusal names another number: the first is enough.
        if served and not any(
            _is_close(min(served, hint), max(served, hint), self.plan.precision) for hint in self._hints
        ):
            self._hints |= {served, served + 1}

    def stop(self, reason: StopReason) -> None:
        """End the search."""
        self.stop_reason = reason

    def courses_left(self) -> list[tuple[int, ...]]:
        """Return the batches it may still ask for, of servers with a sharp limit between what passes and what fails."""
        bracket, plan = self.bracket, self.plan
        low = max(bracket.floor or plan.low - 1, 1)
        high = max((bracket.ceiling or plan.high + 1) - 1, low)
        return [self.course(edge) for edge in {low, high, round(math.sqrt(low * high))}]

    def course(self, edge: int) -> tuple[int, ...]:
        """Return the batches it asks for from here on where those up to `edge` pass, and no other."""
        ahead = Search(self.plan)
        ahead.probes, ahead._hints = list(self.probes), set(self._hints)
        while (batch := ahead.next_batch()) is not None:
            ahead.record(batch, batch <= edge)
        return tuple(probe.batch for probe in ahead.probes[len(self.probes) :])

    def _ask_needed(self, needed: int) -> int | StopReason:
        tally = self.bracket.tallies.get(needed, Tally())
        if tally.fails:
            return "fails"
        if tally.is_doubtful:
            return "doubt"
        return "holds" if tally.passes >= self.plan.repetitions else needed

    def _choose(self) -> int | StopReason:
        bracket, plan = self.bracket, self.plan
        floor, ceiling = bracket.floor, bracket.ceiling
        if floor is None:
            return self._at_the_bottom(bracket)
        if (hint := self._next_hint(bracket, floor, ceiling)) is not None:
            return hint
        if ceiling is None:
            if floor < plan.high:
                return next(batch for batch in plan.ladder if batch > floor)
        elif not _is_close(floor, ceiling, plan.precision * RESOLUTION):
            return _between(floor, ceiling)
        elif not self._is_confirmed(bracket, ceiling):
            return ceiling
        return self._verify(bracket, ceiling)

    def _at_the_bottom(self, bracket: Bracket) -> int | StopReason:
        """Nothing passes so far: ask for the smallest batch, until that has failed for sure."""
        low = self.plan.low
        if bracket.ceiling != low or not self._is_confirmed(bracket, low):
            return low
        return "doubt" if bracket.is_blocked(low) else "bottom"

    def _is_confirmed(self, bracket: Bracket, ceiling: int) -> bool:
        """Whether a batch failed as often as a candidate has to pass."""
        return bracket.is_blocked(ceiling) or bracket.tallies[ceiling].fails >= self.plan.repetitions

    def _next_hint(self, bracket: Bracket, floor: int, ceiling: int | None) -> int | None:
        known = {batch for batch, tally in bracket.tallies.items() if tally.passes or tally.fails}
        top = self.plan.high + 1 if ceiling is None else ceiling
        return min((hint for hint in self._hints - known if floor < hint < top), default=None)

    def _verify(self, bracket: Bracket, ceiling: int | None) -> int | StopReason:
        """The floor is as near to the ceiling as is asked for: repeat the candidate, or step down to another."""
        plan, candidate = self.plan, bracket.candidate
        if candidate is None:
            if plan.low not in bracket.tallies:
                return plan.low
        else:
            spoiled = bracket.first_failure_above(candidate)
            if spoiled is not None and not _is_close(candidate, spoiled, self._step(bracket, spoiled)):
                return _between(candidate, spoiled)
            if bracket.tallies[candidate].passes < plan.repetitions:
                return candidate
        return self._conclude(bracket, ceiling)

    def _conclude(self, bracket: Bracket, ceiling: int | None) -> int | StopReason:
        """There is no more candidate: end where that is near enough to what fails, or see what those in between do."""
        best = bracket.feasible_max
        if best == self.plan.high:
            return "top"
        if ceiling is not None and bracket.is_blocked(ceiling):
            return "doubt"
        is_near = best is not None and ceiling is not None and _is_close(best, ceiling, self.plan.precision)
        if not is_near and (undecided := bracket.undecided_above(best or 0)) is not None:
            return undecided
        if (outdated := self._outdated(bracket, (best, True), (ceiling, False))) is not None:
            return outdated
        return "precision" if is_near else "bottom" if best is None else "slope"

    def _outdated(self, bracket: Bracket, *ends: tuple[int | None, bool]) -> int | None:
        """Return a batch of which the last repetitions do not show that it still passes, or fails, as it is said to."""
        last = {probe.batch: probe.passed for probe in self.probes[-self.plan.repetitions - 1 :]}
        return next(
            (
                batch
                for batch, passes in ends
                if batch is not None and last.get(batch) is not passes and bracket.tallies[batch].doubts < DOUBTS
            ),
            None,
        )

    def _step(self, bracket: Bracket, spoiled: int) -> float:
        step = self.plan.precision * RESOLUTION
        return max(step, SLOPE_RESOLUTION) if bracket.tallies[spoiled].passes else step


def _is_close(low: int, high: int, precision: float) -> bool:
    return high <= max(low + 1, low * (1 + precision))


def _between(low: int, high: int) -> int:
    return min(max(round(math.sqrt(low * high)), low + 1), high - 1)


@lru_cache(maxsize=16)
def possible_courses(plan: SearchPlan) -> tuple[tuple[int, ...], ...]:
    """Return the batches that a search asks for of servers with a sharp limit, for limits all over its range."""
    edges = {plan.low, plan.high} | {
        round(plan.low * (plan.high / plan.low) ** (step / _EDGES)) for step in range(_EDGES + 1)
    }
    return tuple(Search(plan).course(edge) for edge in edges)


_EDGES = 40
