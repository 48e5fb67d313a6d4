"""What sessions are shown that have the server to themselves, and what is left over from an earlier episode."""

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
    after_step,
    field_differences,
    flatten_answer,
    json_excerpt,
    open_alone,
    path_pattern,
    play_episode,
    token_fields,
    volatile_patterns,
)

_STEPS, _PLAYS = 6, 3
_SLOW_STEP_S, _SLOW_STEPS = 0.5, 3
_PAUSE_S = 1.1
"""Longer than 1 s, so that a clock that counts in seconds shows."""
_WAIT_S = 0.05
_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{12,}", re.IGNORECASE)
_OWN_PREFIX = "<its own "


@dataclass(frozen=True)
class Play:
    """One episode alone: the fields after the reset and after each step, and once more after a second reset.

    `foreign_fields` are those that showed the identity of an earlier session.
    """

    views: tuple[Fields, ...]
    after_second_reset: Fields
    foreign_fields: tuple[str, ...]
    transcript: Transcript


@dataclass(frozen=True)
class SingleReference:
    """What several lone episodes had in common, each with its own seed, `episode_id`, token, wait and pause.

    `expected` is what a session is shown after the reset and after each step; `distinguishing` are its fields by which
    one session can be told from another: they change from step to step, or hold its identity. `session_ids` are fields
    in which the server names each session. `texts` are the action fields that take the token. `steps` is how far all
    of them came.
    """

    identities: Identities
    plays: tuple[Play, ...]
    expected: tuple[Fields, ...]
    distinguishing: frozenset[str]
    session_ids: frozenset[str]
    has_state: bool
    counts_steps: bool
    seeded: bool
    texts: tuple[str, ...]
    wait_s: float | None

    @property
    def steps(self) -> int:
        """How many steps of an episode have expected fields."""
        return len(self.expected) - 1

    @property
    def resets_cleanly(self) -> bool:
        """Whether a second reset in a session shows the same as the first."""
        return not any(self.deviations(play.after_second_reset, 0) for play in self.plays)

    def echoes(self, path: str) -> bool:
        """Whether a field repeats the identity that the session has sent."""
        return any(isinstance(view.get(path), str) and _OWN_PREFIX in view[path] for view in self.expected)

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of the fields by which one session can be told from another."""
        identity_kinds = {
            path: value[len(_OWN_PREFIX) : -1]
            for view in self.expected
            for path, value in view.items()
            if isinstance(value, str) and value.startswith(_OWN_PREFIX) and value.endswith(">")
        }
        named = [path if path.endswith(f".{kind}") else f"{kind} in {path}" for path, kind in identity_kinds.items()]
        foreign_patterns = {path_pattern(path) for play in self.plays for path in play.foreign_fields}
        return tuple(
            sorted({*named, *(self.distinguishing - identity_kinds.keys()), *self.session_ids, *foreign_patterns})
        )

    def action(
        self, subject: Subject, identity: Identity, step: int, *, extra_wait_s: float = 0.0
    ) -> Mapping[str, Any]:
        """Return the action of a step, counted from 0, with this session's token in it."""
        wait = None if self.wait_s is None else self.wait_s + extra_wait_s
        return {**subject.action(0, step, wait_s=wait), **dict.fromkeys(self.texts, identity.token)}

    def reset_data(self, subject: Subject, identity: Identity) -> Mapping[str, Any]:
        """Return the reset data of an episode with this identity."""
        data = {**subject.reset_data(identity.seed), "episode_id": identity.episode_id}
        return {**data, "seed": identity.seed} if self.seeded else data

    def read_view(self, step_view: StepView, identity: Identity, foreign: set[int]) -> Fields:
        """Return the fields of a view with identities labelled; see `read_fields`."""
        return read_fields(self.identities, step_view, identity, foreign)

    def deviations(self, fields: Fields, step: int) -> list[ObservationDifference]:
        """Return where a session is shown what no session alone was after as many steps, and no clock explains it.

        Fractions may be times: they count only where another step shows the same.
        """
        if step > self.steps:
            return []
        deviations: list[ObservationDifference] = []
        for difference in field_differences(self.expected[step], fields, step):
            if path_pattern(difference.path) not in self.distinguishing:
                continue
            others = [view.get(difference.path, ABSENT) for view in self.expected]
            if _has_fractions(difference.actual) and difference.actual not in others:
                continue
            if _without_fractions(difference.expected) == _without_fractions(difference.actual) and isinstance(
                difference.actual, str
            ):
                continue
            deviations.append(difference)
        return deviations


