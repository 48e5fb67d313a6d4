"""Frozen dataclasses to JSON and back, by their annotations: msgspec, and its errors in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, cast

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
"""How many of something: stored runs are foreign input, and what is counted is looped over."""

Ordinal = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
"""A number that counts from 1."""

UtcTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time that says of which zone it is, so that any two can be compared."""

FileName = Annotated[str, msgspec.Meta(pattern=r"\A[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}\Z")]
"""A text that becomes the name of a file or folder: no path, not hidden."""


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
            raise JsonError(_misfit(cls, error)) from None

    @classmethod
    def read_json(cls, text: str | bytes) -> Self:
        """Rebuild the value that stored JSON describes, which may be anybody's; keys of a newer writer are passed over.

        Raises:
            JsonError: it is no JSON (numbers have to be finite), is nested too deeply, a field is missing or holds
                something else than its annotation says.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.ValidationError as error:
            raise JsonError(_misfit(cls, error)) from None
        except msgspec.DecodeError as error:
            raise JsonError(f"no JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
        except UnicodeError:
            raise JsonError("no JSON: not UTF-8") from None
        except RecursionError:
            raise JsonError("nested too deeply") from None


def _misfit(cls: type, error: msgspec.ValidationError) -> str:
    problem, _, path = str(error).partition(" - at `$")
    if "matching regex" in problem:
        problem = "Expected the name of a file"
    return f"{cls.__name__}{path.rstrip('`')}: {problem[:1].lower()}{problem[1:]}"


def encode(value: object) -> Any:
    """Return `value` as plain JSON types.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: a number in it is not finite, and JSON has none of these.
    """
    plain = msgspec.to_builtins(value, builtin_types=(datetime,), str_keys=True)
    return json.loads(json.dumps(plain, allow_nan=False, default=datetime.isoformat))
