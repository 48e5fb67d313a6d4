"""Sessions that play alone: what the first tells of a sweep, and what others tell of errors in a cell."""

from __future__ import annotations

import json
from itertools import product
from math import comb
from typing import Any

import pytest
from cells import a_failure, a_row

from pytest_openenv_scale.engine.tally import MAX_REPLAYED, SessionTally
from pytest_openenv_scale.engine.warm_up import (
    MAX_CHANCE,
    WARM_UP_STEPS,
    SoloSessions,
    read_warm_up,
    solo_sessions_needed,
    warm_up_steps,
)
from pytest_openenv_scale.load.client_health import ClientStats
from pytest_openenv_scale.load.ipc import AnsweredError, SessionMessages
from pytest_openenv_scale.load.runner import CellResult
from pytest_openenv_scale.results.outcome import WarmUp

FINE = {"observation": {"text": "ready"}, "reward": 0.0, "done": False}
BAD = {"observation": {"error": "unknown tool"}, "reward": 0.0, "done": False}
DONE = {**FINE, "done": True}
UNKNOWN_TOOL = AnsweredError("step", "unknown tool")


def result(*rows, errors=(), messages: SessionMessages | None = None) -> CellResult:
    answered = dict.fromkeys(errors, UNKNOWN_TOOL)
    return CellResult(list(rows), 1.0, None, ClientStats(), (), answered, messages)


def message(data) -> bytes:
    return json.dumps({"type": "observation", "data": data}).encode()


def warmed_up(reset, *steps, wait_s=None, http=False, keep_sample=True, **row) -> WarmUp:
    encode = (lambda data: json.dumps(data).encode()) if http else message
    action = {"action": {"move": 1}} if http else {"type": "step", "data": {"move": 1}}
    messages = SessionMessages(
        b'{"type":"reset","data":{}}',
        (json.dumps(action).encode(),),
        (("reset", encode(reset)), *(("step", encode(step)) for step in steps)),
    )
    row = a_row(**{"steps_done": len(steps), "step_latencies": [0.01] * len(steps), **row})
    mode = "http" if http else "ws"
    return read_warm_up(mode, wait_s, result(row, messages=messages), made_action=False, keep_sample=keep_sample)


@pytest.mark.parametrize("http", [False, True])
@pytest.mark.parametrize(
    ("answers", "played", "words"),
    [
        ((FINE, FINE, FINE), True, None),
        ((FINE, BAD, FINE), True, "unknown tool"),
        ((FINE, BAD, BAD), False, "unknown tool"),
        ((BAD, FINE, FINE), False, None),
        ((DONE, FINE, FINE), True, None),
        ((DONE, BAD, BAD), False, "unknown tool"),
        ((FINE,), True, None),
    ],
)
def test_a_session_whose_reset_or_every_step_was_an_error_did_not_play(answers, played, words, http):
    warm_up = warmed_up(*answers, http=http)
    assert (warm_up.played, warm_up.step_error) == (played, words)
    assert warm_up.done_on_reset == (answers[0] is DONE)


def test_done_with_the_first_step_is_an_episode_of_one_turn():
    assert warmed_up(FINE, DONE, DONE).single_turn
    assert warmed_up(FINE, FINE, DONE).first_done_step == 2
    assert not warmed_up(FINE, FINE, DONE).single_turn


def test_what_did_not_succeed_is_counted_and_is_no_error():
    failed_step = {"observation": {"success": False}, "done": False}
    warm_up = warmed_up(FINE, failed_step, failed_step)
    assert (warm_up.played, warm_up.unsuccessful_steps, warm_up.step_errors) == (True, 2, 0)


@pytest.mark.parametrize(
    ("wait_s", "latencies", "ignored"),
    [
        (0.1, [0.05, 0.089], True),
        (0.1, [0.05, 0.091], False),
        (0.0, [0.0], False),
        (None, [0.0], False),
        (1, [], False),
    ],
)
def test_a_wait_is_ignored_where_every_step_is_faster(wait_s, latencies, ignored):
    assert warmed_up(FINE, *[FINE] * len(latencies), wait_s=wait_s, step_latencies=latencies).ignores_wait is ignored


