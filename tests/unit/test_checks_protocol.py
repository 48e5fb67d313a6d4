"""The protocol's cases: OpenEnv's answers are those recorded of it, and whatever else a server does is told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from checking_subjects import make_subject, served
from defects.running import in_process, in_thread
from goldens import Golden
from pytest_openenv_scale.checks.protocol import checks as protocol_checks
from pytest_openenv_scale.checks.protocol import play
from pytest_openenv_scale.checks.protocol.cases import CASES
from pytest_openenv_scale.checks.run import run_check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.client.http_request import server_schema
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from wire_cases import VERSIONS, conversations, environments, every_conversation

BY_ID = {case.id: case for case in CASES}
OK = {"timeout_s": 20.0}


# The table

RECORDED = {
    "bad-json": ("invalid_json", 0),
    "empty-text": ("empty_text", 0),
    "unknown-type": ("unknown_type", 0),
    "no-type": ("missing_type", 0),
    "json-array": ("json_array", 0),
    "json-text": ("json_string", 0),
    "json-null": ("json_null", 0),
    "binary-frame": ("binary_frame_valid_json", 0),
    "step-without-data": ("step_missing_data", 1),
    "state-with-data": ("state_with_data", 0),
    "close-with-data": ("close_with_data", 0),
    "extra-field": ("extra_top_level_field", 0),
    "unknown-action-field": ("step_unknown_field", 1),
    "wrapped-action": ("step_wrapped_action", 1),
    "invalid-action": ("step_constraint", 1),
    "step-before-reset": ("step_before_reset", 0),
    "state-before-reset": ("state_before_reset", 0),
    "step-after-done": ("step_done_then_step", 2),
}
"""Under which name a case was recorded, and which turn of the conversation it is."""


@pytest.mark.parametrize("case_id", RECORDED)
def test_the_table_holds_what_every_recorded_version_answered(case_id: str) -> None:
    case, (name, turn) = BY_ID[case_id], RECORDED[case_id]
    recordings = [recorded for recorded in every_conversation() if recorded.name == name]
    assert {recorded.version for recorded in recordings} == set(VERSIONS)
    for recorded in recordings:
        answer = recorded.turns[turn].answer
        assert answer["data"].get("code", answer["type"]) == case.expected, str(recorded)
        # A session that goes on is left to the client to close; of the others the server's close was recorded.
        later = recorded.turns[turn + 1 :]
        assert bool(later) is case.goes_on, str(recorded)


def test_messages_are_those_that_were_recorded() -> None:
    recorded = {conversation.name: conversation for conversation in conversations("0.10.0", environments("0.10.0")[0])}
    for case_id, (name, turn) in RECORDED.items():
        message = BY_ID[case_id].message
        if message is not None and name in recorded:
            assert _meaning(message) == _meaning(recorded[name].turns[turn].frame), case_id


def _meaning(message: str | bytes) -> Any:
    try:
        return type(message), json.loads(message)
    except ValueError:
        return type(message), message


def test_every_case_has_a_name_of_its_own_and_a_way_to_be_played() -> None:
    assert len(BY_ID) == len(CASES) == len(protocol_checks.CHECKS)
    assert set(play.CASE_PLAYS) == {case.id for case in CASES if case.message is None}


# A sound server, and servers with one defect each


@pytest.fixture(scope="module")
def sound() -> Iterator[Subject]:
    with in_thread() as address:
        yield subject_with_schema(address)


def subject_with_schema(address: str) -> Subject:
    url = f"http://{address}"
    return make_subject(url, schema=server_schema(url, {}), **OK)


@pytest.mark.parametrize("case_id", BY_ID)
def test_a_sound_server_meets_every_case(sound: Subject, case_id: str) -> None:
    result = run_check(sound, protocol_checks.CHECKS[case_id])
    assert result.outcome is CheckOutcome.MET, result
    assert result.figures["new_session_works"] is True
    if BY_ID[case_id].goes_on:
        assert result.figures["session_goes_on"] is True


def check_cases(defect: str, *case_ids: str, limit: int = 4, **changes: Any) -> list[CheckResult]:
    with in_thread(defect, limit) as address:
        asked_of = subject_with_schema(address)
        for name, value in changes.items():
            setattr(asked_of, name, value)
        return [run_check(asked_of, protocol_checks.CHECKS[case_id]) for case_id in case_ids]


@pytest.mark.usefixtures("quick_waits")
async def test_silence_is_missed_and_shown(golden: Golden) -> None:
    async with served("silent_hang", 4) as url:
        result = await protocol_checks.CHECKS["unknown-type"](make_subject(url, timeout_s=0.7))
    assert result.outcome is CheckOutcome.MISSED
    expected = "no answer within 0.7 s where OpenEnv says UNKNOWN_TYPE and the session goes on"
    assert result.headline == f"a message of unknown type: {expected}"
    golden(result.details)
    assert result.transcripts[0].said[-1].text == "<waited 0.7 s for an answer>"


def test_another_code_is_missed() -> None:
    result, still = check_cases("wrong_code", "step-without-data", "step-before-reset")
    assert result.outcome is CheckOutcome.MISSED
    expected = "BAD_REQUEST where OpenEnv says VALIDATION_ERROR and the session goes on"
    assert result.headline == f"a step without data: {expected}"
    assert still.outcome is CheckOutcome.MET


def test_a_session_that_is_cut_without_a_word_is_missed_and_a_new_one_still_works() -> None:
    (result,) = check_cases("crash_session_on_bad_json", "bad-json")
    assert result.outcome is CheckOutcome.MISSED
    assert result.figures["answer"] in ("closed 1011", "lost")
    assert "where OpenEnv says INVALID_JSON" in result.headline
    assert result.figures["new_session_works"] is True


def test_a_server_that_dies_of_a_case_has_no_new_session(golden: Golden) -> None:
    with in_process("crash_on_bad_json") as (_, address):
        result = run_check(subject_with_schema(address), protocol_checks.CHECKS["bad-json"])
        after = run_check(subject_with_schema(address), protocol_checks.CHECKS["bad-json"])
    assert result.outcome is CheckOutcome.MISSED
    golden([detail.partition(":")[0] for detail in result.details if "new session" in detail])
    assert after.outcome is CheckOutcome.INCONCLUSIVE


def test_what_a_server_lacks_is_skipped(golden: Golden) -> None:
    for result in check_cases("no_state", "state-with-data", "state-before-reset", "unawaited"):
        assert result.outcome is CheckOutcome.SKIPPED
        golden(result.headline)
    (without,) = check_cases("none", "unknown-action-field", schema=None)
    assert without.outcome is CheckOutcome.SKIPPED
    golden(without.headline)


def test_a_server_for_one_session_is_asked_every_case() -> None:
    for result in check_cases("one_session", "text-1-mib", "state-before-reset", "goodbye"):
        assert result.outcome is CheckOutcome.MET, result


def test_a_leak_of_slots_is_not_the_protocols() -> None:
    results = check_cases("leaked_slots", *("close-frame", "goodbye", "bad-json") * 2, limit=2)
    assert {result.outcome for result in results} == {CheckOutcome.MET}
