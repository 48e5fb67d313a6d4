"""From summaries and an SLO to a verdict."""

from dataclasses import replace

import pytest
from cells import a_cell, a_curve, a_summary, an_slo, stats
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import Limit, Slo
from pytest_openenv_scale.results.cell_meta import ClientFinding
from pytest_openenv_scale.results.outcome import ErrorCount, Outcome, combine_outcomes
from pytest_openenv_scale.verdict.sweep import judge_curve

MET, MISSED, INCONCLUSIVE = Outcome.MET, Outcome.MISSED, Outcome.INCONCLUSIVE
NO_SLO = Slo()
BUSY = (ClientFinding("cpu", "a load process used 99% of a core"),)


def judge(*summaries, slo=NO_SLO, batches=None, **options):
    measured = tuple(sorted({summary.batch for summary in summaries}))
    return judge_curve(a_curve(*(batches or measured or (1,))), summaries, slo, **options)


def texts(verdict):
    return "\n".join(reason.text for reason in verdict.reasons)


# --- max batch


def test_max_batch_is_the_largest_that_passes():
    verdict = judge(a_summary(32), a_summary(128), a_summary(256, failed=56), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.infeasible_min) == (MET, 128, 256)
    assert verdict.headline == "SLO met: max_batch ≥ 128, got 128"


def test_a_batch_that_passes_above_one_that_failed_does_not_count():
    verdict = judge(a_summary(32), a_summary(64, failed=30), a_summary(128), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.feasible_max) == (MISSED, 32, 32)


def test_a_batch_that_fails_in_one_repetition_does_not_count():
    good = [a_summary(batch, repetition=n) for batch in (32, 64) for n in (1, 2)]
    verdict = judge(
        *good, a_summary(32, repetition=3), a_summary(64, repetition=3, failed=60), slo=an_slo(max_batch=64)
    )
    assert (verdict.outcome, verdict.max_batch) == (MISSED, 32)
    assert verdict.headline == "SLO missed: max_batch ≥ 64, got 32 in 1 of 3 repetitions (64 in the others)"


