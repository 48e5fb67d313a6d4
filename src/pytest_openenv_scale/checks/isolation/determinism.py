"""Do the same seed and the same actions give the same observations, alone and among others?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.subject import Figures, Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import ObservationDifference, join_names, path_pattern, steps_alone
from .repeatability import (
    ALWAYS_JUDGED,
    REMEDY,
    SLOW_STEPS,
    STEPS,
    SeedReference,
    judge_alone,
    learn_seed_reference,
    play_alone,
    play_fields,
    random_text,
    reset_data,
)
from .replays import Deviations, ReplayVerdict, Suspect, group_deviations, judge_by_replaying, replay_s

_SESSIONS, _ROUNDS = 16, 3
_LONGEST_S = 15.0


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
    reference = await subject.learn(learn_seed_reference)
    alone = judge_alone(subject, reference)
    if not reference.decided or await skip_single_slot(subject):
        return alone
    count = await sessions_at_once(subject, _SESSIONS)
    rounds = _Rounds()
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if count > 1 and (number == 0 or time.perf_counter() - began < _LONGEST_S):
            await _play_round(subject, reference, count, number, rounds)
    if rounds.sessions < 2:
        headline = f"two sessions at once are needed, and {count_of(rounds.sessions, 'session')} got in"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    result = await _judge(subject, reference, rounds)
    if reference.answer == "random" and result.outcome is CheckOutcome.MET:
        return replace(alone, details=(*alone.details, result.headline), figures={**alone.figures, **result.figures})
    return result


async def _play_round(subject: Subject, reference: SeedReference, count: int, number: int, rounds: _Rounds) -> None:
    """Play one episode in each of `count` sessions at once; each seed is played by several of them."""
    seeds = list(reference.expected)
    steps = await steps_alone(subject, STEPS, SLOW_STEPS)
    async with subject.client() as client:
        chosen = [seeds[(position + number) % len(seeds)] for position in range(count)]
        sessions = await open_sessions(client, subject, [reset_data(subject, seed) for seed in chosen])
        episodes = await asyncio.gather(*(play_fields(subject, session, steps) for session in sessions))
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
    figures: Figures = {
        "answer": reference.answer,
        "sessions": rounds.sessions,
        "episodes": rounds.episodes,
        "answers": rounds.answers,
    }
    details = reference.details
    if rounds.unanswered:
        details.append(f"{count_of(rounds.unanswered, 'episode')} ended early, and counts as far as it went")
    among = f"among {rounds.sessions - 1} others"
    result = CheckResult(
        CheckOutcome.MET,
        f"repeatable: {rounds.episodes} episodes with {len(reference.expected)} seeds, each {among}: all as alone",
        details=tuple(details),
        figures=figures,
    )
    if rounds.differing:
        verdict = await _replay(subject, reference, rounds)
        if verdict.outcome is not CheckOutcome.MET:
            return _differing_result(reference, rounds, verdict, result, among)
        if verdict.random:
            result = _without_random(reference, rounds, verdict.random, result)
    if result.outcome is CheckOutcome.MET and rounds.answers <= rounds.episodes:
        return replace(result, outcome=CheckOutcome.INCONCLUSIVE, headline=f"no step was answered {among}")
    return result


def _without_random(
    reference: SeedReference, rounds: _Rounds, fields: frozenset[str], result: CheckResult
) -> CheckResult:
    """Return the result where fields turned out to differ with the same seed alone too."""
    detail = f"left out, as it turned out to differ with the same seed on its own: {join_names(fields)}"
    result = replace(result, details=(*result.details, detail))
    if reference.decided - fields and not fields.intersection(ALWAYS_JUDGED):
        return result
    seed, difference, _ = next(rounds.first_differences[path] for path in rounds.first_differences if path in fields)
    figures = {**result.figures, "answer": "random"}
    headline = random_text(seed, difference)
    return replace(result, outcome=CheckOutcome.SKIPPED, headline=headline, remedy=REMEDY, figures=figures)


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
        _, views = await play_alone(subject, seed, await steps_alone(subject, STEPS, SLOW_STEPS))
        return group_deviations(reference.deviations(seed, views, reference.judged_fields)) if views else None

    # What was expected of a seed is itself from a session alone: only those played again could differ.
    repeats = reference.plays - len(reference.expected)
    return await judge_by_replaying(
        rounds.differing, replay, among=rounds.episodes, alone=repeats, within_s=replay_s(subject)
    )
