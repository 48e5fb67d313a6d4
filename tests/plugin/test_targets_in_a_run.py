"""The fixture `openenv_target`: once per session and target, sized to what is selected, stopped at the end."""

from __future__ import annotations

import pytest
from tests.plugin import fakes

TESTS = """
@pytest.mark.scaling(batches="1,4")
def test_small(scaling):
    scaling.run()

@pytest.mark.scaling(batches=2)
@pytest.mark.slo(max_batch=64)
def test_large(scaling):
    scaling.run()
"""


def test_a_target_starts_once_for_all_tests_and_stops_at_the_end(inner):
    inner.tests(TESTS)
    inner.run().assert_outcomes(passed=2)
    assert inner.events[0] == "start fake largest=64"
    assert inner.events[-1] == "stop fake"
    assert sum(line.startswith("start") for line in inner.events) == 1


def test_a_target_is_sized_to_the_largest_cell_of_the_tests_that_are_selected(inner):
    inner.tests(TESTS)
    inner.run("-k", "small").assert_outcomes(passed=1, deselected=1)
    assert inner.events[0] == "start fake largest=4"


def test_one_target_leaves_test_ids_alone(inner):
    inner.tests(TESTS)
    result = inner.run("--collect-only", "-q")
    result.stdout.fnmatch_lines(["test_it.py::test_small", "test_it.py::test_large"])


def test_several_targets_run_every_test_on_each_one_after_the_other(inner):
    inner.tests(TESTS)
    result = inner.run("-v", "--openenv-target", "fake", "--openenv-target", "fake,capacity=2")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_small[[]fake[]]*", "test_it.py::test_small[[]fake,capacity=2[]]*"])
    starts = [line for line in inner.events if not line.startswith("cell")]
    assert [line.split()[0] for line in starts] == ["start", "stop", "start", "stop"]


def test_the_run_names_a_test_the_same_however_many_targets_there_are(inner):
    inner.tests(
        "@pytest.mark.scaling\n@pytest.mark.parametrize('n', [1])\ndef test_scale(scaling, n):\n    scaling.run()\n\n"
        "@pytest.mark.scaling\ndef test_plain(scaling):\n    scaling.run()\n"
    )
    inner.run("--openenv-target", "fake", "--openenv-target", "fake,capacity=2").assert_outcomes(passed=4)
    tests = {sweep["test"] for sweep in inner.manifest["sweeps"]}
    assert tests == {"test_it.py::test_scale[1]", "test_it.py::test_plain"}


def test_labels_that_collide_get_the_differing_option(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n")
    inner.run("--openenv-target", "fake,capacity=2", "--openenv-target", "fake,capacity=4")
    labels = [sweep["infrastructure"] for sweep in inner.manifest["sweeps"]]
    assert labels == ["fake-capacity2", "fake-capacity4"]


def test_a_target_that_does_not_start_is_one_clean_error_with_its_log(inner):
    inner.tests(TESTS)
    result = inner.run("--openenv-target", "fake,broken=it did not start")
    result.assert_outcomes(errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines.count("it did not start") == 2
    assert result.outlines.count(fakes.LOG) == 1
    result.stdout.fnmatch_lines(["  more of it with test_it.py::test_small, above"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*another exception*")
    assert inner.runs == []


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_target_that_does_not_stop_is_told_at_the_end_and_takes_nothing_from_what_was_measured(inner, workers):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n")
    result = inner.run("--openenv-target", "fake,left=not stopped", workers)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines.count("not stopped") == 1
    assert inner.manifest["status"] == "complete"


def test_a_target_nobody_knows_is_a_clean_error_where_hooks_could_have_known_it(inner):
    inner.tests(TESTS)
    result = inner.run("--openenv-target", "marathon", "-k", "small")
    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(["there is no target 'marathon'*"])


def test_a_hook_that_knows_nothing_of_a_target_leaves_its_early_check_alone(inner):
    inner.tests(TESTS)
    result = inner.run("--openenv-target", "local,worker=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --openenv-target: target local has no key 'worker'*"])


def test_a_hook_may_refuse_a_specification_before_anything_runs(inner):
    inner.pytester.makeconftest(
        "from pytest_openenv_scale import TargetError\n\n"
        "def pytest_openenv_scale_target(spec):\n"
        "    if spec.name == 'staging':\n        raise TargetError('staging has no port')\n"
    )
    inner.tests(TESTS)
    result = inner.run("--openenv-target", "staging")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --openenv-target: staging has no port"])


def test_a_hook_gets_what_a_target_of_ours_gets(inner):
    inner.pytester.makeconftest(
        "import pytest\nfrom pytest_openenv_scale import TargetError\n\n"
        "class Mine:\n"
        "    spec = 'mine'\n\n"
        "    def __init__(self, context):\n        self.context = context\n\n"
        "    def __enter__(self):\n"
        "        run = self.context\n"
        "        raise TargetError(f'{run.root.name} {run.largest_batch} {run.modes} {bool(run.run_id)}')\n\n"
        "def pytest_openenv_scale_target(spec, context):\n"
        "    return Mine(context) if spec.name == 'mine' else None\n"
    )
    inner.tests(TESTS)
    result = inner.run("--openenv-target", "mine", "-k", "small")
    result.stdout.fnmatch_lines([f"{inner.path.name} 4 ('ws',) True"])


def test_the_target_alone_serves_a_test_without_the_mark(inner):
    inner.tests("def test_own(openenv_target):\n    assert openenv_target.label == 'fake'\n")
    inner.run().assert_outcomes(passed=1)
    assert inner.events == ["start fake largest=1", "stop fake"]


def test_a_fixture_of_ones_own_may_take_its_place(inner):
    inner.tests(
        "import asyncio\nfrom pytest_openenv_scale import Endpoint\n"
        "from pytest_openenv_scale.client.session import SessionFailed\n\n@pytest.fixture(scope='session')\n"
        "def openenv_target():\n    return Endpoint(('http://127.0.0.1:9',), 'mine', 'mine')\n\n"
        "@pytest.mark.scaling\ndef test_own(scaling):\n    assert scaling.endpoint.label == 'mine'\n"
        "    with pytest.raises(SessionFailed):\n        asyncio.run(scaling.session().__aenter__())\n"
    )
    inner.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("mark", "options", "reset"),
    [
        ("", ["--openenv-reset", '{"task": "$seed"}', "--openenv-seed", "7"], "{'task': 7}"),
        ("reset={'task': 'a'}", [], "{'task': 'a'}"),
    ],
)
def test_a_target_waits_with_the_reset_data_of_the_sessions(inner, mark, options, reset):
    inner.tests(f"@pytest.mark.scaling({mark})\ndef test_scale(scaling):\n    scaling.run()\n")
    result = inner.run(*options)
    result.assert_outcomes(passed=1)
    assert inner.events[0].partition(" reset=")[2] == reset
