"""Fairness: of sessions that step as fast as they are answered, none waits much longer than the others."""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pytest_openenv_scale.checks.background import quick_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

SESSIONS = 16
"""How many sessions play at once, where so many fit."""

LEAST_SHARE = 0.4
"""A session that gets less than this share of the median session's steps starves.

Below a half, with room for chance: a server that serves whoever is ready, turn by turn, has a session that answers last
sit out every other turn.
"""

LONGEST_WAIT, LONGEST_WAIT_S = 20.0, 1.0
"""So does one that waits for one step this many times as long as the median step takes, and this many seconds, while
the others go on."""

ROUNDS = 3
"""What is seen in each of so many rounds, all with fresh sessions, is the server's doing; one fair round is enough."""

_ROUND_S, _LONGEST_ROUND_S, _STEPS = 2.0, 10.0, 5
"""A round lasts this long, and longer, up to the second figure, until the median session has so many steps."""

_GRACE_S = 3.0
"""How long after a round sessions may take to finish their step."""

_FEWEST_STEPS = 2
"""Of how many steps of the median session shares can be told: one more or less is otherwise everything or nothing."""

_PEERS = 3
"""Sessions of one worker from which these are compared among each other."""


@dataclass(slots=True)
class Player:
    """One session: when its steps were sent and answered, by `time.perf_counter`, in seconds.

    `worker` tells which process serves it, None where observations do not say; `failed` is what ended its playing.
    """

    session: RawSession
    worker: object = None
    sent: array[float] = field(default_factory=lambda: array("d"))
    answered: array[float] = field(default_factory=lambda: array("d"))
    failed: Answer | None = None

    def waits(self, until: float) -> list[tuple[float, float]]:
        """Return from when to when each step was waited for; one without an answer yet, until now."""
        ends = [*self.answered, *[until] * (len(self.sent) - len(self.answered))]
        return [(start, min(end, until)) for start, end in zip(self.sent, ends, strict=True) if start < until]

    def steps(self, until: float) -> int:
        """Return how many steps were answered."""
        return bisect_right(self.answered, until)

    def pace(self, until: float) -> float:
        """Return the steps per second of waiting for them; what lies between, resets for example, is not counted."""
        waited = sum(end - start for start, end in self.waits(until))
        return self.steps(until) / waited if waited else 0.0


@dataclass(frozen=True, slots=True)
class FairnessRound:
    """What one round showed.

    `share` is the pace of the slowest session by the median pace of those it is compared with, `below` the number of
    sessions that got less than `LEAST_SHARE`. `longest_s` is the longest wait for a step, `passed` how often the
    median other session was answered meanwhile, `median_s` the median wait of all. Those of one worker are compared
    with each other if `by_worker`, else all. `failed` is what ended the sessions that could not play on, `unplayed`.
    """

    sessions: int
    steps: tuple[int, ...]
    lasted_s: float
    share: float
    below: int
    longest_s: float
    passed: float
    median_s: float
    by_worker: bool
    slowest: Transcript
    unplayed: int = 0
    failed: Answer | None = None

    @property
    def starved(self) -> bool:
        """Whether a session got less than its share."""
        return self.share < LEAST_SHARE

    @property
    def stalled(self) -> bool:
        """Whether a session waited very long for one step while the others were answered again and again."""
        return self.longest_s >= max(LONGEST_WAIT_S, LONGEST_WAIT * self.median_s) and self.passed >= LONGEST_WAIT / 2


async def shares(subject: Subject) -> CheckResult:
    """Let sessions step as fast as they are answered and compare what the slowest gets with the median."""
    if skipped := await skip_single_slot(subject):
        return skipped
    wanted = await sessions_at_once(subject, SESSIONS)
    rounds: list[FairnessRound] = []
    for _ in range(ROUNDS):
        played = await _round(subject, wanted)
        if isinstance(played, CheckResult):
            return played
        rounds.append(played)
        if not played.starved and not played.stalled:
            break
    return judge(rounds, one_worker=str(subject.endpoint.limits.get("workers")) == "1")


def judge(rounds: Sequence[FairnessRound], *, one_worker: bool) -> CheckResult:
    """Judge the rounds; the last one was fair, or all of them were not."""
    last = rounds[-1]
    figures: dict[str, float | int | str | bool | None] = {
        "sessions": last.sessions,
        "rounds": len(rounds),
        "steps": sum(last.steps),
        "slowest_share_ratio": last.share,
        "starved_sessions": last.below,
        "longest_wait_s": last.longest_s,
        "median_wait_s": last.median_s,
        "compared_by_worker": last.by_worker,
    }
    played = (
        f"{formatting.count_of(last.sessions, 'session')} took {sum(last.steps):,} steps in {last.lasted_s:.1f} s:"
        f" the slowest went at {formatting.percent(last.share)} of the median pace, the longest wait was"
        f" {formatting.seconds(last.longest_s)} (median {formatting.seconds(last.median_s)})"
    )
    details = [] if last.failed is None else [f"{last.unplayed} more could not play on: {last.failed}"]
    whom = "sessions of the same worker" if last.by_worker else "all sessions, as observations tell no worker (pid)"
    details.append(f"compared with: {whom}")
    if (usual := median(last.steps)) < _FEWEST_STEPS:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"too few steps to compare: {formatting.count_of(last.sessions, 'session')} took {sum(last.steps):,} in"
            f" {last.lasted_s:.1f} s, the median one {usual:g}",
            details=tuple(details),
            figures=figures,
        )
    if not last.starved and not last.stalled:
        return CheckResult(CheckOutcome.MET, played, details=tuple(details), figures=figures)
    shown = " ".join(f"{steps:,}" for steps in last.steps)
    details = [
        f"steps by session, least first: {shown}",
        f"{len(rounds)} rounds of fresh sessions, all like it",
        *details,
    ]
    if last.starved and not last.by_worker and not one_worker and last.below * 4 >= last.sessions:
        least = formatting.percent(LEAST_SHARE)
        said = f"{last.below} of {last.sessions} sessions got less than {least} of what the median one got"
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"{said}: starved, or all on one busier worker, which the observations do not tell",
            remedy="write workers=N as a key of the target, or put the process id into observations (pid)",
            details=(played, *details),
            figures=figures,
        )
    what = (
        f"{formatting.count_of(last.below, 'session')} of {last.sessions} starved:"
        f" the slowest went at {formatting.percent(last.share)} of the median pace"
        if last.starved
        else f"a session waited {formatting.seconds(last.longest_s)} for one step"
        f" while the others took {formatting.number(last.passed)} each"
    )
    return CheckResult(
        CheckOutcome.MISSED,
        what,
        remedy="serve those who wait in the order they came: a lock, a queue or a pool that step() goes through prefers"
        " some sessions (asyncio.Lock and queue.Queue are fair; priorities and try-again loops are not)",
        details=(played, *details),
        figures=figures,
        transcripts=(last.slowest,),
    )


