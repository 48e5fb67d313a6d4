"""Endurance: what drifts over a soak fails it, with when and how much; noise does not."""

from __future__ import annotations

import asyncio
import ctypes
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import psutil
import pytest
from cells import a_row
from hypothesis import given
from hypothesis import strategies as st

from checking_subjects import make_subject, served
from goldens import Golden
from playing import cell, order, play_cell
from pytest_openenv_scale.checks.under_load import endurance, soak
from pytest_openenv_scale.checks.under_load.soak import Soak, play_in_processes
from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import CellResult, LoadError, LoadProgress
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import Peer, error, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MIB = 1024**2


@pytest.fixture(autouse=True)
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the steps: they are played one by one, however quickly time passes."""
    monkeypatch.setattr(soak, "_STEPS_PER_S", 100)


async def soaked(url: str, **changes: Any) -> CheckResult:
    """What the check says of a server in this loop, after a soak of 10 s where nothing else is asked for."""
    process = psutil.Process()
    # What tests before this one have freed is given back: a leak would hide in it.
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)

    def sample() -> ServerSample:
        return ServerSample(
            0.0,
            1,
            sum(process.cpu_times()[:2]),
            process.memory_info().rss,
            process.num_threads(),
            process.num_fds(),
        )

    subject = make_subject(url, endpoint={"sampler": sample}, **{"soak_s": 10.0, "max_sessions": 4, **changes})
    return await endurance.steady_soak(subject, play_cell)


async def test_a_sound_server_stays_as_it_is() -> None:
    async with served("none") as url:
        result = await soaked(url)
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["sessions"] == 2
    assert result.figures["windows"] == 8
    assert len(result.series["step_p50_s"]) == len(result.series["rss_bytes"]) == len(result.series["others_cores"])
    assert sum(step or 0 for step in result.series["steps"]) == result.figures["steps"]
    assert result.series["at_s"] == (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    assert None not in result.series["rss_bytes"]
    assert None not in result.series["others_cores"][1:]


async def test_memory_that_every_step_leaves_is_found_with_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_STEPS_PER_S", 500)
    async with served("memory_per_step") as url:
        result = await soaked(url, soak_s=20.0)
    assert result.outcome is CheckOutcome.MISSED, result
    assert "memory grows by 8." in result.headline
    low, high = result.figures["memory_per_step_low_bytes"], result.figures["memory_per_step_high_bytes"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert 7000 < low < high < 10000
    assert result.remedy
    assert "reset()" in result.remedy


async def test_a_soak_of_nothing_is_skipped() -> None:
    result = await endurance.steady_soak(make_subject("http://127.0.0.1:9", soak_s=0.0))
    assert (result.outcome, "--openenv-soak 0" in result.headline) == (CheckOutcome.SKIPPED, True)


def playing_until(ends: Callable[[Peer, int], Awaitable[bool]]) -> Callable[[Peer], Awaitable[None]]:
    """A server that answers every message, until `ends` has ended the session at a step, counted from 1 in it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        steps_heard = 0
        while (message := await peer.asked())["type"] != "close":
            steps_heard += message["type"] == "step"
            if message["type"] == "step" and await ends(peer, steps_heard):
                return
            peer.say(observation())
        await peer.part()

    return script


async def ended(peer: Peer, how: int | str) -> bool:
    """End a session with a code of WebSocket, or with an error in these words."""
    if isinstance(how, str):
        peer.say(error("EXECUTION_ERROR", how))
    await peer.part(how if isinstance(how, int) else 1000)
    return True


async def test_sessions_that_end_in_the_midst_say_when_and_how() -> None:
    async def ends(peer: Peer, step: int) -> bool:
        return step == 60 and peer.number > 2 and await ended(peer, 1011)

    async with scripted(playing_until(ends)) as server:
        result = await soaked(server.url)
    assert result.outcome is CheckOutcome.MISSED
    assert "all 2 sessions were lost" in result.headline
    assert "1011 in step" in result.headline
    lost = [detail for detail in result.details if "was lost after" in detail]
    assert len(lost) == 5
    assert all("59 steps of its own: 1011 in step (the server closed the session)" in detail for detail in lost)


async def test_a_session_that_ends_with_its_episode_is_lost() -> None:
    async def ends(peer: Peer, step: int) -> bool:
        return step == 101 and await ended(peer, 1011)

    async with scripted(playing_until(ends)) as server:
        result = await soaked(server.url)
    assert "all 2 sessions were lost" in result.headline


async def test_episodes_end_after_a_hundred_steps_and_sessions_with_the_soak() -> None:
    resets: Counter[int] = Counter()

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (message := await peer.asked())["type"] != "close":
            resets[peer.number] += message["type"] == "reset"
            peer.say(observation())
        await peer.part()

    async with scripted(script) as server:
        result = await soaked(server.url)
    slots = sorted(resets.values())[-2:]
    assert result.outcome is CheckOutcome.MET, result
    assert isinstance(result.figures["steps"], int)
    assert sum(slots) == pytest.approx(result.figures["steps"] / 100, abs=2)


