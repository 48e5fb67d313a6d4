"""Pings keep a session alive behind a proxy that drops what is idle, and every server answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from idle_proxy import idle_proxy
from openenv_servers import SERVERS, openenv_server
from pytest_run import PytestRun, run_pytest, write_test
from server_process import running_server

pytestmark = pytest.mark.real

IDLE_S, PING_S, WAIT_S = 1.0, 0.3, 3.0


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn", "openenv 0.10"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "openenv 0.10":
        (benchmark,) = (server for server in SERVERS if server.id == "openenv-0.10-benchmark-async-1w")
        with openenv_server(benchmark, tmp_path_factory.mktemp("server")) as running:
            yield running.url
    else:
        with running_server("--server", request.param) as (_, address):
            yield f"http://{address}"


async def swept(folder: Path, server: str, ping: str, workload: str = f"waits=[{WAIT_S}]") -> tuple[PytestRun, int]:
    """A sweep of two sessions through a proxy that drops what is idle; and how many connections that dropped."""
    mark = f"@pytest.mark.scaling(batches=[2], {workload}, modes='ws')\n@pytest.mark.slo(success=1.0)\n"
    write_test(folder, f"{mark}def test_it(scaling):\n    scaling.run()\n")
    async with idle_proxy(server, IDLE_S) as proxy:
        options = ("--openenv-url", proxy.url, "--openenv-ping", ping)
        return await asyncio.to_thread(run_pytest, folder, *options), proxy.dropped


async def test_a_long_step_behind_a_proxy_that_drops_what_is_idle_is_answered(tmp_path: Path, server: str) -> None:
    run, dropped = await swept(tmp_path, server, f"{PING_S}s")
    assert run.code == 0, run.output
    (cell,) = run.sweeps()[0]["curves"][0]["cells"]
    (repetition,) = cell["repetitions"]
    assert (cell["passed"], repetition["successful"], dropped) == (True, 2, 0)
    assert cell["reasons"] == []
    client = repetition["client"]
    assert (client["missed_pongs"], client["ping_s"]) == (0, PING_S)
    assert min(run.rows()["step_latency"].to_pylist()) >= WAIT_S


async def test_without_pings_that_proxy_cuts_the_sessions(tmp_path: Path) -> None:
    with running_server() as (_, address):
        run, dropped = await swept(tmp_path, f"http://{address}", "off")
    assert run.code == 1, run.output
    (curve,) = run.sweeps()[0]["curves"]
    (repetition,) = curve["cells"][0]["repetitions"]
    (error,) = repetition["errors"]
    assert (error["phase"], error["type"], error["count"]) == ("step", "closed_early", 2)
    # Those of the batch, and the session that plays alone before.
    assert dropped == 3
    assert (repetition["client"]["missed_pongs"], repetition["client"]["ping_s"]) == (0, None)


THINKING = f"waits=[0.0], steps=2, think='{WAIT_S}s', arrival='steady=10s'"


async def test_a_think_time_beyond_what_that_proxy_allows_is_held_by_pings(tmp_path: Path, server: str) -> None:
    run, dropped = await swept(tmp_path, server, f"{PING_S}s", THINKING)
    assert run.code == 0, run.output
    (repetition,) = run.sweeps()[0]["curves"][0]["cells"][0]["repetitions"]
    assert (repetition["success_rate"], repetition["client"]["missed_pongs"], dropped) == (1.0, 0, 0)
    pauses = [pause for row in run.rows()["step_pauses"].to_pylist() for pause in row]
    assert min(pauses) >= WAIT_S


async def test_without_pings_a_steady_state_finds_that_proxy(tmp_path: Path) -> None:
    with running_server() as (_, address):
        run, dropped = await swept(tmp_path, f"http://{address}", "off", THINKING)
    assert run.code == 1, run.output
    (repetition,) = run.sweeps()[0]["curves"][0]["cells"][0]["repetitions"]
    assert {(error["phase"], error["type"]) for error in repetition["errors"]} == {("think", "closed_early")}
    # The session that plays alone before does not think.
    assert (repetition["successful"], dropped) == (0, run.rows().num_rows)
