"""From summaries and an SLO to a verdict."""

from dataclasses import replace

import pytest
from cells import a_cell, a_curve, a_summary, an_slo, stats
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.results.outcome import ErrorCount, Outcome, combine_outcomes
from pytest_openenv_scale.verdict.sweep import judge_curve

MET, MISSED, INCONCLUSIVE = Outcome.MET, Outcome.MISSED, Outcome.INCONCLUSIVE
NO_SLO = Slo()
KILLED = ExitStatus.from_returncode(-9)
BUSY = (ClientFinding("cpu", "a load process used 99% of a core"),)


def judge(*summaries, slo=NO_SLO, batches=None, **options):
    measured = tuple(sorted({summary.batch for summary in summaries}))
    return judge_curve(a_curve(*(batches or measured or (1,))), summaries, slo, **options)


def decided(verdict):
    """The limit, None of the curve without one, that decides first, and its cause."""
    return verdict.decisive[0].limit, verdict.decisive[0].cause


def doubts(verdict):
    """The kind and the cause of every reason."""
    return [(reason.kind, reason.cause) for reason in verdict.reasons]


# --- max batch


def test_max_batch_is_the_largest_that_passes():
    verdict = judge(a_summary(32), a_summary(128), a_summary(256, failed=56), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.infeasible_min) == (MET, 128, 256)
    assert decided(verdict) == ("max_batch", "reached")


def test_a_batch_that_passes_above_one_that_failed_does_not_count():
    verdict = judge(a_summary(32), a_summary(64, failed=30), a_summary(128), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.feasible_max) == (MISSED, 32, 32)


def test_a_batch_that_fails_in_one_repetition_does_not_count():
    good = [a_summary(batch, repetition=n) for batch in (32, 64) for n in (1, 2)]
    verdict = judge(
        *good, a_summary(32, repetition=3), a_summary(64, repetition=3, failed=60), slo=an_slo(max_batch=64)
    )
    assert (verdict.outcome, verdict.max_batch) == (MISSED, 32)
    assert (decided(verdict), verdict.max_batches) == (("max_batch", "broken"), (64, 64, 32))


def test_the_max_batch_of_each_repetition_is_kept():
    cells = [a_summary(batch, repetition=n, failed=batch // 200 * 56) for batch in (128, 256) for n in (1, 2, 3)]
    verdict = judge(*cells, slo=an_slo(max_batch=256))
    assert (verdict.outcome, verdict.max_batches) == (MISSED, (128, 128, 128))


def test_larger_batches_that_early_stop_left_out_are_missed():
    verdict = judge(
        a_summary(32, failed=9), a_summary(64, failed=60), slo=an_slo(max_batch=256), batches=(32, 64, 128, 256)
    )
    assert (verdict.outcome, verdict.max_batch) == (MISSED, None)
    assert (verdict.stopped, verdict.unmeasured) == ("two_failing", (128, 256))


def test_a_run_that_ended_before_the_batch_asked_for_is_inconclusive():
    verdict = judge(a_summary(32), slo=an_slo(max_batch=128), batches=(32, 128))
    assert verdict.outcome == INCONCLUSIVE
    assert decided(verdict) == ("max_batch", "open")
    assert (verdict.max_batch, verdict.stopped, verdict.unmeasured) == (32, "ended_early", (128,))


def test_a_failure_below_the_batch_asked_for_decides_even_if_the_run_ended_early():
    assert judge(a_summary(32, failed=30), slo=an_slo(max_batch=128), batches=(32, 64, 128)).outcome == MISSED


def test_a_failure_above_the_batch_asked_for_does_no_harm():
    assert judge(a_summary(64), a_summary(128, failed=99), slo=an_slo(max_batch=64)).outcome == MET


def test_max_batch_counts_below_a_batch_in_doubt():
    verdict = judge(a_summary(32), a_summary(64, findings=BUSY), a_summary(128), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.infeasible_min) == (INCONCLUSIVE, 32, None)
    assert decided(verdict) == ("max_batch", "open")
    (reason,) = verdict.cell(64).reasons
    assert (reason.kind, reason.cause, reason.batch, reason.words) == ("client", "cpu", 64, BUSY[0].message)


def test_a_doubt_above_the_batch_asked_for_does_no_harm():
    assert judge(a_summary(32), a_summary(64, findings=BUSY), slo=an_slo(max_batch=32)).outcome == MET


def test_a_smaller_batch_that_was_not_measured_leaves_the_larger_in_doubt():
    verdict = judge(a_summary(64), slo=an_slo(max_batch=64), batches=(32, 64))
    assert (verdict.outcome, verdict.max_batch) == (INCONCLUSIVE, None)


def test_a_batch_with_a_repetition_missing_is_in_doubt():
    verdict = judge(a_summary(32, repetition=1), slo=an_slo(max_batch=32), repetitions=3)
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.batch, reason.repetitions) == ("incomplete", 32, 3)
    assert reason.figures == {"measured": 1}


def test_one_failing_repetition_decides_though_others_are_missing():
    assert judge(a_summary(32, failed=30), slo=an_slo(max_batch=32), repetitions=3).outcome == MISSED


cells = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=7)


