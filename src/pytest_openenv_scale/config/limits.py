"""Limits: what a curve must meet (`slo`), and which change against which baseline is too much (`--fail-on`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.formatting import Unit, format_value
from pytest_openenv_scale.core.parsing import (
    MAX_BATCH,
    MAX_SECONDS,
    format_number,
    parse_bytes,
    parse_count,
    parse_fraction,
    parse_number,
    parse_seconds,
    short_repr,
    suggestion,
)

DEFAULT_SUCCESS = 0.95
"""The success rate (fraction) that defines max batch where no `success` limit is written."""

LATENCY_ALLOWANCE_S = 0.5
"""`latency_factor=F` means total p99 ≤ F × (steps × wait + this)."""

PHASES = ("total", "connect", "reset", "step", "overhead")
STATISTICS = ("p50", "p90", "p95", "p99")


class Measured(Protocol):
    """What limits read of one repetition of a cell: its summary."""

    @property
    def success_rate(self) -> float | None:
        """The share of sessions that ended well."""
        ...

    @property
    def requests_per_second(self) -> float | None:
        """Sessions that ended well ÷ the wall time."""
        ...

    @property
    def hosts_used(self) -> int | None:
        """How many hosts sessions ran on."""
        ...

    @property
    def open_least(self) -> int | None:
        """The fewest sessions that were open at once in a steady state."""
        ...

    @property
    def rss_bytes(self) -> int | None:
        """The most memory that the server's processes held."""
        ...

    def phase(self, name: str) -> object | None:
        """Return the statistics of a phase."""
        ...


def _no_figure_of_a_cell(cell: Measured) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class LimitKind:
    """One row of the table of limits: all that is known of a limit, its measure included.

    `family` says how it is judged. `parse` turns what was written into a number in `unit`, and `measure` reads what the
    limit bounds from one repetition of a cell: a number in `figure_unit`, None where that is not known, or no figure of
    one cell (a capacity, a cost). `phase` and `statistic` name the number a latency limit bounds. People read `alias`,
    which may be written instead of `name`. Two runs are compared by what is `compared`. A limit that `needs_wait`
    cannot be measured where no step can be asked to wait, one that `needs_batch` only where at least as many sessions
    are asked for as it allows.
    """

    name: str
    unit: Unit
    family: Literal["capacity", "share", "latency", "rate", "hosts", "open", "memory", "cost"]
    parse: Callable[..., float]
    measure: Callable[[Measured], float | None] = _no_figure_of_a_cell
    phase: str | None = None
    statistic: str | None = None
    alias: str | None = None
    compared: bool = True
    needs_wait: bool = False

    @property
    def needs_batch(self) -> bool:
        """Whether only batches that are as large as what it allows are judged by it."""
        return self.family in ("hosts", "open")

    @property
    def direction(self) -> Literal[">=", "<="]:
        """Which side of the allowed value is good."""
        return "<=" if self.family in ("latency", "memory", "cost") else ">="

    @property
    def scope(self) -> Literal["cell", "curve"]:
        """Whether it is part of what makes a cell pass, or is judged on the curve as a whole."""
        return "curve" if self.family in ("capacity", "rate", "cost") else "cell"

    @property
    def figure(self) -> str:
        """The name of what is measured: "total_p99", also for a factor that bounds it."""
        return f"{self.phase}_{self.statistic}" if self.phase else self.name

    @property
    def figure_unit(self) -> Unit:
        """The unit of what is measured: seconds, also for a factor that bounds them."""
        return "seconds" if self.family == "latency" else self.unit

    @property
    def shown_name(self) -> str:
        """The name that people read."""
        return self.alias or self.name

    @property
    def example(self) -> str:
        """An expression that sets this limit, for error messages."""
        return f"{self.shown_name}{self.direction}{_EXAMPLES[self.unit]}"


_EXAMPLES: Mapping[Unit, str] = {
    "sessions": "64",
    "fraction": "0.95",
    "seconds": "2s",
    "factor": "2",
    "per second": "50",
    "hosts": "2",
    "sessions per core": "16",
    "bytes": "2MiB",
    "per session": "1",
}


_parse_sessions = partial(parse_count, maximum=MAX_BATCH)


def _positive_fraction(value: object, *, what: str) -> float:
    share = parse_fraction(value, what=what)
    if share == 0:
        raise GrammarError(f'{what} must be above 0, got {short_repr(value)}; write 0.95 or "95%"')
    return share


