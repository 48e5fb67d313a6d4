"""An environment that waits as long as it is told: `uvicorn benchmark:app`, or `benchmark:async_app`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any
from uuid import uuid4

from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field


class BenchmarkAction(Action):
    wait_seconds: float = Field(default=0.0, ge=0.0, le=60.0, description="How long the step takes, in seconds")


class BenchmarkObservation(Observation):
    waited_seconds: float = 0.0
    pid: int = 0
    session_hash: str = ""
    steps: int = 0


class BenchmarkEnvironment(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._session_hash = uuid4().hex
        self._state = State(episode_id=str(uuid4()))

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> BenchmarkObservation:
        self._state = State(episode_id=episode_id or str(uuid4()))
        return self._observe(0.0)

    def step(self, action: BenchmarkAction, timeout_s: float | None = None, **kwargs: Any) -> BenchmarkObservation:
        began = time.perf_counter()
        time.sleep(action.wait_seconds)
        return self._count(began)

    @property
    def state(self) -> State:
        return self._state

    def _count(self, began: float) -> BenchmarkObservation:
        self._state.step_count += 1
        return self._observe(time.perf_counter() - began)

    def _observe(self, waited: float) -> BenchmarkObservation:
        return BenchmarkObservation(
            waited_seconds=waited, pid=os.getpid(), session_hash=self._session_hash, steps=self._state.step_count
        )


class AsyncBenchmarkEnvironment(BenchmarkEnvironment):
    async def reset_async(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any
    ) -> BenchmarkObservation:
        await asyncio.sleep(0)
        return self.reset(seed, episode_id)

    async def step_async(
        self, action: BenchmarkAction, timeout_s: float | None = None, **kwargs: Any
    ) -> BenchmarkObservation:
        began = time.perf_counter()
        await asyncio.sleep(action.wait_seconds)
        return self._count(began)


MAX_ENVS = int(os.environ.get("MAX_CONCURRENT_ENVS", "16"))

app = create_app(BenchmarkEnvironment, BenchmarkAction, BenchmarkObservation, max_concurrent_envs=MAX_ENVS)
async_app = create_app(AsyncBenchmarkEnvironment, BenchmarkAction, BenchmarkObservation, max_concurrent_envs=MAX_ENVS)
