"""Count down to zero: an OpenEnv environment."""

from .client import CountdownEnv
from .models import CountdownAction, CountdownObservation, CountdownState

__all__ = ["CountdownAction", "CountdownEnv", "CountdownObservation", "CountdownState"]
