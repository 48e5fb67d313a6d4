"""What sessions are shown that have the server to themselves, and what is left over from an earlier episode."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

from pytest_openenv_scale.checks.background import single_session, waiting_action
from pytest_openenv_scale.checks.capacity_probe import SLOT_RETURN_LIMIT_S, open_sessions
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

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
    steps_alone,
    token_fields,
    volatile_patterns,
)

_STEPS, _SLOW_STEPS, _PLAYS = 6, 3, 3
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


@dataclass(frozen=True, slots=True)
class View:
    """What a session was shown after `step` steps: the `answer`, and its `fields` with its own identity labelled.

    `foreign` are the numbers of other identities that show in it.
    """

    step: int
    answer: Answer
    fields: Fields
    foreign: set[int]


@dataclass(frozen=True)
class SingleReference:
    """What several lone episodes had in common, each with its own seed, `episode_id`, token, wait and pause.

    `expected` is what a session is shown after the reset and after each step; `distinguishing` are its fields by which
    one session can be told from another: they change from step to step, or hold its identity. `session_ids` are fields
    in which the server names each session. `texts` are the action fields that take the token. `steps` is how far all
    of them came.
    """

    subject: Subject
    identities: Identities
    has_state: bool
    counts_steps: bool
    seeded: bool
    texts: tuple[str, ...]
    plays: tuple[Play, ...] = ()
    expected: tuple[Fields, ...] = ()
    distinguishing: frozenset[str] = frozenset()
    session_ids: frozenset[str] = frozenset()

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

    def reset_data(self, identity: Identity) -> Mapping[str, Any]:
        """Return the reset data of an episode with this identity."""
        data = {**self.subject.reset_data(identity.seed), "episode_id": identity.episode_id}
        return {**data, "seed": identity.seed} if self.seeded else data

    async def open(
        self, client: RawClient, count: int, *, within_s: float = SLOT_RETURN_LIMIT_S
    ) -> list[tuple[RawSession, Identity]]:
        """Open `count` sessions, each with an identity of its own, and return those that were let in."""
        identities = [self.identities.new() for _ in range(count)]
        by_episode_id = {identity.episode_id: identity for identity in identities}
        resets = [self.reset_data(identity) for identity in identities]
        opened = await open_sessions(client, self.subject, resets, within_s=within_s)
        return [(session, by_episode_id[session.reset_data["episode_id"]]) for session in opened]

    def play(
        self,
        session: RawSession,
        first: Answer,
        identity: Identity,
        steps: int,
        *,
        extra_wait_s: float = 0.0,
        pause_s: float = 0.0,
        pause_at: int | None = None,
    ) -> AsyncGenerator[View, None]:
        """Yield what a session with this identity is shown; see `play_episode`. Each step waits `extra_wait_s` more."""
        usual_s = None if self.subject.wait_s is None else min(self.subject.wait_s, _WAIT_S) + extra_wait_s
        tokens = dict.fromkeys(self.texts, identity.token)
        return play_episode(
            session,
            first,
            lambda step: {**waiting_action(self.subject, session, step, usual_s, number=0), **tokens},
            steps,
            lambda step_view: self.read(step_view, identity),
            ask_state=self.has_state,
            pause_s=pause_s,
            pause_at=pause_at,
        )

    def read(self, step_view: StepView, identity: Identity) -> View:
        """Return a view with the session's own identity replaced by labels."""
        foreign: set[int] = set()

        def label(value: Any) -> Any:
            if isinstance(value, str):
                return self.identities.label_text(value, identity, foreign)
            return self.identities.label_number(value, identity, foreign)

        fields = flatten_answer(step_view.answer, step_view.state, label)
        return View(step_view.step, step_view.answer, fields, foreign)

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
    # What the server rejects is left out: first the token, then the seed.
    for seeded, fields in dict.fromkeys([(True, texts), (True, ()), (False, texts), (False, ())]):
        candidate = SingleReference(subject, identities, single.has_state, single.counts_steps, seeded, fields)
        plays, timed_out = await play_alone(candidate, _PLAYS)
        if timed_out:
            # Each further question would wait as long again.
            return None
        if len(plays) == _PLAYS and all(len(play.views) > 1 for play in plays):
            return _reference_from_plays(candidate, plays)
    return None


