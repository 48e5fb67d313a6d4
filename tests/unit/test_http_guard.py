"""The guard of HTTP mode: a client that sees answers late cannot speak for the server."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cells import a_cell, a_curve, a_summary, an_slo, stats
from hypothesis import given
from hypothesis import strategies as st

from load_processes import actions, environment, generators, kinds
from measuring import measure
from playing import order
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.serialization import encode
from pytest_openenv_scale.load import client_health
from pytest_openenv_scale.load.client_health import MIN_SAMPLES, AnswerLags, ClientStats, check_answer_lags
from pytest_openenv_scale.results.cell import ClientFinding
from pytest_openenv_scale.verdict.cell import judge_cell
from pytest_openenv_scale.verdict.sweep import judge_curve

__all__ = ["actions", "environment", "generators"]  # fixtures


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells only on Linux")


def lagging(p50: float | None, p99: float | None) -> ClientStats:
    return replace(ClientStats(), answer_lag_p50_s=p50, answer_lag_p99_s=p99)


@pytest.mark.parametrize(("p50", "p99"), [(None, None), (0.0, 0.0), (0.005, 0.040), (None, 0.040)])
def test_what_the_client_resolves_is_no_finding(p50, p99):
    assert check_answer_lags(lagging(p50, p99)) == ()


@pytest.mark.parametrize(("p50", "p99"), [(0.0051, 0.006), (0.0, 0.0401), (None, 0.05)])
def test_more_than_5_ms_at_the_median_or_40_ms_at_p99_is_a_finding(p50, p99):
    assert [finding.kind for finding in check_answer_lags(lagging(p50, p99))] == ["http_lag"]


def test_the_finding_has_the_figures_and_the_remedy(golden):
    (finding,) = check_answer_lags(lagging(0.012, 0.08))
    golden(finding.message)


def test_the_worst_phase_counts():
    lags = AnswerLags(connect=[0.001] * 100, reset=[0.004] * 98 + [0.09] * 2, step=[0.006] * 100)
    assert lags.worst() == (0.006, 0.09)


def test_a_median_of_few_says_nothing_and_what_the_kernel_does_not_tell_is_no_zero():
    assert AnswerLags(step=[0.03] * (MIN_SAMPLES - 1)).worst() == (None, 0.03)
    assert AnswerLags(step=[None] * 50 + [0.03] * MIN_SAMPLES).worst() == (0.03, 0.03)
    assert AnswerLags(connect=[None], step=[None]).worst() == (None, None)


def test_figures_know_the_latest_answer_and_the_session_they_add_up_in():
    lags = AnswerLags(connect=[0.001], reset=[None, 0.09], step=[0.06, 0.05], session_max=0.2)
    figures = lags.figures()
    assert (figures["answer_lag_max_s"], figures["session_lag_max_s"]) == (0.09, 0.2)
    assert set(AnswerLags().figures().values()) == {None}
    assert set(figures) <= {each.name for each in fields(ClientStats)}


# What lateness may change

PHASE_OF = {"connect_p99": "connect", "reset_p50": "reset", "step_p95": "step", "total_p99": "total"}
FINDING = (ClientFinding("http_lag", "HTTP answers were seen late"),)


def a_late_cell(phases: dict[str, float], lag: float | None, *, failed: int = 0):
    client = {} if lag is None else {"answer_lag_max_s": lag, "session_lag_max_s": lag}
    timed = {name: stats(value) for name, value in phases.items()}
    unqueued = {"total_unqueued": timed["total"]} if "total" in timed else {}
    cell = a_cell(8, mode="http")
    return a_summary(8, cell=cell, failed=failed, phases={**timed, **unqueued}, client=client, findings=FINDING)


@given(
    st.sampled_from(sorted(PHASE_OF)),
    st.floats(0.001, 10),
    st.floats(0.001, 10),
    st.none() | st.floats(0, 2),
)
def test_a_latency_limit_is_void_only_where_lateness_could_have_broken_it(name, measured, allowed, lag):
    cell = a_late_cell({PHASE_OF[name]: measured}, lag)
    verdict = judge_cell(8, [cell], an_slo(**{name: allowed}), 1)
    without_lateness = -math.inf if lag is None else measured - lag
    if measured <= allowed or math.isclose(measured, allowed):
        assert verdict.passed is True
    elif without_lateness <= allowed or math.isclose(without_lateness, allowed):
        assert verdict.passed is None
        assert (verdict.reasons[0].kind, verdict.reasons[0].limit.name) == ("late", name)
    else:
        assert verdict.passed is False


@given(st.integers(0, 8), st.floats(0.01, 1), st.none() | st.floats(0, 100))
def test_success_is_judged_however_late_answers_were_seen(failed, least, lag):
    slo = an_slo(success=least)
    late, timely = (
        judge_cell(8, [each], slo, 1) for each in (a_late_cell({}, lag, failed=failed), a_summary(8, failed=failed))
    )
    assert late.passed is timely.passed is (8 - failed >= least * 8)
    assert [reason.cause for reason in late.reasons] == ["http_lag"]


def test_a_rate_that_lateness_may_have_held_down_is_not_missed():
    late, timely = (
        judge_curve(a_curve(8), [a_summary(8, requests_per_second=80.0, findings=each)], an_slo(rps=100))
        for each in (FINDING, ())
    )
    assert (late.outcome, timely.outcome) == ("inconclusive", "missed")


class HttpOnly(BaseHTTPRequestHandler):
    """A server that plays over HTTP and has no /ws."""

    def do_POST(self) -> None:
        body = b'{"observation": {}, "reward": null, "done": false}'
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def http_only():
    with ThreadingHTTPServer(("127.0.0.1", 0), HttpOnly) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@on_linux
@pytest.mark.parametrize(("url", "advises"), [("environment", True), ("http_only", False)])
def test_mode_ws_is_advised_only_where_there_is_a_websocket(request, tmp_path, monkeypatch, url, advises):
    monkeypatch.setattr(client_health, "MAX_ANSWER_LAG_P99_S", -1.0)
    endpoint = Endpoint((request.getfixturevalue(url),), "x", "x")
    sweep = measure(endpoint, tmp_path, 2, modes=("http",), action={})
    (finding,) = [finding for cell in sweep.cells for finding in cell.findings if finding.kind == "http_lag"]
    assert finding.message.endswith(", or mode ws") is advises
    assert [cell.cell.mode for cell in sweep.cells] == ["http"]
    assert sweep.outcome == "met"
    assert encode(load_run(sweep.run_dir).sweeps[0].curves) == encode(sweep.view.curves)


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


@on_linux
def test_a_loop_that_is_blocked_again_and_again_is_found(environment, generators, actions):
    (actions / "blocking.py").write_text(BLOCKING)
    workload = Workload(function="blocking:plant")
    request = order(environment, batch=8, steps=25, wait=0.01, mode="http", arrival="hold", workload=workload)
    result = generators(1).run_cell(request)
    assert "http_lag" in kinds(result)
    assert result.client.answer_lag_p99_s is not None
    assert result.client.answer_lag_p99_s > 0.04


@on_linux
def test_the_same_cell_without_it_has_no_such_finding(environment, generators, actions):
    (actions / "free.py").write_text(FREE)
    workload = Workload(function="free:act")
    request = order(environment, batch=8, steps=25, wait=0.01, mode="http", arrival="hold", workload=workload)
    # Processes of its own: those of the other test are still blocked now and then.
    # A machine that is busy with something else may be late by itself: once in three is enough.
    for _ in range(3):
        result = generators(2).run_cell(request)
        if "http_lag" not in kinds(result):
            return
    pytest.fail(f"every undisturbed cell was found to lag: {result.client}")


def test_no_answer_lag_is_known_of_websockets(environment, generators):
    result = generators(2).run_cell(order(environment, batch=4, workload=PLAIN))
    assert (result.client.answer_lag_p50_s, result.client.answer_lag_p99_s) == (None, None)
