"""The server a check is asked about, and what was learned of it before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.workload import Workload

from .client import RawClient

T = TypeVar("T")

_PATIENCE_S, _PATIENCE_FACTOR = 15.0, 5.0


def say_nothing(text: str) -> None:
    """Drop what nobody listens to."""


@dataclass
class Subject:
    """One server and how checks treat it.

    `most` is how many sessions it may be asked to hold at once. `wait_s` is the wait of a step in seconds, None where
    the environment takes none. `timeout_s` bounds what a lone session waits for, `soak_s` is how long the endurance
    check lasts, both in seconds. `seed` makes what is random repeatable. `schema` is what `/schema` said, or None.
    """

    endpoint: Endpoint
    workload: Workload
    most: int
    wait_s: float | None
    timeout_s: float
    soak_s: float
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    say: Callable[[str], None] = say_nothing
    slowest_lone_s: float = 0.0
    """The slowest answer a session got that had the server to itself, in seconds; checks wait longer for slow ones."""
    _known: dict[Any, Any] = field(default_factory=dict[Any, Any], repr=False)

    @property
    def patience_s(self) -> float:
        """How long an answer may take before it counts as none, in seconds."""
        return min(self.timeout_s, max(_PATIENCE_S, _PATIENCE_FACTOR * self.slowest_lone_s))

    def patience_among(self, sessions: int) -> float:
        """Return how long an answer may take, in seconds, where so many sessions ask at once.

        A server that takes one after the other lets the last of them wait for all.
        """
        return min(self.timeout_s, self.patience_s + sessions * self.slowest_lone_s)

    def client(self, patience_s: float | None = None) -> RawClient:
        """Return a client for this server, to be entered with `async with`."""
        return RawClient(self.endpoint, self.patience_s if patience_s is None else patience_s)

    def action(self, session: int = 0, step: int = 0, *, wait_s: float | None = None) -> Mapping[str, Any]:
        """Return the action of a step, both counted from 0, with a wait other than `wait_s` where one is given.

        Raises:
            WorkloadError: the user's callable fails.
        """
        return self.workload.maker(self.wait_s if wait_s is None else wait_s)(session, step)

    def reset_data(self, seed: int) -> dict[str, Any]:
        """Return the reset data that was asked for, for the session with this seed."""
        return dict(self.workload.reset_data(seed))

    async def learn(self, question: Callable[[Subject], Awaitable[T]]) -> T:
        """Ask a question about the server once; every later check gets the same answer."""
        if question not in self._known:
            self._known[question] = await question(self)
        return cast(T, self._known[question])