async def _round(subject: Subject, wanted: int) -> FairnessRound | CheckResult:
    async with subject.client() as client:
        held = await open_sessions(client, subject, [subject.reset_data(subject.seed + number) for number in range(wanted)])
        players = [Player(session, _worker(session.first_answer)) for session in held]
        began = time.perf_counter()
        until = await _play(subject, players) if len(players) > 1 else began
        await close_all([player.session for player in players if len(player.sent) == len(player.answered)])
    playing = [player for player in players if player.failed is None]
    if len(playing) < 2:
        failed = next((player.failed for player in players if player.failed is not None), None)
        why = f"the others could not play on: {failed}" if failed else f"{wanted} were asked for"
        said = f"{formatting.count_of(len(playing), 'session')} played: {why}, and there is nobody to compare with"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said)
    return read_round(players, began, until)


async def _play(subject: Subject, players: Sequence[Player]) -> float:
    """Let all step until the round is over; return when that was."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_step_on(subject, player, stop)) for player in players]
    began = now = time.perf_counter()
    while now < began + _LONGEST_ROUND_S and not all(task.done() for task in tasks):
        if now >= began + _ROUND_S and median(len(player.answered) for player in players) >= _STEPS:
            break
        await asyncio.sleep(0.05)
        now = time.perf_counter()
    stop.set()
    # What comes now does not count, but who has got an answer can say goodbye.
    done, waiting = await asyncio.wait(tasks, timeout=_GRACE_S)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task in done:
        task.result()
    return now


async def _step_on(subject: Subject, player: Player, stop: asyncio.Event) -> None:
    session = player.session
    while not stop.is_set():
        at = time.perf_counter()
        player.sent.append(at)
        answer = await session.step(quick_action(subject, session.number, len(player.answered)))
        if answer.good and answer.latency_s is not None:
            player.answered.append(at + answer.latency_s)
            player.worker = player.worker or _worker(answer)
        if answer.done:
            answer = await session.reset(session.reset_data)
        if not answer.good:
            player.failed = None if stop.is_set() else answer
            return


def read_round(players: Sequence[Player], began: float, until: float) -> FairnessRound:
    """Compare the sessions that played from one moment to another; at least two of them did."""
    playing = [player for player in players if player.failed is None]
    groups: dict[object, list[Player]] = defaultdict(list)
    for player in playing:
        groups[player.worker].append(player)
    known = None not in groups
    large = [group for group in groups.values() if len(group) >= _PEERS] if known else []
    compared = large or [playing]
    shares: list[tuple[float, Player]] = []
    longest = (0.0, 0.0)
    for group in compared:
        usual = median(player.pace(until) for player in group)
        shares += [(player.pace(until) / usual if usual else 1.0, player) for player in group]
        longest = max(longest, *(_longest(player, group, until) for player in group))
    share, slowest = min(shares, key=lambda pair: pair[0])
    waits = [end - start for player in playing for start, end in player.waits(until)]
    return FairnessRound(
        sessions=len(playing),
        steps=tuple(sorted(player.steps(until) for player in playing)),
        lasted_s=until - began,
        share=share,
        below=sum(1 for share, _ in shares if share < LEAST_SHARE),
        longest_s=longest[0],
        passed=longest[1],
        median_s=median(waits),
        by_worker=bool(large),
        slowest=slowest.session.transcript(f"session {slowest.session.number}, the slowest"),
        unplayed=len(players) - len(playing),
        failed=next((player.failed for player in players if player.failed is not None), None),
    )


def _longest(player: Player, group: Sequence[Player], until: float) -> tuple[float, float]:
    """Return a session's longest wait and how many steps the median other one took meanwhile."""
    start, end = max(player.waits(until), key=lambda wait: wait[1] - wait[0], default=(until, until))
    passed = [
        bisect_left(other.answered, end) - bisect_right(other.answered, start) for other in group if other is not player
    ]
    return end - start, median(passed)


def _worker(answer: Answer) -> object:
    told = answer.observation
    pid = told.get("pid")
    return (str(told.get("host_url")), pid) if type(pid) is int else None
