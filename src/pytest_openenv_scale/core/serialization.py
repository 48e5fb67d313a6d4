"""Frozen dataclasses to JSON and back, by their annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, cast, get_args, get_origin, get_type_hints


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
        """Rebuild the value that `to_json` described.

        Raises:
            JsonError: a field is missing or holds something else than its annotation says.
        """
        return cast(Self, decode(cls, data))


def encode(value: object) -> Any:
    """Return `value` as plain JSON types; a number that is not finite is a mistake and raises ValueError."""
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number")
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(key): encode(item) for key, item in items.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in cast("list[object]", value)]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(hint: Any, value: Any, path: str = "") -> Any:
    """Return `value` as the type an annotation describes.

    Raises:
        JsonError: it does not fit; `path` names the value in the message.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _decode_union(arguments, value, path)
    if origin is Literal:
        return value if value in arguments else _refuse(path, f"one of {arguments}", value)
    if origin is tuple:
        if not isinstance(value, list):
            return _refuse(path, "a list", value)
        items = cast("list[Any]", value)
        return tuple(decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            return _refuse(path, "an object", value)
        pairs = cast("dict[str, Any]", value)
        return {key: decode(arguments[1], item, f"{path}.{key}") for key, item in pairs.items()}
    if is_dataclass(hint):
        return _decode_dataclass(cast("type[Any]", hint), value, path)
    return _decode_plain(hint, value, path)


def _decode_union(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and NoneType in choices:
        return None
    problem = JsonError(f"{path}: has no type")
    for choice in (choice for choice in choices if choice is not NoneType):
        try:
            return decode(choice, value, path)
        except JsonError as error:
            problem = error
    raise problem


@cache
def _type_hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_dataclass(kind: type[Any], value: Any, path: str) -> Any:
    path = path or kind.__name__
    if not isinstance(value, Mapping):
        return _refuse(path, "an object", value)
    members = cast("Mapping[str, Any]", value)
    arguments: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in members:
            arguments[field.name] = decode(_type_hints(kind)[field.name], members[field.name], f"{path}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise JsonError(f"{path}.{field.name} is missing")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise JsonError(f"{path}: {error}") from None


def _decode_plain(hint: Any, value: Any, path: str) -> Any:
    if hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return _refuse(path, "a number", value)
    if hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole else _refuse(path, "a whole number", value)
    if hint is datetime or issubclass(hint, Enum):
        read = datetime.fromisoformat if hint is datetime else cast("type[Enum]", hint)
        try:
            return read(value)
        except (TypeError, ValueError):
            return _refuse(path, f"a {hint.__name__}", value)
    return value if isinstance(value, hint) else _refuse(path, f"a {hint.__name__}", value)


def _refuse(path: str, expected: str, value: object) -> Any:
    raise JsonError(f"{path}: expected {expected}, got {repr(value)[:60]}")


@dataclass(frozen=True, slots=True)
class ClientFinding(Jsonable):
    """Something about the client that makes a cell inconclusive.

    `kind` is cpu, loop_lag, descriptors, ports, process_died, http_lag or hold; `message` is one line with figures.
    """

    kind: str
    message: str
