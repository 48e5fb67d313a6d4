"""Whether an observation is an error: environments answer a bad action, or a missing tool, in words of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from pytest_openenv_scale.core.text import loads, shorten, utf8_safe

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
