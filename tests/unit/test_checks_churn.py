"""What sessions leave behind: every verdict of the checks of churn, on a server whose leaks are known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checking_subjects import make_subject
from goldens import TIMES
from pytest_openenv_scale.checks import capacity_probe, resources
from pytest_openenv_scale.checks.background import BackgroundLoad, single_session
from pytest_openenv_scale.checks.resources import Usage
from pytest_openenv_scale.checks.session import RawSession
from pytest_openenv_scale.checks.under_load import churn, leaks
from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_house import House
from scripted_server import scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED = CheckOutcome.MET, CheckOutcome.MISSED
MEASURED = {**TIMES, r"\b\d[\d,]* (?=short sessions|steps without)": "N "}

ALL = pytest.mark.parametrize(
    "check", [churn.short_sessions, churn.dropped_sessions, churn.silent_clients, churn.clients_not_reading]
)
ROUNDS = pytest.mark.parametrize("check", [churn.short_sessions, churn.dropped_sessions])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Fewer sessions, shorter waits."""
    for module in (leaks, capacity_probe):
        monkeypatch.setattr(module, "SLOT_RETURN_LIMIT_S", 0.2)
    for module, name, value in (
        (churn, "_SHORT_SESSIONS", 96),
        (churn, "_DROPPED_SESSIONS", 64),
        (churn, "_MID_STEP_S", 0.01),
        (churn, "_BEFORE_S", 0.02),
        (churn, "_SILENT_S", 0.05),
        (churn, "_NOT_READING_S", 0.06),
        (churn, "_WORK_S", 0.05),
        (resources, "_SAMPLE_PAUSE_S", 0.002),
        (capacity_probe, "RETRY_PAUSE_S", 0.005),
        (leaks, "_QUIET_S", 0.0),
        (leaks, "_WARM_UP_SESSIONS", 4),
        (leaks, "_LONE_SESSIONS", 2),
    ):
        monkeypatch.setattr(module, name, value)


async def ask(check: Any, server: House, **changes: Any) -> CheckResult:
    async with scripted(server) as running:
        return await check(make_subject(running.url, endpoint={"sampler": server.sample}, **changes))


@ALL
@pytest.mark.parametrize("limit", [4, 1, 100])
async def test_a_server_that_gives_everything_back_is_met(check, limit):
    result = await ask(check, House(limit))
    assert result.outcome is MET, result
    slots = min(limit, 8)
    assert (result.figures["slots_before"], result.figures["slots_after"]) == (slots, slots)
    assert (result.figures["threads_before"], result.figures["threads_after"]) == (2, 2)
    assert (result.figures["descriptors_before"], result.figures["descriptors_after"]) == (7, 7)
    assert result.figures["lone_step_after_s"] > 0


async def test_a_pool_that_fills_up_once_and_noise_of_a_few_megabytes_are_no_leak():
    class Noisy(House):
        def sample(self) -> ServerSample | None:
            look = super().sample()
            assert look is not None
            busy = self.ended > 60
            return ServerSample(
                look.at_s,
                1,
                None,
                50_000_000 + self.ended % 3 * 3_000_000 + 4_000_000 * busy,
                2 + 40 * busy,
                7 + self.inside,
            )

    result = await ask(churn.short_sessions, Noisy(4))
    assert result.outcome is MET, result.headline


@ROUNDS
async def test_memory_that_each_session_leaves_is_missed_with_how_much(golden, check):
    result = await ask(check, House(4, leaves_bytes=160_000))
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)
    assert result.figures["memory_per_session_bytes"] == pytest.approx(160_000, rel=0.2)
    assert len(result.series["memory_bytes"]) >= 8


@ROUNDS
async def test_the_creep_of_python_servers_is_no_leak(check, monkeypatch):
    monkeypatch.setattr(resources, "LEAK_LEAST_BYTES", 0)
    assert (await ask(check, House(4, leaves_bytes=9_000))).outcome is MET


@ALL
@pytest.mark.parametrize("resource", ["threads", "descriptors"])
async def test_a_thread_or_descriptor_that_each_session_leaves_is_missed(check, resource):
    result = await ask(check, House(4, **{f"leaves_{resource}": 3}))
    assert result.outcome is MISSED
    assert f"{resource} stay (" in result.headline
    assert (
        f"{result.figures[f'{resource}_after'] - result.figures[f'{resource}_before']:,} {resource} stay"
        in result.headline
    )


