"""Cells measured on a simulated server, of which it is known what a session and a step cost it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cells import a_cell, a_summary

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import ServerSamples

MIB = 2**20
BATCHES = (8, 16, 32, 64, 128, 256)
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Server:
    """A simulated server; `keeps` is the share of a closed session's memory that its allocator does not give back."""

    memory: float = 1.0 * MIB
    keeps: float = 0.0
    leak: float = 0.0
    threads: float = 1.0
    descriptors: float = 2.0
    cpu_per_step: float = 0.004
    idle_cores: float = 0.05
    noise: float = 0.3 * MIB
    held: int = 0
    ended: int = 0
    cpu: float = 1.0
    cells: int = 0
    generator: random.Random = field(default_factory=lambda: random.Random(7))

    def sample(self, open_sessions: int) -> ServerSample:
        self.held = max(self.held, open_sessions)
        resident = self.memory * (open_sessions + self.keeps * (self.held - open_sessions)) + self.leak * self.ended
        return ServerSample(
            at_s=0.0,
            processes=1,
            cpu_seconds=self.cpu,
            rss_bytes=round(80 * MIB + resident + self.generator.uniform(-1, 1) * self.noise),
            threads=round(4 + self.threads * open_sessions),
            descriptors=9,
            all_descriptors=round(9 + 20 * self.cells + self.descriptors * open_sessions),
            open_sessions=open_sessions,
        )

    def play(self, batch: int, repetition: int = 1, *, mode: str = "ws", wall_s: float = 4.0, **facts) -> CellSummary:
        """Hold a batch, with a sample at rest, one on the way and one when all are open, and let each step 5 times."""
        held_before = self.held
        samples = [self.sample(open_sessions) for open_sessions in (0, batch // 2, batch)]
        self.ended += batch
        self.cells += 1
        self.cpu += 5 * batch * self.cpu_per_step + wall_s * self.idle_cores
        last = self.sample(0)
        peak = ServerSample(0.0, 1, None, max(s.rss_bytes or 0 for s in samples), 1, 1, 1, all_descriptors=1)
        values = {
            "cell": replace(a_cell(batch), mode=mode),
            "repetition": repetition,
            "server": ServerSamples(samples[0], last, peak, tuple(samples), held_before),
            "started_at": STARTED + timedelta(minutes=self.cells),
            "steps": 5 * batch,
            "wall_s": wall_s,
        }
        return a_summary(batch, **{**values, **facts})

    def sweep(self, batches: Sequence[int] = BATCHES, reps: int = 3, **facts) -> list[CellSummary]:
        return [self.play(batch, number, **facts) for batch in batches for number in range(1, reps + 1)]
