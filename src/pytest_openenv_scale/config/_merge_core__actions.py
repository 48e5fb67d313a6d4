"""What a session says, as a person writes it: actions and reset data, checked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from .grammar import GrammarError, parse_json, shown

MAX_ACTION_BYTES = 16 * 1024 * 1024
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class ActionSource:
    """Where actions come from.

    By `kind`, `value` is one action for every step ("json", an object), one action per step ("lines", a
    tuple of objects), or the text "module:function" of what load processes import and call with
    `(session, step)` ("callable"). The string "$wait" inside an action stands for the cell's wait.
    """

    kind: Literal["json", "lines", "callable"]
    value: Any


def parse_action(value: object, directory: Path = Path()) -> ActionSource:
    """Parse an action: a JSON object or a mapping, "@file.jsonl" below `directory`, or "module:function".

    Raises:
        GrammarError: none of these, or the file cannot be read or has a line that is not a JSON object.
    """
    if isinstance(value, ActionSource):
        return value
    text = value.strip() if isinstance(value, str) else None
    if text is not None and text.startswith("@"):
        return ActionSource("lines", _read_lines(text[1:].strip(), directory))
    if text is not None and _REFERENCE.fullmatch(text):
        return ActionSource("callable", text)
    if callable(value):
        raise GrammarError(
            f'a function is named "module:function" so that load processes import it, got {shown(value)}'
        )
    if text is not None and not text.startswith("{"):
        raise GrammarError(f'an action is a JSON object, "@file.jsonl" or "module:function", got {shown(value)}')
    return ActionSource("json", _object(value, "an action"))


def parse_reset(value: object) -> dict[str, Any]:
    """Parse the data of a reset: a JSON object or a mapping, for example {"seed": 1}."""
    return _object(value, "reset data")


def _object(value: object, what: str) -> dict[str, Any]:
    found = parse_json(value, what)
    if not isinstance(found, dict):
        raise GrammarError(f"{what} must be a JSON object, got {shown(value)}; write for example '{{\"seed\": 1}}'")
    return cast("dict[str, Any]", found)


def _read_lines(name: str, directory: Path) -> tuple[dict[str, Any], ...]:
    if not name or "\0" in name:
        raise GrammarError('an action file has no name; write for example "@actions.jsonl"')
    path = directory / name
    try:
        if path.stat().st_size > MAX_ACTION_BYTES:
            raise GrammarError(f"action file {shown(name)} is larger than {MAX_ACTION_BYTES >> 20} MiB; shorten it")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GrammarError(f"cannot read action file {shown(str(path))}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise GrammarError(f"action file {shown(name)} is not UTF-8 text; write one JSON object per line") from None
    actions = tuple(
        _object(line, f"line {number} of action file {shown(name)}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    if not actions:
        raise GrammarError(f"action file {shown(name)} is empty; write one JSON object per line, one line per step")
    return actions