def _parse_latency(value: object, *, what: str) -> float:
    """Parse a limit in seconds; text needs its unit: whoever writes "250" means ms as often as s."""
    seconds = parse_seconds(value, positive=True, what=what)
    if isinstance(value, str) and (bare := _without_unit(value)):
        raise GrammarError(f"{what} needs a unit, got {short_repr(value)}; write {bare}ms or {bare}s")
    return seconds


def _without_unit(text: str) -> str | None:
    """Return the text of a duration that has no unit; None where it has one."""
    text = text.strip()
    return None if text[-1:].isalpha() else text


def _measure_statistic(phase: str, statistic: str, cell: Measured) -> float | None:
    stats = cell.phase(phase)
    return None if stats is None else float(getattr(stats, statistic))


def _latency_limit(phase: str, statistic: str) -> LimitKind:
    return LimitKind(
        f"{phase}_{statistic}",
        "seconds",
        "latency",
        parse=_parse_latency,
        measure=partial(_measure_statistic, phase, statistic),
        phase=phase,
        statistic=statistic,
        needs_wait=phase == "overhead",
    )


_LIMIT_KINDS = (
    LimitKind("max_batch", "sessions", "capacity", parse=_parse_sessions),
    LimitKind("success", "fraction", "share", parse=_positive_fraction, measure=lambda cell: cell.success_rate),
    *(_latency_limit(phase, statistic) for phase in PHASES for statistic in STATISTICS),
    replace(
        _latency_limit("total", "p99"),
        name="latency_factor",
        unit="factor",
        parse=parse_number,
        compared=False,
        needs_wait=True,
    ),
    LimitKind(
        "rps",
        "per second",
        "rate",
        parse=parse_number,
        measure=lambda cell: cell.requests_per_second,
        alias="sessions_per_second",
    ),
    LimitKind("batch_per_core", "sessions per core", "capacity", parse=parse_number),
    LimitKind("hosts", "hosts", "hosts", parse=_parse_sessions, measure=lambda cell: cell.hosts_used, compared=False),
    LimitKind("open", "sessions", "open", parse=_parse_sessions, measure=lambda cell: cell.open_least),
    LimitKind("rss", "bytes", "memory", parse=parse_bytes, measure=lambda cell: cell.rss_bytes, compared=False),
    LimitKind("memory_per_session", "bytes", "cost", parse=parse_bytes, compared=False),
    LimitKind("threads_per_session", "per session", "cost", parse=parse_number, compared=False),
    LimitKind("descriptors_per_session", "per session", "cost", parse=parse_number, compared=False),
    LimitKind("cpu_per_step", "seconds", "cost", parse=_parse_latency, compared=False),
)

LIMITS: Mapping[str, LimitKind] = MappingProxyType({kind.name: kind for kind in _LIMIT_KINDS})
"""Every limit that can be asked for, by name; in `http` mode `connect` is the TCP and TLS connection."""


def find_limit(name: str) -> LimitKind | None:
    """Return the row of `LIMITS` of a name or an alias; None where there is none."""
    return LIMITS.get(name) or next((kind for kind in LIMITS.values() if kind.alias == name), None)


