"""A mistake that concerns the whole run ends it before anything starts: exit code 4 and one line."""

from __future__ import annotations

import sys

import pytest

PLAIN = "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:hypothesispytest\n"

WRONG = [
    (["--openenv-batches", ""], "--openenv-batches: batches must not be empty"),
    (["--openenv-batches", "1,x"], "--openenv-batches: batches must be whole numbers ≥ 1, got 'x'"),
    (["--openenv-batches", "0"], "--openenv-batches: batches must be whole numbers ≥ 1, got '0'"),
    (["--openenv-batches=-1"], "--openenv-batches: batches must be whole numbers ≥ 1, got '-1'"),
    (["--openenv-waits=-1"], "--openenv-waits: waits must be ≥ 0 seconds, got '-1'"),
    (["--openenv-modes", "grpc"], "--openenv-modes: modes are ws and http, got 'grpc'"),
    (["--openenv-arrival", "waves"], "--openenv-arrival: arrival is hold, burst or rate=R, got 'waves'"),
    (["--openenv-slo", "latency<=1"], "--openenv-slo: 'latency' is no limit anybody measures"),
    (["--openenv-inconclusive", "pass"], "--openenv-inconclusive: *'pass'"),
    (["--openenv-target", "marathon"], "--openenv-target: there is no target 'marathon'"),
    (["--openenv-target", "local,worker=2"], "--openenv-target: target local has no key 'worker'"),
    (["--openenv-target", "local,workers=none"], "--openenv-target: target local"),
    (["--openenv-url", "localhost:8000"], "--openenv-url: 'localhost:8000' is not a URL"),
    (["--openenv-url", "http://a", "--openenv-target", "local"], "both name servers; write only one of them"),
    (["--openenv-results", "test_it.py"], "--openenv-results: *test_it.py is not a folder"),
    (["--openenv-results", "test_it.py/runs"], "--openenv-results: *test_it.py is not a folder"),
    (["--openenv-json", "test_it.py/report.json"], "--openenv-json: *test_it.py is not a folder"),
    (["-o", "openenv_reps=never"], "-o openenv_reps: reps must be a whole number ≥ 1, got 'never'"),
    (["-o", "openenv_results=test_it.py"], "openenv_results: *test_it.py is not a folder"),
    (["-o", "openenv_target=marathon"], "openenv_target: there is no target 'marathon'"),
]


@pytest.mark.parametrize(("arguments", "problem"), WRONG)
def test_a_wrong_option_ends_the_run_with_one_line(inner, arguments, problem):
    inner.ini(PLAIN)
    inner.tests("def test_other():\n    pass\n")
    result = inner.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{problem.replace('[', '[[]')}*"])
    said = [line for line in result.errlines if line.strip()]
    assert len(said) == 1, said


def test_a_wrong_option_ends_a_run_under_xdist_too(inner):
    inner.tests("def test_other():\n    pass\n")
    result = inner.run("-n2", "--openenv-batches", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line.strip()] == [
        "ERROR: --openenv-batches: batches must be whole numbers ≥ 1, got '0'; write for example \"1,8,32..512\""
    ]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [(["--openenv-report", "html,figures"], "--openenv-report"), (["-o", "openenv_report=figures"], "openenv_report")],
)
def test_figures_without_their_extra_end_the_run_before_anything_is_measured(swept, monkeypatch, arguments, place):
    monkeypatch.setitem(sys.modules, "plotnine", None)
    result = swept.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line.strip()] == [
        f"ERROR: {place}: figures need plotnine: pip install 'pytest-openenv-scale[figures]'"
    ]
    assert (swept.events, swept.runs) == ([], [])


def test_a_results_folder_nobody_may_write_to_is_refused(inner, monkeypatch):
    import pytest_openenv_scale.plugin.settings as preflight

    inner.tests("def test_other():\n    pass\n")
    (inner.path / "locked").mkdir()
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: "locked" not in str(path))
    result = inner.run("--openenv-results", "locked/runs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --openenv-results: *locked cannot be written; give a folder *, or none"])


def test_a_default_results_folder_that_cannot_be_made_fails_only_the_tests_that_measure(inner):
    (inner.path / "openenv-results").write_text("a file")
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n")
    result = inner.run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["test_it.py::test_scale: the run directory cannot be made: *--openenv-results*"])


def test_help_shows_every_option_with_its_default_and_no_secret(inner):
    result = inner.run("--help", "--openenv-header", "X-Token: hunter2")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*--openenv-batches=LIST*", "*--openenv-results=DIR*"])
    result.stdout.no_fnmatch_line("*hunter2*")


def test_without_the_plugin_its_options_are_unknown_and_tests_run(inner):
    inner.ini("[pytest]\nmarkers = scaling: not ours\n")
    inner.tests("@pytest.mark.scaling\ndef test_other():\n    pass\n")
    inner.run_process("-p", "no:openenv_scale").assert_outcomes(passed=1)
    assert inner.run_process("-p", "no:openenv_scale", "--openenv-reps", "2").ret == pytest.ExitCode.USAGE_ERROR
