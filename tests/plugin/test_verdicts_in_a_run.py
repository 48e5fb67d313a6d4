"""How a verdict reaches the test: in its call phase, as one readable text; JUnit and reports carry it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.engine import workload

HOLDS_TWO = "@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_scale(scaling):\n    scaling.run()\n"


def test_an_slo_that_is_met_passes(inner):
    inner.tests(HOLDS_TWO)
    result = inner.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*✓ SLO met: max_batch ≥ 2, got 2; *"])
    assert result.ret == pytest.ExitCode.OK


SHORT = "Failed: max_batch 1 < 2 (CAPACITY_REACHED at 1 session)"


def test_an_slo_that_is_missed_fails_in_a_few_words_and_everything_is_shown_once(inner, golden):
    inner.tests(HOLDS_TWO)
    result = inner.run("--openenv-target", "fake,capacity=1", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    first = next(at for at, line in enumerate(result.outlines) if " FAILURES " in line)
    golden([line for line in result.outlines[first + 1 : -1] if "generated xml file" not in line])
    assert f"FAILED test_it.py::test_scale - {SHORT}" in result.outlines
    (case,) = ElementTree.parse(inner.path / "junit.xml").iter("testcase")
    properties = {item.get("name"): item.get("value") for item in case.iter("property")}
    assert properties["openenv_verdict"] == "missed"
    assert properties["openenv_max_batch[ws,wait=0.01]"] == "1"
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == SHORT
    for text in ("the server refused 1 session", "the server's last words", "rerun: pytest"):
        assert (failure.text or "").count(text) == result.stdout.str().count(text) == 1


def test_where_failures_are_a_line_or_none_the_block_says_what_refused(inner):
    inner.tests(HOLDS_TWO)
    result = inner.run("--openenv-target", "fake,capacity=1", "--tb=line")
    assert f"{inner.path}/test_it.py:4: {SHORT}" in result.outlines
    assert result.stdout.str().count("the server refused 1 session") == 1


def test_where_there_is_no_summary_the_block_stands_with_the_failure(inner):
    inner.tests(HOLDS_TWO)
    result = inner.run("--openenv-target", "fake,capacity=1", "-qq")
    text = result.stdout.str()
    assert [text.count(words) for words in ("the server refused 1 session", "rerun: pytest", "sess/s")] == [1, 1, 1]


def test_a_failing_assertion_of_the_test_comes_first(inner):
    inner.tests(
        "@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_scale(scaling):\n"
        "    assert scaling.run().max_batch() == 7\n"
    )
    result = inner.run("--openenv-target", "fake,capacity=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E       *assert 1 == 7"])
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_scale - *assert 1 == 7*"])


def test_an_expected_failure_is_expected(inner):
    inner.tests(f"@pytest.mark.xfail\n{HOLDS_TWO}")
    inner.run("--openenv-target", "fake,capacity=1").assert_outcomes(xfailed=1)


def test_what_cannot_be_judged_fails_and_says_that_it_is_inconclusive(inner):
    inner.tests(HOLDS_TWO)
    result = inner.run("--openenv-target", "fake,finding=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["inconclusive: *99 % CPU*", "  --openenv-inconclusive warn lets this pass"])
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_scale - *inconclusive: *"])


def test_what_cannot_be_judged_passes_with_a_warning_where_that_is_asked_for(inner):
    inner.tests(HOLDS_TWO)
    result = inner.run("--openenv-target", "fake,finding=cpu", "--openenv-inconclusive", "warn", "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*InconclusiveWarning: inconclusive: *"])


def test_a_missed_limit_is_not_excused_by_warn(inner):
    inner.tests(HOLDS_TWO)
    inner.run("--openenv-target", "fake,capacity=1", "--openenv-inconclusive", "warn").assert_outcomes(failed=1)


def test_without_an_slo_a_test_fails_only_if_no_cell_passes(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n")
    inner.run("--openenv-target", "fake,capacity=1").assert_outcomes(passed=1)
    inner.run("--openenv-target", "fake,capacity=0").assert_outcomes(failed=1)


def test_a_limit_on_the_command_line_overrides_the_mark(inner):
    inner.tests(HOLDS_TWO)
    target = ["--openenv-target", "fake,capacity=1"]
    inner.run(*target, "--openenv-slo", "max_batch>=1").assert_outcomes(passed=1)


def test_the_sweep_that_run_returns_holds_curves_cells_rows_and_max_batch(inner):
    inner.tests(
        "@pytest.mark.scaling(waits=[0.1, 1])\ndef test_scale(scaling):\n"
        "    sweep = scaling.run()\n"
        "    assert len(sweep.curves) == 2\n"
        "    assert [cell.batch for cell in sweep.cells] == [1, 2, 1, 2]\n"
        "    assert sweep.max_batch(wait=1) == 2\n"
        "    assert sweep.table.num_rows == 6\n"
        "    assert (sweep.run_dir / 'manifest.json').exists()\n"
    )
    inner.run().assert_outcomes(passed=1)


def test_nothing_that_can_be_measured_fails_with_one_line(inner, monkeypatch):
    def refuse(*args):
        raise WorkloadError("action nowhere:act: nowhere does not import")

    monkeypatch.setattr(workload, "find_workload", refuse)
    inner.tests("@pytest.mark.scaling(action='nowhere:act')\ndef test_scale(scaling):\n    scaling.run()\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["action nowhere:act: nowhere does not import"])
    result.stdout.no_fnmatch_line("*Traceback*")
