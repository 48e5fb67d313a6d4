"""A comparison with a baseline as values: `analysis/compare.py` makes them, runs store them, reports show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from pytest_openenv_scale.core.serialization import Jsonable, UtcTime

from .outcome import Reason


class Judgement(StrEnum):
    """What a comparison says: `held` is no regression; `shown` is without `--fail-on`, where nothing is judged."""

    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    HELD = "held"
    SHOWN = "shown"


class Status(StrEnum):
    """What became of one figure.

    `regressed` is beyond `--fail-on` and outside the baseline's range; `worse` and `improved` are outside the
    range and at least 5 % away (or in a batch that one side held and the other not), and fail nothing.
    """

    REGRESSED = "regressed"
    WORSE = "worse"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    INCONCLUSIVE = "inconclusive"


State = Literal["compared", "missing", "new", "different"]


@dataclass(frozen=True, slots=True)
class ComparedFigure(Jsonable):
    """A figure over the repetitions of one side, in the unit of its metric; None where nothing was measured.

    `value` is the median of the repetitions, of `max_batch` what passes in all of them. `low` and `high` are
    their range. `count` is the fewest values behind a percentile. `known` is that of a max batch: exact, open
    (the largest batch asked for passes) or inconclusive.
    """

    value: float | None
    low: float | None
    high: float | None
    repetitions: int
    count: int | None = None
    known: str = "exact"

    @property
    def range_width(self) -> float | None:
        """The range over repetitions; None where one repetition leaves it unknown."""
        return self.high - self.low if self.repetitions > 1 and self.high is not None and self.low is not None else None


@dataclass(frozen=True, slots=True)
class ChangeReason(Jsonable):
    """Why a change has its status, as values.

    | `cause` | what it tells |
    | --- | --- |
    | moved | how far the figure moved is all there is to say |
    | beyond | it is beyond `fail_on`, and outside the baseline's range or judged without one |
    | within_range | it is beyond `fail_on`, but within the baseline's range |
    | within_limit | it is lower, and within `fail_on` |
    | within_bracket | what passes now is less and what fails is more: a search that is no closer than that |
    | same, all_pass | the same max batch; everything that the baseline was asked for passes |
    | none_succeeded | no session did now |
    | no_figure, not_measured, not_judged, doubtful | the `side` lacks the figure, or the batch, or is in doubt |
    | more_repetitions | some of the repetitions hold it now, of which there are more than the baseline had |
    | not_held | sessions of the batch failed now beyond what is allowed, and those that are left are faster |
    | max_batch_doubtful | the max batch of the `side` is inconclusive |
    | grids_differ, not_asked, none_asked | batches (`batches`, all) that the baseline held were not asked for now |
    | none_held | the baseline held no batch |
    | no_cores | the server's cores are not known |
    | stored | `words` are all that version 0.1 told |

    `doubt` is what is to be said of the cell that the `side` cannot be relied on for.
    """

    cause: str
    side: Literal["baseline", "now"] | None = None
    batches: tuple[int, ...] = ()
    doubt: Reason | None = None
    words: str | None = None

    @classmethod
    def parse(cls, text: str, status: Status) -> ChangeReason:
        """Read a sentence of version 0.1, which kept nothing else."""
        if status is Status.UNCHANGED and text.startswith("beyond "):
            return cls("within_range")
        if status is Status.REGRESSED and ", beyond " in text:
            return cls("beyond")
        moved = status in (Status.WORSE, Status.IMPROVED) and text != "no session succeeded"
        return cls("moved") if moved else cls("stored", words=text)


@dataclass(frozen=True, slots=True)
class Change(Jsonable):
    """One metric of one curve, at one batch (None: of the curve as a whole), then and now.

    `reason` is a sentence in runs of version 0.1 only: ask for `why`. `fail_on` is the expression it is judged by and
    `allowed` the worst value that lets pass. `effect` is Cliff's delta of the sessions' latencies, now against the
    baseline: +1 where every one is slower.
    """

    metric: str
    batch: int | None
    baseline: ComparedFigure
    now: ComparedFigure
    status: Status
    reason: ChangeReason | str
    fail_on: str | None = None
    allowed: float | None = None
    effect: float | None = None

    @property
    def why(self) -> ChangeReason:
        """Why it has its status."""
        return ChangeReason.parse(self.reason, self.status) if isinstance(self.reason, str) else self.reason

    @property
    def within_range(self) -> bool:
        """Whether it is beyond `fail_on` and counts as unchanged, being within the baseline's range."""
        return self.why.cause == "within_range"

    @property
    def ratio(self) -> float | None:
        """Now ÷ baseline; None where there is no such number."""
        then, now = self.baseline.value, self.now.value
        return now / then if then and now is not None and then > 0 else None

    @property
    def change_in_ranges(self) -> float | None:
        """How many times the baseline's range over repetitions the change is; None where that is not known."""
        then, now, width = self.baseline.value, self.now.value, self.baseline.range_width
        return abs(now - then) / width if width and then is not None and now is not None else None


