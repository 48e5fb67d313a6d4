"""Where a curve stops passing, read from single repetitions in the order they were played, and how it stops.

A batch holds where so many repetitions of it passed, and so few failed, that it surely passes in more than half of all;
it fails where most of them failed: one unlucky repetition far below decides neither. What lies between is the slope of
a server that turns away gradually.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

from pytest_openenv_scale.metrics.certainty import chance_of_half
from pytest_openenv_scale.results.outcome import Probe

MOST_REPETITIONS = 10
"""Repetitions after which a batch that passed in a part of them is not asked again."""

DOUBTS = 2
"""Doubtful repetitions of a batch after which it is not asked again."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a batch passed, failed, and could not be judged."""

    passes: int = 0
    fails: int = 0
    doubts: int = 0

    def after(self, passed: bool | None) -> Tally:
        """Return the tally with one repetition more."""
        return Tally(self.passes + (passed is True), self.fails + (passed is False), self.doubts + (passed is None))

    @property
    def fails_mostly(self) -> bool:
        """Whether more repetitions failed than passed."""
        return self.fails > self.passes

    def holds(self, repetitions: int) -> bool:
        """Whether it is as sure to pass more often than not as after so many passes without a failure.

        So many passes or more are then as improbable of a batch of which half of all repetitions pass: as sure as 3 of
        3 are 5 of 6 and 7 of 9.
        """
        return chance_of_half(self.passes, self.passes + self.fails) <= 0.5**repetitions

    def may_hold(self, repetitions: int) -> bool:
        """Whether it holds, or does if it passes each time it may yet be asked."""
        left = max(MOST_REPETITIONS - self.passes - self.fails, 0)
        return Tally(self.passes + left, self.fails).holds(repetitions)

    @property
    def is_doubtful(self) -> bool:
        """Whether nobody can say what becomes of it, as often as it is worth asking."""
        return self.doubts >= DOUBTS and not self.fails


@dataclass(frozen=True)
class Bracket:
    """What probes say of a curve together; `repetitions` of a batch have to pass where none fails."""

    tallies: Mapping[int, Tally]
    repetitions: int

    @classmethod
    def of(cls, probes: Iterable[Probe], repetitions: int) -> Bracket:
        """Count the probes of every batch."""
        tallies: dict[int, Tally] = {}
        for probe in probes:
            tallies[probe.batch] = tallies.get(probe.batch, Tally()).after(probe.passed)
        return cls(tallies, repetitions)

    @property
    def ceiling(self) -> int | None:
        """The smallest batch that is not to be passed: most of its repetitions failed, or it stayed doubtful."""
        batches = (batch for batch, tally in self.tallies.items() if tally.fails_mostly or self.is_blocked(batch))
        return min(batches, default=None)

    @property
    def floor(self) -> int | None:
        """The largest batch below the ceiling that passes at least as often as it fails."""
        return max(self._below_ceiling(lambda tally: tally.passes > 0), default=None)

    @property
    def candidate(self) -> int | None:
        """The largest batch below the ceiling that passed and never failed."""
        return max(self._below_ceiling(lambda tally: tally.passes > 0 and not tally.fails), default=None)

    @property
    def feasible_max(self) -> int | None:
        """The largest batch below the ceiling that holds."""
        return max(self._below_ceiling(lambda tally: tally.holds(self.repetitions)), default=None)

    @property
    def infeasible_min(self) -> int | None:
        """The smallest batch of which most repetitions failed."""
        return min((batch for batch, tally in self.tallies.items() if tally.fails_mostly), default=None)

    @property
    def mixed(self) -> tuple[int, ...]:
        """The batches that both passed and failed, ascending."""
        return tuple(sorted(batch for batch, tally in self.tallies.items() if tally.passes and tally.fails))

    @property
    def shape(self) -> Literal["cliff", "slope"] | None:
        """Whether passing ends at once or gradually: some batch at the edge passed in a part of its repetitions."""
        best, worst = self.feasible_max, self.infeasible_min
        if best is None or worst is None:
            return None
        return "slope" if any(best <= batch <= worst for batch in self.mixed) else "cliff"

    @property
    def exceptions(self) -> tuple[int, ...]:
        """The batches that keep the curve from being monotonic: smaller ones that failed once, larger that passed."""
        best, worst = self.feasible_max or 0, self.infeasible_min or math.inf
        return tuple(
            sorted(
                batch
                for batch, tally in self.tallies.items()
                if (batch < best and tally.fails) or (batch > worst and tally.passes)
            )
        )

    def is_blocked(self, batch: int) -> bool:
        """Whether a batch cannot be judged, and would have to be."""
        tally = self.tallies[batch]
        return tally.is_doubtful and tally.passes < self.repetitions

    def undecided_above(self, batch: int) -> int | None:
        """Return the largest batch between this one and the ceiling that passed in a part, and may come to hold."""
        above = self._below_ceiling(
            lambda tally: bool(tally.passes and tally.fails) and tally.may_hold(self.repetitions)
        )
        return max((other for other in above if other > batch), default=None)

    def first_failure_above(self, batch: int) -> int | None:
        """Return the smallest larger batch that is known not to pass every time."""
        above = (
            other for other, tally in self.tallies.items() if other > batch and (tally.fails or self.is_blocked(other))
        )
        return min(above, default=None)

    def _below_ceiling(self, fits: Callable[[Tally], bool]) -> list[int]:
        ceiling = self.ceiling or math.inf
        return [batch for batch, tally in self.tallies.items() if batch < ceiling and fits(tally)]


