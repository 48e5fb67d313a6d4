"""Runs read together: what a study calls the things it measured, and in which order it shows them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cells import NOON
from report_samples import a_run
from study_samples import EVERYTHING, HEALTHY, a_run_of, a_study, sample

from pytest_openenv_scale.analysis.axes import compare_study_modes
from pytest_openenv_scale.analysis.study import join_runs, study_of


def test_known_infrastructures_stand_in_one_order_whatever_the_order_of_their_runs():
    assert a_study(*EVERYTHING).infrastructures == a_study(*reversed(EVERYTHING)).infrastructures
    assert a_study(*EVERYTHING).infrastructures == (
        *("local-uvicorn", "local-docker", "hf-spaces (cpu-basic)", "hf-spaces (cpu-upgrade)"),
        *("slurm-single", "slurm-multi-nodes2", "slurm-multi-nodes4"),
    )


def test_numbers_in_names_are_ordered_as_numbers():
    study = a_study(*(sample(f"slurm-multi-nodes{nodes}", target=f"slurm:nodes={nodes}") for nodes in (16, 2, 4)))
    assert study.infrastructures == ("slurm-multi-nodes2", "slurm-multi-nodes4", "slurm-multi-nodes16")


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"hardware": "cpu-basic"}, {"hardware": "cpu-upgrade"}, ("x (cpu-basic)", "x (cpu-upgrade)")),
        ({"hardware": None}, {"hardware": "cpu-basic"}, ("x", "x (cpu-basic)")),
        ({"cores": 2}, {"cores": 48}, ("x (2 cores)", "x (48 cores)")),
        ({"target": "local,workers=2"}, {"target": "local,workers=4"}, ("x (workers 2)", "x (workers 4)")),
        ({"target": "local"}, {"target": "local:pkg.app:app"}, ("x (local)", "x (pkg.app:app)")),
        ({"target": "what? no target"}, {"target": "local"}, ("x (what? no target)", "x (local)")),
        ({}, {"wait": 5.0}, ("x",)),
        ({}, {"mode": "http"}, ("x",)),
        ({}, {"test": "other.py::test_more", "wait": 5.0}, ("x",)),
        ({}, {"test": "other.py::test_more"}, ("x (test_it)", "x (test_more)")),
        ({}, {"test": "other.py::test_it"}, ("x (test_scale.py::test_it)", "x (other.py::test_it)")),
    ],
)
def test_what_tells_things_of_one_label_apart_is_appended(first, second, names):
    assert a_study(sample("x", **first), sample("x", **second)).infrastructures == names


@pytest.mark.parametrize(
    ("later", "names"),
    [
        (timedelta(days=1), ("2026-11-21", "2026-11-22")),
        (timedelta(minutes=5), ("2026-11-21 12:00", "2026-11-21 12:05")),
        (timedelta(seconds=5), ("2026-11-21 12:00:00", "2026-11-21 12:00:05")),
        (timedelta(0), ("one", "two")),
    ],
)
def test_the_same_measured_again_is_told_apart_by_its_run(later, names):
    runs = [
        a_run_of(sample("x"), run_id="one", started_at=NOON),
        a_run_of(sample("x"), run_id="two", started_at=NOON + later),
    ]
    assert join_runs(runs).infrastructures == tuple(f"x ({name})" for name in names)


def test_one_test_that_sweeps_a_target_twice_is_numbered():
    assert join_runs([a_run_of(sample("x"), sample("x"))]).infrastructures[-1].endswith("2)")


def test_a_target_has_one_name_also_where_another_run_had_less_to_tell_apart():
    both_modes = a_run_of(
        sample("slurm-multi-nodes2", target="slurm:nodes=2"), sample("slurm-multi-nodes4", target="slurm:nodes=4")
    )
    alone = a_run_of(sample("slurm-multi", target="slurm:nodes=4", wait=5.0), number=1)
    study = join_runs([both_modes, alone])
    assert study.infrastructures == ("slurm-multi-nodes2", "slurm-multi-nodes4")
    assert [curve.wait for curve in study.curves_of("slurm-multi-nodes4")] == [1.0, 5.0]


def test_no_two_curves_share_infrastructure_mode_and_wait():
    study = join_runs([a_run_of(*EVERYTHING, number=number) for number in range(3)])
    places = [(curve.infrastructure, curve.mode, curve.wait) for curve in study.curves]
    assert len(set(places)) == len(places) == 3 * 10


def test_a_run_given_twice_counts_once():
    run = a_run_of(sample())
    assert len(join_runs([run, run]).runs) == 1


def test_runs_stand_in_the_order_they_were_made_and_curves_by_mode_and_wait():
    curves = {("http", 1.0): HEALTHY, ("ws", 5.0): HEALTHY, ("ws", 1.0): HEALTHY, ("ws", None): HEALTHY}
    study = join_runs([a_run_of(sample("b"), number=3), a_run_of(sample("a", curves=curves), number=1)])
    assert [run.run_id[9:13] for run in study.runs] == ["1201", "1203"]
    assert [(curve.mode, curve.wait) for curve in study.curves_of("a")] == [
        *(("ws", None), ("ws", 1.0), ("ws", 5.0), ("http", 1.0))
    ]
    assert (study.modes, study.waits) == (("ws", "http"), (None, 1.0, 5.0))


def test_a_run_is_a_study_of_one(tmp_path):
    run = a_run(tmp_path)
    assert study_of(run).runs == (run,)
    assert study_of(study_of(run)).runs == (run,)


def test_a_point_shows_the_worst_of_its_repetitions():
    point = a_study(sample(batches={32: (1.0, 0.1)}, reps=3)).curves[0].points[0]
    assert point.latency("total") == pytest.approx(1 + 0.1 * 1.04)
    rates = [summary.requests_per_second for summary in point.repetitions]
    assert point.requests_per_second == min(rate for rate in rates if rate is not None)
    assert (point.success, point.samples, point.passed) == (1.0, 32, True)
    assert point.latency("no such phase") is None


def test_modes_measured_in_two_runs_are_compared():
    study = a_study(sample(batches={8: (1.0, 0.1)}), sample(batches={8: (0.5, 0.1)}, mode="http"))
    ((name, comparison),) = compare_study_modes(study)
    assert (name, comparison.ws.max_batch, comparison.http.max_batch) == ("local-uvicorn", 8, None)
