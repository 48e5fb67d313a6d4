"""Text that others wrote: JSON as Python servers send it, what a terminal can take, and all of it without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HIDDEN = "***"
_HEADER_OPTIONS = ("--openenv-header", "--header")
_INI_OPTIONS = ("-o", "--override-ini")
_INI_HEADER = re.compile(r"(openenv_header\s*=\s*).*", re.DOTALL | re.IGNORECASE)

_SCHEME = r"([a-z][a-z0-9+.-]*://)"
_USERINFO = re.compile(_SCHEME + r"[^\s/?#]*@", re.IGNORECASE)
_ODD_PASSWORD = re.compile(_SCHEME + r"[^\s/?#@]*:(?!\d+(?:[/?#,]|$))[^\s@]*@", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&][^=&\s#]+=)[^&\s#]*?(?=&|#|\s|$|,[A-Za-z_][\w.-]*=)")
_VALUE = r"""(?:"(?:[^"]|"")*"|[^,\s]*)"""
_ENVIRONMENT = re.compile(r"(\b(?:env|build)\.[A-Za-z_]\w*=)" + _VALUE)
_PROVIDER_SECRET = re.compile(
    r"(,\s*[\w.]*(?:token|secret|passw|key|credential|auth)[\w.]*\s*=)" + _VALUE, re.IGNORECASE
)


_TRACEBACK = "Traceback (most recent call last):"
_GROUP = f"Exception Group {_TRACEBACK}"
_ENDED_FROM_OUTSIDE = re.compile(r"(?:[\w.]+\.)?(?:CancelledError|KeyboardInterrupt|SystemExit)\b")
LOG_LINES = 200
"""Lines of a server's log that are read: as evidence, and to find the one that names a fault."""


def end_of_log(log: str, lines: int) -> list[str]:
    """Return the last lines of a log, before them the exception that it names, where that is not among them.

    Of several exceptions the last counts that is no mere end from outside, such as a `CancelledError`.
    """
    every = log.splitlines()
    heads = [number for number, line in enumerate(every) if _TRACEBACK in line and _GROUP not in line]
    faults = [fault for head in heads if (fault := _exception_after(every, head)) is not None]
    own = [fault for fault in faults if not _ENDED_FROM_OUTSIDE.match(fault[1])]
    number, words = (own or faults or [(len(every), "")])[-1]
    if number >= len(every) - lines or lines < _LEAST_LINES:
        return every[-lines:]
    return [words, LEFT_OUT, *every[len(every) - lines + 2 :]]


def count_new_lines(before: str, after: str) -> int:
    """Return how many lines of a log's end were not there yet when its end was `before`.

    All of them where that cannot be told: the same lines may stand for others, once the end is as long as it may get.
    """
    old, new = before.splitlines(), after.splitlines()
    if len(new) >= LOG_LINES and old == new:
        return len(new)
    kept = range(min(len(old), len(new)), -1, -1)
    return len(new) - next(count for count in kept if new[:count] == old[len(old) - count :])


_LEAST_LINES, _WORD = 3, re.compile(r"[^\W_]{2}")
LEFT_OUT = "…"
"""The line that stands for what is left out of a log between its exception and its end."""


def _exception_after(lines: Sequence[str], head: int) -> tuple[int, str] | None:
    """Return the number of the line that ends a traceback, and the exception: the first line that is not indented.

    What stands before the head stands before the other lines as well (white space, the bar of a group, the name of a
    container), but for the level that a logger writes before the head alone ("ERROR:    ").
    """
    before = lines[head][: lines[head].index(_TRACEBACK)]
    if not any(line.startswith(before) for line in lines[head + 1 : head + 2]):
        before = ""
    rest = [line.removeprefix(before) for line in lines[head + 1 :]]
    end = next((number for number, line in enumerate(rest) if line[:1].strip()), None)
    if end is None:
        return None
    words = rest[end].rstrip()
    if words.endswith(":"):  # Its message begins on a line of its own.
        words += f" {next((line.strip() for line in rest[end + 1 :] if _WORD.search(line)), '')}"
    return head + 1 + end, words


