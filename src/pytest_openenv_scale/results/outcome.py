"""The values a verdict is made of; `verdict.py` and `refusals.py` make them, reports print them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from .jsonable import Jsonable
from .plan import Curve
from .slo import Slo


class Outcome(StrEnum):
    """What a measurement says about a limit; `inconclusive` is never a silent pass."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


def overall(outcomes: Iterable[Outcome]) -> Outcome:
    """Combine outcomes: missed if any is missed, met if all are met and there is one, else inconclusive."""
    found = set(outcomes)
    if Outcome.MISSED in found:
        return Outcome.MISSED
    return Outcome.MET if found == {Outcome.MET} else Outcome.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Breach(Jsonable):
    """A limit a repetition of a cell definitely broke; `observed` and `allowed` are in the limit's unit.

    `limit` is a name of `LIMITS`, or "server" for a server that died (no observed and allowed values).
    """

    batch: int
    repetition: int
    limit: str
    phase: str | None
    statistic: str | None
    observed: float | None
    allowed: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Reason(Jsonable):
    """One line of why; `detail` may hold several more, such as the tail of a log.

    `kind` is verdict, limit, client, queue, hold, hosts, no_data, incomplete, server_died, unmeasurable, note or
    fallback.
    """

    kind: str
    text: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class CellVerdict(Jsonable):
    """One batch over all its repetitions; `passed` is None where that cannot be said (see `reasons`)."""

    batch: int
    passed: bool | None
    breaches: tuple[Breach, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal(Jsonable):
    """What refused `count` sessions of the smallest `batch` where it did, and the setting to change.

    `cause` is one word for programs: capacity, one_session, limit_concurrency, descriptors, worker_killed,
    server_died, host_lost, proxy, platform_connections, platform_rate, platform_stage, http_unreachable, http_NNN,
    redirect, not_listening, environment or unnamed.
    """

    cause: str
    count: int
    batch: int
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CurveVerdict(Jsonable):
    """The verdict on a curve; `reasons[0]` is its headline.

    `max_batch` is the largest batch that passes in every repetition, all smaller ones of the curve passing
    too; `feasible_max` is the same number, `infeasible_min` the smallest batch that definitely failed.
    """

    curve: Curve
    outcome: Outcome
    max_batch: int | None
    max_batch_per_core: float | None
    cells: tuple[CellVerdict, ...]
    first_breach: Breach | None
    feasible_max: int | None
    infeasible_min: int | None
    refused: tuple[Refusal, ...]
    reasons: tuple[Reason, ...]
    stop_reason: str | None
    slo: Slo
    repetitions: int

    @property
    def headline(self) -> str:
        """One line: "SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions"."""
        return self.reasons[0].text

    def cell(self, batch: int) -> CellVerdict | None:
        """Return the verdict on one batch, or None where it was not measured."""
        return next((cell for cell in self.cells if cell.batch == batch), None)
