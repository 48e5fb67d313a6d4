"""Everything on the page about extending runs, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from tests.server_process import running_server
from tests.unit.cells import a_curve, a_summary

from pytest_openenv_scale.config import limits
from pytest_openenv_scale.reporting.content import verdicts
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve

PAGE = Path(__file__).parents[2] / "docs/extending.md"


def code(section: str) -> list[str]:
    """The blocks of code of a section."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_a_limit_that_is_an_assertion(inner):
    inner.tests(code("A limit")[0])
    inner.run().assert_outcomes(passed=1)
    inner.tests(code("A limit")[0].replace("5.0", "0.0"))
    inner.run().assert_outcomes(failed=1)


def test_a_row_in_the_table_of_limits_is_all_that_judging_and_words_need(monkeypatch):
    kind = eval(code("A limit")[1], vars(limits))
    table = MappingProxyType({**limits.LIMITS, kind.name: kind})
    for module in (limits, verdicts):
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
    assert (swept.runs[0] / "metrics.txt").read_text() == (
        '# TYPE openenv_max_batch gauge\nopenenv_max_batch{target="fake",mode="ws",wait="0.01"} 2\n# EOF\n'
    )


def test_a_check(inner):
    inner.ini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    inner.tests(code("A check")[0])
    with running_server() as (_, address):
        result = inner.run("--openenv-url", f"http://{address}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  ✓ state_has_an_episode: the state names its episode"])
