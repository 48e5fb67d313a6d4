"""Every example in the documentation of a hook runs, and does what it says."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest

from pytest_openenv_scale.plugin import hookspec


def example(name: str) -> str:
    """The code of the example in the documentation of a hook."""
    text = inspect.cleandoc(getattr(hookspec, name).__doc__)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return textwrap.dedent(code)


def test_every_hook_has_one_example():
    hooks = [name for name in vars(hookspec) if name.startswith("pytest_openenv_scale_")]
    assert len(hooks) == 4
    for name in hooks:
        compile(example(name), name, "exec")


def test_a_target_of_ones_own(inner):
    inner.pytester.makeconftest(example("pytest_openenv_scale_target"))
    inner.tests(
        "def test_own(openenv_target):\n    assert openenv_target.urls == ('http://127.0.0.1:8123',)\n"
        "    assert openenv_target.label == 'staging'\n"
    )
    inner.run("--openenv-target", "staging,port=8123").assert_outcomes(passed=1)


def test_a_workload_of_ones_own(swept):
    swept.pytester.makeconftest(example("pytest_openenv_scale_workload"))
    swept.run().assert_outcomes(passed=1)
    assert swept.events[1] == "cell ws 0.01 1 reset={'seed': 7}"


@pytest.mark.parametrize(("option", "text"), [("--openenv-reset", '{"seed": 1}'), ("--openenv-action", "{}")])
def test_what_is_written_outranks_a_workload_of_ones_own(swept, option, text):
    swept.pytester.makeconftest(example("pytest_openenv_scale_workload"))
    swept.run(option, text).assert_outcomes(passed=1)
    assert "{'seed': 7}" not in "".join(swept.events)


def test_a_file_that_grows_by_a_line_per_cell(swept):
    swept.pytester.makeconftest(example("pytest_openenv_scale_cell_done"))
    swept.run("--openenv-reps", "2").assert_outcomes(passed=1)
    lines = (swept.path / "cells.txt").read_text().splitlines()
    assert lines == ["ws batch 1: 1 of 1", "ws batch 1: 1 of 1", "ws batch 2: 2 of 2", "ws batch 2: 2 of 2"]


def test_a_report_of_ones_own(swept):
    swept.pytester.makeconftest(example("pytest_openenv_scale_report"))
    swept.run().assert_outcomes(passed=1)
    assert (swept.runs[0] / "outcome.txt").read_text() == "met"


def test_results_travel_on_the_test_report(swept):
    swept.pytester.makeconftest(
        "from pathlib import Path\n\ndef pytest_runtest_logreport(report):\n"
        "    if hasattr(report, 'openenv_scale'):\n"
        "        Path(report.when).write_text(report.openenv_scale['outcome'])\n"
    )
    swept.run("-n1").assert_outcomes(passed=1)
    assert (swept.path / "call").read_text() == "met"
