"""`--fail-on`: which change against a baseline is too much, as short expressions such as "total_p99:+15%"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .grammar import MAX_SECONDS, GrammarError, format_number, nearest, parse_number, parse_seconds, shown
from .slo import LIMITS, LimitKind

NOT_COMPARED = frozenset({"hosts", "latency_factor"})
"""Limits that are no measured figure of their own."""

METRICS = {name: kind for name, kind in LIMITS.items() if name not in NOT_COMPARED}
"""What two runs are compared by; `direction` of a kind says which way is better."""

_EXPRESSION = re.compile(r"([^\s:+\-−]+)\s*:\s*([+\-−]?)\s*(\S.*)")


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
            return f"{self.metric}:{sign}{size * 100:.10g}%"
        if self.kind.unit != "seconds":
            return f"{self.metric}:{sign}{format_number(size)}"
        return f"{self.metric}:{sign}{f'{size * 1000:.10g}ms' if size < 1 else f'{format_number(size)}s'}"

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
    found: dict[tuple[str, bool], FailOn] = {}
    for text in (piece for line in texts for piece in line.split(",")):
        one = _parse_one(text.strip())
        found[one.metric, one.relative] = one
    return tuple(found.values())


def _parse_one(text: str) -> FailOn:
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        example = 'a change that fails is written like "max_batch:-10%" or "total_p99:+15%"'
        raise GrammarError(f"{example}, got {shown(text)}")
    name, sign, amount = match.groups()
    if name in NOT_COMPARED:
        instead = "total_p99" if name == "latency_factor" else "max_batch"
        raise GrammarError(f"{name} is a limit and not a figure that is compared; write for example {instead}")
    if name not in METRICS:
        raise GrammarError(f"{shown(name)} is nothing that is compared{nearest(name, METRICS)}")
    worse = "-" if higher_is_better(name) else "+"
    if sign.replace("−", "-") != worse:
        better = "higher" if worse == "-" else "lower"
        raise GrammarError(
            f"{name}: {better} is better, so {shown(text)} is no regression; write {name}:{worse}{amount}"
        )
    size, relative = _amount(name, amount)
    if relative and worse == "-" and size >= 1:
        raise GrammarError(f"{shown(text)} can never be exceeded: nothing falls below 0; write less than 100%")
    return FailOn(name, -size if worse == "-" else size, relative)


def _amount(name: str, text: str) -> tuple[float, bool]:
    """Return the size of a change, and whether it is a fraction of the baseline."""
    if text.endswith("%"):
        percent = text[:-1].strip()
        return (0.0 if _is_zero(percent) else parse_number(percent, what=f"the percentage of {name}") / 100), True
    if _is_zero(text):
        return 0.0, False
    if METRICS[name].unit != "seconds":
        return parse_number(text, what=f"the change of {name}"), False
    seconds = parse_seconds(text, what=f"the change of {name}")
    if re.fullmatch(r"[0-9.eE+]+", text):
        # "total_p99:+15" is meant as a percentage as often as not, and 15 s would let everything pass.
        raise GrammarError(f"the change of {name} needs a unit, got {shown(text)}; write {text}% or {text}s")
    return min(seconds, MAX_SECONDS), False


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False
