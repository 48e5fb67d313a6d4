"""Sound servers on which something happens in one episode of hundreds, and that is nobody's doing; and some that leak.

Each kind takes the share of episodes in which it happens. A session walks from room to room, and says in which it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

from toy_environment import Toy


class Walk(Toy):
    """One room further with each step; the seed decides the colour of every room."""

    rate: ClassVar[float] = 0.0

    def begin(self, data: dict[str, Any]) -> None:
        super().begin(data)
        self.seed = data.get("seed")
        self.random = random.Random(self.seed)
        self.event_at = self.random.randint(1, 3) if self.happens() else 99

    def happens(self) -> bool:
        """Whether it happens in this episode."""
        return False

    @property
    def met(self) -> bool:
        """Whether it has happened."""
        return self.count >= self.event_at

    def see(self) -> dict[str, Any]:
        beast = " with a bear" if self.met else ""
        return {"room": f"room {self.count}{beast}", "moves": self.count + 10 * self.met, "text": self.text}


class BySeed(Walk):
    """The seed alone decides whether a bear comes."""

    def happens(self) -> bool:
        return self.seed is not None and self.random.random() < self.rate


class ByActions(Walk):
    """What the session says at its first step decides it, with the seed."""

    def take(self, action: dict[str, Any]) -> None:
        super().take(action)
        if self.count == 1 and random.Random(f"{self.seed} {self.text}").random() < self.rate:
            self.event_at = 2


class ByChance(Walk):
    """No seed decides it."""

    def happens(self) -> bool:
        return random.random() < self.rate


class NoSeed(ByChance):
    """Nothing is decided by the seed: neither the colours nor the bear."""

    def see(self) -> dict[str, Any]:
        return {**super().see(), "colour": random.choice("rgb")}


class Uncounted(BySeed):
    """The step that meets the bear is illegal, and does not count."""

    def see(self) -> dict[str, Any]:
        return {"moves": self.count - self.met, "text": self.text}

    def state(self) -> dict[str, Any]:
        return {"episode_id": self.episode_id, "step_count": self.count - self.met}


class Short(BySeed):
    """The bear ends the episode."""

    def done(self) -> bool:
        return self.met or self.count >= 8


SOUND: dict[str, type[Walk]] = {
    "seed": BySeed,
    "actions": ByActions,
    "chance": ByChance,
    "no seed": NoSeed,
    "uncounted": Uncounted,
    "short": Short,
}


def sound(kind: str, rate: float) -> Callable[[], Walk]:
    """What makes the environments of a sound server where it happens in this share of episodes."""
    return type(kind, (SOUND[kind],), {"rate": rate})


class _Among(BySeed):
    """A sound walk, but for what sessions see of each other; `others` are the sessions that are there."""

    live: ClassVar[list[Any]]

    def begin(self, data: dict[str, Any]) -> None:
        super().begin(data)
        if self not in self.live:
            self.live.append(self)

    def end(self) -> None:
        if self in self.live:
            self.live.remove(self)

    @property
    def others(self) -> list[Any]:
        return [other for other in self.live if other is not self]


class SharedMoves(_Among):
    """All sessions move one and the same piece."""

    def see(self) -> dict[str, Any]:
        return {**super().see(), "moves": sum(session.count for session in self.live)}


class SwappedRooms(_Among):
    """Now and then a session is shown the room of another, beside the bears of its own seed."""

    swapped: ClassVar[float] = 0.05

    def see(self) -> dict[str, Any]:
        others = self.others if random.random() < self.swapped else []
        view = random.choice(others) if others else self
        return {**super().see(), "room": Walk.see(view)["room"]}


class SharedBear(_Among):
    """The bear of one session is seen by all."""

    @property
    def met(self) -> bool:
        return any(session.count >= session.event_at for session in self.live)


class SharedCount(_Among):
    """`step_count` is everybody's, the episode's name is its own."""

    def state(self) -> dict[str, Any]:
        return {"episode_id": self.episode_id, "step_count": sum(session.count for session in self.live)}


LEAKING: dict[str, type[_Among]] = {
    "moves": SharedMoves,
    "rooms": SwappedRooms,
    "bear": SharedBear,
    "count": SharedCount,
}


def leaking(kind: str, rate: float) -> Callable[[], Walk]:
    """What makes the environments of a server that leaks, with events of the seed in this share of episodes."""
    return type(kind, (LEAKING[kind],), {"rate": rate, "live": []})
