"""The one table of options and their ini twins, and the frozen settings they resolve to.

Precedence is command line, mark, ini, default. A wrong value ends the run before anything starts, with one
line that names the option or the ini key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import pytest

from . import option_values as values
from .core.grammar import GrammarError, parse_target, redact_target
from .core.settings import AXES, HTTP_CONNECTIONS, RERUN_OPTIONS, ScalingMark, Settings, Source, rerun_options
from .option_values import Parser, Place

__all__ = ["OPTIONS", "Option", "ScalingMark", "Settings", "register", "rerun_options", "resolve"]

_INI_TYPES: Mapping[str, Literal["string", "linelist", "bool"]] = MappingProxyType(
    {"once": "string", "repeated": "linelist", "flag": "bool"}
)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: `--openenv-NAME` on the command line and `openenv_NAME` in ini.

    `default` is written as a person would; None means there is none. `kind` says whether it is written
    once, repeatedly, or as a flag without a value.
    """

    name: str
    metavar: str | None
    default: str | None
    parse: Parser
    help: str
    kind: Literal["once", "repeated", "flag"] = "once"

    @property
    def flag(self) -> str:
        """The option as it is written on a command line."""
        return f"--openenv-{self.name}"

    @property
    def ini(self) -> str:
        """The key of the ini twin, which is also the option's destination."""
        return f"openenv_{self.name.replace('-', '_')}"

    @property
    def full_help(self) -> str:
        """The sentence `pytest --help` shows: the help and the default."""
        repeatable = "repeatable; " if self.kind == "repeated" else ""
        default = "off" if self.kind == "flag" else self.default or "none"
        return f"{self.help} ({repeatable}default: {default}).".replace("%", "%%")


OPTIONS: tuple[Option, ...] = (
    Option(
        "target",
        "SPEC",
        "local",
        values.targets,
        "Measure this server, NAME[:ARGUMENT][,key=value...] or a URL, for example local,server=uvicorn",
        "repeated",
    ),
    Option(
        "url",
        "URL",
        None,
        values.url,
        "Measure a server that runs already; sessions are spread over URLs joined by commas, and env:FILE "
        "reads OPENENV_URL from a file",
    ),
    Option(
        "batches",
        "LIST",
        "1,8,32,128",
        values.workload("batches"),
        "Ask for so many sessions at once; 8..512 doubles from 8 up to 512",
    ),
    Option(
        "waits",
        "LIST",
        "0.1,1.0",
        values.workload("waits"),
        "Ask the environment to spend so many seconds in each step",
    ),
    Option("reps", "N", "1", values.workload("reps"), "Measure each batch so many times"),
    Option("modes", "LIST", "ws", values.workload("modes"), "Speak these protocols: ws, http or ws,http"),
    Option("steps", "N", "1", values.workload("steps"), "Take so many steps in each session"),
    Option(
        "arrival",
        "HOW",
        "hold",
        values.workload("arrival"),
        "Start a batch so: hold (all sessions are up before any steps), burst (all at once) or rate=R "
        "(R sessions per second at random times)",
    ),
    Option(
        "timeout",
        "TIME",
        "120s",
        values.workload("timeout"),
        "Give each phase of a session so long; a step gets it on top of its wait",
    ),
    Option(
        "action",
        "JSON",
        None,
        values.workload("action"),
        'Send this action: JSON in which "$wait" stands for the wait, @FILE.jsonl with one per step (write '
        "--openenv-action=@FILE.jsonl), or module:function called with (session, step); without it the "
        "server's /schema decides",
    ),
    Option(
        "reset",
        "JSON",
        None,
        values.workload("reset"),
        'Send this JSON object with every reset; "$seed" in it stands for --openenv-seed plus the session\'s number',
    ),
    Option(
        "until-done",
        None,
        None,
        values.flag,
        "End a session when its episode is done instead of resetting it and going on",
        "flag",
    ),
    Option(
        "slo",
        "LIMIT",
        None,
        values.limits,
        "Set a limit or override that of a mark, for example max_batch>=512 or total_p99<=2s",
        "repeated",
    ),
    Option(
        "inconclusive",
        "WHAT",
        "fail",
        values.choice("fail", "warn"),
        "Let a test whose limits could not be measured fail, or pass with a warning: fail or warn",
    ),
    Option(
        "full-grid",
        None,
        None,
        values.flag,
        "Measure every batch instead of stopping a curve after two failing batches in a row",
        "flag",
    ),
    Option(
        "http-connections",
        "HOW",
        "session",
        values.choice(*HTTP_CONNECTIONS),
        "Connect in http mode so: session (each keeps one over its requests), request (a fresh one for every request) "
        "or shared (idle ones are taken from a pool)",
    ),
    Option("processes", "N", "auto", values.processes, "Generate load with so many processes"),
    Option("seed", "N", "0", values.seed, "Seed everything random with this number"),
    Option(
        "header",
        "HEADER",
        None,
        values.headers,
        "Send 'Name: value' or 'Name: env:VARIABLE' (the only form in ini) with every request; never stored or shown",
        "repeated",
    ),
    Option("note", "TEXT", None, values.text, "Keep this text with the run"),
    Option(
        "results",
        "DIR",
        "openenv-results",
        values.directory,
        "Write runs into this directory; the word none writes nothing",
    ),
    Option("json", "FILE", None, values.file, "Write the JSON report to this file as well"),
    Option("report", "LIST", "md", values.reports, "Write these reports of the run: md, html, figures, log; or none"),
    Option(
        "soak",
        "TIME",
        "20s",
        values.soak,
        "Let the endurance test of the suite last so long; 0 skips it",
    ),
    Option(
        "baseline",
        "REF",
        None,
        values.baseline,
        "Compare with this stored run: a path, a run id, latest, or a git commit, branch or tag",
    ),
    Option(
        "fail-on",
        "EXPR",
        None,
        values.fail_on,
        "Fail a test whose figure got worse than the baseline's by more than this, for example max_batch:-10% or "
        "total_p99:+200ms",
        "repeated",
    ),
)

