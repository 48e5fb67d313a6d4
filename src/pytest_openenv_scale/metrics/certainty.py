"""How sure a figure is: intervals that assume no distribution.

Shares: the interval of Clopper and Pearson (Biometrika 26, 1934), which covers the true share at least as often as it
says. Percentiles: two order statistics of the sample (David and Nagaraja, Order Statistics, 2003, section 7.1), exact
for every continuous distribution. Slopes: that of Sen (JASA 63, 1968). All take samples as independent, which sessions
of one held batch are not: where a cell has repetitions, these are the samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, median
from typing import Literal, NamedTuple

from pytest_openenv_scale.core.serialization import Jsonable

CONFIDENCE = 0.95
"""How often an interval covers what it is of, at least."""

_NEGLIGIBLE = 1e-20
"""Probability of a count from which on rarer ones are no longer added up."""


@dataclass(frozen=True, slots=True)
class Interval(Jsonable):
    """Where the true figure lies, in the unit of the figure; None at an end that so few samples leave open.

    `confidence` is how often such an interval covers it, `samples` of what `over` says it rests on.
    """

    low: float | None
    high: float | None
    confidence: float
    over: Literal["sessions", "steps", "repetitions"]
    samples: int


def success_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson of a share of which `successes` of `trials` are a sample.

    Raises:
        ValueError: there are no trials, or not as many as successes.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    tail = (1 - confidence) / 2
    return _lower_share(successes, trials, tail), 1 - _lower_share(trials - successes, trials, tail)


def chance_of_half(successes: int, trials: int) -> float:
    """Return how probable so many successes or more are where half of all trials succeed: the sign test, one-sided."""
    return sum(math.comb(trials, count) for count in range(successes, trials + 1)) / 2**trials


def _lower_share(successes: int, trials: int, tail: float) -> float:
    """Return the share at which as many successes or more have the probability `tail`."""
    if successes == 0:
        return 0.0
    if successes == trials:
        return tail ** (1 / trials)
    low, high = 0.0, successes / trials
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _upper_tail(successes, trials, middle) > tail else (middle, high)
    return low


def _upper_tail(count: int, trials: int, share: float) -> float:
    """Return the probability of `count` or more successes, where `count` is not below the expected number."""
    total = term = math.exp(_log_probability(count, trials, share))
    odds = share / (1 - share)
    for number in range(count, trials):
        term *= odds * (trials - number) / (number + 1)
        total += term
        if term < _NEGLIGIBLE:
            break
    return total


def _log_probability(count: int, trials: int, share: float) -> float:
    choices = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return choices + count * math.log(share) + (trials - count) * math.log1p(-share)


@lru_cache(maxsize=1024)
def percentile_ranks(samples: int, share: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Return the ranks (from 1, ascending) of the two samples between which a percentile lies; None for an open end.

    `share` is 0.99 for p99. How many of the samples lie below the percentile is binomial: each end is the innermost
    that leaves (1 − confidence) ÷ 2 beyond it.

    Raises:
        ValueError: there are no samples.
    """
    if samples < 1:
        raise ValueError("no samples, so no percentile")
    tail = (1 - confidence) / 2
    mode = min(samples, math.floor((samples + 1) * share))
    likeliest = math.exp(_log_probability(mode, samples, share))
    odds = share / (1 - share)
    below, above = [likeliest], [likeliest]
    for number in range(mode, 0, -1):
        below.append(below[-1] * number / ((samples - number + 1) * odds))
        if below[-1] < _NEGLIGIBLE:
            break
    for number in range(mode, samples):
        above.append(above[-1] * odds * (samples - number) / (number + 1))
        if above[-1] < _NEGLIGIBLE:
            break
    # P(fewer than `low` samples below) and P(at least `high` below) stay within the tails.
    low = mode - len(below) + 1 + _count_within(reversed(below), tail)
    high = mode + len(above) - _count_within(reversed(above), tail)
    return (low if low >= 1 else None), (high if high <= samples else None)


def _count_within(probabilities: Iterable[float], tail: float) -> int:
    """Return how many of these add up to at most `tail`."""
    total, count = 0.0, 0
    for probability in probabilities:
        total += probability
        if total > tail:
            break
        count += 1
    return count


def least_samples(share: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest samples that bound a percentile on both sides: 368 for p99 at 95 %."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(share, 1 - share)))


def over_repetitions(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the median of a figure over repetitions, with the confidence that so few of them have.

    The least and the largest of n cover the median with 1 − 2^(1−n): 0.75 for 3, beyond 0.95 from 6 on, where values
    further inside suffice.

    Raises:
        ValueError: there are no values.
    """
    ordered = sorted(values)
    low, high = percentile_ranks(len(ordered), 0.5, confidence)
    if low is None or high is None:
        return Interval(ordered[0], ordered[-1], 1 - 2.0 ** (1 - len(ordered)), "repetitions", len(ordered))
    return Interval(ordered[low - 1], ordered[high - 1], confidence, "repetitions", len(ordered))


class Slope(NamedTuple):
    """How much `y` grows per unit of `x`, and the ends of its interval, which covers it with this confidence."""

    value: float
    low: float
    high: float
    confidence: float


def slope(points: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Slope:
    """Return the median of the slopes between any two points (Theil and Sen), with its interval.

    The interval is that of Sen (1968, "Estimates of the regression coefficient based on Kendall's tau", JASA 63):
    the slopes whose ranks lie z·sqrt(n(n-1)(2n+5)/18) apart, less where values are equal. It spans all slopes where
    points are few; n of them cover with 1 − 2/n! at most.

    Raises:
        ValueError: all points have the same x.
    """
    ordered = sorted(points)
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(ordered)
        for later in ordered[number + 1 :]
        if later[0] > earlier[0]
    )
    if not slopes:
        raise ValueError("points of one x have no slope")
    deviations = NormalDist().inv_cdf((1 + confidence) / 2)
    rank_distance = deviations * math.sqrt(_kendall_variance([y for _, y in ordered]))
    low = max(0, math.floor((len(slopes) - rank_distance) / 2) - 1)
    high = min(len(slopes) - 1, math.ceil((len(slopes) + rank_distance) / 2))
    at_most = 1 - 2 / math.factorial(len(ordered))
    return Slope(median(slopes), slopes[low], slopes[high], min(confidence, at_most))


def _kendall_variance(values: Sequence[float]) -> float:
    """Return the variance of Kendall's S, corrected for equal values."""
    count = len(values)
    ties = Counter(values).values()
    equal = sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    return (count * (count - 1) * (2 * count + 5) - equal) / 18