def test_a_missed_max_batch_says_what_every_repetition_got():
    cells = [a_summary(batch, repetition=n, failed=batch // 200 * 56) for batch in (128, 256) for n in (1, 2, 3)]
    verdict = judge(*cells, slo=an_slo(max_batch=256))
    assert verdict.headline == "SLO missed: max_batch ≥ 256, got 128 in 3 of 3 repetitions"


def test_larger_batches_that_early_stop_left_out_are_missed():
    verdict = judge(
        a_summary(32, failed=9), a_summary(64, failed=60), slo=an_slo(max_batch=256), batches=(32, 64, 128, 256)
    )
    assert (verdict.outcome, verdict.max_batch) == (MISSED, None)
    assert verdict.stop_reason == (
        "stopped after two failing batches in a row (32 and 64); batches 128 and 256 not measured"
    )


def test_a_run_that_ended_before_the_batch_asked_for_is_inconclusive():
    verdict = judge(a_summary(32), slo=an_slo(max_batch=128), batches=(32, 128))
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.headline == "SLO inconclusive: max_batch ≥ 128 is not decided, got 32: batch 128 not measured"
    assert verdict.stop_reason == "ended early; batch 128 not measured"


def test_a_failure_below_the_batch_asked_for_decides_even_if_the_run_ended_early():
    assert judge(a_summary(32, failed=30), slo=an_slo(max_batch=128), batches=(32, 64, 128)).outcome == MISSED


def test_a_failure_above_the_batch_asked_for_does_no_harm():
    assert judge(a_summary(64), a_summary(128, failed=99), slo=an_slo(max_batch=64)).outcome == MET


def test_max_batch_counts_below_a_batch_in_doubt():
    verdict = judge(a_summary(32), a_summary(64, findings=BUSY), a_summary(128), slo=an_slo(max_batch=128))
    assert (verdict.outcome, verdict.max_batch, verdict.infeasible_min) == (INCONCLUSIVE, 32, None)
    assert "a load process used 99% of a core (batch 64)" in verdict.headline


def test_a_doubt_above_the_batch_asked_for_does_no_harm():
    assert judge(a_summary(32), a_summary(64, findings=BUSY), slo=an_slo(max_batch=32)).outcome == MET


def test_a_smaller_batch_that_was_not_measured_leaves_the_larger_in_doubt():
    verdict = judge(a_summary(64), slo=an_slo(max_batch=64), batches=(32, 64))
    assert (verdict.outcome, verdict.max_batch) == (INCONCLUSIVE, None)


def test_a_batch_with_a_repetition_missing_is_in_doubt():
    verdict = judge(a_summary(32, repetition=1), slo=an_slo(max_batch=32), repetitions=3)
    assert verdict.outcome == INCONCLUSIVE
    assert "batch 32 was measured in 1 of 3 repetitions" in verdict.headline


def test_one_failing_repetition_decides_though_others_are_missing():
    assert judge(a_summary(32, failed=30), slo=an_slo(max_batch=32), repetitions=3).outcome == MISSED


cells = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=7)


def curve_of(passed):
    kinds = {True: {}, False: {"failed": 1}, None: {"findings": BUSY}}
    return [a_summary(2**place, **kinds[outcome]) for place, outcome in enumerate(passed)]


@given(cells)
def test_max_batch_is_where_the_batches_that_pass_end(passed):
    leading = next((place for place, outcome in enumerate(passed) if outcome is not True), len(passed))
    assert judge(*curve_of(passed), slo=an_slo(success=1.0)).max_batch == (2 ** (leading - 1) if leading else None)


@given(cells, st.integers(1, 128))
def test_no_failure_turned_into_a_pass_makes_a_verdict_worse(passed, asked):
    ranks = [MISSED, INCONCLUSIVE, MET]
    slo = an_slo(success=1.0, max_batch=asked)
    before = judge(*curve_of(passed), slo=slo)
    for place in range(len(passed)):
        after = judge(*curve_of([*passed[:place], True, *passed[place + 1 :]]), slo=slo)
        assert (after.max_batch or 0) >= (before.max_batch or 0)
        assert ranks.index(after.outcome) >= ranks.index(before.outcome)


@given(cells, st.integers(1, 128), st.integers(0, 128))
def test_asking_for_less_is_never_judged_worse(passed, asked, more):
    ranks = [MISSED, INCONCLUSIVE, MET]
    less, greater = (judge(*curve_of(passed), slo=an_slo(success=1.0, max_batch=n)) for n in (asked, asked + more))
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
    assert verdict.headline == "SLO met: no limit was asked for; max batch: got 100"


def test_without_any_slo_a_curve_on_which_no_cell_passes_is_missed():
    verdict = judge(a_summary(4, failed=4), a_summary(8, failed=8))
    assert verdict.outcome == MISSED
    assert verdict.headline.startswith("SLO missed: no cell passes: success 0.0 % < 95 % at batch 4 (4 of 4 failed")


def test_without_any_slo_a_server_that_died_is_a_miss_even_after_cells_that_passed():
    died = a_summary(8, failed=8, server_exit="killed by SIGKILL")
    verdict = judge(a_summary(2), died, batches=(2, 8, 32))
    assert verdict.outcome is MISSED
    assert "SIGKILL" in verdict.headline


def test_without_any_slo_a_curve_that_ended_early_is_inconclusive():
    verdict = judge(a_summary(2), batches=(2, 8, 32))
    assert verdict.outcome is INCONCLUSIVE
    assert "batches 8 and 32 not measured" in verdict.headline


def test_without_any_slo_a_curve_in_doubt_is_inconclusive():
    assert judge(a_summary(4, failed=4), a_summary(8, findings=BUSY)).outcome == INCONCLUSIVE


@pytest.mark.parametrize(
    ("cells", "known"),
    [
        ((a_summary(4, findings=BUSY), a_summary(8)), "not known"),
        ((a_summary(4), a_summary(8, findings=BUSY), a_summary(16)), "at least 4"),
    ],
)
def test_without_any_slo_a_cell_in_doubt_leaves_max_batch_open(cells, known):
    verdict = judge(*cells)
    assert verdict.outcome is MET
    assert verdict.headline.startswith(f"SLO met: no limit was asked for; max batch {known}: a load process used 99%")


def test_without_max_batch_every_measured_cell_must_pass():
    slo = an_slo(success=0.95)
    assert judge(a_summary(32), a_summary(64), slo=slo).outcome == MET
    verdict = judge(a_summary(128), a_summary(256, failed=56), slo=slo)
    assert verdict.outcome == MISSED
    assert verdict.headline == (
        "SLO missed: success 78.1 % < 95 % at batch 256 (56 of 256 failed: 56 capacity in reset)"
    )


def test_without_max_batch_one_cell_in_doubt_is_inconclusive():
    assert judge(a_summary(32), a_summary(64, findings=BUSY), slo=an_slo(success=0.9)).outcome == INCONCLUSIVE


def test_without_max_batch_a_batch_that_was_not_measured_is_inconclusive():
    assert judge(a_summary(32), slo=an_slo(success=0.9), batches=(32, 64)).outcome == INCONCLUSIVE


def test_latency_limits_do_not_excuse_failing_sessions():
    assert judge(a_summary(64, failed=32), slo=an_slo(total_p99="2s")).outcome == MISSED


def test_nothing_measured_is_inconclusive():
    for slo in (NO_SLO, an_slo(max_batch=8), an_slo(total_p99="1s")):
        verdict = judge(slo=slo)
        assert verdict.outcome == INCONCLUSIVE
        assert verdict.headline == "SLO inconclusive: nothing was measured, and no sample must not pass"


def test_a_success_rate_exactly_at_its_limit_holds():
    assert 99.9 / 100 > 0.999, "the arithmetic of floats is not what this test is about"
    assert judge(a_summary(1000, failed=1), slo=Slo((Limit("success", 99.9 / 100),))).outcome == MET


# --- latency


def slow(batch=200, *, phase="total", p99=2.61, count=200, **fields):
    return a_summary(batch, phases={phase: stats(p99, count), f"{phase}_unqueued": stats(p99, count)}, **fields)


@pytest.mark.parametrize("phase", ["total", "connect", "reset", "step", "overhead"])
def test_a_percentile_above_its_limit_is_missed(phase):
    verdict = judge(slow(phase=phase), slo=an_slo(**{f"{phase}_p99": "2.5s"}))
    assert verdict.outcome == MISSED
    assert verdict.headline == f"SLO missed: {phase}_p99 2.61 s > 2.5 s at batch 200"
    breach = verdict.first_breach
    assert (breach.limit, breach.phase, breach.statistic) == (f"{phase}_p99", phase, "p99")
    assert (breach.observed, breach.allowed, breach.batch) == (2.61, 2.5, 200)


def test_a_percentile_exactly_at_its_limit_holds():
    assert judge(slow(p99=2.5), slo=an_slo(total_p99=2.5)).outcome == MET


def test_a_percentile_of_few_sessions_is_judged_and_says_how_few():
    verdict = judge(slow(24, count=24), slo=an_slo(total_p99="2.5s"))
    assert verdict.outcome == MISSED
    assert "total_p99 2.61 s (p99 of 24 ≈ max) > 2.5 s at batch 24" in verdict.headline


def test_latency_limits_are_part_of_what_max_batch_means():
    verdict = judge(a_summary(64), slow(128), slo=an_slo(max_batch=128, total_p99="2.5s"))
    assert (verdict.outcome, verdict.max_batch) == (MISSED, 64)
    assert "total_p99 2.61 s > 2.5 s at batch 128" in texts(verdict)


def test_latency_factor_allows_a_multiple_of_steps_times_wait_and_half_a_second():
    cell = a_cell(200, wait=1.0, steps=2)
    assert judge(slow(cell=cell, p99=5.0), slo=an_slo(latency_factor=2)).outcome == MET
    verdict = judge(slow(cell=cell, p99=5.1), slo=an_slo(latency_factor=2))
    assert verdict.headline == "SLO missed: total_p99 5.10 s > 5 s (latency_factor ≤ 2) at batch 200"
    assert verdict.first_breach.allowed == 5.0


@pytest.mark.parametrize("limit", ["overhead_p99", "latency_factor"])
def test_a_limit_that_needs_the_wait_is_inconclusive_on_a_curve_without(limit):
    cell = a_cell(4, wait=None)
    summary = a_summary(4, cell=cell)
    bare = replace(summary, phases={name: each for name, each in summary.phases.items() if "overhead" not in name})
    verdict = judge_curve(cell.curve, [bare], an_slo(**{limit: 2}))
    assert verdict.outcome == INCONCLUSIVE
    assert "cannot be judged at batch 4: the curve has no wait" in verdict.headline


def test_a_limit_nobody_can_judge_does_not_hide_one_that_is_broken():
    cell = a_cell(200, wait=None)
    summary = replace(slow(cell=cell), phases={"total": stats(2.61, 200)})
    assert judge_curve(cell.curve, [summary], an_slo(total_p99="2.5s", overhead_p99="1s")).outcome == MISSED


@pytest.mark.parametrize("phase", ["total", "overhead"])
def test_a_limit_broken_only_by_the_clients_own_queue_is_inconclusive(phase):
    summary = a_summary(200, phases={phase: stats(2.61, 200), f"{phase}_unqueued": stats(1.1, 200)})
    verdict = judge(summary, slo=an_slo(**{f"{phase}_p99": "2.5s"}))
    assert verdict.outcome == INCONCLUSIVE
    assert (
        f"{phase}_p99 2.61 s > 2.5 s at batch 200, but without the client's own queue it is 1.10 s" in verdict.headline
    )


def test_a_limit_that_is_broken_even_without_the_clients_queue_is_missed():
    summary = a_summary(200, phases={"total": stats(3.0, 200), "total_unqueued": stats(2.6, 200)})
    assert judge(summary, slo=an_slo(total_p99="2.5s")).outcome == MISSED


# --- the client


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
    assert "14 sessions of 64 could not be started by the client" in verdict.headline


def test_refusals_are_definite_only_if_the_sessions_that_never_started_could_not_have_saved_the_rate():
    slo = an_slo(success=0.5, max_batch=64)
    assert judge(a_summary(64, client_limited=40, failed=20), slo=slo).outcome == INCONCLUSIVE
    assert judge(a_summary(64, client_limited=10, failed=40), slo=slo).outcome == MISSED


def test_a_cell_none_of_whose_sessions_started_is_inconclusive():
    verdict = judge(a_summary(64, client_limited=64), slo=an_slo(max_batch=64))
    assert verdict.outcome == INCONCLUSIVE


def test_a_held_batch_that_was_never_up_at_once_is_inconclusive():
    verdict = judge(a_summary(64, peak_concurrency=40), slo=an_slo(max_batch=64))
    assert verdict.outcome == INCONCLUSIVE
    assert "only 40 of 64 sessions (0 failed) were open at once (batch 64)" in verdict.headline


def test_a_held_batch_short_of_its_failures_alone_is_judged():
    assert judge(a_summary(64, failed=2), slo=an_slo(max_batch=64)).outcome == MET


def test_a_burst_need_not_be_up_at_once():
    summary = a_summary(64, cell=a_cell(64, arrival="burst"), peak_concurrency=3)
    assert judge_curve(summary.cell.curve, [summary], an_slo(max_batch=64)).outcome == MET


# --- the server


def test_a_server_that_died_misses_the_cell_with_its_status_and_its_last_words():
    verdict = judge(a_summary(64, server_exit="killed by SIGKILL", log_tail="bye"), slo=an_slo(max_batch=64))
    assert verdict.outcome == MISSED
    reason = next(reason for reason in verdict.reasons if reason.kind == "server_died")
    assert (reason.text, reason.detail) == ("the server died at batch 64: killed by SIGKILL", "bye")
    assert verdict.first_breach.limit == "server"


def test_a_dead_server_is_missed_though_the_client_was_busy():
    verdict = judge(a_summary(64, server_exit="exited with code 1", findings=BUSY), slo=an_slo(max_batch=64))
    assert verdict.outcome == MISSED


# --- hosts, cores and rate


def test_fewer_hosts_than_asked_are_missed():
    verdict = judge(a_summary(8), slo=an_slo(hosts=2))
    assert verdict.outcome == MISSED
    assert "hosts 1 < 2 at batch 8 (seen: node1:8000)" in verdict.headline


def test_as_many_hosts_as_asked_are_enough_though_some_sessions_do_not_tell():
    summary = a_summary(8, host_counts={"a": 3, "b": 3}, hosts=2)
    assert judge(summary, slo=an_slo(hosts=2)).outcome == MET


def test_hosts_nobody_can_know_are_inconclusive():
    verdict = judge(a_summary(8, host_counts={}, hosts=None), slo=an_slo(hosts=2))
    assert verdict.outcome == INCONCLUSIVE
    assert "the environment does not tell its host" in verdict.headline


def test_hosts_are_judged_only_where_the_batch_can_reach_them():
    two = {"host_counts": {"a": 1, "b": 1}, "hosts": 2}
    assert judge(a_summary(1), a_summary(2, **two), slo=an_slo(hosts=2)).outcome == MET
    verdict = judge(a_summary(1), slo=an_slo(hosts=2))
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.headline == "SLO inconclusive: hosts ≥ 2 needs a batch of at least 2, the largest measured is 1"


def test_batch_per_core_is_max_batch_over_the_servers_cores():
    cells = [a_summary(64), a_summary(128), a_summary(256, failed=99)]
    verdict = judge(*cells, slo=an_slo(batch_per_core=64), cores=2)
    assert (verdict.outcome, verdict.max_batch_per_core) == (MET, 64)
    verdict = judge(*cells, slo=an_slo(batch_per_core=100), cores=2)
    assert verdict.outcome == MISSED
    assert verdict.headline == "SLO missed: batch_per_core ≥ 100, got 64 (got 128; 2 cores)"


def test_batch_per_core_above_the_largest_batch_measured_is_inconclusive():
    verdict = judge(a_summary(64), slo=an_slo(batch_per_core=64), cores=2)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.headline.endswith("no batch larger than 64 was measured; add a batch ≥ 128")


def test_batch_per_core_without_known_cores_is_inconclusive():
    verdict = judge(a_summary(64), slo=an_slo(batch_per_core=64))
    assert verdict.outcome == INCONCLUSIVE
    assert "write cores=N in the target" in verdict.headline


def test_rps_holds_if_one_passing_cell_reaches_it_in_every_repetition():
    rates = {(8, 1): 90.0, (8, 2): 80.0, (16, 1): 150.0, (16, 2): 60.0}
    cells = [a_summary(batch, repetition=n, requests_per_second=rate) for (batch, n), rate in rates.items()]
    assert judge(*cells, slo=an_slo(rps=80)).outcome == MET
    verdict = judge(*cells, slo=an_slo(rps=100))
    assert verdict.headline == "SLO missed: rps ≥ 100/s, got 80.0/s at batch 8"


def test_rps_of_a_cell_that_fails_does_not_count():
    cells = [a_summary(8, requests_per_second=50.0), a_summary(16, failed=9, requests_per_second=500.0)]
    assert judge(*cells, slo=an_slo(rps=100, max_batch=8)).outcome == MISSED


# --- the verdict itself


def test_the_worst_limit_decides_and_makes_the_headline():
    verdict = judge(a_summary(64), slo=an_slo(max_batch=64, hosts=2))
    assert verdict.outcome == MISSED
    assert verdict.headline.startswith("SLO missed: max_batch ≥ 64, got none")


def test_repetitions_are_named_where_there_are_several():
    verdict = judge(a_summary(8, failed=4), a_summary(8, repetition=2), slo=an_slo(success=0.9))
    assert verdict.headline == (
        "SLO missed: success 50.0 % < 90 % at batch 8, repetition 1 of 2 (4 of 8 failed: 4 capacity in reset), "
        "in 1 of 2 repetitions"
    )


def test_notes_join_the_reasons():
    verdict = judge(a_summary(8), notes=["no openenv.yaml here: the built-in environment was measured"])
    assert ("fallback", "no openenv.yaml here: the built-in environment was measured") in [
        (reason.kind, reason.text) for reason in verdict.reasons
    ]


def test_a_headline_and_reasons_are_single_lines():
    summaries = [a_summary(64, failed=60, server_exit="exited with code 1", log_tail="a\nb")]
    assert all("\n" not in reason.text for reason in judge(*summaries, slo=an_slo(max_batch=64)).reasons)


def test_what_refused_is_part_of_the_verdict():
    assert [refusal.cause for refusal in judge(a_summary(64, failed=32)).refused] == ["capacity"]


@pytest.mark.parametrize(
    ("outcomes", "together"),
    [([], INCONCLUSIVE), ([MET, MET], MET), ([MET, INCONCLUSIVE], INCONCLUSIVE), ([MET, INCONCLUSIVE, MISSED], MISSED)],
)
def test_outcomes_combine_to_the_worst(outcomes, together):
    assert combine_outcomes(outcomes) == together