def read_fields(identities: Identities, step_view: StepView, identity: Identity, foreign: set[int]) -> Fields:
    """Return the fields of a view: its own identity is replaced by a label, the numbers of others go into `foreign`."""

    def label(value: Any) -> Any:
        if isinstance(value, str):
            return identities.label_text(value, identity, foreign)
        return identities.label_number(value, identity, foreign)

    return flatten_answer(step_view.answer, step_view.state, label)


async def learn_reference(subject: Subject) -> SingleReference | None:
    """Play episodes alone and return what they have in common; None where a reset or a first step was not answered.

    Call it as `subject.learn(learn_reference)`.
    """
    single = await subject.learn(single_session)
    action: Any = (subject.schema or {}).get("action")
    identities = Identities()
    length = len(identities.new().token)
    texts = token_fields(
        cast("dict[str, Any]", action) if isinstance(action, dict) else None,
        subject.workload.source == "/schema",
        length,
    )
    wait = None if subject.wait_s is None else min(subject.wait_s, _WAIT_S)
    # What the server rejects is left out: first the token, then the seed.
    for seeded, fields in dict.fromkeys([(True, texts), (True, ()), (False, texts), (False, ())]):
        candidate = SingleReference(
            identities, (), (), frozenset(), frozenset(), single.has_state, single.counts_steps, seeded, fields, wait
        )
        plays, timed_out = await play_alone(subject, candidate, _PLAYS)
        if timed_out:
            # Each further question would wait as long again.
            return None
        if len(plays) == _PLAYS and all(len(play.views) > 1 for play in plays):
            return _reference_from_plays(candidate, plays)
    return None


async def play_alone(
    subject: Subject, reference: SingleReference, count: int, *, pause_s: float = 0.0
) -> tuple[list[Play], bool]:
    """Play `count` episodes one after another, every other one with slower steps.

    Every step waits `pause_s` seconds before it, where that is not 0. Return the episodes that were answered, and
    whether an answer timed out, after which no more is asked.
    """
    single = await subject.learn(single_session)
    steps = _STEPS if single.step_s < _SLOW_STEP_S else _SLOW_STEPS
    steps = min(steps, reference.steps) if reference.expected else steps
    plays: list[Play] = []
    async with subject.client(subject.timeout_s) as client:
        for number in range(count):
            identity, extra_wait_s = reference.identities.new(), 0.03 * (number % 2)
            session = await open_alone(client, subject, reference.reset_data(subject, identity))
            if session.first_answer.kind != "observation":
                return plays, session.timed_out
            pause, pause_at = (pause_s, None) if pause_s else (_PAUSE_S * (number == 1), min(2, steps))
            play = await _play_once(subject, reference, session, identity, steps, extra_wait_s, pause, pause_at)
            if session.timed_out:
                return plays, True
            plays.append(play)
            await session.close()
    return plays, False


