"""Five throws of a die that the seed decides: `uvicorn seeded:app`, or `seeded:async_app`."""

from __future__ import annotations

import asyncio
import os
from random import Random
from typing import Any
from uuid import uuid4

from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field

THROWS = 5


class DiceAction(Action):
    stake: int = Field(default=1, ge=1, le=10, description="How often the throw counts")


class DiceObservation(Observation):
    thrown: int = 0
    total: int = 0
    throws_left: int = THROWS


class DiceEnvironment(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._begin(None, None)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> DiceObservation:
        self._begin(seed, episode_id)
        return self._observe(0)

    def step(self, action: DiceAction, timeout_s: float | None = None, **kwargs: Any) -> DiceObservation:
        if self._state.step_count >= THROWS:
            return self._observe(0)
        thrown = self._die.randint(1, 6)
        self._total += action.stake * thrown
        self._state.step_count += 1
        return self._observe(thrown)

    @property
    def state(self) -> State:
        return self._state

    def _begin(self, seed: int | None, episode_id: str | None) -> None:
        self._die = Random(seed)
        self._total = self._die.randint(0, 999)
        self._state = State(episode_id=episode_id or str(uuid4()))

    def _observe(self, thrown: int) -> DiceObservation:
        throws_left = THROWS - self._state.step_count
        reward = float(self._total) if throws_left == 0 else 0.0
        return DiceObservation(
            thrown=thrown, total=self._total, throws_left=throws_left, done=throws_left == 0, reward=reward
        )


class AsyncDiceEnvironment(DiceEnvironment):
    async def reset_async(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any
    ) -> DiceObservation:
        await asyncio.sleep(0)
        return self.reset(seed, episode_id)

    async def step_async(self, action: DiceAction, timeout_s: float | None = None, **kwargs: Any) -> DiceObservation:
        await asyncio.sleep(0)
        return self.step(action)


MAX_ENVS = int(os.environ.get("MAX_CONCURRENT_ENVS", "16"))

app = create_app(DiceEnvironment, DiceAction, DiceObservation, max_concurrent_envs=MAX_ENVS)
async_app = create_app(AsyncDiceEnvironment, DiceAction, DiceObservation, max_concurrent_envs=MAX_ENVS)
