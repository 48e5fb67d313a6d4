"""The options as pytest knows them: registered with their ini twins, and what is written for them where.

Every pytest run pays for this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import pytest

from pytest_openenv_scale.config.options import OPTIONS, Option

_INI_TYPES: Mapping[str, Literal["string", "linelist", "bool"]] = MappingProxyType(
    {"once": "string", "repeated": "linelist", "flag": "bool"}
)


HEADING = """OpenEnv scaling: how many sessions does a server hold at once?
  A batch is a number of sessions that are open at the same time (concurrency).
  A wait is the time that the environment spends in each step (simulated step time).
  Every option is also a key of the ini file, for example openenv_max_sessions"""
"""What `pytest --help` shows above the options; argparse adds a colon."""


def register_options(parser: pytest.Parser) -> None:
    """Add every option, in a group of its own, and its ini twin."""
    group = parser.getgroup("openenv-scale", HEADING)
    for option in OPTIONS:
        group.addoption(option.flag, **option.form)
        parser.addini(option.ini, f"Same as {option.flag}.", type=_INI_TYPES[option.kind], default=None)


def command_line_values(config: pytest.Config) -> dict[str, Any]:
    """Return the options given on the command line, by option name, as text."""
    values = {option.name: config.getoption(option.ini) for option in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def ini_values(config: pytest.Config) -> dict[str, Any]:
    """Return the options given in the ini file and with `-o`, by option name.

    They are text, as pytest reads it, or in a TOML file values with types of their own: `openenv_batches = [1, 8]`.

    Raises:
        pytest.UsageError: a value has another type than its option takes, or its table is not read; one line that
            names it.
    """
    values: dict[str, Any] = {}
    native = _toml_values(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest 9.2 deprecates lists where it expects text; they are read here.
        for option in OPTIONS:
            value, problem = None, None
            try:
                value = config.getini(option.ini)
            except (ValueError, TypeError, pytest.UsageError) as error:
                problem = error
            if option.ini in native and option.kind != "flag" and (value is not None or problem is not None):
                value, problem = _typed(config, option, native[option.ini]), None
            if problem is not None:
                raise pytest.UsageError(f"{ini_label(config, option)}: {problem}") from None
            if value is not None:
                values[option.name] = value
    return values


def _toml_values(config: pytest.Config) -> Mapping[str, Any]:
    """Return the keys of ours in the TOML file of this run, with their own types, but those that `-o` overrides.

    pytest lets a key have one type there, before 9.2, and refuses `openenv_reps = 3` where it expects text.

    Raises:
        pytest.UsageError: they stand in a table that this pytest does not read.
    """
    path = config.inipath
    if path is None or path.suffix != ".toml" or "openenv_" not in (text := path.read_text(encoding="utf-8")):
        return {}
    import tomllib

    document: dict[str, Any] = tomllib.loads(text)
    table: dict[str, Any] = document.get("tool", {}).get("pytest", {})
    if pytest.version_tuple < (9,) and (unread := next((key for key in table if key.startswith("openenv_")), None)):
        raise pytest.UsageError(
            f"{unread} in {path.name}: pytest 9 and later read [tool.pytest], this is pytest {pytest.__version__}; "
            "write it below [tool.pytest.ini_options]"
        )
    written = {**document.get("pytest", {}), **table, **table.get("ini_options", {})}
    return {key: value for key, value in written.items() if key not in _overridden(config)}


def _typed(config: pytest.Config, option: Option, value: Any) -> Any:
    """Return a value of a TOML file as the option is read: what may be repeated is a list of texts.

    Raises:
        pytest.UsageError: it may be repeated and is no text, nor a list of texts.
    """
    if option.kind != "repeated":
        return value
    listed = value.splitlines() if isinstance(value, str) else value
    texts = cast("list[Any]", listed) if isinstance(listed, list) else [listed]
    if others := [type(text).__name__ for text in texts if not isinstance(text, str)]:  # Not the values: secrets.
        raise pytest.UsageError(f"{ini_label(config, option)}: it must be a text or a list of texts, got {others[0]}")
    return [line for text in texts if (line := text.strip())]


def value_sources(config: pytest.Config) -> frozenset[str]:
    """Return where anything is written: "command line", "ini", both or neither.

    Raises:
        pytest.UsageError: an ini value has another type than pytest was told.
    """
    by_source = {"command line": command_line_values(config), "ini": ini_values(config)}
    return frozenset(source for source, values in by_source.items() if values)


def ini_label(config: pytest.Config, option: Option) -> str:
    """Return the name of an ini key in errors, with its file, or with `-o` where that sets it."""
    file = config.inipath.name if config.inipath else "ini"
    return f"-o {option.ini}" if option.ini in _overridden(config) else f"{option.ini} in {file}"


def _overridden(config: pytest.Config) -> Collection[str]:
    return {text.partition("=")[0].strip() for text in config.getoption("override_ini") or ()}