async def test_errors_that_come_with_time_are_found() -> None:
    steps = 0

    async def ends(peer: Peer, step: int) -> bool:
        nonlocal steps
        steps += 1
        return steps > 400 and await ended(peer, "out of handles")

    async with scripted(playing_until(ends)) as server:
        result = await soaked(server.url)
    assert result.outcome is CheckOutcome.MISSED
    assert "errors come with time" in result.headline
    assert "EXECUTION_ERROR in step (out of handles)" in result.headline


async def test_an_error_from_the_start_on_asks_for_another_action() -> None:
    async def ends(peer: Peer, step: int) -> bool:
        return peer.number > 4 and await ended(peer, "no such move")

    async with scripted(playing_until(ends)) as server:
        result = await soaked(server.url)
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "from the start on" in result.headline


async def test_a_server_that_ends_is_not_waited_for() -> None:
    async def playing(request: CellRequest, on_progress: Callable[[LoadProgress], None]) -> CellResult:
        on_progress(LoadProgress(2, 0, 2, 2, 3.4))
        raise AssertionError("it is waited for")

    ending = ExitStatus("signal", "killed by SIGKILL")
    async with served("none") as url:
        result = await endurance.steady_soak(make_subject(url, endpoint={"exit_reader": lambda: ending}), playing)
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "the server ended 3 s after the start of the soak: killed by SIGKILL" in result.headline


async def test_what_load_processes_refuse_is_said() -> None:
    async def refusing(request: CellRequest, on_progress: Callable[[LoadProgress], None]) -> CellResult:
        raise LoadError("no such action")

    async with served("none") as url:
        result = await endurance.steady_soak(make_subject(url), refusing)
    assert (result.outcome, result.headline) == (CheckOutcome.INCONCLUSIVE, "no such action")


async def test_load_processes_play_a_cell_and_end_with_it_or_where_it_is_cut_off() -> None:
    progress: list[float] = []

    def processes() -> list[psutil.Process]:
        return psutil.Process().children()

    before = processes()
    async with served("none") as url:
        request = order(url, batch=2, arrival="steady=1")
        result = await play_in_processes(request, lambda moment: progress.append(moment.elapsed_s))
        assert {row.slot for row in result.rows} == {0, 1}
        assert progress == sorted(progress)
        assert progress
        endless = replace(request, cell=cell(arrival="steady=60"))
        playing = asyncio.create_task(play_in_processes(endless, lambda moment: None))
        while processes() == before:
            await asyncio.sleep(0.05)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        while processes() != before:
            await asyncio.sleep(0.05)


# Judging what was recorded


def recorded(p50: list[float], rss: list[float] | None = None, *, steps: int = 400, **columns: Any) -> Soak:
    """A soak of which every second is a window; it is of 24 s, and the first four are not judged."""
    length, busy = len(p50), columns.pop("client_busy", 0.1)
    others = columns.pop("others_cores", [0.2] * length)
    windows = [
        Window(
            start_s=float(number),
            end_s=number + 1.0,
            judged=number >= 4,
            steps=steps,
            step_p50_s=latency,
            rss_bytes=round(rss[number]) if rss else 100 * MIB,
            **{name: values[number] for name, values in columns.items()},
        )
        for number, latency in enumerate(p50)
    ]
    return Soak(8, float(length), tuple(windows), others_cores=tuple(others), client_busy_ratio=busy)


def ramp(start: float, end: float, count: int = 24) -> list[float]:
    return [start + (end - start) * number / (count - 1) for number in range(count)]


@given(st.integers(0, 2**32), st.floats(0.0005, 1.0), st.floats(0.0, 0.15))
def test_a_server_under_noise_is_not_failed(seed: int, latency: float, noise: float) -> None:
    draw = random.Random(seed)
    p50 = [latency * (1 + abs(draw.gauss(0, noise))) for _ in range(24)]
    rss = [100 * MIB + draw.gauss(0, MIB) for _ in range(24)]
    assert endurance.judge(recorded(p50, rss)).outcome is CheckOutcome.MET


def test_a_latency_that_doubles_is_missed_but_not_that_of_a_busy_client_or_a_busier_machine() -> None:
    p50 = ramp(0.02, 0.04)
    assert endurance.judge(recorded(p50)).outcome is CheckOutcome.MISSED
    busy = endurance.judge(recorded(p50, client_busy=0.97))
    assert (busy.outcome, "97% busy" in busy.headline) == (CheckOutcome.INCONCLUSIVE, True)
    shared = endurance.judge(recorded(p50, others_cores=ramp(0.1, 1.6)))
    assert (shared.outcome, "others on this machine" in shared.headline) == (CheckOutcome.INCONCLUSIVE, True)


