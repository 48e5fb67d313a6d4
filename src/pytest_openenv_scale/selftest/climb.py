"""The ladder: batches that double until this client no longer resolves one, or the top or the time is reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

from ..core.limits import usable_cores
from ..core.load import LoadGenerator
from .ceiling import ceiling
from .figures import ARRIVALS, SMALLEST_BATCH, Asked, End, Ladder, Rung, SelfTest, ladder, median_rung
from .measure import measure

_REPEATS = 3
_GROWTH = 2.0
_WARM_UP_BATCH = 16


def self_test(asked: Asked | None = None, on_rung: Callable[[Rung], None] | None = None) -> SelfTest:
    """Measure up to which batch this client resolves 5 ms at the median and 40 ms at the 99th percentile here.

    Takes a minute or two; `on_rung` hears each figure as it is known. Nothing is left running, whatever is raised.

    Raises:
        LoadError: a load process refused the order: the workload cannot be used.
        SelfTestError: the null server cannot be started, or not a single session fits this machine.
    """
    return Climb(asked or Asked(), on_rung).run()


def batches_up_to(smallest: int, top: int, asked: int) -> tuple[int, ...]:
    """Return the batches to try: doubling up to `top`, which is one of them where it is what was asked for."""
    batches: list[int] = []
    batch = min(smallest, top)
    while batch <= top:
        batches.append(batch)
        batch *= 2
    return (*batches, top) if top == asked and batches[-1] != top else tuple(batches)


class Climb:
    """A self-test under way; `so_far()` says at any moment, also after an interruption, what is known.

    Raises:
        SelfTestError: not a single session fits this machine.
    """

    def __init__(self, asked: Asked, on_rung: Callable[[Rung], None] | None = None) -> None:
        self._asked = asked
        self._on_rung = on_rung
        self._rungs: list[Rung] = []
        self._ends: dict[str, End] = {}
        self._tops = {mode: ceiling(mode, asked.max_batch) for mode in asked.modes}

    def run(self) -> SelfTest:
        """Climb the ladder of every mode."""
        modes = self._asked.modes
        ending = time.monotonic() + self._asked.time_s
        with LoadGenerator(self._asked.processes) as generator:
            for number, mode in enumerate(modes):
                now = time.monotonic()
                # Each mode has an equal part of what time is left.
                self._ends[mode] = self._climb(generator, mode, now + (ending - now) / (len(modes) - number))
        return self.so_far()

    def so_far(self) -> SelfTest:
        """Return what is known; a mode that has not come to its end counts as interrupted."""
        return SelfTest(
            tuple(self._ladder(mode) for mode in self._asked.modes),
            self._asked.wait_s,
            usable_cores(),
            version("pytest-openenv-scale"),
        )

    def _ladder(self, mode: str) -> Ladder:
        rungs = [rung for rung in self._rungs if rung.mode == mode]
        top, reason = self._tops[mode]
        return ladder(mode, rungs, self._ends.get(mode, "interrupted"), top, reason)

    def _climb(self, generator: LoadGenerator, mode: str, ending: float) -> End:
        # The first sessions of a process pay for what it never did before.
        measure(generator, replace(self._asked, wait_s=0.0), mode, "burst", _WARM_UP_BATCH)
        expected = 0.0
        for batch in batches_up_to(SMALLEST_BATCH[mode], self._tops[mode][0], self._asked.max_batch):
            began = time.monotonic()
            if expected and began + expected > ending:
                return "time"
            resolved = [self._rung(generator, mode, arrival, batch, ending) for arrival in ARRIVALS]
            if not all(resolved):
                return "unresolved"
            expected = (time.monotonic() - began) * _GROWTH
        return "top"

    def _rung(self, generator: LoadGenerator, mode: str, arrival: str, batch: int, ending: float) -> bool:
        """Measure a batch in one arrival; again, to know the median, where it does not resolve at once."""
        began = time.monotonic()
        runs = [measure(generator, self._asked, mode, arrival, batch)]
        took = time.monotonic() - began
        while not runs[0].resolved and len(runs) < _REPEATS and time.monotonic() + took < ending:
            runs.append(measure(generator, self._asked, mode, arrival, batch))
        rung = median_rung(runs)
        self._rungs.append(rung)
        if self._on_rung is not None:
            self._on_rung(rung)
        return rung.resolved