@ALL
async def test_what_cannot_be_read_is_left_out_and_said(check):
    result = await ask(check, House(4, leaves_bytes=10**6, leaves_threads=9, readable=False))
    assert result.outcome is MET
    assert [result.figures[f"{name}_after"] for name in ("threads", "descriptors")] == [None, None]
    assert "memory: not readable here" in result.details


async def test_slots_that_ordinary_sessions_keep_are_missed_by_the_short_ones(golden):
    result = await ask(churn.short_sessions, House(8, keeps=lambda number, politely: number > 60 and number % 5 == 0))
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)
    assert "finally" in str(result.remedy)
    assert result.transcripts


async def test_the_time_that_slots_really_had_is_told(golden):
    async with scripted(House(4, keeps=lambda number, politely: not politely)) as running:
        subject = make_subject(running.url)
        await subject.learn(single_session)
        subject.slowest_single_s = 0.2
        result = await churn.dropped_sessions(subject)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)
    assert "within 1 s" in result.headline


async def test_a_session_waits_for_its_slot_as_long_as_those_before_it_may_take_to_end():
    server = House(1)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        subject.slowest_single_s = 0.5
        server.inside = 1
        asyncio.get_running_loop().call_later(0.6, setattr, server, "inside", 0)
        rounds = churn._ShortSessions(subject, 1, 0.0)
        await rounds.play(1)
    assert (rounds.stuck, rounds.ended, len(rounds.failed)) == (False, 1, 0)


async def test_an_environment_that_takes_its_time_to_close_is_no_defect(monkeypatch):
    class Slow(House):
        async def _play(self, peer):
            politely = await super()._play(peer)
            await asyncio.sleep(0.2)
            return politely

    monkeypatch.setattr(RawSession.close, "__kwdefaults__", {"patience_s": 0.05})
    monkeypatch.setattr(churn, "_SHORT_SESSIONS", 16)
    result = await ask(churn.short_sessions, Slow(4))
    assert result.outcome is MET, result
    assert result.figures["failed"] == 0


class Serial(House):
    """One reset after another, 20 ms each."""

    lock = asyncio.Lock()

    async def _play(self, peer):
        async with self.lock:
            await asyncio.sleep(0.02)
        return await super()._play(peer)


async def test_a_slow_server_is_looked_at_often_enough_to_judge_its_memory(golden, monkeypatch):
    monkeypatch.setattr(churn, "_SHORT_SESSIONS", 2000)
    monkeypatch.setattr(churn, "_SHORT_S", 3.0)
    result = await ask(churn.short_sessions, Serial(8, leaves_bytes=160_000))
    assert len(result.series["memory_bytes"]) >= 8
    golden(result.headline, masks=MEASURED)


async def test_a_fast_server_plays_all_sessions_in_rounds_of_some(monkeypatch):
    monkeypatch.setattr(churn, "_SHORT_SESSIONS", 400)
    result = await ask(churn.short_sessions, House(8))
    assert result.figures["sessions"] == 400
    assert 16 <= len(result.series["memory_bytes"]) <= 20


@ROUNDS
async def test_too_few_looks_to_judge_memory_are_told(check, monkeypatch):
    monkeypatch.setattr(churn, "_SHORT_S", 0.05)
    monkeypatch.setattr(churn, "_DROPPED_S", 0.05)
    monkeypatch.setattr(Serial, "lock", asyncio.Lock())
    warning = "too few sessions to tell whether memory grows"
    assert warning in (await ask(check, Serial(4, leaves_bytes=160_000))).details
    assert warning not in (await ask(churn.silent_clients, House(4))).details


async def test_slots_lost_before_the_short_ones_count_too(golden):
    server = House(4)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        await subject.learn(capacity_probe.find_slots)
        server.inside = 1
        result = await churn.short_sessions(subject)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)


@ALL
async def test_a_server_with_no_slot_left_is_missed_by_what_it_held_before(golden, check):
    server = House(4)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        await subject.learn(capacity_probe.find_slots)
        server.inside = 4
        result = await check(subject)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)


@pytest.mark.parametrize("check", [churn.dropped_sessions, churn.silent_clients, churn.clients_not_reading])
async def test_slots_that_dropped_sessions_keep_are_missed(golden, check):
    result = await ask(check, House(8, keeps=lambda number, politely: not politely))
    assert result.outcome is MISSED
    golden(result.headline.partition("; ")[0], masks={**MEASURED, r"\d (?=of 8 slots)": "N "})


