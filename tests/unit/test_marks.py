"""The marks `scaling` and `slo`: their arguments, how they combine on a test, and what they refuse."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_openenv_scale import suite
from pytest_openenv_scale.config.limits import LIMITS, Limit, Slo
from pytest_openenv_scale.config.settings import ScalingMark, Steps
from pytest_openenv_scale.config.workload import ActionSource
from pytest_openenv_scale.core.parsing import Arrival, parse_arrival
from pytest_openenv_scale.plugin.check import SUITE_MARKS
from pytest_openenv_scale.plugin.collection import check_slos_apply, scaling_mark, slo_marks
from pytest_openenv_scale.plugin.marks import ARGUMENTS, MarkError, marker_lines, scaling, slo

STEADY = Arrival("steady", None, 60.0)


@pytest.fixture(autouse=True)
def _little_to_look_through() -> Iterator[None]:
    """A pytest that ends looks for garbage five times: not in all that this process has loaded before."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def collect(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Return the tests of a module, by name."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers =\n  scaling\n  slo")

    def run(source: str) -> dict[str, pytest.Item]:
        header = "import pytest\nscaling, slo = pytest.mark.scaling, pytest.mark.slo\n"
        items = pytester.getitems(header + dedent(source))
        return {item.name: item for item in items}

    return run


# The signatures


def test_the_signature_of_slo_is_the_table_of_limits_and_what_selects_a_curve():
    names = [name for kind in LIMITS.values() for name in (kind.alias, kind.name) if name]
    assert list(ARGUMENTS["slo"]) == [*names, "every_cell", "wait", "mode"]


def test_a_limit_and_its_alias_are_one_limit():
    assert slo(sessions_per_second=9) == slo(rps=9)
    with pytest.raises(MarkError, match="rps and sessions_per_second are the same limit"):
        slo(sessions_per_second=9, rps=8)


def test_the_signature_of_scaling_is_what_a_mark_may_write():
    assert list(ARGUMENTS["scaling"]) == [
        *("batches", "waits", "reps", "modes", "steps", "think", "arrival", "ramp", "for_", "timeout"),
        *("action", "reset", "search", "precision"),
    ]


def test_pytest_markers_shows_both_signatures_and_no_other_mark():
    lines = marker_lines()
    assert [line.partition("(")[0] for line in lines] == ["scaling", "slo"]
    for line in lines:
        arguments, _, sentence = line.partition("): ")
        assert ":" not in arguments
        assert sentence[0].islower()
        assert sentence.endswith(".")
    assert "total_p50" in lines[1]


def test_every_module_of_the_suite_has_a_mark_with_a_sentence():
    modules = {path.stem.removeprefix("test_") for path in Path(suite.__file__).parent.glob("test_*.py")}
    assert {*SUITE_MARKS, "scaling"} == modules
    assert all(sentence[0].islower() and not sentence.endswith(".") for sentence in SUITE_MARKS.values())


def test_a_bare_mark_writes_nothing():
    assert scaling() == ScalingMark()
    assert scaling().written_arguments() == {}


def test_a_mark_holds_checked_values():
    mark = scaling(
        batches="1,8..32",
        waits=[1.0, "100ms"],
        reps=3,
        modes="ws,http",
        steps="5",
        arrival="rate=10",
        timeout="2m",
        action={"wait_seconds": "$wait"},
        reset='{"seed": 1}',
    )
    assert mark == ScalingMark(
        batches=(1, 8, 16, 32),
        waits=(0.1, 1.0),
        reps=3,
        modes=("ws", "http"),
        steps=Steps(5),
        arrival=Arrival("rate", 10.0),
        timeout=120.0,
        action=ActionSource("json", {"wait_seconds": "$wait"}),
        reset={"seed": 1},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"batches": 0},
        {"batches": []},
        {"batches": True},
        {"waits": -1},
        {"waits": [None]},
        {"reps": 0},
        {"reps": 1.0},
        {"modes": "grpc"},
        {"steps": "x"},
        {"arrival": "hodl"},
        {"timeout": 0},
        {"action": 5},
        {"action": lambda session, step: {}},
        {"reset": "[]"},
    ],
)
def test_a_wrong_argument_of_scaling_is_refused(golden, arguments):
    with pytest.raises(MarkError) as error:
        scaling(**arguments)
    golden(error.value)


