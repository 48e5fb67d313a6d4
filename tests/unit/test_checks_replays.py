"""What sessions alone have to show before it is said of the others that it is their doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks.isolation.replays import (
    MAX_CHANCE,
    Deviations,
    ReplayVerdict,
    Suspect,
    judge_by_replaying,
    replay_s,
)
from pytest_openenv_scale.engine.warm_up import solo_sessions_needed
from pytest_openenv_scale.results.outcome import CheckOutcome

MET, MISSED, INCONCLUSIVE = CheckOutcome.MET, CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE

BEAR, WOLF, BOARD = (1, "bear", 0), (2, "wolf", 0), (1, "board", 0)


def suspects(count: int, **fields: Any) -> list[Suspect[int]]:
    """So many episodes that deviated in these fields."""
    return [Suspect(number, {name: {seen} for name, seen in fields.items()}) for number in range(count)]


async def judged(
    odd: Sequence[Suspect[int]], among: int, play: Callable[[int, int], Deviations | None], within_s: float = 60.0
) -> ReplayVerdict[int]:
    """The verdict where an episode shows alone what `play` says of its number and the number of plays so far."""

    async def replay(suspect: Suspect[int], number: int) -> Deviations | None:
        return play(suspect.episode, number)

    return await judge_by_replaying(odd, replay, among=among, alone=2, within_s=within_s)


async def test_what_none_alone_sees_is_the_others_doing_once_chance_is_out() -> None:
    verdict = await judged(suspects(8, board=BOARD), 16, lambda episode, number: {})
    assert (verdict.outcome, len(verdict.left), verdict.fields) == (MISSED, 8, {"board"})
    assert verdict.plays == solo_sessions_needed(8, 16, max_chance=MAX_CHANCE) - 2


@pytest.mark.parametrize("count", [1, 250])
async def test_what_the_same_seed_shows_alone_is_explained_whatever_its_rate(count: int) -> None:
    verdict = await judged(suspects(count, room=BEAR), 5000, lambda episode, number: {"room": {BEAR}})
    assert (verdict.outcome, verdict.repeated, verdict.plays, verdict.left) == (MET, count, count, [])
    assert verdict.repeated_fields == {"room"}


async def test_what_comes_by_chance_alone_too_is_left_out_and_the_rest_is_judged() -> None:
    def play(episode: int, number: int) -> Deviations:
        return {"clock": {(9, "clock", 9)}} if number == 2 else {}

    verdict = await judged(suspects(8, board=BOARD, clock=WOLF), 16, play)
    assert (verdict.outcome, verdict.random, verdict.fields) == (MISSED, {"clock"}, {"board"})
    verdict = await judged(suspects(8, clock=WOLF), 16, play)
    assert (verdict.outcome, verdict.random, verdict.plays) == (MET, {"clock"}, 4)


async def test_what_the_seed_shows_alone_does_not_explain_what_differs_from_it() -> None:
    """A field may hold the seed's doing and another session's: only what is the same alone is the seed's."""
    verdict = await judged(suspects(16, room=WOLF), 16, lambda episode, number: {"room": {BEAR}})
    assert (verdict.outcome, verdict.random) == (MISSED, frozenset())


async def test_a_leak_among_events_of_the_seed_is_found() -> None:
    odd = [*suspects(40, room=BEAR), *suspects(80, room=WOLF)[40:]]
    verdict = await judged(odd, 400, lambda episode, number: {"room": {BEAR}} if episode < 40 else {})
    assert verdict.outcome is MISSED
    assert verdict.repeated > 0
    assert all(WOLF in suspect.deviations["room"] for suspect in verdict.left if suspect.alone is not None)


@pytest.mark.parametrize("among", [30, 6000])
async def test_a_rate_that_needs_more_plays_than_there_is_time_for_decides_nothing(among: int) -> None:
    verdict = await judged(suspects(1, board=BOARD), among, lambda episode, number: {})
    assert (verdict.outcome, verdict.answered, verdict.needed) == (INCONCLUSIVE, True, None)
    # One in `among` alone would have shown by then, most likely.
    assert verdict.plays == 3 * among


async def test_no_play_begins_after_the_time_is_up() -> None:
    verdict = await judged(suspects(8, board=BOARD), 16, lambda episode, number: {}, within_s=0.0)
    assert (verdict.outcome, verdict.plays) == (INCONCLUSIVE, 1)
    verdict = await judged(suspects(8, room=BEAR), 16, lambda episode, number: {"room": {BEAR}}, within_s=0.0)
    assert (verdict.outcome, verdict.repeated, len(verdict.left)) == (MET, 1, 7)


async def test_a_server_that_does_not_answer_alone_leaves_it_open() -> None:
    verdict = await judged(suspects(8, board=BOARD), 16, lambda episode, number: None if number else {})
    assert (verdict.outcome, verdict.plays, verdict.answered) == (INCONCLUSIVE, 1, False)


def test_before_a_deadline_a_part_of_the_time_is_spent_on_it() -> None:
    assert replay_s(make_subject("http://127.0.0.1:1")) == 60.0
    assert 0 < replay_s(make_subject("http://127.0.0.1:1", deadline=time.monotonic() + 40.0)) <= 10.0