async def test_the_way_to_leave_that_costs_slots_is_named(golden):
    result = await ask(churn.dropped_sessions, House(4, keeps=lambda number, politely: not politely))
    golden(result.details[0], masks=MEASURED)


async def test_short_sessions_that_fail_are_missed_and_shown(golden):
    steps = 0

    def stands(slot_server: House) -> bool:
        nonlocal steps
        steps += slot_server.ended > 30
        return steps in (5, 15)

    result = await ask(churn.short_sessions, House(4, stands=stands), timeout_s=0.5)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)
    assert "within 0.5 s" in result.headline
    assert result.figures["failed"] >= 2
    assert result.transcripts[0].title == "a short session that failed"


async def test_a_lone_session_that_became_slower_is_missed(golden, monkeypatch):
    monkeypatch.setattr(leaks, "_LONE_SESSIONS", 1)
    monkeypatch.setattr(leaks, "_SLOWER_LEAST_S", 0.02)
    result = await ask(churn.short_sessions, House(8, slower_s=0.001), timeout_s=5.0)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)


def while_mute(monkeypatch, does, afterwards=lambda: None):
    """Do something to the server as soon as clients are mute, and something else when the others were watched."""
    original = churn.step_in_background

    async def pace(subject, sessions, for_s):
        mute = for_s != churn._BEFORE_S
        if mute:
            does()
        result = await original(subject, sessions, for_s)
        if mute:
            afterwards()
        return result

    monkeypatch.setattr(churn, "step_in_background", pace)


@pytest.mark.parametrize("check", [churn.silent_clients, churn.clients_not_reading])
async def test_sessions_beside_mute_ones_that_stand_still_are_missed(golden, check, monkeypatch):
    server, sound = House(8), House.stands
    while_mute(
        monkeypatch,
        lambda: setattr(server, "stands", lambda slot_server: True),
        lambda: setattr(server, "stands", sound),
    )
    result = await ask(check, server, timeout_s=0.3)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)
    assert "within 0.3 s" in result.headline


@pytest.mark.parametrize("check", [churn.silent_clients, churn.clients_not_reading])
async def test_sessions_beside_mute_ones_that_become_much_slower_are_missed(golden, check, monkeypatch):
    server = House(4)
    server.ended = 100
    while_mute(monkeypatch, lambda: setattr(server, "slower_s", 0.0025), lambda: setattr(server, "slower_s", 0.0))
    result = await ask(check, server)
    assert result.outcome is MISSED
    golden(result.headline.partition("; ")[0], masks=MEASURED)


async def test_a_server_that_answers_no_step_afterwards_is_missed(golden, monkeypatch):
    server = House(4)
    while_mute(monkeypatch, lambda: None, lambda: setattr(server, "stands", lambda slot_server: True))
    result = await ask(churn.silent_clients, server, timeout_s=0.2)
    assert result.outcome is MISSED
    golden(result.headline, masks=MEASURED)


def calm_is_disturbed(monkeypatch, server, stands):
    """Let steps stand as told before anybody is mute."""
    original, sound = churn.step_in_background, server.stands

    async def pace(subject, sessions, for_s):
        server.stands = stands if for_s == churn._BEFORE_S else sound
        result = await original(subject, sessions, for_s)
        server.stands = sound
        return result

    monkeypatch.setattr(churn, "step_in_background", pace)


@pytest.mark.parametrize("check", [churn.silent_clients, churn.clients_not_reading])
async def test_sessions_that_stopped_before_anybody_was_mute_are_told_and_not_blamed_on_it(check, monkeypatch):
    server, stood = House(8), iter([True])
    calm_is_disturbed(monkeypatch, server, lambda slot_server: next(stood, False))
    result = await ask(check, server, timeout_s=0.3)
    assert result.outcome is MET, result
    expected = "1 of 4 sessions beside them stopped before any client was mute: no answer within 0.3 s"
    assert any(detail.startswith(expected) for detail in result.details)
    assert result.figures["others"] == 3
    assert result.transcripts


@pytest.mark.parametrize("check", [churn.silent_clients, churn.clients_not_reading])
async def test_where_no_session_steps_before_anybody_is_mute_nothing_is_known(golden, check, monkeypatch):
    server = House(8)
    calm_is_disturbed(monkeypatch, server, lambda slot_server: True)
    result = await ask(check, server, timeout_s=0.3)
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.headline, masks=MEASURED)
    assert "within 0.3 s" in result.headline
    assert result.transcripts


