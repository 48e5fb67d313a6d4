"""What must not be shown of the headers a user gave, wherever a server repeats it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_HIDDEN, _SHORTEST = "***", 8
"""What stands for a secret; texts of fewer characters are none: they would be found in words that have no secret."""

_AFTER_CUT = "'\")]} …"
"""What a sentence may put after words that were cut."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of headers, also without their scheme ("Bearer …") and as JSON writes them; the longest first."""

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return what is secret in headers."""
        values = {value.strip() for value in headers.values()}
        values |= {value.partition(" ")[2].strip() for value in values}
        written = {json.dumps(value)[1:-1] for value in values}
        slashed = {value.replace("/", "\\/") for value in written}
        words = {word for word in values | written | slashed if len(word) >= _SHORTEST}
        return cls(tuple(sorted(words, key=len, reverse=True)))

    def hide(self, text: str) -> str:
        """Return the text with every secret in it replaced by three asterisks.

        Also the beginning of one at the end: what servers say is cut, and the cut may go through a secret.
        """
        for word in self.words:
            text = text.replace(word, _HIDDEN)
        for word in self.words:
            text = _hide_beginning(text, word)
        return text

    def are_in(self, text: bytes) -> bool:
        """Say whether a message may hold one: what holds none need not be gone through, value by value."""
        return any(word.encode() in text for word in self.words) or (bool(self.words) and b"\\u" in text)


def _hide_beginning(text: str, word: str) -> str:
    """Hide the beginning of the word a text ends with, where it has as many characters after the scheme as a secret."""
    least = word[: word.find(" ") + 1 + _SHORTEST]
    cut = text.rstrip(_AFTER_CUT)
    at = cut.rfind(least)
    return text[:at] + _HIDDEN + text[len(cut) :] if at >= 0 and word.startswith(cut[at:]) else text
