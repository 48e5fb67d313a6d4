"""The options as pytest knows them: registered with their ini twins, and what is written for them where.

Every pytest run pays for this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

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
    """Return the options given in the ini file and with `-o`, by option name, as text.

    Raises:
        pytest.UsageError: a value has another type than pytest was told; one line naming where.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        try:
            values[option.name] = config.getini(option.ini)
        except (ValueError, TypeError) as error:
            raise pytest.UsageError(f"{ini_label(config, option)}: {error}") from None
    return {name: value for name, value in values.items() if value is not None}


def value_sources(config: pytest.Config) -> frozenset[str]:
    """Return where anything is written: "command line", "ini", both or neither.

    Raises:
        pytest.UsageError: an ini value has another type than pytest was told.
    """
    by_source = {"command line": command_line_values(config), "ini": ini_values(config)}
    return frozenset(source for source, values in by_source.items() if values)


def ini_label(config: pytest.Config, option: Option) -> str:
    """Return the name of an ini key in errors, with its file, or with `-o` where that sets it."""
    overridden = {text.partition("=")[0].strip() for text in config.getoption("override_ini") or ()}
    file = config.inipath.name if config.inipath else "ini"
    return f"-o {option.ini}" if option.ini in overridden else f"{option.ini} in {file}"
