"""Past its limit a server says so, disturbs nobody, and gives slots back: every verdict, and how many sessions fit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checking_subjects import subject
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
        return await check(subject(running.url, **changes))


# Refusal


async def test_a_refusal_at_once_that_says_why_is_met_with_its_time():
    result = await ask(under_load_limit.refusal, House(4))
    assert result.outcome is MET
    assert result.headline.startswith("the 5th session was refused in ")
    assert "CAPACITY_REACHED" in result.headline
    assert 0 < result.figures["refusal_s"] < 2
    assert (result.figures["sessions"], result.figures["refused"], result.figures["unclear"]) == (4, 8, 0)


async def test_a_limit_of_one_is_configuration_with_the_line_to_change():
    result = await ask(under_load_limit.refusal, House(1))
    assert result.outcome is MET
    assert "one session at a time (max_concurrent_envs=1)" in result.headline
    assert "create_app(..., max_concurrent_envs=N)" in str(result.remedy)


async def test_workers_times_limit_is_told_where_it_is_known():
    result = await ask(under_load_limit.refusal, House(4), endpoint={"limits": {"workers": 2, "max_envs": 2}})
    assert "4 = 2 workers × 2" in result.headline
    assert "each worker holds 2" in (await ask(under_load_limit.refusal, House(4))).headline


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
    ("refuse", "seen"), [(_cut, "closed with 1000"), (_reset, "ECONNRESET"), (_other_code, "division by zero")]
)
async def test_a_refusal_that_does_not_say_why_is_missed_with_what_a_client_sees(refuse, seen):
    result = await ask(under_load_limit.refusal, House(4, refuse))
    assert result.outcome is MISSED
    assert "not told that the server is full" in result.headline
    assert seen in result.headline
    assert "CAPACITY_REACHED" in str(result.remedy)
    assert result.transcripts[0].said


async def test_a_close_frame_with_a_reason_is_a_clear_refusal():
    assert (await ask(under_load_limit.refusal, House(4, _with_words))).outcome is MET


@pytest.mark.parametrize(("status", "clear"), [("429", True), ("503", True), ("403", True), ("500", False)])
def test_the_status_of_a_refused_handshake_says_whether_the_server_is_full(status, clear):
    assert under_load_limit._says_full(Answer("lost", code=status)) is clear


async def test_one_unclear_refusal_among_clear_ones_is_told_but_forgiven():
    # Sixteen in a row are turned away to learn how many fit, and sixteen to fill the server; then eight count.
    count = 0

    async def sometimes(peer: Peer) -> None:
        nonlocal count
        count += 1
        await (_cut(peer) if count == 35 else House().refuse(peer))

    result = await ask(under_load_limit.refusal, House(4, sometimes))
    assert result.outcome is MET
    assert any("1 of 8 were answered: closed with 1000" in detail for detail in result.details)


async def test_silence_is_missed_in_so_many_seconds():
    result = await ask(under_load_limit.refusal, House(2, _silent), timeout_s=0.3)
    assert result.outcome is MISSED
    assert result.headline == "the 3rd session was neither let in nor refused within 0.3 s"


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
async def test_a_limit_beyond_the_batches_is_skipped_with_the_option_that_asks_for_more(check):
    result = await ask(check, House(100), endpoint={"limits": {"workers": 2, "max_envs": 50}})
    assert result.outcome is SKIPPED
    assert result.headline == (
        "no limit was reached with 8 sessions (the target's settings make it 2 workers × 50); "
        "ask for more with --openenv-batches"
    )


async def test_a_limit_beyond_what_this_machine_can_open_is_skipped_with_what_to_raise(monkeypatch):
    async def none_more(client, asked, most, inside=()):
        return list(inside), []

    monkeypatch.setattr(capacity_probe, "fill_server", none_more)
    result = await ask(under_load_limit.refusal, House(100))
    assert result.outcome is SKIPPED
    assert result.headline == (
        "no limit was reached with the 1 session this machine could open; raise `ulimit -n` where pytest runs"
    )


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_a_server_without_any_slot_left_is_missed_by_what_it_held_before(check):
    server = House(2)
    async with scripted(server) as running:
        asked = subject(running.url, timeout_s=0.3)
        await asked.learn(capacity_probe.find_slots)
        server.inside = 2
        result = await check(asked)
    assert result.outcome is MISSED
    assert result.headline.startswith("none of 2 slots is free any more, though no session is open")
    assert (result.figures["slots_before"], result.figures["slots_after"]) == (2, 0)


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_slots_that_are_taken_at_the_start_are_told(check):
    server = House(4)
    async with scripted(server) as running:
        asked = subject(running.url)
        await asked.learn(capacity_probe.find_slots)
        server.inside = 1
        result = await check(asked)
    assert result.outcome is MET, result
    assert "3 of 4 slots free at the start" in result.details
    assert not any("at the start" in detail for detail in (await ask(check, House(4))).details)


@pytest.mark.parametrize(
    "check", [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]
)
async def test_slots_that_come_back_a_little_late_are_waited_for(check):
    server = House(1)
    async with scripted(server) as running:
        asked = subject(running.url)
        await asked.learn(capacity_probe.find_slots)
        server.inside = 1
        asyncio.get_running_loop().call_later(0.2, setattr, server, "inside", 0)
        assert (await check(asked)).outcome is MET


# Those who are in


async def test_sessions_that_go_on_beside_those_who_knock_are_met():
    result = await ask(under_load_limit.others_go_on, House(4))
    assert result.outcome is MET
    assert result.headline.startswith("4 sessions went on while others knocked ")
    assert result.figures["knocks"] > 4
    assert result.figures["stopped"] == 0


async def test_sessions_that_stand_still_while_others_knock_are_missed():
    async def wait(peer: Peer) -> None:
        await peer.gone()

    server = House(3, wait, stands=lambda found: found.outside > 0)
    result = await ask(under_load_limit.others_go_on, server, timeout_s=0.4)
    assert result.outcome is MISSED
    assert result.headline == ("3 of 3 sessions got no step done while others knocked in vain: no answer within 0.4 s")
    assert [shown.title for shown in result.transcripts][1] == "one that knocked"


def test_sessions_that_become_much_slower_while_others_knock_are_missed():
    before, during = BackgroundLoad(9, 0.01, 0.02, (), ()), BackgroundLoad(9, 0.31, 0.4, (), ())
    slower = BackgroundLoad(9, 0.29, 0.4, (), ())
    missed = under_load_limit._judge_others(2, before, during, before, [])
    forgiven = under_load_limit._judge_others(2, before, slower, before, [])
    assert missed.outcome is MISSED
    assert missed.headline == ("a step took 10 ms before and 310 ms while others knocked in vain (2 sessions inside)")
    assert forgiven.outcome is MET


# Freed slots


async def test_a_freed_slot_is_met_with_the_time_of_every_way_to_leave():
    result = await ask(under_load_limit.freed_slot, House(3))
    assert result.outcome is MET
    ways = ("closed_s", "dropped_s", "reset_s", "dropped_in_step_s", "reset_in_step_s")
    assert all(0 < result.figures[way] < 1 for way in ways)
    # The slot is held until the step returns, of which three quarters are left.
    assert min(result.figures["dropped_in_step_s"], result.figures["reset_in_step_s"]) > 0.06


async def test_slots_kept_after_a_drop_are_missed_and_the_clean_close_is_not_blamed():
    result = await ask(under_load_limit.freed_slot, House(6, keeps=lambda number, politely: not politely))
    assert result.outcome is MISSED
    assert result.headline == (
        "a slot was not usable again within 0.5 s after a socket closed without goodbye, a TCP reset, "
        "a socket closed in mid-step, a TCP reset in mid-step"
    )
    assert result.figures["closed_s"] is not None
    assert result.figures["dropped_s"] is None
    assert len(result.transcripts) == 4


async def test_ways_for_which_no_slot_is_left_are_named():
    result = await ask(under_load_limit.freed_slot, House(1, keeps=lambda number, politely: not politely))
    assert result.outcome is MISSED
    assert "not tried, as no slot was left: a TCP reset" in result.details


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
        assert (await capacity_probe.find_slots(subject(running.url))).open == 4


async def test_a_server_too_slow_for_a_burst_is_not_taken_for_a_full_one():
    class Queue(House):
        """Resets one at a time."""

        lock = asyncio.Lock()

        async def __call__(self, peer: Peer) -> None:
            async with self.lock:
                await asyncio.sleep(0.12)
            await super().__call__(peer)

    async with scripted(Queue(100)) as running:
        found = await capacity_probe.find_slots(subject(running.url, timeout_s=0.4, max_sessions=8))
    assert found.open == 8


def test_ordinals_are_english():
    assert [under_load_limit._ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 1113)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "1,113th")
    ]


def test_every_way_to_leave_has_a_figure_of_its_own():
    ways = [full_server.clean_close(), *full_server.dropped_connections(0.1)]
    assert len({way.figure for way in ways}) == len(ways) == 5
    assert full_server.SINGLE_SLOT.endswith("(max_concurrent_envs=1)")
