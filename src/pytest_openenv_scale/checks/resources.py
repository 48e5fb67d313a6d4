"""What a server uses as sessions come and go."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.metrics.drift import drift

LEAK_BYTES, LEAK_LEAST_BYTES = 20_000, 8_000_000
"""Memory leaks where it grows by both: the first, in bytes per session, and the second, in bytes over all sessions.
Sound Python servers creep by 1 to 4 kB per session and jump by a few MB."""

LEAK_COUNT, LEAK_COUNT_SHARE = 8, 0.02
"""Threads or descriptors leak where they grow by more than both: this number, and this share of the sessions."""

_SETTLED_S, _SETTLED_SAMPLES, _SAMPLE_PAUSE_S = 2.0, 3, 0.05


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One resource that sessions left behind: its name, how much in all and per session, and whether it is a leak."""

    name: str
    before: int
    after: int
    per_session: float | None
    leaked: bool

    def __str__(self) -> str:
        """Return it in a few words: "threads 2 → 2", "memory +0.4 kB per session"."""
        if self.name != "memory":
            return f"{self.name} {self.before:,} → {self.after:,}"
        if self.per_session is None:
            return f"memory {formatting.size(self.before)} → {formatting.size(self.after)}"
        return (
            f"memory {'−' if self.per_session < 0 else '+'}{formatting.size(round(abs(self.per_session)))} per session"
        )


@dataclass
class Usage:
    """Samples of a server while sessions come and go; `sessions` counts those that had ended before each sample.

    A sample sums over the processes of the server, but for descriptors: there the process with most of them counts.
    """

    endpoint: Endpoint
    sessions: list[int] = field(default_factory=list[int])
    samples: list[ServerSample | None] = field(default_factory=list[ServerSample | None])

    async def sample(self, sessions: int) -> ServerSample | None:
        """Sample the server after `sessions` sessions have ended."""
        # Not on the loop: some servers are asked through an engine that takes its time.
        sample = await asyncio.to_thread(self.endpoint.sample)
        self.sessions.append(sessions)
        self.samples.append(sample)
        return sample

    def too_few_samples(self, name: str) -> bool:
        """Whether there are samples of a resource, but too few to tell how it grows."""
        return bool(self.samples) and drift(self.sessions, self.series(name)) is None

    def series(self, name: str) -> tuple[int | None, ...]:
        """Return memory (in bytes), threads or descriptors of each sample."""
        return tuple(None if sample is None else _read_resource(sample, name) for sample in self.samples)

    def change(
        self, name: str, before: ServerSample | None, after: ServerSample | None, sessions: int
    ) -> ResourceChange | None:
        """Judge how `sessions` sessions changed a resource; None where it is not readable."""
        first, last = (None if sample is None else _read_resource(sample, name) for sample in (before, after))
        if first is None or last is None:
            return None
        growth = drift(self.sessions, self.series(name))
        per_session = None if growth is None else growth.slope
        if name == "memory":
            least = max(LEAK_LEAST_BYTES, LEAK_BYTES * sessions)
            leaked = growth is not None and growth.steady and growth.slope * sessions > least
        else:
            tolerated = allowed_growth(sessions)
            goes_on = growth is None or (growth.steady and growth.slope * sessions > tolerated)
            leaked = last - first > tolerated and goes_on
        return ResourceChange(name, first, last, per_session, leaked)


def allowed_growth(sessions: int) -> float:
    """Return by how many threads or descriptors a server may grow over `sessions` sessions: pools fill up late.

    A handful of sessions must leave fewer than half of a thread each.
    """
    return max(min(LEAK_COUNT, sessions / 2), LEAK_COUNT_SHARE * sessions)


async def sample_when_settled(endpoint: Endpoint) -> ServerSample | None:
    """Return a sample of the server once threads and descriptors have stopped changing, else the last after 2 s."""
    usage, end = Usage(endpoint), time.perf_counter() + _SETTLED_S
    while (sample := await usage.sample(0)) is not None and time.perf_counter() < end:
        latest = usage.samples[-_SETTLED_SAMPLES:]
        if len(latest) == _SETTLED_SAMPLES and len({(item.threads, item.descriptors) for item in latest if item}) == 1:
            break
        await asyncio.sleep(_SAMPLE_PAUSE_S)
    return sample


async def sample_when_released(
    endpoint: Endpoint, before: ServerSample | None, sessions: int, within_s: float
) -> ServerSample | None:
    """Return a sample of the server once it has released threads and descriptors, else the last after `within_s`."""
    end = time.perf_counter() + within_s
    while (sample := await sample_when_settled(endpoint)) is not None and before is not None:
        released = all(
            now is None or then is None or now - then <= min(allowed_growth(sessions), LEAK_COUNT / 2)
            for now, then in (
                (_read_resource(sample, name), _read_resource(before, name)) for name in ("threads", "descriptors")
            )
        )
        if released or time.perf_counter() > end:
            break
    return sample


def _read_resource(sample: ServerSample, name: str) -> int | None:
    return {"memory": sample.rss_bytes, "threads": sample.threads, "descriptors": sample.descriptors}[name]
