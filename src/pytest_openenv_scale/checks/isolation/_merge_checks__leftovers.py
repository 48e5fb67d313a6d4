"""What is left of an episode that is over: in the session after it, or after another reset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pytest_openenv_scale.core.check import Transcript

from .alone import Alone
from .trajectory import ABSENT, Fields, after, pattern, quoted

_LEAST_NAME = 8


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that was left over, with the conversations that show it."""

    words: str
    transcripts: tuple[Transcript, ...] = ()


@dataclass
class Leftovers:
    """Collects what new episodes show of the last ones.

    That OpenEnv's own `step_count` is not from 0, or an identity comes again, is sure at once. Any other field has to
    go on exactly where the last episode stopped, after episodes of several lengths, and never to show anything else
    than that or what a lone session sees.
    """

    known: Alone
    sure: list[Leftover] = field(default_factory=list[Leftover])
    _hits: dict[str, dict[int, Leftover]] = field(default_factory=dict[str, dict[int, Leftover]])
    _other: set[str] = field(default_factory=set[str])

    def look(self, fields: Fields, step: int, before: int, who: str, transcripts: tuple[Transcript, ...]) -> None:
        """Look at what a new episode shows after so many steps; the last one stopped after `before`."""
        count = fields.get("state.step_count")
        if self.known.counts_steps and type(count) is int and count != step:
            words = f"{who} {after(step)}: state.step_count is {count}, expected {step}"
            self.sure.append(Leftover(f"{words}; the last episode stopped at {before}", transcripts))
        if step > self.known.steps:
            return
        for found in self.known.unlike(fields, step):
            further = step + before
            left = self.known.expected[further].get(found.path, ABSENT) if further <= self.known.steps else ABSENT
            if found.seen != left or left == ABSENT:
                self._other.add(pattern(found.path))
                continue
            words = f"{who} {after(step)}: {found.path} is {quoted(found.seen)}, expected {quoted(found.expected)}"
            leftover = Leftover(f"{words}; the last episode stopped there, after {before} steps", transcripts)
            self._hits.setdefault(pattern(found.path), {}).setdefault(before, leftover)

    def look_before_reset(self, state: Fields, before: int, who: str, transcripts: tuple[Transcript, ...]) -> None:
        """Look at the state of a session that has not been reset; the last one stopped after so many steps."""
        count = state.get("state.step_count")
        if self.known.counts_steps and type(count) is int and count == before:
            leftover = Leftover(f"{who}: state.step_count is {count}, where the last episode stopped", transcripts)
            self._hits.setdefault("state.step_count before a reset", {}).setdefault(before, leftover)

    def found(self, lengths: set[int]) -> list[Leftover]:
        """Return what was left over, the surest first, where episodes of these lengths went before."""
        enough = min(3, len(lengths))
        going_on = [
            next(iter(hits.values()))
            for path, hits in self._hits.items()
            if len(hits) >= enough and path not in self._other
        ]
        return [*self.sure, *going_on]


def own_name(known: Alone, fields: Fields) -> str | None:
    """Return the `episode_id` a server made for an episode; None where it makes none that tells episodes apart."""
    name = fields.get("state.episode_id")
    names = [play.views[0].get("state.episode_id") for play in known.plays]
    return name if isinstance(name, str) and len(name) >= _LEAST_NAME and len(set(names)) == len(names) else None


def counting_on(known: Alone) -> Iterator[str]:
    """Yield a sentence for each number that every lone session went on counting where an earlier one stopped."""
    for path in known.plays[0].views[0]:
        counted = [_counted([view.get(path) for view in play.views], play.again.get(path)) for play in known.plays]
        if any(one is None for one in counted):
            continue
        each = [one for one in counted if one is not None]
        if len({stride for _, _, stride in each}) != 1:
            continue
        pairs = [
            (last, start)
            for number, (start, _, stride) in enumerate(each)
            for last in [one[1] for one in each[:number]]
            if start - last in (0, stride) and start != each[0][0]
        ]
        if len({start for _, start in pairs}) >= 2:
            (last, start), (later, again) = pairs[0], pairs[-1]
            yield f"{path} goes on counting from session to session: {last} → {start}, {later} → {again}"


def _counted(values: list[Any], again: Any) -> tuple[int, int, int] | None:
    """Return where a count began, where it stopped, and by how much it goes at each step; None where it is none."""
    if not all(type(value) is int for value in values) or len(values) < 3:
        return None
    strides = {later - earlier for earlier, later in pairwise(values)}
    if len(strides) != 1 or strides == {0}:
        return None
    return values[0], again if type(again) is int else values[-1], strides.pop()