def test_limits_hold_checked_values():
    limits = slo(max_batch="256", success="95%", total_p99="2.5s", wait="1s", mode="ws")
    assert limits == Slo((Limit("max_batch", 256), Limit("success", 0.95), Limit("total_p99", 2.5)), 1.0, "ws")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"wait": 1},
        {"max_batch": 0},
        {"success": 95},
        {"total_p99": "fast"},
        {"hosts": 1.5},
        {"rps": -1},
        {"latency_factor": float("nan")},
        {"max_batch": 4, "wait": -1},
        {"max_batch": 4, "mode": "wss"},
    ],
)
def test_a_wrong_limit_is_refused(golden, arguments):
    with pytest.raises(MarkError) as error:
        slo(**arguments)
    golden(error.value)


@pytest.mark.parametrize(
    "mark",
    [
        'scaling("1,8")',
        "slo(64)",
        "scaling(batch=1)",
        "scaling(zzz=1)",
        "slo(max_batches=1)",
        "slo(total_p999=1)",
        "slo(max_batch='x')",
        "slo(total_p99='250')",
    ],
)
def test_a_wrong_mark_on_a_test_is_refused_in_one_line(golden, collect, mark):
    item = collect(f"@{mark}\ndef test_it(): pass")["test_it"]
    with pytest.raises(MarkError) as error:
        slo_marks(item), scaling_mark(item)
    golden(error.value)
    assert "\n" not in str(error.value)


# How marks combine


def test_a_test_without_marks_has_none(collect):
    item = collect("def test_it(): pass")["test_it"]
    assert scaling_mark(item) is None
    assert slo_marks(item) == ()


@pytest.mark.parametrize("mark", ["scaling", "scaling()"])
def test_a_bare_mark_on_a_test_counts(collect, mark):
    assert scaling_mark(collect(f"@{mark}\ndef test_it(): pass")["test_it"]) == ScalingMark()


