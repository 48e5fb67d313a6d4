"""What sessions see that have the server to themselves, and what is left of an episode that is over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.results.outcome import Transcript

from .observations import (
    ABSENT,
    Fields,
    Identities,
    Identity,
    ObservationDifference,
    StepView,
    after,
    differences,
    episode,
    fields_of,
    open_alone,
    pattern,
    quoted,
    token_fields,
    volatile,
)

_STEPS, _PLAYS = 6, 3
_SLOW_STEP_S, _SLOW_STEPS = 0.5, 3
_PAUSE_S = 1.1
"""Longer than the second that a clock may count in."""
_WAIT_S = 0.05
_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{12,}", re.IGNORECASE)
_OWN = "<its own "


@dataclass(frozen=True)
class Play:
    """One episode alone: what was seen after the reset and after each step, and once more after a second reset.

    `foreign` are the fields in which it saw what an earlier session had said of itself.
    """

    views: tuple[Fields, ...]
    again: Fields
    foreign: tuple[str, ...]
    transcript: Transcript


@dataclass(frozen=True)
class SingleReference:
    """What several lone episodes had in common, each with its own seed, `episode_id`, token, wait and pause.

    `expected` is what a session sees after the reset and after each step; `tells` are the fields of it by which one
    session can be known from another: they change from step to step, or hold what only this session said. `ids` are
    names that the server gave each session. `steps` is how far all of them came.
    """

    identities: Identities
    plays: tuple[Play, ...]
    expected: tuple[Fields, ...]
    tells: frozenset[str]
    ids: frozenset[str]
    has_state: bool
    counts_steps: bool
    seeded: bool
    texts: tuple[str, ...]
    wait_s: float | None

    @property
    def steps(self) -> int:
        """How many steps are known."""
        return len(self.expected) - 1

    @property
    def begins_anew(self) -> bool:
        """Whether a second reset in a session shows what the first one did."""
        return not any(self.unlike(play.again, 0) for play in self.plays)

    def repeats(self, path: str) -> bool:
        """Say whether a field holds what the session said of itself."""
        return any(isinstance(view.get(path), str) and _OWN in view[path] for view in self.expected)

    @property
    def signals(self) -> tuple[str, ...]:
        """Name what one session can be known from another by."""
        own = {
            path: value[len(_OWN) : -1]
            for view in self.expected
            for path, value in view.items()
            if isinstance(value, str) and value.startswith(_OWN) and value.endswith(">")
        }
        named = [path if path.endswith(f".{kind}") else f"{kind} in {path}" for path, kind in own.items()]
        seen = {pattern(path) for play in self.plays for path in play.foreign}
        return tuple(sorted({*named, *(self.tells - own.keys()), *self.ids, *seen}))

    def action(self, subject: Subject, me: Identity, step: int, *, more_s: float = 0.0) -> Mapping[str, Any]:
        """Return the action of a step, counted from 0, with this session's token in it."""
        wait = None if self.wait_s is None else self.wait_s + more_s
        return {**subject.action(0, step, wait_s=wait), **dict.fromkeys(self.texts, me.token)}

    def reset_data(self, subject: Subject, me: Identity) -> Mapping[str, Any]:
        """Return the reset data of an episode with this identity."""
        data = {**subject.reset_data(me.seed), "episode_id": me.episode_id}
        return {**data, "seed": me.seed} if self.seeded else data

    def read(self, look: StepView, me: Identity, foreign: set[int]) -> Fields:
        """Return the fields of a look, what is its own named as such; whose others it shows is added to `foreign`."""
        return read_fields(self.identities, look, me, foreign)

    def unlike(self, fields: Fields, step: int) -> list[ObservationDifference]:
        """Return where a session sees what none saw alone after so many steps, and what no clock explains.

        Fractions may be times: they count only where they are what another step shows.
        """
        if step > self.steps:
            return []
        found: list[ObservationDifference] = []
        for difference in differences(self.expected[step], fields, step):
            if pattern(difference.path) not in self.tells:
                continue
            others = [view.get(difference.path, ABSENT) for view in self.expected]
            if _fractions(difference.seen) and difference.seen not in others:
                continue
            if _without_fractions(difference.expected) == _without_fractions(difference.seen) and isinstance(
                difference.seen, str
            ):
                continue
            found.append(difference)
        return found


