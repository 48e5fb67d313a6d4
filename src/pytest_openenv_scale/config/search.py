"""A search for the max batch: between which batches, how closely, and what it begins with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import MAX_BATCH, parse_count, parse_fraction, short_repr
from pytest_openenv_scale.core.serialization import Jsonable

DEFAULT_REPETITIONS = 3
"""How often a search repeats its candidate where nobody says."""

LARGEST_ON_LOOPBACK, LARGEST_ELSEWHERE = 16_384, 1_024
"""Up to which batch `auto` searches: a server on this machine, and one that others may use."""

MAX_PRECISION = 0.5

_RANGE = re.compile(r"(\S+?)\s*\.\.\s*(\S+)")


@dataclass(frozen=True, slots=True)
class SearchRange:
    """Which batches a search may ask for; `high` None depends on what is measured. False where none is made."""

    low: int = 1
    high: int | None = None

    def __bool__(self) -> bool:
        return self.high != 0

    @property
    def text(self) -> str:
        """The range as it is written."""
        return "off" if self.high == 0 else "auto" if self.high is None else f"{self.low}..{self.high}"

    def largest(self, *, on_loopback: bool) -> int:
        """Return the largest batch that may be asked of a server, this machine's own or another's."""
        return self.high or (LARGEST_ON_LOOPBACK if on_loopback else LARGEST_ELSEWHERE)

    def __str__(self) -> str:
        return self.text


NO_SEARCH = SearchRange(0, 0)
"""The batches of a grid are measured instead."""


def parse_search(value: object) -> SearchRange:
    """Parse "auto", "off", "LOW..HIGH", True or False."""
    text = value.strip() if isinstance(value, str) else value
    if text == "off" or text is False:
        return NO_SEARCH
    if text == "auto" or text is True:
        return SearchRange()
    match = _RANGE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise GrammarError(f'a search is auto, off or LOW..HIGH, got {short_repr(value)}; write for example "16..4096"')
    low, high = (parse_count(bound, maximum=MAX_BATCH, what="a bound of the search") for bound in match.groups())
    if low > high:
        raise GrammarError(f'a search goes from low to high, got {short_repr(value)}; write "{high}..{low}"')
    return SearchRange(low, high)


def parse_precision(value: object) -> float:
    """Parse how far the largest batch that passes and the smallest that fails may be apart: "5%", 0.05; 0 is exact."""
    share = parse_fraction(value, what="the precision")
    if share > MAX_PRECISION:
        raise GrammarError(f'the precision must be at most 50%, got {short_repr(value)}; write for example "5%"')
    return share


@dataclass(frozen=True, slots=True)
class SearchPlan(Jsonable):
    """What one search is to do: all that the batches it asks for depend on, besides what becomes of them.

    `low` to `high` are the batches that may be asked for, `precision` a fraction (0: exact), `repetitions` how many of
    the candidate have to pass. `first` are asked first, as long as they pass, and `hints` as soon as they lie between
    what passes and what fails. With `needed` the one question is whether that batch holds. `bound` tells what sets
    `high`: the range that was written, `auto`, or what this client can open.
    """

    low: int
    high: int
    precision: float = 0.05
    repetitions: int = DEFAULT_REPETITIONS
    first: tuple[int, ...] = ()
    hints: tuple[int, ...] = ()
    needed: int | None = None
    bound: Literal["range", "auto", "client"] = "range"

    @property
    def ladder(self) -> Iterator[int]:
        """The batches that are asked for until one fails: the first ones, then ever twice as many, up to `high`."""
        batch = self.low
        for batch in sorted({self.low, *(first for first in self.first if self.low < first < self.high)}):
            yield batch
        while batch < self.high:
            batch = min(2 * batch, self.high)
            yield batch
