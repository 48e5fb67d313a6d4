"""Fairness: a session that starves among others fails it, uneven workers do not."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from checking_subjects import make_subject, served
from defects.running import in_process
from goldens import Golden
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.under_load import fairness
from pytest_openenv_scale.checks.under_load.fairness import FairnessRound, Player
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import CAPACITY, Peer, error, observation, scripted


def check_fairness(defect: str, monkeypatch: pytest.MonkeyPatch, limit: int = 16, **changes: Any) -> CheckResult:
    monkeypatch.setattr(fairness, "_ROUND_S", 0.7)
    with in_process(defect, limit) as (_, address):
        return run_check(
            make_subject(f"http://{address}", max_sessions=16, timeout_s=10.0, **changes), fairness.fair_shares
        )


def test_a_sound_server_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    result = check_fairness("none", monkeypatch)
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["sessions"] == 16
    assert result.figures["rounds"] in (1, 2)


def test_a_session_that_others_pass_again_and_again_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    result = check_fairness("unfair_lock", monkeypatch, endpoint={"limits": {"workers": 1}})
    assert result.outcome is CheckOutcome.MISSED, result
    assert result.headline.startswith("2 sessions of 16 starved")
    assert result.figures["rounds"] == 3
    assert result.transcripts


async def test_a_server_of_one_session_has_nobody_to_be_unfair_to() -> None:
    async with served("one_session") as url:
        result = await fairness.fair_shares(make_subject(url))
    assert result.outcome is CheckOutcome.SKIPPED
    assert "max_concurrent_envs" in f"{result.headline} {result.remedy}"


async def test_sessions_that_cannot_play_on_leave_nobody_to_compare() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            bad = message["type"] == "step" and peer.number > 0
            peer.say(error("EXECUTION_ERROR", "no more boards") if bad else observation())
        await peer.part()

    async with scripted(script) as server:
        result = await fairness.fair_shares(make_subject(server.url, max_sessions=4))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "EXECUTION_ERROR (no more boards)" in result.headline


@pytest.mark.usefixtures("quick_waits")
async def test_slots_that_are_gone_leave_nobody_to_compare(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        if peer.number > 4:
            peer.say(CAPACITY)
            await peer.part()
            return
        peer.say(observation())
        while (await peer.asked())["type"] != "close":
            peer.say(observation())
        await peer.part()

    monkeypatch.setattr("pytest_openenv_scale.checks.capacity_probe.open_sessions.__kwdefaults__", {"within_s": 1.0})
    async with scripted(script) as server:
        result = await fairness.fair_shares(make_subject(server.url, max_sessions=4))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.headline)


# Reading and judging what was played


def player(number: int, every_s: float, *, worker: object = None, stalled_s: float = 0.0) -> Player:
    """A session that steps without a pause for 10 s, each step `every_s`, the one in the middle `stalled_s` longer."""
    sent, answered, at = array("d"), array("d"), 0.0
    while at < 10.0:
        sent.append(at)
        at += every_s + (stalled_s if at < 5.0 <= at + every_s else 0.0)
        answered.append(at)
    return Player(RawSession(number, 0.0, 1.0), worker, sent, answered)


def played(*players: Player) -> FairnessRound:
    return fairness.read_round(players, 0.0, 10.0)


def many(every_s: float, count: int, **changes: Any) -> list[Player]:
    return [player(number, every_s, **changes) for number in range(count)]


def judged(measured_round: FairnessRound, *, one_worker: bool = False) -> CheckResult:
    return fairness.judge([measured_round] * fairness.ROUNDS, one_worker=one_worker)


@pytest.mark.parametrize(("every_s", "starved"), [(0.022, False), (0.024, False), (0.026, True)])
def test_a_session_starves_below_two_fifths_of_the_median_pace(every_s: float, starved: bool) -> None:
    measured_round = played(*many(0.01, 7), player(7, every_s))
    assert measured_round.starved is starved
    assert measured_round.slowest_share == pytest.approx(0.01 / every_s, rel=0.02)
    assert judged(measured_round).outcome is (CheckOutcome.MISSED if starved else CheckOutcome.MET)


def test_one_fair_round_is_enough() -> None:
    unfair, fair = played(*many(0.01, 7), player(7, 0.1)), played(*many(0.01, 8))
    assert fairness.judge([unfair, unfair, fair], one_worker=True).outcome is CheckOutcome.MET


def test_a_session_that_is_never_answered_starves_most() -> None:
    silent = Player(RawSession(9, 0.0, 1.0), None, array("d", [0.5]))
    measured_round = played(*many(0.01, 7), silent)
    assert (measured_round.slowest_share, measured_round.longest_wait_s) == (0.0, 9.5)
    assert judged(measured_round).outcome is CheckOutcome.MISSED


def test_sessions_of_a_busier_worker_are_compared_with_each_other() -> None:
    measured_round = played(*many(0.01, 4, worker=("", 1)), *many(0.05, 12, worker=("", 2)))
    assert measured_round.by_worker
    assert judged(measured_round).outcome is CheckOutcome.MET
    starved = played(*many(0.01, 4, worker=("", 1)), *many(0.05, 11, worker=("", 2)), player(0, 0.2, worker=("", 2)))
    assert judged(starved).outcome is CheckOutcome.MISSED


def test_workers_that_nobody_tells_apart_are_no_evidence() -> None:
    measured_round = played(*many(0.01, 9), *many(0.05, 7))
    assert judged(measured_round).outcome is CheckOutcome.INCONCLUSIVE
    assert judged(measured_round, one_worker=True).outcome is CheckOutcome.MISSED


def test_one_long_wait_while_others_go_on_is_a_stall_but_a_pause_of_all_is_none(golden: Golden) -> None:
    measured_round = played(*many(0.01, 7), player(7, 0.01, stalled_s=1.5))
    assert not measured_round.starved
    assert measured_round.stalled
    result = judged(measured_round)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline)
    assert not played(*many(0.01, 8, stalled_s=1.5)).stalled


@pytest.mark.parametrize(("every_s", "outcome"), [(6.0, CheckOutcome.INCONCLUSIVE), (4.0, CheckOutcome.MET)])
def test_a_single_step_each_is_too_little_to_compare(golden: Golden, every_s: float, outcome: CheckOutcome) -> None:
    result = judged(played(*many(every_s, 4)))
    assert result.outcome is outcome, result
    if outcome is CheckOutcome.INCONCLUSIVE:
        golden(result.headline)


def test_sessions_none_of_which_is_answered_are_not_called_fair() -> None:
    silent = [Player(RawSession(number, 0.0, 1.0), None, array("d", [0.5])) for number in range(4)]
    assert judged(played(*silent)).outcome is CheckOutcome.INCONCLUSIVE


def test_a_session_that_ended_is_not_compared(golden: Golden) -> None:
    ended = player(8, 0.5)
    ended.failed = Answer("closed", code="1000")
    measured_round = played(*many(0.01, 7), ended)
    assert (measured_round.sessions, measured_round.unplayed, measured_round.starved) == (7, 1, False)
    golden(judged(measured_round).details)
