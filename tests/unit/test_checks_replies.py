"""The session that is played first: which answers count as replies, and how patient its slowest makes later checks."""

from __future__ import annotations

import asyncio

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks.preflight import questions
from pytest_openenv_scale.checks.preflight.questions import largest_reply, play_session
from scripted_server import observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


def answering(*, steps: int, state_s: float | None, step_s: float = 0.0):
    """A server whose episode ends after so many steps; it takes so long for a state, or never answers one."""

    async def script(peer):
        await peer.accept()
        steps_taken = 0
        while (kind := (await peer.asked())["type"]) != "close":
            if kind == "state":
                if state_s is None:
                    continue
                await asyncio.sleep(state_s)
                peer.say({"type": "state", "data": {"step_count": 0}})
                continue
            if kind == "step":
                await asyncio.sleep(step_s)
                steps_taken += 1
            peer.say(observation(done=steps_taken == steps))
        await peer.part()

    return script


async def test_only_answers_that_came_are_counted():
    async with scripted(answering(steps=1, state_s=None)) as server:
        subject = make_subject(server.url, timeout_s=0.3)
        played, result = await subject.learn(play_session), await largest_reply(subject)
    assert (len(played.replies), len(played.steps)) == (2, 1)
    assert result.headline.startswith("largest of 2 replies: ")
    assert result.figures["replies"] == 2


async def test_an_answered_state_is_a_reply():
    async with scripted(answering(steps=3, state_s=0.0)) as server:
        assert len((await play_session(make_subject(server.url))).replies) == 5


async def test_a_connection_that_ends_is_no_reply():
    async def script(peer):
        await peer.accept()
        assert (await peer.asked())["type"] == "reset"
        await peer.part()

    async with scripted(script) as server:
        played = await play_session(make_subject(server.url))
    assert played.replies == []


async def test_waiting_for_a_state_takes_no_time_from_the_steps(monkeypatch):
    monkeypatch.setattr(questions, "_PLAY_S", 0.5)
    async with scripted(answering(steps=3, state_s=None)) as server:
        played = await play_session(make_subject(server.url, timeout_s=0.7))
    assert len(played.steps) == 3


async def test_the_slowest_answer_tells_later_checks_how_patient_to_be():
    async with scripted(answering(steps=2, state_s=0.0, step_s=0.1)) as server:
        subject = make_subject(server.url)
        await play_session(subject)
    assert subject.slowest_single_s >= 0.1