async def _play_once(
    subject: Subject,
    reference: SingleReference,
    session: RawSession,
    identity: Identity,
    steps: int,
    extra_wait_s: float,
    pause_s: float,
    pause_at: int | None,
) -> Play:
    step_views = play_episode(
        session,
        session.first_answer,
        lambda step: reference.action(subject, identity, step, extra_wait_s=extra_wait_s),
        steps,
        ask_state=reference.has_state,
        pause_s=pause_s,
        pause_at=pause_at,
    )
    others: set[int] = set()
    views = [reference.read_view(step_view, identity, others) async for step_view in step_views]
    foreign = {
        path
        for view in views
        for path, value in view.items()
        for number in others
        if reference.identities.appears_in(value, number)
    }
    identity = reference.identities.new()
    again = Answer("silence") if session.timed_out else await session.reset(reference.reset_data(subject, identity))
    state = await session.state() if reference.has_state and again.kind == "observation" else None
    fields: Fields = (
        reference.read_view(StepView(0, again, state), identity, set()) if again.kind == "observation" else {}
    )
    return Play(tuple(views), fields, tuple(sorted(foreign)), session.transcript("a session on its own"))


def _reference_from_plays(candidate: SingleReference, plays: Sequence[Play]) -> SingleReference:
    views = [play.views for play in plays]
    unsteady = volatile_patterns(views)
    length = min(map(len, views))
    expected = tuple(
        {path: value for path, value in view.items() if path_pattern(path) not in unsteady}
        for view in views[0][:length]
    )
    return SingleReference(
        candidate.identities,
        tuple(plays),
        expected,
        frozenset(_distinguishing_patterns(expected)),
        frozenset(_session_id_fields(plays, unsteady)),
        candidate.has_state,
        candidate.counts_steps,
        candidate.seeded,
        candidate.texts,
        candidate.wait_s,
    )


def _distinguishing_patterns(expected: Sequence[Fields]) -> Iterable[str]:
    """Yield the patterns of fields that change from step to step of an episode, or hold the session's identity."""
    steps = expected[1:] if len(expected) > 2 else expected
    for path in {path for view in expected for path in view}:
        values = [view.get(path, ABSENT) for view in steps]
        if any(earlier != later for earlier, later in pairwise(values)) or any(
            isinstance(view.get(path), str) and _OWN_PREFIX in view[path] for view in expected
        ):
            yield path_pattern(path)


def _session_id_fields(plays: Sequence[Play], unsteady: frozenset[str]) -> Iterable[str]:
    """Yield the fields that name a session: the same in both its episodes, another in each session."""
    for path in {path for path in plays[0].after_second_reset if path_pattern(path) in unsteady}:
        values_by_play = [
            {view.get(path, ABSENT) for view in (*play.views, play.after_second_reset)}
            for play in plays
            if _always_text(path, play)
        ]
        values = [next(iter(distinct)) for distinct in values_by_play if len(distinct) == 1]
        if len(values) == len(plays) == len(set(values)) and all(
            isinstance(value, str) and _ID.fullmatch(value) for value in values
        ):
            yield path


def _always_text(path: str, play: Play) -> bool:
    return all(isinstance(view.get(path, ABSENT), str) for view in (*play.views, play.after_second_reset))


def _has_fractions(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_fractions(item) for item in cast("list[Any]", value))
    return isinstance(value, float)


def _without_fractions(value: Any) -> Any:
    return re.sub(r"\d+\.\d+", "#", value) if isinstance(value, str) else value


