"""What only one session has said: whoever else is shown it has seen what is not theirs."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

_SEEDS = range(100_000_000, 2**31)
"""Seeds that environments write by chance only where they draw numbers of that size, and that every generator takes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What one episode says of itself: the `episode_id` and `seed` of its reset, the `token` in its actions."""

    number: int
    episode_id: str
    token: str
    seed: int


@dataclass
class Identities:
    """Gives out identities and knows them again in what a server answers."""

    _mark: str = field(default_factory=lambda: f"oes{uuid4().hex[:10]}")
    _seeds: dict[int, int] = field(default_factory=dict[int, int])
    _seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Which identity saw whose seed, by their numbers."""

    def new(self) -> Identity:
        """Return an identity nobody had before."""
        number = len(self._seeds)
        # Not from the plan's seed: a server that is asked a second time must not have heard of any of them.
        seed = random.choice(_SEEDS)
        while seed in self._seeds:
            seed = random.choice(_SEEDS)
        self._seeds[seed] = number
        return Identity(number, f"{self._mark}-{number:06d}-e", f"{self._mark}-{number:06d}-t", seed)

    def holds(self, value: object, number: int) -> bool:
        """Say whether a text or a number is, or contains, what the identity with this number said."""
        if isinstance(value, str):
            return f"{self._mark}-{number:06d}-" in value.lower()
        return type(value) is int and self._seeds.get(value) == number

    def read_text(self, text: str, me: Identity, foreign: set[int]) -> str:
        """Return the text with its own identity named as such; whose others it holds is added to `foreign`."""
        if self._mark not in text.lower():
            return text

        def name(found: re.Match[str]) -> str:
            number = int(found[1])
            kind = "episode_id" if found[2].lower() == "e" else "token"
            if number == me.number:
                return f"<its own {kind}>"
            foreign.add(number)
            return found[0]

        return re.sub(rf"{self._mark}-(\d{{6}})-([et])", name, text, flags=re.IGNORECASE)

    def read_number(self, value: int, me: Identity, foreign: set[int]) -> int | str:
        """Return the number, or a name for its own seed; whose seed else it is, is added to `foreign`.

        The first time it is not: of ten thousand numbers that an environment draws, one is the seed of one of a
        thousand episodes in one run of two hundred. A server that mixes sessions up does it again.
        """
        number = self._seeds.get(value)
        if number is None:
            return value
        if number == me.number:
            return "<its own seed>"
        self._seen.add((me.number, number))
        if len(self._seen) > 1:
            foreign.add(number)
        return value


def token_fields(schema: Mapping[str, Any] | None, made: bool, length: int) -> tuple[str, ...]:
    """Return the fields of an action that may hold any text of so many characters, by its JSON schema.

    `made` tells whether the action was made from the schema: what a person wrote is not changed.
    """
    if schema is None or not made:
        return ()
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return ()
    known = cast("Mapping[str, Any]", properties)
    return tuple(
        name
        for name, about in known.items()
        if isinstance(about, dict) and _free(cast("dict[str, Any]", about), length)
    )


def _free(about: Mapping[str, Any], length: int) -> bool:
    if about.get("type") != "string" or any(about.get(key) for key in ("enum", "pattern", "format", "examples")):
        return False
    if "const" in about or about.get("default"):
        return False
    least, most = about.get("minLength") or 0, about.get("maxLength")
    return least <= length and (most is None or length <= most)
