"""What is kept of the looks at a server while a repetition of a cell lasts, however long that is."""

from __future__ import annotations

from dataclasses import fields, replace

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.results.cell import MAX_SAMPLES, ServerSamples


class ServerWatch:
    """The first and the last sample, the largest value of each figure over all, and samples evenly apart."""

    def __init__(self) -> None:
        self._first: ServerSample | None = None
        self._last: ServerSample | None = None
        self._peak: ServerSample | None = None
        self._kept: list[ServerSample] = []
        self._seen = 0
        self._every = 1

    @property
    def first(self) -> ServerSample | None:
        """The first sample."""
        return self._first

    @property
    def summary(self) -> ServerSamples:
        """First, last and largest; all None where the server cannot be looked at."""
        return ServerSamples(self._first, self._last, self._peak)

    def since(self, started_s: float) -> tuple[ServerSample, ...]:
        """Return samples from the first on, at most `MAX_SAMPLES`, by the seconds since a moment of their clock."""
        return tuple(replace(sample, at_s=sample.at_s - started_s) for sample in self._kept)

    def add(self, sample: ServerSample | None) -> None:
        """Take a sample; None where there was none to be had."""
        if sample is None:
            return
        self._first = self._first or sample
        self._last = sample
        self._peak = sample if self._peak is None else _largest(self._peak, sample)
        if self._seen % self._every == 0:
            self._kept.append(sample)
        self._seen += 1
        if len(self._kept) > MAX_SAMPLES:
            del self._kept[1::2]
            self._every *= 2


def _largest(one: ServerSample, other: ServerSample) -> ServerSample:
    """Return the larger value of each figure, with the later of the moments."""
    known = {
        item.name: [value for sample in (one, other) if (value := getattr(sample, item.name)) is not None]
        for item in fields(ServerSample)
    }
    return replace(one, **{name: max(values) for name, values in known.items() if values})
