"""Functions that make actions, as a user would write them: one knows its steps beforehand, one sees the last answer."""

from __future__ import annotations

from typing import Any


def by_number(session: int, step: int) -> dict[str, Any]:
    """Make an action of the numbers of session and step."""
    return {"wait_seconds": "$wait", "turn": step}


def by_observation(session: int, step: int, observation: Any) -> dict[str, Any]:
    """Make an action that repeats an id of the last observation."""
    return {"wait_seconds": "$wait", "turn": observation["session_hash"]}
