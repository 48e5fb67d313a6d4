"""Numbers as people read them, the same in every report; a missing value is an en dash, never 0."""

from __future__ import annotations

import math
import re
from typing import Literal

Unit = Literal[
    "sessions", "fraction", "seconds", "factor", "per second", "hosts", "sessions per core", "bytes", "per session"
]
MISSING = "–"

_DIVISORS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def seconds(value: float | None) -> str:
    """Return a duration given in seconds with its unit: "850 µs", "12 ms", "1.03 s", "61.5 s"."""
    if value is None:
        return MISSING
    unit = _unit(value)
    return f"{_scaled(value, unit)} {unit}"


def seconds_pair(first: float | None, second: float | None) -> str:
    """Return two durations given in seconds in one unit, that of the larger: "9 / 14 ms", "1.00 / 1.01 s"."""
    measured = [value for value in (first, second) if value is not None]
    if not measured:
        return MISSING
    unit = _unit(max(measured, key=abs))
    texts = [MISSING if value is None else _scaled(value, unit) for value in (first, second)]
    return f"{texts[0]} / {texts[1]} {unit}"


def _unit(value: float) -> str:
    size = abs(value)
    if size == 0 or size < 0.9995e-3:
        return "ms" if size == 0 else "µs"
    return "ms" if size < 0.9995 else "s"


def _scaled(value: float, unit: str) -> str:
    """Return a value in `unit`: whole milliseconds from 10 up, three digits of seconds below 100."""
    number = value / _DIVISORS[unit]
    size = abs(number)
    if unit == "s":
        return f"{number:.2f}" if size < 9.995 else f"{number:.1f}" if size < 999.95 else f"{number:,.0f}"
    return f"{number:.1f}" if unit == "ms" and 0 < size < 9.95 else f"{number:.0f}"


def percent(fraction: float | None) -> str:
    """Return a share of 1 as "66.7 %", as `percent_number` does."""
    return MISSING if fraction is None else f"{percent_number(fraction)} %"


def percent_number(fraction: float | None) -> str:
    """Return a share of 1 as "66.7", without the sign; for a column headed %.

    It is never rounded up to a whole per cent: 100.0 means all of them, and what reads 95.0 is not less than 95 %.
    """
    if fraction is None:
        return MISSING
    tenths = math.floor(fraction * 1000 + 0.5)
    return f"{(math.floor(fraction * 1000 + 1e-9) if tenths % 10 == 0 else tenths) / 10:.1f}"


def rate(value: float | None) -> str:
    """Return a number per second in three digits or more: "0.78", "17.6", "119", "1,240"."""
    if value is None:
        return MISSING
    size = abs(value)
    return f"{value:.2f}" if size < 9.995 else f"{value:.1f}" if size < 99.95 else f"{value:,.0f}"


def count(value: int | None) -> str:
    """Return a whole number with thousands separated: "16,384"."""
    return MISSING if value is None else f"{value:,}"


def count_of(value: int, noun: str) -> str:
    """Return a number and its noun: "1 session", "1,024 sessions"."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def number(value: float | None) -> str:
    """Return a number in three digits without trailing zeros: "64", "10.7"."""
    return MISSING if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size(value: float | None) -> str:
    """Return bytes in the unit that limits are written in: "850 KiB", "1.25 GiB"."""
    if value is None:
        return MISSING
    scaled, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 1023.5:
            break
        scaled, unit = scaled / 1024, larger
    return f"{scaled:.0f} {unit}" if abs(scaled) >= 99.95 else f"{scaled:.3g} {unit}"


def small_sample_note(values: int, statistic: str) -> str:
    """Say that a percentile rests on few values: " (p99 of 24 ≈ max)"; nothing where enough, or of a maximum."""
    percentile = statistic.removeprefix("p")
    enough = 100 // (100 - int(percentile)) if percentile.isdecimal() else 0
    return "" if values >= enough else f" ({statistic} of {values} ≈ max)"


def text_range(low: str, high: str, joint: str = " to ") -> str:
    """Return two figures with their units as a range, one unit and one of equal texts: "12 to 15 ms", "12 ms"."""
    if low == high:
        return low
    number, unit = _split_unit(low)
    return f"{number if unit and _split_unit(high)[1] == unit else low}{joint}{high}"


def _split_unit(text: str) -> tuple[str, str]:
    """Return the number and the unit, with what is between them: ("12", " ms"), ("210", "/s")."""
    number = text.rstrip("%/abcdefghijklmnopqrstuvwxyzBKMGTµ").rstrip()
    return number, text[len(number) :]


def list_of_counts(numbers: list[int]) -> str:
    """Return whole numbers as a list for people: "32", "32 and 64", "32, 64 and 128"."""
    texts = [count(value) for value in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def format_observed(unit: Unit, value: float, allowed: float) -> str:
    """Return a measured value in its unit, with digits enough that it does not read like the allowed one."""
    match unit:
        case "fraction":
            return _distinct_percent(value, allowed)
        case "seconds":
            return _distinct_seconds(value, allowed)
        case "per second":
            return f"{rate(value)}/s"
        case "sessions" | "hosts":
            return count(int(value))
        case "bytes":
            return _distinct_size(value, allowed)
        case "factor" | "sessions per core" | "per session":
            return number(value)


def _distinct_percent(value: float, allowed: float) -> str:
    usual = percent(value)
    if usual != percent(allowed) or value == allowed:
        return usual
    return _with_more_digits(100 * value, 100 * allowed, "%") or usual


def _distinct_size(value: float, allowed: float) -> str:
    usual = size(value)
    return usual if usual != size(allowed) or value == allowed else f"{value:,.0f} B"


def _distinct_seconds(value: float, allowed: float) -> str:
    usual = seconds(value)
    if usual != seconds(allowed) or value == allowed:
        return usual
    unit = _unit(value)
    return _with_more_digits(value / _DIVISORS[unit], allowed / _DIVISORS[unit], unit) or usual


def _with_more_digits(value: float, allowed: float, unit: str) -> str | None:
    candidates = (f"{value:.{digits}f}" for digits in range(2, 12))
    return next((f"{text} {unit}" for text in candidates if float(text) != round(allowed, 11)), None)


def format_value(unit: Unit, value: float) -> str:
    """Return a number with its unit: 95 %, 2.5 s, 250 ms, 64 (sessions and factors bare), 31.2/s, 2 MiB."""
    match unit:
        case "fraction":
            return f"{value * 100:.4g} %"
        case "seconds":
            return f"{value:.4g} s" if value >= 1 else f"{value * 1000:.4g} ms"
        case "per second":
            return f"{_four_digits(value)}/s"
        case "sessions" | "hosts":
            return f"{value:.0f}"
        case "bytes":
            return size(value)
        case _:
            return _four_digits(value)


def _four_digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 9_999.5 else f"{value:,.0f}"


_UNIT_GAP = re.compile(r"(?<=\d) (?=(?:%|ms|s|us|µs|sess/s)(?!\w))")


def with_units_kept(text: str) -> str:
    """Return a text in which no line ends between a number and its unit: a no-break space stands there."""
    return _UNIT_GAP.sub("\xa0", text)
