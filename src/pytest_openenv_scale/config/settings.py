"""The settings of a sweep: each value with its source, and how a mark overrides an option."""

from __future__ import annotations

import keyword
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pytest_openenv_scale.core.endpoint import Network, Proxy
from pytest_openenv_scale.core.parsing import Arrival, format_number
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target

from .limits import FailOn, Limit, Reference, Slo
from .search import DEFAULT_REPETITIONS, NO_SEARCH, SearchRange
from .think import ThinkTime
from .workload import ActionSource

Source = Literal["command line", "mark", "ini", "default"]

SOURCES: Sequence[Source] = ("command line", "mark", "ini", "default")
"""Where a value may be written, the nearest first."""

AXES = ("batches", "waits", "modes")
"""The settings that span the grid; a command line may narrow them without making a mark wrong."""

DEFAULT_STEPS = 1

DEFAULT_CAP = 1_000
"""The most steps of a session that ends with its episode, where nobody says."""

HTTP_CONNECTIONS = ("session", "request", "shared")
"""How sessions connect in http mode: one connection each, one per request, or idle ones from a pool."""

PLAYED = ("required", "any")
"""Whether sessions have to play, rather than to get errors only, for a sweep to be measured."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps a session takes; `until_done` tells that it ends with its episode, after `count` at most."""

    count: int
    until_done: bool = False


def field_name(option: str) -> str:
    """Return the name that an option has among the settings, and in a mark: `for` is a word of Python."""
    name = option.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def option_name(name: str) -> str:
    """Return the option of a setting."""
    return name.removesuffix("_").replace("_", "-")


@dataclass(frozen=True, slots=True)
class ScalingMark:
    """The arguments of a `scaling` mark, checked; None where nothing is written.

    `timeout`, `ramp` and `for_` are in seconds.
    """

    batches: tuple[int, ...] | None = None
    waits: tuple[float, ...] | None = None
    reps: int | None = None
    modes: tuple[str, ...] | None = None
    steps: Steps | None = None
    think: ThinkTime | None = None
    arrival: Arrival | None = None
    ramp: float | None = None
    for_: float | None = None
    timeout: float | None = None
    action: ActionSource | None = None
    reset: Mapping[str, Any] | ActionSource | None = None
    search: SearchRange | None = None
    precision: float | None = None

    def written_arguments(self) -> dict[str, Any]:
        """Return the arguments that were written, by name."""
        arguments = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in arguments.items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """Everything a sweep is asked to do; `sources` tells where each value came from, by option name.

    `waits`, `timeout`, `soak`, `lock_timeout` and `ping` (None: off) are seconds, `processes` None means automatic,
    `results`, `json` and `outputs` None mean nothing is written there. `slo` holds the limits of command line and ini
    alike, each with its source. `until_done` tells that a session ends with its episode, after `steps` at most;
    `until_done_flag` is the option of that name. `think` is None without a think time. `ramp` and `for_` (seconds) are
    as they are written: `config.arriving` puts those of one test into its `arrival`. `declared` keeps the axes as they
    stand without the command line, `command_line` the options written on it (without secrets), for the command that
    reruns a curve. `headers` are never shown. `again` is how often a repetition is measured again that only the client
    left in doubt.
    """

    targets: tuple[TargetSpec, ...]
    batches: tuple[int, ...]
    waits: tuple[float, ...]
    reps: int
    modes: tuple[str, ...]
    steps: int
    arrival: Arrival
    timeout: float
    action: ActionSource | None
    reset: Mapping[str, Any] | ActionSource | None
    until_done: bool
    slo: tuple[Limit, ...]
    inconclusive: Literal["fail", "warn"]
    full_grid: bool
    http_connections: str
    processes: int | None
    seed: int
    note: str | None
    results: Path | None
    json: Path | None
    report: tuple[str, ...]
    headers: Mapping[str, str] = field(repr=False)
    sources: Mapping[str, Source]
    declared: Mapping[str, tuple[Any, ...]] = field(repr=False)
    command_line: Mapping[str, tuple[str, ...]] = field(repr=False)
    baseline: Reference | None = None
    fail_on: tuple[FailOn, ...] = ()
    soak: float = 20.0
    played: str = "required"
    ping: float | None = 20.0
    no_samples: bool = False
    insecure: bool = False
    proxy: Proxy | None = None
    again: int = 3
    search: SearchRange = NO_SEARCH
    precision: float = 0.05
    budget: float | None = None
    max_sessions: int = 10_000
    lock_timeout: float = 3600.0
    plan: bool = False
    figure_formats: tuple[str, ...] = ("svg", "png")
    dpi: int = 130
    think: ThinkTime | None = None
    ramp: float | None = None
    for_: float | None = None
    until_done_flag: bool = False
    outputs: Path | None = None

    @property
    def repetitions(self) -> int:
        """How often each batch is measured, or the candidate of a search."""
        return DEFAULT_REPETITIONS if self.search and self.sources.get("reps") == "default" else self.reps

    @property
    def network(self) -> Network:
        """How servers are reached."""
        return Network(self.insecure, self.proxy)

    def with_mark(self, mark: ScalingMark | None) -> Settings:
        """Return the settings of one test: what its mark writes outranks ini and default only."""
        written = mark.written_arguments() if mark else {}
        applied = {name: value for name, value in written.items() if self.sources[option_name(name)] != "command line"}
        return replace(
            self,
            **in_force(applied, until_done_flag=self.until_done_flag),
            sources={name: "mark" if field_name(name) in applied else source for name, source in self.sources.items()},
            declared={**self.declared, **{name: written[name] for name in AXES if name in written}},
        ).with_fitting_steps()

    def with_fitting_steps(self) -> Settings:
        """Return settings that take as many steps as an action file has for a session where nobody wrote `steps`."""
        if self.sources["steps"] != "default":
            return self
        match self.action:
            case ActionSource("lines", actions):
                return replace(self, steps=len(actions))
            case ActionSource("sessions", sessions):
                return replace(self, steps=max(map(len, sessions)))
            case _:
                return replace(self, steps=DEFAULT_CAP if self.until_done else DEFAULT_STEPS)

    def axis(self, name: str) -> tuple[Any, ...]:
        """Return every value of an axis that is in force or was declared before the command line narrowed it.

        A limit that selects one of these selects a curve, even if this command line does not measure it.
        """
        return tuple(dict.fromkeys((*getattr(self, name), *self.declared.get(name, ()))))

    def slos(self, marks: Iterable[Slo] = ()) -> tuple[Slo, ...]:
        """Return all limits, nearest first: command line, then the marks, then ini."""
        from_command_line = Slo(tuple(limit for limit in self.slo if limit.source == "command line"))
        from_ini = Slo(tuple(limit for limit in self.slo if limit.source != "command line"))
        return tuple(slo for slo in (from_command_line, *marks, from_ini) if slo != Slo())


