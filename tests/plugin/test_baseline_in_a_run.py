"""A run is compared with a stored one: test by test, in the call phase, and for good in the run directory."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from tests.plugin.conftest import usage_error_of

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.plugin.failing import warn_inconclusive

GATE = ("--openenv-baseline", "latest", "--openenv-fail-on", "max_batch:-10%,step_p99:+50%")


def report(inner) -> dict:
    """The JSON report of the newest run."""
    return json.loads((inner.runs[-1] / "report.json").read_text())


def test_the_same_again_passes_and_is_shown(swept):
    swept.run().assert_outcomes(passed=1)
    result = swept.run(*GATE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*baseline latest (command line), fail on max_batch:-10%, step_p99:+50% (command line)*",
            "*compared with the baseline*",
            f"baseline {swept.runs[0].name}*named latest*",
            "✓ no regression: 1 curve within max_batch:-10%, step_p99:+50%",
        ]
    )


def test_a_regression_fails_the_test_in_its_call_phase_with_the_figures(swept):
    swept.run().assert_outcomes(passed=1)
    result = swept.run(*GATE, "--openenv-target", "fake,capacity=1")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "regressed: max_batch ≥ 2 → 1, allowed 2 (fake · ws · wait 0.01 s)",
            '  see "OpenEnv scaling: compared with the baseline" below',
            "*allowed 2; beyond max_batch:-10%; spread unknown*",
        ]
    )
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_scale - *regressed: max_batch*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_missed_slo_comes_before_the_comparison(inner):
    inner.tests("@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_scale(scaling):\n    scaling.run()\n")
    inner.run()
    result = inner.run(*GATE, "--openenv-target", "fake,capacity=1")
    text = result.stdout.str()
    assert 0 < text.index("max_batch 1 < 2") < text.index("regressed: max_batch")


def test_without_fail_on_nothing_is_judged(swept):
    swept.run()
    result = swept.run(*GATE[:2], "--openenv-target", "fake,capacity=1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*nothing is judged without --fail-on"])


def test_a_test_the_baseline_lacks_is_inconclusive_and_warn_lets_it_pass(swept):
    swept.run()
    swept.tests("@pytest.mark.scaling\ndef test_scale_all(scaling):\n    scaling.run()\n")
    result = swept.run(*GATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["inconclusive: baseline: 1 curve without a baseline: *did you rename it from*"])
    result = swept.run("--openenv-baseline", swept.runs[0].name, "--openenv-inconclusive", "warn", "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)


def test_where_warnings_are_errors_it_fails_in_one_line(golden):
    def warn(warning):
        raise warning

    with pytest.raises(pytest.fail.Exception) as failed:
        warn_inconclusive(SimpleNamespace(warn=warn), "inconclusive: the client was busy")
    assert failed.value.pytrace is False
    golden(failed.value)


def test_a_wait_that_is_not_measured_any_more_is_inconclusive_unless_the_command_line_says_so(swept):
    swept.run("--openenv-waits", "0.01,0.02")
    result = swept.run(*GATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["inconclusive: baseline: 1 curve of the baseline missing: *wait 0.02 s*"])
    first = ("--openenv-baseline", swept.runs[0].name)
    swept.run(*first, "--openenv-waits", "0.01").assert_outcomes(passed=1)


def test_the_report_keeps_the_comparison_and_needs_the_baseline_no_more(swept, capsys):
    swept.run()
    swept.run(*GATE, "--openenv-target", "fake,capacity=1")
    before = report(swept)["sweeps"][0]["comparison"]
    assert before["outcome"] == "regressed"
    assert before["baseline"]["run_id"] == swept.runs[0].name
    shutil.rmtree(swept.runs[0])
    (run,) = swept.runs
    (run / "report.json").unlink()
    (run / "report.md").unlink()
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert report(swept)["sweeps"][0]["comparison"] == before
    markdown = (run / "report.md").read_text()
    assert "## Comparison with the baseline" in markdown
    assert [line for line in markdown.splitlines() if line.startswith("### ✗ ") and "regressed: max_batch " in line]


def test_workers_compare_with_the_run_the_controller_chose(swept):
    swept.run().assert_outcomes(passed=1)
    # One worker: the newer run is there before it looks for a baseline, and a second one only takes longer.
    result = swept.run("-n1", *GATE, "--openenv-target", "fake,capacity=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"baseline {swept.runs[0].name}*", "✗ regressed: max_batch ≥ 2 → 1, allowed 2 *"])
    assert [sweep["comparison"]["outcome"] for sweep in report(swept)["sweeps"]] == ["regressed"]


def test_a_baseline_of_the_command_line_that_is_not_there_ends_the_run_with_one_line(swept, golden):
    for name in ("latest", "no-such-run"):
        error = usage_error_of(swept.run("--openenv-baseline", name))
        assert error.startswith("ERROR: --openenv-baseline: ")
        golden(error, name)


def test_a_baseline_of_the_ini_file_that_is_not_there_concerns_only_tests_that_measure(swept):
    swept.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n")
    result = swept.run("-o", "openenv_baseline=latest", "-o", "openenv_fail_on=max_batch:-10%")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["inconclusive: no baseline to compare with: there is no complete run in *"])
    swept.run("-o", "openenv_baseline=latest", "-k", "other").assert_outcomes(passed=1, deselected=1)


@pytest.mark.parametrize("expression", ["max_batch:+10%", "max_batch:-10%"])
def test_a_wrong_fail_on_ends_the_run_with_one_line(swept, golden, expression):
    error = usage_error_of(swept.run("--openenv-fail-on", expression))
    assert error.startswith("ERROR: --openenv-fail-on: ")
    golden(error)


def test_fail_on_in_the_ini_file_waits_for_a_baseline(swept):
    swept.run("-o", "openenv_fail_on=max_batch:-10%").assert_outcomes(passed=1)


def test_a_failing_assertion_of_the_test_comes_first_and_the_comparison_is_kept(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    assert scaling.run().max_batch() == 2\n")
    inner.run().assert_outcomes(passed=1)
    result = inner.run(*GATE, "--openenv-target", "fake,capacity=1")
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_scale - assert 1 == 2*"])
    assert report(inner)["sweeps"][0]["comparison"]["outcome"] == "regressed"