def test_as_many_steps_are_sent_as_the_server_does_meanwhile_and_one_each_at_least(monkeypatch):
    monkeypatch.setattr(churn, "_WORK_S", 3.0)

    def steps(step_s, clients):
        return churn._steps_per_client(
            leaks.ServerBefore(16, None, step_s), BackgroundLoad(0, None, None, (), ()), clients
        )

    assert [steps(step_s, 4) for step_s in (0.0, 1e-3, 0.1, 0.5, 2.0, 60.0)] == [2500, 750, 7, 1, 1, 1]
    assert steps(2.0, 12) == 1


async def test_silent_clients_that_the_server_dropped_are_counted(monkeypatch):
    assert (await ask(churn.silent_clients, House(4))).figures["dropped_by_server"] == 0
    server = House(4)
    while_mute(monkeypatch, lambda: setattr(server, "inside", server.inside - 2))
    assert (await ask(churn.silent_clients, server)).figures["dropped_by_server"] == 2


async def test_not_reading_stops_where_the_server_takes_no_more(monkeypatch):
    monkeypatch.setattr(churn, "_NOT_READING_S", 0.3)
    monkeypatch.setattr(churn, "_WORK_S", 1.0)
    monkeypatch.setattr(churn, "_MAX_BYTES", 600)
    result = await ask(churn.clients_not_reading, House(4))
    assert result.outcome is MET
    # Two clients, twenty steps of about 45 bytes at a time.
    assert result.figures["steps_sent"] == 40
    assert 600 < result.figures["sent_bytes"] < 4000


@pytest.mark.parametrize("resource", ["threads", "descriptors"])
def test_a_pool_that_fills_up_late_is_no_leak_and_what_goes_on_growing_is(resource):
    def change_of(values):
        usage = Usage(Endpoint(("http://127.0.0.1:9",), "here", "there"))
        for number, value in enumerate(values):
            usage.sessions.append(number * 25)
            usage.samples.append(ServerSample(0.0, **{resource: value}))
        change = usage.change(resource, usage.samples[0], usage.samples[-1], 400)
        assert change is not None
        return change

    assert not change_of([4] * 8 + [44] * 8).leaked
    assert change_of([4 + 3 * number for number in range(16)]).leaked


async def test_pools_are_filled_by_steps_at_once_before_the_first_look():
    most = 0
    running: list[House] = []

    def stands(slot_server):
        """A thread for each step that runs, kept for good; steps count as running for a moment."""
        nonlocal most
        running.append(slot_server)
        most = max(most, len(running))
        asyncio.get_running_loop().call_later(0.02, running.pop)
        return False

    class Pooled(House):
        def sample(self) -> ServerSample | None:
            return ServerSample(0.0, 1, None, 50_000_000, 2 + most, 7)

    slot_server = Pooled(8, stands=stands)
    async with scripted(slot_server) as server:
        subject = make_subject(server.url, endpoint={"sampler": slot_server.sample})
        await subject.learn(capacity_probe.find_slots)
        most = 0
        opened = len(server.peers)
        start = await leaks.measure_before(subject)
        opened = len(server.peers) - opened
    assert isinstance(start, leaks.ServerBefore)
    assert start.sample is not None
    # The sessions on their own, which come last, have four steps at once at most.
    assert start.sample.threads >= 2 + 8
    assert opened == 8 + 2


def test_how_many_threads_may_stay_depends_on_the_sessions():
    assert [resources.allowed_growth(count) for count in (2, 8, 100, 2000)] == [1, 4, 8, 40]


def test_a_resource_that_falls_is_no_leak():
    usage = Usage(Endpoint(("http://127.0.0.1:9",), "here", "there"))
    for number in range(10):
        usage.sessions.append(number * 100)
        usage.samples.append(ServerSample(0.0, rss_bytes=90_000_000 - number * 10**6, threads=60 - number))
    change = usage.change("threads", usage.samples[0], usage.samples[-1], 900)
    assert change is not None
    assert not change.leaked
    memory = usage.change("memory", usage.samples[0], usage.samples[-1], 900)
    assert str(memory) == "memory −9.77 KiB per session"
    assert usage.change("descriptors", usage.samples[0], usage.samples[-1], 900) is None
