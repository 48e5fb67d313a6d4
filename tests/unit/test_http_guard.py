"""The guard of HTTP mode: a client that sees answers late cannot speak for the server."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from load_processes import actions, environment, generators, kinds
from playing import order
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.load.client_health import MIN_SAMPLES, AnswerLags, ClientStats, check_answer_lags

__all__ = ["actions", "environment", "generators"]  # fixtures


def lagging(p50: float | None, p99: float | None) -> ClientStats:
    return replace(ClientStats(), answer_lag_p50_s=p50, answer_lag_p99_s=p99)


@pytest.mark.parametrize(("p50", "p99"), [(None, None), (0.0, 0.0), (0.005, 0.040), (None, 0.040)])
def test_what_the_client_resolves_is_no_finding(p50, p99):
    assert check_answer_lags(lagging(p50, p99)) == ()


@pytest.mark.parametrize(("p50", "p99"), [(0.0051, 0.006), (0.0, 0.0401), (None, 0.05)])
def test_more_than_5_ms_at_the_median_or_40_ms_at_p99_is_a_finding(p50, p99):
    assert [finding.kind for finding in check_answer_lags(lagging(p50, p99))] == ["http_lag"]


def test_the_finding_has_the_figures_and_the_remedy(golden):
    (found,) = check_answer_lags(lagging(0.012, 0.08))
    golden(found.message)


def test_the_worst_phase_counts():
    lags = AnswerLags(connect=[0.001] * 100, reset=[0.004] * 98 + [0.09] * 2, step=[0.006] * 100)
    assert lags.worst() == (0.006, 0.09)


def test_a_median_of_few_says_nothing_and_what_the_kernel_does_not_tell_is_no_zero():
    assert AnswerLags(step=[0.03] * (MIN_SAMPLES - 1)).worst() == (None, 0.03)
    assert AnswerLags(step=[None] * 50 + [0.03] * MIN_SAMPLES).worst() == (0.03, 0.03)
    assert AnswerLags(connect=[None], step=[None]).worst() == (None, None)


# In real load processes

BLOCKING = """
import asyncio
import time

def block():
    time.sleep(0.06)
    asyncio.get_running_loop().call_later(0.04, block)

def plant(session, step):
    if session == step == 0:
        block()
    return {"wait_seconds": 0.01}
"""
FREE = "def act(session, step):\n    return {'wait_seconds': 0.01}\n"
PLAIN = Workload(({"wait_seconds": "$wait"},))

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells only on Linux")


@on_linux
def test_a_loop_that_is_blocked_again_and_again_is_found(environment, generators, actions):
    (actions / "blocking.py").write_text(BLOCKING)
    workload = Workload(function="blocking:plant")
    asked = order(environment, batch=8, steps=25, wait=0.01, mode="http", arrival="hold", workload=workload)
    result = generators(1).run_cell(asked)
    assert "http_lag" in kinds(result)
    assert result.client.answer_lag_p99_s is not None
    assert result.client.answer_lag_p99_s > 0.04


@on_linux
def test_the_same_cell_without_it_has_no_such_finding(environment, generators, actions):
    (actions / "free.py").write_text(FREE)
    workload = Workload(function="free:act")
    asked = order(environment, batch=8, steps=25, wait=0.01, mode="http", arrival="hold", workload=workload)
    # Processes of its own: those of the other test are still blocked now and then.
    # A machine that is busy with something else may be late by itself: once in three is enough.
    for _ in range(3):
        result = generators(2).run_cell(asked)
        if "http_lag" not in kinds(result):
            return
    pytest.fail(f"every undisturbed cell was found to lag: {result.client}")


def test_no_answer_lag_is_known_of_websockets(environment, generators):
    result = generators(2).run_cell(order(environment, batch=4, workload=PLAIN))
    assert (result.client.answer_lag_p50_s, result.client.answer_lag_p99_s) == (None, None)
