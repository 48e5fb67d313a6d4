"""Do the same seed and the same actions give the same observations, alone and among others?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import (
    Fields,
    ObservationDifference,
    compare_episodes,
    flatten_answer,
    join_names,
    open_alone,
    path_pattern,
    play_episode,
    steps_alone,
    volatile_patterns,
)
from .replays import Deviations, ReplayVerdict, Suspect, group_deviations, judge_by_replaying

_SESSIONS, _ROUNDS = 16, 3
_SEEDS, _REPEATS = 4, 3
"""How many seeds there are, and how often the first of them is played alone; the second once less."""
_STEPS, _SLOW_STEPS = 10, 4
_WAIT_S, _PAUSE_S = 0.05, 0.3
_LONGEST_S = 15.0
_ALWAYS_JUDGED = ("reward", "done")

REMEDY = (
    "let reset(seed=...) make a generator of the environment's own, self.random = random.Random(seed) or "
    "numpy.random.default_rng(seed), and never call random.seed() or numpy.random.seed(), which all sessions share"
)
"""What the environment's author does about observations that depend on other sessions."""


@dataclass(frozen=True)
class SeedReference:
    """What the seed decides, learned from sessions on their own.

    `expected` is what each seed shows after the reset and after each step, `decided` are the patterns of the fields
    that differ between seeds and never with the same seed, `volatile` those of fields that differ with the same seed.
    `refusal` is the answer to a reset with a seed where it was no observation.
    """

    expected: Mapping[int, Sequence[Fields]]
    decided: frozenset[str]
    volatile: frozenset[str]
    transcripts: Mapping[int, Transcript]
    plays: int
    refusal: Answer | None = None

    @property
    def judged_fields(self) -> frozenset[str]:
        """The patterns of fields that must be the same among others: what the seed decides, and `reward` and `done`."""
        return self.decided | (frozenset(_ALWAYS_JUDGED) - self.volatile)

    def deviations(self, seed: int, actual: Sequence[Fields], fields: frozenset[str]) -> list[ObservationDifference]:
        """Return where an episode with this seed differs from the one alone."""
        return [
            difference
            for difference in compare_episodes(self.expected[seed], actual)
            if path_pattern(difference.path) in fields
        ]


@dataclass
class _Rounds:
    """What sessions that play at the same time are shown, and how it differs from what a session alone is shown."""

    sessions: int = 0
    episodes: int = 0
    answers: int = 0
    unanswered: int = 0
    differing: list[Suspect[int]] = field(default_factory=list[Suspect[int]])
    first_differences: dict[str, tuple[int, ObservationDifference, Transcript]] = field(
        default_factory=dict[str, tuple[int, ObservationDifference, Transcript]]
    )


async def determinism(subject: Subject) -> CheckResult:
    """Play seeds alone and among others, and compare what the sessions are shown, field by field."""
    if skipped := await skip_single_slot(subject):
        return skipped
    reference = await subject.learn(learn_seed_reference)
    if result := _result_without_seed(reference):
        return result
    count = await sessions_at_once(subject, _SESSIONS)
    rounds = _Rounds()
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if count > 1 and (number == 0 or time.perf_counter() - began < _LONGEST_S):
            await _play_round(subject, reference, count, number, rounds)
    if rounds.sessions < 2:
        headline = f"two sessions at once are needed, and {count_of(rounds.sessions, 'session')} got in"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    return await _judge(subject, reference, rounds)


def _result_without_seed(reference: SeedReference) -> CheckResult | None:
    """Return the check's result where a reset takes no seed or the seed decides nothing; else None."""
    if reference.refusal is not None:
        rejected = reference.refusal.kind == "error" and not reference.refusal.full
        outcome = CheckOutcome.SKIPPED if rejected else CheckOutcome.INCONCLUSIVE
        return CheckResult(outcome, f"a reset with a seed is not answered with an observation: {reference.refusal}")
    if reference.decided:
        return None
    seeds = f"{min(reference.expected)} to {max(reference.expected)}"
    headline = f"seeds {seeds} give the same observations"
    if any(name.startswith("observation") for name in reference.volatile):
        headline += f" but for what differs with the same seed too ({join_names(reference.volatile)})"
    return CheckResult(
        CheckOutcome.SKIPPED, f"{headline}: the environment takes no seed", figures={"sessions": reference.plays}
    )


