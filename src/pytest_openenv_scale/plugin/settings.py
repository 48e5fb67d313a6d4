"""What the options mean: command line, ini file and defaults become frozen settings.

Precedence is command line, mark, ini, default. A wrong value ends the run before anything starts, with one
line that names the option or the ini key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from .core.grammar import GrammarError, parse_target, redact_target
from .core.settings import AXES, RERUN_OPTIONS, Settings, Source
from .option_values import PARSERS, Place, join_headers
from .options import OPTIONS, Option, in_ini, ini_label, on_command_line

_BY_NAME = MappingProxyType({option.name: option for option in OPTIONS})


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says, by option name, and where an option stands in it."""

    values: Mapping[str, Any]
    place: Callable[[Option], Place]

    def read(self, name: str) -> Any:
        place = self.place(_BY_NAME[name])
        try:
            return PARSERS[name](self.values[name], place)
        except GrammarError as error:
            raise pytest.UsageError(f"{place.label}: {error}") from None


def resolve(config: pytest.Config) -> Settings:
    """Read command line, ini and defaults into settings.

    Raises:
        pytest.UsageError: a value is wrong, or two options contradict each other; one line naming where.
    """
    layers = (_command_line(config), _ini(config), _defaults(config))
    for layer in layers:
        if "url" in layer.values and "target" in layer.values:
            one, other = (layer.place(_BY_NAME[name]).label for name in ("url", "target"))
            raise pytest.UsageError(f"{one} and {other} both name servers; write only one of them")
    found: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for option in OPTIONS:
        nearest = next((layer for layer in layers if option.name in layer.values), None)
        sources[option.name] = nearest.place(option).source if nearest else "default"
        if nearest and option.name not in ("target", "url", "slo", "header"):
            found[option.ini.removeprefix("openenv_")] = nearest.read(option.name)
    servers = next(layer for layer in layers if "url" in layer.values or "target" in layer.values)
    named = "url" if "url" in servers.values else "target"
    sources["target"] = sources[named]
    del sources["url"]
    optional: dict[str, Any] = dict.fromkeys(("action", "reset", "note", "json"))
    return Settings(
        **{**optional, **found},
        targets=servers.read(named),
        slo=tuple(limit for layer in layers if "slo" in layer.values for limit in layer.read("slo")),
        headers=join_headers([layer.read("header") for layer in layers if "header" in layer.values]),
        sources=sources,
        declared={axis: next(layer for layer in layers[1:] if axis in layer.values).read(axis) for axis in AXES},
        given=_given(layers[0].values),
    ).with_fitting_steps()


def _command_line(config: pytest.Config) -> _Layer:
    directory = config.invocation_params.dir
    return _Layer(on_command_line(config), lambda option: Place("command line", option.flag, directory))


def _ini(config: pytest.Config) -> _Layer:
    directory = config.inipath.parent if config.inipath else config.rootpath
    return _Layer(in_ini(config), lambda option: Place("ini", ini_label(config, option), directory))


def _defaults(config: pytest.Config) -> _Layer:
    read = {option.name: False if option.kind == "flag" else option.default for option in OPTIONS}
    return _Layer(
        {name: value for name, value in read.items() if value is not None},
        lambda option: Place("default", f"the default of {option.flag}", config.rootpath),
    )


def _given(command_line: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Keep what a rerun repeats, as it was written but without secrets; a flag is an empty text."""
    texts: dict[str, tuple[str, ...]] = {}
    for name in RERUN_OPTIONS:
        if name in command_line:
            said: str | bool | list[str] = command_line[name]
            texts[name] = tuple(said) if isinstance(said, list) else (said if isinstance(said, str) else "",)
    if "url" in command_line:
        url: str = command_line["url"].strip()
        texts["url"] = (url if url.startswith("env:") else redact_target(parse_target(url)),)
    return texts
