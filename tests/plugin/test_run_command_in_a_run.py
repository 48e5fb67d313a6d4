"""`openenv-scale run`, in a folder that is set up for other tests; and what says that there is no test to run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from tests.pytest_run import environ
from tests.server_process import running_server

OTHERS = """
[pytest]
addopts = -m "not scaling" -k unit --no-such-option
testpaths = unit
python_files = check_*.py
python_functions = check_*
openenv_note = of the ini file
"""


def test_a_url_is_measured_where_one_is_whatever_is_set_up_there(inner):
    inner.ini(OTHERS)
    (inner.path / "below").mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest_openenv_scale", *arguments]
        return subprocess.run(
            command, cwd=inner.path / "below", env=environ(), capture_output=True, text=True, timeout=120
        )

    with running_server() as (_, address):
        url = f"http://{address}"
        missed = run("run", url, "--batches", "1,2", "--waits", "0.01", "--slo", "rps>=1e6", "--", "-v", "-n0")
        assert missed.returncode == pytest.ExitCode.TESTS_FAILED, missed.stdout + missed.stderr
        (rerun,) = {line.strip() for line in missed.stdout.splitlines() if line.startswith("  rerun: ")}
        words = shlex.split(rerun.removeprefix("rerun: "))
        assert words == [
            *("openenv-scale", "run", url, "--batches", "1,2", "--slo", "rps>=1e6", "--waits", "0.01"),
        ]
        again = run(*words[1:])
        assert again.returncode == pytest.ExitCode.TESTS_FAILED, again.stdout + again.stderr
    runs = [json.loads((path / "manifest.json").read_text()) for path in sorted((inner.path / "below").glob(".*/2*"))]
    assert [run["sweeps"][0]["test"] for run in runs] == ["test_scaling.py::test_scaling"] * 2
    assert runs[0]["note"] == "of the ini file"
    assert runs[0]["command"] == [
        *("openenv-scale", "run", url, "--batches=1,2", "--waits=0.01", "--slo=rps>=1e6", "--", "-v", "-n0"),
    ]


def test_where_no_test_measures_the_line_to_write_is_said(golden, inner):
    inner.tests("def test_light():\n    pass\n")
    result = inner.run("--openenv-url", "http://someone:secret@127.0.0.1:9")
    assert result.ret == pytest.ExitCode.OK
    lines = result.outlines
    at = next(number for number, line in enumerate(lines) if line.startswith("no selected test measures"))
    golden("\n".join(lines[at : at + 3]))
    empty = inner.run("--openenv-target", "fake", "--openenv-target", "fake,label=b", "-k", "nothing")
    assert empty.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    empty.stdout.fnmatch_lines(["  openenv-scale run fake fake,label=b"])