async def learn_seed_reference(subject: Subject) -> SeedReference:
    """Play a few seeds alone, one of them several times; call it as `subject.learn(learn_seed_reference)`."""
    seeds = [subject.seed + number for number in range(1, _SEEDS + 1)]
    plan = [*seeds, *(seeds[:2]), *(seeds[:1] * (_REPEATS - 2))]
    plays: dict[int, list[Sequence[Fields]]] = {seed: [] for seed in seeds}
    transcripts: dict[int, Transcript] = {}
    for number, seed in enumerate(plan):
        session, views = await _play_alone(subject, seed, _PAUSE_S if number == len(plan) - 1 else 0.0)
        if not views:
            return SeedReference({}, frozenset(), frozenset(), {}, number, session.first_answer)
        plays[seed].append(views)
        transcripts.setdefault(seed, session.transcript(f"seed {seed} alone"))
    unsteady = frozenset[str]().union(*(volatile_patterns(episodes) for episodes in plays.values()))
    # The longest, as a lone session may be cut short by what is not its fault.
    expected = {seed: max(episodes, key=len) for seed, episodes in plays.items()}
    first = expected[seeds[0]]
    differing = {
        path_pattern(difference.path) for seed in seeds[1:] for difference in compare_episodes(first, expected[seed])
    }
    return SeedReference(expected, frozenset(differing - unsteady), unsteady, transcripts, len(plan))


async def _play_alone(subject: Subject, seed: int, pause_s: float) -> tuple[RawSession, list[Fields]]:
    """Play a seed alone; without fields where its reset was not answered with an observation."""
    async with subject.client(subject.timeout_s) as client:
        session = await open_alone(client, subject, _reset_data(subject, seed))
        views = await _play_fields(subject, session, await steps_alone(subject, _STEPS, _SLOW_STEPS), pause_s)
        await session.close()
        return session, views


def _reset_data(subject: Subject, seed: int) -> Mapping[str, Any]:
    return {**subject.reset_data(seed), "seed": seed}


async def _play_fields(subject: Subject, session: RawSession, steps: int, pause_s: float = 0.0) -> list[Fields]:
    wait = None if subject.wait_s is None else min(subject.wait_s, _WAIT_S)
    views = play_episode(
        session,
        session.first_answer,
        lambda step: subject.action(0, step, wait_s=wait),
        steps,
        lambda step_view: flatten_answer(step_view.answer),
        ask_state=False,
        pause_s=pause_s,
        pause_at=1,
    )
    return [view async for view in views]


async def _play_round(subject: Subject, reference: SeedReference, count: int, number: int, rounds: _Rounds) -> None:
    """Play one episode in each of `count` sessions at once; each seed is played by several of them."""
    seeds = list(reference.expected)
    steps = await steps_alone(subject, _STEPS, _SLOW_STEPS)
    async with subject.client() as client:
        chosen = [seeds[(position + number) % len(seeds)] for position in range(count)]
        sessions = await open_sessions(client, subject, [_reset_data(subject, seed) for seed in chosen])
        episodes = await asyncio.gather(*(_play_fields(subject, session, steps) for session in sessions))
        for session, views in zip(sessions, episodes, strict=True):
            if len(views) < len(reference.expected[session.reset_data["seed"]]):
                # Most likely its last request timed out: a close message would not be answered either.
                session.drop()
        await close_all(sessions)
    rounds.sessions = max(rounds.sessions, len(sessions))
    for session, views in zip(sessions, episodes, strict=True):
        seed = session.reset_data["seed"]
        rounds.episodes += 1
        rounds.answers += len(views)
        rounds.unanswered += len(views) < len(reference.expected[seed])
        differences = reference.deviations(seed, views, reference.judged_fields)
        if differences:
            # What was expected is itself from a session alone, in which nothing differed.
            rounds.differing.append(Suspect(seed, group_deviations(differences), alone={}))
        for difference in differences:
            path = path_pattern(difference.path)
            if path not in rounds.first_differences:
                rounds.first_differences[path] = (
                    seed,
                    difference,
                    session.transcript(f"seed {seed} among {len(sessions) - 1} others"),
                )


