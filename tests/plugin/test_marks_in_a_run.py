"""A mistake in the marks of a test is an error of that test alone."""

from __future__ import annotations

import pytest

WRONG_MARKS = [
    ("scaling(batches='0')", "mark scaling: batches must be whole numbers ≥ 1, got '0'"),
    ("scaling(batches=[])", "mark scaling: batches must not be empty"),
    ("scaling(batches='many')", "mark scaling: batches must be whole numbers ≥ 1, got 'many'"),
    ("scaling(batches=-4)", "mark scaling: batches must be whole numbers ≥ 1, got -4"),
    ("scaling(waits=[-0.1])", "mark scaling: waits must be ≥ 0 seconds, got -0.1"),
    ("scaling(modes='grpc')", "mark scaling: modes are ws and http, got 'grpc'"),
    ("scaling(arrival='waves')", "mark scaling: arrival is hold, burst or rate=R, got 'waves'"),
    ("scaling(action='@nowhere.jsonl')", "mark scaling: cannot read action file"),
    ("scaling(batch=1)", "mark scaling has no argument 'batch'; did you mean 'batches'?"),
    ("scaling(1, 8)", "mark scaling takes named arguments only"),
    ("scaling\n@pytest.mark.slo(max_batches=4)", "mark slo has no argument 'max_batches'"),
    ("scaling\n@pytest.mark.slo(total_p99=0)", "mark slo: total_p99 must be > 0 seconds, got 0"),
    ("scaling\n@pytest.mark.slo(max_batch=4, wait=7)", "mark slo(wait=7) selects no curve"),
    ("scaling\n@pytest.mark.slo(hosts=8)", "mark slo: hosts ≥ 8 cannot be measured with at most 2 sessions"),
    ("scaling\n@pytest.mark.slo", "mark slo: it sets no limit"),
]


@pytest.mark.parametrize(("mark", "problem"), WRONG_MARKS)
def test_a_wrong_mark_is_an_error_of_its_test_that_names_it(inner, mark, problem):
    inner.tests(f"@pytest.mark.{mark}\ndef test_wrong(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n")
    result = inner.run()
    result.assert_outcomes(errors=1, passed=1)
    lines = [line for line in result.outlines if line.startswith("test_it.py::test_wrong: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"test_it.py::test_wrong: {problem}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("arguments", [("-m", "not scaling"), ("--collect-only",), ("-k", "other")])
def test_a_wrong_mark_breaks_nothing_where_its_test_does_not_run(inner, arguments):
    inner.tests(
        "@pytest.mark.scaling(batches=0)\ndef test_wrong(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n"
    )
    assert inner.run(*arguments).ret == pytest.ExitCode.OK


def test_a_wrong_mark_of_a_skipped_test_stays_silent(inner):
    inner.tests("@pytest.mark.skip\n@pytest.mark.scaling(batches=0)\ndef test_wrong(scaling):\n    scaling.run()\n")
    inner.run().assert_outcomes(skipped=1)


def test_the_fixture_without_the_mark_is_an_error(inner):
    inner.tests("def test_unmarked(scaling):\n    scaling.run()\n")
    result = inner.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["test_it.py::test_unmarked: the fixture scaling needs the mark: write @pytest.mark.scaling*"]
    )
    assert inner.events == []


def test_the_fixture_asked_for_by_name_without_the_mark_is_an_error(inner):
    inner.tests("def test_unmarked(request):\n    request.getfixturevalue('scaling').run()\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_unmarked: the fixture scaling needs the mark*"])


@pytest.mark.parametrize("mark", ["scaling(batches=1)", "slo(max_batch=1)"])
def test_arguments_without_the_fixture_are_an_error(inner, mark):
    inner.tests(f"@pytest.mark.{mark}\ndef test_bare():\n    pass\n")
    result = inner.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"test_it.py::test_bare: mark {mark.partition('(')[0]} has arguments, but the test does not use the *"]
    )


def test_a_bare_mark_without_the_fixture_only_selects(inner):
    inner.tests("@pytest.mark.scaling\ndef test_bare():\n    pass\n\ndef test_other():\n    pass\n")
    inner.run("-m", "scaling").assert_outcomes(passed=1, deselected=1)


def test_a_method_of_a_unittest_class_cannot_be_marked(inner):
    inner.tests(
        "import unittest\n\n@pytest.mark.scaling(batches=1)\nclass TestOld(unittest.TestCase):\n"
        "    def test_old(self):\n        pass\n"
    )
    result = inner.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["test_it.py::TestOld::test_old: mark scaling: it is for test functions and methods*"])


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


def test_a_marked_test_that_never_runs_the_sweep_fails(inner):
    inner.tests("@pytest.mark.scaling\ndef test_idle(scaling):\n    pass\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_idle: the test is marked scaling but never calls scaling.run();*"])


def test_running_twice_is_an_error_that_says_so(inner):
    inner.tests("@pytest.mark.scaling\ndef test_twice(scaling):\n    scaling.run()\n    scaling.run()\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_twice: scaling.run() was called twice;*"])


def test_a_limit_on_the_wait_of_an_environment_without_one_is_an_error(inner):
    inner.tests(
        "@pytest.mark.scaling(waits=[1])\n@pytest.mark.slo(max_batch=2, wait=1)\n"
        "def test_one(scaling):\n    scaling.run()\n"
    )
    result = inner.run("--openenv-target", "fake,nowait=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_one: mark slo(wait=1) selects no curve: the environment cannot*"])


def test_markers_and_fixtures_are_listed_with_their_signatures(inner):
    markers = inner.run("--markers")
    markers.stdout.fnmatch_lines(["@pytest.mark.scaling(batches, waits, *", "@pytest.mark.slo(max_batch, success, *"])
    fixtures = inner.run("--fixtures")
    fixtures.stdout.fnmatch_lines_random(["scaling -- *", "openenv_target [[]session scope[]]*"])