def observed(**fields: Any) -> dict[str, Any]:
    return {"observation": fields, "done": False}


@pytest.mark.parametrize(
    ("reset", "steps", "same"),
    [
        ({"session_hash": "a"}, [{"session_hash": "a"}, {"session_hash": "a"}], True),
        ({"session_hash": "a"}, [{"session_hash": "b"}, {"session_hash": "c"}], False),
        ({"session_hash": "a"}, [{"session_hash": "a"}, {"session_hash": "b"}], False),
        ({"session_hash": "a", "step_count": 0}, [{"session_hash": "b", "step_count": 1}], False),
        ({"step_count": 0}, [{"step_count": 1}, {"step_count": 2}, {"step_count": 3}], True),
        ({"step_count": 0}, [{"step_count": 1}, {"step_count": 1}], False),
        ({"step_count": 0}, [{"step_count": 1}], None),
        ({"step_count": 0}, [{"step_count": "1"}, {"step_count": "2"}], None),
        ({}, [{}, {}], None),
        ({"session_hash": ""}, [{"session_hash": ""}], None),
        ({"session_hash": "a"}, [], None),
    ],
)
def test_what_environments_tell_of_themselves_shows_whether_http_holds_an_episode(reset, steps, same):
    http = warmed_up(observed(**reset), *(observed(**step) for step in steps), http=True)
    assert http.same_episode is same
    assert warmed_up(observed(**reset), *(observed(**step) for step in steps)).same_episode is True


def test_the_sample_is_the_first_action_and_the_start_of_its_answer():
    for http in (False, True):
        sample = warmed_up(FINE, {**BAD, "reward": 1}, FINE, http=http).sample
        assert (sample.action, json.loads(sample.answer)["reward"]) == ('{"move": 1}', 1)
        assert json.loads(sample.reset) == FINE
    long = warmed_up({"observation": {"text": "x" * 1000}}, FINE).sample.reset
    assert len(long) == 200
    assert warmed_up(FINE, FINE, keep_sample=False).sample is None


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'{"type":1}', b'{"data":[]}', b"\xff", b"[" * 100_000])
def test_answers_that_are_no_observations_are_no_errors(text):
    messages = SessionMessages(b"{}", (text,), (("reset", text), ("step", text)))
    warm_up = read_warm_up("ws", 0.1, result(a_row(), messages=messages), made_action=True, keep_sample=True)
    assert (warm_up.played, warm_up.steps) == (True, 1)


def test_half_a_surrogate_pair_is_shown_as_far_as_a_file_takes_it():
    sample = warmed_up(FINE, {"observation": {"text": "\ud83d"}, "done": False}).sample
    assert sample.answer.encode()


def test_a_reset_that_failed_is_a_failure_and_not_an_answer():
    messages = SessionMessages(b"{}", (b"{}",), (("reset", b'{"error":"crashed"}'),))
    assert read_warm_up("http", 0.1, result(a_failure(), messages=messages), made_action=True, keep_sample=True).played


def test_a_few_steps_are_taken_where_they_do_not_take_long():
    assert warm_up_steps(1, None) == warm_up_steps(1, 0.1) == WARM_UP_STEPS
    assert warm_up_steps(10, 0.1) == 10
    assert warm_up_steps(1, 30.0) == 1


# Errors in a cell


@pytest.mark.parametrize(("sessions", "errors"), list(product((2, 8, 32, 200), (1, 2, 7))))
def test_as_many_play_alone_as_make_chance_unlikely(sessions, errors):
    """Fisher's exact test by its definition: all errors among the sessions of the cell, for no other reason."""
    if errors > sessions:
        return
    needed = solo_sessions_needed(errors, sessions)

    def chance(alone: int) -> float:
        return comb(sessions, errors) / comb(sessions + alone, errors)

    assert chance(needed) < MAX_CHANCE or needed > 200
    assert chance(needed - 1) >= MAX_CHANCE


