"""What will be measured, in which order, under which names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import Limit, Slo, make_limit
from pytest_openenv_scale.config.plan import (
    Cell,
    Curve,
    curve_batches,
    largest_batch,
    limit_below_wait,
    plan_curves,
    should_stop,
)


def a_curve(**changes) -> Curve:
    parts = {
        "test": "test_scale.py::test_holds",
        "target": "local",
        "infrastructure": "local-hypercorn",
        "mode": "ws",
        "wait": 1.0,
        "steps": 1,
        "arrival": "hold",
        "batches": (1, 8),
    }
    return Curve(**{**parts, **changes})


def plan(slo_for=lambda mode, wait: Slo(), **changes):
    defaults = {"modes": ("ws",), "waits": (0.1, 1.0), "batches": (1, 8), "waitless": ()}
    fixed = {"test": "t", "target": "local", "infrastructure": "i", "steps": 2, "arrival": "hold"}
    return plan_curves(slo_for=slo_for, **fixed, **{**defaults, **changes})


def test_the_cells_of_a_curve_differ_in_batch_only():
    curve = a_curve()
    assert [cell.batch for cell in curve.cells] == [1, 8]
    assert {cell.curve.id for cell in curve.cells} == {curve.id}
    assert curve.cells[0] == Cell("test_scale.py::test_holds", "local", "local-hypercorn", "ws", 1.0, 1, 1, "hold")


@pytest.mark.parametrize(
    ("wait", "tail"), [(1.0, "-ws-w1-b8"), (0.1, "-ws-w0.1-b8"), (0.0, "-ws-w0-b8"), (None, "-ws-b8")]
)
def test_the_id_of_a_cell_ends_in_what_a_person_looks_for(wait, tail):
    assert a_curve(wait=wait).cells[1].id.endswith(tail)


def test_the_id_of_a_cell_is_the_same_in_every_run():
    assert a_curve().cells[0].id == "42dfd75f79-ws-w1-b1"


@pytest.mark.parametrize(
    "changes",
    [
        {"test": "test_scale.py::test_holds[x]"},
        {"target": "local,workers=2"},
        {"infrastructure": "local-uvicorn"},
        {"mode": "http"},
        {"wait": 0.1},
        {"wait": None},
        {"steps": 2},
        {"arrival": "rate=50"},
        {"test": "test_scale.py::test_holdslocal", "target": ""},
    ],
)
def test_curves_that_differ_in_anything_have_different_ids(changes):
    assert a_curve(**changes).id != a_curve().id


def test_the_id_of_a_curve_does_not_depend_on_its_batches():
    assert a_curve(batches=(1,)).id == a_curve().id


@given(
    st.text(max_size=60),
    st.text(max_size=60),
    st.sampled_from(["ws", "http"]),
    st.none() | st.floats(0, 604800, allow_subnormal=False),
    st.integers(1, 10**6),
)
def test_ids_are_short_and_safe_in_any_file_system(test, target, mode, wait, batch):
    cell_id = Cell(test, target, "i", mode, wait, batch, 1, "hold").id
    assert re.fullmatch(r"[0-9a-f]{10}-(ws|http)(-w[0-9.e+-]+)?-b[0-9]+", cell_id)
    assert len(cell_id) < 64


def test_curves_go_by_mode_as_given_then_by_wait():
    curves = plan(modes=("http", "ws", "http"), waits=(1.0, 0.1, 1.0))
    assert [(curve.mode, curve.wait) for curve in curves] == [
        ("http", 0.1),
        ("http", 1.0),
        ("ws", 0.1),
        ("ws", 1.0),
    ]
    assert {curve.steps for curve in curves} == {2}


def test_without_a_wait_axis_there_is_one_curve_per_mode():
    curves = plan(modes=("ws", "http"), waitless=("ws", "http"))
    assert [(curve.mode, curve.wait) for curve in curves] == [("ws", None), ("http", None)]


def test_each_mode_has_a_wait_axis_of_its_own():
    curves = plan(modes=("ws", "http"), waitless=("http",))
    assert [(curve.mode, curve.wait) for curve in curves] == [("ws", 0.1), ("ws", 1.0), ("http", None)]


@pytest.mark.parametrize(
    ("limits", "steps", "until_done", "below"),
    [
        ({"total_p99": "1.9s"}, 2, False, "total_p99"),
        ({"total_p99": "2s"}, 2, False, None),
        ({"total_p99": "1.9s"}, 2, True, None),
        ({"total_p99": "0.9s"}, 2, True, "total_p99"),
        ({"step_p50": "999ms"}, 2, True, "step_p50"),
        ({"step_p50": "1s"}, 9, False, None),
        ({"latency_factor": 0.5}, 9, False, "latency_factor"),
        ({"latency_factor": 1}, 9, False, None),
        ({"overhead_p99": "1ms", "reset_p99": "1ms", "connect_p99": "1ms", "success": 1, "rps": 9}, 9, False, None),
    ],
)
def test_a_limit_that_the_wait_alone_breaks_is_known_before_anything_is_measured(limits, steps, until_done, below):
    slo = Slo(tuple(make_limit(name, value) for name, value in limits.items()))
    *_, curve = plan()
    curve = replace(curve, steps=steps)
    assert curve.wait == 1.0
    limit = limit_below_wait(curve, slo, until_done=until_done)
    assert (limit and limit.name) == below
    (waitless,) = plan(waitless=("ws",))
    assert limit_below_wait(replace(waitless, steps=steps), slo, until_done=until_done) is None


def test_the_n_of_max_batch_joins_the_grid_of_its_curve_only():
    def slo_for(mode, wait):
        return Slo((Limit("max_batch", 4),)) if wait == 1.0 else Slo()

    assert [curve.batches for curve in plan(slo_for)] == [(1, 8), (1, 4, 8)]


def test_limits_are_asked_for_by_mode_and_wait():
    calls = []
    plan(lambda mode, wait: calls.append((mode, wait)) or Slo(), waitless=("ws",))
    assert calls == [("ws", None)]


@pytest.mark.parametrize(
    ("batches", "limit", "expected"),
    [((8, 1), None, (1, 8)), ((1, 8), 8, (1, 8)), ((1, 8), 512, (1, 8, 512)), ((8,), 2, (2, 8))],
)
def test_a_grid_ascends_without_duplicates(batches, limit, expected):
    slo = Slo() if limit is None else Slo((Limit("max_batch", limit),))
    assert curve_batches(batches, slo) == expected


def test_the_largest_batch_counts_every_max_batch_limit():
    slos = [Slo((Limit("max_batch", 512),), wait=1.0), Slo((Limit("success", 0.9),))]
    assert largest_batch(iter((1, 8)), slos) == 512
    assert largest_batch((1, 8), []) == 8


@pytest.mark.parametrize(
    ("passed", "stops"),
    [
        ([], False),
        ([False], False),
        ([True, False], False),
        ([False, False], True),
        ([True, True, False, False], True),
        ([False, False, True], False),
        ([False, True, False], False),
        ([False, None], False),
        ([None, False], False),
        ([None, None], False),
        ([False, None, False], False),
        ([None, False, False], True),
    ],
)
def test_a_curve_stops_after_two_failing_batches_in_a_row(passed, stops):
    assert should_stop(passed) is stops
