"""A mistake that concerns the whole run ends it before anything starts: exit code 4 and one line."""

from __future__ import annotations

import sys

import pytest
from tests.plugin.conftest import usage_error_of

PLAIN = "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:hypothesispytest\n"

WRONG = {
    "no batch": ("--openenv-batches", ["--openenv-batches", ""]),
    "a batch of letters": ("--openenv-batches", ["--openenv-batches", "1,x"]),
    "a batch of none": ("--openenv-batches", ["--openenv-batches", "0"]),
    "a batch below none": ("--openenv-batches", ["--openenv-batches=-1"]),
    "a wait below none": ("--openenv-waits", ["--openenv-waits=-1"]),
    "mode": ("--openenv-modes", ["--openenv-modes", "grpc"]),
    "arrival": ("--openenv-arrival", ["--openenv-arrival", "waves"]),
    "think": ("--openenv-think", ["--openenv-think", "normal=2s"]),
    "ramp": ("--openenv-ramp", ["--openenv-ramp", "soon"]),
    "time": ("--openenv-for", ["--openenv-for", "0"]),
    "a ramp that leaves nothing": ("--openenv-ramp", ["--openenv-arrival", "steady=10s", "--openenv-ramp", "10s"]),
    "a ramp of a burst": ("--openenv-ramp", ["--openenv-arrival", "burst", "--openenv-ramp", "10s"]),
    "a time without a rate": ("--openenv-for", ["--openenv-arrival", "steady=10s", "--openenv-for", "5s"]),
    "a batch beside a time": (
        "--openenv-for",
        ["--openenv-arrival", "rate=5", "--openenv-for", "5s", "--openenv-batches", "8"],
    ),
    "ini think": ("-o openenv_think", ["-o", "openenv_think=often"]),
    "limit": ("--openenv-slo", ["--openenv-slo", "latency<=1"]),
    "limit without a unit": ("--openenv-slo", ["--openenv-slo", "success>=99%,total_p99<=250"]),
    "ini limit without a unit": ("-o openenv_slo", ["-o", "openenv_slo=step_p50<=0.5"]),
    "inconclusive": ("--openenv-inconclusive", ["--openenv-inconclusive", "pass"]),
    "target": ("--openenv-target", ["--openenv-target", "marathon"]),
    "key of a target": ("--openenv-target", ["--openenv-target", "local,worker=2"]),
    "value of a key": ("--openenv-target", ["--openenv-target", "local,workers=none"]),
    "url": ("--openenv-url", ["--openenv-url", "localhost:8000"]),
    "url and target": ("--openenv-url", ["--openenv-url", "http://a", "--openenv-target", "local"]),
    "results in a file": ("--openenv-results", ["--openenv-results", "test_it.py"]),
    "results below a file": ("--openenv-results", ["--openenv-results", "test_it.py/runs"]),
    "dots of no figure": ("--openenv-dpi", ["--openenv-dpi", "300"]),
    "json below a file": ("--openenv-json", ["--openenv-json", "test_it.py/report.json"]),
    "ini value on the command line": ("-o openenv_reps", ["-o", "openenv_reps=never"]),
    "ini results": ("openenv_results", ["-o", "openenv_results=test_it.py"]),
    "ini target": ("openenv_target", ["-o", "openenv_target=marathon"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_option_ends_the_run_with_one_line(inner, golden, mistake):
    option, arguments = WRONG[mistake]
    inner.ini(PLAIN)
    inner.tests("def test_other():\n    pass\n")
    error = usage_error_of(inner.run(*arguments))
    assert error.startswith(f"ERROR: {option}")
    golden(error, masks={r"\((keys|targets): .*\)": r"(\1: …)"})


def test_a_wrong_option_ends_a_run_under_xdist_too(inner):
    inner.tests("def test_other():\n    pass\n")
    assert usage_error_of(inner.run("-n2", "--openenv-batches", "0")).startswith("ERROR: --openenv-batches: ")


def test_a_key_that_there_is_not_is_one_line_where_warnings_are_errors(inner, golden):
    inner.ini(f"{PLAIN}openenv_batch = 1,8\n")
    inner.tests("def test_other():\n    pass\n")
    golden(usage_error_of(inner.run("-W", "error")))


@pytest.mark.parametrize(
    ("arguments", "source"),
    [(["--openenv-report", "html,figures"], "--openenv-report"), (["-o", "openenv_report=figures"], "openenv_report")],
)
def test_figures_without_their_extra_end_the_run_before_anything_is_measured(swept, monkeypatch, arguments, source):
    monkeypatch.setitem(sys.modules, "plotnine", None)
    error = usage_error_of(swept.run(*arguments))
    assert error.startswith(f"ERROR: {source}: ")
    assert error.endswith("pip install 'pytest-openenv-scale[figures]'")
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
    (inner.path / ".openenv-results").write_text("a file")
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n")
    result = inner.run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["the run directory cannot be made: *--openenv-results*"])


def test_help_shows_every_option_with_its_default_and_no_secret(inner):
    result = inner.run("--help", "--openenv-header", "X-Token: hunter2")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*--openenv-batches=LIST*", "*--openenv-results=DIR*"])
    result.stdout.no_fnmatch_line("*hunter2*")


def test_without_the_plugin_its_options_are_unknown_and_tests_run(inner):
    inner.ini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = scaling: not ours\n")
    inner.tests("@pytest.mark.scaling\ndef test_other():\n    pass\n")
    inner.run("-p", "no:openenv_scale").assert_outcomes(passed=1)
    assert inner.run("-p", "no:openenv_scale", "--openenv-reps", "2").ret == pytest.ExitCode.USAGE_ERROR