def curve_of(passed):
    kinds = {True: {}, False: {"failed": 1}, None: {"findings": BUSY}}
    return [a_summary(2**position, **kinds[outcome]) for position, outcome in enumerate(passed)]


@given(cells)
def test_max_batch_is_where_the_batches_that_pass_end(passed):
    leading = next((position for position, outcome in enumerate(passed) if outcome is not True), len(passed))
    assert judge(*curve_of(passed), slo=an_slo(success=1.0)).max_batch == (2 ** (leading - 1) if leading else None)


@given(cells, st.integers(1, 128))
def test_no_failure_turned_into_a_pass_makes_a_verdict_worse(passed, batch_asked):
    ranks = [MISSED, INCONCLUSIVE, MET]
    slo = an_slo(success=1.0, max_batch=batch_asked)
    before = judge(*curve_of(passed), slo=slo)
    for position in range(len(passed)):
        after = judge(*curve_of([*passed[:position], True, *passed[position + 1 :]]), slo=slo)
        assert (after.max_batch or 0) >= (before.max_batch or 0)
        assert ranks.index(after.outcome) >= ranks.index(before.outcome)


@given(cells, st.integers(1, 128), st.integers(0, 128))
def test_asking_for_less_is_never_judged_worse(passed, batch_asked, more):
    ranks = [MISSED, INCONCLUSIVE, MET]
    less, greater = (
        judge(*curve_of(passed), slo=an_slo(success=1.0, max_batch=n)) for n in (batch_asked, batch_asked + more)
    )
    assert ranks.index(less.outcome) >= ranks.index(greater.outcome)


@given(cells, st.randoms())
def test_the_order_in_which_cells_come_makes_no_difference(passed, random):
    summaries = curve_of(passed)
    shuffled = random.sample(summaries, len(summaries))
    slo = an_slo(success=1.0, max_batch=8)
    assert judge(*shuffled, slo=slo) == judge(*summaries, slo=slo)


# --- without max_batch


def test_without_any_slo_95_percent_define_max_batch_and_one_passing_cell_is_enough():
    verdict = judge(a_summary(100, failed=5), a_summary(200, failed=11))
    assert (verdict.outcome, verdict.max_batch) == (MET, 100)
    assert decided(verdict) == (None, "no_limit")


def test_without_any_slo_a_curve_on_which_no_cell_passes_is_missed():
    verdict = judge(a_summary(4, failed=4), a_summary(8, failed=8))
    assert verdict.outcome == MISSED
    assert decided(verdict) == (None, "none_passes")
    breach = verdict.first_breach
    assert (breach.limit, breach.batch, breach.observed, breach.allowed) == ("success", 4, 0.0, 0.95)


def test_without_any_slo_a_server_that_died_is_a_miss_even_after_cells_that_passed():
    died = a_summary(8, failed=8, server_exit=KILLED)
    verdict = judge(a_summary(2), died, batches=(2, 8, 32))
    assert verdict.outcome is MISSED
    assert decided(verdict) == (None, "server_died")


def test_without_any_slo_a_curve_that_ended_early_is_inconclusive():
    verdict = judge(a_summary(2), batches=(2, 8, 32))
    assert verdict.outcome is INCONCLUSIVE
    assert (decided(verdict), verdict.unmeasured) == ((None, "ended_early"), (8, 32))


def test_without_any_slo_a_curve_in_doubt_is_inconclusive():
    verdict = judge(a_summary(4, failed=4), a_summary(8, findings=BUSY))
    assert (verdict.outcome, decided(verdict)) == (INCONCLUSIVE, (None, "none_known"))


