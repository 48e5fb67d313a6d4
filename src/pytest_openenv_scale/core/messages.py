"""The OpenEnv messages of a session: requests as JSON, replies read into what a client needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import orjson


def loads(text: str) -> Any:
    """Parse JSON text; also the NaN and Infinity that Python servers write.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


class MessageError(ValueError):
    """A reply is not an OpenEnv message; the text says what it is instead."""


class Reply(NamedTuple):
    """An observation: its fields, the reward, whether the episode is over, and the whole `data` it came in."""

    observation: dict[str, Any]
    reward: Any
    done: bool
    data: dict[str, Any]


class ServerError(NamedTuple):
    """An `error` message: `kind` is a row's `error_type`, `code` and `message` are the server's own."""

    kind: str
    code: str | None
    message: str


def request(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Encode a message; `state` and `close` take no data."""
    message = {"type": kind} if data is None else {"type": kind, "data": data}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def read(text: str) -> tuple[str, dict[str, Any]]:
    """Return type and data of a reply.

    Raises:
        MessageError: the text is no JSON object with a `type`.
    """
    try:
        message = loads(text)
    except (ValueError, RecursionError):
        raise MessageError(f"a reply that is not JSON: {text[:80]!r}") from None
    if type(message) is not dict:
        raise MessageError(f"a reply that is not an OpenEnv message: {text[:80]!r}")
    fields = cast("dict[str, Any]", message)
    kind, data = fields.get("type"), fields.get("data")
    if type(kind) is not str or type(data) is not dict:
        raise MessageError(f"a reply that is not an OpenEnv message: {text[:80]!r}")
    return kind, cast("dict[str, Any]", data)


def as_reply(data: dict[str, Any]) -> Reply:
    """Read the data of an `observation` message, or the body of an HTTP answer."""
    observation = data.get("observation")
    fields = cast("dict[str, Any]", observation) if isinstance(observation, dict) else {}
    return Reply(fields, data.get("reward"), data.get("done") is True, data)


def as_error(data: dict[str, Any]) -> ServerError:
    """Read the data of an `error` message, the figures of a full server included."""
    code = data.get("code")
    message = str(data.get("message", ""))
    errors = data.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        first = cast("dict[str, Any]", errors[0])
        location = first.get("loc")
        place = ".".join(map(str, cast("list[object]", location))) if isinstance(location, list) else ""
        message += f" ({place}: {first.get('msg')})" if place else f" ({first.get('msg')})"
    kind = "capacity" if code == "CAPACITY_REACHED" else "environment"
    return ServerError(kind, None if code is None else str(code), message[:500])
