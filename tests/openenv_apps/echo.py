"""An environment that says back what it is told: `uvicorn echo:app`, or `echo:async_app` for the asynchronous one."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import uuid4

from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field


class EchoAction(Action):
    message: str = Field(description="What is to be said back")


class EchoObservation(Observation):
    echo: str = ""
    steps: int = 0


class EchoEnvironment(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State(episode_id=str(uuid4()))

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> EchoObservation:
        self._state = State(episode_id=episode_id or str(uuid4()))
        return EchoObservation()

    def step(self, action: EchoAction, timeout_s: float | None = None, **kwargs: Any) -> EchoObservation:
        self._state.step_count += 1
        return EchoObservation(echo=action.message, steps=self._state.step_count, reward=float(len(action.message)))

    @property
    def state(self) -> State:
        return self._state


class AsyncEchoEnvironment(EchoEnvironment):
    async def reset_async(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any
    ) -> EchoObservation:
        await asyncio.sleep(0)
        return self.reset(seed, episode_id)

    async def step_async(self, action: EchoAction, timeout_s: float | None = None, **kwargs: Any) -> EchoObservation:
        await asyncio.sleep(0)
        return self.step(action)


MAX_ENVS = int(os.environ.get("MAX_CONCURRENT_ENVS", "16"))

app = create_app(EchoEnvironment, EchoAction, EchoObservation, max_concurrent_envs=MAX_ENVS)
async_app = create_app(AsyncEchoEnvironment, EchoAction, EchoObservation, max_concurrent_envs=MAX_ENVS)