@pytest.mark.parametrize(
    ("cells", "max_batch_known"),
    [
        ((a_summary(4, findings=BUSY), a_summary(8)), None),
        ((a_summary(4), a_summary(8, findings=BUSY), a_summary(16)), 4),
    ],
)
def test_without_any_slo_a_cell_in_doubt_leaves_max_batch_open(cells, max_batch_known):
    verdict = judge(*cells)
    assert (verdict.outcome, decided(verdict), verdict.max_batch) == (MET, (None, "no_limit"), max_batch_known)
    assert doubts(verdict) == [("client", "cpu")]


def test_without_max_batch_every_measured_cell_must_pass():
    slo = an_slo(success=0.95)
    assert judge(a_summary(32), a_summary(64), slo=slo).outcome == MET
    verdict = judge(a_summary(128), a_summary(256, failed=56), slo=slo)
    assert (verdict.outcome, decided(verdict)) == (MISSED, (None, "every_cell"))
    breach = verdict.first_breach
    assert (breach.limit, breach.batch, breach.observed, breach.allowed) == ("success", 256, 200 / 256, 0.95)


def test_without_max_batch_one_cell_in_doubt_is_inconclusive():
    assert judge(a_summary(32), a_summary(64, findings=BUSY), slo=an_slo(success=0.9)).outcome == INCONCLUSIVE


def test_without_max_batch_a_batch_that_was_not_measured_is_inconclusive():
    assert judge(a_summary(32), slo=an_slo(success=0.9), batches=(32, 64)).outcome == INCONCLUSIVE


def test_latency_limits_do_not_excuse_failing_sessions():
    assert judge(a_summary(64, failed=32), slo=an_slo(total_p99="2s")).outcome == MISSED


def test_nothing_measured_is_inconclusive():
    for slo in (NO_SLO, an_slo(max_batch=8), an_slo(total_p99="1s")):
        verdict = judge(slo=slo)
        assert (verdict.outcome, decided(verdict)) == (INCONCLUSIVE, (None, "nothing_measured"))


def test_a_success_rate_exactly_at_its_limit_holds():
    assert 99.9 / 100 > 0.999  # The arithmetic of floats is another matter.
    assert judge(a_summary(1000, failed=1), slo=Slo((Limit("success", 99.9 / 100),))).outcome == MET


# --- latency


def slow(batch=200, *, phase="total", p99=2.61, count=200, **fields):
    return a_summary(batch, phases={phase: stats(p99, count), f"{phase}_unqueued": stats(p99, count)}, **fields)


@pytest.mark.parametrize("phase", ["total", "connect", "reset", "step", "overhead"])
def test_a_percentile_above_its_limit_is_missed(phase):
    verdict = judge(slow(phase=phase), slo=an_slo(**{f"{phase}_p99": "2.5s"}))
    assert verdict.outcome == MISSED
    breach = verdict.first_breach
    assert (breach.limit, breach.phase, breach.statistic) == (f"{phase}_p99", phase, "p99")
    assert (breach.observed, breach.allowed, breach.batch) == (2.61, 2.5, 200)


def test_a_percentile_exactly_at_its_limit_holds():
    assert judge(slow(p99=2.5), slo=an_slo(total_p99=2.5)).outcome == MET


def test_a_percentile_of_few_sessions_is_judged():
    assert judge(slow(24, count=24), slo=an_slo(total_p99="2.5s")).outcome == MISSED


def test_latency_limits_are_part_of_what_max_batch_means():
    verdict = judge(a_summary(64), slow(128), slo=an_slo(max_batch=128, total_p99="2.5s"))
    assert (verdict.outcome, verdict.max_batch) == (MISSED, 64)
    assert (verdict.first_breach.limit, verdict.first_breach.batch) == ("total_p99", 128)


def test_latency_factor_allows_a_multiple_of_steps_times_wait_and_half_a_second():
    cell = a_cell(200, wait=1.0, steps=2)
    assert judge(slow(cell=cell, p99=5.0), slo=an_slo(latency_factor=2)).outcome == MET
    verdict = judge(slow(cell=cell, p99=5.1), slo=an_slo(latency_factor=2))
    breach = verdict.first_breach
    assert (breach.limit, breach.phase, breach.statistic) == ("latency_factor", "total", "p99")
    assert (breach.observed, breach.allowed) == (5.1, 5.0)


