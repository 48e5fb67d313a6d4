"""The `key=value` part of a target specification: which keys there are, and their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, nearest, parse_count, shown

_VARIABLE = re.compile(r"env\.([A-Za-z_][A-Za-z0-9_]*)")

Parser = Callable[[str, str], Any]
"""Takes the text of a value and what to call it in an error."""


@dataclass(frozen=True)
class TargetOptions:
    """The parsed keys of one specification; `env` holds what `env.NAME=value` sets."""

    values: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def text(self, key: str) -> str | None:
        """Return the text of `key`, or None where it was not given."""
        return self.values.get(key)

    def count(self, key: str) -> int | None:
        """Return the number of `key`, or None where it was not given."""
        return self.values.get(key)


def text(value: str, what: str) -> str:
    """Accept any text."""
    return value


def count(value: str, what: str) -> int:
    """Parse a whole number of at least 1."""
    return parse_count(value, what=what)


def port(value: str, what: str) -> int:
    """Parse a TCP port from 1 to 65535."""
    return parse_count(value, maximum=65535, what=what)


def one_of(*choices: str) -> Parser:
    """Return a parser that accepts exactly `choices`."""

    def parse(value: str, what: str) -> str:
        if value not in choices:
            raise GrammarError(f"{what} has no choice {value!r}{nearest(value, choices)}")
        return value

    return parse


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
            f"target {spec.name} takes key=value after its colon, got {shown(spec.argument)}; "
            f"write {spec.name}:KEY=VALUE"
        )
    if spec.option(key) is not None:
        raise GrammarError(f"target key {key!r} is given twice; write it once")
    return TargetSpec(spec.name, None, tuple(sorted([*spec.options, (key, value)])))


def read_options(spec: TargetSpec, parsers: Mapping[str, Parser], *, env: bool = False) -> TargetOptions:
    """Parse the options of `spec` with the parser of each key; `env` allows `env.NAME=value`.

    Raises:
        GrammarError: a key is unknown, or a value cannot be parsed; the line names the target and the key.
    """
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    name = "a URL" if spec.name == "url" else f"target {spec.name}"
    for key, value in spec.options:
        variable = _VARIABLE.fullmatch(key) if env else None
        if variable:
            variables[variable[1]] = value
        elif key in parsers:
            values[key] = parsers[key](value, f"{name}: {key}")
        else:
            known = [*sorted(parsers), *(["env.NAME"] if env else [])]
            hint = nearest(key, known)
            listed = "" if hint.startswith("; write one of") else f" (keys: {', '.join(known)})"
            raise GrammarError(f"{name} has no key {key!r}{hint}{listed}")
    return TargetOptions(values, variables)
