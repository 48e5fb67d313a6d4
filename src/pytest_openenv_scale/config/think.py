"""Think time: what a trainer spends between a reply and its next step, as a distribution drawn from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from statistics import NormalDist, fmean, median

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.files import read_written_lines
from pytest_openenv_scale.core.parsing import MAX_SECONDS, format_number, parse_number, parse_seconds, short_repr

CUT = 10.0
"""Longest think time, in medians: a distribution's far tail would decide how long a session takes."""

DRAWN_AT_ONCE = 16
"""How many think times are drawn together."""

MAX_SIGMA = 10.0
MAX_SAMPLES = 100_000

_GAUSS = NormalDist()
_FORMS = "2s, uniform=1s..3s, exponential=2s, lognormal=2s,0.8 or @samples.txt"


@dataclass(frozen=True)
class ThinkTime:
    """A distribution of seconds, cut at `CUT` times its median; false where every time is 0.

    `parameters` are, by kind: fixed, the time; uniform, the least and the most; exponential, the mean of what is not
    cut; lognormal, the median and the standard deviation of the logarithm; samples, every time there is.
    """

    kind: str
    parameters: tuple[float, ...] = field(repr=False)

    def __bool__(self) -> bool:
        return any(self.parameters)

    @cached_property
    def median(self) -> float:
        """Half of the times are shorter, in seconds."""
        match self.kind:
            case "uniform" | "samples":
                return median(self.parameters)
            case "exponential":
                return self.parameters[0] * math.log(2)
            case _:
                return self.parameters[0]

    @cached_property
    def longest(self) -> float:
        """No time is longer, in seconds; samples whose median is 0 are not cut."""
        most = math.inf if self.kind in ("exponential", "lognormal") else max(self.parameters)
        return min(most, CUT * self.median) if self.median else most

    @cached_property
    def mean(self) -> float:
        """The expected time in seconds, after the cut."""
        match self.kind:
            case "exponential":
                (scale,) = self.parameters
                return scale * -math.expm1(-self.longest / scale)
            case "lognormal":
                # The limited expected value of a lognormal (Klugman, Panjer and Willmot, Loss Models, appendix A).
                middle, sigma = self.parameters
                z = math.log(CUT) / sigma
                within = middle * math.exp(sigma**2 / 2) * _GAUSS.cdf(z - sigma)
                return within + self.longest * (1 - _GAUSS.cdf(z))
            case _:
                return fmean(min(time, self.longest) for time in self.parameters)

    def draw(self, seed: int, session: int, round_number: int) -> list[float]:
        """Return `DRAWN_AT_ONCE` times in seconds, always the same ones for the same three numbers."""
        if self.kind == "fixed":
            return [self.parameters[0]] * DRAWN_AT_ONCE
        draw_one = self._drawing(random.Random(f"{seed} {session} {round_number}"))
        return [min(draw_one(), self.longest) for _ in range(DRAWN_AT_ONCE)]

    def _drawing(self, source: random.Random) -> Callable[[], float]:
        match self.kind:
            case "uniform":
                low, high = self.parameters
                return lambda: source.uniform(low, high)
            case "exponential":
                (scale,) = self.parameters
                return lambda: scale * source.expovariate(1.0)
            case "lognormal":
                middle, sigma = self.parameters
                return lambda: middle * math.exp(source.gauss(0.0, sigma))
            case _:
                return lambda: source.choice(self.parameters)

    def __str__(self) -> str:
        """The distribution as it is written; of samples a digest: `parse_think` does not read that back."""
        return self._text

    @cached_property
    def _text(self) -> str:
        numbers = [format_number(parameter) for parameter in self.parameters]
        match self.kind:
            case "fixed":
                return numbers[0]
            case "uniform":
                return f"uniform={numbers[0]}..{numbers[1]}"
            case "samples":
                digest = sha256(",".join(numbers).encode()).hexdigest()[:10]
                return f"samples={len(numbers)} {digest}"
            case _:
                return f"{self.kind}={','.join(numbers)}"


class ThinkTimes:
    """The think times of one session, one after the other; the same ones for the same seed and session."""

    __slots__ = ("_drawn", "_round", "_seed", "_session", "_think")

    def __init__(self, think: ThinkTime, seed: int, session: int) -> None:
        self._think = think
        self._seed = seed
        self._session = session
        self._round = 0
        self._drawn: list[float] = []

    def next(self) -> float:
        """Return the next time in seconds."""
        if not self._drawn:
            self._drawn = self._think.draw(self._seed, self._session, self._round)
            self._drawn.reverse()
            self._round += 1
        return self._drawn.pop()


def parse_think(value: object, directory: Path) -> ThinkTime:
    """Parse "2s", "uniform=1s..3s", "exponential=2s", "lognormal=2s,0.8" or "@samples.txt"; "0" is no think time.

    A file has one time per line, in seconds or with a unit; its path is relative to `directory`.

    Raises:
        GrammarError: it is written otherwise, a time is below 0 or beyond 7 days, or the file cannot be read.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("@"):
        return ThinkTime("samples", _read_samples(text[1:].strip(), directory))
    kind, separator, arguments = text.partition("=")
    parse = _PARSERS.get(kind.strip())
    if parse is None and not kind[:1].isalpha():
        return ThinkTime("fixed", (parse_seconds(value, what="the think time"),))
    if parse is None or not separator:
        raise GrammarError(f"a think time is written {_FORMS}, got {short_repr(value)}")
    think = ThinkTime(kind.strip(), parse(arguments))
    if think.longest > MAX_SECONDS:
        raise GrammarError(f"a think time is at most 7 days, and {short_repr(text)} goes up to 10 × its median")
    return think


def _parse_uniform(text: str) -> tuple[float, ...]:
    low, separator, high = (part.strip() for part in text.partition(".."))
    if not separator:
        raise GrammarError(f'a uniform think time has two ends, got {short_repr(text)}; write "uniform=1s..3s"')
    bounds = tuple(parse_seconds(bound, what="an end of a uniform think time") for bound in (low, high))
    if bounds[0] > bounds[1]:
        raise GrammarError(f'a uniform think time goes from low to high, got {short_repr(text)}; write "{high}..{low}"')
    return bounds


def _parse_exponential(text: str) -> tuple[float, ...]:
    return (parse_seconds(text, positive=True, what="the mean of an exponential think time"),)


def _parse_lognormal(text: str) -> tuple[float, ...]:
    middle, separator, sigma = text.partition(",")
    if not separator:
        raise GrammarError(
            f'a lognormal think time has a median and a σ, got {short_repr(text)}; write "lognormal=2s,0.8"'
        )
    return (
        parse_seconds(middle, positive=True, what="the median of a lognormal think time"),
        parse_number(sigma, maximum=MAX_SIGMA, what="the σ of a lognormal think time"),
    )


_PARSERS: Mapping[str, Callable[[str], tuple[float, ...]]] = {
    "uniform": _parse_uniform,
    "exponential": _parse_exponential,
    "lognormal": _parse_lognormal,
}


def _read_samples(name: str, directory: Path) -> tuple[float, ...]:
    lines = read_written_lines(name, directory, holds="one think time per line", example="@samples.txt")
    if len(lines) > MAX_SAMPLES:
        raise GrammarError(f"file {short_repr(name)} holds {len(lines):,} think times; keep to {MAX_SAMPLES:,}")
    return tuple(
        parse_seconds(line, what=f"line {number} of file {short_repr(name)}") for number, line in lines.items()
    )
