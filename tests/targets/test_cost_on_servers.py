"""What sessions cost real servers: planted figures come out again, wherever the server's processes can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from measuring import measure
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.sweep import Sweep
from pytest_openenv_scale.results.outcome import Cost, Outcome
from pytest_openenv_scale.targets import open_target

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("no_guard")]

MIB = 2**20
STEP_S = 0.004

APP = f"""
import time
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

async def play(socket):
    await socket.accept()
    with open("/dev/null") as descriptor:
        while (asked := (await socket.receive_json())["type"]) != "close":
            if asked == "reset":
                state = b"x" * {2 * MIB}
            if asked == "step":
                end = time.process_time() + {STEP_S}
                while time.process_time() < end:
                    pass
            data = {{"observation": {{}}, "reward": None, "done": False}}
            await socket.send_json({{"type": "observation", "data": data}})
        await socket.close()

app = Starlette(routes=[WebSocketRoute("/ws", play)])
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def cost_of_sweep(target: str, root: Path, *batches: int, **settings: Any) -> Sweep:
    with open_target(parse_target(target), root=root, largest_batch=max(batches)) as endpoint:
        return measure(endpoint, root / "results", *batches, action={}, **settings)


def value(cost: Cost | None) -> float:
    assert cost is not None
    assert cost.value is not None, cost
    return cost.value


def check_planted(sweep: Sweep) -> None:
    (verdict,) = sweep.verdicts
    cost = verdict.cost
    assert 2 * MIB <= value(cost.memory_per_session) < 2.5 * MIB
    assert (value(cost.descriptors_per_session), value(cost.threads_per_session)) == (2, 0)
    assert STEP_S <= value(cost.cpu_per_step) < 2 * STEP_S


def test_memory_descriptors_and_cpu_that_were_planted_are_found(root: Path) -> None:
    limits = {"memory_per_session": "4MiB", "descriptors_per_session": 2, "cpu_per_step": "10ms", "rss": "1GiB"}
    sweep = cost_of_sweep("local:app:app,server=uvicorn", root, 2, 4, 8, 16, 32, steps=5, slo=limits)
    check_planted(sweep)
    assert sweep.outcome is Outcome.MET, sweep.verdicts[0].limits


def test_less_than_was_planted_is_missed(root: Path) -> None:
    limits = {"memory_per_session": "1MiB", "descriptors_per_session": 1, "cpu_per_step": "2ms"}
    sweep = cost_of_sweep("local:app:app", root, 2, 4, 8, 16, 32, 48, steps=5, slo=limits)
    (verdict,) = sweep.verdicts
    missed = {limit.limit for limit in verdict.limits if limit.outcome is Outcome.MISSED}
    assert missed == set(limits), verdict.cost