@pytest.mark.parametrize("limit", ["overhead_p99", "latency_factor"])
def test_a_limit_that_needs_the_wait_is_inconclusive_on_a_curve_without(limit):
    cell = a_cell(4, wait=None)
    summary = a_summary(4, cell=cell)
    bare = replace(summary, phases={name: each for name, each in summary.phases.items() if "overhead" not in name})
    verdict = judge_curve(cell.curve, [bare], an_slo(**{limit: 2}))
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause, reason.limit.name) == ("unmeasurable", "no_wait", limit)


@pytest.mark.parametrize("wait", [None, 1.0])
def test_a_steady_state_too_short_for_its_sessions_has_no_latency_to_judge(wait):
    cell = a_cell(4, wait=wait, arrival="steady=60,ramp=10")
    verdict = judge_curve(cell.curve, [replace(a_summary(4, cell=cell), phases={})], an_slo(step_p99="1s"))
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause, reason.limit.name) == ("unmeasurable", "none_ended", "step_p99")


def test_a_limit_nobody_can_judge_does_not_hide_one_that_is_broken():
    cell = a_cell(200, wait=None)
    summary = replace(slow(cell=cell), phases={"total": stats(2.61, 200)})
    assert judge_curve(cell.curve, [summary], an_slo(total_p99="2.5s", overhead_p99="1s")).outcome == MISSED


@pytest.mark.parametrize("phase", ["total", "overhead"])
def test_a_limit_broken_only_by_the_clients_own_queue_is_inconclusive(phase):
    summary = a_summary(200, phases={phase: stats(2.61, 200), f"{phase}_unqueued": stats(1.1, 200)})
    verdict = judge(summary, slo=an_slo(**{f"{phase}_p99": "2.5s"}))
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.limit.name, reason.batch) == ("queue", f"{phase}_p99", 200)
    assert reason.figures == {"observed": 2.61, "allowed": 2.5, "unqueued": 1.1, "samples": 200}


def test_a_limit_that_is_broken_even_without_the_clients_queue_is_missed():
    summary = a_summary(200, phases={"total": stats(3.0, 200), "total_unqueued": stats(2.6, 200)})
    assert judge(summary, slo=an_slo(total_p99="2.5s")).outcome == MISSED


# --- the client


UNANSWERED = {"missed_pongs": 3, "ping_s": 20.0}


@pytest.mark.parametrize(("after_s", "cause"), [(20.0, "ended"), (19.9, "late"), (None, "late")])
def test_pings_without_an_answer_are_told_and_decide_nothing(after_s, cause):
    cell = a_summary(8, client={**UNANSWERED, "ping_s": after_s})
    verdict = judge(cell, slo=an_slo(max_batch=8, total_p99="60s", success=1.0))
    assert (verdict.outcome, doubts(verdict)) == (MET, [("pongs", cause)])
    assert verdict.reasons[0].figures == {"missed": 3, "after": after_s}


def test_what_leaves_a_batch_in_doubt_comes_before_what_is_only_told():
    unanswered, doubted = a_summary(8, client=UNANSWERED), a_summary(8, repetition=2, findings=BUSY)
    verdict = judge(unanswered, doubted, slo=an_slo(success=0.9))
    assert (verdict.outcome, doubts(verdict)) == (INCONCLUSIVE, [("client", "cpu"), ("pongs", "ended")])


def test_a_clock_that_was_set_leaves_latencies_in_doubt_and_success_alone():
    moved = a_summary(8, client={"clock_moved_s": 3600.0, "impossible_arrivals": 2})
    latency, alone = judge(moved, slo=an_slo(total_p99="60s")), judge(moved, slo=an_slo(success=1.0))
    assert (latency.outcome, alone.outcome) == (INCONCLUSIVE, MET)
    assert [reason.limit and reason.limit.name for verdict in (latency, alone) for reason in verdict.reasons] == [
        "total_p99",
        None,
    ]
    assert alone.reasons[0].figures == {"moved": 3600.0, "unstamped": 2}


def test_a_busy_client_cannot_speak_for_the_servers_latency():
    verdict = judge(slow(findings=BUSY), slo=an_slo(total_p99="2.5s"))
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.first_breach is None


def test_a_busy_client_cannot_pass_a_server_either():
    assert judge(a_summary(64, findings=BUSY), slo=an_slo(max_batch=64)).outcome == INCONCLUSIVE


def test_refusals_the_server_named_stand_though_the_client_was_busy():
    assert judge(a_summary(64, failed=32, findings=BUSY), slo=an_slo(max_batch=64)).outcome == MISSED


