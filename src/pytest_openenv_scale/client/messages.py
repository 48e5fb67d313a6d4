"""The OpenEnv messages of a session: requests as JSON, replies read into what a client needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, cast

import msgspec

from pytest_openenv_scale.core.text import encode_json, loads, utf8_safe

_MAX_INT64, _MAX_WAITED_S = 2**63 - 1, 1e9


class MessageError(ValueError):
    """A reply is not an OpenEnv message; the text says what it is instead."""


class ServerInfo(msgspec.Struct, gc=False):
    """What the benchmark environment reports of itself in an observation; None in other environments."""

    waited_seconds: Annotated[float, msgspec.Meta(ge=0, le=_MAX_WAITED_S)] | None = None
    pid: Annotated[int, msgspec.Meta(ge=0, le=_MAX_INT64)] | None = None
    session_hash: str | None = None
    host_url: str | None = None


class ObservedReply(msgspec.Struct, gc=False):
    """What a load session needs of an observation; the rest of the reply is checked and skipped."""

    server_info: ServerInfo | None = msgspec.field(default=None, name="observation")
    done: bool | None = None


class _Message(msgspec.Struct, gc=False):
    type: str
    data: ObservedReply


_decode = msgspec.json.Decoder(_Message).decode


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


def encode_request(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Encode a message; `state` and `close` take no data."""
    message = {"type": kind} if data is None else {"type": kind, "data": data}
    return encode_json(message)


def read_answer(text: bytes) -> ObservedReply | ServerError:
    """Read the answer to a reset or a step, at a fraction of what reading the whole of it costs.

    Raises:
        MessageError: the text is neither an observation nor an error.
    """
    try:
        answer = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _read_any_message(text)
    return answer.data if answer.type == "observation" else _read_any_message(text)


def _read_any_message(text: bytes) -> ObservedReply | ServerError:
    kind, data = read_message(text)
    if kind == "error":
        return as_error(data)
    if kind != "observation":
        raise MessageError(f"a reply of type {kind!r} instead of an observation")
    return as_observed_reply(data)


def as_observed_reply(data: Mapping[str, Any]) -> ObservedReply:
    """Read an observation; fields that are not of the type the benchmark environment gives them count as missing."""
    observation = data.get("observation")
    done = data["done"] if type(data.get("done")) is bool else None
    if type(observation) is not dict:
        return ObservedReply(None, done)
    fields = cast("dict[str, Any]", observation)
    waited, pid = fields.get("waited_seconds"), fields.get("pid")
    session, host = fields.get("session_hash"), fields.get("host_url")
    server_info = ServerInfo(
        float(waited) if isinstance(waited, int | float) and 0 <= waited <= _MAX_WAITED_S else None,
        pid if type(pid) is int and 0 <= pid <= _MAX_INT64 else None,
        utf8_safe(session) if isinstance(session, str) else None,
        utf8_safe(host) if isinstance(host, str) else None,
    )
    return ObservedReply(server_info, done)


def read_message(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return type and data of a reply.

    Raises:
        MessageError: the text is no JSON object with a `type`.
    """
    try:
        message = loads(text)
    except (ValueError, RecursionError):
        raise MessageError(f"a reply that is not JSON: {_excerpt(text)}") from None
    try:
        kind, data = message["type"], message["data"]
    except (LookupError, TypeError):
        kind = data = None
    if type(kind) is not str or type(data) is not dict:
        raise MessageError(f"a reply that is not an OpenEnv message: {_excerpt(text)}")
    return kind, cast("dict[str, Any]", data)


def observation_in(text: bytes) -> Any:
    """Return the observation of an observation message, as it is; None where there is none."""
    return read_message(text)[1].get("observation")


def _excerpt(text: str | bytes) -> str:
    return repr(text[:80] if isinstance(text, str) else text[:400].decode(errors="replace")[:80])


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
        field_path = ".".join(map(str, cast("list[object]", location))) if isinstance(location, list) else ""
        message += f" ({field_path}: {first.get('msg')})" if field_path else f" ({first.get('msg')})"
    kind = "capacity" if code == "CAPACITY_REACHED" else "environment"
    return ServerError(kind, None if code is None else str(code), message[:500])
