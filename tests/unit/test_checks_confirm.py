"""What sessions alone have to show before it is said of the others that it is their doing."""

from __future__ import annotations

import pytest

from pytest_openenv_scale.checks.isolation import observations
from pytest_openenv_scale.checks.isolation.observations import confirm_by_replaying, fisher_probability
from pytest_openenv_scale.results.outcome import CheckOutcome

HALF = set(range(8))
"""The episodes in which something was seen, of sixteen."""

MET, MISSED, INCONCLUSIVE = CheckOutcome.MET, CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE


async def nothing(number: int) -> set[str] | None:
    return set()


async def test_what_none_alone_sees_is_the_others_doing_once_chance_is_out() -> None:
    suspects = {"board": {*HALF}}
    verdict, plays = await confirm_by_replaying(suspects, 16, 2, nothing)
    assert (verdict, suspects) == (MISSED, {"board": HALF})
    assert fisher_probability(8, 16, 2 + plays) < 0.001 <= fisher_probability(8, 16, 1 + plays)


async def test_names_take_all_the_plays_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await confirm_by_replaying({"name": {*HALF}}, 16, 2, nothing, rare={"name"}) == (
        MISSED,
        observations.MAX_REPLAYS,
    )
    monkeypatch.setattr(observations, "REPLAY_S", 0.0)
    assert await confirm_by_replaying({"name": {*HALF}}, 16, 2, nothing, rare={"name"}) == (INCONCLUSIVE, 1)


async def test_what_is_seen_alone_too_is_taken_out_and_the_rest_is_judged() -> None:
    async def again(number: int) -> set[str] | None:
        return {"clock", "luck"} if number == 2 else set()

    suspects = {"clock": {1, 2}, "board": {*HALF}}
    assert (await confirm_by_replaying(suspects, 16, 2, again))[0] is MISSED
    assert suspects == {"board": HALF}
    assert await confirm_by_replaying({"clock": {1, 2}}, 16, 2, again) == (MET, 3)


async def test_a_server_that_does_not_answer_alone_leaves_it_open() -> None:
    async def again(number: int) -> set[str] | None:
        return None if number else set()

    assert await confirm_by_replaying({"board": {*HALF}}, 16, 2, again) == (INCONCLUSIVE, 1)
