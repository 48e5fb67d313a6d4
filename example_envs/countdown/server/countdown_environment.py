"""The environment: ten are to be taken, up to three at a time, and not one too many."""

from typing import Any
from uuid import uuid4

from openenv.core.env_server.interfaces import Environment

try:
    from ..models import CountdownAction, CountdownObservation, CountdownState
except ImportError:
    from models import CountdownAction, CountdownObservation, CountdownState

START = 10


class CountdownEnvironment(Environment):
    # Every session gets an environment of its own, and nothing is kept outside of it.
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = CountdownState(remaining=START)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> CountdownObservation:
        self._state = CountdownState(episode_id=episode_id or str(uuid4()), remaining=START)
        return CountdownObservation(remaining=START)

    def step(self, action: CountdownAction, timeout_s: float | None = None, **kwargs: Any) -> CountdownObservation:
        exact = action.take <= self._state.remaining
        remaining = max(self._state.remaining - action.take, 0)
        self._state.remaining = remaining
        self._state.step_count += 1
        return CountdownObservation(
            remaining=remaining,
            done=remaining == 0,
            reward=1.0 if exact and remaining == 0 else 0.0,
        )

    @property
    def state(self) -> CountdownState:
        return self._state
