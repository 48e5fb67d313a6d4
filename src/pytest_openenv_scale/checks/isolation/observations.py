"""What a session is shown in one episode, the identity it sends, and how two episodes differ."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast
from uuid import uuid4

from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.checks.capacity_probe import open_sessions
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.config.action_schema.document import Document, SchemaError

T = TypeVar("T")

Fields = Mapping[str, Any]
"""The fields of one answer by path: `observation.board[0].colour`, `reward`, `state.step_count`."""

ABSENT = "<no such field>"
"""The value that stands for a field that is missing."""

_EXCERPT_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class ObservationDifference:
    """A field in which two episodes differ: `step` 0 is the reset."""

    step: int
    path: str
    expected: Any
    actual: Any

    def __str__(self) -> str:
        """Return it in one line, long values cut."""
        expected, actual = json_excerpt(self.expected), json_excerpt(self.actual)
        return f"{self.path} {after_step(self.step)}: expected {expected}, seen {actual}"


def after_step(step: int) -> str:
    """Return "after the reset" or "after step 3"."""
    return f"after step {step}" if step else "after the reset"


def json_excerpt(value: Any) -> str:
    """Return a value as JSON, cut to 120 characters."""
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}… ({len(text)} in all)"


def _unchanged(value: Any) -> Any:
    return value


def flatten_answer(answer: Answer, state: Answer | None = None, read: Callable[[Any], Any] = _unchanged) -> Fields:
    """Return the fields of an answer and of the state asked after it; `read` is applied to each text and integer.

    A list of numbers, however nested, counts as one field, as an image does.
    """
    fields: dict[str, Any] = {}
    _collect(answer.data, "", read, fields)
    if state is not None:
        _collect(state.data, "state", read, fields)
    return fields


def _collect(value: Any, path: str, read: Callable[[Any], Any], fields: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, item in cast("dict[str, Any]", value).items():
            _collect(item, f"{path}.{read(name)}" if path else str(read(name)), read, fields)
    elif isinstance(value, list) and value and not _all_numbers(cast("list[Any]", value)):
        for index, item in enumerate(cast("list[Any]", value)):
            _collect(item, f"{path}[{index}]", read, fields)
    else:
        value = cast("Any", value)
        fields[path] = read(value) if isinstance(value, str) or type(value) is int else value


def _all_numbers(items: list[Any]) -> bool:
    return all(
        isinstance(item, int | float) or (isinstance(item, list) and _all_numbers(cast("list[Any]", item)))
        for item in items
    )


def path_pattern(path: str) -> str:
    """Return a path without list indices: what is volatile at one index is so at all."""
    return re.sub(r"\[\d+\]", "[]", path)


def field_differences(expected: Fields, actual: Fields, step: int) -> Iterator[ObservationDifference]:
    """Yield each field that differs, in the order of the answers."""
    for path in {**expected, **actual}:
        before, after = expected.get(path, ABSENT), actual.get(path, ABSENT)
        # NaN is not equal to itself, but it is the same JSON.
        if before != after and json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
            yield ObservationDifference(step, path, before, after)


def compare_episodes(expected: Sequence[Fields], actual: Sequence[Fields]) -> list[ObservationDifference]:
    """Return how two episodes differ, as far as both go."""
    pairs = zip(expected, actual, strict=False)
    return [
        difference
        for step, (expected_fields, actual_fields) in enumerate(pairs)
        for difference in field_differences(expected_fields, actual_fields, step)
    ]


def volatile_patterns(plays: Sequence[Sequence[Fields]]) -> frozenset[str]:
    """Return the patterns of the fields that are not the same in all these episodes."""
    return frozenset(
        path_pattern(difference.path) for play in plays[1:] for difference in compare_episodes(plays[0], play)
    )


def join_names(names: Iterable[str], limit: int = 6) -> str:
    """Return "a, b, c and 4 more"."""
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")


@dataclass(frozen=True, slots=True)
class StepView:
    """What a session was answered: to the reset (`step` 0) or a step, and to `state` after it (None: not asked)."""

    step: int
    answer: Answer
    state: Answer | None


_SLOW_STEP_S = 0.5


async def steps_alone(subject: Subject, usual: int, slow: int) -> int:
    """Return how many steps a session plays alone: `usual`, or `slow` where a step takes half a second or more."""
    return usual if (await subject.learn(single_session)).step_s < _SLOW_STEP_S else slow


async def open_alone(client: RawClient, subject: Subject, reset: Mapping[str, Any]) -> RawSession:
    """Open a session on a server nobody else uses; `first_answer` is an observation, or says why there is none.

    Where slots come back late it is tried again; where the server rejects the reset data it is not.
    """
    session = await client.start(reset)
    if session.first_answer.kind == "observation" or not (session.first_answer.full or session.first_answer.ended):
        return session
    session.drop()
    return next(iter(await open_sessions(client, subject, [reset])), session)


async def play_episode(
    session: RawSession,
    first: Answer,
    action: Callable[[int], Mapping[str, Any]],
    steps: int,
    read: Callable[[StepView], T],
    *,
    ask_state: bool,
    pause_s: float = 0.0,
    pause_at: int | None = None,
) -> AsyncGenerator[T, None]:
    """Yield what a session is shown, from the answer `first` to its reset on, until it is done or took `steps` steps.

    An answer that is no observation ends it too. Each view is given to `read`, whose result is yielded. Each step, or
    only the one numbered `pause_at`, waits `pause_s` seconds before it is taken.
    """
    answer = first
    for step in range(steps + 1):
        if step:
            if pause_s and pause_at in (None, step):
                await asyncio.sleep(pause_s)
            answer = await session.step(action(step - 1))
        if answer.kind != "observation":
            return
        state = await session.state() if ask_state else None
        if state is not None and state.kind != "state":
            return
        yield read(StepView(step, answer, state))
        if answer.done:
            return


_SEEDS = range(100_000_000, 2**31)
"""Seeds: so large that environments hardly show such a number by chance, and every generator takes them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What marks one episode as its own: the `episode_id` and `seed` of its reset, the `token` in its actions."""

    number: int
    episode_id: str
    token: str
    seed: int


@dataclass
class Identities:
    """Issues identities and recognizes them in what a server answers."""

    _prefix: str = field(default_factory=lambda: f"oes{uuid4().hex[:10]}")
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _originals: dict[int, int] = field(default_factory=dict[int, int])
    """The numbers of identities by the numbers in later episodes of theirs."""
    _seeds: dict[int, int] = field(default_factory=dict[int, int])
    _seeds_seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Pairs of identity numbers: who was shown whose seed."""

    def new(self) -> Identity:
        """Return an identity that was never used before."""
        number = next(self._numbers)
        # Not from the plan's seed: a server that is checked a second time must not have seen any of them.
        seed = random.choice(_SEEDS)
        while seed in self._seeds:
            seed = random.choice(_SEEDS)
        self._seeds[seed] = number
        return Identity(number, f"{self._prefix}-{number:06d}-e", f"{self._prefix}-{number:06d}-t", seed)

    def again(self, identity: Identity) -> Identity:
        """Return the same identity for another episode: seed and token are the same, the `episode_id` is new."""
        number = next(self._numbers)
        self._originals[number] = identity.number
        return replace(identity, episode_id=f"{self._prefix}-{number:06d}-e")

    def appears_in(self, value: object, number: int) -> bool:
        """Whether a text or a number is, or contains, what the identity with this number has sent."""
        if isinstance(value, str):
            return f"{self._prefix}-{number:06d}-" in value.lower()
        return type(value) is int and self._seeds.get(value) == number

    def label_text(self, text: str, identity: Identity, foreign: set[int]) -> str:
        """Return the text with its own identity replaced by a label; the numbers of others in it go into `foreign`."""
        if self._prefix not in text.lower():
            return text

        def label(match: re.Match[str]) -> str:
            number = self._originals.get(int(match[1]), int(match[1]))
            kind = "episode_id" if match[2].lower() == "e" else "token"
            if number == identity.number:
                return f"<its own {kind}>"
            foreign.add(number)
            return match[0]

        return re.sub(rf"{self._prefix}-(\d{{6}})-([et])", label, text, flags=re.IGNORECASE)

    def label_number(self, value: int, identity: Identity, foreign: set[int]) -> int | str:
        """Return the number, or a label for its own seed; of another's seed, that one's number goes into `foreign`.

        Not the first time: of ten thousand numbers that an environment draws, one is the seed of one of a
        thousand episodes in one run of two hundred. A server that mixes sessions up does it again.
        """
        number = self._seeds.get(value)
        if number is None:
            return value
        if number == identity.number:
            return "<its own seed>"
        self._seeds_seen.add((identity.number, number))
        if len(self._seeds_seen) > 1:
            foreign.add(number)
        return value


def token_fields(schema: Mapping[str, Any] | None, generated: bool, length: int) -> tuple[str, ...]:
    """Return the fields of an action that may hold any text of `length` characters, by its JSON schema.

    `generated` tells whether the action was made from the schema: what a person wrote is not changed.
    """
    if schema is None or not generated:
        return ()
    try:
        fields: Mapping[str, Any] = Document(schema).root.schema.get("properties", {})
    except SchemaError:
        return ()
    return tuple(name for name, field_schema in fields.items() if _takes_any_text(field_schema, length))


def _takes_any_text(field_schema: Mapping[str, Any], length: int) -> bool:
    if field_schema.get("type") != ["string"] or "const" in field_schema:
        return False
    if any(field_schema.get(key) for key in ("enum", "pattern", "format", "default", "example", "examples")):
        return False
    least, most = field_schema.get("minLength", 0), field_schema.get("maxLength")
    return least <= length and (most is None or length <= most)
