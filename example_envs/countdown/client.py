"""The client: one WebSocket, one session."""

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from .models import CountdownAction, CountdownObservation, CountdownState


class CountdownEnv(EnvClient[CountdownAction, CountdownObservation, CountdownState]):
    """
    Example:
        >>> with CountdownEnv(base_url="http://localhost:8000").sync() as env:
        ...     result = env.reset()
        ...     while not result.done:
        ...         result = env.step(CountdownAction(take=1))
    """

    def _step_payload(self, action: CountdownAction) -> dict[str, Any]:
        return {"take": action.take}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[CountdownObservation]:
        outcome = {"done": payload.get("done", False), "reward": payload.get("reward")}
        return StepResult(CountdownObservation(**{**payload["observation"], **outcome}), **outcome)

    def _parse_state(self, payload: dict[str, Any]) -> CountdownState:
        return CountdownState(**payload)
