"""Servers that exist as numbers only, for searches: where each stops passing is known, and a repetition costs nothing.

Truth is the batch at which a repetition passes with probability one half. Everything is drawn from one seed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from statistics import NormalDist

from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.engine.allowance import Allowance
from pytest_openenv_scale.engine.search import Search

KINDS = ("sharp", "sloped", "noisy", "uneven", "drifting", "leaking")
STEADY = KINDS[:4]
"""The kinds whose truth stands still; the others are to be said."""

PRECISION, REPETITIONS = 0.05, 3

_GAUSS = NormalDist()
_MARGIN = 1 + 1e-9


@dataclass
class SimulatedServer:
    """A server of one kind; `truth` is that of its state as of now.

    | kind | what it does |
    | --- | --- |
    | sharp | passes up to a batch, fails beyond |
    | sloped | passes less and less often: 10 % more sessions take it from 98 % to 2 % of repetitions |
    | noisy | a slope half as wide, and 3 % of all repetitions fail for another reason |
    | uneven | sessions fall on 2 to 4 workers by chance; it passes where none is beyond its limit |
    | drifting | sharp, at a batch that rises or falls by 1.2 % with each repetition |
    | leaking | sharp, at a batch that falls by 1.5 % with every so many sessions as it holds |
    """

    kind: str
    random: random.Random = field(repr=False)
    edge: float
    workers: int = 1
    drift: float = 0.0
    played: int = 0
    sessions: int = 0

    @classmethod
    def draw(cls, kind: str, seed: int) -> SimulatedServer:
        """Draw a server that holds 20 to 8,000 sessions."""
        source = random.Random(f"{kind} {seed}")
        edge = math.exp(source.uniform(math.log(20), math.log(8000)))
        workers = source.randint(2, 4)
        if kind == "uneven":
            edge = source.randint(200, 2000) * workers
        return cls(kind, source, edge, workers, drift=source.choice((-0.012, 0.012)))

    def share_passing(self, batch: float) -> float:
        """Return how probable it is that a repetition of a batch passes."""
        match self.kind:
            case "sloped":
                return _GAUSS.cdf((math.log(self.edge) - math.log(batch)) / 0.024)
            case "noisy":
                return 0.97 * _GAUSS.cdf((math.log(self.edge) - math.log(batch)) / 0.012)
            case "uneven":
                mean = batch / self.workers
                spread = math.sqrt(mean * (1 - 1 / self.workers))
                return _GAUSS.cdf((self.edge / self.workers - mean) / spread) ** (self.workers - 1)
            case "drifting":
                return float(batch <= self.edge * (1 + self.drift) ** self.played)
            case "leaking":
                return float(batch <= self.edge * 0.985 ** (self.sessions / self.edge))
            case _:
                return float(batch <= self.edge)

    @property
    def truth(self) -> float:
        """The batch at which a repetition passes with probability one half."""
        low, high = 1.0, 4 * self.edge
        while high / low > _MARGIN:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.share_passing(middle) >= 0.5 else (low, middle)
        return low

    def play(self, batch: int) -> bool:
        """Play one repetition, and return whether it passed."""
        passed = self.random.random() < self.share_passing(batch)
        self.played += 1
        self.sessions += batch
        return passed

    def seconds(self, batch: int) -> float:
        """Return how long a repetition takes: a wait, and more for every session, never twice the same."""
        return (1.0 + 0.004 * batch) * self.random.uniform(0.8, 1.25)


PLAN = SearchPlan(1, 16_384, PRECISION, REPETITIONS, first=(1, 8, 32, 128))


def search(server: SimulatedServer, *, budget: float | None = None) -> tuple[Search, float]:
    """Search the max batch of a server, as a sweep does; return the search at its end and the seconds it took."""
    running, allowance, spent = Search(PLAN), Allowance(seconds=budget), 0.0
    while (batch := running.next_batch()) is not None:
        if (refused := allowance.refuses(batch)) is not None:
            running.stop(refused)
            break
        seconds, left = server.seconds(batch), math.inf if budget is None else budget - spent
        passed = server.play(batch)
        spent += min(seconds, left)
        if seconds > left:  # A repetition is broken off when the budget is used up, and not kept.
            running.stop("budget")
            break
        allowance.use(batch, seconds, batch)
        running.record(batch, passed)
    return running, spent


def grid_sessions(truth: float, precision: float = PRECISION) -> int:
    """Return how many sessions a grid costs that is as fine, with as many repetitions, up to two failing batches."""
    batch, sessions, failing = 1, 0, 0
    while failing < 2:
        sessions += REPETITIONS * batch
        failing += batch > truth
        batch = max(batch + 1, math.floor(batch * (1 + precision)))
    return sessions


@dataclass(frozen=True)
class Answer:
    """What one search said of one server, beside the truth at its end."""

    truth: float
    number: int | None
    fails: int | None
    sessions: int
    said: str | None
    stop_reason: str | None

    @property
    def is_within(self) -> bool:
        """Whether its number is at most the precision away, or the next whole one."""
        return self.number is not None and abs(self.number - self.truth) <= max(PRECISION * self.truth, 1)

    @property
    def is_false(self) -> bool:
        """Whether a batch that is said to hold does not, or one that is said to fail holds, by more than 5 %."""
        slack = max(PRECISION * self.truth, 1)
        holds = self.number is not None and self.number > self.truth + slack
        return holds or (self.fails is not None and self.fails < self.truth - slack)

    @property
    def cost(self) -> float:
        """Its sessions as a share of those of a grid."""
        return self.sessions / grid_sessions(self.truth)


def answer(kind: str, seed: int) -> Answer:
    """Search one server of a kind."""
    server = SimulatedServer.draw(kind, seed)
    done, _ = search(server)
    bracket = done.bracket
    return Answer(
        truth=server.truth,
        number=bracket.feasible_max,
        fails=bracket.infeasible_min,
        sessions=server.sessions,
        said=done.drift,
        stop_reason=done.stop_reason,
    )
