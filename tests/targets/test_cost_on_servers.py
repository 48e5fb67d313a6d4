"""What sessions cost real servers: planted figures come out again, wherever the server's processes can be seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from docker_engine import BASE_IMAGE, engine_or_skip, server_wheels
from measuring import measure
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.sweep import Sweep
from pytest_openenv_scale.results.outcome import Cost, Outcome
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image
from slurm_cluster import slurm_or_skip

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("no_guard")]

MIB = 2**20
STEP_S = 0.004

APP = f"""
import time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def health(request):
    return PlainTextResponse("healthy")

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

app = Starlette(routes=[Route("/health", health), WebSocketRoute("/ws", play)])
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


def test_replicas_behind_envoy_are_added_up(root: Path) -> None:
    check_planted(cost_of_sweep("envoy:replicas=2,app=app:app", root, 2, 4, 8, 16, 32, steps=5, reps=2))


def test_nodes_of_a_job_are_added_up_where_they_are_this_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
        monkeypatch.delenv(name)
    with slurm_or_skip(2) as cluster:
        for name, value in cluster.environ.items():
            monkeypatch.setenv(name, value)
        check_planted(cost_of_sweep("slurm:nodes=2,app=app:app", root, 2, 4, 8, 16, 32, steps=5, reps=2))


def test_a_container_is_seen_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_or_skip() as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        engine = Engine.connect()
        packaged = ImageSource(None, tmp_path, arguments={"BASE_IMAGE": BASE_IMAGE}, wheels=str(server_wheels()))
        image = obtain_image(engine, packaged, print)
        engine.close()
        limits = {"cpu_per_step": "200ms", "memory_per_session": "8MiB", "rss": "1GiB"}
        sweep = cost_of_sweep(f"docker:{image},pull=never", tmp_path, 4, 8, 16, 32, 64, steps=5, slo=limits)
    (verdict,) = sweep.verdicts
    assert sweep.outcome is Outcome.MET, verdict.cost
    assert value(verdict.cost.cpu_per_step) > 0
    assert value(verdict.cost.threads_per_session) >= 0


def test_less_than_was_planted_is_missed(root: Path) -> None:
    limits = {"memory_per_session": "1MiB", "descriptors_per_session": 1, "cpu_per_step": "2ms"}
    sweep = cost_of_sweep("local:app:app", root, 2, 4, 8, 16, 32, 48, steps=5, slo=limits)
    (verdict,) = sweep.verdicts
    missed = {limit.limit for limit in verdict.limits if limit.outcome is Outcome.MISSED}
    assert missed == set(limits), verdict.cost
