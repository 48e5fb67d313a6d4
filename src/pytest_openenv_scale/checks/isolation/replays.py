"""Playing alone again what was odd among others: is it the seed's doing, chance's, or the others'?"""

from __future__ import annotations

import json
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.engine.warm_up import solo_sessions_needed
from pytest_openenv_scale.results.outcome import CheckOutcome

from .observations import ObservationDifference, path_pattern

T = TypeVar("T")

Deviations = Mapping[str, Set[tuple[int, str, int]]]
"""Where an episode differs from those alone, by the pattern of the field: step, path and a hash of what was seen."""

REPLAY_S = 60.0
"""Seconds after which no further episode is played alone, where there is no deadline."""

_DEADLINE_SHARE = 0.25
"""The share of the time until a deadline that is spent on it at most."""

MAX_CHANCE = 0.0001
"""Chance below which what differs among others, and never alone, is no accident."""

_FEWEST_REPLAYS = 5
"""Episodes that are played again themselves, where there are as many, before it is the others' doing."""

_MOST_PLAYS = 20_000
"""More plays than there is time for."""

_RULE_OF_THREE = 3

_UNANSWERED_IN_A_ROW = 2


def group_deviations(differences: Sequence[ObservationDifference]) -> dict[str, set[tuple[int, str, int]]]:
    """Return differences by the pattern of their field."""
    groups: dict[str, set[tuple[int, str, int]]] = {}
    for difference in differences:
        text = json.dumps(difference.actual, sort_keys=True, default=str)
        groups.setdefault(path_pattern(difference.path), set()).add((difference.step, difference.path, hash(text)))
    return groups


@dataclass
class Suspect(Generic[T]):
    """An episode among others that differed from those alone in some fields.

    `episode` is what it takes to play it again, `deviations` is where it differed, `alone` is where it does when
    it is played alone, None before it was.
    """

    episode: T
    deviations: dict[str, set[tuple[int, str, int]]]
    alone: Deviations | None = None


@dataclass(frozen=True, slots=True)
class ReplayVerdict(Generic[T]):
    """What plays alone say of suspects.

    `outcome` is met where they explain all that were played, missed where it is the others' doing, else inconclusive.
    `left` are the suspects that are not explained, `repeated` counts those that showed the same alone, in
    `repeated_fields`; `random` are fields in which the same episode alone came out in two ways. `plays` counts the
    plays; `needed` is how many rule out chance, None: more than there is ever time for; `answered` whether the server
    answered them.
    """

    outcome: CheckOutcome
    left: Sequence[Suspect[T]]
    plays: int = 0
    repeated: int = 0
    repeated_fields: frozenset[str] = frozenset()
    random: frozenset[str] = frozenset()
    needed: int | None = None
    answered: bool = True

    @property
    def plays_text(self) -> str:
        """Return what the plays were, and whether they are enough."""
        plays = f"{self.plays:,} more {'session' if self.plays == 1 else 'sessions'}"
        if self.outcome is CheckOutcome.MISSED:
            return f"{plays} on their own never saw it"
        if not self.answered:
            return f"{plays} alone are too few to say that it comes from the others"
        needed = f"more than {_MOST_PLAYS:,}" if self.needed is None else f"{self.needed:,}"
        return f"{plays} on their own did not see it; chance is ruled out by {needed}, for which there was no time"

    @property
    def fields(self) -> frozenset[str]:
        """The patterns of the fields that are left."""
        return frozenset(pattern for suspect in self.left for pattern in suspect.deviations)


