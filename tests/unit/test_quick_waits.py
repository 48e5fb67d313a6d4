"""Waits that pass quickly: everybody measures what they would have measured, and nobody is hurried but the clock."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from checking_subjects import make_subject
from scripted_server import Peer, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


def real_s() -> float:
    """The clock nobody touched."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def test_ten_seconds_pass_for_all_who_measure_them_and_take_half_a_second():
    loop = asyncio.get_running_loop()
    clocks = (time.perf_counter, time.monotonic, loop.time)
    began, really_began = [clock() for clock in clocks], real_s()
    await asyncio.sleep(10)
    assert all(clock() - then >= 10 for clock, then in zip(clocks, began, strict=True))
    assert 0.5 <= real_s() - really_began < 10


async def test_a_session_sees_the_latency_of_a_slow_answer_also_after_many_others():
    async def script(peer: Peer) -> None:
        await peer.accept()
        while (await peer.asked())["type"] != "close":
            await asyncio.sleep(1.0)
            peer.say(observation())

    async with scripted(script) as server, make_subject(server.url, timeout_s=10.0).client() as client:
        session = await client.start({})
        answers = [session.first_answer, *[await session.step({}) for _ in range(4)]]
    assert all(answer.latency_s is not None and 0.95 <= answer.latency_s < 5.0 for answer in answers), answers


async def test_silence_is_what_comes_after_it():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await asyncio.sleep(3.0)

    async with scripted(script) as server, make_subject(server.url).client(2.0) as client:
        session = await client.start({})
        assert session.first_answer.kind == "silence"


async def test_a_call_in_another_thread_is_waited_for_in_real_time():
    # In a twentieth of three seconds it would not be done.
    async with asyncio.timeout(3):
        await asyncio.to_thread(time.sleep, 0.2)


async def test_while_a_thread_or_a_process_runs_time_is_real():
    for start in (_thread, _process):
        end, really_began = start(), real_s()
        await asyncio.sleep(0.1)
        assert real_s() - really_began >= 0.1
        end()
    await asyncio.sleep(2.0)
    assert real_s() - really_began < 2.0


def _thread() -> Callable[[], object]:
    ended = threading.Event()
    threading.Thread(target=ended.wait, daemon=True).start()
    return ended.set


def _process() -> Callable[[], object]:
    process = subprocess.Popen(["sleep", "60"])

    def end() -> None:
        process.kill()
        process.wait()

    return end
