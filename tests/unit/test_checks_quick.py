"""The largest reply of a session, and the one answer that all questions of `openenv-scale check` add up to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from checking_subjects import make_subject, served
from defects.running import in_thread
from goldens import TIMES
from pytest_openenv_scale.checks.preflight import messages
from pytest_openenv_scale.checks.preflight import questions as preflight_questions
from pytest_openenv_scale.checks.preflight.messages import odd_messages
from pytest_openenv_scale.checks.preflight.questions import (
    DEFAULT_LIMIT_BYTES,
    AnsweredQuestion,
    Question,
    ask_questions,
    largest_reply,
    play_session,
    questions,
    verdict,
)
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import TEXT, Peer, accepted, error, observation, scripted

pytestmark = pytest.mark.usefixtures("quick_waits")

MET, MISSED, INCONCLUSIVE, SKIPPED = CheckOutcome

# The largest reply


async def test_the_largest_reply_is_found():
    async with served() as url:
        asked = make_subject(url, workload=Workload(({"text": "x" * 5000},)))
        found = await asked.learn(play_session)
        result = await largest_reply(asked)
    assert (result.outcome, " the answer to step " in result.headline) == (MET, True)
    assert 5000 < result.figures["largest_reply_bytes"] < 5300
    assert result.figures["largest_reply_bytes"] == max(answer.size_bytes for _, answer in found.replies)


async def test_a_reply_above_1_mib_is_a_note_that_says_whose_limit_it_is():
    async with served() as url:
        asked = make_subject(url, workload=Workload(({"text": "x" * DEFAULT_LIMIT_BYTES},)))
        result = await largest_reply(asked)
    assert result.outcome is MISSED
    assert "ends the session there (1009)" in result.headline
    assert "max_size" in result.remedy


# All questions together


def asked(**results: CheckResult) -> list[AnsweredQuestion]:
    """Findings of the questions of four sessions: met, unless given."""
    met = CheckResult(MET, "fine")
    return [AnsweredQuestion(question, results.get(question.name, met), 0.1) for question in questions(4)]


def bad(outcome: CheckOutcome, headline: str = "bad", remedy: str | None = None) -> CheckResult:
    return CheckResult(outcome, headline, remedy)


DEAD = CheckResult(MISSED, "the server died", exit=ExitStatus.from_returncode(-9))


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ({}, MET),
        ({"capacity": bad(MISSED, "2 of 4 sessions fit: FULL", "LIMIT ≥ 4 (each); or so")}, MISSED),
        ({"isolation": bad(MISSED)}, MISSED),
        ({"health": bad(MISSED), "parallel": bad(MISSED)}, MISSED),
        ({"capacity": bad(MISSED, "2 of 4 fit"), "slots": bad(MISSED)}, MISSED),
        ({"health": bad(INCONCLUSIVE)}, INCONCLUSIVE),
        ({"health": bad(INCONCLUSIVE), "slots": bad(MISSED)}, MISSED),
        ({"parallel": bad(SKIPPED)}, MET),
        ({"isolation": DEAD, "freshness": DEAD}, MISSED),
        ({"validate": bad(MISSED), "replies": bad(MISSED)}, MET),
        ({"validate": bad(INCONCLUSIVE)}, MET),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_the_answer_adds_up_what_decides(golden, results, outcome):
    found = verdict(asked(**results), 4)
    assert found.outcome is outcome
    golden(found.text)


def test_a_second_session_decides_nothing_where_one_is_asked_for():
    second = {sessions: next(found for found in questions(sessions) if found.name == "second") for sessions in (1, 2)}
    assert (second[1].decides, second[2].decides) == (False, True)


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
STEPPING = ["health", "parallel", "isolation", "freshness", "seed"]


@pytest.mark.parametrize("workload", [Workload(({"unheard": 1},)), Workload(no_action="no action can be made")])
def test_where_no_step_is_answered_all_is_asked_that_needs_none(golden, workload):
    with in_thread(limit=4) as address:
        asked = make_subject(f"http://{address}", workload=workload)
        found = list(ask_questions(asked, questions(4)))
    outcomes = {finding.question.name: finding.result.outcome for finding in found}
    assert [finding.question.name for finding in found if not finding.asked] == STEPPING
    assert outcomes.pop("reachable") is INCONCLUSIVE
    assert {name: outcome for name, outcome in outcomes.items() if name not in STEPPING} == dict.fromkeys(
        ["second", "capacity", "slots", "client", "replies", "handshake", "messages", "validate"], MET
    )
    capacity = next(finding.result for finding in found if finding.question.name == "capacity")
    assert (capacity.figures["held"], capacity.figures["stepped"]) == (4, None)
    assert verdict(found, 4).outcome is INCONCLUSIVE
    golden(f"{found[0].result.headline}\n{capacity.headline}\n{verdict(found, 4).text}", masks=TIMES)


def test_sessions_that_do_not_fit_are_missed_also_where_no_step_is_answered():
    with in_thread(limit=2) as address:
        asked = make_subject(f"http://{address}", workload=Workload(no_action="no action can be made"))
        found = list(ask_questions(asked, questions(3)))
    assert verdict(found, 3).outcome is MISSED


async def never(subject: Subject) -> CheckResult:
    await asyncio.sleep(60.0)
    raise AssertionError


def test_what_there_is_no_time_for_is_named_and_the_deadline_is_kept(golden, monkeypatch):
    monkeypatch.setattr(preflight_questions, "interleaved", never)
    with in_thread() as address:
        asked = make_subject(f"http://{address}")
        began = time.monotonic()

        def start(question: Question) -> None:
            if question.name == "isolation":
                asked.deadline = time.monotonic() + 0.2

        found = list(ask_questions(asked, questions(2), start))
        assert time.monotonic() - began < 30.0
    untold = {finding.question.name: finding.result for finding in found if finding.result.unmet == "time"}
    assert list(untold) == ["isolation", "freshness", "seed", "messages"]
    assert untold.pop("isolation").headline.startswith("cut off after ")
    assert {result.headline for result in untold.values()} == {"not asked: no time was left"}
    assert verdict(found, 2).outcome is INCONCLUSIVE
    golden(verdict(found, 2).text)


def test_where_no_time_is_left_at_all_nothing_is_told(golden):
    found = list(ask_questions(make_subject("http://127.0.0.1:9", deadline=time.monotonic()), questions(2)))
    assert not any(finding.asked for finding in found)
    assert verdict(found, 2).outcome is INCONCLUSIVE
    golden(verdict(found, 2).text)


@pytest.mark.parametrize(("outcome", "expected"), [(MET, MET), (MISSED, SKIPPED)])
def test_at_the_deadline_only_what_is_fine_counts(outcome, expected):
    async def check(subject: Subject) -> CheckResult:
        subject.deadline = time.monotonic()
        return CheckResult(outcome, "so it is")

    with in_thread() as address:
        assert run_check(make_subject(f"http://{address}", deadline=time.monotonic() + 60.0), check).outcome is expected


async def test_where_no_session_opens_only_http_is_asked(golden):
    async def script(peer: Peer) -> None:
        peer.send(accepted(head) if b"Upgrade" in (head := await peer.head()) else NOT_FOUND)
        if b"Upgrade" in head:
            await peer.asked()
            peer.say(error("EXECUTION_ERROR", "no task"))
        await peer.gone()

    async with scripted(script) as server:
        found = await asyncio.to_thread(lambda: list(ask_questions(make_subject(server.url), questions(4))))
    assert [finding.question.name for finding in found if finding.asked] == ["reachable", "validate"]
    assert verdict(found, 4).outcome is INCONCLUSIVE
    golden(verdict(found, 4).text)


def hanging_up(on: str) -> Callable[[Peer], Awaitable[None]]:
    """An environment that closes on messages of this type, and else says that it knows none."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        while True:
            opcode, payload = await peer.hear()
            if payload.startswith(b'{"type":"reset"') and b'"data":{' in payload:
                peer.say(observation())
            elif b"close" in payload or on.encode() in payload or opcode != TEXT:
                return await peer.part()
            else:
                peer.say(error("INVALID_JSON" if b"not json" in payload else "UNKNOWN_TYPE", "what?"))

    return script


