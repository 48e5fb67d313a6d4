"""The messages of OpenEnv: requests as JSON, replies read, and which observations are errors."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, cast

import msgspec

from pytest_openenv_scale.core.text import encode_json, loads, shorten, utf8_safe

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
    if text.startswith("\ufeff") if isinstance(text, str) else text.startswith(BOM_UTF8):
        raise MessageError("a reply that begins with a byte order mark, which OpenEnv's own client takes for no JSON")
    try:
        message = loads(text)
    except RecursionError:
        raise MessageError(f"a reply that is nested too deeply to be read: {_excerpt(text)}") from None
    except ValueError:
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


MAX_WORDS = 200
"""Longest text of an error that is kept, in characters."""

_ERROR_NAME = re.compile(r"(?:^|.*_)(?:errors?|exception|traceback)(?:_?(?:message|msg|text))?|is_?error")
_PLAIN_NAMES = frozenset({"error", "errors"})
_WORDS_BESIDE = ("error_message", "message", "detail", "reason", "content", "text", "stderr")
_MARKED_FAILED = re.compile(rb'"success"\s*:\s*false')
_COMMAND_FAILED = re.compile(rb'(?i)(?:exit|return)_?code"\s*:\s*-?[1-9]')
_EXIT_CODE_NAME = re.compile(r"(?:exit|return)_?code")
_TRACEBACK = "Traceback (most recent call last)"


def may_be_error(text: bytes) -> bool:
    """Return whether the text of a reply has to be read to know whether it is an error; a search of its bytes."""
    return (
        b"rror" in text
        or b"xception" in text
        or b"raceback" in text
        or (b'"success"' in text and _MARKED_FAILED.search(text) is not None)
        or (b'ode"' in text and _COMMAND_FAILED.search(text) is not None)
    )


def error_in_text(text: bytes) -> str | None:
    """Return what `error_in` says of the text of an observation message."""
    if not may_be_error(text):
        return None
    try:
        data = loads(text)["data"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return error_in(cast("Mapping[str, Any]", data)) if isinstance(data, dict) else None


def error_in(data: Mapping[str, Any]) -> str | None:
    """Return the words of the error that an observation is, or None where it is none; `data` is a reply's.

    A field counts whose name says error (`error`, `error_message`, `last_action_error`, `isError` of MCP,
    `exception`, …) and which holds something: not null, "", false, 0, {} or []. It is looked for in the reply, the
    observation, and one level below, in the observation's `metadata` two. `success: false` counts with a text
    beside it that says why, and so does an `exit_code` or `return_code` other than 0.
    """
    observation = data.get("observation")
    levels: list[object] = [data]
    for parent in (data.get("metadata"), observation, _field(observation, "metadata")):
        levels.append(parent)
        if isinstance(parent, dict):
            levels += cast("dict[str, object]", parent).values()
    for level in levels:
        if isinstance(level, dict) and (words := _error_of(cast("dict[str, object]", level))):
            return words
    return None


def is_unsuccessful(data: Mapping[str, Any]) -> bool:
    """Return whether an observation says `success: false`, which is no error: a move of a game may not succeed."""
    return _field(data.get("observation"), "success") is False


def _error_of(fields: Mapping[str, object]) -> str | None:
    for name, value in fields.items():
        lowered = name.lower()
        if value and _ERROR_NAME.fullmatch(lowered) and not _is_measure(lowered, value):
            return _words(_text_beside(fields) or f"{name}: true") if value is True else _words(value)
    if (fields.get("success") is False or _command_failed(fields)) and (text := _text_beside(fields)):
        return _words(text)
    return None


def _command_failed(fields: Mapping[str, object]) -> bool:
    """Return whether an exit code of a command is not 0."""
    return any(type(code) is int and code and _EXIT_CODE_NAME.fullmatch(name.lower()) for name, code in fields.items())


def _is_measure(name: str, value: object) -> bool:
    """Return whether a number is a figure of the game (a `squared_error`) rather than the code of an error."""
    return isinstance(value, float) or (type(value) is int and name not in _PLAIN_NAMES)


def _text_beside(fields: Mapping[str, object]) -> object:
    return next((fields[name] for name in _WORDS_BESIDE if fields.get(name)), None)


def _words(value: object) -> str:
    if isinstance(value, list) and value:
        value = cast("list[object]", value)[0]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        value = next((fields[name] for name in _WORDS_BESIDE if isinstance(fields.get(name), str)), fields)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if _TRACEBACK in text:
        text = text.rstrip().splitlines()[-1]  # What was raised; the frames before it are longer than what is kept.
    return utf8_safe(shorten(" ".join(text.split()), MAX_WORDS))


def _field(fields: object, name: str) -> object:
    return cast("dict[str, object]", fields).get(name) if isinstance(fields, dict) else None