async def usable_reference(subject: Subject) -> SingleReference | CheckResult:
    """Return the reference of lone sessions, or the check's result where no answer tells one session from another."""
    reference = await subject.learn(learn_reference)
    if reference is None:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            "sessions on their own, one after the other, did not get as far as a step: no answer, an error, "
            "or done with the reset",
        )
    if reference.signals:
        return reference
    return CheckResult(
        CheckOutcome.SKIPPED,
        "nothing the server answers tells one session from another: no step_count, no episode_id, no field that "
        "repeats what was sent or changes from step to step",
    )


async def play_alone(reference: SingleReference, count: int, *, pause_s: float = 0.0) -> tuple[list[Play], bool]:
    """Play `count` episodes one after another, every other one with slower steps.

    Every step waits `pause_s` seconds before it, where that is not 0. Return the episodes that were answered, and
    whether an answer timed out, after which no more is asked.
    """
    subject = reference.subject
    steps = await steps_alone(subject, _STEPS, _SLOW_STEPS)
    steps = min(steps, reference.steps) if reference.expected else steps
    plays: list[Play] = []
    async with subject.client(subject.timeout_s) as client:
        for number in range(count):
            identity = reference.identities.new()
            session = await open_alone(client, subject, reference.reset_data(identity))
            if session.first_answer.kind != "observation":
                return plays, session.timed_out
            views = reference.play(
                session,
                session.first_answer,
                identity,
                steps,
                extra_wait_s=0.03 * (number % 2),
                pause_s=pause_s or _PAUSE_S * (number == 1),
                pause_at=None if pause_s else min(2, steps),
            )
            plays.append(await _finish_play(reference, session, [view async for view in views]))
            if session.timed_out:
                return plays[:-1], True
            await session.close()
    return plays, False


async def replay_alone(
    reference: SingleReference, identity: Identity, steps: int, *, pause_s: float = 0.0
) -> list[ObservationDifference] | None:
    """Play an episode of `steps` steps with the seed and the actions of this identity alone.

    Return where it deviates from the reference, None where it was not answered; every step waits `pause_s` seconds.
    """
    identity = reference.identities.again(identity)
    async with reference.subject.client(reference.subject.timeout_s) as client:
        session = await open_alone(client, reference.subject, reference.reset_data(identity))
        played = reference.play(session, session.first_answer, identity, steps, pause_s=pause_s)
        views = [view async for view in played]
        if not views or (len(views) <= steps and not views[-1].answer.done):
            session.drop()
            return None
        await session.close()
    return [deviation for view in views for deviation in reference.deviations(view.fields, view.step)]


async def _finish_play(reference: SingleReference, session: RawSession, views: Sequence[View]) -> Play:
    """Reset a session that has played an episode, and return what it was shown in all."""
    others = set[int]().union(*(view.foreign for view in views))
    foreign = {
        path
        for view in views
        for path, value in view.fields.items()
        for number in others
        if reference.identities.appears_in(value, number)
    }
    identity = reference.identities.new()
    again = Answer("silence") if session.timed_out else await session.reset(reference.reset_data(identity))
    after = [view.fields async for view in reference.play(session, again, identity, 0)]
    return Play(
        tuple(view.fields for view in views),
        after[0] if after else {},
        tuple(sorted(foreign)),
        session.transcript("a session on its own"),
    )


