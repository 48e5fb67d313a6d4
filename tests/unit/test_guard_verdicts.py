"""What is known of the client decides what a cell may say: in doubt about its own part, it never says met or missed."""

from __future__ import annotations

import errno
import os

import pytest
from cells import a_curve, a_failure, a_row, a_summary, an_slo, summary_of

from pytest_openenv_scale.client.handshake import loss_from_error
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import CurveVerdict, Outcome
from pytest_openenv_scale.verdict.sweep import judge_curve

MET, MISSED, INCONCLUSIVE = Outcome.MET, Outcome.MISSED, Outcome.INCONCLUSIVE
LATE = (ClientFinding("cpu", "a load process did not keep up: it used 95% of a core"),)


def judge(*summaries: CellSummary, **limits) -> CurveVerdict:
    return judge_curve(a_curve(*sorted({item.batch for item in summaries})), summaries, an_slo(**limits))


# The client's own errors


@pytest.mark.parametrize(
    "number",
    [
        *(errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ENOBUFS, errno.ENOMEM),
        *(errno.EACCES, errno.EPERM, errno.ENETDOWN, errno.EAFNOSUPPORT),
    ],
    ids=errno.errorcode.get,
)
def test_an_error_of_this_machine_never_counts_as_the_servers(number):
    loss = loss_from_error(OSError(number, os.strerror(number)))
    assert (loss.kind, loss.code) == ("client_limit", errno.errorcode[number])
    rows = [a_row(0), a_row(1), a_failure(2, phase="connect", type=loss.kind, code=loss.code, message=loss.message)]
    summary = summary_of(rows)
    assert (summary.failed, summary.client_limited, summary.success_rate) == (0, 1, 1.0)
    verdict = judge(summary, success=1.0)
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause, reason.words) == ("client", "client_limit", os.strerror(number))
    assert reason.figures == {"sessions": 1, "asked": 3, "code": loss.code}


# A held batch that was not reached


def test_a_held_batch_of_which_some_were_refused_is_missed():
    rows = [*(a_row(n) for n in range(6)), *(a_failure(n) for n in range(6, 8))]
    assert judge(summary_of(rows), success=1.0).outcome == MISSED


def test_a_held_batch_whose_sessions_were_never_open_together_is_inconclusive():
    rows = [a_row(0), a_row(1), a_row(2, reset_done_s=5.0, closed_s=6.0)]
    verdict = judge(summary_of(rows), success=1.0)
    assert verdict.outcome == INCONCLUSIVE
    assert [reason.figures for reason in verdict.reasons] == [{"open": 2, "asked": 3, "failed": 0}]


def test_sessions_that_failed_once_all_were_open_do_not_stand_for_those_that_never_were():
    """Three of four were up together and one of those failed in its step; the fourth came late."""
    failure = {"success": False, "error_phase": "step", "error_type": "timeout", "total_latency": None}
    rows = [a_row(0), a_row(1), a_row(2, **failure), a_row(3, reset_done_s=5.0, closed_s=6.0)]
    verdict = judge(summary_of(rows), success=0.7)
    assert verdict.outcome == INCONCLUSIVE
    assert [reason.figures for reason in verdict.reasons] == [{"open": 3, "asked": 4, "failed": 1}]


# Rates


def test_a_rate_that_a_cell_in_doubt_might_have_reached_is_not_missed():
    cells = a_summary(8, requests_per_second=80.0), a_summary(64, requests_per_second=99.0, findings=LATE)
    verdict = judge(*cells, rps=100)
    assert verdict.outcome == INCONCLUSIVE
    rate = next(limit for limit in verdict.decisive if limit.limit == "rps")
    assert (rate.cause, rate.figures) == ("open", {"observed": 80.0, "batch": 8})
    assert judge(cells[0], a_summary(64, requests_per_second=99.0), rps=100).outcome == MISSED


def test_a_rate_with_no_passing_cell_is_not_missed_while_one_is_in_doubt():
    cells = a_summary(8, requests_per_second=80.0, findings=LATE), a_summary(64, failed=60)
    assert judge(*cells, rps=100, max_batch=8).outcome == INCONCLUSIVE


# Notes


def test_a_note_is_told_and_changes_nothing():
    verdict = judge(a_summary(8, notes=("9 descriptors still held",)), success=1.0)
    assert verdict.outcome == MET
    (reason,) = verdict.reasons
    assert (reason.kind, reason.words) == ("note", "9 descriptors still held")


def test_a_note_never_stands_in_front_of_what_decides():
    cell = a_summary(8, notes=("slow to let go",), findings=LATE)
    assert [reason.kind for reason in judge(cell, success=1.0).reasons] == ["client", "note"]


def test_a_note_survives_being_stored():
    cell = a_summary(8, notes=("slow to let go",))
    assert CellSummary.from_json(cell.to_json()).notes == ("slow to let go",)
