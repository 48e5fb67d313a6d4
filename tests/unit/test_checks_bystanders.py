"""Sessions that step beside others: a server that takes one after the other is slow, and not silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from checking_subjects import make_subject
from playing import play_cell
from pytest_openenv_scale.checks import subject as subject_module
from pytest_openenv_scale.checks.background import step_in_background
from pytest_openenv_scale.checks.capacity_probe import open_sessions
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.checks.under_load.soak import soak
from scripted_server import Peer, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

STEP_S = 0.15


@pytest.fixture(autouse=True)
def hardly_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_module, "_PATIENCE_S", 2 * STEP_S)
    monkeypatch.setattr(subject_module, "_PATIENCE_FACTOR", 2.0)


def one_after_another(*, done: bool = False) -> Callable[[Peer], Awaitable[None]]:
    """A server with one lock for the steps of all sessions, and for resets that follow the end of an episode."""
    lock = asyncio.Lock()

    async def script(peer: Peer) -> None:
        await peer.accept()
        fresh = True
        while (message := await peer.asked())["type"] != "close":
            if message["type"] == "step" or (message["type"] == "reset" and not fresh):
                async with lock:
                    await asyncio.sleep(STEP_S)
            fresh = False
            peer.say(observation(done=done and message["type"] == "step"))
        await peer.part()

    return script


def slow(url: str) -> Subject:
    return make_subject(url, timeout_s=20.0, max_sessions=10, soak_s=1.0, slowest_single_s=STEP_S)


@pytest.mark.parametrize("done", [False, True], ids=["steps", "steps and resets"])
async def test_sessions_that_are_served_in_turn_are_waited_for(done: bool) -> None:
    async with scripted(one_after_another(done=done)) as server, slow(server.url).client() as client:
        subject = slow(server.url)
        sessions = await open_sessions(client, subject, [{}] * 6)
        progress = await step_in_background(subject, sessions, 0.0)
    assert progress.stopped == ()
    assert progress.steps == 18
    assert not any(session.timed_out for session in sessions)
    assert progress.slowest_s is not None
    assert progress.slowest_s > subject.patience_s


async def test_a_soak_waits_for_sessions_that_are_served_in_turn() -> None:
    async with scripted(one_after_another()) as server:
        soak_record = await soak(slow(server.url), play_cell)
    assert soak_record.sessions == 5
    assert soak_record.failures == ()
    assert soak_record.steps >= 5