@dataclass(frozen=True, slots=True)
class CurveComparison(Jsonable):
    """One curve: `compared`, `missing` from the newer run, `new` in it, or `different` in what it measures.

    `renamed` is the test this one may be called on the other side.
    """

    test: str
    infrastructure: str
    mode: str
    wait: float | None
    state: State
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()
    renamed: str | None = None

    def changes_with(self, *statuses: Status) -> tuple[Change, ...]:
        """Return the changes of these statuses."""
        return tuple(change for change in self.changes if change.status in statuses)

    @property
    def undecided_changes(self) -> tuple[Change, ...]:
        """The changes that `--fail-on` asks to be judged and that are inconclusive."""
        return tuple(change for change in self.changes_with(Status.INCONCLUSIVE) if change.fail_on is not None)


@dataclass(frozen=True, slots=True)
class Side(Jsonable):
    """One of the two runs: enough to find it again."""

    run_id: str
    status: str
    started_at: UtcTime
    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True, slots=True)
class SettingDifference(Jsonable):
    """Something about the machines that differs and may matter."""

    name: str
    baseline: str
    now: str


@dataclass(frozen=True, slots=True)
class Comparison(Jsonable):
    """Two runs, or what one test measured and the same of a baseline.

    Curves of the state new leave it inconclusive only where `new_is_in_doubt`. `others` are tests of the baseline that
    were not selected for the newer run.
    """

    baseline: Side
    now: Side
    fail_on: tuple[str, ...]
    curves: tuple[CurveComparison, ...]
    differences: tuple[SettingDifference, ...] = ()
    remarks: tuple[str, ...] = ()
    reference: str | None = None
    allow_missing: bool = False
    new_is_in_doubt: bool = False
    others: tuple[str, ...] = ()

    def curves_in_state(self, state: State) -> tuple[CurveComparison, ...]:
        """Return the curves of one state."""
        return tuple(curve for curve in self.curves if curve.state == state)

    @property
    def outcome(self) -> Judgement:
        """Regressed if any curve is; inconclusive if a curve is missing, different or in doubt, or none is common."""
        compared = self.curves_in_state("compared")
        if any(curve.changes_with(Status.REGRESSED) for curve in compared):
            return Judgement.REGRESSED
        incomplete = (
            not compared
            or self.curves_in_state("different")
            or (self.curves_in_state("missing") and not self.allow_missing)
        )
        incomplete = incomplete or (self.curves_in_state("new") and self.new_is_in_doubt)
        if incomplete or any(curve.undecided_changes for curve in compared):
            return Judgement.INCONCLUSIVE
        return Judgement.HELD if self.fail_on else Judgement.SHOWN


def join_comparisons(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return one comparison per baseline, with the curves of all sweeps that were compared with it."""
    joined: dict[str, Comparison] = {}
    for comparison in comparisons:
        earlier = joined.get(comparison.baseline.run_id)
        joined[comparison.baseline.run_id] = (
            replace(comparison, curves=(*earlier.curves, *comparison.curves)) if earlier else comparison
        )
    return tuple(joined.values())
