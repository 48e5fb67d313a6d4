"""What the protocol's cases say of servers that do what hardly any does: each outcome, on a server scripted for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from checking_subjects import make_subject
from goldens import TIMES, Golden
from pytest_openenv_scale.checks.protocol import checks as protocol_checks
from pytest_openenv_scale.client import frames
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import CAPACITY, CLOSE, Peer, error, frame, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

Strange = Callable[[Peer, str], list[Any] | None]


async def speak(peer: Peer, strange: Strange) -> None:
    """Speak OpenEnv, except where `strange` returns other answers; closes with the code that is among them."""
    await peer.accept()
    while True:
        opcode, payload = await peer.hear()
        if opcode == CLOSE:
            await peer.part()
            return
        text = payload.decode()
        answers = strange(peer, text)
        if answers is None:
            kind = json.loads(text)["type"] if text.startswith('{"type') else ""
            if kind == "close":
                await peer.part()
                return
            state = {"type": "state", "data": {"step_count": 0}}
            answers = [state if kind == "state" else observation() if kind else error("INVALID_JSON", "what?")]
        for answer in answers:
            if isinstance(answer, int):
                await peer.part(answer)
                return
            peer.say(answer)


def nothing_strange(peer: Peer, text: str) -> None:
    """What a sound server does."""


def session_1(script: Callable[[Peer], Awaitable[None]]) -> Callable[[Peer], Awaitable[None]]:
    """A server that is sound but for the session of the case, which runs this script after its reset.

    The lone session is number 0, that of the case 1; what comes later is beside or after it.
    """

    async def serve(peer: Peer) -> None:
        if peer.number == 1:
            await peer.accept()
            await peer.asked()
            peer.say(observation())
            await script(peer)
        else:
            await speak(peer, nothing_strange)

    return serve


async def check(case_id: str, strange: Strange, **changes: Any) -> CheckResult:
    async with scripted(lambda peer: speak(peer, strange)) as server:
        return await protocol_checks.CHECKS[case_id](make_subject(server.url, **changes))


async def test_a_session_that_ends_after_the_right_answer_is_missed(golden: Golden) -> None:
    result = await check("bad-json", lambda peer, text: [error("INVALID_JSON", "no"), 1000] if "{not" in text else None)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)
    assert result.figures["session_goes_on"] is False


async def test_a_session_that_neither_ends_nor_goes_on_is_missed(golden: Golden) -> None:
    broken: set[int] = set()

    def strange(peer: Peer, text: str) -> list[Any] | None:
        if text == "null":
            broken.add(peer.number)
            return [error("SESSION_ERROR", "no")]
        return [] if peer.number in broken else None

    result = await check("json-null", strange, timeout_s=0.3)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)


async def test_a_session_that_goes_on_where_openenvs_ends_is_met() -> None:
    result = await check("json-null", lambda peer, text: [error("SESSION_ERROR", "no")] if text == "null" else None)
    assert result.outcome is CheckOutcome.MET
    assert result.headline.endswith("the session goes on")


@pytest.mark.parametrize(
    ("case_id", "words"),
    [("state-with-data", "a state"), ("close-with-data", "closed with 1000"), ("extra-field", "an observation")],
)
async def test_what_is_too_much_may_be_read_over(case_id: str, words: str) -> None:
    result = await check(case_id, nothing_strange)
    assert result.outcome is CheckOutcome.MET
    assert f": {words} after " in result.headline
    assert any("says VALIDATION_ERROR" in detail for detail in result.details)


async def test_a_server_whose_other_sessions_are_disturbed_is_missed(golden: Golden) -> None:
    def strange(peer: Peer, text: str) -> list[Any] | None:
        return [error("EXECUTION_ERROR", "out of memory")] if peer.number == 2 and '"step"' in text else None

    async def cut(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.reset()

    async def script(peer: Peer) -> None:
        await (session_1(cut)(peer) if peer.number == 1 else speak(peer, strange))

    async with scripted(script) as server:
        result = await protocol_checks.CHECKS["text-1-mib"](make_subject(server.url))
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)
    golden([transcript.title for transcript in result.transcripts])


async def test_a_close_frame_counts_where_the_socket_stays_open() -> None:
    async def script(peer: Peer) -> None:
        peer.send(frame(CLOSE, (1009).to_bytes(2, "big")))
        while await peer.reader.read(1 << 20):
            pass

    async with scripted(session_1(script)) as server:
        result = await protocol_checks.CHECKS["text-17-mb"](make_subject(server.url, timeout_s=10.0))
    assert result.outcome is CheckOutcome.MET
    assert result.figures["answer"] == "closed 1009"


async def test_what_is_not_taken_within_the_time_is_in_doubt(golden: Golden) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with scripted(session_1(script)) as server:
        result = await protocol_checks.CHECKS["text-17-mb"](make_subject(server.url, timeout_s=1.0))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.headline, masks=TIMES)


async def test_answers_out_of_order_are_missed(golden: Golden) -> None:
    counts: dict[int, int] = {}

    def strange(peer: Peer, text: str) -> list[Any] | None:
        # Resets and steps are put off until the state after them was answered.
        state = {"type": "state", "data": {"step_count": 0}}
        if peer.number != 1:
            return None
        counts[peer.number] = counts.get(peer.number, 0) + 1
        if counts[peer.number] == 1 or '"close"' in text:
            return None
        return [state, observation()] if '"state"' in text else []

    result = await check("unawaited", strange)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)


async def test_messages_taken_in_another_order_than_sent_are_missed() -> None:
    """The answers are in order, but the count of steps shows that the state was looked up too late."""

    async def script(peer: Peer) -> None:
        counts = iter([0, 1, 2, 3] if peer.number == 0 else [0, 2, 2, 2])

        def strange(peer: Peer, text: str) -> list[Any] | None:
            return [{"type": "state", "data": {"step_count": next(counts)}}] if '"state"' in text else None

        await speak(peer, strange)

    async with scripted(script) as server:
        result = await protocol_checks.CHECKS["unawaited"](make_subject(server.url))
    assert result.outcome is CheckOutcome.MISSED
    assert "step_count 2 after 1 steps" in result.headline


async def test_no_more_steps_are_sent_than_an_episode_has() -> None:
    """The episode is over after one step, and a further one is an error, as it may be."""
    steps_taken: dict[int, int] = {}

    def strange(peer: Peer, text: str) -> list[Any] | None:
        steps = steps_taken.get(peer.number, 0)
        if '"state"' in text:
            return [{"type": "state", "data": {"step_count": steps}}]
        if '"reset"' in text:
            steps_taken[peer.number] = 0
        if '"step"' not in text:
            return None
        steps_taken[peer.number] = steps + 1
        return [observation(done=True)] if steps == 0 else [error("EXECUTION_ERROR", "the episode is over")]

    result = await check("unawaited", strange)
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["session_goes_on"] is True


async def test_a_platform_that_limits_the_rate_is_asked_again() -> None:
    async def script(peer: Peer) -> None:
        if peer.number in (1, 3):
            await peer.head()
            peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
        else:
            await speak(peer, lambda _, text: [error("INVALID_JSON", "no")] if "{not" in text else None)

    async with scripted(script) as server:
        result = await protocol_checks.CHECKS["bad-json"](make_subject(server.url))
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["new_session_works"] is True


async def test_another_goodbye_than_1000_is_missed(golden: Golden) -> None:
    def strange(peer: Peer, text: str) -> list[Any] | None:
        return [1011] if peer.number == 1 and '"close"' in text else None

    result = await check("goodbye", strange)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)


async def test_a_new_session_that_does_not_work_is_missed(golden: Golden) -> None:
    def strange(peer: Peer, text: str) -> list[Any] | None:
        return [error("EXECUTION_ERROR", "broken for good")] if peer.number > 1 and '"reset"' in text else None

    result = await check("bad-json", strange)
    assert result.outcome is CheckOutcome.MISSED
    golden(result.headline, masks=TIMES)
    assert result.transcripts[-1].title == "a new session after it"


async def test_a_server_that_is_full_afterwards_is_alive(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_checks, "_PATIENCE_S", 0.1)
    result = await check("bad-json", lambda peer, text: [CAPACITY, 1000] if peer.number > 1 else None)
    assert result.outcome is CheckOutcome.MET
    golden(result.headline, masks=TIMES)


@pytest.mark.parametrize("case_id", ["bad-json", "state-before-reset"])
async def test_a_server_without_room_cannot_be_asked(golden: Golden, case_id: str) -> None:
    result = await check(case_id, lambda peer, text: [CAPACITY, 1000] if peer.number > 0 else None, timeout_s=0.3)
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    golden(result.headline, masks=TIMES)


async def test_a_slot_that_comes_back_late_is_waited_for() -> None:
    result = await check("bad-json", lambda peer, text: [CAPACITY, 1000] if peer.number in (1, 2, 4) else None)
    assert result.outcome is CheckOutcome.MET
    assert result.figures["new_session_works"] is True


@pytest.mark.parametrize(
    ("steps_until_done", "outcome"),
    [(3, CheckOutcome.MET), (None, CheckOutcome.MET)],
)
async def test_steps_go_on_past_the_end_or_it_is_said_that_none_came(golden: Golden, steps_until_done, outcome) -> None:
    steps_taken: list[int] = []

    def strange(peer: Peer, text: str) -> list[Any] | None:
        if peer.number != 1 or '"step"' not in text:
            return None
        steps_taken.append(1)
        return [observation(done=len(steps_taken) == steps_until_done)]

    result = await check("step-after-done", strange)
    assert result.outcome is outcome
    golden(result.headline, masks=TIMES)
    assert len(steps_taken) == (5 if steps_until_done else 101)


def test_a_fragment_is_a_frame_without_the_final_bit() -> None:
    first = Message(b"ab", final=False).masked()
    last = Message(b"c", frames.CONTINUATION).masked()
    assert (first[0], last[0]) == (frames.TEXT, 0x80 | frames.CONTINUATION)


async def test_a_reset_in_fragments_goes_out_as_fragments_with_pings_between() -> None:
    opening_bytes: list[int] = []

    async def script(peer: Peer) -> None:
        for _ in range(5):
            first, second = await peer.reader.readexactly(2)
            await peer.reader.readexactly(4 + (second & 0x7F))
            opening_bytes.append(first)
        peer.say(observation())
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        peer.say(observation())
        await peer.asked()
        await peer.part()

    async with scripted(session_1(script)) as server:
        result = await protocol_checks.CHECKS["fragments"](make_subject(server.url))
    assert result.outcome is CheckOutcome.MET, result
    assert opening_bytes == [0x01, 0x89, 0x00, 0x89, 0x80]
