"""The wall clock is set forth and back in the middle of a sweep, by libfaketime in the processes that pytest starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import lacking
from pytest_run import PytestRun, run_pytest, write_test

pytestmark = pytest.mark.matrix

SESSIONS, STEPS, WAIT_S = 4, 3, 0.2

APP = f"""
import asyncio, json, os, time
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

SCHEMA = {{"type": "object", "properties": {{"wait_seconds": {{"type": "number"}}}}, "required": ["wait_seconds"]}}
CLOCK = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
OFFSETS = json.loads(os.environ["OFFSETS"])
waiting = 0

async def schema(request):
    return JSONResponse({{"action": SCHEMA, "observation": {{}}, "state": {{}}}})

async def wait(seconds, step):
    # The largest batch sets the clock in its second and its third step, while all of its sessions wait.
    global waiting
    began, waiting = time.monotonic(), waiting + 1
    if waiting == {SESSIONS} and step in (2, 3):
        CLOCK.write_text(OFFSETS[step - 2])
    while (waited := time.monotonic() - began) < seconds:
        await asyncio.sleep(seconds - waited)
    waiting -= 1
    return waited

async def play(socket):
    await socket.accept()
    step = 0
    while (asked := await socket.receive_json())["type"] != "close":
        fields = {{}}
        if asked["type"] == "step":
            step += 1
            fields = {{"waited_seconds": await wait(asked["data"]["wait_seconds"], step)}}
        await socket.send_json(
            {{"type": "observation", "data": {{"observation": fields, "reward": None, "done": False}}}}
        )
    await socket.close()

app = Starlette(routes=[Route("/schema", schema), WebSocketRoute("/ws", play)])
"""

SCALING = f"@pytest.mark.scaling(batches=[2, {SESSIONS}], waits=[{WAIT_S}], steps={STEPS}, modes='ws')\n"
TESTS = f"""
{SCALING}@pytest.mark.slo(total_p99='60s', max_batch={SESSIONS})
def test_latency(scaling):
    scaling.run()

{SCALING}@pytest.mark.slo(success=1.0)
def test_success(scaling):
    scaling.run()
"""


def libfaketime() -> Path:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    return library or lacking("libfaketime is not installed (apt install libfaketime)")


def run_while_the_clock_is_set(folder: Path, by_s: float) -> PytestRun:
    """Two sweeps of two batches; in the larger the clock is set by so many seconds, and back."""
    # Not for pytest itself: under libfaketime 0.9.10 Python's own short sleeps fail there.
    preload = f"import os\n\nos.environ['LD_PRELOAD'] = {str(libfaketime())!r}\n"
    (folder / "conftest.py").write_text(preload)
    (folder / "app.py").write_text(APP)
    write_test(folder, TESTS)
    clock = folder / "clock"
    clock.write_text("+0")
    return run_pytest(
        folder,
        *("--openenv-target", "local:app:app,server=uvicorn,workers=1", "-v"),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        DONT_FAKE_MONOTONIC="1",
        NO_FAKE_STAT="1",
        OFFSETS=json.dumps([f"{by_s:+}", "+0"]),
    )


def of_test(run: PytestRun, name: str) -> dict[str, Any]:
    (sweep,) = (sweep for sweep in run.sweeps() if sweep["test"].endswith(name))
    return sweep


@pytest.mark.parametrize(
    "by_s", [3600.0, -3600.0, 0.05, -0.05], ids=["an hour forth", "an hour back", "50 ms forth", "50 ms back"]
)
def test_a_clock_that_is_set_in_a_sweep_spoils_no_latency_and_decides_nothing_else(tmp_path: Path, by_s: float) -> None:
    run = run_while_the_clock_is_set(tmp_path, by_s)
    rows = run.rows().to_pylist()
    assert len(rows) == 2 * (2 + SESSIONS), run.output
    for row in rows:
        assert row["success"], row
        assert min(row[name] for name in row if name.endswith("_latency") and row[name] is not None) >= 0.0
        assert all(latency >= WAIT_S for latency in row["step_latencies"])
        assert STEPS * WAIT_S <= row["waited_seconds"] <= row["step_latency"] <= row["total_latency"]
        assert row["connected_s"] <= row["reset_done_s"] <= row["closed_s"]
    latency, success = (of_test(run, name) for name in ("test_latency", "test_success"))
    assert (latency["outcome"], success["outcome"], run.code) == ("inconclusive", "met", 1), run.output
    for sweep, limit in ((latency, "total_p99"), (success, None)):
        (curve,) = sweep["curves"]
        reasons = [reason for cell in curve["cells"] for reason in cell["reasons"]]
        assert [(reason["kind"], reason["batch"]) for reason in reasons] == [("clock", SESSIONS)], run.output
        assert reasons[0]["figures"]["moved"] == pytest.approx(2 * abs(by_s), abs=0.01)
        assert (reasons[0]["limit"] or {}).get("name") == limit
        assert [cell["passed"] for cell in curve["cells"]] == [True, None if limit else True]
