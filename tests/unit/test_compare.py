"""The rules by which a newer run is compared with a baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cells import an_slo
from compare_samples import a_judged_sweep, a_measured_run, a_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.analysis.compare import compare_runs, compare_sweep
from pytest_openenv_scale.config.limits import parse_fail_on
from pytest_openenv_scale.reporting.content.comparison import reason_text
from pytest_openenv_scale.results.comparison import (
    Change,
    ChangeReason,
    ComparedFigure,
    Comparison,
    Judgement,
    Status,
    join_comparisons,
)
from pytest_openenv_scale.results.manifest import SweepRecord

THREE = (0.10, 0.11, 0.12)


def compared(*expressions: str, now: dict, then: dict | None = None, **options) -> Comparison:
    baseline, newer = a_pair(now, then=then)
    return compare_runs(baseline, newer, parse_fail_on(expressions), **options)


def change_of(comparison: Comparison, metric: str, batch: int | None = None) -> Change:
    (curve,) = comparison.curves
    return next(change for change in curve.changes if (change.metric, change.batch) == (metric, batch))


# Latencies


def test_the_same_run_again_is_no_regression():
    comparison = compared("max_batch:-10%,total_p99:+15%", now={})
    assert comparison.outcome is Judgement.HELD
    assert {change.status for change in comparison.curves[0].changes} == {Status.UNCHANGED}


def test_beyond_fail_on_and_outside_the_range_is_a_regression(golden):
    comparison = compared("total_p99:+15%", then={"latency": THREE}, now={"latency": (0.2, 0.2, 0.2)})
    change = change_of(comparison, "total_p99", 32)
    assert comparison.outcome is Judgement.REGRESSED
    assert (change.status, change.fail_on, change.allowed) == (
        Status.REGRESSED,
        "total_p99:+15%",
        pytest.approx(0.11 * 1.15),
    )
    assert change.why == ChangeReason("beyond")
    golden(reason_text(change))
    assert change.change_in_ranges == pytest.approx(0.09 / 0.02)
    assert change.ratio == pytest.approx(0.2 / 0.11)


def test_beyond_fail_on_but_within_the_range_is_none_and_says_so(golden):
    comparison = compared("total_p99:+5%", then={"latency": (0.10, 0.11, 0.30)}, now={"latency": (0.2, 0.2, 0.2)})
    change = change_of(comparison, "total_p99", 32)
    assert comparison.outcome is Judgement.HELD
    assert change.status is Status.UNCHANGED
    assert (change.why.cause, change.within_range) == ("within_range", True)
    golden(reason_text(change))


def test_outside_the_range_but_not_beyond_fail_on_is_worse_and_fails_nothing():
    comparison = compared("total_p99:+50%", then={"latency": THREE}, now={"latency": (0.13, 0.13, 0.13)})
    assert comparison.outcome is Judgement.HELD
    assert change_of(comparison, "total_p99", 32).status is Status.WORSE


def test_one_repetition_leaves_the_spread_unknown_and_fail_on_decides_alone(golden):
    change = change_of(compared("total_p99:+15%", now={"latency": (0.2,)}), "total_p99", 32)
    assert change.status is Status.REGRESSED
    assert change.why == ChangeReason("beyond")
    golden(reason_text(change))
    assert change.change_in_ranges is None


def test_an_absolute_change_is_judged_in_its_unit():
    assert compared("total_p99:+200ms", now={"latency": (0.29,)}).outcome is Judgement.HELD
    assert compared("total_p99:+200ms", now={"latency": (0.31,)}).outcome is Judgement.REGRESSED


def test_either_of_two_expressions_for_one_metric_fails():
    assert compared("total_p99:+500%,total_p99:+50ms", now={"latency": (0.2,)}).outcome is Judgement.REGRESSED
    assert compared("total_p99:+50%,total_p99:+1s", now={"latency": (0.2,)}).outcome is Judgement.REGRESSED


def test_faster_is_improved_and_never_fails():
    comparison = compared("total_p99:+0%,rps:-0%", then={"latency": THREE}, now={"latency": (0.05, 0.05, 0.05)})
    assert comparison.outcome is Judgement.HELD
    assert change_of(comparison, "total_p99", 32).status is Status.IMPROVED
    assert change_of(comparison, "rps", 32).status is Status.IMPROVED


def test_fewer_requests_per_second_are_worse():
    comparison = compared("rps:-10%", now={"latency": (0.2,)})
    assert change_of(comparison, "rps", 8).status is Status.REGRESSED


def test_a_figure_is_the_median_of_its_repetitions():
    change = change_of(compared(now={"latency": (9.0, 0.1, 0.1)}, then={"latency": THREE}), "total_p99", 8)
    assert (change.now.value, change.now.low, change.now.high) == (0.1, 0.1, 9.0)
    assert change.baseline.value == 0.11


def test_what_no_session_reached_is_a_regression_of_its_latency():
    sweep = a_judged_sweep(8)
    none = replace(sweep.summaries[0], successful=0, failed=8, success_rate=0.0, phases={}, requests_per_second=0.0)
    (view,) = sweep.curves
    broken = replace(sweep, curves=(replace(view, summaries=(none,)),))
    comparison = compare_runs(a_measured_run(sweep), a_measured_run(broken, day=1), parse_fail_on("total_p99:+15%"))
    assert comparison.outcome is Judgement.REGRESSED
    assert change_of(comparison, "total_p99", 8).why.cause == "none_succeeded"


@pytest.mark.parametrize("mode", ["ws", "http"])
def test_the_sessions_that_are_left_of_a_batch_are_no_improvement(mode):
    """Half of the sessions fail, so that the rest are twice as fast."""
    comparison = compared(
        "total_p99:+15%,rps:-10%", now={"fails": (128,), "latency": (0.05,), "mode": mode}, then={"mode": mode}
    )
    for metric in ("total_p99", "rps"):
        change = change_of(comparison, metric, 128)
        assert (change.status, change.why.cause, change.why.side) == (Status.INCONCLUSIVE, "not_held", "now")
        assert change_of(comparison, metric, 32).status is Status.IMPROVED
    assert change_of(comparison, "success", 128).status is Status.WORSE
    assert comparison.outcome is Judgement.INCONCLUSIVE


def test_sessions_that_are_left_and_slower_all_the_same_are_a_regression():
    comparison = compared("total_p99:+15%", now={"fails": (128,), "latency": (0.5,)})
    assert change_of(comparison, "total_p99", 128).status is Status.REGRESSED


def test_a_batch_that_fails_for_its_latency_alone_lost_no_session():
    slo = an_slo(total_p99="150ms")
    comparison = compared("total_p99:+900%,rps:-99%", then={"slo": slo}, now={"slo": slo, "latency": (0.2,)})
    assert change_of(comparison, "total_p99", 128).status is not Status.INCONCLUSIVE
    assert comparison.outcome is Judgement.HELD


def test_a_batch_the_baseline_could_not_hold_has_no_latency_to_keep():
    comparison = compared("total_p99:+1%", then={"fails": (128,)}, now={"fails": (128,)})
    assert {change.batch for change in comparison.curves[0].changes} == {None, 8, 32}


def test_without_fail_on_it_is_shown_and_nothing_is_judged():
    comparison = compared(now={"latency": (5.0,)})
    assert comparison.outcome is Judgement.SHOWN
    assert change_of(comparison, "total_p99", 8).status is Status.WORSE


# Max batch


def test_a_batch_that_was_held_and_definitely_fails_now_is_a_regression():
    comparison = compared("max_batch:-10%", now={"fails": (128,)})
    change = change_of(comparison, "max_batch")
    assert comparison.outcome is Judgement.REGRESSED
    assert (change.baseline.value, change.baseline.known) == (128, "open")
    assert (change.now.value, change.now.known) == (32, "exact")


def test_a_smaller_loss_than_fail_on_is_worse_only():
    comparison = compared("max_batch:-80%", now={"fails": (128,)})
    assert comparison.outcome is Judgement.HELD
    assert change_of(comparison, "max_batch").status is Status.WORSE


def test_more_is_improved_where_the_baseline_definitely_failed():
    comparison = compared("max_batch:-10%", then={"fails": (128,)}, now={})
    assert change_of(comparison, "max_batch").status is Status.IMPROVED


def test_what_some_repetitions_of_the_baseline_held_is_no_improvement():
    """One of three failed there, as chance may have it."""
    once = {"fails": ((128, 2),), "latency": THREE}
    comparison = compared("max_batch:-10%", then=once, now={"latency": THREE})
    assert change_of(comparison, "max_batch").status is Status.UNCHANGED
    never = {"fails": (128,), "latency": THREE}
    assert (
        change_of(compared("max_batch:-10%", then=never, now={"latency": THREE}), "max_batch").status is Status.IMPROVED
    )


def test_more_repetitions_of_which_some_hold_what_one_held_are_no_regression():
    some, none = (
        {"fails": tuple((128, number) for number in failing), "latency": THREE} for failing in ((2,), (1, 2, 3))
    )
    change = change_of(compared("max_batch:-10%", now=some), "max_batch")
    assert (change.status, change.why.cause) == (Status.INCONCLUSIVE, "more_repetitions")
    assert reason_text(change) == "some of 3 repetitions hold 128 now, and the baseline had 1"
    assert change_of(compared("max_batch:-10%", now=none), "max_batch").status is Status.REGRESSED
    three = compared("max_batch:-10%", now=some, then={"latency": THREE})
    assert change_of(three, "max_batch").status is Status.REGRESSED


def test_none_at_all_is_a_regression_and_some_where_there_was_none_an_improvement():
    everything = {"fails": (8, 32, 128)}
    change = change_of(compared("max_batch:-10%", now=everything), "max_batch")
    assert (change.status, reason_text(change).partition(",")[0]) == (Status.REGRESSED, "−100 %")
    change = change_of(compared("max_batch:-10%", then=everything, now={}), "max_batch")
    assert (change.status, reason_text(change)) == (Status.IMPROVED, "none → 128")


def test_a_cell_in_doubt_now_is_inconclusive():
    comparison = compared("max_batch:-10%", now={"doubtful": (128,)})
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change_of(comparison, "max_batch").why == ChangeReason("max_batch_doubtful", "now")


def test_a_cell_in_doubt_then_is_inconclusive():
    comparison = compared("max_batch:-10%", then={"doubtful": (128,)}, now={"fails": (128,)})
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change_of(comparison, "max_batch").why == ChangeReason("max_batch_doubtful", "baseline")


def test_a_certain_loss_is_no_less_one_for_a_doubt_above_it():
    comparison = compared("max_batch:-10%", then={"doubtful": (128,)}, now={"fails": (32,)})
    assert comparison.outcome is Judgement.REGRESSED


def test_a_doubt_that_cannot_hide_a_loss_is_none():
    comparison = compared("max_batch:-10%", then={"fails": (128,)}, now={"doubtful": (128,)})
    assert comparison.outcome is Judgement.HELD


def test_a_smaller_grid_does_not_pass_for_a_loss_nor_for_none(golden):
    comparison = compared("max_batch:-10%", now={"batches": (8, 32)})
    change = change_of(comparison, "max_batch")
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change.why.cause == "grids_differ"
    golden(comparison.curves[0].remarks)


@pytest.mark.parametrize("side", ["baseline", "now"])
def test_answers_that_were_seen_late_leave_latencies_and_rates_in_doubt_and_nothing_else(side):
    late = {"late": (8, 32, 128), "mode": "http"}
    then, now = ({**late}, {"mode": "http"}) if side == "baseline" else ({"mode": "http"}, {**late})
    comparison = compared(
        "total_p99:+15%,rps:-10%,success:-1%", then=then, now={**now, "latency": (0.3,), "fails": (128,)}
    )
    for metric in ("total_p99", "rps"):
        change = change_of(comparison, metric, 8)
        assert (change.status, change.why.cause, change.why.side) == (Status.INCONCLUSIVE, "doubtful", side)
        assert change.why.doubt.cause == "http_lag"
    assert change_of(comparison, "success", 8).status is Status.UNCHANGED
    assert change_of(comparison, "max_batch").status is Status.WORSE


def test_a_latency_in_doubt_is_inconclusive_with_the_reason():
    comparison = compared("total_p99:+15%", now={"doubtful": (8,), "latency": (0.3,)})
    change = change_of(comparison, "total_p99", 8)
    assert (change.status, change.why.cause, change.why.side) == (Status.INCONCLUSIVE, "doubtful", "now")
    doubt = change.why.doubt
    assert (doubt.kind, doubt.cause, doubt.batch) == ("client", "cpu", 8)
    assert change_of(comparison, "total_p99", 32).status is Status.REGRESSED
    assert comparison.outcome is Judgement.REGRESSED


def test_a_batch_that_was_asked_for_and_not_measured_is_inconclusive():
    comparison = compared("total_p99:+15%", now={"batches": (8, 32), "planned": (8, 32, 128)})
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change_of(comparison, "total_p99", 128).why == ChangeReason("not_measured", "now")


def test_no_common_batch_is_inconclusive():
    comparison = compared("total_p99:+15%", now={"batches": (16,)})
    assert comparison.outcome is Judgement.INCONCLUSIVE


def test_sessions_per_core_need_the_cores_of_both():
    assert compared("batch_per_core:-10%", now={"cores": 4}).outcome is Judgement.INCONCLUSIVE
    comparison = compared("batch_per_core:-10%", now={"cores": None})
    assert change_of(comparison, "batch_per_core").why.cause == "no_cores"
    comparison = compared("batch_per_core:-10%", now={"cores": 4, "fails": (128,)})
    assert change_of(comparison, "batch_per_core").status is Status.REGRESSED


def test_repetitions_that_differ_are_said():
    comparison = compared(now={"latency": THREE})
    assert any("repetitions differ (1 → 3)" in remark for remark in comparison.curves[0].remarks)


def test_both_are_judged_by_the_limits_of_the_newer_run(golden):
    comparison = compared(
        "max_batch:-10%",
        then={"latency": (0.5,), "slo": an_slo(success=0.95)},
        now={"latency": (0.5,), "slo": an_slo(success=0.95, total_p99="200ms")},
    )
    change = change_of(comparison, "max_batch")
    assert (change.baseline.value, change.now.value, change.status) == (0, 0, Status.UNCHANGED)
    golden(" ".join(comparison.curves[0].remarks))


# Curves


def test_a_missing_curve_is_inconclusive_unless_it_is_allowed():
    then = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, wait=2.0))
    now = a_measured_run(a_judged_sweep(8), day=1)
    assert compare_runs(then, now).outcome is Judgement.INCONCLUSIVE
    assert compare_runs(then, now, parse_fail_on("max_batch:-10%")).outcome is Judgement.INCONCLUSIVE
    assert compare_runs(then, now, allow_missing=True).outcome is Judgement.SHOWN
    assert [curve.wait for curve in compare_runs(then, now).curves_in_state("missing")] == [2.0]


def test_nothing_in_common_is_inconclusive_even_where_missing_is_allowed():
    then, now = a_measured_run(a_judged_sweep(8)), a_measured_run(a_judged_sweep(8, wait=2.0), day=1)
    assert compare_runs(then, now, allow_missing=True).outcome is Judgement.INCONCLUSIVE


def test_a_new_curve_is_named_and_fails_nothing():
    then = a_measured_run(a_judged_sweep(8))
    now = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, mode="http"), day=1)
    comparison = compare_runs(then, now, parse_fail_on("max_batch:-10%"))
    assert comparison.outcome is Judgement.HELD
    assert [(curve.state, curve.mode) for curve in comparison.curves] == [("compared", "ws"), ("new", "http")]


@pytest.mark.parametrize("renamed", ["test_scale.py::test_it_well", "tests/test_moved.py::test_it", "x.py::y"])
def test_a_renamed_test_is_guessed_on_both_sides(renamed):
    then, now = a_measured_run(a_judged_sweep(8)), a_measured_run(a_judged_sweep(8, test=renamed), day=1)
    comparison = compare_runs(then, now)
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert {(curve.state, curve.renamed) for curve in comparison.curves} == {
        ("missing", renamed),
        ("new", "test_scale.py::test_it"),
    }


def test_a_test_that_is_in_both_runs_is_not_taken_for_a_renamed_one():
    both = a_judged_sweep(8, test="test_scale.py::test_it_too")
    then, now = a_measured_run(a_judged_sweep(8), both), a_measured_run(both, day=1)
    (missing,) = compare_runs(then, now).curves_in_state("missing")
    assert missing.renamed is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("arrival", "burst"),
        ("timeout_s", 60.0),
        ("settings", {"action": "a:b", "seed": 0}),
        ("settings", {"action": "default", "seed": 1}),
    ],
)
def test_runs_that_asked_for_different_things_are_not_comparable(golden, field, value):
    sweep = a_judged_sweep(8)
    other = a_judged_sweep(8, **{field: value}) if field == "arrival" else with_record(sweep, **{field: value})
    comparison = compare_runs(a_measured_run(sweep), a_measured_run(other, day=1), parse_fail_on("max_batch:-10%"))
    assert comparison.outcome is Judgement.INCONCLUSIVE
    (curve,) = comparison.curves_in_state("different")
    golden(curve.remarks)


def with_record(sweep, **fields):
    changed: SweepRecord = replace(sweep.record, **fields)
    return replace(sweep, record=changed)


def test_what_an_imported_run_does_not_tell_is_no_difference():
    sweep = a_judged_sweep(8)
    silent = with_record(sweep, timeout_s=None, settings={})
    assert compare_runs(a_measured_run(silent), a_measured_run(sweep, day=1)).outcome is Judgement.SHOWN


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("http://127.0.0.1:4001", "http://127.0.0.1:4999"),
        ("local:app:app,port=8001", "local:app:app,port=8002"),
        ("docker:/home/one/env", "docker:/srv/two/env"),
    ],
)
def test_ports_and_paths_tell_no_servers_apart(then, now):
    label = then.removeprefix("http://") if "http" in then else "same"
    newer = now.removeprefix("http://") if "http" in now else "same"
    sides = a_judged_sweep(8, target=then, label=label), a_judged_sweep(8, target=now, label=newer)
    comparison = compare_runs(a_measured_run(sides[0]), a_measured_run(sides[1], day=1))
    assert [(curve.state, curve.remarks) for curve in comparison.curves] == [("compared", ())]


def test_another_server_under_the_same_label_is_compared_and_named(golden):
    sides = a_judged_sweep(8, target="local,workers=2"), a_judged_sweep(8, target="local,workers=4", cores=4)
    (curve,) = compare_runs(a_measured_run(sides[0]), a_measured_run(sides[1], day=1)).curves
    golden(curve.remarks[:2])


def test_another_label_is_another_curve_and_says_how_to_compare(golden):
    sides = a_judged_sweep(8), a_judged_sweep(8, target="docker", label="local-docker")
    comparison = compare_runs(a_measured_run(sides[0]), a_measured_run(sides[1], day=1))
    (missing,) = comparison.curves_in_state("missing")
    golden(missing.remarks)


# Machines and runs


def test_machines_that_differ_are_named_and_what_does_not_matter_is_not():
    sweep = a_judged_sweep(8)
    then = {
        "hostname": "ci-7",
        "machine": {"cpu": "Xeon", "cores": 2, "memory_bytes": 8_000_000_000, "load_average": 0.1},
        "os": {"release": "6.1", "name": "Linux-6.1"},
        "python": {"version": "3.11.9"},
        "packages": {"pytest": "8.4.0", "uvloop": "0.20"},
        "git": {"commit": "0" * 40, "branch": "main"},
    }
    now = {
        "hostname": "ci-8",
        "machine": {"cpu": "EPYC", "cores": 2, "memory_bytes": 8_100_000_000, "load_average": 7.0},
        "os": {"release": "6.8", "name": "Linux-6.8"},
        "python": {"version": "3.12.1"},
        "packages": {"pytest": "8.4.0"},
        "git": {"commit": "1" * 40, "branch": "work", "dirty": True},
    }
    runs = a_measured_run(sweep, fingerprint=then), a_measured_run(sweep, day=1, fingerprint=now)
    comparison = compare_runs(*runs)
    assert [(each.name, each.baseline, each.now) for each in comparison.differences] == [
        ("cpu", "Xeon", "EPYC"),
        ("kernel", "6.1", "6.8"),
        ("python", "3.11.9", "3.12.1"),
        ("uvloop", "0.20", "not installed"),
    ]
    assert (comparison.now.commit, comparison.now.branch, comparison.now.dirty) == ("1" * 40, "work", True)


def test_a_run_that_did_not_end_is_told(golden):
    sweep = a_judged_sweep(8)
    comparison = compare_runs(a_measured_run(sweep), a_measured_run(sweep, day=1, status="interrupted"))
    golden(comparison.remarks)


# One sweep, as pytest compares it


def test_a_sweep_is_compared_with_its_own_test_only():
    other = a_judged_sweep(8, test="test_scale.py::test_other")
    then, sweep = a_measured_run(a_judged_sweep(8), other), a_judged_sweep(8)
    comparison = compare_sweep(then, a_measured_run(sweep, day=1), sweep, parse_fail_on("max_batch:-10%"))
    assert comparison.outcome is Judgement.HELD
    assert [curve.test for curve in comparison.curves] == [sweep.test]
    assert comparison.others == (other.test,)


def test_a_sweep_the_baseline_lacks_is_inconclusive():
    sweep = a_judged_sweep(8, test="test_scale.py::test_new")
    then = a_measured_run(a_judged_sweep(8))
    comparison = compare_sweep(then, a_measured_run(sweep, day=1), sweep)
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert comparison.curves[0].renamed == "test_scale.py::test_it"
    comparison = compare_sweep(then, a_measured_run(sweep, day=1), sweep, tests=["test_scale.py::test_it"])
    assert comparison.curves[0].renamed is None


def test_a_wait_that_the_test_does_not_measure_any_more_is_missing_unless_the_command_line_narrowed_it():
    then, sweep = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, wait=2.0)), a_judged_sweep(8)
    now = a_measured_run(sweep, day=1)
    assert compare_sweep(then, now, sweep).outcome is Judgement.INCONCLUSIVE
    assert compare_sweep(then, now, sweep, narrowed=["waits"]).outcome is Judgement.SHOWN


def test_sweeps_of_one_baseline_are_joined():
    one, two = a_judged_sweep(8), a_judged_sweep(8, test="test_scale.py::test_other")
    then, now = a_measured_run(one, two), a_measured_run(one, two, day=1)
    (joined,) = join_comparisons(compare_sweep(then, now, sweep) for sweep in (one, two))
    assert len(joined.curves) == 2


def test_a_comparison_survives_being_stored():
    comparison = compared("max_batch:-10%", now={"fails": (128,), "latency": THREE})
    assert Comparison.from_json(comparison.to_json()) == comparison


# Properties

LATENCIES = st.lists(st.floats(0.001, 100), min_size=1, max_size=4).map(tuple)
GRIDS = st.sets(st.sampled_from([1, 2, 4, 8, 16]), min_size=1).map(sorted)


@settings(deadline=None, max_examples=40)
@given(LATENCIES, GRIDS, st.sets(st.sampled_from([1, 2, 4, 8, 16])), st.sets(st.sampled_from([1, 2, 4, 8, 16])))
def test_a_run_compared_with_itself_has_no_change(latency, batches, fails, doubtful):
    sweep = a_judged_sweep(*batches, latency=latency, fails=fails, doubtful=doubtful)
    run = a_measured_run(sweep)
    comparison = compare_runs(run, run, parse_fail_on("max_batch:-0%,total_p99:+0%,success:-0%,rps:-0%"))
    statuses = {change.status for change in comparison.curves[0].changes}
    assert statuses <= {Status.UNCHANGED, Status.INCONCLUSIVE}
    assert doubtful or min(batches) in fails or statuses == {Status.UNCHANGED}


@settings(deadline=None, max_examples=40)
@given(LATENCIES, LATENCIES)
def test_the_effect_turns_round_with_the_runs(one, other):
    there = change_of(compared(then={"latency": one}, now={"latency": other}), "total_p99", 8)
    back = change_of(compared(then={"latency": other}, now={"latency": one}), "total_p99", 8)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert not {there.status, back.status} <= {Status.WORSE}
    assert not {there.status, back.status} <= {Status.IMPROVED}


@settings(deadline=None, max_examples=40)
@given(LATENCIES, st.floats(0.1, 10), st.floats(0.01, 5))
def test_a_slowdown_is_found_exactly_where_it_is_beyond_fail_on_and_the_range(latency, factor, allowed):
    slower = tuple(value * factor for value in latency)
    comparison = compared(f"total_p99:+{allowed:.6f}%", then={"latency": latency}, now={"latency": slower})
    change = change_of(comparison, "total_p99", 8)
    beyond = change.now.value > change.baseline.value * (1 + round(allowed, 6) / 100) * (1 + 1e-9)
    outside = len(latency) == 1 or change.now.value > max(latency)
    assert (change.status is Status.REGRESSED) == (beyond and outside)


def test_a_batch_that_was_not_asked_for_does_not_pass_silently():
    comparison = compared("total_p99:+15%", now={"batches": (8, 32)})
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change_of(comparison, "total_p99").why == ChangeReason("not_asked", batches=(128,))
    assert compared("total_p99:+15%", now={"batches": (8, 32)}, allow_missing=True).outcome is Judgement.HELD
    then, sweep = a_measured_run(a_judged_sweep(8, 32)), a_judged_sweep(8)
    now, gate = a_measured_run(sweep, day=1), parse_fail_on("total_p99:+15%")
    assert compare_sweep(then, now, sweep, gate).outcome is Judgement.INCONCLUSIVE
    assert compare_sweep(then, now, sweep, gate, narrowed=["batches"]).outcome is Judgement.HELD


def test_a_rate_that_is_not_known_is_no_regression():
    sweep = a_judged_sweep(8)
    (view,) = sweep.curves
    untold = replace(sweep, curves=(replace(view, summaries=(replace(sweep.summaries[0], requests_per_second=None),)),))
    comparison = compare_runs(a_measured_run(sweep), a_measured_run(untold, day=1), parse_fail_on("rps:-10%"))
    assert comparison.outcome is Judgement.INCONCLUSIVE
    assert change_of(comparison, "rps", 8).why == ChangeReason("no_figure", "now")


def test_servers_that_differ_by_their_port_alone_are_each_compared_with_themselves():
    ports = {f"url:http://127.0.0.1:{port}": latency for port, latency in ((8000, 0.1), (8001, 0.4))}

    def sweeps(**changed: float):
        return [a_judged_sweep(8, target=at, label=at, latency=(changed.get(at[-4:], s),)) for at, s in ports.items()]

    gate = parse_fail_on("total_p99:+15%")
    then, now = a_measured_run(*sweeps()), a_measured_run(*sweeps(), day=1)
    assert compare_runs(then, now, gate).outcome is Judgement.HELD
    assert [compare_sweep(then, now, sweep, gate).outcome for sweep in now.sweeps] == [Judgement.HELD] * 2
    slower = a_measured_run(*sweeps(**{"8000": 0.3}), day=1)
    assert compare_runs(then, slower, gate).outcome is Judgement.REGRESSED


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({}, {"reset": "data aa"}),
        ({"reset": "data aa"}, {"reset": "data bb"}),
    ],
)
def test_other_reset_data_are_another_workload(golden, then, now):
    usual = {"action": "default", "seed": 0, "until_done": False}
    runs = []
    for day, reset_settings in enumerate((then, now)):
        sweep = a_judged_sweep(8)
        record = replace(sweep.record, settings={**usual, **reset_settings})
        runs.append(a_measured_run(replace(sweep, record=record), day=day))
    comparison = compare_runs(*runs, parse_fail_on("max_batch:-10%"))
    assert comparison.outcome is Judgement.INCONCLUSIVE
    golden(comparison.curves[0].remarks)


def test_another_think_time_is_another_workload(golden):
    usual = a_judged_sweep(8)
    thinking = replace(
        usual, curves=tuple(replace(view, curve=replace(view.curve, think="exponential=2")) for view in usual.curves)
    )
    comparison = compare_runs(a_measured_run(usual), a_measured_run(thinking, day=1), parse_fail_on("max_batch:-10%"))
    assert comparison.outcome is Judgement.INCONCLUSIVE
    golden(comparison.curves[0].remarks)


@pytest.mark.parametrize(
    ("status", "sentence", "cause", "words"),
    [
        (Status.REGRESSED, "+82 %, beyond rps:-5%; spread unknown: the baseline was…", "beyond", None),
        (Status.UNCHANGED, "beyond rps:-5%, but within the baseline's 1 to 2 over 3 repetitions", "within_range", None),
        (Status.IMPROVED, "+20 %", "moved", None),
        (Status.WORSE, "no session succeeded", "stored", "no session succeeded"),
        (Status.INCONCLUSIVE, "the max batch is inconclusive now", "stored", "the max batch is inconclusive now"),
    ],
)
def test_a_sentence_of_0_1_is_read_as_its_cause_and_said_again(status, sentence, cause, words):
    figure = ComparedFigure(10.0, 10.0, 12.0, 3)
    stored = Change("rps", 8, figure, figure, status, sentence, fail_on="rps:-5%").to_json()
    change = Change.from_json(stored)
    assert change.why == ChangeReason(cause, words=words)
    assert words is None or reason_text(change) == words