class Alone:
    """Sessions that play alone, of which those with these numbers are answered with errors."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.numbers = errors, []

    def __call__(self, number: int) -> CellResult:
        self.numbers.append(number)
        return result(a_row(number), errors={number} & {*self.errors})


def tallied(*rows, errors=()) -> SessionTally:
    tally = SessionTally()
    for row in rows:
        tally.add([row], {row.request_id: UNKNOWN_TOOL} if row.request_id in errors else {})
    return tally


def cell(batch: int, *errors: int) -> SessionTally:
    return tallied(*map(a_row, range(batch)), errors=errors)


def test_errors_of_a_whole_cell_that_no_session_alone_gets_are_of_load():
    alone = Alone()
    judged = SoloSessions(alone).judge(cell(8, *range(8)))
    assert (judged.under_load, judged.count, judged.alone, judged.errors_alone) == (True, 8, 3, 0)
    assert judged.words == "unknown tool"
    assert alone.numbers == [0, 1, 2]  # The same sessions: what they send depends on their number.


def test_sessions_whose_step_failed_after_an_error_are_among_those_that_were_looked_at():
    failed_rows = [a_row(number, success=False, steps_done=0, step_latencies=[]) for number in range(4)]
    refused = [a_failure(number) for number in range(4, 8)]
    for errors in (1, 2, 4):
        judged = SoloSessions(Alone()).judge(tallied(*failed_rows, *refused, errors=range(errors)))
        assert (judged.count, judged.alone) == (errors, 0 if errors == 1 else solo_sessions_needed(errors, 4))


def test_errors_that_come_alone_as_well_are_part_of_the_game():
    alone = Alone(5)
    judged = SoloSessions(alone).judge(cell(8, 5, 6))
    assert (judged.under_load, judged.count, judged.alone, judged.errors_alone) == (False, 2, 1, 1)
    assert alone.numbers == [5]


def test_what_too_many_would_have_to_play_for_stays_open():
    alone = Alone()
    judged = SoloSessions(alone).judge(cell(32, 3))
    assert (judged.under_load, judged.alone) == (False, 0)
    assert alone.numbers == []


def test_a_session_that_cannot_be_played_proves_nothing():
    assert not SoloSessions(lambda number: None).judge(cell(8, *range(8))).under_load
    assert not SoloSessions(lambda number: result(a_failure())).judge(cell(8, *range(8))).under_load


def test_a_batch_of_one_plays_alone_and_others_are_judged_by_it():
    alone = Alone()
    plays = SoloSessions(alone)
    assert not plays.judge(cell(1, 0)).under_load
    assert not plays.judge(cell(8, *range(8))).under_load
    assert alone.numbers == []


def test_plays_add_up_over_the_cells_of_a_sweep():
    alone = Alone()
    plays = SoloSessions(alone)
    plays.note(error=False)
    assert plays.judge(cell(8, *range(8))).under_load
    assert plays.judge(cell(8, *range(8))).under_load
    assert len(alone.numbers) == 2


def test_a_tally_counts_all_and_keeps_some():
    tally = SessionTally()
    for block in range(3):
        numbers = range(block * MAX_REPLAYED, (block + 1) * MAX_REPLAYED)
        tally.add([a_row(number) for number in numbers], dict.fromkeys(numbers, UNKNOWN_TOOL))
    tally.add([a_failure(9_999)], {})
    assert (tally.played, tally.reset, tally.answered_errors) == (
        3 * MAX_REPLAYED + 1,
        3 * MAX_REPLAYED,
        3 * MAX_REPLAYED,
    )
    assert list(tally.errors) == list(range(MAX_REPLAYED))
    assert (tally.failed, tally.says_restart) == (True, False)
    tally.add([a_row(0, success=False, error_type="closed_early", error_code="1012")], {})
    assert tally.says_restart