def read_fields(identities: Identities, look: StepView, me: Identity, foreign: set[int]) -> Fields:
    """Return the fields of a look; what identities it holds is named, or added to `foreign`."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return identities.read_text(value, me, foreign)
        return identities.read_number(value, me, foreign)

    return fields_of(look.answer, look.state, read)


async def learn_reference(subject: Subject) -> SingleReference | None:
    """Play lone episodes; ask with `subject.learn(alone)`. None where a reset or a first step was not answered."""
    before = await subject.ask_once(single_session)
    action: Any = (subject.schema or {}).get("action")
    identities = Identities()
    length = len(identities.new().token)
    texts = token_fields(
        cast("dict[str, Any]", action) if isinstance(action, dict) else None,
        subject.workload.source == "/schema",
        length,
    )
    wait = None if subject.wait_s is None else min(subject.wait_s, _WAIT_S)
    # What the server does not take is left out: first the token, then the seed.
    for seeded, fields in dict.fromkeys([(True, texts), (True, ()), (False, texts), (False, ())]):
        known = SingleReference(
            identities, (), (), frozenset(), frozenset(), before.has_state, before.counts_steps, seeded, fields, wait
        )
        played, silent = await play_alone(subject, known, _PLAYS)
        if silent:
            # Each further question would wait as long again.
            return None
        if len(played) == _PLAYS and all(len(play.views) > 1 for play in played):
            return _learned(known, played)
    return None


async def play_alone(
    subject: Subject, known: SingleReference, count: int, *, pause_s: float = 0.0
) -> tuple[list[Play], bool]:
    """Play so many episodes, one after the other, every other one slower than it needs to be.

    With a pause in seconds, each step of each episode waits for it. Return those that were answered, and whether the
    server fell silent, after which it is asked nothing more.
    """
    before = await subject.ask_once(single_session)
    steps = _STEPS if before.step_s < _SLOW_STEP_S else _SLOW_STEPS
    steps = min(steps, known.steps) if known.expected else steps
    found: list[Play] = []
    async with subject.client(subject.timeout_s) as client:
        for number in range(count):
            me, more = known.identities.new(), 0.03 * (number % 2)
            session = await open_alone(client, subject, known.reset_data(subject, me))
            if session.first_answer.kind != "observation":
                return found, session.timed_out
            pause, at = (pause_s, None) if pause_s else (_PAUSE_S * (number == 1), min(2, steps))
            play = await _play(subject, known, session, me, steps, more, pause, at)
            if session.timed_out:
                return found, True
            found.append(play)
            await session.close()
    return found, False


async def _play(
    subject: Subject,
    known: SingleReference,
    session: RawSession,
    me: Identity,
    steps: int,
    more_s: float,
    pause_s: float,
    pause_at: int | None,
) -> Play:
    looks = episode(
        session,
        session.first_answer,
        lambda step: known.action(subject, me, step, more_s=more_s),
        steps,
        ask_state=known.has_state,
        pause_s=pause_s,
        pause_at=pause_at,
    )
    others: set[int] = set()
    views = [known.read(look, me, others) async for look in looks]
    foreign = {
        path
        for view in views
        for path, value in view.items()
        for number in others
        if known.identities.holds(value, number)
    }
    me = known.identities.new()
    again = Answer("silence") if session.timed_out else await session.reset(known.reset_data(subject, me))
    state = await session.state() if known.has_state and again.kind == "observation" else None
    fields: Fields = known.read(StepView(0, again, state), me, set()) if again.kind == "observation" else {}
    return Play(tuple(views), fields, tuple(sorted(foreign)), session.transcript("a session on its own"))


def _learned(known: SingleReference, played: Sequence[Play]) -> SingleReference:
    views = [play.views for play in played]
    unsteady = volatile(views)
    far = min(map(len, views))
    expected = tuple(
        {path: value for path, value in view.items() if pattern(path) not in unsteady} for view in views[0][:far]
    )
    return SingleReference(
        known.identities,
        tuple(played),
        expected,
        frozenset(_telling(expected)),
        frozenset(_ids(played, unsteady)),
        known.has_state,
        known.counts_steps,
        known.seeded,
        known.texts,
        known.wait_s,
    )


def _telling(expected: Sequence[Fields]) -> Iterable[str]:
    """Yield the patterns of fields that change with each step of an episode, or hold what only this session said."""
    steps = expected[1:] if len(expected) > 2 else expected
    for path in {path for view in expected for path in view}:
        values = [view.get(path, ABSENT) for view in steps]
        if any(one != other for one, other in pairwise(values)) or any(
            isinstance(view.get(path), str) and _OWN in view[path] for view in expected
        ):
            yield pattern(path)


def _ids(played: Sequence[Play], unsteady: frozenset[str]) -> Iterable[str]:
    """Yield the fields that name a session: the same in both its episodes, another in each session."""
    for path in {path for path in played[0].again if pattern(path) in unsteady}:
        each = [{view.get(path, ABSENT) for view in (*play.views, play.again)} for play in played if _flat(path, play)]
        values = [next(iter(seen)) for seen in each if len(seen) == 1]
        if len(values) == len(played) == len(set(values)) and all(
            isinstance(value, str) and _ID.fullmatch(value) for value in values
        ):
            yield path


def _flat(path: str, play: Play) -> bool:
    return all(isinstance(view.get(path, ABSENT), str) for view in (*play.views, play.again))


def _fractions(value: Any) -> bool:
    if isinstance(value, list):
        return any(_fractions(item) for item in cast("list[Any]", value))
    return isinstance(value, float)


def _without_fractions(value: Any) -> Any:
    return re.sub(r"\d+\.\d+", "#", value) if isinstance(value, str) else value


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

    known: SingleReference
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


def own_name(known: SingleReference, fields: Fields) -> str | None:
    """Return the `episode_id` a server made for an episode; None where it makes none that tells episodes apart."""
    name = fields.get("state.episode_id")
    names = [play.views[0].get("state.episode_id") for play in known.plays]
    return name if isinstance(name, str) and len(name) >= _LEAST_NAME and len(set(names)) == len(names) else None


def counting_on(known: SingleReference) -> Iterator[str]:
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
