"""Fairness: among sessions that step as fast as they are answered, none waits much longer than the others."""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from pytest_openenv_scale.checks.background import quick_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Figures, Subject, close_all
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
"""A session also starves where it waits for one step this many times as long as the median step takes, and this many
seconds, while the others go on."""

ROUNDS = 3
"""What occurs in each of this many rounds, all with fresh sessions, is due to the server; one fair round is enough."""

_ROUND_S, _LONGEST_ROUND_S, _MEDIAN_STEPS = 2.0, 10.0, 5
"""A round lasts as long as the first, in seconds, and up to the second until the median session has taken the third
number of steps."""

_GRACE_S = 3.0
"""How long after a round sessions may take to finish their step, in seconds."""

_FEWEST_STEPS = 2
"""Shares are judged only if the median session took this many steps: below, one step more or less decides."""

_FEWEST_PEERS = 3
"""From this many sessions of one worker on, they are compared with each other."""


@dataclass(slots=True)
class Player:
    """One session: when its steps were sent and answered, by `time.perf_counter`, in seconds.

    `worker` identifies the process that serves it, None where observations do not tell; `failed` is what ended it.
    """

    session: RawSession
    worker: object = None
    sent: array[float] = field(default_factory=lambda: array("d"))
    answered: array[float] = field(default_factory=lambda: array("d"))
    failed: Answer | None = None

    def waits(self, until: float) -> list[tuple[float, float]]:
        """Return when the wait for each step began and ended; for one not answered yet it ends at `until`."""
        ends = [*self.answered, *[until] * (len(self.sent) - len(self.answered))]
        return [(start, min(end, until)) for start, end in zip(self.sent, ends, strict=True) if start < until]

    def steps(self, until: float) -> int:
        """Return how many steps were answered by `until`."""
        return bisect_right(self.answered, until)

    def pace(self, until: float) -> float:
        """Return the steps per second of waiting for steps; time between steps, as for resets, does not count."""
        waited = sum(end - start for start, end in self.waits(until))
        return self.steps(until) / waited if waited else 0.0


@dataclass(frozen=True, slots=True)
class FairnessRound:
    """What one round showed.

    `slowest_share` is the pace of the slowest session divided by the median pace of those it is compared with,
    `starved_sessions` the number below `LEAST_SHARE`. `longest_wait_s` is the longest wait for a step,
    `steps_meanwhile` how many steps the median other session took in it, `median_wait_s` the median wait of all.
    Sessions of one worker are compared with each other if `by_worker`, else all. `unplayed` counts the sessions that
    could not play on, `failed` is what ended the first of them.
    """

    sessions: int
    steps: tuple[int, ...]
    lasted_s: float
    slowest_share: float
    starved_sessions: int
    longest_wait_s: float
    steps_meanwhile: float
    median_wait_s: float
    by_worker: bool
    slowest: Transcript
    unplayed: int = 0
    failed: Answer | None = None

    @property
    def starved(self) -> bool:
        """Whether a session got less than `LEAST_SHARE`."""
        return self.slowest_share < LEAST_SHARE

    @property
    def stalled(self) -> bool:
        """Whether a session waited very long for one step while the others were answered again and again."""
        return (
            self.longest_wait_s >= max(LONGEST_WAIT_S, LONGEST_WAIT * self.median_wait_s)
            and self.steps_meanwhile >= LONGEST_WAIT / 2
        )


async def fair_shares(subject: Subject) -> CheckResult:
    """Let sessions step as fast as they are answered and compare what the slowest gets with the median."""
    if skipped := await skip_single_slot(subject):
        return skipped
    count = await sessions_at_once(subject, SESSIONS)
    rounds: list[FairnessRound] = []
    for _ in range(ROUNDS):
        fairness_round = await _play_round(subject, count)
        if isinstance(fairness_round, CheckResult):
            return fairness_round
        rounds.append(fairness_round)
        if not fairness_round.starved and not fairness_round.stalled:
            break
    return judge(rounds, one_worker=str(subject.endpoint.limits.get("workers")) == "1")


def judge(rounds: Sequence[FairnessRound], *, one_worker: bool) -> CheckResult:
    """Judge the rounds: the last one was fair, or none was."""
    last = rounds[-1]
    figures: Figures = {
        "sessions": last.sessions,
        "rounds": len(rounds),
        "steps": sum(last.steps),
        "slowest_share_ratio": last.slowest_share,
        "starved_sessions": last.starved_sessions,
        "longest_wait_s": last.longest_wait_s,
        "median_wait_s": last.median_wait_s,
        "compared_by_worker": last.by_worker,
    }
    summary = (
        f"{formatting.count_of(last.sessions, 'session')} took {sum(last.steps):,} steps in {last.lasted_s:.1f} s:"
        f" the slowest went at {formatting.percent(last.slowest_share)} of the median pace, the longest wait was"
        f" {formatting.seconds(last.longest_wait_s)} (median {formatting.seconds(last.median_wait_s)})"
    )
    details = [] if last.failed is None else [f"{last.unplayed} more could not play on: {last.failed}"]
    compared_with = (
        "sessions of the same worker" if last.by_worker else "all sessions, as observations tell no worker (pid)"
    )
    details.append(f"compared with: {compared_with}")
    sessions = formatting.count_of(last.sessions, "session")
    result = CheckResult(CheckOutcome.MET, summary, details=tuple(details), figures=figures)
    if (median_steps := median(last.steps)) < _FEWEST_STEPS:
        headline = (
            f"too few steps to compare: {sessions} took {sum(last.steps):,} in {last.lasted_s:.1f} s, the median one"
            f" {median_steps:g}"
        )
        return replace(result, outcome=CheckOutcome.INCONCLUSIVE, headline=headline)
    if not last.starved and not last.stalled:
        return result
    step_counts = " ".join(f"{steps:,}" for steps in last.steps)
    evidence = (
        summary,
        f"steps by session, least first: {step_counts}",
        f"{len(rounds)} rounds of fresh sessions, all like it",
    )
    result = replace(result, details=(*evidence, *details))
    if last.starved and not last.by_worker and not one_worker and last.starved_sessions * 4 >= last.sessions:
        least = formatting.percent(LEAST_SHARE)
        starved = f"{last.starved_sessions} of {sessions} got less than {least} of what the median one got"
        return replace(
            result,
            outcome=CheckOutcome.INCONCLUSIVE,
            headline=f"{starved}: starved, or all on one busier worker, which the observations do not tell",
            remedy="where one worker serves, tell so with workers=1 in the target (on a URL that changes no server);"
            " where several do, put the process id into observations (pid)",
        )
    headline = (
        f"{formatting.count_of(last.starved_sessions, 'session')} of {last.sessions} starved:"
        f" the slowest went at {formatting.percent(last.slowest_share)} of the median pace"
        if last.starved
        else f"a session waited {formatting.seconds(last.longest_wait_s)} for one step"
        f" while the others took {formatting.number(last.steps_meanwhile)} each"
    )
    return replace(
        result,
        outcome=CheckOutcome.MISSED,
        headline=headline,
        remedy="serve those who wait in the order they came: a lock, a queue or a pool that step() goes through prefers"
        " some sessions (asyncio.Lock and queue.Queue are fair; priorities and try-again loops are not)",
        transcripts=(last.slowest,),
    )