_FEWEST_ID_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something left over from an earlier episode, in words, with the transcripts that show it."""

    description: str
    transcripts: tuple[Transcript, ...] = ()


@dataclass
class Leftovers:
    """Collects what new episodes show of earlier ones.

    That OpenEnv's own `step_count` does not start from 0, or that an earlier identity appears, is `certain` at once.
    Any other field counts only if it goes on exactly where the last episode stopped, after episodes of several lengths,
    and never shows anything but that or what a lone session is shown.
    """

    reference: SingleReference
    certain: list[Leftover] = field(default_factory=list[Leftover])
    _continuations: dict[str, dict[int, Leftover]] = field(default_factory=dict[str, dict[int, Leftover]])
    _ruled_out: set[str] = field(default_factory=set[str])

    def inspect(
        self, fields: Fields, step: int, before: int, observer: str, transcripts: tuple[Transcript, ...]
    ) -> None:
        """Inspect the fields of a new episode after `step` steps; the last episode stopped after `before` steps."""
        count = fields.get("state.step_count")
        if self.reference.counts_steps and type(count) is int and count != step:
            description = f"{observer} {after_step(step)}: state.step_count is {count}, expected {step}"
            self.certain.append(Leftover(f"{description}; the last episode stopped at {before}", transcripts))
        if step > self.reference.steps:
            return
        for deviation in self.reference.deviations(fields, step):
            position = step + before
            continued = (
                self.reference.expected[position].get(deviation.path, ABSENT)
                if position <= self.reference.steps
                else ABSENT
            )
            if deviation.actual != continued or continued == ABSENT:
                self._ruled_out.add(path_pattern(deviation.path))
                continue
            actual, expected = json_excerpt(deviation.actual), json_excerpt(deviation.expected)
            description = f"{observer} {after_step(step)}: {deviation.path} is {actual}, expected {expected}"
            leftover = Leftover(f"{description}; the last episode stopped there, after {before} steps", transcripts)
            self._continuations.setdefault(path_pattern(deviation.path), {}).setdefault(before, leftover)

    def inspect_before_reset(
        self, state: Fields, before: int, observer: str, transcripts: tuple[Transcript, ...]
    ) -> None:
        """Inspect the state of a session not yet reset; the last episode stopped after `before` steps."""
        count = state.get("state.step_count")
        if self.reference.counts_steps and type(count) is int and count == before:
            leftover = Leftover(f"{observer}: state.step_count is {count}, where the last episode stopped", transcripts)
            self._continuations.setdefault("state.step_count before a reset", {}).setdefault(before, leftover)

    def confirmed(self, lengths: set[int]) -> list[Leftover]:
        """Return what was left over, the certain first, given the lengths of the episodes before."""
        enough = min(3, len(lengths))
        continued = [
            next(iter(hits.values()))
            for path, hits in self._continuations.items()
            if len(hits) >= enough and path not in self._ruled_out
        ]
        return [*self.certain, *continued]


def server_episode_id(reference: SingleReference, fields: Fields) -> str | None:
    """Return the `episode_id` the server chose for an episode; None where it chooses none that is unique."""
    episode_id = fields.get("state.episode_id")
    episode_ids = [play.views[0].get("state.episode_id") for play in reference.plays]
    return (
        episode_id
        if isinstance(episode_id, str)
        and len(episode_id) >= _FEWEST_ID_CHARACTERS
        and len(set(episode_ids)) == len(episode_ids)
        else None
    )


def counters_across_sessions(reference: SingleReference) -> Iterator[str]:
    """Yield a sentence for each counter that lone sessions went on counting where an earlier one stopped."""
    for path in reference.plays[0].views[0]:
        counters = [
            _read_counter([view.get(path) for view in play.views], play.after_second_reset.get(path))
            for play in reference.plays
        ]
        if any(counter is None for counter in counters):
            continue
        complete = [counter for counter in counters if counter is not None]
        if len({stride for _, _, stride in complete}) != 1:
            continue
        pairs = [
            (last, start)
            for number, (start, _, stride) in enumerate(complete)
            for last in [earlier[1] for earlier in complete[:number]]
            if start - last in (0, stride) and start != complete[0][0]
        ]
        if len({start for _, start in pairs}) >= 2:
            (last, start), (later_last, later_start) = pairs[0], pairs[-1]
            yield f"{path} goes on counting from session to session: {last} → {start}, {later_last} → {later_start}"


def _read_counter(values: list[Any], after_second_reset: Any) -> tuple[int, int, int] | None:
    """Return where a counter began, where it stopped, and its change per step; None where these are no counter."""
    if not all(type(value) is int for value in values) or len(values) < 3:
        return None
    strides = {later - earlier for earlier, later in pairwise(values)}
    if len(strides) != 1 or strides == {0}:
        return None
    return values[0], after_second_reset if type(after_second_reset) is int else values[-1], strides.pop()
