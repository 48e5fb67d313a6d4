"""The options of a target (`key=value` in its specification) and the context the run gives it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import parse_count, parse_seconds, short_repr, suggestion
from pytest_openenv_scale.core.target_spec import TargetSpec, value_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)i?b?", re.IGNORECASE)
_MIN_MEMORY = 6 * 1024**2
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Parser = Callable[[str, str], Any]
"""Takes the text of a value and what to call it in an error."""


def text(value: str, what: str) -> str:
    """Accept any text."""
    return value


def count(value: str, what: str) -> int:
    """Parse a whole number of at least 1."""
    return parse_count(value, what=what)


def seconds(value: str, what: str) -> float:
    """Parse a time above 0: "180", "180s", "500ms"."""
    return parse_seconds(value, positive=True, what=what)


def tcp_port(value: str, what: str) -> int:
    """Parse a TCP port from 1 to 65535."""
    return parse_count(value, maximum=65535, what=what)


def one_of(*choices: str) -> Parser:
    """Return a parser that accepts exactly `choices`, and names them all where it does not."""
    written = " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)

    def parse(value: str, what: str) -> str:
        if value not in choices:
            raise GrammarError(f"{what} has no choice {value!r}; write {written}")
        return value

    return parse


def is_path(name: str) -> bool:
    """Say whether a target's argument is a path and no name: it begins with ".", "/" or "~"."""
    return name.startswith((".", "/", "~"))


def with_argument_as_option(spec: TargetSpec) -> TargetSpec:
    """Return `name:key=value,…` as `name,key=value,…`, which says the same.

    Raises:
        GrammarError: the argument is not `key=value`, or the key is given twice.
    """
    if spec.argument is None:
        return spec
    key, equals, value = (part.strip() for part in spec.argument.partition("="))
    if not equals or not value:
        raise GrammarError(
            f"target {spec.name} takes key=value after its colon, got {short_repr(spec.argument)}; "
            f"write {spec.name}:KEY=VALUE"
        )
    if spec.option(key) is not None:
        raise GrammarError(f"target key {key!r} is given twice; write it once")
    return TargetSpec(spec.name, None, tuple(sorted([*spec.options, (key, value_of(key, value))])))


_PARSER, _PREFIX = "parser", "prefix"
_T = TypeVar("_T", bound="DataclassInstance")


def option(parse: Parser = text, default: Any = None) -> Any:
    """Return a dataclass field that is a key of a specification; `parse` reads the text of its value."""
    return field(default=default, metadata={_PARSER: parse})


def variables(prefix: str = "env") -> Any:
    """Return a dataclass field for what `PREFIX.NAME=value` sets, by NAME."""
    return field(default_factory=dict[str, str], repr=False, metadata={_PREFIX: prefix})


@dataclass(frozen=True)
class TargetOptions:
    """The keys of every target: what its endpoint is called, and what is known of the machine and of its servers."""

    label: str | None = option()
    cores: int | None = option(count)
    hardware: str | None = option()
    workers: int | None = option(count)
    max_envs: int | None = option(count)

    @property
    def declared(self) -> dict[str, int]:
        """Those of `workers` and `max_envs` that were given."""
        counts = {"workers": self.workers, "max_envs": self.max_envs}
        return {name: number for name, number in counts.items() if number is not None}


@dataclass(frozen=True)
class StartOptions:
    """The key of every target that starts something: seconds until the first answered session (None: a default)."""

    start_timeout: float | None = option(seconds)