_LAPSE = 0.02
"""Share of repetitions that fail or pass for no reason of the batch, in the model that drift is judged by."""
_WIDTHS = (0.008, 0.02, 0.06)
_CHANGES = tuple(sign * size for size in (0.08, 0.18, 0.4) for sign in (-1, 1))
_EDGES = 28
_LIKELIHOOD_RATIO = 12.0
"""Twice the difference of log likelihoods from which drift is said."""


def drift_of(probes: Sequence[Probe], precision: float) -> Literal["fell", "rose"] | None:
    """Say whether the edge of a curve moved while it was probed; None where a steady one explains the probes too.

    Asked only where batches failed well below one that passed before, or passed above one that failed before: the
    likelihood of a logistic edge that moves with the number of probes is then compared with one that stands still.
    """
    judged = [(probe.batch, probe.passed) for probe in probes if probe.passed is not None]
    if _contradictions(judged, max(precision / 2, 0.01)) < 2:
        return None
    low = min(batch for batch, passed in judged if not passed) * 0.8
    high = max(batch for batch, passed in judged if passed) * 1.25
    first, last = math.log(low), math.log(high)
    span = len(judged) - 1
    observations = [
        (math.log(batch), at / span, passed) for at, (batch, passed) in enumerate(judged) if low <= batch <= high
    ]
    edges = [first + (last - first) * at / (_EDGES - 1) for at in range(_EDGES)]
    steady = max(_likelihood(observations, edge, 0.0, width) for edge, width in product(edges, _WIDTHS))
    moving, change = max(
        (_likelihood(observations, edge, change, width), change)
        for edge, width, change in product(edges, _WIDTHS, _CHANGES)
    )
    if 2 * (moving - steady) < _LIKELIHOOD_RATIO:
        return None
    return "fell" if change < 0 else "rose"


def _contradictions(judged: Sequence[tuple[int, bool]], precision: float) -> int:
    """Count the probes that say the opposite of an earlier one, by more than the precision."""
    return sum(
        any(
            batch >= later * (1 + precision) if passed else batch * (1 + precision) <= later
            for batch, passed in judged[:at]
            if passed is not later_passed
        )
        for at, (later, later_passed) in enumerate(judged)
    )


def _likelihood(observations: Sequence[tuple[float, float, bool]], edge: float, change: float, width: float) -> float:
    """Return the log likelihood of (log batch, time from 0 to 1, passed) for an edge that changes by `change`."""
    total = 0.0
    for log, at, passed in observations:
        distance = min(max((log - edge - change * at) / width, -40.0), 40.0)
        share = _LAPSE / 2 + (1 - _LAPSE) / (1 + math.exp(distance))
        total += math.log(share if passed else 1 - share)
    return total


_LEAK_SHARE, _LEAK_BYTES, _LEAK_POINTS = 0.05, 8 * 2**20, 4


def grown_bytes(resident: Sequence[tuple[int, int | None]]) -> float | None:
    """Return by how many bytes a session a server grew once it had held its most; None where it did not, or unknown.

    `resident` holds the batch of every repetition and the memory of the server before it. Only what grew from one to
    the next without exception, by 5 % and 8 MiB at least, is told: a leak, or an allocator that still settles.
    """
    known = [(batch, size) for batch, size in resident if size is not None]
    largest = max(range(len(known)), key=lambda at: known[at][0], default=0)
    after = known[largest + 1 :]
    if len(after) < _LEAK_POINTS or any(later <= size for (_, size), (_, later) in pairwise(after)):
        return None
    first, last = after[0][1], after[-1][1]
    if last - first < max(_LEAK_SHARE * first, _LEAK_BYTES):
        return None
    return (last - first) / sum(batch for batch, _ in after[:-1])
