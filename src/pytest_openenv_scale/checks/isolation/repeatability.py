"""Does the same seed with the same actions give the same episode, from one session alone to the next?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_openenv_scale.checks.background import waiting_action
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Figures, Subject, sample_action
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import (
    Fields,
    ObservationDifference,
    after_step,
    compare_episodes,
    flatten_answer,
    join_names,
    json_excerpt,
    open_alone,
    path_pattern,
    play_episode,
    steps_alone,
    volatile_patterns,
)

_SEEDS, _REPEATS = 4, 3
"""How many seeds there are, and how often the first of them is played alone; the second once less."""
STEPS, SLOW_STEPS = 10, 4
_BRIEF_STEPS, _BRIEF_SLOW_STEPS = 6, 2
_WAIT_S, _PAUSE_S = 0.05, 0.3
ALWAYS_JUDGED = ("reward", "done")
"""Fields that have to be the same with the same seed, whether it decides them or not."""

_PROCESS_FIELDS = frozenset(("pid", "host_url", "hostname"))
_TIME_NAME = re.compile(
    r"(^|_)(time|timestamp|elapsed|duration|latency|uptime|seconds|took|date|clock|ms|ns)(_|$)|_(s|at)$", re.IGNORECASE
)
_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{12,}", re.IGNORECASE)
_DAY_S = 86_400.0

REMEDY = (
    "let reset(seed=...) make a generator of the environment's own, self.random = random.Random(seed) or "
    "numpy.random.default_rng(seed), and never call random.seed() or numpy.random.seed(), which all sessions share"
)
"""What the environment's author does about observations that depend on other sessions, or on chance."""


@dataclass(frozen=True)
class SeedReference:
    """What the seed decides, learned from sessions on their own.

    `expected` is what each seed shows after the reset and after each step, `decided` are the patterns of the fields
    that differ between seeds and never with the same seed, `volatile` those of fields that differ with the same seed,
    and `random` those of them that are neither names nor times. `example` is a seed and where it came out in two ways.
    `refusal` is the answer to a reset with a seed where it was no observation.
    """

    expected: Mapping[int, Sequence[Fields]]
    decided: frozenset[str]
    volatile: frozenset[str]
    transcripts: Mapping[int, Transcript]
    plays: int
    refusal: Answer | None = None
    random: frozenset[str] = frozenset()
    example: tuple[int, ObservationDifference] | None = None

    @property
    def answer(self) -> Literal["repeatable", "no_seed_effect", "random"]:
        """Whether the same seed gave the same episodes, and whether other seeds gave others.

        What differs with the same seed beside what the seed decides does not count, but for `reward` and `done`.
        """
        if self.volatile.intersection(ALWAYS_JUDGED) or (self.random and not self.decided):
            return "random"
        return "repeatable" if self.decided else "no_seed_effect"

    @property
    def judged_fields(self) -> frozenset[str]:
        """The patterns of fields that must be the same among others: what the seed decides, and `reward` and `done`."""
        return self.decided | (frozenset(ALWAYS_JUDGED) - self.volatile)

    @property
    def details(self) -> list[str]:
        """What the seed decides, and what was left out."""
        details = [f"decided by the seed: {join_names(self.decided)}"] if self.decided else []
        if self.volatile:
            details.append(f"left out, as it differs with the same seed on its own: {join_names(self.volatile)}")
        return details

    def deviations(self, seed: int, actual: Sequence[Fields], fields: frozenset[str]) -> list[ObservationDifference]:
        """Return where an episode with this seed differs from the one alone."""
        return [
            difference
            for difference in compare_episodes(self.expected[seed], actual)
            if path_pattern(difference.path) in fields
        ]


async def repeatable(subject: Subject) -> CheckResult:
    """Play two seeds alone, one of them twice, and compare what the sessions are shown."""
    return judge_alone(subject, await subject.learn(_learn_briefly))


def judge_alone(subject: Subject, reference: SeedReference) -> CheckResult:
    """Return the answer of sessions alone, one after the other: repeatable, without effect of the seed, or random."""
    if reference.refusal is not None:
        rejected = reference.refusal.kind == "error" and not reference.refusal.full
        outcome = CheckOutcome.SKIPPED if rejected else CheckOutcome.INCONCLUSIVE
        return CheckResult(outcome, f"a reset with a seed is not answered with an observation: {reference.refusal}")
    episodes = count_of(reference.plays, "episode")
    figures: Figures = {"answer": reference.answer, "sessions": reference.plays}
    details = tuple(reference.details)
    if reference.example is not None and reference.answer == "random":
        headline = random_text(*reference.example)
        return CheckResult(CheckOutcome.SKIPPED, headline, REMEDY, details=details, figures=figures)
    between = "and" if len(reference.expected) == 2 else "to"
    seeds = f"seeds {min(reference.expected)} {between} {max(reference.expected)}"
    if not any(len(views) > 1 for views in reference.expected.values()):
        return CheckResult(CheckOutcome.INCONCLUSIVE, "no step was answered", details=details, figures=figures)
    if reference.answer == "no_seed_effect":
        action = sample_action(subject).rstrip(",")
        headline = f"repeatable, the seed has no effect: {seeds} gave the same in {episodes} ({action})"
        return CheckResult(CheckOutcome.MET, headline, details=details, figures=figures)
    headline = f"repeatable: {seeds}, {episodes} one after the other, and each seed gave the same again"
    return CheckResult(CheckOutcome.MET, headline, details=details, figures=figures)