NESTED = """
    pytestmark = [scaling(batches=1, waits=1, reps=1), slo(max_batch=1, success=0.5, rps=1)]

    @scaling(batches=2, waits=2)
    @slo(max_batch=2, success=0.6)
    class TestOuter:
        @scaling(batches=3)
        @slo(max_batch=3)
        def test_near(self): pass

        def test_far(self): pass
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_near", ScalingMark(batches=(3,), waits=(2.0,), reps=1)),
        ("test_far", ScalingMark(batches=(2,), waits=(2.0,), reps=1)),
    ],
)
def test_function_outranks_class_outranks_module_per_argument(collect, name, expected):
    assert scaling_mark(collect(NESTED)[name]) == expected


def test_limits_come_nearest_first(collect):
    marks = slo_marks(collect(NESTED)["test_near"])
    assert [each.limit("max_batch").allowed for each in marks] == [3, 2, 1]


def test_a_single_mark_of_a_module_counts(collect):
    item = collect("pytestmark = scaling(reps=2)\ndef test_it(): pass")["test_it"]
    assert scaling_mark(item) == ScalingMark(reps=2)


def test_a_class_outranks_the_class_it_derives_from(collect):
    items = collect("""
        @slo(max_batch=1)
        @scaling(reps=1, steps=1)
        class Base:
            def test_it(self): pass

        @slo(max_batch=2)
        @scaling(reps=2)
        class TestDerived(Base):
            pass
    """)
    assert scaling_mark(items["test_it"]) == ScalingMark(reps=2, steps=Steps(1))
    assert [each.limits[0].allowed for each in slo_marks(items["test_it"])] == [2, 1]


def test_a_mark_of_a_parameter_outranks_that_of_the_function(collect):
    items = collect("""
        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=[scaling(reps=5), slo(max_batch=5)])])
        @scaling(reps=2, steps=2)
        @slo(max_batch=2)
        def test_it(n): pass
    """)
    assert scaling_mark(items["test_it[1]"]) == ScalingMark(reps=2, steps=Steps(2))
    assert scaling_mark(items["test_it[2]"]) == ScalingMark(reps=5, steps=Steps(2))
    assert [each.limits[0].allowed for each in slo_marks(items["test_it[2]"])] == [5, 2]


@pytest.mark.parametrize(("append", "reps"), [(True, 2), (False, 9)])
def test_a_mark_added_by_a_plugin_ranks_where_it_was_added(collect, append, reps):
    item = collect("@scaling(reps=2)\ndef test_it(): pass")["test_it"]
    item.add_marker(pytest.mark.scaling(reps=9, steps=9), append=append)
    assert scaling_mark(item) == ScalingMark(reps=reps, steps=Steps(9))


def test_an_async_test_has_its_marks(collect):
    item = collect("@scaling(reps=2)\nasync def test_it(): pass")["test_it"]
    assert scaling_mark(item) == ScalingMark(reps=2)


@pytest.mark.parametrize(
    "marks",
    [
        ["scaling(reps=1)", "scaling(reps=2)"],
        ["slo(max_batch=1)", "slo(max_batch=2)"],
        ["slo(success=0.5, wait=1)", "slo(success=1, wait='1s')"],
    ],
)
def test_one_place_writes_an_argument_once(golden, collect, marks):
    item = collect("".join(f"@{mark}\n" for mark in marks) + "def test_it(): pass")["test_it"]
    with pytest.raises(MarkError) as error:
        slo_marks(item), scaling_mark(item)
    golden(error.value)


def test_two_marks_in_one_place_may_write_different_arguments(collect):
    item = collect("@scaling(reps=1)\n@scaling(steps=2)\ndef test_it(): pass")["test_it"]
    assert scaling_mark(item) == ScalingMark(reps=1, steps=Steps(2))


@pytest.mark.parametrize("order", [1, -1])
def test_in_one_place_the_mark_that_selects_comes_first(collect, order):
    marks = ["@slo(max_batch=256)\n", "@slo(max_batch=64, wait=1)\n", "@slo(max_batch=8, wait=1, mode='http')\n"]
    item = collect("".join(marks[::order]) + "def test_it(): pass")["test_it"]
    assert [each.limits[0].allowed for each in slo_marks(item)] == [8, 64, 256]


def test_an_action_file_is_looked_for_beside_the_test(collect, pytester, monkeypatch):
    pytester.path.joinpath("actions.jsonl").write_text('{"a": 1}\n')
    item = collect("@scaling(action='@actions.jsonl')\ndef test_it(): pass")["test_it"]
    monkeypatch.chdir("/")
    assert scaling_mark(item).action == ActionSource("lines", ({"a": 1},))


# Limits that select nothing, or that nobody can measure


@pytest.mark.parametrize(
    "slos",
    [
        [],
        [Slo()],
        [slo(max_batch=64)],
        [slo(max_batch=64, wait=1)],
        [slo(max_batch=64, mode="http", wait=0.1)],
        [slo(latency_factor=2), slo(overhead_p99="1s")],
        [slo(hosts=8)],
        [slo(hosts=64), slo(max_batch=64)],
        [slo(open=8)],
        [slo(connect_p99="1s", mode="http")],
    ],
)
def test_limits_that_can_be_measured_are_accepted(slos):
    check_slos_apply(slos, ("ws", "http"), (0.1, 1.0), (1, 8), STEADY)


@pytest.mark.parametrize(
    ("slos", "waits"),
    [
        (
            [slo(max_batch=64), slo(max_batch=64, wait=5)],
            (0.1, 1.0),
        ),
        (
            [slo(max_batch=64, mode="http")],
            (0.1,),
        ),
        (
            [slo(max_batch=64, wait=1)],
            (None,),
        ),
        ([slo(latency_factor=2)], (None,)),
        ([slo(overhead_p50=2)], (None,)),
        (
            [Slo((Limit("overhead_p99", 1.0, "command line"),))],
            (None,),
        ),
        ([Slo((Limit("latency_factor", 1.0, "ini"),))], (None,)),
        ([slo(hosts=9)], (1.0,)),
        ([slo(open=9)], (1.0,)),
    ],
)
def test_limits_that_cannot_be_measured_are_refused(golden, slos, waits):
    with pytest.raises(MarkError) as error:
        check_slos_apply(slos, ("ws",), waits, (1, 8), STEADY)
    golden(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arrival", ["hold", "burst", "rate=5", "rate=5,for=60"])
def test_sessions_open_all_the_time_need_a_steady_state(golden, arrival):
    with pytest.raises(MarkError) as error:
        check_slos_apply([Slo((Limit("open", 4.0, "command line"),))], ("ws",), (1.0,), (8,), parse_arrival(arrival))
    golden(error.value)


def test_without_batches_hosts_is_not_checked():
    check_slos_apply([slo(hosts=9)], ("ws",), (1.0,))


class Awkward:
    """As an array or a missing value of pandas, it cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value\nis ambiguous")

    __hash__ = None


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [(scaling, {"batches": [Awkward()]}), (scaling, {"search": Awkward()}), (slo, {"every_cell": Awkward()})],
)
def test_a_value_that_cannot_be_compared_is_one_line(golden, mark, arguments):
    with pytest.raises(MarkError) as error:
        mark(**arguments)
    golden(error.value)
