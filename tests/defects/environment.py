"""The environment: an episode of twenty steps over numbers drawn from a seed."""

from __future__ import annotations

import math
import random
import uuid
from dataclasses import dataclass
from typing import Any

LAST_STEP = 20
LONGEST_WAIT_S = 30.0

ACTION: dict[str, Any] = {
    "additionalProperties": False,
    "properties": {
        "metadata": {"additionalProperties": True, "title": "Metadata", "type": "object"},
        "wait_seconds": {
            "default": 0.0,
            "description": "How long the step takes, in seconds",
            "maximum": LONGEST_WAIT_S,
            "minimum": 0,
            "title": "Wait Seconds",
            "type": "number",
        },
        "text": {"default": "", "description": "Echoed in the observation", "title": "Text", "type": "string"},
    },
    "title": "NumbersAction",
    "type": "object",
}
OBSERVATION: dict[str, Any] = {
    "additionalProperties": False,
    "properties": {
        "done": {"default": False, "title": "Done", "type": "boolean"},
        "reward": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None, "title": "Reward"},
        "metadata": {"additionalProperties": True, "title": "Metadata", "type": "object"},
        "step": {"default": 0, "description": "Steps taken in this episode", "title": "Step", "type": "integer"},
        "value": {"default": 0.0, "description": "Drawn from the seed", "title": "Value", "type": "number"},
        "text": {"default": "", "description": "The text of the action", "title": "Text", "type": "string"},
    },
    "title": "NumbersObservation",
    "type": "object",
}
STATE: dict[str, Any] = {
    "additionalProperties": True,
    "properties": {
        "episode_id": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Episode Id"},
        "step_count": {"default": 0, "minimum": 0, "title": "Step Count", "type": "integer"},
    },
    "title": "State",
    "type": "object",
}


class InvalidError(Exception):
    """What a client sent does not fit its schema; each problem has the fields that pydantic gives it."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("Invalid message")
        self.problems = problems


def problem(kind: str, field: str, message: str, value: object) -> dict[str, Any]:
    return {"type": kind, "loc": [field], "msg": message, "input": value}


@dataclass(frozen=True)
class Action:
    """One step: wait `wait_seconds`, then echo `text`."""

    wait_seconds: float = 0.0
    text: str = ""


def parse_action(action: dict[str, Any]) -> Action:
    """Raises InvalidError naming every field that does not fit `ACTION`."""
    wait, text = action.get("wait_seconds", 0.0), action.get("text", "")
    problems = [
        problem("extra_forbidden", field, "Extra inputs are not permitted", value)
        for field, value in action.items()
        if field not in ACTION["properties"]
    ]
    if not isinstance(action.get("metadata", {}), dict):
        problems.append(problem("dict_type", "metadata", "Input should be a valid dictionary", action["metadata"]))
    if not isinstance(text, str):
        problems.append(problem("string_type", "text", "Input should be a valid string", text))
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not math.isfinite(wait):
        problems.append(problem("float_type", "wait_seconds", "Input should be a valid number", str(wait)))
    elif not 0 <= wait <= LONGEST_WAIT_S:
        message = f"Input should be from 0 to {LONGEST_WAIT_S:g}"
        problems.append(problem("out_of_range", "wait_seconds", message, wait))
    if problems:
        raise InvalidError(problems)
    return Action(float(wait), text)


class Environment:
    """One session's environment; whoever drives it does the waiting, between `begin_step` and `end_step`."""

    def __init__(self) -> None:
        self.episode_id: str | None = None
        self.step_count = 0
        self.text = ""
        self.random = random.Random()

    def reset(self, seed: Any = None, episode_id: Any = None) -> dict[str, Any]:
        """Begin an episode; raises TypeError for a seed that is none."""
        self.plant(seed)
        self.episode_id = str(uuid.uuid4()) if episode_id is None else str(episode_id)
        self.step_count = 0
        self.text = ""
        return self.observation()

    def begin_step(self, action: Action) -> None:
        self.step_count += 1
        self.text = action.text

    def end_step(self) -> dict[str, Any]:
        return self.observation()

    def state(self) -> dict[str, Any]:
        return {"episode_id": self.episode_id, "step_count": self.step_count}

    def plant(self, seed: Any) -> None:
        """Begin the numbers of an episode; without a seed they are of no order."""
        self.random = random.Random(seed)

    def draw(self) -> float:
        return self.random.random()

    def observation(self) -> dict[str, Any]:
        """What a client is told, as `data` of the reply."""
        done = self.step_count >= LAST_STEP
        data = {"metadata": {}, "step": self.step_count, "value": self.draw(), "text": self.text}
        return {"observation": data, "reward": 1.0 if done else 0.0, "done": done}