class _Replays(Generic[T]):
    """Suspects while they are played again: those `waiting` for their first play, and those whose play differed.

    Those that showed the same alone are `repeating`: by their seed's doing, or by chance. Where others did not, they
    are played on, since what shows in a share of plays alone is in all `repetitions` with that share to their power.
    """

    def __init__(self, suspects: Sequence[Suspect[T]], among: int, alone: int) -> None:
        # The first is the one whose messages were kept; of all others those that are played speak for the rest.
        self.waiting = deque([*suspects[:1], *random.sample(suspects[1:], len(suspects) - 1)])
        self.unexplained = deque[Suspect[T]]()
        self.repeating = deque[Suspect[T]]()
        self.repeated = self.plays = self.repetitions = 0
        self._is_repetition = False
        self.repeated_fields: set[str] = set()
        self.random: set[str] = set()
        self._among, self._alone = among, alone

    def next(self) -> Suspect[T]:
        """Return the suspect to be played now."""
        self._is_repetition = not self.waiting and self.repetitions < self._repetitions_needed
        if self._is_repetition:
            return self.repeating[0]
        return self.waiting[0] if self.waiting else self.unexplained[0]

    def note(self, suspect: Suspect[T], shown: Deviations) -> None:
        """Count a play of the next suspect, and drop what it explains."""
        if self._is_repetition:
            self.repetitions += 1
            self.repeating.rotate(-1)
            self._note_random(suspect.alone or {}, shown)
            return
        self.plays += 1
        source = self.waiting if self.waiting else self.unexplained
        same = {name for name, seen in suspect.deviations.items() if shown.get(name) == seen}
        self.repeated_fields |= same
        earlier, suspect.alone = suspect.alone, shown
        suspect.deviations = {name: seen for name, seen in suspect.deviations.items() if name not in same}
        if earlier is None:
            self.repeated += not suspect.deviations
            if same:
                self.repeating.append(suspect)
            if suspect.deviations and shown.keys() - same:
                # It shows alone what it did not among others: the next play tells whether that is the seed's doing.
                return
        self.unexplained.append(source.popleft())
        self._note_random(shown if earlier is None else earlier, shown)

    def _note_random(self, earlier: Deviations, shown: Deviations) -> None:
        """Note the fields in which two plays of one suspect differ, and drop what is explained."""
        self.random |= {name for name in {*shown, *earlier} if shown.get(name) != earlier.get(name)}
        for suspects in (self.waiting, self.unexplained):
            for suspect in suspects:
                for name in self.random & suspect.deviations.keys():
                    del suspect.deviations[name]
        self.waiting = deque(suspect for suspect in self.waiting if suspect.deviations)
        self.unexplained = deque(suspect for suspect in self.unexplained if suspect.deviations)

    @property
    def left(self) -> list[Suspect[T]]:
        """The suspects that are not explained."""
        return [*self.unexplained, *self.waiting]

    @property
    def _differing(self) -> int:
        """How many suspects are not explained, those that were played speaking for those that were not."""
        played = len(self.unexplained) + self.repeated
        waiting = len(self.waiting) * len(self.unexplained) // played if played else len(self.waiting)
        return len(self.unexplained) + waiting

    @property
    def needed(self) -> int | None:
        """How many plays rule out chance, None: more than there is ever time for."""
        if not self._differing:
            return None
        needed = solo_sessions_needed(self._differing, self._among, max_chance=MAX_CHANCE, at_most=_MOST_PLAYS)
        return needed - self._alone if needed <= _MOST_PLAYS else None

    @property
    def _repetitions_needed(self) -> int:
        """How many plays of what repeats rule out that it, too, came by chance."""
        if not self.repeating:
            return 0
        share = len(self.repeating) / (len(self.repeating) + len(self.unexplained))
        return math.ceil(math.log(MAX_CHANCE) / math.log(share)) if share < 1 else 0

    @property
    def decided(self) -> bool:
        """Whether it is the others' doing."""
        enough = len(self.unexplained) >= min(_FEWEST_REPLAYS, len(self.left))
        enough = enough and self.repetitions >= self._repetitions_needed
        return enough and self.needed is not None and self.plays >= self.needed

    def leads_nowhere(self, pace_s: float, left_s: float) -> bool:
        """Whether there is no time for what would decide it, `pace_s` seconds a play, in `left_s` seconds."""
        if not self.plays:
            return False
        if self.waiting or left_s <= 0:
            return left_s <= 0
        if self.needed is not None and (self.needed - self.plays) * pace_s <= left_s:
            return False
        revealing = _RULE_OF_THREE * self._among / self._differing - self.plays
        return revealing <= 0 or revealing * pace_s > left_s

    def verdict(self, outcome: CheckOutcome, *, answered: bool = True) -> ReplayVerdict[T]:
        """Return what the plays say."""
        return ReplayVerdict(
            outcome,
            self.left,
            plays=self.plays,
            repeated=self.repeated,
            repeated_fields=frozenset(self.repeated_fields - self.random),
            random=frozenset(self.random),
            needed=self.needed,
            answered=answered,
        )


def replay_s(subject: Subject) -> float:
    """Return for how many seconds episodes may be played alone again."""
    return min(REPLAY_S, _DEADLINE_SHARE * subject.time_left_s)


async def judge_by_replaying(
    suspects: Sequence[Suspect[T]],
    replay: Callable[[Suspect[T], int], Awaitable[Deviations | None]],
    *,
    among: int,
    alone: int,
    within_s: float,
) -> ReplayVerdict[T]:
    """Play suspects alone until it is clear whether they differ alone too, for `within_s` seconds at most.

    Each suspect is played once with its own seed and actions. Where that shows the same it is explained, and where two
    plays of one suspect differ in a field, that field is random. What is left may still be an event that no seed
    decides, at the rate that was seen: in `differing` of `among` episodes. It would be in none of `plays` alone by
    chance with C(among, differing) / C(among + plays, differing), one side of Fisher's exact test (R. A. Fisher,
    The Design of Experiments, 1935); for many episodes about (1 - rate) ** plays, so that 9.2 / rate plays bring it
    to one in ten thousand. Where there is no time for those, 3 / rate plays show an event of chance alone with a
    probability of 0.95 (the rule of three, Hanley and Lippman-Hand, JAMA 249, 1983), which explains it; more are not
    played.

    `suspects` differ from `alone` episodes alone, which do not differ among each other. `replay` gets a suspect and the
    number of plays so far, and returns where the play differs, None where it was not answered.
    """
    replays, began, unanswered, first_s = _Replays(suspects, among, alone), time.perf_counter(), 0, 0.0
    while replays.left and unanswered < _UNANSWERED_IN_A_ROW:
        if replays.decided:
            return replays.verdict(CheckOutcome.MISSED)
        took_s = time.perf_counter() - began
        if replays.plays <= 1:
            first_s = took_s
        pace_s = (took_s - first_s) / max(1, replays.plays + replays.repetitions - 1)
        if replays.leads_nowhere(pace_s, within_s - took_s):
            return replays.verdict(CheckOutcome.INCONCLUSIVE if replays.unexplained else CheckOutcome.MET)
        suspect = replays.next()
        shown = await replay(suspect, replays.plays)
        unanswered = unanswered + 1 if shown is None else 0
        if shown is not None:
            replays.note(suspect, shown)
    outcome = CheckOutcome.INCONCLUSIVE if replays.left else CheckOutcome.MET
    return replays.verdict(outcome, answered=not replays.left)
