"""Which failed real tests tox asks again: those that a busy client left open, and no others."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_openenv_scale.core.guard import ClientStats, after
from pytest_openenv_scale.core.http_guard import http_findings

TOX = Path(__file__).parents[2] / "tox.ini"


@pytest.fixture(scope="module")
def patterns() -> list[str]:
    read = ConfigParser(interpolation=None)
    read.read(TOX)
    words = shlex.split(read["again"]["options"])
    return [pattern for option, pattern in pairwise(words) if option == "--only-rerun"]


@pytest.mark.parametrize(
    "stats",
    [
        ClientStats(cpu_s=(1.0,), cpu_share=0.2, starved_s=(3.0,), starved_share=0.6, busy_share=0.8),
        ClientStats(cpu_s=(5.0,), cpu_share=0.95, starved_s=(0.0,), busy_share=0.95),
        ClientStats(loop_lag_max_s=0.3),
        ClientStats(answer_lag_p50_s=0.1, answer_lag_p99_s=0.3),
    ],
    ids=["starved", "busy", "stood still", "http"],
)
def test_what_a_busy_client_left_open_is_asked_again(patterns, stats):
    findings = (*after(stats), *http_findings(stats))
    assert findings
    for finding in findings:
        assert any(re.search(pattern, f"AssertionError: inconclusive: {finding.message}") for pattern in patterns)


@pytest.mark.parametrize(
    "said",
    [
        "inconclusive: 400 sessions need 464 descriptors in one load process, and the limit is 256",
        "inconclusive: a load process ended by signal 9",
        "missed: success ≥ 100 %, got 50.0 %",
        "assert 'inconclusive' == 'met'",
    ],
)
def test_whatever_else_fails_is_not(patterns, said):
    assert not any(re.search(pattern, f"AssertionError: {said}") for pattern in patterns)
