"""A mistake in the marks of a test is an error of that test alone."""

from __future__ import annotations

import pytest
from tests.plugin.conftest import errors_of

WRONG_MARKS = {
    "a_batch_of_none": "scaling(batches='0')",
    "no_batch": "scaling(batches=[])",
    "a_batch_of_letters": "scaling(batches='many')",
    "a_batch_below_none": "scaling(batches=-4)",
    "a_wait_below_none": "scaling(waits=[-0.1])",
    "mode": "scaling(modes='grpc')",
    "arrival": "scaling(arrival='waves')",
    "action_file": "scaling(action='@/nowhere.jsonl')",
    "think_time": "scaling(think='exponential')",
    "think_file": "scaling(think='@/nowhere.txt')",
    "steps": "scaling(steps='until_won')",
    "ramp_without_a_steady_state": "scaling(ramp='10s')",
    "time_without_a_rate": "scaling(arrival='steady=60s', for_='60s')",
    "time_beside_batches": "scaling(batches=8, arrival='rate=50', for_='60s')",
    "time_beside_a_search": "scaling(search=True, arrival='rate=50', for_='60s')",
    "ramp_within_the_arrival": "scaling(arrival='steady=60s,ramp=10s')",
    "limit_on_another_batch": "scaling(arrival='rate=50', for_='60s')\n@pytest.mark.slo(max_batch=64)",
    "name_of_an_argument": "scaling(batch=1)",
    "no_name": "scaling(1, 8)",
    "name_of_a_limit": "scaling\n@pytest.mark.slo(max_batches=4)",
    "limit": "scaling\n@pytest.mark.slo(total_p99=0)",
    "wait_nobody_measures": "scaling\n@pytest.mark.slo(max_batch=4, wait=7)",
    "more_hosts_than_sessions": "scaling\n@pytest.mark.slo(hosts=8)",
    "no_limit": "scaling\n@pytest.mark.slo",
}


def test_a_wrong_mark_is_an_error_of_its_test_that_names_it(inner, golden):
    wrong = [
        f"@pytest.mark.{mark}\ndef test_{name}(scaling):\n    scaling.run()\n" for name, mark in WRONG_MARKS.items()
    ]
    inner.tests("\n".join([*wrong, "def test_other():\n    pass\n"]))
    result = inner.run()
    result.assert_outcomes(errors=len(WRONG_MARKS), passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    golden(errors_of(result, [f"test_{name}" for name in WRONG_MARKS]))


@pytest.mark.parametrize("arguments", [("-m", "not scaling"), ("--collect-only",), ("-k", "other")])
def test_a_wrong_mark_breaks_nothing_where_its_test_does_not_run(inner, arguments):
    inner.tests(
        "@pytest.mark.scaling(batches=0)\ndef test_wrong(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n"
    )
    assert inner.run(*arguments).ret == pytest.ExitCode.OK


def test_a_wrong_mark_of_a_skipped_test_stays_silent(inner):
    inner.tests("@pytest.mark.skip\n@pytest.mark.scaling(batches=0)\ndef test_wrong(scaling):\n    scaling.run()\n")
    inner.run().assert_outcomes(skipped=1)


def test_the_fixture_without_the_mark_is_an_error_and_starts_nothing(inner, golden):
    inner.tests("def test_unmarked(scaling):\n    scaling.run()\n")
    result = inner.run()
    result.assert_outcomes(errors=1)
    golden(errors_of(result, ["test_unmarked"]))
    assert inner.events == []


def test_the_fixture_asked_for_by_name_without_the_mark_is_an_error(inner, golden):
    inner.tests("def test_unmarked(request):\n    request.getfixturevalue('scaling').run()\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_unmarked"]))


def test_a_mark_where_it_means_nothing_is_an_error(inner, golden):
    inner.tests(
        "import unittest\n\n"
        "@pytest.mark.scaling(batches=1)\ndef test_scaling():\n    pass\n\n"
        "@pytest.mark.slo(max_batch=1)\ndef test_slo():\n    pass\n\n"
        "@pytest.mark.scaling(batches=1)\nclass TestOld(unittest.TestCase):\n    def test_old(self):\n        pass\n"
    )
    result = inner.run()
    result.assert_outcomes(errors=3)
    golden(errors_of(result, ["test_scaling", "test_slo", "test_old"]))


def test_a_bare_mark_without_the_fixture_only_selects(inner):
    inner.tests("@pytest.mark.scaling\ndef test_bare():\n    pass\n\ndef test_other():\n    pass\n")
    inner.run("-m", "scaling").assert_outcomes(passed=1, deselected=1)


def test_a_mark_on_a_class_holds_for_its_methods_and_a_nearer_one_outranks_it(inner):
    inner.tests(
        "@pytest.mark.scaling(batches=3)\nclass TestAll:\n"
        "    def test_one(self, scaling):\n        scaling.run()\n"
        "    @pytest.mark.scaling(batches=4)\n    def test_two(self, scaling):\n        scaling.run()\n"
    )
    inner.run().assert_outcomes(passed=2)
    assert [line.split()[3] for line in inner.events if line.startswith("cell")] == ["3", "4"]


def test_a_mark_on_a_module_holds_for_its_tests(inner):
    inner.tests("pytestmark = pytest.mark.scaling(batches=5)\n\ndef test_one(scaling):\n    scaling.run()\n")
    inner.run().assert_outcomes(passed=1)
    assert inner.events[1].startswith("cell ws 0.01 5")


def test_a_parameter_may_carry_the_mark(inner):
    inner.tests(
        "@pytest.mark.parametrize('seed', [pytest.param(1, marks=pytest.mark.scaling(batches=6)), "
        "pytest.param(2, marks=pytest.mark.scaling(batches=7))])\n"
        "def test_one(scaling, seed):\n    assert scaling.run().cells[0].batch == seed + 5\n"
    )
    inner.run().assert_outcomes(passed=2)


def test_a_command_line_option_outranks_the_mark(inner):
    inner.tests("@pytest.mark.scaling(batches=3)\ndef test_one(scaling):\n    scaling.run()\n")
    inner.run("--openenv-batches", "9")
    assert [line.split()[3] for line in inner.events if line.startswith("cell")] == ["9"]


def test_a_marked_test_runs_its_sweep_once(inner, golden):
    inner.tests(
        "@pytest.mark.scaling\ndef test_idle(scaling):\n    pass\n\n"
        "@pytest.mark.scaling\ndef test_twice(scaling):\n    scaling.run()\n    scaling.run()\n"
    )
    result = inner.run()
    result.assert_outcomes(failed=2)
    golden(errors_of(result, ["test_idle", "test_twice"]))


def test_a_limit_on_the_wait_of_an_environment_without_one_is_an_error(inner, golden):
    inner.tests(
        "@pytest.mark.scaling(waits=[1])\n@pytest.mark.slo(max_batch=2, wait=1)\n"
        "def test_one(scaling):\n    scaling.run()\n"
    )
    result = inner.run("--openenv-target", "fake,nowait=1")
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_one"]))


def test_markers_and_fixtures_are_listed_with_their_signatures(inner):
    markers = inner.run("--markers")
    markers.stdout.fnmatch_lines(["@pytest.mark.scaling(batches, waits, *", "@pytest.mark.slo(max_batch, success, *"])
    assert "isolation" not in markers.stdout.str()
    fixtures = inner.run("--fixtures")
    fixtures.stdout.fnmatch_lines_random(["scaling -- *", "openenv_target [[]session scope[]]*"])
