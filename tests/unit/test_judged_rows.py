"""Sessions that no figure counts: those of a ramp, those that ran on when time was up, and those that never began."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cells import a_cell, a_failure, a_meta, a_part, a_row, a_table, an_slo, summary_of

from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.engine.source import Searching
from pytest_openenv_scale.metrics.summary import CellSummary, summarise, summarise_rows
from pytest_openenv_scale.reporting.content.refusals import refusal_sentence
from pytest_openenv_scale.results.cell import NOT_STARTED, AnsweredErrors, ClientFinding, SessionRow
from pytest_openenv_scale.verdict.cell import doubted_for_the_client, judge_cell
from pytest_openenv_scale.verdict.refusals import name_refusals
from pytest_openenv_scale.verdict.remedies import split_seen
from pytest_openenv_scale.verdict.sweep import judge_curve

STEADY = "steady=20,ramp=5"
STALL = (ClientFinding("loop_lag", "a load process stood still for 412 ms"),)
LOST = (ClientFinding("process_died", "load process 1 of 2 was killed and took 1 session with it"),)


def never_began(number: int) -> SessionRow:
    row = a_failure(number, phase="connect", type=NOT_STARTED, code=None, message="50 had failed", judged=False)
    return row._replace(start_s=None, connected_s=None, closed_s=None, queue_latency=None, connect_latency=None)


def steady(*rows: SessionRow, slots: int = 2, **meta) -> CellSummary:
    numbered = [row._replace(request_id=number, slot=number % slots) for number, row in enumerate(rows)]
    return summary_of(numbered, a_cell(slots, arrival=STEADY), **meta)


def test_sessions_that_are_not_judged_are_in_no_figure_but_those_of_what_the_server_did():
    unjudged = a_row(step=9.0, pid=7, host_url="b:1", session_hash="x", waited_seconds=5.0, judged=False)
    lost = a_failure(pid=7, type="connection_reset", judged=False)
    cell = a_cell(1, arrival="burst")
    alone, among_others = summary_of([a_row()], cell), summary_of([a_row(), unjudged, lost, lost], cell)
    assert among_others.peak_concurrency == 2
    assert (among_others.unjudged, among_others.not_started) == (3, 0)
    assert among_others.steps == 2
    assert replace(among_others, unjudged=0, peak_concurrency=1, steps=1) == alone


def test_a_steady_state_asked_for_the_sessions_that_are_judged_however_many_slots_there_are():
    more = steady(*[a_row()] * 4, a_failure(), a_row(judged=False), slots=2)
    assert (more.asked, more.begun, more.successful, more.failed, more.client_limited) == (5, 6, 4, 1, 0)
    fewer = steady(a_row(), a_row(judged=False), slots=8)
    assert (fewer.asked, fewer.client_limited, fewer.success_rate) == (1, 0, 1.0)
    assert judge_cell(8, [fewer], an_slo(success=1.0), 1).passed is True


def test_sessions_that_a_steady_state_could_not_start_leave_the_denominator():
    limited = a_failure(phase="connect", type="client_limit", code="EMFILE")
    summary = steady(a_row(), limited)
    assert (summary.asked, summary.client_limited, summary.success_rate) == (2, 1, 1.0)
    assert judge_cell(2, [summary], an_slo(success=0.5), 1).passed is None


def test_a_batch_without_some_of_its_rows_is_short_of_them_whatever_else_is_not_judged():
    rows = [a_row(0), a_row(1, judged=False), never_began(2)]
    summary = summary_of(rows, a_cell(8, arrival="burst"))
    assert (summary.asked, summary.successful, summary.client_limited) == (6, 1, 5)
    assert (summary.unjudged, summary.not_started, summary.begun) == (1, 1, 7)


def test_the_same_is_read_from_a_part(tmp_path):
    meta = a_meta(a_cell(3, arrival="burst"))
    rows = [a_row(0), a_row(1, judged=False), never_began(2)]
    assert summarise_rows(a_part(tmp_path, rows, meta), meta) == summarise(a_table(rows, meta), meta)


def stopped(good: int, failed: int, batch: int, *, late: int = 0, **meta) -> CellSummary:
    rows = [a_row(n) for n in range(good)] + [a_failure(n, type="timeout") for n in range(good, good + failed)]
    rows = [row._replace(late_s=0.4 if row.request_id >= good + failed - late else None) for row in rows]
    rows += [never_began(number) for number in range(good + failed, batch)]
    return summary_of(rows, a_cell(batch, arrival="burst"), client={"late_sessions": late}, **meta)


def test_a_batch_that_was_stopped_early_is_missed_and_says_how_many_were_begun():
    summary = stopped(25, 6, 100)
    assert (summary.asked, summary.client_limited, summary.not_started) == (31, 0, 69)
    verdict = judge_cell(100, [summary], an_slo(success=0.95), 1)
    assert verdict.passed is False
    (reason,) = verdict.reasons
    assert (reason.kind, reason.figures) == ("stopped_early", {"begun": 31, "batch": 100, "failed": 6})


def test_slots_that_never_began_before_time_was_up_are_told_and_decide_nothing():
    rows = [a_row(number, slot=number) for number in range(3)]
    summary = summary_of([*rows, never_began(3)], a_cell(4, arrival=STEADY))
    assert (summary.asked, summary.client_limited, summary.not_started) == (3, 0, 1)
    verdict = judge_cell(4, [summary], an_slo(success=1.0), 1)
    assert verdict.passed is True
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause, reason.figures) == ("stopped_early", "slots", {"begun": 3, "batch": 4})


def test_by_another_limit_than_the_one_it_was_stopped_for_nobody_can_say():
    verdict = judge_cell(100, [stopped(25, 6, 100)], an_slo(success=0.8), 1)
    assert (verdict.passed, [reason.kind for reason in verdict.reasons]) == (None, ["stopped_early"])


@pytest.mark.parametrize(("late", "passed"), [(0, False), (1, None)])
def test_what_the_client_may_have_failed_counts_for_sessions_that_were_never_begun(late, passed):
    # Without the late one 5 of 100 have failed, and the other 69 might all have ended well.
    summary = stopped(25, 6, 100, late=late, findings=STALL)
    assert judge_cell(100, [summary], an_slo(success=0.95), 1).passed is passed
    assert doubted_for_the_client(summary, an_slo(success=0.95)) is (passed is None)


def test_a_lost_load_process_leaves_a_whole_steady_state_in_doubt():
    limited = a_failure(phase="connect", type="client_limit", code=None, message="lost")
    rows = [*[a_row()] * 60, limited]
    assert steady(*rows, findings=LOST).doubtful is None
    numbered = [row._replace(request_id=number) for number, row in enumerate(rows)]
    assert summary_of(numbered, findings=LOST).doubtful is not None


FULL = {"message": "Server at capacity: 8/8 sessions active"}


def test_a_steady_state_on_a_full_server_is_refused_by_the_slots_that_were_open_at_once():
    # 10 slots on 8 places: two of them are refused again and again.
    opened = [a_row(step=9.0, pid=number % 2) for number in range(8)]
    later = [row._replace(reset_done_s=10.0, closed_s=19.0) for row in opened]
    summary = steady(*opened, *later, *[a_failure(**FULL)] * 40, slots=10, limits={"workers": 1, "max_envs": 8})
    (refusal,) = name_refusals([summary])
    assert (refusal.cause, refusal.count, refusal.batch) == ("capacity", 40, 10)
    assert (refusal.figures["held"], refusal.figures["limit"], refusal.figures["needed"]) == (8, 8, 10)
    assert "CAPACITY_REACHED at 8 sessions = 1 worker × 8" in refusal_sentence(refusal)


def test_how_often_a_slot_was_refused_says_nothing_of_how_sessions_are_spread():
    refused = steady(*[a_row()] * 16, *[a_failure(**FULL)] * 40, slots=24)
    assert split_seen(refused, workers=2, limit=12, refused=40) is None


def test_a_search_tries_as_many_slots_next_as_a_full_server_holds():
    plan = SearchPlan(1, 64, 0.05, 3)
    search = Searching(plan, an_slo(success=0.5))
    summary = steady(*[a_row()] * 8, *[a_failure(**FULL)] * 40, slots=32, limits={"workers": 1, "max_envs": 8})
    for passing in (1, 2, 4):
        search.record([steady(a_row(), slots=passing)], server_exited=False)
    search.record([summary], server_exited=False)
    assert search.next_repetition() == (8, 1)


def test_a_search_counts_the_sessions_that_were_begun():
    plan = SearchPlan(1, 128, 0.05, 1)
    curve = replace(a_cell(100, arrival="burst").curve, batches=(50, 100))
    passing = summary_of([a_row(number) for number in range(50)], a_cell(50, arrival="burst"))
    verdict = judge_curve(curve, [passing, stopped(25, 6, 100)], an_slo(success=0.95), search=plan)
    assert verdict.search is not None
    assert verdict.search.sessions == 81


def test_of_sessions_that_were_answered_with_errors_no_more_are_told_than_there_were():
    errors = AnsweredErrors(3, "invalid move", 5, 2)
    summary = steady(a_row(), *[a_row(judged=False)] * 2, answered_errors=errors)
    (reason,) = judge_cell(2, [summary], an_slo(success=0.5), 1).reasons
    assert (reason.kind, reason.figures["sessions"], reason.figures["asked"]) == ("answers", 3, 3)