def redact_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line fit to be stored and printed.

    Values of `--openenv-header`, `--header` and of the ini setting `openenv_header` are dropped, whichever way they are
    written; so are userinfo and query values in anything that looks like a URL, the values of `env.NAME=`
    in targets, and what a provider gets as a key, token or password.
    """
    redacted: list[str] = []
    previous = ""
    for argument in arguments:
        redacted.append(_redact_argument(argument, previous))
        previous = argument
    return tuple(redacted)


def _redact_argument(argument: str, previous: str) -> str:
    if previous in _HEADER_OPTIONS:
        return _redact_header(argument)
    option, equals, value = argument.partition("=")
    if equals and option in _HEADER_OPTIONS:
        return f"{option}={_redact_header(value)}"
    if previous in _INI_OPTIONS or argument.startswith(_INI_OPTIONS):
        argument = _INI_HEADER.sub(rf"\1{_HIDDEN}", argument)
    return redact_text(argument)


def _redact_header(text: str) -> str:
    """Keep the name of a header, as in "Authorization: ***"; text that has none is hidden whole."""
    name, colon, _ = text.partition(":")
    return f"{name.strip()}: {_HIDDEN}" if colon else _HIDDEN


def redact_text(text: str) -> str:
    """Return text without userinfo and query values of the URLs in it and without values of `env.NAME=`."""
    text = _ENVIRONMENT.sub(rf"\1{_HIDDEN}", text)
    if "provider:" in text:
        text = _PROVIDER_SECRET.sub(rf"\1{_HIDDEN}", text)
    if "://" not in text:
        return text
    text = _ODD_PASSWORD.sub(r"\1", _USERINFO.sub(r"\1", text))
    return _QUERY_VALUE.sub(rf"\1{_HIDDEN}", text)


_MIN_SECRET_LENGTH = 8
"""Shorter texts are not hidden: they occur inside ordinary words."""

_TRAILING_PUNCTUATION = "'\")]} …"
"""Characters that may follow a text that was cut off."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of headers, also without their scheme ("Bearer …") and as JSON writes them; the longest first."""

    words: tuple[str, ...] = ()

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Return the secrets of headers: their values, whole and without a scheme."""
        values = {value.strip() for value in headers.values()}
        values |= {value.partition(" ")[2].strip() for value in values}
        written = {json.dumps(value)[1:-1] for value in values}
        slashed = {value.replace("/", "\\/") for value in written}
        words = {word for word in values | written | slashed if len(word) >= _MIN_SECRET_LENGTH}
        return cls(tuple(sorted(words, key=len, reverse=True)))

    def hide(self, text: str) -> str:
        """Return the text with every secret in it replaced by three asterisks.

        Also the beginning of one at the end: what servers say is cut, and the cut may go through a secret.
        """
        for word in self.words:
            text = text.replace(word, _HIDDEN)
        for word in self.words:
            text = _hide_prefix(text, word)
        return text

    def may_be_in(self, text: bytes) -> bool:
        """Say whether a message may hold a secret; one that cannot need not be searched value by value."""
        return any(word.encode() in text for word in self.words) or (bool(self.words) and b"\\u" in text)


def _hide_prefix(text: str, word: str) -> str:
    """Hide the beginning of `word` that ends a text, if `_MIN_SECRET_LENGTH` characters beyond its scheme are there."""
    shortest_prefix = word[: word.find(" ") + 1 + _MIN_SECRET_LENGTH]
    trimmed = text.rstrip(_TRAILING_PUNCTUATION)
    start = trimmed.rfind(shortest_prefix)
    return text[:start] + _HIDDEN + text[len(trimmed) :] if start >= 0 and word.startswith(trimmed[start:]) else text


def loads(text: str | bytes) -> Any:
    """Parse JSON text; also the NaN and Infinity that Python servers write.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def encode_json(value: object) -> bytes:
    """Return a value as compact JSON; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def utf8_safe(text: str) -> str:
    """Return text that UTF-8 can hold: JSON may spell half a surrogate pair, which no file takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def without_escapes(text: str) -> str:
    """Return text a server or a person wrote without terminal escapes and control characters."""
    return _CONTROL.sub("?", _ESCAPE.sub("", text).expandtabs(4).replace("\r\n", "\n").replace("\r", "\n"))


def on_one_line(text: str) -> str:
    """Return `plain` text with every run of white space, line ends included, as one space."""
    return " ".join(without_escapes(text).split())


def shorten(text: str, width: int, *, left: bool = False) -> str:
    """Shorten text to a width: at its end or, with `left`, at its start."""
    if len(text) <= width:
        return text
    return f"..{text[len(text) - width + 2 :]}" if left else f"{text[: width - 2]}.."
