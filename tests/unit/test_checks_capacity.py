"""Past its limit a server says so, disturbs nobody, and gives slots back: every verdict, and how many sessions fit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checking_subjects import make_subject
from goldens import TIMES
from pytest_openenv_scale.checks import capacity_probe
from pytest_openenv_scale.checks.background import BackgroundLoad
from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.checks.under_load import full_server
from pytest_openenv_scale.checks.under_load import limit as under_load_limit
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_house import House
from scripted_server import CLOSE, Peer, error, frame, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED, INCONCLUSIVE, SKIPPED = (
    CheckOutcome.MET,
    CheckOutcome.MISSED,
    CheckOutcome.INCONCLUSIVE,
    CheckOutcome.SKIPPED,
)


@pytest.fixture(autouse=True)
def _short_times(monkeypatch):
    """What is watched for seconds on real servers is watched for moments here."""
    for name, value in {"_BEFORE_S": 0.02, "_DURING_S": 0.2, "_AFTER_S": 0.02, "_NEWCOMER_PAUSE_S": 0.01}.items():
        monkeypatch.setattr(under_load_limit, name, value)
    monkeypatch.setattr(under_load_limit, "SLOT_RETURN_LIMIT_S", 0.5)
    monkeypatch.setattr(under_load_limit, "_SHORT_SLOT_RETURN_S", 0.2)
    monkeypatch.setattr(under_load_limit, "MID_STEP_S", 0.1)


async def ask(check: Any, server: House, **changes: Any) -> CheckResult:
    async with scripted(server) as running:
        return await check(make_subject(running.url, **changes))


# Refusal


async def test_a_refusal_at_once_that_says_why_is_met_with_its_time(golden):
    result = await ask(under_load_limit.refusal, House(4))
    assert result.outcome is MET
    golden(result.headline, masks=TIMES)
    assert 0 < result.figures["refusal_s"] < 2
    assert (result.figures["sessions"], result.figures["refused"], result.figures["unclear"]) == (4, 8, 0)


async def test_a_limit_of_one_is_configuration_with_the_line_to_change(golden):
    result = await ask(under_load_limit.refusal, House(1))
    assert result.outcome is MET
    golden(result.headline, masks=TIMES)
    assert "max_concurrent_envs=N in create_app(...)" in str(result.remedy)
    assert str(result.remedy).startswith("1. SUPPORTS_CONCURRENT_SESSIONS = True")


async def test_workers_times_limit_is_told_where_it_is_known():
    result = await ask(under_load_limit.refusal, House(4), endpoint={"limits": {"workers": 2, "max_envs": 2}})
    assert "4 = 2 workers × 2" in result.headline
    assert "4 = at least 2 workers × 2" in (await ask(under_load_limit.refusal, House(4))).headline


async def _cut(peer: Peer) -> None:
    await peer.part()


async def _reset(peer: Peer) -> None:
    peer.reset()


async def _silent(peer: Peer) -> None:
    await peer.gone()


async def _with_words(peer: Peer) -> None:
    peer.send(frame(CLOSE, (1000).to_bytes(2, "big") + b"no room"))
    while (await peer.hear())[0] != CLOSE:
        pass
    peer.writer.close()


async def _other_code(peer: Peer) -> None:
    peer.say(error("EXECUTION_ERROR", "division by zero"))
    await peer.part()


@pytest.mark.parametrize(
    ("refuse", "headline_part"), [(_cut, "closed with 1000"), (_reset, "ECONNRESET"), (_other_code, "division by zero")]
)
async def test_a_refusal_that_does_not_say_why_is_missed_with_what_a_client_sees(golden, refuse, headline_part):
    result = await ask(under_load_limit.refusal, House(4, refuse))
    assert result.outcome is MISSED
    golden(result.headline)
    assert headline_part in result.headline
    assert "CAPACITY_REACHED" in str(result.remedy)
    assert result.transcripts[0].said


async def test_a_close_frame_with_a_reason_is_a_clear_refusal():
    assert (await ask(under_load_limit.refusal, House(4, _with_words))).outcome is MET


@pytest.mark.parametrize(("status", "clear"), [("429", True), ("503", True), ("403", True), ("500", False)])
def test_the_status_of_a_refused_handshake_says_whether_the_server_is_full(status, clear):
    assert under_load_limit._says_full(Answer("lost", code=status)) is clear


async def test_one_unclear_refusal_among_clear_ones_is_told_but_forgiven(golden):
    # Sixteen in a row are turned away to learn how many fit, and sixteen to fill the server; then eight count.
    count = 0

    async def sometimes(peer: Peer) -> None:
        nonlocal count
        count += 1
        await (_cut(peer) if count == 35 else House().refuse(peer))

    result = await ask(under_load_limit.refusal, House(4, sometimes))
    assert result.outcome is MET
    golden([detail for detail in result.details if detail.startswith("1 of 8")])


async def test_silence_is_missed_in_so_many_seconds(golden):
    result = await ask(under_load_limit.refusal, House(2, _silent), timeout_s=0.3)
    assert result.outcome is MISSED
    golden(result.headline)


async def test_a_late_refusal_is_missed(monkeypatch):
    monkeypatch.setattr(under_load_limit, "_PROMPT_S", 0.05)

    async def late(peer: Peer) -> None:
        await asyncio.sleep(0.15)
        await House().refuse(peer)

    result = await ask(under_load_limit.refusal, House(4, late))
    assert result.outcome is MISSED
    assert "refused only after" in result.headline


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_a_limit_beyond_the_batches_is_skipped_with_the_option_that_asks_for_more(golden, check):
    result = await ask(check, House(100), endpoint={"limits": {"workers": 2, "max_envs": 50}})
    assert result.outcome is SKIPPED
    golden(result.headline)


async def test_a_limit_beyond_what_this_machine_can_open_is_skipped_with_what_to_raise(golden, monkeypatch):
    async def none_more(client, subject, most, inside=()):
        return list(inside), []

    monkeypatch.setattr(capacity_probe, "fill_server", none_more)
    result = await ask(under_load_limit.refusal, House(100))
    assert result.outcome is SKIPPED
    golden(result.headline)


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_a_server_without_any_slot_left_is_missed_by_what_it_held_before(golden, check):
    server = House(2)
    async with scripted(server) as running:
        subject = make_subject(running.url, timeout_s=0.3)
        await subject.learn(capacity_probe.find_slots)
        server.inside = 2
        result = await check(subject)
    assert result.outcome is MISSED
    golden(result.headline)
    assert (result.figures["slots_before"], result.figures["slots_after"]) == (2, 0)


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_slots_that_are_taken_at_the_start_are_told(golden, check):
    server = House(4)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        await subject.learn(capacity_probe.find_slots)
        server.inside = 1
        result = await check(subject)
    assert result.outcome is MET, result
    golden(result.details)
    assert not any("at the start" in detail for detail in (await ask(check, House(4))).details)


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_slots_that_come_back_a_little_late_are_waited_for(check):
    server = House(1)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        await subject.learn(capacity_probe.find_slots)
        server.inside = 1
        asyncio.get_running_loop().call_later(0.2, setattr, server, "inside", 0)
        assert (await check(subject)).outcome is MET


# Those who are in


async def test_sessions_that_go_on_beside_those_who_knock_are_met(golden):
    result = await ask(under_load_limit.others_go_on, House(4))
    assert result.outcome is MET
    golden(result.headline, masks={**TIMES, r"\d+ times": "N times"})
    assert result.figures["knocks"] > 4
    assert result.figures["stopped"] == 0


async def test_sessions_that_stand_still_while_others_knock_are_missed(golden):
    async def wait(peer: Peer) -> None:
        await peer.gone()

    server = House(3, wait, stands=lambda slot_server: slot_server.outside > 0)
    result = await ask(under_load_limit.others_go_on, server, timeout_s=0.4)
    assert result.outcome is MISSED
    golden(result.headline)
    assert [transcript.title for transcript in result.transcripts][1] == "one that knocked"


def test_sessions_that_become_much_slower_while_others_knock_are_missed(golden):
    before, during = BackgroundLoad(9, 0.01, 0.02, (), ()), BackgroundLoad(9, 0.31, 0.4, (), ())
    slower = BackgroundLoad(9, 0.29, 0.4, (), ())
    missed = under_load_limit._judge_others(2, before, during, before, [])
    forgiven = under_load_limit._judge_others(2, before, slower, before, [])
    assert missed.outcome is MISSED
    golden(missed.headline)
    assert forgiven.outcome is MET


# Freed slots


async def test_a_freed_slot_is_met_with_the_time_of_every_way_to_leave():
    result = await ask(under_load_limit.freed_slot, House(3))
    assert result.outcome is MET
    ways = ("closed_s", "dropped_s", "reset_s", "dropped_in_step_s", "reset_in_step_s")
    assert all(0 < result.figures[way_to_leave] < 1 for way_to_leave in ways)
    # The slot is held until the step returns, of which three quarters are left.
    assert min(result.figures["dropped_in_step_s"], result.figures["reset_in_step_s"]) > 0.06


async def test_slots_kept_after_a_drop_are_missed_and_the_clean_close_is_not_blamed(golden):
    result = await ask(under_load_limit.freed_slot, House(6, keeps=lambda number, politely: not politely))
    assert result.outcome is MISSED
    golden(result.headline)
    assert result.figures["closed_s"] is not None
    assert result.figures["dropped_s"] is None
    assert len(result.transcripts) == 4


async def test_ways_for_which_no_slot_is_left_are_named(golden):
    result = await ask(under_load_limit.freed_slot, House(1, keeps=lambda number, politely: not politely))
    assert result.outcome is MISSED
    golden(result.details, masks=TIMES)


# How many fit


async def test_a_worker_with_room_left_is_found_though_another_turns_many_away():
    """The refusal's own limit does not divide what fitted: some worker has room, so that knocking goes on."""
    turned_away = 0

    class Uneven(House):
        entered = 0

        async def __call__(self, peer: Peer) -> None:
            nonlocal turned_away
            # The lone session is the first to enter.
            if self.entered == 4 and turned_away < 40:
                turned_away += 1
                await peer.accept()
                await self.refuse(peer)
                return
            self.entered += 1
            await super().__call__(peer)

    async with scripted(Uneven(4)) as running:
        assert (await capacity_probe.find_slots(make_subject(running.url))).open == 4


async def test_a_server_too_slow_for_a_burst_is_not_taken_for_a_full_one():
    class Queue(House):
        """Resets one at a time."""

        lock = asyncio.Lock()

        async def __call__(self, peer: Peer) -> None:
            async with self.lock:
                await asyncio.sleep(0.12)
            await super().__call__(peer)

    async with scripted(Queue(100)) as running:
        slots = await capacity_probe.find_slots(make_subject(running.url, timeout_s=0.4, max_sessions=8))
    assert slots.open == 8


def test_ordinals_are_english():
    assert [under_load_limit._ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 1113)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "1,113th")
    ]


def test_every_way_to_leave_has_a_figure_of_its_own():
    ways = [full_server.clean_close(make_subject("http://127.0.0.1:9")), *full_server.dropped_connections(0.1)]
    assert len({way_to_leave.figure for way_to_leave in ways}) == len(ways) == 5
    assert full_server.SINGLE_SLOT.endswith("(max_concurrent_envs=1)")
