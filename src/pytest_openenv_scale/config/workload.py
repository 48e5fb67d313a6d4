"""What sessions send: actions and reset data as a person writes them, and where each session takes its own from."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from pytest_openenv_scale.core.errors import GrammarError, ScaleError
from pytest_openenv_scale.core.own_process import import_user_module
from pytest_openenv_scale.core.parsing import parse_json, short_repr
from pytest_openenv_scale.core.text import on_one_line, shorten

_WAIT, _SEED = "$wait", "$seed"
_MAX_TEMPLATE = 300


class WorkloadError(ScaleError, ValueError):
    """No action can be made, or a callable cannot be imported or fails; one line."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What the sessions of a sweep send.

    `actions` holds one action for every step, or one per step (the last is repeated beyond its end);
    `function` is "module:function", called with `(session, step)`, both counted from 0. The string
    "$wait" in an action stands for the cell's wait in seconds; `waits` tells whether the wait means
    anything. "$seed" in the reset data stands for a seed of the session's own. `source` says where the
    actions come from.
    """

    actions: tuple[Mapping[str, Any], ...] = ()
    function: str | None = None
    reset: Mapping[str, Any] = field(default_factory=dict[str, Any])
    waits: bool = True
    source: str = "default"

    @property
    def made_up(self) -> bool:
        """Whether the action was made from `/schema` alone, so that it may mean nothing to the environment."""
        return self.source == "/schema" and not self.waits

    @property
    def seeded(self) -> bool:
        """Whether each session resets with a seed of its own."""
        return _mentions(self.reset, _SEED)

    def reset_data(self, seed: int) -> Mapping[str, Any]:
        """Return the reset data of the session with this seed."""
        return cast("Mapping[str, Any]", _substitute(self.reset, _SEED, seed))

    def maker(self, wait: float | None) -> Callable[[int, int], Mapping[str, Any]]:
        """Return `(session, step) -> action` for a cell.

        Raises:
            WorkloadError: the callable cannot be imported; calling the result raises it too, if the
                callable fails or returns no mapping, or one that JSON cannot hold.
        """
        if self.function is None:
            filled = [_substitute_wait(action, wait) for action in self.actions]
            return lambda session, step: filled[min(step, len(filled) - 1)]
        function = import_callable(self.function)

        def make(session: int, step: int) -> Mapping[str, Any]:
            try:
                action = function(session, step)
            except Exception as error:
                raise WorkloadError(
                    f"{self.function}({session}, {step}) raised {type(error).__name__}: {error}"
                ) from error
            if not isinstance(action, Mapping):
                raise WorkloadError(
                    f"{self.function}({session}, {step}) returned {type(action).__name__}; return the action as a dict"
                )
            filled = cast("Mapping[str, Any]", _substitute_wait(action, wait))
            try:
                json.dumps(filled, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise WorkloadError(
                    f"{self.function}({session}, {step}) returned what JSON cannot hold: {error}"
                ) from None
            return filled

        return make


def import_callable(reference: str) -> Callable[[int, int], Any]:
    """Import "module:function".

    Raises:
        WorkloadError: the module does not import, or has no such callable.
    """
    module_name, _, path = reference.partition(":")
    try:
        attribute: Any = import_user_module(module_name)
    except Exception as error:
        raise WorkloadError(
            f"action {reference}: {module_name} does not import ({type(error).__name__}: {error})"
        ) from None
    for name in path.split("."):
        attribute = getattr(attribute, name, None)
    if not callable(attribute):
        raise WorkloadError(f"action {reference}: {module_name} has no function {path}")
    return attribute


def make_workload(
    schema: Mapping[str, Any] | None, action: ActionSource | None, reset: Mapping[str, Any] | None
) -> Workload:
    """Decide what sessions send: what a person wrote, else an action made from the schema of `/schema`.

    `schema` is the JSON schema of the action, None where the server has no `/schema`.

    Raises:
        WorkloadError: no action was given and none can be made from the schema.
    """
    from .action_schema.make import NoActionError, make_action

    data = dict(reset or {})
    if action is not None:
        if action.kind == "callable":
            return Workload(function=action.value, reset=data, source=action.value)
        actions = action.value if action.kind == "lines" else (action.value,)
        return Workload(tuple(actions), None, data, _mentions(actions, _WAIT), "as written")
    if schema is None:
        return Workload(({"wait_seconds": _WAIT},), None, data, True, "no /schema: wait_seconds")
    try:
        made = make_action(schema)
    except NoActionError as error:
        problem = f"{shorten(on_one_line(error.pointer), 160)}: {error.reason}"
        option = f"--openenv-action {_template(error.template)}"
        raise WorkloadError(f"no action can be made from /schema ({problem}); write one with {option}") from None
    waits = "wait_seconds" in made.fields
    made_action = {**made.action, "wait_seconds": _WAIT} if waits else made.action
    return Workload((made_action,), None, data, waits, "/schema")


def _template(template: object) -> str:
    """Return an action to be filled in as a shell takes it; "{…}" where it is long or no object."""
    text = on_one_line(json.dumps(template, ensure_ascii=False)) if isinstance(template, dict) and template else ""
    return shlex.quote(text if 0 < len(text) <= _MAX_TEMPLATE else "{…}")


def _substitute_wait(action: Any, wait: float | None) -> Any:
    return _substitute(action, _WAIT, 0.0 if wait is None else wait)


def _substitute(value: Any, name: str, replacement: Any) -> Any:
    """Return the value with `meaning` wherever the text `name` stands alone."""
    if value == name:
        return replacement
    if isinstance(value, Mapping):
        return {key: _substitute(item, name, replacement) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_substitute(item, name, replacement) for item in cast("list[Any]", value)]
    return value


def _mentions(value: Any, name: str) -> bool:
    if isinstance(value, Mapping):
        return any(_mentions(item, name) for item in cast("Mapping[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return any(_mentions(item, name) for item in cast("list[Any]", value))
    return value == name


MAX_ACTION_BYTES = 16 * 1024 * 1024
_PLACEHOLDER = re.compile(r"\$[A-Za-z_]{2,12}")
_LIKENESS = 0.75
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

    @property
    def tool_name(self) -> str | None:
        """The tool that the action names without the arguments of its call; None where it is whole as it is."""
        if self.kind != "json" or not set(self.value) <= {"type", "tool_name"}:
            return None
        name = self.value.get("tool_name")
        return name if isinstance(name, str) else None


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
            f'a function is named "module:function" so that load processes import it, got {short_repr(value)}'
        )
    if text is not None and not text.startswith("{"):
        raise GrammarError(f'an action is a JSON object, "@file.jsonl" or "module:function", got {short_repr(value)}')
    return ActionSource("json", _parse_object(value, "an action", _WAIT))


def parse_reset(value: object) -> dict[str, Any]:
    """Parse the data of a reset: a JSON object or a mapping, for example {"seed": 1}."""
    return _parse_object(value, "reset data", _SEED)


def _parse_object(value: object, what: str, placeholder: str) -> dict[str, Any]:
    data = parse_json(value, what)
    if not isinstance(data, dict):
        raise GrammarError(
            f"{what} must be a JSON object, got {short_repr(value)}; write for example '{{\"seed\": 1}}'"
        )
    _refuse_mistyped(data, what, placeholder)
    return cast("dict[str, Any]", data)


def _refuse_mistyped(data: Any, what: str, placeholder: str) -> None:
    """Refuse text that was meant as a placeholder: one of another place, or close to the one of this."""
    if isinstance(data, Mapping | list):
        values = cast("Mapping[str, Any]", data).values() if isinstance(data, Mapping) else cast("list[Any]", data)
        for value in values:
            _refuse_mistyped(value, what, placeholder)
    elif isinstance(data, str) and data != placeholder and _PLACEHOLDER.fullmatch(data):
        meant = difflib.get_close_matches(data.lower(), (_WAIT, _SEED), n=1, cutoff=_LIKENESS)
        if meant:
            hint = f'did you mean "{placeholder}"?' if meant == [placeholder] else f'only "{placeholder}" is one there'
            raise GrammarError(f"{what} has no placeholder {short_repr(data)}; {hint}")


def _read_lines(name: str, directory: Path) -> tuple[dict[str, Any], ...]:
    if not name or "\0" in name:
        raise GrammarError('an action file has no name; write for example "@actions.jsonl"')
    path = directory / name
    try:
        if path.stat().st_size > MAX_ACTION_BYTES:
            raise GrammarError(
                f"action file {short_repr(name)} is larger than {MAX_ACTION_BYTES >> 20} MiB; shorten it"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GrammarError(f"cannot read action file {short_repr(str(path))}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise GrammarError(
            f"action file {short_repr(name)} is not UTF-8 text; write one JSON object per line"
        ) from None
    actions = tuple(
        _parse_object(line, f"line {number} of action file {short_repr(name)}", _WAIT)
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    if not actions:
        raise GrammarError(
            f"action file {short_repr(name)} is empty; write one JSON object per line, one line per step"
        )
    return actions