def test_a_latency_that_rises_by_an_unsure_amount_is_inconclusive(golden: Golden) -> None:
    draw = random.Random(1)
    p50 = [latency * (1 + draw.gauss(0, 0.1)) for latency in ramp(0.02, 0.031)]
    result = endurance.judge(recorded(p50))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.headline)
    golden(result.remedy)
    # A longer soak is no remedy for a client that is busy.
    assert "97% busy" in endurance.judge(recorded(p50, client_busy=0.97)).headline


def test_a_latency_that_goes_up_at_once_is_met_and_told(golden: Golden) -> None:
    draw = random.Random(1)
    p50 = [latency * (1 + abs(draw.gauss(0, 0.1))) for latency in [0.02] * 14 + [0.06] * 10]
    result = endurance.judge(recorded(p50))
    assert result.outcome is CheckOutcome.MET
    golden([detail for detail in result.details if "at once" in detail])
    assert not any("at once" in detail for detail in endurance.judge(recorded([0.02] * 24)).details)


def test_a_latency_that_doubles_from_one_millisecond_is_no_failure() -> None:
    assert endurance.judge(recorded(ramp(0.001, 0.002))).outcome is CheckOutcome.MET


def test_memory_is_judged_also_where_the_latency_cannot_be() -> None:
    rss = ramp(100 * MIB, 160 * MIB)
    result = endurance.judge(recorded(ramp(0.02, 0.04), rss, client_busy=0.97))
    assert result.outcome is CheckOutcome.MISSED
    assert "memory grows" in result.headline
    assert any("97% busy" in detail for detail in result.details)


@pytest.mark.parametrize(
    ("grown", "outcome"), [(3, CheckOutcome.MET), (12, CheckOutcome.MISSED)], ids=["3 MiB", "12 MiB"]
)
def test_a_kilobyte_per_step_is_missed_from_four_mebibytes_on(grown: int, outcome: CheckOutcome) -> None:
    assert endurance.judge(recorded([0.02] * 24, ramp(200 * MIB, (200 + grown) * MIB), steps=50)).outcome is outcome


def test_a_slow_growth_is_missed_where_it_becomes_a_tenth() -> None:
    many = {"steps": 100_000}
    assert endurance.judge(recorded([0.02] * 24, ramp(100 * MIB, 140 * MIB), **many)).outcome is CheckOutcome.MISSED
    assert endurance.judge(recorded([0.02] * 24, ramp(900 * MIB, 940 * MIB), **many)).outcome is CheckOutcome.MET


def test_threads_and_descriptors_that_pile_up_are_missed(golden: Golden) -> None:
    threads = [10 + 5 * number for number in range(24)]
    result = endurance.judge(recorded([0.02] * 24, threads=threads))
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline)
    few = [10 + number // 3 for number in range(24)]
    assert endurance.judge(recorded([0.02] * 24, descriptors=few)).outcome is CheckOutcome.MET


def test_too_few_windows_say_nothing(golden: Golden) -> None:
    result = endurance.judge(recorded([0.02] * 8))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.remedy)


def test_a_server_whose_memory_is_not_readable_is_judged_by_the_rest() -> None:
    played = recorded([0.02] * 24)
    unread = tuple(replace(window, rss_bytes=None) for window in played.windows)
    result = endurance.judge(replace(played, windows=unread))
    assert result.outcome is CheckOutcome.MET
    assert any("cannot be read here" in detail for detail in result.details)
    assert result.figures["memory_start_bytes"] is None


@pytest.mark.parametrize(
    ("phase", "kind", "outcome", "words"),
    [
        ("step", "timeout", CheckOutcome.MISSED, "was lost after 7.2 s"),
        ("step", "environment", CheckOutcome.MET, "1 session ended with an error; the first: environment in step"),
        ("step", "protocol", CheckOutcome.MET, "1 session ended with an error; the first: protocol in step"),
        ("close", "timeout", CheckOutcome.MET, None),
        ("connect", "handshake_status", CheckOutcome.MET, "1 session could not be opened"),
    ],
)
def test_how_a_session_ended_tells_what_is_said_of_it(
    phase: str, kind: str, outcome: CheckOutcome, words: str | None
) -> None:
    opened = {} if phase == "connect" else {"reset_done_s": 0.1}
    row = a_row(3, **{"reset_done_s": None, **opened}, slot=3, closed_s=7.25, success=False, error_phase=phase)
    result = endurance.judge(replace(recorded([0.02] * 24), failures=(row._replace(error_type=kind),)))
    assert result.outcome is outcome
    assert len(result.details) == (words is not None) + (outcome is CheckOutcome.MISSED)
    assert words is None or any(words in detail for detail in result.details)


def test_a_loss_counts_before_everything_else(golden: Golden) -> None:
    lost = a_row(3, slot=3, closed_s=7.25, steps_done=60, success=False, error_phase="step")
    failures = (lost._replace(error_type="closed_early", error_code="1006", error_message="the server went away"),)
    result = endurance.judge(replace(recorded(ramp(0.02, 0.08)), failures=failures))
    golden(result.headline)
    assert any("longer and longer" in detail for detail in result.details)
