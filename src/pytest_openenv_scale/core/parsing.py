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
from urllib.parse import urlsplit

MAX_BATCH = 1_000_000
MAX_COUNT = 1_000_000_000
MAX_SECONDS = 7 * 86_400.0
MAX_RATE = 1_000_000.0
MAX_ITEMS = 1_000
MODES = ("ws", "http")
ARRIVALS = ("hold", "burst", "rate=R")

_UNITS = {"us": "1e-6", "µs": "1e-6", "ms": "1e-3", "s": "1", "min": "60", "m": "60", "h": "3600", "": "1"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_SECONDS = re.compile(rf"({_NUMBER.pattern})\s*({'|'.join(filter(None, _UNITS))})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_RANGE = re.compile(r"([0-9]{1,18})\s*\.\.\s*([0-9]{1,18})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SCHEME = re.compile(r"(?:https?|wss?)://", re.IGNORECASE)
_NEXT_URL = re.compile(r",\s*(?=(?:https?|wss?)://)", re.IGNORECASE)
_NEXT_OPTION = re.compile(r",(?=\s*[A-Za-z_][A-Za-z0-9_.-]*\s*=)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FLAG = re.compile(r",\s*temporary\s*(?=,|$)")
_USERINFO = re.compile(r"((?:https?|wss?)://)[^\s,?#]*@", re.IGNORECASE)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = frozenset(
    (
        *("connection", "content-length", "transfer-encoding", "upgrade", "sec-websocket-accept"),
        *("sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"),
    )
)


class GrammarError(ValueError):
    """A value that does not parse: one line saying what was wrong and what to write instead."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to `name`, else the list of known names."""
    names = list(known)
    found = difflib.get_close_matches(name[:80].lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else f"; write one of {', '.join(names)}"


def shown(value: object) -> str:
    """Return a short repr of what was written, without the userinfo of any URL in it."""
    text = _USERINFO.sub(r"\1", value) if isinstance(value, str) else value
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
        raise GrammarError(f"{what} must be a whole number ≥ {minimum}, got {shown(value)}")
    if number > maximum:
        raise GrammarError(f"{what} must be at most {maximum:,}, got {shown(value)}")
    return number


def parse_number(value: object, *, maximum: float = 1e9, what: str = "the value") -> float:
    """Parse a finite number above 0."""
    number = _number(value)
    if number is None or not 0 < number <= maximum:
        raise GrammarError(f"{what} must be a number > 0 and ≤ {maximum:g}, got {shown(value)}")
    return number


def parse_seconds(value: object, *, positive: bool = False, what: str = "the duration") -> float:
    """Parse a duration into seconds: "10s", "500ms", "2m", "1h", 2.5 or "2.5" (a bare number is seconds)."""
    seconds: float | None
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        seconds = float(Decimal(match[1]) * Decimal(_UNITS[match[2] or ""])) if match else None
    else:
        seconds = _number(value)
    if seconds is None or not math.isfinite(seconds):
        raise GrammarError(f'{what} must be a number of seconds, got {shown(value)}; write for example "2.5s"')
    if seconds < 0 or (positive and seconds == 0):
        raise GrammarError(f"{what} must be {'>' if positive else '≥'} 0 seconds, got {shown(value)}")
    if seconds > MAX_SECONDS:
        raise GrammarError(f"{what} must be at most 7 days ({MAX_SECONDS:.0f} s), got {shown(value)}")
    return seconds + 0.0  # no negative zero


def parse_fraction(value: object, *, what: str = "the fraction") -> float:
    """Parse a share of 1: 0.95 or "95%"."""
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        percent = text[:-1].rstrip()
        number = float(Decimal(percent) / 100) if _NUMBER.fullmatch(percent) else None
    else:
        number = _number(value)
    if number is not None and 1 < number <= 100 and not text.endswith("%"):
        hint = format_number(number)
        raise GrammarError(f'{what} must be between 0 and 1, got {shown(value)}; for {hint} % write "{hint}%"')
    if number is None or not 0 <= number <= 1:
        raise GrammarError(f'{what} must be a fraction between 0 and 1, got {shown(value)}; write 0.95 or "95%"')
    return number + 0.0


def parse_batches(value: object) -> tuple[int, ...]:
    """Parse batch sizes, sorted and without duplicates; "8..512" doubles from 8 up to 512, which is included.

    Takes text ("1,8,32..512"), one number, or an iterable of numbers and such text.
    """
    batches: set[int] = set()
    for item in _items(value, "batches", '"1,8,32..512"'):
        spread = _RANGE.fullmatch(item.strip()) if isinstance(item, str) else None
        if spread is None:
            batches.add(_batch(item))
            continue
        first, last = _batch(spread[1]), _batch(spread[2])
        if first > last:
            raise GrammarError(f'batches must grow from left to right, got {shown(item)}; write "{last}..{first}"')
        while first < last:
            batches.add(first)
            first *= 2
        batches.add(last)
    return tuple(sorted(batches))


def _batch(item: object) -> int:
    try:
        return parse_count(item, maximum=MAX_BATCH, what="batches")
    except GrammarError as error:
        if "at most" in str(error):
            raise
        raise GrammarError(
            f'batches must be whole numbers ≥ 1, got {shown(item)}; write for example "1,8,32..512"'
        ) from None


def parse_waits(value: object) -> tuple[float, ...]:
    """Parse the seconds a step is asked to spend, each ≥ 0; sorted, without duplicates."""
    items = _items(value, "waits", '"0.1,1s"')
    return tuple(sorted({parse_seconds(item, what="waits") for item in items}))


def parse_modes(value: object) -> tuple[str, ...]:
    """Parse protocols in the order given, without duplicates: "ws", "http" or both."""
    return tuple(dict.fromkeys(parse_mode(item) for item in _items(value, "modes", '"ws,http"')))


def parse_mode(value: object) -> str:
    """Parse one protocol: "ws" or "http"."""
    mode = value.strip() if isinstance(value, str) else value
    if mode not in MODES:
        hint = nearest(mode, MODES) if isinstance(mode, str) else "; write one of ws, http"
        raise GrammarError(f"modes are ws and http, got {shown(value)}{hint}")
    return cast(str, mode)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the sessions of a batch start; `rate` is in sessions per second, for kind "rate" only."""

    kind: Literal["hold", "burst", "rate"]
    rate: float | None = None

    def __str__(self) -> str:
        return self.kind if self.rate is None else f"rate={format_number(self.rate)}"


def parse_arrival(value: object) -> Arrival:
    """Parse "hold", "burst" or "rate=R" with R in sessions per second."""
    if isinstance(value, Arrival):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text == "hold" or text == "burst":
        return Arrival(text)
    name, separator, rate = text.partition("=")
    if name.strip() == "rate" and separator:
        number = parse_number(rate, maximum=MAX_RATE, what="arrival rate=R (sessions per second)")
        return Arrival("rate", number)
    hint = '; write for example "rate=50"' if name == "rate" else nearest(name, ARRIVALS)
    raise GrammarError(f"arrival is hold, burst or rate=R, got {shown(value)}{hint}")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A target as asked for: `NAME[:ARGUMENT][,key=value…]`, options sorted by key.

    The name of a given URL is "url" and its argument the URL, or several joined by commas. The text of a
    specification may hold secrets; `redact_target` gives the text that may be shown, as the repr does.
    """

    name: str
    argument: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of a "url" target; empty for every other target."""
        return tuple(_NEXT_URL.split(self.argument)) if self.name == "url" and self.argument else ()

    def option(self, key: str) -> str | None:
        """Return the text of one option, or None where it was not given."""
        return dict(self.options).get(key)

    def __str__(self) -> str:
        head = self.argument or "" if self.name == "url" else self.name
        if self.name != "url" and self.argument is not None:
            head += f":{self.argument}"
        return ",".join([head, *(f"{key}={value}" for key, value in self.options)])

    def __repr__(self) -> str:
        return f"<TargetSpec {redact_target(self)}>"


def parse_target(value: object) -> TargetSpec:
    """Parse `NAME[:ARGUMENT][,key=value…]` or `URL[,URL…][,key=value…]`; `,temporary` is short for `,temporary=yes`.

    A comma inside a URL belongs to it unless `key=` or a new scheme follows.
    """
    if isinstance(value, TargetSpec):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not text or _CONTROL.search(text):
        raise GrammarError(f'a target must be one line of text, got {shown(value)}; write for example "local"')
    if not _SCHEME.match(text):
        text = _FLAG.sub(",temporary=yes", text)
    head, *pieces = _NEXT_OPTION.split(text)
    if _SCHEME.match(text):
        urls = ",".join(_check_url(url.strip()) for url in _NEXT_URL.split(head))
        return TargetSpec("url", urls, _target_options(pieces))
    head, *stray = head.split(",")
    name, colon, argument = (part.strip() for part in head.partition(":"))
    _refuse_stray(stray)
    if not _NAME.fullmatch(name) or name in ("localhost", "url"):
        host = re.match(r"[\w.-]+:[0-9]+", head) or re.match(r"[\w-]+(\.[\w-]+)+(?=/|$)", head)
        hint = f'; for a server that runs already write "http://{head}"' if host else '; write "local" or a URL'
        raise GrammarError(f"a target must be NAME[:ARGUMENT][,key=value…] or a URL, got {shown(text)}{hint}")
    if colon and not argument:
        raise GrammarError(f"target {name!r} has nothing after its colon; write {name!r} or {name}:ARGUMENT")
    return TargetSpec(name, argument or None, _target_options(pieces))


def _target_options(pieces: list[str]) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for piece in pieces:
        key, _, text = (part.strip() for part in piece.partition("="))
        if _NEXT_URL.search(piece):
            raise GrammarError(f"URLs come before keys; move the URL in front of {key}=")
        if "," in text and key.startswith("env."):
            raise GrammarError(f"the value of target key {key!r} has a comma, which ends a value; leave it out")
        _refuse_stray(text.split(",")[1:])
        if key in options:
            raise GrammarError(f"target key {key!r} is given twice; write it once")
        if not text and not key.startswith("env."):
            raise GrammarError(f"target key {key!r} has no value; write {key}=VALUE")
        options[key] = text
    return tuple(sorted(options.items()))


def _refuse_stray(pieces: list[str]) -> None:
    if pieces:
        raise GrammarError(f"a target's settings are written key=value, got {shown(pieces[0].strip())}")


def _check_url(url: str) -> str:
    problem = "it contains a space" if re.search(r"\s", url) else ""
    try:
        parts = urlsplit(url)
        problem = problem or ("" if parts.hostname else "it names no host")
        problem = problem or ("its port is no number from 1 to 65535" if parts.port == 0 else "")
    except ValueError as error:
        port = "port" in str(error).lower()
        problem = "its port is no number from 1 to 65535" if port else "its host cannot be read"
    if problem or url.endswith(","):
        problem = problem or "it ends with a comma"
        raise GrammarError(f"{shown(redact_url(url))} is not a URL: {problem}; write http://host:port/prefix")
    return url


def redact_url(url: str) -> str:
    """Return the URL without userinfo, without the values of its query and without its fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return _USERINFO.sub(r"\1", url.partition("?")[0])
    query = "&".join(f"{pair.partition('=')[0]}=***" for pair in parts.query.split("&") if pair)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query=query, fragment="").geturl()


def names_secret(name: str) -> bool:
    """Say whether a setting of this name may hold a secret: API_KEY, token, password and the like."""
    return _SECRET_NAME.search(name) is not None


def redact_target(spec: TargetSpec) -> str:
    """Return the canonical text of a target without userinfo, query values or secrets in `env.NAME=`.

    What a provider is given is its own: there a secret may have any key.
    """
    argument = spec.argument and _USERINFO.sub(r"\1", spec.argument)
    if spec.name == "url":
        argument = ",".join(redact_url(url) for url in spec.urls)
    options = (
        (
            key,
            "***"
            if (key.startswith(("env.", "build.")) or spec.name == "provider") and names_secret(key)
            else _USERINFO.sub(r"\1", text),
        )
        for key, text in spec.options
    )
    return str(TargetSpec(spec.name, argument, tuple(options)))


def parse_json(value: object, what: str) -> Any:
    """Parse JSON text, or check that a Python value is JSON; NaN and infinities are refused."""
    try:
        found: Any = json.loads(value) if isinstance(value, str) else value
        return json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GrammarError(f"{what} must be JSON, got {shown(value)} ({problem})") from None


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


def _number(value: object) -> float | None:
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


def _items(value: object, what: str, example: str) -> list[object]:
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