async def test_of_messages_that_no_client_should_send_the_first_fault_is_told(golden):
    async with scripted(hanging_up("frobnicate")) as server:
        result = await odd_messages(make_subject(server.url, workload=Workload(no_action="none")))
    assert (result.outcome, result.figures["messages"]) == (MISSED, 6)
    assert result.figures["faults"] > 1
    golden(result.headline)
    assert "frobnicate" in "".join(line.text for line in result.transcripts[0].said)


async def test_of_a_slow_server_as_many_messages_are_asked_as_there_is_time_for(monkeypatch):
    monkeypatch.setattr(messages, "_LONGEST_S", 0.0)
    async with scripted(hanging_up("frobnicate")) as server:
        result = await odd_messages(make_subject(server.url, workload=Workload(no_action="none")))
    assert (result.outcome, result.figures) == (MET, {"messages": 1, "faults": 0})


ANSWER = {"observation": {"error": "unknown tool: 'hello'"}, "reward": 0.0, "done": False}


def erring(*requests: str) -> Callable[[Peer], Awaitable[None]]:
    """An environment that answers these requests with an error, and ends sessions as it should."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (asked := await peer.asked())["type"] != "close":
            answer = {"type": "observation", "data": ANSWER} if asked["type"] in requests else observation()
            peer.say({"type": "state", "data": {}} if asked["type"] == "state" else answer)
        await peer.part()

    return script


@pytest.mark.parametrize(("must_play", "outcome"), [(True, INCONCLUSIVE), (False, MET)])
async def test_a_server_on_which_sessions_get_errors_only_is_asked_only_by_who_knows_better(golden, must_play, outcome):
    async with scripted(erring("step")) as server:
        asked = make_subject(server.url, must_play=must_play)
        result = await asyncio.to_thread(run_check, asked, preflight_questions.reachable)
    assert result.outcome is outcome
    golden(f"{result.headline}\n{result.remedy}", masks=TIMES)


async def test_where_a_reset_is_answered_with_an_error_no_action_is_advised():
    async with scripted(erring("reset", "step")) as server:
        result = await asyncio.to_thread(run_check, make_subject(server.url), preflight_questions.reachable)
    assert result.outcome is INCONCLUSIVE
    assert result.remedy is not None
    assert "--openenv-reset" in result.remedy
    assert "--openenv-action" not in result.remedy


def test_a_server_that_loses_slots_is_asked_nothing_that_costs_more_of_them():
    async def check(subject):
        return CheckResult(MISSED, "lost")

    asked = [Question("reachable", "", preflight_questions.reachable), Question("slots", "", check, "lost")]
    asked += [Question("isolation", "", check, "shared", uses_slots=True), Question("replies", "", check)]
    with in_thread() as address:
        found = list(ask_questions(make_subject(f"http://{address}"), tuple(asked)))
    assert [finding.result.outcome for finding in found] == [MET, MISSED, SKIPPED, MISSED]
    assert found[2].result.headline.startswith("not asked")
    playing = {question.name for question in questions(4) if question.uses_slots}
    assert playing == {*STEPPING, "messages"}


async def test_reachable_tells_what_each_part_took_and_which_action_was_played(golden):
    async with served() as url:
        result = await preflight_questions.reachable(make_subject(url))
    assert result.outcome is MET
    assert result.headline.startswith("/ws answers: connect ")
    golden(result.headline, masks={**TIMES, r"0\.\d+,": "VALUE,"})
    assert set(result.figures) == {"connect_s", "reset_s", "step_s", "close_s"}


@pytest.mark.parametrize("rejoins", [True, False])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_server_that_somebody_starts_again_is_asked_and_the_restart_is_told(when: str, rejoins: bool) -> None:
    exits: list[ExitStatus] = [ExitStatus("other", "ended")] if when == "before" else []

    def rejoin() -> bool:
        if rejoins:
            exits.clear()
        return rejoins

    async def check(subject: Subject) -> CheckResult:
        if when == "meanwhile":
            exits.append(ExitStatus("other", "ended"))
        return CheckResult(CheckOutcome.MET, "all is well")

    endpoint = {"exit_reader": lambda: next(iter(exits), None), "rejoiner": rejoin}
    result = run_check(make_subject("http://127.0.0.1:1", endpoint=endpoint), check, "http")
    if when == "before":
        assert result.outcome is (CheckOutcome.MET if rejoins else CheckOutcome.INCONCLUSIVE)
    else:
        assert (result.outcome, "listens again" in result.headline) == (CheckOutcome.MISSED, rejoins)
