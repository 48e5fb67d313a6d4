"""One run directory per pytest invocation, made when the first sweep begins, ended with the right status."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path

import pytest

TWO = "@pytest.mark.scaling\n@pytest.mark.parametrize('n', [1, 2])\ndef test_scale(scaling, n):\n    scaling.run()\n"


def test_a_run_that_measures_nothing_writes_nothing(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n")
    assert inner.run("-m", "not scaling").ret == pytest.ExitCode.OK
    assert inner.run("--collect-only").ret == pytest.ExitCode.OK
    assert inner.runs == []


def test_all_tests_of_an_invocation_share_one_complete_run(inner):
    inner.tests(TWO)
    result = inner.run("--openenv-note", "before the change")
    manifest = inner.manifest
    assert manifest["status"] == "complete"
    assert manifest["note"] == "before the change"
    assert [sweep["test"] for sweep in manifest["sweeps"]] == ["test_it.py::test_scale[1]", "test_it.py::test_scale[2]"]
    assert manifest["plan"]["tests"] == ["test_it.py::test_scale[1]", "test_it.py::test_scale[2]"]
    assert manifest["command"][0] == "pytest"
    assert sorted(path.name for path in inner.runs[0].glob("report.*")) == ["report.json", "report.md"]
    result.stdout.fnmatch_lines([f"report: {inner.runs[0].relative_to(inner.path)}/report.md"])


def test_xdist_workers_share_one_run_silently_and_the_controller_reports_it(inner, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(inner.path / "summary.md"))
    (inner.path / "summary.md").write_text("before\n")
    inner.tests(TWO)
    result = inner.run("-n2", "-v")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    manifest = inner.manifest
    assert manifest["status"] == "complete"
    assert [sweep["status"] for sweep in manifest["sweeps"]] == ["complete", "complete"]
    assert (inner.runs[0] / "report.md").exists()
    summary = (inner.path / "summary.md").read_text()
    assert summary.startswith("before\n")
    assert summary.count("# OpenEnv scaling") == 1
    assert result.outlines.count(f"report: {inner.runs[0].relative_to(inner.path)}/report.md") == 1
    assert sum("✓ SLO met" in line for line in result.outlines) == 2
    result.stdout.no_fnmatch_line("*batch 2 · ok*")


def test_without_results_nothing_is_left_and_the_json_report_is_still_written(swept):
    swept.run("--openenv-results", "none", "--openenv-json", "deep/report.json").assert_outcomes(passed=1)
    assert swept.runs == []
    report = json.loads((swept.path / "deep" / "report.json").read_text())
    assert report["outcome"] == "met"
    assert _temporary_files() == []


def test_without_results_the_rows_of_a_sweep_can_be_read_until_the_run_ends(inner):
    inner.tests(
        "sweeps = []\n\n@pytest.mark.scaling\ndef test_scale(scaling):\n    sweeps.append(scaling.run())\n\n"
        "def test_rows():\n    assert sweeps[0].run_dir is None\n    assert sweeps[0].table.num_rows == 3\n"
    )
    inner.run("--openenv-results", "none").assert_outcomes(passed=2)
    assert _temporary_files() == []


def test_without_results_a_missed_slo_under_xdist_is_reported_all_the_same(inner):
    inner.tests("@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_scale(scaling):\n    scaling.run()\n")
    arguments = ("--openenv-results", "none", "--openenv-json", "report.json", "--openenv-outputs", "job.env")
    result = inner.run("-n1", *arguments, "--openenv-target", "fake,capacity=1")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    report = json.loads((inner.path / "report.json").read_text())
    assert (report["status"], report["outcome"]) == ("complete", "missed")
    assert (inner.path / "job.env").read_text() == "openenv_verdict=missed\nopenenv_max_batch=1\nopenenv_run=\n"
    assert _temporary_files() == []


def _temporary_files() -> list[str]:
    return [path.name for path in Path(tempfile.gettempdir()).iterdir() if path.is_dir()]


def test_results_go_where_they_are_asked_to(swept):
    swept.run("--openenv-results", "deep/runs", "--openenv-report", "none")
    (run,) = (swept.path / "deep" / "runs").iterdir()
    assert not (run / "report.md").exists()
    assert (run / "report.json").exists()


def test_stopping_at_the_first_failure_leaves_an_interrupted_run_that_reads(inner):
    inner.tests(TWO)
    result = inner.run("-x", "--openenv-target", "fake,capacity=0")
    result.assert_outcomes(failed=1)
    assert inner.manifest["status"] == "interrupted"
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_an_interrupt_in_mid_sweep_leaves_what_was_measured_and_exit_code_2(inner):
    inner.tests("@pytest.mark.scaling(batches='1,2,4')\ndef test_scale(scaling):\n    scaling.run()\n")
    inner.pytester.makeconftest(
        "def pytest_openenv_scale_cell_done(cell):\n    if cell.batch == 2:\n        raise KeyboardInterrupt\n"
    )
    result = inner.run_process()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    manifest = inner.manifest
    assert manifest["status"] == "interrupted"
    assert [sweep["status"] for sweep in manifest["sweeps"]] == ["interrupted"]
    assert len(list((inner.runs[0] / "sessions.parquet").iterdir())) == 2
    result.stdout.fnmatch_lines(["*batch 4 not measured*", "report: *report.md (interrupted)"])
    assert inner.events[-1] == "stop fake"


def test_a_crash_of_a_worker_leaves_an_interrupted_run(inner):
    inner.tests(
        "@pytest.mark.scaling\ndef test_scale(scaling, crash):\n    scaling.run()\n    crash()\n\n"
        "@pytest.mark.scaling\ndef test_more(scaling):\n    scaling.run()\n"
    )
    result = inner.run("-n1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    manifest = inner.manifest
    assert manifest["status"] == "interrupted"
    assert len(manifest["sweeps"]) == 2
    result.stdout.fnmatch_lines(["*crashed while running*"])
    assert sum("SLO met" in line for line in result.outlines) == 2


def test_a_sweep_that_breaks_makes_the_run_failed(swept):
    swept.pytester.makeconftest("def pytest_openenv_scale_cell_done(cell):\n    raise RuntimeError('a broken hook')\n")
    result = swept.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*RuntimeError: a broken hook"])
    assert swept.manifest["status"] == "failed"


def test_a_report_that_cannot_be_written_is_told_and_fails_the_run(swept):
    swept.pytester.makeconftest("def pytest_openenv_scale_report(run):\n    raise RuntimeError('no ink')\n")
    result = swept.run()
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["a report of pytest_openenv_scale_report was not written: RuntimeError: no ink"])


def test_the_github_step_summary_is_appended_to(swept, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(swept.path / "summary.md"))
    swept.run().assert_outcomes(passed=1)
    swept.run().assert_outcomes(passed=1)
    assert (swept.path / "summary.md").read_text().count("# OpenEnv scaling") == 2


@pytest.mark.parametrize("arguments", [("-p", "no:terminal"), ("-p", "no:cacheprovider"), ("-s",), ("-q",), ("-qq",)])
def test_a_run_is_complete_however_pytest_is_run(swept, arguments):
    assert swept.run(*arguments).ret == pytest.ExitCode.OK
    assert swept.manifest["status"] == "complete"


def test_a_failing_run_exits_1_without_a_terminal(swept):
    assert swept.run("-p", "no:terminal", "--openenv-target", "fake,capacity=0").ret == pytest.ExitCode.TESTS_FAILED


def test_only_what_failed_is_measured_again_with_lf(inner):
    inner.tests(
        "@pytest.mark.scaling\ndef test_fine(scaling):\n    scaling.run()\n\n"
        "@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_full(scaling):\n    scaling.run()\n"
    )
    inner.run("--openenv-target", "fake,capacity=1").assert_outcomes(passed=1, failed=1)
    rerun = inner.run("--lf", "--openenv-target", "fake,capacity=1")
    rerun.assert_outcomes(failed=1)


def test_the_rerun_command_measures_just_that_curve_again(inner):
    inner.tests(
        "@pytest.mark.scaling(waits=[0.1, 1])\n@pytest.mark.slo(max_batch=2, wait=0.1)\n"
        "@pytest.mark.parametrize('n', ['a b'])\ndef test_scale(scaling, n):\n    scaling.run()\n"
    )
    first = inner.run("-m", "scaling", "--openenv-target", "fake,capacity=1", "--openenv-target", "fake,capacity=9")
    first.assert_outcomes(failed=1, passed=1)
    (command,) = {line.strip() for line in first.outlines if "rerun: pytest" in line and "waits 0.1" in line}
    words = shlex.split(command.removeprefix("rerun: "))
    assert words[:4] == ["pytest", "test_it.py::test_scale[a b]", "-m", "scaling"]
    (inner.path / "events.txt").unlink()
    inner.run(*words[1:]).assert_outcomes(failed=1)
    assert [line.split()[2] for line in inner.events if line.startswith("cell")] == ["0.1", "0.1"]


def test_the_rerun_command_finds_the_test_from_another_folder_and_in_an_installed_package(inner):
    inner.tests("@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\ndef test_scale(scaling):\n    scaling.run()\n")
    (inner.path / "below").mkdir()
    full = ("--openenv-target", "fake,capacity=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inner.path / "below")
        inner.run("..", *full).stdout.fnmatch_lines(["*rerun: pytest ../test_it.py::test_scale --openenv-target *"])
    suite = inner.run(
        *("--pyargs", "pytest_openenv_scale.suite", "--strict-markers", "-m", "scaling"),
        *("--openenv-slo", "max_batch>=2", *full),
    )
    suite.stdout.fnmatch_lines(["*rerun: pytest --pyargs pytest_openenv_scale.suite.test_scaling::test_scaling *"])
    # Run, it is the same test to whoever compares the two runs.
    (rerun,) = {line.strip() for line in suite.outlines if "rerun: pytest" in line}
    inner.run(*shlex.split(rerun.removeprefix("rerun: "))[1:]).assert_outcomes(failed=1)
    names = [json.loads((run / "report.json").read_text())["sweeps"][0]["test"] for run in inner.runs[-2:]]
    assert names == ["test_scaling.py::test_scaling"] * 2


def test_a_test_of_an_installed_package_has_the_same_name_wherever_its_environment_lies(inner, monkeypatch):
    installed = inner.path / ".venv" / "lib" / "site-packages"
    (installed / "ready_made").mkdir(parents=True)
    (installed / "ready_made" / "__init__.py").touch()
    (installed / "ready_made" / "test_it.py").write_text(
        "import pytest\n\n\n@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\n"
        "def test_scale(scaling):\n    scaling.run()\n"
    )
    monkeypatch.syspath_prepend(installed)
    first = inner.run("--pyargs", "ready_made", "--openenv-target", "fake,capacity=1")
    (rerun,) = {line.strip() for line in first.outlines if "rerun: pytest" in line}
    words = shlex.split(rerun.removeprefix("rerun: "))
    assert words[:3] == ["pytest", "--pyargs", "ready_made.test_it::test_scale"]
    inner.run(*words[1:]).assert_outcomes(failed=1)
    names = [json.loads((run / "report.json").read_text())["sweeps"][0]["test"] for run in inner.runs[-2:]]
    assert names == ["test_it.py::test_scale"] * 2


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_run_that_only_marks_ask_for_is_one_run_in_the_default_folder(inner, workers):
    inner.ini("[pytest]\naddopts = -p tests.plugin.fakes -p no:hypothesispytest -p no:anyio -p no:asyncio\n")
    inner.pytester.makeconftest(
        "from tests.plugin.fakes import FakeTarget\n\n"
        "def pytest_openenv_scale_target(spec, context):\n    return FakeTarget(spec, context)\n"
    )
    inner.tests("@pytest.mark.scaling(batches=[1, 2], waits=0.01)\ndef test_scale(scaling):\n    scaling.run()\n")
    result = inner.run(workers)
    result.assert_outcomes(passed=1)
    (run,) = inner.runs
    result.stdout.fnmatch_lines([f"report: {run.relative_to(inner.path)}/report.md"])
    assert inner.events[0] == "start local largest=2"
    assert [sweep["test"] for sweep in inner.manifest["sweeps"]] == ["test_it.py::test_scale"]
