"""Strings and numbers that a JSON schema admits, the first of each being the one to send."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import chain, count, islice, product
from random import Random
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, TypeVar

from .document import Subschema

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem


MAX_LENGTH = 1_000_000
"""Characters of the longest text that is made."""

_SHORT = 3
_MAX_REPEATS = 100
_MAX_PIECES = 100_000
_T = TypeVar("_T")
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


def plain_texts(least: int, most: int | None) -> Iterator[str]:
    """Return texts of a length between two bounds, each different."""
    word = "hello" if most is None or most >= 5 else "x" * most
    yield word.ljust(least, "x")
    if most is not None and most <= _SHORT:
        yield from map("".join, product(ascii_lowercase + digits, repeat=most))
        return
    for number in count(1):
        ending = str(number)
        if most is not None and len(ending) > most:
            return
        body = word.ljust(least - len(ending), "x")
        yield f"{body if most is None else body[: most - len(ending)]}{ending}"


def _moment(number: int, form: str) -> str:
    return (_EPOCH + timedelta(seconds=number)).strftime(form)


def _uuid(version: int) -> Callable[[int], str]:
    return lambda number: f"00000000-0000-{version}000-8000-{number:012x}"


def _base64(number: int) -> str:
    return base64.b64encode(b"hello" + str(number or "").encode()).decode()


_FORMATS: Mapping[str, Callable[[int], str]] = {
    "uuid": _uuid(4),
    **{f"uuid{version}": _uuid(version) for version in range(1, 9)},
    "date-time": lambda number: _moment(number, "%Y-%m-%dT%H:%M:%SZ"),
    "date": lambda number: _moment(86_400 * number, "%Y-%m-%d"),
    "time": lambda number: _moment(number % 86_400, "%H:%M:%SZ"),
    "duration": lambda number: f"PT{number}S",
    **dict.fromkeys(("email", "idn-email"), lambda number: f"user{number or ''}@example.com"),
    "name-email": lambda number: f"User <user{number or ''}@example.com>",
    **dict.fromkeys(
        ("uri", "url", "iri", "uri-reference", "iri-reference", "uri-template"),
        lambda number: f"https://example.com/{number or ''}",
    ),
    "multi-host-uri": lambda number: f"postgresql://user@localhost:5432/app{number or ''}",
    **dict.fromkeys(("hostname", "idn-hostname"), lambda number: f"host{number or ''}.example.com"),
    **dict.fromkeys(
        ("ipv4", "ipvanyaddress"), lambda number: f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    ),
    "ipv6": lambda number: f"::{number + 1:x}",
    **dict.fromkeys(("ipv4network", "ipvanynetwork"), lambda number: f"10.{number >> 8 & 255}.{number & 255}.0/24"),
    "ipv6network": lambda number: f"fd00:{number & 65535:x}::/64",
    **dict.fromkeys(("ipv4interface", "ipvanyinterface"), lambda number: f"10.{number >> 8 & 255}.{number & 255}.1/24"),
    "ipv6interface": lambda number: f"fd00:{number & 65535:x}::1/64",
    **dict.fromkeys(("byte", "base64", "base64url"), _base64),
    "json-string": str,
    "decimal": str,
    "json-pointer": lambda number: f"/{number}",
    "relative-json-pointer": str,
    "color": lambda number: f"#{number & 0xFFFFFF:06x}",
    "directory-path": lambda number: "/" * (number + 1),
}


def texts_of_format(name: str) -> Iterator[str] | None:
    """Return texts of a format, as JSON Schema, OpenAPI or pydantic name it; None where any text will do."""
    make = _FORMATS.get(name)
    return map(make, count()) if make else None


def texts_of_encoding(name: str, content: str) -> str:
    """Return a text as `contentEncoding` has it."""
    encoders = {"base64": base64.b64encode, "base64url": base64.urlsafe_b64encode, "base32": base64.b32encode}
    encoders["base16"] = base64.b16encode
    encode = encoders.get(name.lower())
    return encode(content.encode()).decode() if encode else content


class _Choices(Random):
    """Takes the choices of number `variant` instead of drawn ones, and `growth` repetitions more than are needed."""

    def __init__(self, growth: int, variant: int) -> None:
        super().__init__(0)
        self._growth = growth
        self._repeats = 0
        self.rest = variant

    def choice(self, seq: SupportsLenAndGetItem[_T]) -> _T:
        options = [seq[number] for number in range(len(seq))]
        if all(isinstance(option, str) for option in options):
            options.sort(key=_plainness)
        self.rest, number = divmod(self.rest, len(options))
        return options[number]

    def randint(self, a: int, b: int) -> int:
        repeats = max(a, min(b, a + self._growth))
        self._repeats += repeats
        if self._repeats > _MAX_PIECES:
            raise ValueError(f"it asks for more than {_MAX_PIECES:,} characters")
        return repeats

    def shuffle(self, x: object) -> None:
        """Leave the order: this is called for one character at a time."""


def _plainness(character: object) -> tuple[bool, bool, str]:
    text = str(character)
    return not (text.isascii() and text.isalnum()), not text.islower(), text


def texts_of_pattern(pattern: str, least: int, most: int | None) -> Iterator[str]:
    """Return texts made of a pattern, the shortest first, that are within two bounds of length.

    They are made piece by piece, so that those of some patterns (with look-aheads) do not match them.

    Raises:
        ValueError: Python has no such pattern, or none of its texts can be made.
    """
    growths: dict[str, int] = {}
    for growth in range(_MAX_REPEATS):
        text, _ = _text_of_pattern(pattern, growth, 0)
        if text in growths:
            break
        growths[text] = growth
        if least <= len(text) <= (MAX_LENGTH if most is None else most):
            yield text
    for growth in growths.values():
        for variant in count(1):
            text, rest = _text_of_pattern(pattern, growth, variant)
            if rest:
                break
            if least <= len(text) <= (MAX_LENGTH if most is None else most):
                yield text


def _text_of_pattern(pattern: str, growth: int, variant: int) -> tuple[str, int]:
    # Only what has a pattern pays for the library that reads one.
    from rstr import Rstr

    choices = _Choices(growth, variant)
    try:
        return Rstr(choices).xeger(pattern), choices.rest
    except (re.error, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, re.error) else "it is beyond what is made here"
        raise ValueError(reason) from None


_HALVINGS = 30


def numbers(nodes: Sequence[Subschema], *, whole: bool) -> Iterator[int | float]:
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


def _limits(nodes: Sequence[Subschema], keyword: str, excluded: int) -> list[tuple[Fraction, int]]:
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
    yielded: set[Fraction] = set()
    bounds = [bound for bound in (low, high) if bound is not None]
    middle = [sum(bounds, Fraction()) / 2] if len(bounds) == 2 else []
    steps = [islice(_multiples(Fraction(1, 2**halving), low, high), 2) for halving in range(_HALVINGS)]
    steps += [_multiples(Fraction(1, 2**halving), low, high) for halving in range(_HALVINGS)]
    zero = [Fraction()] if (low is None or low <= 0) and (high is None or high >= 0) else []
    rounded = bounds if not bounds or bounds[0] <= bounds[-1] else []
    for number in chain(zero, rounded, *steps, middle if rounded else []):
        if number not in yielded:
            yielded.add(number)
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
