"""What sessions send: actions and reset data as a person writes them, and where each session takes its own from."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast

from pytest_openenv_scale.core.errors import GrammarError, ScaleError
from pytest_openenv_scale.core.files import read_written_lines
from pytest_openenv_scale.core.own_process import import_user_module, standard_library_first
from pytest_openenv_scale.core.parsing import parse_json, short_repr
from pytest_openenv_scale.core.text import on_one_line, shorten

_WAIT, _SEED = "$wait", "$seed"
_NO_SCHEMA = "no /schema: wait_seconds"
_MAX_TEMPLATE = 300


class WorkloadError(ScaleError, ValueError):
    """No action can be made, or a callable cannot be imported or fails; one line."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What the sessions of a sweep send.

    `actions` holds one action for every step, or one per step (the last is repeated beyond its end);
    `sessions` holds those of each session, session i taking entry i mod n; `function` is "module:function",
    called with `(session, step)`, both counted from 0, or with `(session, step, observation)`. The string
    "$wait" in an action stands for the cell's wait in seconds; `waits` tells whether the wait means
    anything. `reset` is the reset data of every session, in which "$seed" stands for a seed of the session's
    own, or where each session's come from. `source` says where the actions come from. Where none can be made,
    `no_action` says why: `maker` then raises, and sessions can be opened and reset.
    """

    actions: tuple[Mapping[str, Any], ...] = ()
    function: str | None = None
    reset: Mapping[str, Any] | ActionSource = field(default_factory=dict[str, Any])
    waits: bool = True
    source: str = "default"
    sessions: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    no_action: str | None = None

    @property
    def made_up(self) -> bool:
        """Whether the action was made from `/schema` alone, so that it may mean nothing to the environment."""
        return self.source == "/schema" and not self.waits

    @property
    def guessed(self) -> bool:
        """Whether the action is a guess, as the server publishes no `/schema` that an action could be made from."""
        return self.source == _NO_SCHEMA

    @property
    def seeded(self) -> bool:
        """Whether each session resets with data of its own."""
        return isinstance(self.reset, ActionSource) or _mentions(self.reset, _SEED)

    @property
    def per_session(self) -> bool:
        """Whether each session has actions of its own."""
        return self.function is not None or bool(self.sessions)

    def reset_data(self, session: int, seed: int) -> Mapping[str, Any]:
        """Return the reset data of a session, counted from 0; its own seed is `seed` plus its number.

        Raises:
            WorkloadError: the callable cannot be imported or fails, or returns what is no reset data.
        """
        match self.reset:
            case ActionSource("lines", rows):
                data = rows[session % len(rows)]
            case ActionSource("callable", reference):
                data = _checked_call(reference, import_callable(reference), session)
            case ActionSource(value=data):
                pass
            case data:
                pass
        return cast("Mapping[str, Any]", _substitute(data, _SEED, seed + session))

    def maker(self, wait: float | None) -> ActionMaker:
        """Return what makes the actions of a cell.

        Raises:
            WorkloadError: there is no action, or the callable cannot be imported; calling the result raises it too, if
                the callable fails or returns no mapping, or one that JSON cannot hold.
        """
        if self.no_action is not None:
            raise WorkloadError(self.no_action)
        if self.function is None:
            sessions = [[_substitute_wait(action, wait) for action in row] for row in self.sessions or (self.actions,)]

            def pick(session: int, step: int, observation: Any) -> Mapping[str, Any]:
                row = sessions[session % len(sessions)]
                return row[min(step, len(row) - 1)]

            return ActionMaker(pick)
        reference, function = self.function, import_callable(self.function)
        observes = _takes_three(function)

        def make(session: int, step: int, observation: Any) -> Mapping[str, Any]:
            arguments = (session, step, observation) if observes else (session, step)
            return cast("Mapping[str, Any]", _substitute_wait(_checked_call(reference, function, *arguments), wait))

        return ActionMaker(make, observes)


@dataclass(frozen=True, slots=True)
class ActionMaker:
    """Makes the action of a step; `observes` tells that it is made of the last observation."""

    make: Callable[[int, int, Any], Mapping[str, Any]]
    observes: bool = False

    def __call__(self, session: int, step: int, observation: Any = None) -> Mapping[str, Any]:
        """Return the action of a session's step, both counted from 0.

        Raises:
            WorkloadError: the user's function fails, or returns what is no action.
        """
        return self.make(session, step, observation)


def _takes_three(function: Callable[..., Any]) -> bool:
    """Return whether a function takes the last observation as well."""
    try:
        signature(function).bind(0, 0, None)
    except (TypeError, ValueError):
        return False
    return True


def _checked_call(reference: str, function: Callable[..., Any], *arguments: Any) -> Mapping[str, Any]:
    shown = ", ".join(str(argument) for argument in arguments[:2]) + (", …" if len(arguments) > 2 else "")
    call = f"{reference}({shown})"
    try:
        value = function(*arguments)
    except Exception as error:
        raise WorkloadError(f"{call} raised {type(error).__name__}: {error}") from error
    if not isinstance(value, Mapping):
        raise WorkloadError(f"{call} returned {type(value).__name__}; return a dict")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkloadError(f"{call} returned what JSON cannot hold: {error}") from None
    return cast("Mapping[str, Any]", value)


def look_in(folder: Path, *sources: object) -> None:
    """Let functions that any of these name as module:function be found in a folder, behind the standard library."""
    if any(isinstance(source, ActionSource) and source.kind == "callable" for source in sources):
        sys.path[:] = standard_library_first([str(folder), *sys.path])


def import_callable(reference: str) -> Callable[..., Any]:
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
    schema: Mapping[str, Any] | None, action: ActionSource | None, reset: Mapping[str, Any] | ActionSource | None
) -> Workload:
    """Decide what sessions send: what a person wrote, else an action made from the schema of `/schema`.

    `schema` is the JSON schema of the action, None where the server has no `/schema`.

    Raises:
        WorkloadError: no action was given and none can be made from the schema.
    """
    from .action_schema.make import NoActionError, make_action

    data = reset or {}
    if action is not None:
        if action.kind == "callable":
            return Workload(function=action.value, reset=data, source=action.value)
        waits, source = _mentions(action.value, _WAIT), "as written"
        if action.kind == "sessions":
            return Workload(sessions=action.value, reset=data, waits=waits, source=source)
        actions = action.value if action.kind == "lines" else (action.value,)
        return Workload(tuple(actions), None, data, waits, source)
    if schema is None:
        return Workload(({"wait_seconds": _WAIT},), None, data, True, _NO_SCHEMA)
    try:
        made = make_action(schema)
    except NoActionError as error:
        problem = f"{shorten(on_one_line(error.pointer), 160)}: {error.reason}"
        option = f"--openenv-action {_template(error.template)}"
        raise WorkloadError(f"no action can be made from /schema ({problem}); write one with {option}") from None
    waits = "wait_seconds" in made.fields
    made_action = {**made.action, "wait_seconds": _WAIT} if waits else made.action
    return Workload((made_action,), None, data, waits, "/schema")


def without_action(reset: Mapping[str, Any] | ActionSource | None, problem: WorkloadError) -> Workload:
    """Return the workload of sessions that are opened and reset only, as no action can be made."""
    return Workload(reset=reset or {}, waits=False, source="none", no_action=str(problem))


def _template(template: object) -> str:
    """Return an action to be filled in as a shell takes it; "{…}" where it is long or no object."""
    text = on_one_line(json.dumps(template, ensure_ascii=False)) if isinstance(template, dict) and template else ""
    return shlex.quote(text if 0 < len(text) <= _MAX_TEMPLATE else "{…}")


def _substitute_wait(action: Any, wait: float | None) -> Any:
    return _substitute(action, _WAIT, 0.0 if wait is None else wait)


def _substitute(value: Any, name: str, replacement: Any) -> Any:
    """Return the value with `replacement` wherever the text `name` stands alone; "$$seed" is the text "$seed"."""
    if value == name:
        return replacement
    if isinstance(value, str):
        return value[1:] if _ESCAPED.fullmatch(value) else value
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


_PLACEHOLDER = re.compile(r"\$\{?[A-Za-z_]{2,12}\}?")
_ESCAPED = re.compile(rf"\${_PLACEHOLDER.pattern}")
_LIKENESS = 0.75
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class ActionSource:
    """Where actions, or the reset data of sessions, come from.

    By `kind`, `value` is one for all ("json", an object), one per step, or of reset data one per session ("lines", a
    tuple of objects), the steps of each session ("sessions", a tuple of tuples), or the text "module:function" of what
    load processes import and call ("callable"): with `(session, step)` or `(session, step, observation)` for an action,
    with the session's number for reset data. The string "$wait" inside an action stands for the cell's wait.
    """

    kind: Literal["json", "lines", "sessions", "callable"]
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

    A line of the file is a JSON object, one per step, or an array of objects, the steps of one session.

    Raises:
        GrammarError: none of these, or the file cannot be read or has a line that is neither.
    """
    source = _parse_source(value, directory, "an action", _WAIT)
    if source.kind != "lines":
        return source
    arrays = [isinstance(line, list) for line in source.value]
    if any(arrays) and not all(arrays):
        raise GrammarError(
            f"line {arrays.index(not arrays[0]) + 1} of the action file is {'an object' if arrays[0] else 'an array'}, "
            "others are not; write one object per step, or one array of objects per session"
        )
    sessions = cast("tuple[list[dict[str, Any]], ...]", source.value)
    return ActionSource("sessions", tuple(tuple(steps) for steps in sessions)) if all(arrays) else source


