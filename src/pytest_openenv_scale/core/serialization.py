"""Frozen dataclasses to JSON and back, by their annotations: msgspec, and its errors in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self, cast

import msgspec


class JsonError(ValueError):
    """Stored JSON that does not fit: one line saying where and what was expected."""


class Jsonable:
    """Gives a dataclass `to_json()` and `from_json()`; fields may nest dataclasses, tuples and mappings."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the value as plain JSON types."""
        return cast("dict[str, Any]", encode(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the value that `to_json` described; keys of a newer writer are passed over.

        Raises:
            JsonError: a field is missing or holds something else than its annotation says.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            problem, _, path = str(error).partition(" - at `$")
            raise JsonError(f"{cls.__name__}{path.rstrip('`')}: {problem[:1].lower()}{problem[1:]}") from None


def encode(value: object) -> Any:
    """Return `value` as plain JSON types.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: a number in it is not finite, and JSON has none of these.
    """
    plain = msgspec.to_builtins(value, builtin_types=(datetime,), str_keys=True)
    return json.loads(json.dumps(plain, allow_nan=False, default=datetime.isoformat))