def limit_names(limits: Mapping[str, LimitKind] = LIMITS) -> tuple[str, ...]:
    """Return what may be written for these limits, aliases included."""
    return (*limits, *(kind.alias for kind in limits.values() if kind.alias))


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: `allowed` is in the unit of its kind; `source` is "mark", "command line" or "ini"."""

    name: str
    allowed: float
    source: str = "mark"

    @property
    def kind(self) -> LimitKind:
        """The row of `LIMITS` this limit belongs to."""
        return LIMITS[self.name]

    def holds(self, observed: float) -> bool:
        """Say whether an observed value (in the unit of the limit) is on the good side; equal is good."""
        return observed >= self.allowed if self.kind.direction == ">=" else observed <= self.allowed

    def allowed_seconds(self, steps: int, wait: float | None) -> float | None:
        """Return what a latency limit allows sessions of so many steps, in seconds; None for a factor of no wait."""
        if self.kind.unit == "seconds":
            return self.allowed
        return None if wait is None else self.allowed * (steps * wait + LATENCY_ALLOWANCE_S)

    @property
    def text(self) -> str:
        """The limit for people: "max_batch ≥ 256", "total_p99 ≤ 2.5 s", "success ≥ 95 %"."""
        sign = "≥" if self.kind.direction == ">=" else "≤"
        return f"{self.kind.shown_name} {sign} {format_value(self.kind.unit, self.allowed)}"

    @property
    def expression(self) -> str:
        """The limit as `--openenv-slo` reads it back: "total_p99<=2.5s"."""
        unit = {"seconds": "s", "bytes": "B"}.get(self.kind.unit, "")
        return f"{self.name}{self.kind.direction}{format_number(self.allowed)}{unit}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Slo:
    """A set of limits, for every curve or for those of one `wait` (seconds) or `mode`.

    With `every_cell` false they define max batch only, where every measured cell would have to meet them otherwise;
    None leaves that to others.
    """

    limits: tuple[Limit, ...] = ()
    wait: float | None = None
    mode: str | None = None
    every_cell: bool | None = None

    def limit(self, name: str) -> Limit | None:
        """Return the limit of that name, or None where it is not set."""
        return next((limit for limit in self.limits if limit.name == name), None)

    @property
    def cell_limits(self) -> tuple[Limit, ...]:
        """The limits that make a cell pass; `success` holds by default where it is not written."""
        limits = tuple(limit for limit in self.limits if limit.kind.scope == "cell")
        return limits if self.limit("success") else (Limit("success", DEFAULT_SUCCESS, "default"), *limits)

    @property
    def explicit_limits(self) -> tuple[Limit, ...]:
        """The limits somebody wrote; those that hold by default for an endpoint only say when a cell passes."""
        return tuple(limit for limit in self.limits if limit.source != "default")

    def selects(self, wait: float | None, mode: str) -> bool:
        """Say whether these limits apply to the curve of that wait (None: it has none) and mode."""
        if self.mode is not None and self.mode != mode:
            return False
        return self.wait is None or (wait is not None and math.isclose(self.wait, wait, rel_tol=1e-9))


def make_limit(name: str, value: object, source: str = "mark") -> Limit:
    """Check one limit by name and value.

    Raises:
        GrammarError: nobody measures a limit of that name, or the value is out of range.
    """
    kind = find_limit(name)
    if kind is None:
        raise GrammarError(f"{short_repr(name)} is no limit anybody measures{suggestion(name, limit_names())}")
    return Limit(kind.name, kind.parse(value, what=name), source)


_EXPRESSION = re.compile(r"([^\s<>=≤≥:!]+)\s*([<>=≤≥:!]+)\s*(.*)", re.DOTALL)


def parse_slo_expression(text: object, source: str = "command line") -> Limit:
    """Parse one limit: "max_batch>=512", "success>=95%", "total_p99<=2s".

    Raises:
        GrammarError: not NAME>=VALUE or NAME<=VALUE, an unknown limit, or an operator that does not fit it.
    """
    match = _EXPRESSION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise GrammarError(f'a limit is written like "total_p99<=2s" or "max_batch>=64", got {short_repr(text)}')
    name, operator, value = match.groups()
    kind = find_limit(name)
    if kind is None:
        return make_limit(name, value)
    if {"≥": ">=", "≤": "<="}.get(operator, operator) != kind.direction:
        bound = "a lower" if kind.direction == ">=" else "an upper"
        raise GrammarError(f"{name} is {bound} limit, got {short_repr(operator)}; write for example {kind.example}")
    return make_limit(name, value, source)


def merge_slos(*slos: Slo) -> Slo:
    """Combine limits given nearest first: the nearest wins per limit; order is that of `LIMITS`."""
    nearest: dict[str, Limit] = {}
    for slo in slos:
        for limit in slo.limits:
            nearest.setdefault(limit.name, limit)
    every_cell = next((slo.every_cell for slo in slos if slo.every_cell is not None), None)
    return Slo(tuple(nearest[name] for name in LIMITS if name in nearest), every_cell=every_cell)


def slo_for_curve(slos: Iterable[Slo], wait: float | None, mode: str) -> Slo:
    """Return the limits of one curve: those that select it, merged, nearest first."""
    return merge_slos(*(slo for slo in slos if slo.selects(wait, mode)))


METRICS = {name: kind for name, kind in LIMITS.items() if kind.compared}
"""What two runs are compared by; `direction` of a kind says which way is better."""

_CHANGE = re.compile(r"([^\s:+\-−]+)\s*:\s*([+\-−]?)\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class FailOn:
    """A change that is too much: `change` is a fraction of the baseline (`relative`) or in the metric's unit.

    Its sign is that of a change for the worse: below 0 where more is better, above 0 where less is.
    """

    metric: str
    change: float
    relative: bool

    @property
    def kind(self) -> LimitKind:
        """The unit and the direction of the metric."""
        return METRICS[self.metric]

    @property
    def text(self) -> str:
        """The expression that reads back as this value: "max_batch:-10%", "total_p99:+200ms"."""
        sign = "-" if higher_is_better(self.metric) else "+"
        size = abs(self.change)
        if self.relative:
            return f"{self.kind.shown_name}:{sign}{size * 100:.10g}%"
        if self.kind.unit != "seconds":
            return f"{self.kind.shown_name}:{sign}{format_number(size)}"
        return f"{self.kind.shown_name}:{sign}{f'{size * 1000:.10g}ms' if size < 1 else f'{format_number(size)}s'}"

    def allowed(self, baseline: float) -> float:
        """Return the worst value that is still allowed, in the metric's unit; it may be reached, not passed."""
        return baseline + (abs(baseline) * self.change if self.relative else self.change)

    def is_broken(self, baseline: float, now: float) -> bool:
        """Say whether a value is worse than this change allows."""
        allowed = self.allowed(baseline)
        if math.isclose(now, allowed, rel_tol=1e-9, abs_tol=1e-12):
            return False
        return now < allowed if higher_is_better(self.metric) else now > allowed

    def __str__(self) -> str:
        return self.text