def _reference_from_plays(candidate: SingleReference, plays: Sequence[Play]) -> SingleReference:
    views = [play.views for play in plays]
    unsteady = volatile_patterns(views)
    length = min(map(len, views))
    expected = tuple(
        {path: value for path, value in view.items() if path_pattern(path) not in unsteady}
        for view in views[0][:length]
    )
    return replace(
        candidate,
        plays=tuple(plays),
        expected=expected,
        distinguishing=frozenset(_distinguishing_patterns(expected)),
        session_ids=frozenset(_session_id_fields(plays, unsteady)),
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
    for path in plays[0].after_second_reset:
        shown = [[view.get(path) for view in (*play.views, play.after_second_reset)] for play in plays]
        ids = {values[0] for values in shown if isinstance(values[0], str) and values.count(values[0]) == len(values)}
        if path_pattern(path) in unsteady and len(ids) == len(plays) and all(map(_ID.fullmatch, ids)):
            yield path


def _has_fractions(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_fractions(item) for item in cast("list[Any]", value))
    return isinstance(value, float)


def _without_fractions(value: Any) -> Any:
    return re.sub(r"\d+\.\d+", "#", value) if isinstance(value, str) else value


_FEWEST_ID_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Leak:
    """Something a session was shown that is another's, or an earlier episode's; transcripts show it.

    `certain` where nothing else explains it. `field` is the pattern of the field that shows it, `episode` the number of
    the identity that saw it.
    """

    description: str
    transcripts: tuple[Transcript, ...] = ()
    field: str = ""
    certain: bool = True
    episode: int | None = None


def leak_result(
    headline: str, leaks: Sequence[Leak], remedy: str, details: Sequence[str], figures: Mapping[str, int]
) -> CheckResult:
    """Return the result of a check that found leaks, of which up to three more are described in its details."""
    others = dict.fromkeys(leak.description for leak in leaks if leak.description != leaks[0].description)
    return CheckResult(
        CheckOutcome.MISSED,
        headline,
        remedy,
        (*list(others)[:3], *details),
        {**figures, "leaks": len(leaks)},
        transcripts=next((leak.transcripts for leak in leaks if leak.transcripts), ()),
    )


@dataclass
class Leftovers:
    """Collects what new episodes show of earlier ones.

    That OpenEnv's own `step_count` is ahead of the steps, or that an earlier identity appears, is `certain` at once: a
    `step_count` that is behind them may leave out a step that was not allowed.
    Any other field counts only if it goes on exactly where the last episode stopped, after episodes of several lengths,
    and never shows anything but that or what a lone session is shown.
    """

    reference: SingleReference
    certain: list[Leak] = field(default_factory=list[Leak])
    _continuations: dict[str, dict[int, Leak]] = field(default_factory=dict[str, dict[int, Leak]])
    _ruled_out: set[str] = field(default_factory=set[str])

    def inspect(
        self, fields: Fields, step: int, before: int, observer: str, transcripts: tuple[Transcript, ...]
    ) -> None:
        """Inspect the fields of a new episode after `step` steps; the last episode stopped after `before` steps."""
        count = fields.get("state.step_count")
        if self.reference.counts_steps and type(count) is int and count > step:
            description = f"{observer} {after_step(step)}: state.step_count is {count}, expected {step}"
            self.certain.append(Leak(f"{description}; the last episode stopped at {before}", transcripts))
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
            leak = Leak(f"{description}; the last episode stopped there, after {before} steps", transcripts)
            self._continuations.setdefault(path_pattern(deviation.path), {}).setdefault(before, leak)

    def inspect_before_reset(
        self, state: Fields, step: int, before: int, observer: str, transcripts: tuple[Transcript, ...]
    ) -> None:
        """Inspect the state of a session not yet reset; the last episode stopped after `before` steps."""
        count = state.get("state.step_count")
        if self.reference.counts_steps and type(count) is int and count == before:
            leak = Leak(f"{observer}: state.step_count is {count}, where the last episode stopped", transcripts)
            self._continuations.setdefault("state.step_count before a reset", {}).setdefault(before, leak)

    def confirmed(self, lengths: set[int]) -> list[Leak]:
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
