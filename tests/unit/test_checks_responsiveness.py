"""Responsiveness: a step that blocks the loop is told from one that shares a core, a lock from both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from checking_subjects import make_subject
from defects.running import in_thread
from goldens import TIMES, Golden
from pytest_openenv_scale.checks.capacity_probe import Slots, find_slots
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.checks.under_load import responsiveness
from pytest_openenv_scale.checks.under_load.responsiveness import Stepping, StepRound, ask_health, polling_health
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import Peer, accepted, error, observation, refused_port, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


@contextmanager
def served(defect: str, monkeypatch: pytest.MonkeyPatch, limit: int = 4) -> Iterator[Subject]:
    monkeypatch.setattr(responsiveness, "WAIT_S", 0.2)
    monkeypatch.setattr(responsiveness, "_ALONE_S", 0.1)
    monkeypatch.setattr(responsiveness, "ROUNDS", 2)
    with in_thread(defect, limit) as address:
        yield make_subject(f"http://{address}", timeout_s=10.0)


def test_a_sound_server_answers_beside_steps_and_runs_them_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    with served("none", monkeypatch) as asked:
        for check in (responsiveness.health, responsiveness.parallel):
            result = run_check(asked, check)
            assert result.outcome is CheckOutcome.MET, result
            assert result.figures["sessions"] == 4
            assert result.figures["step_alone_s"] == pytest.approx(0.2, abs=0.1)


def test_a_step_that_blocks_the_loop_fails_both(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    with served("blocking_step", monkeypatch) as asked:
        slow, serial = run_check(asked, responsiveness.health), run_check(asked, responsiveness.parallel)
    assert (slow.outcome, serial.outcome) == (CheckOutcome.MISSED, CheckOutcome.MISSED)
    golden(slow.headline, masks=TIMES)
    assert "4 steps at once took " in serial.headline
    assert slow.remedy == serial.remedy
    assert "asyncio.to_thread" in str(slow.remedy)


def test_one_round_is_enough_where_a_step_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responsiveness, "SLOW_STEP_S", 0.0)
    with served("blocking_step", monkeypatch) as asked:
        result = run_check(asked, responsiveness.health)
    assert (result.outcome, result.figures["rounds"]) == (CheckOutcome.MISSED, 1)
    assert "so it was in the one round there was time for" in result.details


def test_a_session_that_is_served_last_is_no_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    with served("unfair_lock", monkeypatch, 8) as asked:
        for check in (responsiveness.health, responsiveness.parallel):
            assert run_check(asked, check).outcome is CheckOutcome.MET


def test_health_is_asked_also_where_one_session_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with served("one_session", monkeypatch) as asked:
        assert run_check(asked, responsiveness.health).outcome is CheckOutcome.MET
        assert run_check(asked, responsiveness.parallel).outcome is CheckOutcome.SKIPPED


async def only_sessions(peer: Peer) -> None:
    """Answer sessions and nothing else; a step takes 0.1 s."""
    head = await peer.head()
    if b"Upgrade" not in head:
        peer.writer.close()
        return
    peer.send(accepted(head))
    while (message := await peer.asked())["type"] != "close":
        if message["type"] == "step":
            await asyncio.sleep(0.1)
        peer.say(error("EXECUTION_ERROR", "busy") if message.get("data") == {"fail": True} else observation())
    await peer.part()


async def test_a_server_without_http_is_judged_by_its_steps_alone() -> None:
    async with scripted(only_sessions) as server:
        asked = make_subject(server.url, wait_s=None, max_sessions=3, workload=Workload(({},)))
        missing, steps = await responsiveness.health(asked), await responsiveness.parallel(asked)
    assert missing.outcome is CheckOutcome.SKIPPED
    assert "no HTTP answer" in missing.headline
    assert steps.outcome is CheckOutcome.MET
    assert steps.headline.startswith("3 steps at once took ")


async def test_a_step_that_fails_beside_others_leaves_it_open() -> None:
    async with scripted(only_sessions) as server:
        asked = make_subject(server.url, wait_s=None, max_sessions=3, workload=Workload(({"fail": True},)))
        asked._answers = {find_slots: Slots(3)}
        result = await responsiveness.parallel(asked)
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "EXECUTION_ERROR (busy)" in result.headline


# Judging what was measured


def asked(check: Any, *rounds: StepRound, waited: bool = False, idle_s: float | None = 0.002) -> CheckResult:
    known = make_subject("http://127.0.0.1:9")
    sessions = len(rounds[0].together_s)
    known._answers = {
        find_slots: Slots(sessions),
        responsiveness.measure_stepping: Stepping(rounds, sessions, waited, idle_s),
    }
    return asyncio.run(check(known))


def stairs(step_s: float, count: int) -> tuple[float, ...]:
    return tuple(step_s * number for number in range(1, count + 1))


def test_threads_that_share_the_interpreter_are_no_blocking(golden: Golden) -> None:
    # As measured: eight steps of 50 ms of Python in threads, /health in between.
    found = StepRound(0.073, (0.42, 0.41, 0.41, 0.40, 0.41, 0.32, 0.41, 0.41), 0.012, 0.285)
    assert asked(responsiveness.health, found).outcome is CheckOutcome.MET
    result = asked(responsiveness.parallel, found)
    assert result.outcome is CheckOutcome.MET
    golden(result.headline)


def test_computing_on_the_event_loop_is_blocking() -> None:
    found = StepRound(0.055, stairs(0.055, 8), 0.056, 0.44)
    assert asked(responsiveness.health, found).outcome is CheckOutcome.MISSED
    assert "block the event loop" in asked(responsiveness.parallel, found).headline


def test_steps_that_wait_for_one_lock_are_missed_as_such(golden: Golden) -> None:
    found = StepRound(0.3, stairs(0.3, 8), 0.003, 0.006)
    assert asked(responsiveness.health, found).outcome is CheckOutcome.MET
    result = asked(responsiveness.parallel, found)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline)
    assert "one lock" in str(result.remedy)


def test_a_blocked_worker_shows_where_the_lone_step_is_on_another_than_http() -> None:
    found = StepRound(0.3, (0.3, 0.6, 0.3, 0.6, 0.9, 1.2, 0.9, 1.5), 0.005, 0.9)
    assert asked(responsiveness.health, found, waited=True).outcome is CheckOutcome.MISSED
    assert asked(responsiveness.parallel, found, waited=True).outcome is CheckOutcome.MISSED


@pytest.mark.parametrize("check", [responsiveness.health, responsiveness.parallel])
def test_short_steps_hold_nobody_up(golden: Golden, check: Any) -> None:
    result = asked(check, StepRound(0.002, stairs(0.002, 8), 0.004, 0.015))
    assert result.outcome is CheckOutcome.MET
    golden(result.headline)
    assert result.figures["steps_together_s"] == 0.016


def test_one_late_answer_in_one_round_is_no_evidence() -> None:
    late, good = StepRound(0.3, (0.31,) * 8, 0.4, 0.02), StepRound(0.3, (0.31,) * 8, 0.01, 0.02)
    assert asked(responsiveness.health, late, good, waited=True).outcome is CheckOutcome.MET
    assert asked(responsiveness.health, late, late, late, waited=True).outcome is CheckOutcome.MISSED


@pytest.mark.parametrize("count", [2, 3, 8])
def test_serial_steps_show_with_two_sessions_already(count: int) -> None:
    assert StepRound(0.3, stairs(0.3, count), None, None).one_after_another
    assert not StepRound(0.3, (0.32,) * count, None, None).serial


@pytest.mark.parametrize("workers", [(1, 7), (1, 1, 1, 5), (2, 6), (2, 3, 3, 8), (1, 4, 4, 7)])
def test_sessions_spread_unevenly_over_workers_are_no_stairs(workers: tuple[int, ...]) -> None:
    # Each worker's sessions share its core and end together, after as many times the lone step.
    found = StepRound(0.3, tuple(0.3 * count for count in workers for _ in range(count)), None, None)
    assert found.serial
    assert not found.one_after_another


@pytest.mark.parametrize("workers", [(8,), (3, 5), (1, 7), (1, 1, 1, 5), (2, 3, 3, 8)])
def test_steps_in_a_row_on_each_worker_are_stairs(workers: tuple[int, ...]) -> None:
    steps = tuple(step_s for count in workers for step_s in stairs(0.3, count))
    assert StepRound(0.3, steps, None, None).one_after_another


# The probe


async def test_a_server_without_http_is_asked_for_it_once() -> None:
    asked_for: list[bytes] = []

    async def script(peer: Peer) -> None:
        asked_for.append(await peer.head())
        peer.writer.close()

    async with scripted(script) as server:
        assert await responsiveness._idle_health_s(make_subject(server.url)) is None
    assert len(asked_for) == 1


async def test_any_http_answer_counts_and_its_wait_is_measured() -> None:
    async def script(peer: Peer) -> None:
        assert (await peer.head()).startswith(b"GET /base/health HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server:
        answer = await asyncio.to_thread(ask_health, f"{server.url}/base/", {"X-Key": "1"}, 5.0)
    assert answer.status == 404
    assert 0.1 <= answer.latency_s < 2.0


def test_no_answer_has_no_status_and_ends_in_time() -> None:
    with refused_port() as port:
        assert ask_health(f"http://127.0.0.1:{port}", {}, 5.0).status is None


async def test_an_answer_that_is_late_is_waited_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(0.3)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server:
        began = time.perf_counter()
        async with polling_health(make_subject(server.url), 5.0) as answers:
            await asyncio.sleep(0.05)
    assert [answer.status for answer in answers] == [200]
    assert time.perf_counter() - began >= 0.3


async def test_an_answer_that_comes_a_byte_now_and_then_is_given_up_in_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not peer.writer.is_closing():
            peer.send(b" ")
            await asyncio.sleep(0.02)

    async with scripted(script) as server:
        answer = await asyncio.wait_for(asyncio.to_thread(ask_health, server.url, {}, 0.2), 5)
    assert answer.latency_s >= 0.2
