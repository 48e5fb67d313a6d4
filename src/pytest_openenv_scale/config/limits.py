"""The limits a server is judged by: one table of names, units and directions, and how they combine."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from .grammar import (
    MAX_BATCH,
    GrammarError,
    format_number,
    nearest,
    parse_count,
    parse_fraction,
    parse_number,
    parse_seconds,
    shown,
)

Unit = Literal["sessions", "fraction", "seconds", "factor", "per second", "hosts", "sessions per core"]

DEFAULT_SUCCESS = 0.95
"""The success rate (fraction) that defines max batch where no `success` limit is written."""

PHASES = ("total", "connect", "reset", "step", "overhead")
STATISTICS = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class LimitKind:
    """One row of the table of limits.

    `direction` says which side of the allowed value is good. A limit of scope "cell" is part of what makes
    a cell pass; one of scope "curve" is judged on the curve as a whole. `phase` and `statistic` name the
    measured number a latency limit bounds. `parse` turns what was written into a number in `unit`.
    """

    name: str
    unit: Unit
    direction: Literal[">=", "<="]
    scope: Literal["cell", "curve"]
    phase: str | None
    statistic: str | None
    parse: Callable[[object], float]

    @property
    def example(self) -> str:
        """An expression that sets this limit, for error messages."""
        return f"{self.name}{self.direction}{_EXAMPLES[self.unit]}"


_EXAMPLES: Mapping[Unit, str] = {
    "sessions": "64",
    "fraction": "0.95",
    "seconds": "2s",
    "factor": "2",
    "per second": "50",
    "hosts": "2",
    "sessions per core": "16",
}


def _share_above_zero(value: object, what: str) -> float:
    share = parse_fraction(value, what=what)
    if share == 0:
        raise GrammarError(f'{what} must be above 0, got {shown(value)}; write 0.95 or "95%"')
    return share


def _lower(name: str, unit: Unit, scope: Literal["cell", "curve"], parse: Callable[..., float]) -> LimitKind:
    return LimitKind(name, unit, ">=", scope, None, None, partial(parse, what=name))


def _latency(phase: str, statistic: str) -> LimitKind:
    name = f"{phase}_{statistic}"
    parse = partial(parse_seconds, positive=True, what=name)
    return LimitKind(name, "seconds", "<=", "cell", phase, statistic, parse)


_KINDS = (
    _lower("max_batch", "sessions", "curve", partial(parse_count, maximum=MAX_BATCH)),
    _lower("success", "fraction", "cell", _share_above_zero),
    *(_latency(phase, statistic) for phase in PHASES for statistic in STATISTICS),
    LimitKind("latency_factor", "factor", "<=", "cell", "total", "p99", partial(parse_number, what="latency_factor")),
    _lower("rps", "per second", "curve", parse_number),
    _lower("batch_per_core", "sessions per core", "curve", parse_number),
    _lower("hosts", "hosts", "cell", partial(parse_count, maximum=MAX_BATCH)),
)

LIMITS: Mapping[str, LimitKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every limit that can be asked for, by name; in `http` mode `connect` is the TCP and TLS connection."""


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

    @property
    def text(self) -> str:
        """The limit for people: "max_batch ≥ 256", "total_p99 ≤ 2.5 s", "success ≥ 95 %"."""
        sign = "≥" if self.kind.direction == ">=" else "≤"
        return f"{self.name} {sign} {format_value(self.kind.unit, self.allowed)}"

    @property
    def expression(self) -> str:
        """The limit as `--openenv-slo` reads it back: "total_p99<=2.5s"."""
        unit = "s" if self.kind.unit == "seconds" else ""
        return f"{self.name}{self.kind.direction}{format_number(self.allowed)}{unit}"

    def __str__(self) -> str:
        return self.text


def format_value(unit: Unit, value: float) -> str:
    """Return a number with its unit: 95 %, 2.5 s, 250 ms, 64 (sessions and factors bare), 31.2/s."""
    match unit:
        case "fraction":
            return f"{value * 100:.4g} %"
        case "seconds":
            return f"{value:.4g} s" if value >= 1 else f"{value * 1000:.4g} ms"
        case "per second":
            return f"{value:.4g}/s"
        case "sessions" | "hosts":
            return f"{value:.0f}"
        case _:
            return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Slo:
    """A set of limits, for every curve or for those of one `wait` (seconds) or `mode`."""

    limits: tuple[Limit, ...] = ()
    wait: float | None = None
    mode: str | None = None

    def limit(self, name: str) -> Limit | None:
        """Return the limit of that name, or None where it is not set."""
        return next((limit for limit in self.limits if limit.name == name), None)

    @property
    def asked(self) -> tuple[Limit, ...]:
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
    kind = LIMITS.get(name)
    if kind is None:
        raise GrammarError(f"{shown(name)} is no limit anybody measures{nearest(name, LIMITS)}")
    return Limit(name, kind.parse(value), source)


_EXPRESSION = re.compile(r"([^\s<>=≤≥:!]+)\s*([<>=≤≥:!]+)\s*(.*)", re.DOTALL)


def parse_slo_expression(text: object, source: str = "command line") -> Limit:
    """Parse one limit: "max_batch>=512", "success>=95%", "total_p99<=2s".

    Raises:
        GrammarError: not NAME>=VALUE or NAME<=VALUE, an unknown limit, or an operator that does not fit it.
    """
    match = _EXPRESSION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise GrammarError(f'a limit is written like "total_p99<=2s" or "max_batch>=64", got {shown(text)}')
    name, operator, value = match.groups()
    kind = LIMITS.get(name)
    if kind is None:
        return make_limit(name, value)
    if {"≥": ">=", "≤": "<="}.get(operator, operator) != kind.direction:
        bound = "a lower" if kind.direction == ">=" else "an upper"
        raise GrammarError(f"{name} is {bound} limit, got {shown(operator)}; write for example {kind.example}")
    return make_limit(name, value, source)


def merge(*slos: Slo) -> Slo:
    """Combine limits given nearest first: the nearest wins per limit; order is that of `LIMITS`."""
    found: dict[str, Limit] = {}
    for slo in slos:
        for limit in slo.limits:
            found.setdefault(limit.name, limit)
    return Slo(tuple(found[name] for name in LIMITS if name in found))


def select(slos: Iterable[Slo], wait: float | None, mode: str) -> Slo:
    """Return the limits of one curve: those that select it, merged, nearest first."""
    return merge(*(slo for slo in slos if slo.selects(wait, mode)))
