"""Defects of what a session's environment is: what sessions share, or inherit, or leave to chance."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from .environment import Action, Environment
from .server import Server, Session


class SharedState(Server):
    """`create_app(lambda: ENVIRONMENT)`: the factory returns the module's one environment to every session."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._shared = Environment()

    def open(self) -> Environment:
        return self._shared


class _SharedRecordEnvironment(Environment):
    record: ClassVar[dict[str, Any]] = {"episode_id": None, "step_count": 0}

    def reset(self, seed: Any = None, episode_id: Any = None) -> dict[str, Any]:
        reply = super().reset(seed, episode_id)
        self.record.update(super().state())
        return reply

    def begin_step(self, action: Action) -> None:
        super().begin_step(action)
        self.record["step_count"] += 1

    def state(self) -> dict[str, Any]:
        return dict(self.record)


class SharedRecord(Server):
    """A mutable class attribute: the observations are each session's own, the `state` is everybody's."""

    environment = _SharedRecordEnvironment


class _PooledEnvironment(Environment):
    used = False

    def reset(self, seed: Any = None, episode_id: Any = None) -> dict[str, Any]:
        # "Already set up": nobody asked for an episode of their own, so the one there is will do.
        if self.used and seed is None and episode_id is None:
            self.used = False
            return self.observation()
        self.used = False
        return super().reset(seed, episode_id)


class SequentialState(Server):
    """A pool of costly environments that come back as they are: a new session finds the last one's episode.

    `state` before the first reset shows it, and a reset without data goes on with it.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._pool: list[_PooledEnvironment] = []

    def open(self) -> Environment:
        return self._pool.pop() if self._pool else _PooledEnvironment()

    def closed(self, session: Session) -> None:
        assert isinstance(session.environment, _PooledEnvironment)
        session.environment.used = True
        self._pool.append(session.environment)


class _GloballyRandomEnvironment(Environment):
    def plant(self, seed: Any) -> None:
        random.seed(seed)

    def draw(self) -> float:
        return random.random()


class GlobalRandom(Server):
    """`random.seed(seed)`: the numbers of all sessions come out of one generator."""

    environment = _GloballyRandomEnvironment


class _SeedlessEnvironment(Environment):
    def plant(self, seed: Any) -> None:
        """There is nothing to draw."""

    def draw(self) -> float:
        return float(self.step_count)


class NoSeed(Server):
    """No defect: an environment without chance, which takes a seed and has no use for it."""

    environment = _SeedlessEnvironment


class _RarelyOddEnvironment(Environment):
    odd = False

    def plant(self, seed: Any) -> None:
        super().plant(seed)
        self.odd = seed is not None and random.Random(f"odd {seed}").random() < 0.01

    def observation(self) -> dict[str, Any]:
        reply = super().observation()
        if self.odd and self.step_count > 1:
            reply["observation"]["step"] += 100
        return reply


class RareEvent(Server):
    """No defect: with one seed in a hundred an episode takes another turn."""

    environment = _RarelyOddEnvironment


class _ChanceEnvironment(Environment):
    def plant(self, seed: Any) -> None:
        super().plant(None)


class Chance(Server):
    """No defect of sessions: an environment that takes a seed, and draws without it."""

    environment = _ChanceEnvironment
