"""Everything on the page about extending runs, and does what it says."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest
from tests.plugin.conftest import Inner
from tests.server_process import running_server
from tests.unit.cells import a_curve, a_summary

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.config import limits
from pytest_openenv_scale.reporting.content import cell_verdicts, verdicts
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve

PAGE = Path(__file__).parents[2] / "docs/extending.md"


def code(section: str) -> list[str]:
    """The blocks of code of a section."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


KUBECTL = """#!/bin/sh
echo "$@" >> {folder}/kubectl.txt
[ "$3" = service/echo ] || {{ echo "Error from server (NotFound): services not found" >&2; exit 1; }}
echo "Forwarding from 127.0.0.1:{port} -> 8000"
exec sleep 600
"""
"""A stand-in that forwards to a server on this machine, as `kubectl port-forward` would to one of a cluster."""


@pytest.fixture
def kube(inner, monkeypatch) -> Iterator[Inner]:
    """A folder with the target of the page, a kubectl, and a test that measures."""
    inner.ini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    inner.tests("@pytest.mark.scaling(batches=[1, 2], waits=[0.01])\ndef test_scale(scaling):\n    scaling.run()\n")
    (inner.path / "kube.py").write_text(code("A target")[0])
    kubectl = inner.path / "bin/kubectl"
    kubectl.parent.mkdir()
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    monkeypatch.syspath_prepend(inner.path)
    monkeypatch.delitem(sys.modules, "kube", raising=False)
    with running_server() as (_, address):
        kubectl.write_text(KUBECTL.format(folder=inner.path, port=address.rpartition(":")[2]))
        kubectl.chmod(0o755)
        yield inner


def test_a_target_measures_and_leaves_nothing_running(kube):
    kube.run("-p", "kube", "--openenv-target", "kubernetes:echo,namespace=envs").assert_outcomes(passed=1)
    assert (kube.path / "kubectl.txt").read_text() == "port-forward --namespace=envs service/echo :8000\n"
    assert kube.manifest["sweeps"][0]["target"] == "kubernetes:echo,namespace=envs"
    assert not [child for child in psutil.Process().children(recursive=True) if "sleep" in child.name()]


def test_a_target_that_does_not_start_says_what_was_said(kube):
    result = kube.run("-p", "kube", "--openenv-target", "kubernetes:ecko")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*target kubernetes: kubectl port-forward * said: Error from server (NotFound)*"])


def test_a_target_is_shown(kube, capsys):
    assert main(["show", "-p", "kube", "kubernetes:echo"]) == 0
    _, arguments = capsys.readouterr().out.split("kubectl port-forward --")
    assert arguments.split()[:3] == ["namespace=default", "service/echo", ":8000"]
    assert not (kube.path / "kubectl.txt").exists()


def test_a_limit_that_is_an_assertion(inner):
    inner.tests(code("A limit")[0])
    inner.run().assert_outcomes(passed=1)
    inner.tests(code("A limit")[0].replace("5.0", "0.0"))
    inner.run().assert_outcomes(failed=1)


def test_a_row_in_the_table_of_limits_is_all_that_judging_and_words_need(monkeypatch):
    kind = eval(code("A limit")[1], vars(limits))
    table = MappingProxyType({**limits.LIMITS, kind.name: kind})
    for module in (limits, cell_verdicts):
        monkeypatch.setattr(module, "LIMITS", table)
    slo = limits.Slo((limits.parse_slo_expression("step_max<=1ms"),))
    summary = a_summary(4)
    verdict = judge_curve(a_curve(4), [summary], slo)
    assert verdict.outcome is Outcome.MISSED
    assert verdict.first_breach is not None
    assert (verdict.first_breach.limit, verdict.first_breach.allowed) == ("step_max", 0.001)
    words = verdicts.headline(CurveView(a_curve(4), (summary,), verdict))
    assert words.startswith("SLO missed: step_max ")


def test_a_report(swept):
    swept.pytester.makeconftest(code("A report")[0])
    swept.run().assert_outcomes(passed=1)
    lines = (swept.runs[0] / "metrics.txt").read_text().splitlines()
    assert lines[1:] == ['openenv_max_batch{target="fake",mode="ws",wait="0.01"} 2', "# EOF"]
    assert lines[0].split() == ["#", "TYPE", "openenv_max_batch", "gauge"]


def test_a_check(inner):
    inner.ini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    inner.tests(code("A check")[0])
    with running_server() as (_, address):
        result = inner.run("--openenv-url", f"http://{address}", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  ✓ state_has_an_episode: the state names its episode"])