def in_force(values: Mapping[str, Any], *, until_done_flag: bool) -> dict[str, Any]:
    """Return values as they are written, by the names of settings, as settings hold them."""
    held = dict(values)
    if "steps" in held:
        steps: Steps = held["steps"]
        held |= {"steps": steps.count, "until_done": steps.until_done or until_done_flag}
    if "think" in held:
        held["think"] = held["think"] or None
    return held


RERUN_OPTIONS: Sequence[str] = (
    *("batches", "reps", "again", "steps", "think", "arrival", "ramp", "for", "timeout", "action", "reset"),
    *("until-done", "slo", "header"),
    *(
        "inconclusive",
        "full-grid",
        "search",
        "precision",
        "budget",
        "max-sessions",
        "http-connections",
        "played",
        "ping",
        "no-samples",
        "insecure",
        "proxy",
        "processes",
        "seed",
        "soak",
    ),
)
"""The options a rerun repeats from the command line, besides those that pick the curve."""


def rerun_options(settings: Settings, *, target: TargetSpec, mode: str, wait: float | None) -> str:
    """Return the options that make a command line measure one curve again, quoted for a shell.

    Holds what this command line gave, narrowed to the curve, and no secret: passwords in URLs and secrets in target
    keys are left out, and of a header that holds its value only the name is told. Empty where the test alone measures
    that curve.
    """
    words = _rerun_target(settings, target)
    if wait is not None and _must_narrow(settings, "waits"):
        words += ["--openenv-waits", format_number(wait)]
    if _must_narrow(settings, "modes"):
        words += ["--openenv-modes", mode]
    for name in RERUN_OPTIONS:
        for text in settings.command_line.get(name, ()):
            if text.startswith("@"):  # Alone, pytest would take it for a file of its own arguments.
                words.append(f"--openenv-{name}={text}")
            else:
                words += [f"--openenv-{name}", text] if text else [f"--openenv-{name}"]
    return shlex.join(words)


def _rerun_target(settings: Settings, target: TargetSpec) -> list[str]:
    if "url" in settings.command_line:
        return ["--openenv-url", settings.command_line["url"][0]]
    if settings.sources["target"] == "command line" or len(settings.targets) > 1:
        return ["--openenv-target", redact_target(target)]
    return []


def _must_narrow(settings: Settings, axis: str) -> bool:
    return settings.sources[axis] == "command line" or len(getattr(settings, axis)) > 1