async def _judge(subject: Subject, reference: SeedReference, rounds: _Rounds) -> CheckResult:
    figures = {"sessions": rounds.sessions, "episodes": rounds.episodes, "answers": rounds.answers}
    details = [f"decided by the seed: {join_names(reference.decided)}"]
    if reference.volatile:
        details.append(f"left out, as it differs with the same seed on its own: {join_names(reference.volatile)}")
    if rounds.unanswered:
        details.append(f"{count_of(rounds.unanswered, 'episode')} ended early, and counts as far as it went")
    among = f"among {rounds.sessions - 1} others"
    result = CheckResult(
        CheckOutcome.MET,
        f"{rounds.episodes} episodes with {len(reference.expected)} seeds, each {among}: all as alone",
        details=tuple(details),
        figures=figures,
    )
    if rounds.differing:
        verdict = await _replay(subject, reference, rounds)
        if verdict.outcome is not CheckOutcome.MET:
            return _differing_result(reference, rounds, verdict, result, among)
        if not reference.decided - verdict.random:
            headline = "what the seed seemed to decide differs with the same seed too: the environment takes no seed"
            return replace(result, outcome=CheckOutcome.SKIPPED, headline=headline)
    if rounds.answers <= rounds.episodes:
        return replace(result, outcome=CheckOutcome.INCONCLUSIVE, headline=f"no step was answered {among}")
    return result


def _differing_result(
    reference: SeedReference, rounds: _Rounds, verdict: ReplayVerdict[int], result: CheckResult, among: str
) -> CheckResult:
    """Return the result where episodes among others differed and plays alone do not explain it."""
    path = next(path for path in rounds.first_differences if path in verdict.fields)
    seed, difference, transcript = rounds.first_differences[path]
    differing = len(verdict.left)
    shown = (transcript, reference.transcripts[seed])
    headline = f"{differing} of {rounds.episodes} episodes {among} were not as alone: seed {seed}, {difference}"
    undecided = verdict.outcome is CheckOutcome.INCONCLUSIVE and verdict.answered
    why = () if verdict.outcome is CheckOutcome.MISSED else (verdict.plays_text,)
    return replace(
        result,
        outcome=CheckOutcome.MET if undecided else verdict.outcome,
        headline=f"not decided: {headline}" if undecided else headline,
        remedy=REMEDY if verdict.outcome is CheckOutcome.MISSED else None,
        details=(f"differing: {join_names(verdict.fields)}", *result.details, *why),
        figures={
            **result.figures,
            "episodes_differing": differing,
            "episodes_alone": reference.plays + verdict.plays,
        },
        transcripts=tuple(_cut_transcript(transcript, difference.step) for transcript in shown),
    )


def _cut_transcript(transcript: Transcript, step: int) -> Transcript:
    """Return a transcript up to the answer to this step: one line for the connection, then two per request."""
    return Transcript(transcript.title, transcript.said[: 3 + 2 * step])


async def _replay(subject: Subject, reference: SeedReference, rounds: _Rounds) -> ReplayVerdict[int]:
    """Play the seeds of episodes that differed alone, until it is clear whether they differ alone too."""

    async def replay(suspect: Suspect[int], number: int) -> Deviations | None:
        seed = suspect.episode
        _, views = await _play_alone(subject, seed, 0.0)
        return group_deviations(reference.deviations(seed, views, reference.judged_fields)) if views else None

    # What was expected of a seed is itself from a session alone: only those played again could differ.
    repeats = reference.plays - len(reference.expected)
    return await judge_by_replaying(rounds.differing, rounds.episodes, repeats, replay)