def option_names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the keys of a dataclass of options."""
    return tuple(field.name for field in fields(kind) if _PARSER in field.metadata)


def prefixes(kind: type[DataclassInstance]) -> dict[str, str]:
    """Return by PREFIX the fields of a dataclass of options that hold what `PREFIX.NAME=value` sets."""
    return {field.metadata[_PREFIX]: field.name for field in fields(kind) if _PREFIX in field.metadata}


def read_options(spec: TargetSpec, kind: type[_T]) -> _T:
    """Read the options of `spec` into a dataclass whose fields are `option` and `variables`.

    Raises:
        GrammarError: a key is unknown, or a value cannot be parsed; the line names the target and the key.
    """
    parsers = {field.name: field.metadata[_PARSER] for field in fields(kind) if _PARSER in field.metadata}
    names = prefixes(kind)
    values: dict[str, Any] = {name: {} for name in names.values()}
    target = "a URL" if spec.name == "url" else f"target {spec.name}"
    for key, value in spec.options:
        prefix, _, variable = key.partition(".")
        if prefix in names and _VARIABLE.fullmatch(variable):
            values[names[prefix]][variable] = value
        elif key in parsers:
            values[key] = parsers[key](value, f"{target}: {key}")
        else:
            allowed = [*sorted(parsers), *(f"{prefix}.NAME" for prefix in names)]
            hint = suggestion(key, allowed)
            key_list = "" if hint.startswith("; write one of") else f" (keys: {', '.join(allowed)})"
            raise GrammarError(f"{target} has no key {key!r}{hint}{key_list}")
    return kind(**values)


_VARIABLES = {"workers": "WORKERS", "max_envs": "MAX_CONCURRENT_ENVS"}
"""The settings of a server of ours that it reads from its environment, by our name of each."""


def variables_for(**settings: int | str | None) -> dict[str, str]:
    """Return the variables that set `workers` and `max_envs`, where they were given."""
    return {_VARIABLES[name]: str(value) for name, value in settings.items() if value is not None}


def settings_of(variables: Mapping[str, str]) -> dict[str, str | int]:
    """Return `workers` and `max_envs` where variables set them to a number of at least 1."""
    texts = {name: variables.get(variable, "") for name, variable in _VARIABLES.items()}
    return {name: int(text) for name, text in texts.items() if text.isdecimal() and int(text) > 0}


def ignore_line(text: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class FirstSession:
    """How the session is played that shows that a server is ready: its protocol (ws or http), reset data, network."""

    mode: str = "ws"
    reset: Mapping[str, Any] = field(default_factory=dict[str, Any])
    network: Network = DIRECT


@dataclass(frozen=True)
class TargetContext:
    """The run a target is opened for.

    `largest_batch` is the most sessions any cell will ask for (backlogs are sized to it), `root` the
    directory whose `openenv.yaml` counts, `log_path` where a started server's output goes (None: an
    unnamed temporary file), `modes` the protocols that will be spoken. `headers` are sent with every
    request and never shown. `run_id` names the run on what is started outside this process (None: none).
    `show_progress` shows one line of what happens while a target opens, and `show_status` what was heard of it last,
    such as a line of a build's output: the next one takes its place, so that it may be called often.

    `timeout_s` is how many seconds the run gives each phase of a session (None: nobody said), `reset` the reset data of
    sessions. `network` is how the server is reached.

    `rootpath` is pytest's root, from where relative paths may be meant as well (None: `root`), and `pythonpath` what
    pytest imports from. `searched` are the folders from which no `openenv.yaml` was found upward.
    """

    root: Path
    largest_batch: int = 1
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    log_path: Path | None = None
    modes: tuple[str, ...] = ("ws",)
    run_id: str | None = None
    show_progress: Callable[[str], None] = field(default=ignore_line, repr=False)
    show_status: Callable[[str], None] = field(default=ignore_line, repr=False)
    timeout_s: float | None = None
    rootpath: Path | None = None
    pythonpath: tuple[Path, ...] = ()
    searched: tuple[Path, ...] = ()
    reset: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    network: Network = DIRECT

    @property
    def first_session(self) -> FirstSession:
        """How the session is played that shows that a server is ready."""
        return FirstSession("ws" if "ws" in self.modes else "http", self.reset, self.network)

    @property
    def base(self) -> Path:
        """Where a relative path may begin as well as in the working directory."""
        return self.rootpath or self.root


def processors(value: str, what: str) -> float:
    """Parse a number of processors, of which half ones may be given too."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 4096:
        raise GrammarError(f"{what} must be a number of processors of at least 0.01, got {value!r}; write 2 or 0.5")
    return number


def memory_size(value: str, what: str) -> int:
    """Parse bytes as docker writes them: "512m", "2g"."""
    match = _MEMORY.fullmatch(value)
    number = float(match[1]) * 1024 ** "kmgt".index(match[2].lower()) * 1024 if match and match[2] else 0
    number = float(match[1]) if match and not match[2] else number
    if number < _MIN_MEMORY:
        raise GrammarError(f"{what} must be at least 6m, the least an engine allows, got {value!r}; write 512m or 2g")
    return int(number)


def format_memory(memory: int) -> str:
    """Return bytes as docker writes them: "512m", "2g"."""
    for power, unit in ((3, "g"), (2, "m"), (1, "k")):
        whole = memory / 1024**power
        if whole >= 1 and math.isclose(whole, round(whole, 2)):
            return f"{round(whole, 2):g}{unit}"
    return str(memory)