def test_sessions_that_timed_out_under_a_busy_client_prove_nothing():
    late = (ErrorCount("connect", "timeout", None, 32),)
    assert judge(a_summary(64, failed=32, errors=late, findings=BUSY), slo=an_slo(max_batch=64)).outcome == INCONCLUSIVE
    assert judge(a_summary(64, failed=32, errors=late), slo=an_slo(max_batch=64)).outcome == MISSED


def test_sessions_the_client_could_not_start_make_a_cell_inconclusive():
    verdict = judge(a_summary(64, client_limited=14), slo=an_slo(max_batch=64))
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause, reason.words) == ("client", "client_limit", None)
    assert reason.figures == {"sessions": 14, "asked": 64, "code": None}


def test_refusals_are_definite_only_if_the_sessions_that_never_started_could_not_have_saved_the_rate():
    slo = an_slo(success=0.5, max_batch=64)
    assert judge(a_summary(64, client_limited=40, failed=20), slo=slo).outcome == INCONCLUSIVE
    assert judge(a_summary(64, client_limited=10, failed=40), slo=slo).outcome == MISSED


def test_a_cell_none_of_whose_sessions_started_is_inconclusive():
    verdict = judge(a_summary(64, client_limited=64), slo=an_slo(max_batch=64))
    assert verdict.outcome == INCONCLUSIVE
    assert doubts(verdict) == [("client", "client_limit"), ("no_data", "")]


def test_a_held_batch_that_was_never_up_at_once_is_inconclusive():
    verdict = judge(a_summary(64, peak_concurrency=40), slo=an_slo(max_batch=64))
    assert verdict.outcome == INCONCLUSIVE
    (reason,) = verdict.reasons
    assert (reason.kind, reason.cause) == ("hold", "not_all_open")
    assert reason.figures == {"open": 40, "asked": 64, "failed": 0}


def test_a_held_batch_short_of_its_failures_alone_is_judged():
    assert judge(a_summary(64, failed=2), slo=an_slo(max_batch=64)).outcome == MET


def test_a_burst_need_not_be_up_at_once():
    summary = a_summary(64, cell=a_cell(64, arrival="burst"), peak_concurrency=3)
    assert judge_curve(summary.cell.curve, [summary], an_slo(max_batch=64)).outcome == MET


# --- the server


def test_a_server_that_died_misses_the_cell_with_its_status_and_its_last_words():
    verdict = judge(a_summary(64, server_exit=KILLED, log_tail="bye"), slo=an_slo(max_batch=64))
    assert verdict.outcome == MISSED
    (reason,) = verdict.reasons
    assert (reason.kind, reason.batch, reason.exit, reason.detail) == ("server_died", 64, KILLED, "bye")
    assert verdict.first_breach.limit == "server"


def test_a_dead_server_is_missed_though_the_client_was_busy():
    verdict = judge(a_summary(64, server_exit=KILLED, findings=BUSY), slo=an_slo(max_batch=64))
    assert verdict.outcome == MISSED


# --- hosts, cores and rate


def test_fewer_hosts_than_asked_are_missed():
    verdict = judge(a_summary(8), slo=an_slo(hosts=2))
    assert verdict.outcome == MISSED
    breach = verdict.first_breach
    assert (breach.limit, breach.batch, breach.observed, breach.allowed) == ("hosts", 8, 1, 2)


def test_as_many_hosts_as_asked_are_enough_though_some_sessions_do_not_tell():
    summary = a_summary(8, host_counts={"a": 3, "b": 3}, hosts=2)
    assert judge(summary, slo=an_slo(hosts=2)).outcome == MET


def test_hosts_nobody_can_know_are_inconclusive():
    verdict = judge(a_summary(8, host_counts={}, hosts=None), slo=an_slo(hosts=2))
    assert verdict.outcome == INCONCLUSIVE
    assert doubts(verdict) == [("hosts", "unknown")]


def test_hosts_are_judged_only_where_the_batch_can_reach_them():
    two = {"host_counts": {"a": 1, "b": 1}, "hosts": 2}
    assert judge(a_summary(1), a_summary(2, **two), slo=an_slo(hosts=2)).outcome == MET
    verdict = judge(a_summary(1), slo=an_slo(hosts=2))
    assert verdict.outcome == INCONCLUSIVE
    assert [(limit.limit, limit.cause, limit.outcome) for limit in verdict.limits] == [
        (None, "every_cell", MET),
        ("hosts", "small_batches", INCONCLUSIVE),
    ]
    assert verdict.limits[1].figures == {"largest": 1}