async def _play_round(subject: Subject, count: int) -> FairnessRound | CheckResult:
    async with subject.client() as client:
        sessions = await open_sessions(client, subject, subject.resets(count))
        players = [Player(session, session.first_answer.process) for session in sessions]
        began = time.perf_counter()
        until = await _step_all(subject, players) if len(players) > 1 else began
        await close_all([player.session for player in players if len(player.sent) == len(player.answered)])
    playing = [player for player in players if player.failed is None]
    if len(playing) < 2:
        failed = next((player.failed for player in players if player.failed is not None), None)
        reason = f"the others could not play on: {failed}" if failed else f"{count} were asked for"
        headline = (
            f"{formatting.count_of(len(playing), 'session')} played: {reason}, and there is nobody to compare with"
        )
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    return read_round(players, began, until)


async def _step_all(subject: Subject, players: Sequence[Player]) -> float:
    """Let all sessions step until the round is over; return its end, by `time.perf_counter`."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_step_until_stopped(subject, player, stop)) for player in players]
    began = now = time.perf_counter()
    while now < began + _LONGEST_ROUND_S and not all(task.done() for task in tasks):
        if now >= began + _ROUND_S and median(len(player.answered) for player in players) >= _MEDIAN_STEPS:
            break
        await asyncio.sleep(0.05)
        now = time.perf_counter()
    stop.set()
    # Answers that come now do not count, but a session without a step in flight can be closed.
    done, waiting = await asyncio.wait(tasks, timeout=_GRACE_S)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task in done:
        task.result()
    return now


async def _step_until_stopped(subject: Subject, player: Player, stop: asyncio.Event) -> None:
    session = player.session
    while not stop.is_set():
        at = time.perf_counter()
        player.sent.append(at)
        answer = await session.step(quick_action(subject, session, len(player.answered)))
        if answer.good and answer.latency_s is not None:
            player.answered.append(at + answer.latency_s)
            player.worker = player.worker or answer.process
        if answer.done:
            answer = await session.reset(session.reset_data)
        if not answer.good:
            player.failed = None if stop.is_set() else answer
            return


def read_round(players: Sequence[Player], began: float, until: float) -> FairnessRound:
    """Compare the sessions that played between `began` and `until`; at least two of them did."""
    playing = [player for player in players if player.failed is None]
    groups: dict[object, list[Player]] = defaultdict(list)
    for player in playing:
        groups[player.worker].append(player)
    workers_known = None not in groups
    large = [group for group in groups.values() if len(group) >= _FEWEST_PEERS] if workers_known else []
    compared = large or [playing]
    shares: list[tuple[float, Player]] = []
    longest = (0.0, 0.0)
    for group in compared:
        median_pace = median(player.pace(until) for player in group)
        shares += [(player.pace(until) / median_pace if median_pace else 1.0, player) for player in group]
        longest = max(longest, *(_longest_wait(player, group, until) for player in group))
    share, slowest = min(shares, key=lambda pair: pair[0])
    waits = [end - start for player in playing for start, end in player.waits(until)]
    return FairnessRound(
        sessions=len(playing),
        steps=tuple(sorted(player.steps(until) for player in playing)),
        lasted_s=until - began,
        slowest_share=share,
        starved_sessions=sum(1 for share, _ in shares if share < LEAST_SHARE),
        longest_wait_s=longest[0],
        steps_meanwhile=longest[1],
        median_wait_s=median(waits),
        by_worker=bool(large),
        slowest=slowest.session.transcript(f"session {slowest.session.number}, the slowest"),
        unplayed=len(players) - len(playing),
        failed=next((player.failed for player in players if player.failed is not None), None),
    )


def _longest_wait(player: Player, group: Sequence[Player], until: float) -> tuple[float, float]:
    """Return a session's longest wait in seconds and how many steps the median other session took meanwhile."""
    start, end = max(player.waits(until), key=lambda wait: wait[1] - wait[0], default=(until, until))
    steps_meanwhile = [
        bisect_left(other.answered, end) - bisect_right(other.answered, start) for other in group if other is not player
    ]
    return end - start, median(steps_meanwhile)
