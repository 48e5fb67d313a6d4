"""Text and numbers a person writes, turned into checked values; every mistake is one clear line.

Durations are seconds and shares are fractions of 1 once parsed. The functions take what a command line
gives (text) and what a mark gives (numbers, lists) alike. They raise `GrammarError` and nothing else.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from numbers import Integral, Real
from typing import Any, Literal, cast

from .errors import GrammarError

MAX_BATCH = 1_000_000
MAX_COUNT = 1_000_000_000
MAX_SECONDS = 7 * 86_400.0
MAX_RATE = 1_000_000.0
MAX_BYTES = 2.0**50
MAX_ITEMS = 1_000
MODES = ("ws", "http")
ARRIVALS = ("hold", "burst", "rate=R", "steady=TIME")

_UNITS = {"us": "1e-6", "µs": "1e-6", "ms": "1e-3", "s": "1", "min": "60", "m": "60", "h": "3600", "": "1"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_SECONDS = re.compile(rf"({_NUMBER.pattern})\s*({'|'.join(filter(None, _UNITS))})?")
_BYTE_UNITS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_BYTES = re.compile(rf"({_NUMBER.pattern})\s*({'|'.join(_BYTE_UNITS)})", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_RANGE = re.compile(r"([0-9]{1,18})\s*\.\.\s*([0-9]{1,18})")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
USERINFO = re.compile(r"((?:https?|wss?)://)[^\s,?#]*@", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = frozenset(
    (
        *("connection", "content-length", "transfer-encoding", "upgrade", "sec-websocket-accept"),
        *("sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"),
    )
)


def suggestion(name: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the choice closest to `name`, else the list of choices."""
    names = list(choices)
    matches = difflib.get_close_matches(name[:80].lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else f"; write one of {', '.join(names)}"


def short_repr(value: object) -> str:
    """Return a short repr of what was written, without the userinfo of any URL in it."""
    text = USERINFO.sub(r"\1", value) if isinstance(value, str) else value
    try:
        line = " ".join(repr(text).split())
    except Exception:
        line = f"a value of type {type(value).__name__}"
    return line if len(line) <= 80 else f"{line[:70]}…"


def format_number(value: float) -> str:
    """Return the shortest text that reads back as the same number: 1, 0.1, 2.5."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def parse_count(value: object, *, minimum: int = 1, maximum: int = MAX_COUNT, what: str = "the value") -> int:
    """Parse a whole number between `minimum` and `maximum`."""
    number: int | None = None
    whole = _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else isinstance(value, Integral)
    if whole and not isinstance(value, bool):
        number = int(cast(int, value))
    if number is None or number < minimum:
        raise GrammarError(f"{what} must be a whole number ≥ {minimum}, got {short_repr(value)}")
    if number > maximum:
        raise GrammarError(f"{what} must be at most {maximum:,}, got {short_repr(value)}")
    return number


def parse_number(value: object, *, maximum: float = 1e9, what: str = "the value") -> float:
    """Parse a finite number above 0."""
    number = _finite_number(value)
    if number is None or not 0 < number <= maximum:
        raise GrammarError(f"{what} must be a number > 0 and ≤ {maximum:g}, got {short_repr(value)}")
    return number


def parse_seconds(value: object, *, positive: bool = False, what: str = "the duration") -> float:
    """Parse a duration into seconds: "10s", "500ms", "2m", "1h", 2.5 or "2.5" (a bare number is seconds)."""
    seconds: float | None
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        seconds = float(Decimal(match[1]) * Decimal(_UNITS[match[2] or ""])) if match else None
    else:
        seconds = _finite_number(value)
    if seconds is None or not math.isfinite(seconds):
        raise GrammarError(f'{what} must be a number of seconds, got {short_repr(value)}; write for example "2.5s"')
    if seconds < 0 or (positive and seconds == 0):
        raise GrammarError(f"{what} must be {'>' if positive else '≥'} 0 seconds, got {short_repr(value)}")
    if seconds > MAX_SECONDS:
        raise GrammarError(f"{what} must be at most 7 days ({MAX_SECONDS:.0f} s), got {short_repr(value)}")
    return seconds + 0.0  # no negative zero


def parse_fraction(value: object, *, what: str = "the fraction") -> float:
    """Parse a share of 1: 0.95 or "95%"."""
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        percent = text[:-1].rstrip()
        number = float(Decimal(percent) / 100) if _NUMBER.fullmatch(percent) else None
    else:
        number = _finite_number(value)
    if number is not None and 1 < number <= 100 and not text.endswith("%"):
        hint = format_number(number)
        raise GrammarError(f'{what} must be between 0 and 1, got {short_repr(value)}; for {hint} % write "{hint}%"')
    if number is None or not 0 <= number <= 1:
        raise GrammarError(f'{what} must be a fraction between 0 and 1, got {short_repr(value)}; write 0.95 or "95%"')
    return number + 0.0


def parse_bytes(value: object, *, what: str = "the size") -> float:
    """Parse a size above 0 into bytes: "2MiB", "1.5 GiB", "500kB"; a number is bytes, text needs its unit."""
    text = value.strip() if isinstance(value, str) else ""
    match = _BYTES.fullmatch(text)
    size = float(Decimal(match[1]) * _BYTE_UNITS[match[2].lower()]) if match else None
    if not isinstance(value, str):
        size = _finite_number(value)
    elif match is None and _NUMBER.fullmatch(text):
        raise GrammarError(f"{what} needs a unit, got {short_repr(value)}; write {text}MiB or {text}GiB")
    if size is None:
        raise GrammarError(f'{what} must be a size, got {short_repr(value)}; write for example "2MiB"')
    if not 0 < size <= MAX_BYTES:
        raise GrammarError(f"{what} must be a size > 0 and ≤ 1 PiB, got {short_repr(value)}")
    return size


def parse_batches(value: object) -> tuple[int, ...]:
    """Parse batch sizes, sorted and without duplicates; "8..512" doubles from 8 up to 512, which is included.

    Takes text ("1,8,32..512"), one number, or an iterable of numbers and such text.
    """
    batches: set[int] = set()
    for item in _split_items(value, "batches", '"1,8,32..512"'):
        range_match = _RANGE.fullmatch(item.strip()) if isinstance(item, str) else None
        if range_match is None:
            batches.add(_parse_batch(item))
            continue
        first, last = _parse_batch(range_match[1]), _parse_batch(range_match[2])
        if first > last:
            raise GrammarError(f'batches must grow from left to right, got {short_repr(item)}; write "{last}..{first}"')
        while first < last:
            batches.add(first)
            first *= 2
        batches.add(last)
    return tuple(sorted(batches))


def _parse_batch(item: object) -> int:
    try:
        return parse_count(item, maximum=MAX_BATCH, what="batches")
    except GrammarError as error:
        if "at most" in str(error):
            raise
        raise GrammarError(
            f'batches must be whole numbers ≥ 1, got {short_repr(item)}; write for example "1,8,32..512"'
        ) from None


def parse_waits(value: object) -> tuple[float, ...]:
    """Parse the seconds a step is asked to spend, each ≥ 0; sorted, without duplicates."""
    items = _split_items(value, "waits", '"0.1,1s"')
    return tuple(sorted({parse_seconds(item, what="waits") for item in items}))


def parse_modes(value: object) -> tuple[str, ...]:
    """Parse protocols in the order given, without duplicates: "ws", "http" or both."""
    return tuple(dict.fromkeys(parse_mode(item) for item in _split_items(value, "modes", '"ws,http"')))


def parse_mode(value: object) -> str:
    """Parse one protocol: "ws" or "http"."""
    mode = value.strip() if isinstance(value, str) else value
    if mode not in MODES:
        hint = suggestion(mode, MODES) if isinstance(mode, str) else "; write one of ws, http"
        raise GrammarError(f"modes are ws and http, got {short_repr(value)}{hint}")
    return cast(str, mode)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the sessions of a batch start.

    `rate` is in sessions per second, for kind "rate" only. `seconds` is how long a steady state lasts, in which each of
    the batch's slots plays session after session, or for how long sessions arrive at a rate; None where the batch is
    all there is. The first `ramp` seconds of it are not judged: slots begin one by one in them.

    Raises:
        GrammarError: the ramp leaves nothing to judge.
    """

    kind: Literal["hold", "burst", "rate", "steady"]
    rate: float | None = None
    seconds: float | None = None
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if self.ramp and self.ramp >= (self.seconds or 0.0):
            whole = "nothing" if self.seconds is None else f"{format_number(self.seconds)} s"
            raise GrammarError(f"a ramp of {format_number(self.ramp)} s leaves nothing of {whole} to judge; shorten it")

    def __str__(self) -> str:
        """The text that `parse_arrival` reads back: "hold", "rate=50,for=60", "steady=60,ramp=10"."""
        if self.kind == "steady":
            text = f"steady={format_number(self.seconds or 0.0)}"
        elif self.rate is None:
            text = self.kind
        else:
            duration = "" if self.seconds is None else f",for={format_number(self.seconds)}"
            text = f"rate={format_number(self.rate)}{duration}"
        return f"{text},ramp={format_number(self.ramp)}" if self.ramp else text


_ARRIVAL_EXAMPLES = {"rate": "rate=50", "steady": "steady=60s"}


def parse_arrival(value: object) -> Arrival:
    """Parse "hold", "burst", "rate=R" with R in sessions per second, or "steady=TIME".

    What an `Arrival` is written as is read back, too: "rate=R,for=TIME", each with ",ramp=TIME".
    """
    if isinstance(value, Arrival):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text == "hold" or text == "burst":
        return Arrival(text)
    head, *details = (part.strip() for part in text.split(","))
    name, separator, amount = (part.strip() for part in head.partition("="))
    keys = dict(part.split("=", 1) for part in details if "=" in part)
    known = {"rate": {"for", "ramp"}, "steady": {"ramp"}}.get(name, set[str]())
    if separator and known.issuperset(keys) and len(keys) == len(details):
        lengths = {key: parse_seconds(length, positive=True, what=f"arrival {key}=") for key, length in keys.items()}
        if name == "rate":
            rate = parse_number(amount, maximum=MAX_RATE, what="arrival rate=R (sessions per second)")
            return Arrival("rate", rate, lengths.get("for"), lengths.get("ramp", 0.0))
        if name == "steady":
            seconds = parse_seconds(amount, positive=True, what="arrival steady=TIME")
            return Arrival("steady", None, seconds, lengths.get("ramp", 0.0))
    example = _ARRIVAL_EXAMPLES.get(name)
    hint = f'; write for example "{example}"' if example else suggestion(name, ARRIVALS)
    raise GrammarError(f"arrival is hold, burst, rate=R or steady=TIME, got {short_repr(value)}{hint}")


def parse_json(value: object, what: str) -> Any:
    """Parse JSON text, or check that a Python value is JSON; NaN and infinities are refused."""
    try:
        data: Any = json.loads(value) if isinstance(value, str) else value
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GrammarError(f"{what} must be JSON, got {short_repr(value)} ({problem})") from None


def parse_header(value: object) -> tuple[str, str]:
    """Parse "Name: value"; errors never repeat the value."""
    text = value if isinstance(value, str) else ""
    name, colon, content = (part.strip(" \t") for part in text.partition(":"))
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise GrammarError('a header must be written "Name: value"; the text given has no such name and colon')
    if not _HEADER_VALUE.fullmatch(content):
        raise GrammarError(f"the value of header {name!r} must be one line of Latin-1 text")
    if name.lower() in _OWN_HEADERS:
        raise GrammarError(f"header {name!r} belongs to the protocol and cannot be set; leave it out")
    return name, content


def _finite_number(value: object) -> float | None:
    """Return a finite number written as text or given as one; None for anything else, booleans included."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    elif not isinstance(value, bool) and isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def _split_items(value: object, what: str, example: str) -> list[object]:
    """Split text at commas, or take an iterable's items; at least one, at most MAX_ITEMS."""
    if isinstance(value, str):
        items: list[object] = list(value.split(","))
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        items = list(islice(cast("Iterable[object]", value), MAX_ITEMS + 1))
    else:
        items = [value]
    if not items or items == [""]:
        raise GrammarError(f"{what} must not be empty; write for example {example}")
    if len(items) > MAX_ITEMS:
        raise GrammarError(f"{what} may have at most {MAX_ITEMS:,} items; write for example {example}")
    return items
