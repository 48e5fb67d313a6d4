"""The history of a figure over runs: which points there are, how certain they are, what a terminal shows."""

from __future__ import annotations

import pytest
from compare_samples import a_judged_sweep, a_measured_run

from pytest_openenv_scale.analysis.axes import histories
from pytest_openenv_scale.reporting.text.comparison import history_lines, sparkline


def machine(cpu: str) -> dict:
    return {"machine": {"cpu": cpu}, "git": {"commit": cpu.encode().hex().ljust(40, "0"), "branch": "main"}}


@pytest.fixture
def runs():
    grid = (8, 32, 128)
    return [
        a_measured_run(a_judged_sweep(*grid, fails=(32, 128)), fingerprint=machine("Xeon")),
        a_measured_run(a_judged_sweep(*grid, fails=(128,)), day=1, fingerprint=machine("Xeon")),
        a_measured_run(a_judged_sweep(*grid), day=2, fingerprint=machine("EPYC")),
        a_measured_run(a_judged_sweep(*grid, doubtful=(32,)), day=3, fingerprint=machine("EPYC")),
        a_measured_run(a_judged_sweep(8, planned=grid), day=4, status="interrupted", fingerprint=machine("EPYC")),
    ]


def test_every_run_is_a_point_with_its_max_batch_and_how_certain_it_is(runs):
    (curve,) = histories(runs)
    assert [(point.value, point.known, point.is_whole) for point in curve.points] == [
        (8, "exact", True),
        (32, "exact", True),
        (128, "open", True),
        (8, "inconclusive", True),
        (8, "inconclusive", False),
    ]


def test_a_change_of_machine_is_marked_at_the_run_after_it(runs):
    (curve,) = histories(runs)
    assert [point.machine for point in curve.points] == [(), (), ("cpu Xeon → EPYC",), (), ()]


def test_a_metric_of_a_batch_is_taken_where_all_runs_measured_it_and_none_failed(runs):
    (curve,) = histories(runs, "total_p99")
    assert curve.batch == 8
    (named,) = histories(runs, "total_p99", batch=32)
    assert [point.value for point in named.points][-1] is None
    (nowhere,) = histories([a_measured_run(a_judged_sweep(8)), a_measured_run(a_judged_sweep(16), day=1)], "rps")
    assert (nowhere.batch, [point.value for point in nowhere.points]) == (None, [None, None])


@pytest.mark.parametrize(
    ("metric", "certainties"),
    [("total_p99", ["exact", "inconclusive"]), ("rps", ["exact", "inconclusive"]), ("success", ["exact"] * 2)],
)
def test_what_is_left_of_a_batch_that_fails_shows_no_progress(metric, certainties):
    held, failed = a_judged_sweep(8, 32), a_judged_sweep(8, 32, fails=(32,), latency=(0.05,))
    (curve,) = histories([a_measured_run(held), a_measured_run(failed, day=1)], metric, batch=32)
    assert [point.known for point in curve.points] == certainties
    late = a_judged_sweep(8, 32, late=(32,), mode="http")
    (curve,) = histories(
        [a_measured_run(a_judged_sweep(8, 32, mode="http")), a_measured_run(late, day=1)], metric, batch=32
    )
    assert [point.known for point in curve.points] == certainties


def test_curves_of_different_waits_and_modes_have_histories_of_their_own():
    run = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, wait=2.0), a_judged_sweep(8, mode="http"))
    assert [(curve.mode, curve.wait) for curve in histories([run, run])] == [("ws", 1.0), ("ws", 2.0), ("http", 1.0)]


def test_sessions_per_core_are_null_where_cores_are_not_known():
    known, unknown = a_judged_sweep(8), a_judged_sweep(8, cores=None)
    (curve,) = histories([a_measured_run(known), a_measured_run(unknown, day=1)], "batch_per_core")
    assert [point.value for point in curve.points] == [4, None]


def test_the_sparkline_shows_doubt_broken_runs_and_machines(runs):
    (curve,) = histories(runs)
    assert sparkline(curve.points) == "▁▃|█?x"
    assert sparkline(curve.points[:1]) == "█"


def test_the_terminal(runs):
    text = "\n".join(line.text for line in history_lines(histories(runs), width=120))
    assert text == TERMINAL


def test_a_terminal_that_knows_no_unicode_gets_ascii(runs):
    text = "\n".join(line.text for line in history_lines(histories(runs), width=120, encoding="ascii"))
    assert text.isascii()
    assert "  _-|@?x" in text


def test_no_common_batch_is_said():
    runs = [a_measured_run(a_judged_sweep(8)), a_measured_run(a_judged_sweep(16), day=1)]
    assert "name one with --batch" in history_lines(histories(runs, "rps"), width=120)[-1].text


TERMINAL = """\
local-uvicorn · ws · wait 1 s · max_batch · test_scale.py::test_it
  ▁▃|█?x
  run                        date (UTC)        commit      max_batch  verdict
  20261121T120000.000Z-0000  2026-11-21 12:00  58656f6e00          8  ✗ missed
  20261122T120000.000Z-0001  2026-11-22 12:00  58656f6e00         32  ✗ missed
  20261123T120000.000Z-0002  2026-11-23 12:00  4550594300      ≥ 128  ✓ met
      another machine: cpu Xeon → EPYC
  20261124T120000.000Z-0003  2026-11-24 12:00  4550594300        ≥ 8  ? inconclusive
  20261125T120000.000Z-0004  2026-11-25 12:00  4550594300        ≥ 8  ? inconclusive, interrupted"""
