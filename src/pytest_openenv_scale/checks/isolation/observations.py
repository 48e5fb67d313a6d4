"""What a session sees in one episode, field by field, and how two of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, cast

from .answer import Answer

Fields = Mapping[str, Any]
"""The fields of one answer by path: `observation.board[0].colour`, `reward`, `state.step_count`."""

ABSENT = "<no such field>"
"""What a field shows that is not there."""

_QUOTED = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two sessions saw different things: `step` 0 is the reset."""

    step: int
    path: str
    expected: Any
    seen: Any

    def __str__(self) -> str:
        """Say it in one line, long values cut."""
        return f"{self.path} {after(self.step)}: expected {quoted(self.expected)}, seen {quoted(self.seen)}"


def after(step: int) -> str:
    """Return "after the reset" or "after step 3"."""
    return f"after step {step}" if step else "after the reset"


def quoted(value: Any) -> str:
    """Return a value as JSON, cut to 120 characters."""
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}… ({len(text)} in all)"


def _as_it_is(value: Any) -> Any:
    return value


def fields_of(answer: Answer, state: Answer | None = None, read: Callable[[Any], Any] = _as_it_is) -> Fields:
    """Return the fields of an answer and of the state asked after it; `read` is applied to each text and number.

    Lists of numbers, however nested, count as one field: an image is one thing to see.
    """
    found: dict[str, Any] = {}
    _collect(answer.data, "", read, found)
    if state is not None:
        _collect(state.data, "state", read, found)
    return found


def _collect(value: Any, path: str, read: Callable[[Any], Any], found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, item in cast("dict[str, Any]", value).items():
            _collect(item, f"{path}.{read(name)}" if path else str(read(name)), read, found)
    elif isinstance(value, list) and value and not _numbers(cast("list[Any]", value)):
        for index, item in enumerate(cast("list[Any]", value)):
            _collect(item, f"{path}[{index}]", read, found)
    else:
        value = cast("Any", value)
        found[path] = read(value) if isinstance(value, str) or type(value) is int else value


def _numbers(items: list[Any]) -> bool:
    return all(
        isinstance(item, int | float) or (isinstance(item, list) and _numbers(cast("list[Any]", item)))
        for item in items
    )


def pattern(path: str) -> str:
    """Return a path without the places in lists: what is volatile in one place is so in all."""
    return re.sub(r"\[\d+\]", "[]", path)


def differences(expected: Fields, seen: Fields, step: int) -> Iterator[Difference]:
    """Yield each field that is not the same, in the order of the answers."""
    for path in {**expected, **seen}:
        if expected.get(path, ABSENT) != (value := seen.get(path, ABSENT)):
            yield Difference(step, path, expected.get(path, ABSENT), value)


def compare(expected: Sequence[Fields], seen: Sequence[Fields]) -> list[Difference]:
    """Return how two episodes differ, as far as both go."""
    both = zip(expected, seen, strict=False)
    return [found for step, (one, other) in enumerate(both) for found in differences(one, other, step)]


def volatile(plays: Sequence[Sequence[Fields]]) -> frozenset[str]:
    """Return the patterns of the fields that are not the same in all these episodes."""
    return frozenset(pattern(found.path) for play in plays[1:] for found in compare(plays[0], play))


def chance(differing: int, crowd: int, alone: int) -> float:
    """Return how probable it is that all of the `differing` episodes fall among the `crowd` by mere chance.

    One side of Fisher's exact test for `differing` of `crowd` episodes among others, none of `alone` episodes alone.
    """
    return comb(crowd, differing) / comb(crowd + alone, differing)


def listed(names: Iterable[str], most: int = 6) -> str:
    """Return "a, b, c and 4 more"."""
    known = sorted(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
