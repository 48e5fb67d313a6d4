"""Numbers that JSON schemas admit: within bounds, and multiples where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, count, islice

from .document import Node

_HALVINGS = 30


def numbers(nodes: Sequence[Node], *, whole: bool) -> Iterator[int | float]:
    """Yield numbers that satisfy the bounds of all schemas, 0 first where it does; whole ones as `int`."""
    lows = [*_limits(nodes, "minimum", 0), *_limits(nodes, "exclusiveMinimum", 1)]
    highs = [*_limits(nodes, "maximum", 0), *_limits(nodes, "exclusiveMaximum", -1)]
    low, above = max(lows, default=(None, 0))
    high, below = min(highs, default=(None, 0))
    steps = [_exact(node.schema["multipleOf"]) for node in nodes if "multipleOf" in node.schema]
    steps += [Fraction(1)] if whole else []
    for number in _multiples(_common_multiple(steps), low, high) if steps else _any_between(low, high):
        if (number != low or not above) and (number != high or not below):
            try:
                yield int(number) if whole else float(number)
            except OverflowError:
                return


def is_multiple(number: int | float, step: int | float) -> bool:
    """Say whether a number is a multiple of a step, both as they are written in decimals: 0.3 is one of 0.05."""
    return math.isfinite(number) and _exact(number) % _exact(step) == 0


def _limits(nodes: Sequence[Node], keyword: str, excluded: int) -> list[tuple[Fraction, int]]:
    """Return the limits of a keyword; of two that are equal, the one that excludes itself is narrower."""
    return [(_exact(node.schema[keyword]), excluded) for node in nodes if keyword in node.schema]


def _exact(number: int | float) -> Fraction:
    """Return a number as it is written in decimals: 0.1 is a tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _common_multiple(steps: Sequence[Fraction]) -> Fraction:
    common = steps[0]
    for step in steps[1:]:
        common = Fraction(
            math.lcm(common.numerator * step.denominator, step.numerator * common.denominator),
            common.denominator * step.denominator,
        )
    return common


def _any_between(low: Fraction | None, high: Fraction | None) -> Iterator[Fraction]:
    """Yield numbers between two limits, round ones first, each once."""
    seen: set[Fraction] = set()
    bounds = [bound for bound in (low, high) if bound is not None]
    middle = [sum(bounds, Fraction()) / 2] if len(bounds) == 2 else []
    steps = [islice(_multiples(Fraction(1, 2**halving), low, high), 2) for halving in range(_HALVINGS)]
    steps += [_multiples(Fraction(1, 2**halving), low, high) for halving in range(_HALVINGS)]
    zero = [Fraction()] if (low is None or low <= 0) and (high is None or high >= 0) else []
    rounded = bounds if not bounds or bounds[0] <= bounds[-1] else []
    for number in chain(zero, rounded, *steps, middle if rounded else []):
        if number not in seen:
            seen.add(number)
            yield number


def _multiples(step: Fraction, low: Fraction | None, high: Fraction | None) -> Iterator[Fraction]:
    """Yield the multiples of a step between two limits: from 0, or the limit next to it, upwards, then downwards."""
    first = max(0, math.ceil(low / step)) if low is not None else 0
    if high is not None and high < 0:
        first = math.floor(high / step)
    last = None if high is None else math.floor(high / step)
    for number in count(first):
        if last is not None and number > last:
            break
        yield number * step
    least = None if low is None else math.ceil(low / step)
    for number in count(min(first, 1) - 1, -1):
        if least is not None and number < least:
            break
        yield number * step