def parse_reset(value: object, directory: Path = Path()) -> dict[str, Any] | ActionSource:
    """Parse reset data: a JSON object or a mapping, for example {"seed": 1}, or where each session's come from.

    "@rows.jsonl" below `directory` has one object per session, session i taking line i mod n; "module:function" is
    called with the session's number.

    Raises:
        GrammarError: none of these, or the file cannot be read or has a line that is not a JSON object.
    """
    source = _parse_source(value, directory, "reset data", _SEED)
    if source.kind == "lines" and not all(isinstance(line, dict) for line in source.value):
        raise GrammarError("a line of the file of reset data is an array; write one JSON object per session")
    return source.value if source.kind == "json" else source


def _parse_source(value: object, directory: Path, what: str, placeholder: str) -> ActionSource:
    if isinstance(value, ActionSource):
        return value
    text = value.strip() if isinstance(value, str) else None
    if text is not None and text.startswith("@"):
        return ActionSource("lines", _read_lines(text[1:].strip(), directory, placeholder))
    if text is not None and _REFERENCE.fullmatch(text):
        return ActionSource("callable", text)
    if callable(value):
        raise GrammarError(
            f'a function is named "module:function" so that load processes import it, got {short_repr(value)}'
        )
    if text is not None and not text.startswith("{"):
        raise GrammarError(f'{what} must be a JSON object, "@file.jsonl" or "module:function", got {short_repr(value)}')
    return ActionSource("json", _parse_object(value, what, placeholder))


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
        name = re.sub("[{}]", "", data.lower())
        meant = difflib.get_close_matches(name, (_WAIT, _SEED), n=1, cutoff=_LIKENESS)
        if meant:
            hint = f'did you mean "{placeholder}"?' if meant == [placeholder] else f'only "{placeholder}" is one there'
            raise GrammarError(f'{what} has no placeholder {short_repr(data)}; {hint} ("${data}" is the text itself)')


def _read_lines(name: str, directory: Path, placeholder: str) -> tuple[Any, ...]:
    """Return the objects, or arrays of objects, that the lines of a file hold."""
    lines = read_written_lines(name, directory, holds="one JSON object per line", example="@actions.jsonl")
    return tuple(
        _parse_line(line, f"line {number} of file {short_repr(name)}", placeholder) for number, line in lines.items()
    )


def _parse_line(line: str, what: str, placeholder: str) -> Any:
    if not line.lstrip().startswith("["):
        return _parse_object(line, what, placeholder)
    steps = parse_json(line, what)
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise GrammarError(f"{what} must be a JSON object, or an array of them that is not empty")
    _refuse_mistyped(steps, what, placeholder)
    return steps
