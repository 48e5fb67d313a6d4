"""The limit `open`: the fewest sessions that were open at once while a steady state lasted."""

from __future__ import annotations

import pytest
from cells import a_cell, a_curve, a_summary, an_slo

from pytest_openenv_scale.config.limits import parse_slo_expression
from pytest_openenv_scale.metrics.summary import CellSummary, DoubtfulSessions
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import CellVerdict, Outcome
from pytest_openenv_scale.verdict.cell import judge_cell
from pytest_openenv_scale.verdict.sweep import judge_curve

STEADY = "steady=60,ramp=10"
STALL = (ClientFinding("loop_lag", "a load process stood still for 412 ms"),)
SEEN_LATE = (ClientFinding("http_lag", "HTTP answers were seen late"),)


def steady(slots: int, open_least: int | None, **fields) -> CellSummary:
    return a_summary(slots, cell=a_cell(slots, arrival=STEADY), open_least=open_least, **fields)


def judged(summary: CellSummary, least: int) -> CellVerdict:
    return judge_cell(summary.batch, [summary], an_slo(open=least), 1)


def test_as_many_as_the_limit_asks_for_have_to_be_open_all_the_time():
    assert judged(steady(64, 60), 60).passed is True
    verdict = judged(steady(64, 59), 60)
    (breach,) = verdict.breaches
    assert (verdict.passed, breach.limit, breach.observed, breach.allowed) == (False, "open", 59, 60)


def test_fewer_slots_than_the_limit_asks_for_are_not_judged_by_it():
    assert judged(steady(32, 30), 60).passed is True
    only_small = judge_curve(a_curve(32, arrival=STEADY), [steady(32, 30)], an_slo(open=60))
    assert [(limit.limit, limit.cause) for limit in only_small.limits if limit.outcome is Outcome.INCONCLUSIVE] == [
        ("open", "small_batches")
    ]


def test_without_a_steady_state_nobody_can_say():
    (reason,) = judged(a_summary(64), 60).reasons
    assert (reason.kind, reason.cause) == ("unmeasurable", "not_steady")


@pytest.mark.parametrize("findings", [STALL, SEEN_LATE])
def test_what_held_up_the_client_may_be_why_fewer_were_open(findings):
    verdict = judged(steady(64, 59, findings=findings), 60)
    assert (verdict.passed, [reason.kind for reason in verdict.reasons]) == (None, ["client"])
    assert judged(steady(64, 60, findings=SEEN_LATE), 60).passed is True


def test_it_is_written_as_other_limits_are():
    limit = parse_slo_expression("open>=60")
    assert (limit.name, limit.allowed, limit.text, limit.expression) == ("open", 60, "open ≥ 60", "open>=60")


@pytest.mark.parametrize(("least", "passed"), [(57, True), (58, None)])
def test_sessions_that_were_held_up_might_not_have_been_open(least, passed):
    held_up = DoubtfulSessions(successful=2, failed=1, lost=0, bounds={})
    assert judged(steady(64, 60, findings=STALL, doubtful=held_up), least).passed is passed
    too_few_slots = steady(8, 6, findings=STALL, doubtful=held_up)
    assert judge_cell(8, [too_few_slots], an_slo(success=0.5, open=least), 1).passed is True
