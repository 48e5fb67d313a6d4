"""Endurance: what drifts over a soak fails it, with when and how much; noise does not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checking_subjects import make_subject
from defects.running import in_process
from goldens import Golden
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.checks.under_load import endurance
from pytest_openenv_scale.checks.under_load.soak import LostSession, Soak, Window
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript
from scripted_server import Peer, error, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MIB = 1024**2


def soaked(defect: str, soak_s: float, **changes: Any) -> CheckResult:
    with in_process(defect) as (pid, address):
        process = psutil.Process(pid)

        def sample() -> ServerSample:
            return ServerSample(
                0.0,
                1,
                sum(process.cpu_times()[:2]),
                process.memory_info().rss,
                process.num_threads(),
                process.num_fds(),
            )

        subject = make_subject(
            f"http://{address}", endpoint={"sampler": sample}, soak_s=soak_s, timeout_s=10.0, **changes
        )
        return run_check(subject, endurance.steady_soak)


def test_a_sound_server_stays_as_it_is() -> None:
    result = soaked("none", 2.0)
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["sessions"] == 4
    assert result.figures["windows"] == 24
    assert len(result.series["step_p50_s"]) == len(result.series["rss_bytes"]) == 24
    assert sum(step or 0 for step in result.series["steps"]) == result.figures["steps"]
    assert all(value for value in result.series["rss_bytes"])
    assert None not in result.series["others_cores"]


def test_memory_that_every_step_leaves_is_found_with_how_much() -> None:
    result = soaked("memory_per_step", 3.0)
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


async def test_sessions_that_end_in_the_midst_say_when_and_how() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        steps_heard = 0
        while (message := await peer.asked())["type"] != "close":
            steps_heard += message["type"] == "step"
            peer.say(observation())
            if steps_heard == 60 and peer.number > 2:
                await peer.part(1011)
        await peer.part()

    async with scripted(script) as server:
        result = await endurance.steady_soak(make_subject(server.url, max_sessions=4))
    assert result.outcome is CheckOutcome.MISSED
    assert "all 2 sessions were lost" in result.headline
    assert "closed with 1011" in result.headline
    assert any("closed with 1011" in line.text for line in result.transcripts[0].said)


async def test_a_session_that_ends_with_its_episode_is_lost_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        steps_heard = 0
        while (message := await peer.asked())["type"] != "close":
            steps_heard += message["type"] == "step"
            if steps_heard == 100:
                break
            peer.say(observation())
        await peer.part(1011)

    async with scripted(script) as server:
        result = await endurance.steady_soak(make_subject(server.url, max_sessions=4))
    assert "all 2 sessions were lost" in result.headline


async def test_errors_that_come_with_time_are_found() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        steps_heard = 0
        while (message := await peer.asked())["type"] != "close":
            steps_heard += message["type"] == "step"
            late = message["type"] == "step" and steps_heard > 300
            peer.say(error("EXECUTION_ERROR", "out of handles") if late else observation())
        await peer.part()

    async with scripted(script) as server:
        result = await endurance.steady_soak(make_subject(server.url, max_sessions=2))
    assert result.outcome is CheckOutcome.MISSED
    assert "errors come with time" in result.headline
    assert "out of handles" in result.headline


# Judging what was recorded


def recorded(p50: list[float], rss: list[float] | None = None, *, steps: int = 400, **columns: Any) -> Soak:
    """A soak of 24 s of which every second is a window."""
    soak = Soak(8, float(len(p50)))
    for number, latency in enumerate(p50):
        figures = {name: values[number] for name, values in columns.items()}
        busy, cores = figures.pop("client_busy", 0.1), figures.pop("others_cores", 0.2)
        figures |= {"client_busy_ratio": busy, "others_cores": cores}
        rss_bytes = round(rss[number]) if rss else 100 * MIB
        soak.windows.append(Window(number + 1.0, steps, 0, latency, latency * 2, rss_bytes, **figures))
    return soak


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
    busy = endurance.judge(recorded(p50, client_busy=[0.97] * 24))
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
    assert "97% busy" in endurance.judge(recorded(p50, client_busy=[0.97] * 24)).headline


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
    result = endurance.judge(recorded(ramp(0.02, 0.04), rss, client_busy=[0.97] * 24))
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
    soak = recorded([0.02] * 24)
    soak.windows = [replace(w, rss_bytes=None) for w in soak.windows]
    result = endurance.judge(soak)
    assert result.outcome is CheckOutcome.MET
    assert any("cannot be read here" in detail for detail in result.details)
    assert result.figures["memory_start_bytes"] is None


def test_a_loss_counts_before_everything_else(golden: Golden) -> None:
    soak = recorded(ramp(0.02, 0.08))
    soak.lost.append(LostSession(7.25, Answer("closed", code="1006"), Transcript("session 3", ())))
    result = endurance.judge(soak)
    golden(result.headline)
    assert any("longer and longer" in detail for detail in result.details)
