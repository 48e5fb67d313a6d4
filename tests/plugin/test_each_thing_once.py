"""How often a run judges, summarises and reads: once for what was measured."""

from __future__ import annotations

import collections

import pytest

from pytest_openenv_scale.engine import source
from pytest_openenv_scale.metrics import summary
from pytest_openenv_scale.results import parts
from pytest_openenv_scale.verdict import sweep as verdicts

TESTS = """
@pytest.mark.scaling(batches="1..12", waits=[0.1], reps=2)
@pytest.mark.slo(max_batch=4, total_p99="60s", rps=0.001)
def test_scale(scaling):
    scaling.run()
"""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """How often each of the functions was called that judge, summarise or read."""
    calls: collections.Counter[str] = collections.Counter()

    def count(module: object, name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, counted)

    count(source, "judge_cell")
    count(verdicts, "judge_cell")
    count(verdicts, "judge_curve")
    count(summary, "summarise_rows")
    count(parts.pq, "ParquetFile")
    count(parts.pq, "read_metadata")
    return calls


def test_every_cell_and_every_curve_is_judged_once_and_every_part_is_read_once(inner, counts):
    inner.tests(TESTS)
    result = inner.run()
    result.assert_outcomes(passed=1)
    batches = inner.manifest["sweeps"][0]["curves"][0]["batches"]
    parts = 2 * len(batches)
    assert counts == {
        "judge_cell": len(batches),
        "judge_curve": 1,
        "summarise_rows": parts,
        "ParquetFile": parts,
    }


def test_what_a_worker_measured_is_not_read_again_either(inner, counts):
    inner.tests(TESTS)
    inner.run("-n1").assert_outcomes(passed=1)
    assert counts == {}


def test_what_a_worker_measured_that_crashed_is_read_and_judged(inner, counts):
    inner.tests(TESTS.replace("(scaling)", "(scaling, crash)").replace("scaling.run()", "scaling.run(); crash()"))
    inner.run("-n1", "--max-worker-restart=0")
    batches = len(inner.manifest["sweeps"][0]["curves"][0]["batches"])
    assert counts["summarise_rows"] == counts["read_metadata"] == 2 * batches
    assert (counts["judge_cell"], counts["judge_curve"]) == (batches, 1)