def higher_is_better(metric: str) -> bool:
    """Say which way a metric of `METRICS` is better."""
    return METRICS[metric].direction == ">="


def parse_fail_on(expressions: str | Iterable[str]) -> tuple[FailOn, ...]:
    """Parse expressions, several joined by commas: "max_batch:-10%,total_p99:+200ms".

    A percentage is one of the baseline's value; a plain number is in the metric's unit, a time needs its unit.
    A metric may have one of each, and then fails on either; of two alike the last counts.

    Raises:
        GrammarError: an unknown metric, a direction that is no worsening, or a change that nothing can exceed.
    """
    texts = [expressions] if isinstance(expressions, str) else expressions
    changes: dict[tuple[str, bool], FailOn] = {}
    for text in (piece for line in texts for piece in line.split(",")):
        change = _parse_change(text.strip())
        changes[change.metric, change.relative] = change
    return tuple(changes.values())


def _parse_change(text: str) -> FailOn:
    match = _CHANGE.fullmatch(text)
    if match is None:
        example = 'a change that fails is written like "max_batch:-10%" or "total_p99:+15%"'
        raise GrammarError(f"{example}, got {short_repr(text)}")
    name, sign, amount = match.groups()
    kind = find_limit(name)
    if kind is None:
        raise GrammarError(f"{short_repr(name)} is nothing that is compared{suggestion(name, limit_names(METRICS))}")
    if not kind.compared:
        instead = kind.figure if kind.figure in METRICS else "max_batch"
        raise GrammarError(f"{name} is a limit and not a figure that is compared; write for example {instead}")
    worse = "-" if kind.direction == ">=" else "+"
    if sign.replace("−", "-") != worse:
        better = "higher" if worse == "-" else "lower"
        raise GrammarError(
            f"{name}: {better} is better, so {short_repr(text)} is no regression; write {name}:{worse}{amount}"
        )
    size, relative = _parse_amount(name, amount, kind.unit)
    if relative and worse == "-" and size >= 1:
        raise GrammarError(f"{short_repr(text)} can never be exceeded: nothing falls below 0; write less than 100%")
    return FailOn(kind.name, -size if worse == "-" else size, relative)


def _parse_amount(name: str, text: str, unit: Unit) -> tuple[float, bool]:
    """Return the size of a change, and whether it is a fraction of the baseline."""
    if text.endswith("%"):
        percent = text[:-1].strip()
        return (0.0 if _is_zero(percent) else parse_number(percent, what=f"the percentage of {name}") / 100), True
    if _is_zero(text):
        return 0.0, False
    if unit != "seconds":
        return parse_number(text, what=f"the change of {name}"), False
    seconds = parse_seconds(text, what=f"the change of {name}")
    if _without_unit(text):
        # "total_p99:+15" is meant as a percentage as often as not, and 15 s would let everything pass.
        raise GrammarError(f"the change of {name} needs a unit, got {short_repr(text)}; write {text}% or {text}s")
    return min(seconds, MAX_SECONDS), False


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a stored run as it was written, and the directory to which a path is relative."""

    text: str
    directory: Path

    def __str__(self) -> str:
        return self.text


def parse_reference(text: object, directory: Path) -> Reference:
    """Check that a run is named at all.

    Raises:
        GrammarError: it is empty, or no line of text.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text or "\n" in text:
        raise GrammarError(f'a run is named by a path, an id, "latest" or a git commit, got {short_repr(text)}')
    return Reference(text.strip(), directory)
