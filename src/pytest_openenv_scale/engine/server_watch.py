"""What is kept of the looks at a server while a repetition of a cell lasts, however long that is."""

from __future__ import annotations

from dataclasses import fields, replace

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics.cost import thin_out
from pytest_openenv_scale.results.cell import MAX_SAMPLES, ServerSamples

_SAMPLES_OF_LEVEL = 8
"""So many samples with as many sessions open count for `rising`: sessions go on allocating with their first steps."""


class ServerWatch:
    """The first and the last sample, the largest value of each figure, samples evenly apart, and those of more and more
    sessions."""

    def __init__(self) -> None:
        self._first: ServerSample | None = None
        self._last: ServerSample | None = None
        self._peak: ServerSample | None = None
        self._kept: list[ServerSample] = []
        self._seen = 0
        self._every = 1
        self._rising: dict[int, ServerSample] = {}
        self._most_open, self._samples_of_most = -1, 0

    @property
    def first(self) -> ServerSample | None:
        """The first sample."""
        return self._first

    @property
    def summary(self) -> ServerSamples:
        """First, last and largest; all None where the server cannot be looked at."""
        rising = tuple(self._rising[open_sessions] for open_sessions in thin_out(self._rising))
        return ServerSamples(self._first, self._last, self._peak, rising)

    def since(self, started_s: float) -> tuple[ServerSample, ...]:
        """Return samples from the first on, at most `MAX_SAMPLES`, by the seconds since a moment of their clock."""
        return tuple(replace(sample, at_s=sample.at_s - started_s) for sample in self._kept)

    def add(self, sample: ServerSample | None, *, open_sessions: int | None = None) -> None:
        """Take a sample, with so many sessions open; None where there was none to be had."""
        if sample is None:
            return
        if open_sessions is not None:
            sample = replace(sample, open_sessions=open_sessions)
            self._add_rising(sample, open_sessions)
        self._first = self._first or sample
        self._last = sample
        self._peak = sample if self._peak is None else _largest(self._peak, sample)
        if self._seen % self._every == 0:
            self._kept.append(sample)
        self._seen += 1
        if len(self._kept) > MAX_SAMPLES:
            del self._kept[1::2]
            self._every *= 2

    def _add_rising(self, sample: ServerSample, open_sessions: int) -> None:
        """Keep, of the first samples with more sessions open than ever before, the largest value of each figure."""
        if open_sessions > self._most_open:
            self._most_open, self._samples_of_most = open_sessions, 0
        if open_sessions == self._most_open and self._samples_of_most < _SAMPLES_OF_LEVEL:
            self._samples_of_most += 1
            self._rising[open_sessions] = _largest(self._rising.get(open_sessions, sample), sample)


def _largest(one: ServerSample, other: ServerSample) -> ServerSample:
    """Return the larger value of each figure, with the later of the moments."""
    known = {
        item.name: [value for sample in (one, other) if (value := getattr(sample, item.name)) is not None]
        for item in fields(ServerSample)
    }
    return replace(one, **{name: max(values) for name, values in known.items() if values})