def test_batch_per_core_is_max_batch_over_the_servers_cores():
    cells = [a_summary(64), a_summary(128), a_summary(256, failed=99)]
    verdict = judge(*cells, slo=an_slo(batch_per_core=64), cores=2)
    assert (verdict.outcome, verdict.max_batch_per_core) == (MET, 64)
    verdict = judge(*cells, slo=an_slo(batch_per_core=100), cores=2)
    assert (verdict.outcome, decided(verdict), verdict.cores) == (MISSED, ("batch_per_core", "broken"), 2)
    assert verdict.limits[0].figures == {"observed": 64, "needed": 200}


def test_batch_per_core_above_the_largest_batch_measured_is_inconclusive():
    verdict = judge(a_summary(64), slo=an_slo(batch_per_core=64), cores=2)
    assert verdict.outcome == INCONCLUSIVE
    assert decided(verdict) == ("batch_per_core", "open")
    assert verdict.limits[0].figures == {"observed": 32, "needed": 128}


def test_batch_per_core_without_known_cores_is_inconclusive():
    verdict = judge(a_summary(64), slo=an_slo(batch_per_core=64))
    assert verdict.outcome == INCONCLUSIVE
    assert decided(verdict) == ("batch_per_core", "unknown_cores")


def test_rps_holds_if_one_passing_cell_reaches_it_in_every_repetition():
    rates = {(8, 1): 90.0, (8, 2): 80.0, (16, 1): 150.0, (16, 2): 60.0}
    cells = [a_summary(batch, repetition=n, requests_per_second=rate) for (batch, n), rate in rates.items()]
    assert judge(*cells, slo=an_slo(rps=80)).outcome == MET
    verdict = judge(*cells, slo=an_slo(rps=100))
    assert decided(verdict) == ("rps", "broken")
    assert verdict.decisive[0].figures == {"observed": 80.0, "batch": 8}


def test_rps_of_a_cell_that_fails_does_not_count():
    cells = [a_summary(8, requests_per_second=50.0), a_summary(16, failed=9, requests_per_second=500.0)]
    assert judge(*cells, slo=an_slo(rps=100, max_batch=8)).outcome == MISSED


# --- the verdict itself


def test_the_worst_limit_decides():
    verdict = judge(a_summary(64), slo=an_slo(max_batch=64, hosts=2))
    assert verdict.outcome == MISSED
    assert (decided(verdict), verdict.max_batch) == (("max_batch", "broken"), None)


def test_a_breach_tells_its_repetition():
    verdict = judge(a_summary(8), a_summary(8, repetition=2, failed=4), slo=an_slo(success=0.9))
    assert (verdict.repetitions, verdict.cells[0].by_repetition) == (2, (True, False))
    assert (verdict.first_breach.batch, verdict.first_breach.repetition) == (8, 2)


def test_notes_stay_with_the_verdict():
    assert judge(a_summary(8), notes=["the built-in environment"]).notes == ("the built-in environment",)


def test_a_cause_is_taken_from_a_batch_that_failed_and_not_from_one_that_passed():
    stray = (ErrorCount("step", "closed_early", "1006", 1, None),)
    passed, failed = a_summary(64, failed=1, errors=stray, peak_concurrency=64), a_summary(128, failed=64)
    assert [(refusal.cause, refusal.batch) for refusal in judge(passed, failed).refused] == [("capacity", 128)]
    full = a_summary(64, failed=1)
    assert [(refusal.cause, refusal.batch) for refusal in judge(full, failed).refused] == [("capacity", 128)]
    assert [(refusal.cause, refusal.batch) for refusal in judge(passed).refused] == [("cut", 64)]


def test_what_refused_is_part_of_the_verdict():
    assert [refusal.cause for refusal in judge(a_summary(64, failed=32)).refused] == ["capacity"]


@pytest.mark.parametrize(
    ("outcomes", "together"),
    [([], INCONCLUSIVE), ([MET, MET], MET), ([MET, INCONCLUSIVE], INCONCLUSIVE), ([MET, INCONCLUSIVE, MISSED], MISSED)],
)
def test_outcomes_combine_to_the_worst(outcomes, together):
    assert combine_outcomes(outcomes) == together
