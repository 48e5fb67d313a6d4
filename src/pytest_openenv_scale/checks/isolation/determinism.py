"""Do the same seed and the same actions give the same observations, alone and among others?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import (
    Fields,
    ObservationDifference,
    compare,
    episode,
    fields_of,
    listed,
    only_among_others,
    open_alone,
    pattern,
    volatile,
)

_TOGETHER, _ROUNDS = 16, 3
_SEEDS, _REPEATS = 4, 3
"""How many seeds there are, and how often the first of them is played alone; the second once less."""
_STEPS, _SLOW_STEP_S, _SLOW_STEPS = 10, 0.5, 4
_WAIT_S, _PAUSE_S = 0.05, 0.3
_ROUNDS_S = 15.0
_JUDGED_ANYWAY = ("reward", "done")

REMEDY = (
    "let reset(seed=...) make a generator of the environment's own, self.random = random.Random(seed) or "
    "numpy.random.default_rng(seed), and never call random.seed() or numpy.random.seed(), which all sessions share"
)
"""What an author does about observations that depend on who else plays."""


@dataclass(frozen=True)
class Seeded:
    """What the seed decides, learned from sessions on their own.

    `expected` is what each seed shows after the reset and after each step, `decided` are the patterns of the fields
    that differ between seeds and never with the same seed, `volatile` of those that differ with the same seed too.
    `refusal` is the answer to a reset with a seed where it was no observation.
    """

    expected: Mapping[int, Sequence[Fields]]
    decided: frozenset[str]
    volatile: frozenset[str]
    transcripts: Mapping[int, Transcript]
    plays: int
    refusal: Answer | None = None

    @property
    def judged(self) -> frozenset[str]:
        """The fields that have to be the same among others: what the seed decides, and `reward` and `done`."""
        return self.decided | (frozenset(_JUDGED_ANYWAY) - self.volatile)

    def unlike(self, seed: int, seen: Sequence[Fields], fields: frozenset[str]) -> list[ObservationDifference]:
        """Return where an episode with this seed differs from the one alone."""
        return [found for found in compare(self.expected[seed], seen) if pattern(found.path) in fields]


@dataclass
class _Rounds:
    """What the sessions saw that played at the same time."""

    sessions: int = 0
    episodes: int = 0
    answers: int = 0
    unanswered: int = 0
    unlike: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    first: dict[str, tuple[int, ObservationDifference, Transcript]] = field(
        default_factory=dict[str, tuple[int, ObservationDifference, Transcript]]
    )


async def determinism(subject: Subject) -> CheckResult:
    """Play seeds alone and among others, and compare what the sessions saw, field by field."""
    if skipped := await skip_single_slot(subject):
        return skipped
    known = await subject.ask_once(seeded)
    if result := _no_seed(known):
        return result
    count = await sessions_at_once(subject, _TOGETHER)
    rounds = _Rounds()
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if count > 1 and (number == 0 or time.perf_counter() - began < _ROUNDS_S):
            await _round(subject, known, count, number, rounds)
    if rounds.sessions < 2:
        said = f"two sessions at once are needed, and {count_of(rounds.sessions, 'session')} got in"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said)
    return await _judged(subject, known, rounds)


def _no_seed(known: Seeded) -> CheckResult | None:
    """Return the result where no seed decides anything."""
    if known.refusal is not None:
        told = known.refusal.kind == "error" and not known.refusal.full
        outcome = CheckOutcome.SKIPPED if told else CheckOutcome.INCONCLUSIVE
        return CheckResult(outcome, f"a reset with a seed is not answered with an observation: {known.refusal}")
    if known.decided:
        return None
    seeds = f"{min(known.expected)} to {max(known.expected)}"
    said = f"seeds {seeds} give the same observations"
    if any(name.startswith("observation") for name in known.volatile):
        said += f" but for what differs with the same seed too ({listed(known.volatile)})"
    return CheckResult(
        CheckOutcome.SKIPPED, f"{said}: the environment takes no seed", figures={"sessions": known.plays}
    )


async def seeded(subject: Subject) -> Seeded:
    """Play a few seeds alone, one of them several times; ask with `subject.learn(seeded)`."""
    seeds = [subject.seed + number for number in range(1, _SEEDS + 1)]
    plan = [*seeds, *(seeds[:2]), *(seeds[:1] * (_REPEATS - 2))]
    plays: dict[int, list[Sequence[Fields]]] = {seed: [] for seed in seeds}
    shown: dict[int, Transcript] = {}
    for number, seed in enumerate(plan):
        session, views = await _alone(subject, seed, _PAUSE_S if number == len(plan) - 1 else 0.0)
        if not views:
            return Seeded({}, frozenset(), frozenset(), {}, number, session.first_answer)
        plays[seed].append(views)
        shown.setdefault(seed, session.transcript(f"seed {seed} alone"))
    unsteady = frozenset[str]().union(*(volatile(each) for each in plays.values()))
    # The longest, as a lone session may be cut short by what is not its fault.
    expected = {seed: max(each, key=len) for seed, each in plays.items()}
    first = expected[seeds[0]]
    differing = {pattern(found.path) for seed in seeds[1:] for found in compare(first, expected[seed])}
    return Seeded(expected, frozenset(differing - unsteady), unsteady, shown, len(plan))


async def _alone(subject: Subject, seed: int, pause_s: float) -> tuple[RawSession, list[Fields]]:
    """Play a seed alone; nothing was seen where its reset was not answered with an observation."""
    async with subject.client(subject.timeout_s) as client:
        session = await open_alone(client, subject, _reset_data(subject, seed))
        views = await _watch(subject, session, await _steps(subject), pause_s)
        await session.close()
        return session, views


async def _steps(subject: Subject) -> int:
    return _STEPS if (await subject.ask_once(single_session)).step_s < _SLOW_STEP_S else _SLOW_STEPS


def _reset_data(subject: Subject, seed: int) -> Mapping[str, Any]:
    return {**subject.reset_data(seed), "seed": seed}


async def _watch(subject: Subject, session: RawSession, steps: int, pause_s: float = 0.0) -> list[Fields]:
    wait = None if subject.wait_s is None else min(subject.wait_s, _WAIT_S)
    looks = episode(
        session,
        session.first_answer,
        lambda step: subject.action(0, step, wait_s=wait),
        steps,
        ask_state=False,
        pause_s=pause_s,
        pause_at=1,
    )
    return [fields_of(look.answer) async for look in looks]


async def _round(subject: Subject, known: Seeded, count: int, number: int, rounds: _Rounds) -> None:
    """Play one episode in each of so many sessions at once; each seed is played by several of them."""
    seeds = list(known.expected)
    steps = await _steps(subject)
    async with subject.client() as client:
        chosen = [seeds[(place + number) % len(seeds)] for place in range(count)]
        sessions = await open_sessions(client, subject, [_reset_data(subject, seed) for seed in chosen])
        seen = await asyncio.gather(*(_watch(subject, session, steps) for session in sessions))
        for session, views in zip(sessions, seen, strict=True):
            if len(views) < len(known.expected[session.reset_data["seed"]]):
                # Most likely it waits for an answer that does not come: nor would one to a goodbye.
                session.drop()
        await close_all(sessions)
    rounds.sessions = max(rounds.sessions, len(sessions))
    for session, views in zip(sessions, seen, strict=True):
        seed = session.reset_data["seed"]
        rounds.episodes += 1
        rounds.answers += len(views)
        rounds.unanswered += len(views) < len(known.expected[seed])
        for found in known.unlike(seed, views, known.judged):
            path = pattern(found.path)
            rounds.unlike.setdefault(path, set()).add(rounds.episodes)
            if path not in rounds.first:
                rounds.first[path] = seed, found, session.transcript(f"seed {seed} among {len(sessions) - 1} others")


async def _judged(subject: Subject, known: Seeded, rounds: _Rounds) -> CheckResult:
    figures = {"sessions": rounds.sessions, "episodes": rounds.episodes, "answers": rounds.answers}
    details = [f"decided by the seed: {listed(known.decided)}"]
    if known.volatile:
        details.append(f"left out, as it differs with the same seed on its own: {listed(known.volatile)}")
    if rounds.unanswered:
        details.append(f"{count_of(rounds.unanswered, 'episode')} ended early, and counts as far as it went")
    verdict, replayed = await _confirmed(subject, known, rounds) if rounds.unlike else (CheckOutcome.MET, 0)
    among = f"among {rounds.sessions - 1} others"
    if rounds.unlike:
        seed, found, transcript = next(iter(rounds.first[path] for path in rounds.first if path in rounds.unlike))
        differing = len(set[int]().union(*rounds.unlike.values()))
        figures |= {"episodes_differing": differing, "episodes_alone": known.plays + replayed}
        said = f"{differing} of {rounds.episodes} episodes {among} were not as alone: seed {seed}, {found}"
        details = [f"differing: {listed(rounds.unlike)}", *details]
        if verdict is CheckOutcome.INCONCLUSIVE:
            details.append(f"{replayed} more sessions alone are too few to say that it comes from the others")
        remedy = REMEDY if verdict is CheckOutcome.MISSED else None
        return CheckResult(
            verdict,
            said,
            remedy,
            tuple(details),
            figures,
            transcripts=(_until(transcript, found.step), _until(known.transcripts[seed], found.step)),
        )
    if verdict is CheckOutcome.SKIPPED:
        return CheckResult(
            verdict,
            "what the seed seemed to decide differs with the same seed too: the environment takes no seed",
            details=tuple(details),
            figures=figures,
        )
    if rounds.answers <= rounds.episodes:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE, f"no step was answered {among}", details=tuple(details), figures=figures
        )
    return CheckResult(
        CheckOutcome.MET,
        f"{rounds.episodes} episodes with {len(known.expected)} seeds, each {among}: all as alone",
        details=tuple(details),
        figures=figures,
    )


def _until(transcript: Transcript, step: int) -> Transcript:
    """Return a conversation up to the answer to this step: connected, then a question and an answer each."""
    return Transcript(transcript.title, transcript.said[: 3 + 2 * step])


async def _confirmed(subject: Subject, known: Seeded, rounds: _Rounds) -> tuple[CheckOutcome, int]:
    """Play alone until it is clear whether the differences are seen alone too; return how often it was.

    Fields that are, are taken out of the rounds: they are no matter of who else plays. Skipped where the seed decides
    nothing else.
    """
    seeds, decided = list(known.expected), set(known.decided)

    async def again(number: int) -> set[str] | None:
        seed = seeds[number % len(seeds)]
        _, views = await _alone(subject, seed, 0.0)
        seen = {pattern(found.path) for found in known.unlike(seed, views, frozenset(rounds.unlike))}
        decided.difference_update(seen)
        return seen if views else None

    # What was expected of a seed is itself from a session alone: only those played again could differ.
    repeats = known.plays - len(seeds)
    verdict, replayed = await only_among_others(rounds.unlike, rounds.episodes, repeats, again)
    return (CheckOutcome.SKIPPED if verdict is CheckOutcome.MET and not decided else verdict), replayed
