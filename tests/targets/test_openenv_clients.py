"""The benchmark environment is an OpenEnv server to OpenEnv's own clients and validator."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from openenv_venvs import OPENENV_0_10, PACKAGES, newest_and_oldest, openenv_python
from server_process import running_server

pytestmark = pytest.mark.real

# Runs in the package's own environment. 0.2.0 has no GenericEnvClient: there EnvClient gets the same three methods.
EPISODE = """
import asyncio, inspect, json, sys
try:
    from openenv.core.generic_client import GenericEnvClient as Client
except ImportError:
    from openenv.core.client_types import StepResult
    from openenv.core.env_client import EnvClient
    class Client(EnvClient):
        def _step_payload(self, action): return action
        def _parse_state(self, payload): return payload
        def _parse_result(self, payload):
            return StepResult(payload["observation"], payload.get("reward"), payload.get("done", False))

async def now(value):
    return await value if inspect.isawaitable(value) else value

async def main(url):
    client = Client(base_url=url)
    await now(client.connect())
    results = [await now(client.reset(seed=1, episode_id="mine"))]
    results += [await now(client.step({"wait_seconds": 0.05})) for _ in range(3)]
    state = await now(client.state())
    refused = None
    try:
        await now(client.step({"no_such_field": 1}))
    except RuntimeError as error:
        refused = str(error)
    results.append(await now(client.step({"wait_seconds": 0})))
    await now(client.close())
    observed = [result.observation for result in results]
    print(json.dumps({"observed": observed, "state": state, "refused": refused,
                      "done": [result.done for result in results]}))

asyncio.run(main(sys.argv[1]))
"""


def run(python, *arguments):
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], env=environ, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(params=["hypercorn", "uvicorn"])
def url(request):
    # One slot: whatever an episode leaves behind would refuse the next one.
    with running_server("--server", request.param, "--max-envs", 1) as (_, address):
        yield f"http://{address}"


@pytest.mark.parametrize("package", newest_and_oldest(PACKAGES))
def test_openenvs_own_client_plays_an_episode(package, url):
    python = openenv_python(package)
    for _ in range(2):
        done = run(python, "-c", EPISODE, url)
        assert done.returncode == 0, done.stderr
        played = json.loads(done.stdout)
        assert [observation["step_count"] for observation in played["observed"]] == [0, 1, 2, 3, 4]
        assert len({observation["session_hash"] for observation in played["observed"]}) == 1
        assert all(observation["waited_seconds"] >= 0.05 for observation in played["observed"][1:4])
        assert played["state"] == {"episode_id": "mine", "step_count": 3}
        assert "VALIDATION_ERROR" in played["refused"]
        assert played["done"] == [False] * 5


def test_openenv_validate_passes_every_check(url):
    python = openenv_python(OPENENV_0_10)
    done = run(python, "-m", "openenv.cli", "validate", "--url", url, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert [criterion["id"] for criterion in report["criteria"] if not criterion["passed"]] == []
    assert report["summary"]["total_count"] == 6