def random_text(seed: int, difference: ObservationDifference) -> str:
    """Say that the same seed gave different episodes, and where."""
    first, second = json_excerpt(difference.expected), json_excerpt(difference.actual)
    where = f"{difference.path} {after_step(difference.step)}"
    return f"random: the same seed gave different episodes: seed {seed}, {where}: {first}, then {second}"


async def learn_seed_reference(subject: Subject) -> SeedReference:
    """Play a few seeds alone, one of them several times; call it as `subject.learn(learn_seed_reference)`."""
    seeds = [subject.seed + number for number in range(1, _SEEDS + 1)]
    plan = [*seeds, *(seeds[:2]), *(seeds[:1] * (_REPEATS - 2))]
    return await _learn(subject, plan, await steps_alone(subject, STEPS, SLOW_STEPS))


async def _learn_briefly(subject: Subject) -> SeedReference:
    first, second = subject.seed + 1, subject.seed + 2
    return await _learn(subject, [first, second, first], await steps_alone(subject, _BRIEF_STEPS, _BRIEF_SLOW_STEPS))


async def _learn(subject: Subject, plan: Sequence[int], steps: int) -> SeedReference:
    """Play these seeds alone, one after the other."""
    plays: dict[int, list[Sequence[Fields]]] = {seed: [] for seed in plan}
    transcripts: dict[int, Transcript] = {}
    for number, seed in enumerate(plan):
        session, views = await play_alone(subject, seed, steps, _PAUSE_S if number == len(plan) - 1 else 0.0)
        if not views:
            return SeedReference({}, frozenset(), frozenset(), {}, number, session.first_answer)
        plays[seed].append(views)
        transcripts.setdefault(seed, session.transcript(f"seed {seed} alone"))
    unsteady = frozenset[str]().union(*(volatile_patterns(episodes) for episodes in plays.values()))
    # The longest, as a lone session may be cut short by what is not its fault.
    expected = {seed: max(episodes, key=len) for seed, episodes in plays.items()}
    first, *others = expected.values()
    differing = {path_pattern(difference.path) for views in others for difference in compare_episodes(first, views)}
    chance = frozenset(pattern for pattern in unsteady if _is_chance(pattern, plays.values()))
    return SeedReference(
        expected,
        frozenset(pattern for pattern in differing - unsteady if _name(pattern) not in _PROCESS_FIELDS),
        unsteady,
        transcripts,
        len(plan),
        random=chance,
        example=next(_differences_of_one_seed(plays, chance | unsteady.intersection(ALWAYS_JUDGED)), None),
    )


def _differences_of_one_seed(
    plays: Mapping[int, Sequence[Sequence[Fields]]], patterns: frozenset[str]
) -> Iterator[tuple[int, ObservationDifference]]:
    for seed, episodes in plays.items():
        for episode in episodes[1:]:
            for difference in compare_episodes(episodes[0], episode):
                if path_pattern(difference.path) in patterns:
                    yield seed, difference


def _name(pattern: str) -> str:
    return pattern.rpartition(".")[2].removesuffix("[]")


def _is_chance(pattern: str, plays: Iterable[Sequence[Sequence[Fields]]]) -> bool:
    """Whether what differs with the same seed in a field is no name of a session or a process, and no time."""
    if _name(pattern) in _PROCESS_FIELDS:
        return False
    values: list[Any] = [
        value
        for episodes in plays
        for views in episodes
        for view in views
        for path, value in view.items()
        if path_pattern(path) == pattern and value is not None
    ]
    named_time = _TIME_NAME.search(_name(pattern)) is not None
    return not all(_is_id(value) or _is_date(value) or (named_time and type(value) in (int, float)) for value in values)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_date(value: Any) -> bool:
    """Whether this is a moment of today, in seconds or milliseconds since 1970, or a text with a date."""
    if isinstance(value, str):
        return re.search(r"\d{4}-\d\d-\d\d[T ]\d\d:", value) is not None
    # Compared as they are: JSON has integers that no float holds.
    earliest, latest = time.time() - _DAY_S, time.time() + _DAY_S
    return isinstance(value, int | float) and any(unit * earliest < value < unit * latest for unit in (1, 1000))


async def play_alone(subject: Subject, seed: int, steps: int, pause_s: float = 0.0) -> tuple[RawSession, list[Fields]]:
    """Play a seed alone; without fields where its reset was not answered with an observation."""
    async with subject.client(subject.timeout_s) as client:
        session = await open_alone(client, subject, reset_data(subject, seed))
        views = await play_fields(subject, session, steps, pause_s)
        await session.close()
        return session, views


def reset_data(subject: Subject, seed: int) -> Mapping[str, Any]:
    """Return the reset data of an episode with this seed."""
    return {**subject.reset_data(seed), "seed": seed}


async def play_fields(subject: Subject, session: RawSession, steps: int, pause_s: float = 0.0) -> list[Fields]:
    """Play an episode in a session that was reset, and return what it is shown."""
    wait = None if subject.wait_s is None else min(subject.wait_s, _WAIT_S)
    views = play_episode(
        session,
        session.first_answer,
        lambda step: waiting_action(subject, session, step, wait, number=0),
        steps,
        lambda step_view: flatten_answer(step_view.answer),
        ask_state=False,
        pause_s=pause_s,
        pause_at=1,
    )
    return [view async for view in views]
