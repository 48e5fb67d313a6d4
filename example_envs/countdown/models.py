"""What is said between a client and the environment."""

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field


class CountdownAction(Action):
    take: int = Field(..., ge=1, le=3, description="How much to take from what remains")


class CountdownObservation(Observation):
    remaining: int = Field(..., ge=0, description="What is left to take; the episode ends at zero")


class CountdownState(State):
    remaining: int = Field(default=0, ge=0, description="What is left to take")