_BY_NAME = MappingProxyType({option.name: option for option in OPTIONS})


def register(parser: pytest.Parser) -> None:
    """Add every option, in a group of its own, and its ini twin."""
    group = parser.getgroup("openenv-scale", "OpenEnv scaling: how many sessions does a server hold at once?")
    for option in OPTIONS:
        takes: dict[str, Any] = {"metavar": option.metavar}
        if option.kind == "flag":
            takes = {"action": "store_true"}
        elif option.kind == "repeated":
            takes["action"] = "append"
        group.addoption(option.flag, dest=option.ini, default=None, help=option.full_help, **takes)
        parser.addini(option.ini, f"Same as {option.flag}.", type=_INI_TYPES[option.kind], default=None)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says, by option name, and where an option stands in it."""

    values: Mapping[str, Any]
    place: Callable[[Option], Place]

    def read(self, name: str) -> Any:
        option = _BY_NAME[name]
        place = self.place(option)
        try:
            return option.parse(self.values[name], place)
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
        headers=values.join_headers([layer.read("header") for layer in layers if "header" in layer.values]),
        sources=sources,
        declared={axis: next(layer for layer in layers[1:] if axis in layer.values).read(axis) for axis in AXES},
        given=_given(layers[0].values),
    ).with_fitting_steps()


def _command_line(config: pytest.Config) -> _Layer:
    directory = config.invocation_params.dir
    read = {option.name: config.getoption(option.ini) for option in OPTIONS}
    return _Layer(
        {name: value for name, value in read.items() if value is not None},
        lambda option: Place("command line", option.flag, directory),
    )


def _ini(config: pytest.Config) -> _Layer:
    directory = config.inipath.parent if config.inipath else config.rootpath
    overridden = {text.partition("=")[0].strip() for text in config.getoption("override_ini") or ()}

    def place(option: Option) -> Place:
        file = config.inipath.name if config.inipath else "ini"
        label = f"-o {option.ini}" if option.ini in overridden else f"{option.ini} in {file}"
        return Place("ini", label, directory)

    read: dict[str, Any] = {}
    for option in OPTIONS:
        try:
            read[option.name] = config.getini(option.ini)
        except (ValueError, TypeError) as error:
            raise pytest.UsageError(f"{place(option).label}: {error}") from None
    return _Layer({name: value for name, value in read.items() if value is not None}, place)


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
