"""Who gets in and when: lone sessions, crowds, and slots that come back late."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from checking_subjects import make_subject
from pytest_openenv_scale.checks import background, capacity_probe
from pytest_openenv_scale.checks.session import Answer, RawSession, loss_answer
from pytest_openenv_scale.checks.subject import RawClient
from pytest_openenv_scale.client.handshake import loss_from_error
from scripted_house import House, refuse_at_capacity
from scripted_server import Peer, error, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")


class Door(House):
    """A house whose resets take so many seconds, and that turns away whom `turns_away` names by their number."""

    reset_s = 0.0
    turns_away: frozenset[int] = frozenset()

    async def __call__(self, peer: Peer) -> None:
        if peer.number in self.turns_away:
            await peer.accept()
            await refuse_at_capacity(peer)
            return
        await super().__call__(peer)

    async def _play(self, peer: Peer) -> bool:
        await asyncio.sleep(self.reset_s)
        return await super()._play(peer)


# Slots that come back late


async def test_slow_resets_leave_those_who_were_turned_away_their_time() -> None:
    server = Door(8)
    server.reset_s, server.turns_away = 0.4, frozenset({1, 3, 5})
    async with scripted(server) as running:
        subject = make_subject(running.url)
        async with subject.client() as client:
            resets: list[Any] = [{"seed": number} for number in range(6)]
            sessions = await capacity_probe.open_sessions(client, subject, resets, within_s=0.2)
    assert [session.reset_data["seed"] for session in sessions] == [0, 1, 2, 3, 4, 5]


async def test_each_who_finds_no_room_asks_for_as_long_as_told_and_no_longer() -> None:
    async with scripted(House(1)) as running:
        subject = make_subject(running.url)
        async with subject.client() as client:
            began = asyncio.get_running_loop().time()
            sessions = await capacity_probe.open_sessions(client, subject, [{}, {}], within_s=0.3)
            took_s = asyncio.get_running_loop().time() - began
    assert len(sessions) == 1
    assert 0.3 <= took_s < 1.5
    assert len(running.peers) > 3


async def test_an_error_that_is_no_refusal_is_not_asked_for_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.asked()
        peer.say(error("VALIDATION_ERROR", "no such seed") if peer.number % 2 else observation())
        await peer.gone()

    async with scripted(script) as running:
        subject = make_subject(running.url)
        async with subject.client() as client:
            sessions = await capacity_probe.open_sessions(client, subject, [{}] * 4, within_s=5.0)
    assert (len(sessions), len(running.peers)) == (2, 4)


def test_slots_get_as_long_as_what_still_runs_may_take() -> None:
    subject = make_subject("http://127.0.0.1:9", timeout_s=60.0)
    assert capacity_probe.slot_return_s(subject) == 15.0
    subject.slowest_single_s = 4.0
    assert (
        capacity_probe.slot_return_s(subject),
        capacity_probe.slot_return_s(subject, 3),
        capacity_probe.slot_return_s(subject, 48),
    ) == (
        19.0,
        27.0,
        75.0,
    )


@pytest.mark.parametrize("turned_away", [{0}, {1}, {0, 1, 2}, set(range(1, 20))])
async def test_a_refusal_that_passes_is_not_taken_for_the_answer(turned_away: set[int]) -> None:
    server = Door(4)
    server.turns_away = frozenset(turned_away)
    async with scripted(server) as running:
        subject = make_subject(running.url)
        alone = await subject.learn(background.single_session)
        slots = await subject.learn(capacity_probe.find_slots)
    assert alone.succeeded, alone.first_failure
    assert slots.open == 4


async def test_a_platform_that_limits_handshakes_for_a_moment_is_asked_again() -> None:
    class Limited(House):
        async def __call__(self, peer: Peer) -> None:
            if peer.number < 2:
                await peer.head()
                peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
                peer.writer.close()
                return
            await super().__call__(peer)

    async with scripted(Limited(4)) as running:
        alone = await background.single_session(make_subject(running.url))
    assert alone.succeeded, alone.first_failure


async def test_a_server_that_stays_full_is_told_as_it_is() -> None:
    async with scripted(House(0)) as running:
        alone = await background.single_session(make_subject(running.url, timeout_s=0.2))
    assert alone.reset.full
    assert len(running.peers) > 1


@pytest.mark.parametrize("code", ["EMFILE", "ENFILE", "EADDRNOTAVAIL"])
async def test_what_this_machine_cannot_open_turns_nobody_away(code: str) -> None:
    class Limited(RawClient):
        opened = 0

        async def start(self, reset: Any = None, *, patience_s: float | None = None) -> RawSession:
            self.opened += 1
            loss = loss_answer(loss_from_error(OSError(getattr(errno, code), "no more")))
            answer = Answer("observation") if self.opened <= 5 else loss
            session = SimpleNamespace(first_answer=answer, timed_out=False, drop=lambda: None)
            return cast("RawSession", session)

    subject = make_subject("http://127.0.0.1:9")
    limited = Limited(subject.endpoint, 1.0)
    sessions, turned_away = await capacity_probe.fill_server(limited, subject, 100)
    assert (len(sessions), turned_away) == (5, [])
    assert limited.opened < 16


def test_a_connection_that_the_server_resets_is_its_refusal() -> None:
    assert not loss_answer(loss_from_error(ConnectionResetError(errno.ECONNRESET, "reset"))).client_limited
    assert not Answer("error", code="EMFILE").client_limited


# A session on its own


async def _player(peer: Peer, answers: Iterator[dict[str, Any]], close_s: float = 0.0) -> list[str]:
    """Answer steps with these until there are none left, then with nothing; return what was asked."""
    await peer.accept()
    kinds: list[str] = []
    while not kinds or kinds[-1] != "close":
        kinds.append((await peer.asked())["type"])
        if kinds[-1] == "reset":
            peer.say(observation())
        elif kinds[-1] == "state":
            peer.say({"type": "state", "data": {"step_count": kinds.count("step")}})
        elif kinds[-1] == "step" and (answer := next(answers, None)) is not None:
            peer.say(answer)
    await asyncio.sleep(close_s)
    await peer.part()
    return kinds


async def test_a_lone_session_takes_no_step_past_the_end_of_its_episode() -> None:
    kinds: list[str] = []

    async def script(peer: Peer) -> None:
        kinds.extend(await _player(peer, iter([observation(), observation(done=True)])))

    async with scripted(script) as running:
        alone = await background.single_session(make_subject(running.url))
    assert kinds == ["reset", "state", "step", "state", "step", "state", "close"]
    assert (len(alone.steps), alone.succeeded, alone.counts_steps) == (2, True, True)


async def test_a_lone_session_that_is_not_answered_any_more_costs_one_wait() -> None:
    async def script(peer: Peer) -> None:
        await _player(peer, iter([observation()]))

    async with scripted(script) as running:
        began = asyncio.get_running_loop().time()
        alone = await background.single_session(make_subject(running.url, timeout_s=1.0))
        took_s = asyncio.get_running_loop().time() - began
    assert alone.first_failure == "step 2: no answer within 1 s"
    assert 1.0 <= took_s < 2.0


async def test_a_server_without_state_is_asked_for_it_once() -> None:
    kinds: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while not kinds or kinds[-1] != "close":
            kinds.append((await peer.asked())["type"])
            peer.say(error("UNKNOWN_TYPE", "state") if kinds[-1] == "state" else observation())
        await peer.part()

    async with scripted(script) as running:
        alone = await background.single_session(make_subject(running.url))
    assert kinds == ["reset", "state", "step", "step", "step", "close"]
    assert (alone.succeeded, alone.has_state) == (True, False)


async def test_what_an_environment_takes_to_close_counts_as_slow() -> None:
    async def script(peer: Peer) -> None:
        await _player(peer, iter([observation()] * 3), close_s=0.3)

    async with scripted(script) as running:
        subject = make_subject(running.url)
        alone = await subject.learn(background.single_session)
    assert subject.slowest_single_s >= 0.3
    assert alone.closed.ended
