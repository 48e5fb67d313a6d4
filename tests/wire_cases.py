"""The conversations recorded from running OpenEnv servers (`tests/wire`), as values a test can replay or compare."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("wire")
VERSIONS = ("0.2.0", "0.2.1", "0.2.3", "0.3.0", "0.4.2", "0.7.0", "0.10.0")
"""The recorded versions, oldest first."""
NEWEST = VERSIONS[-1]

_IDENTITIES = ("episode_id", "session_hash", "session_id", "host_url")
_WORDS_OF_PYTHON = re.compile(r"\A(?:(Invalid JSON|Parse error|Invalid request): .*|'.*)", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One thing a client said and what came back; `answer` is None where nothing did.

    Two things are not in the files: a binary frame is spelt `{"$hex": …}`, and of a long text only the length is
    kept, `{"$characters": …}`.
    """

    said: Any
    answer: Any

    @property
    def frame(self) -> str | bytes:
        """The text or binary message as it went over the wire."""
        if isinstance(self.said, str):
            return self.said
        if "$hex" in self.said:
            return bytes.fromhex(self.said["$hex"])
        return "x" * self.said["$characters"] if "$characters" in self.said else json.dumps(self.said)

    @property
    def answer_text(self) -> str:
        """The answer as text; of one that is only known by its length an observation is made."""
        characters = self.answer.get("$characters")
        if characters is None:
            return json.dumps(self.answer)
        empty = json.dumps(
            {"type": "observation", "data": {"observation": {"text": ""}, "reward": None, "done": False}}
        )
        return empty.replace('""', f'"{"x" * (characters - len(empty))}"')


@dataclass(frozen=True)
class Conversation:
    """One WebSocket from handshake to close.

    `closed` is the server's close (code, reason), None where the server left it to the client; `greeting` what
    came before the client had said anything.
    """

    version: str
    environment: str
    name: str
    path: str
    status: int
    greeting: tuple[Any, ...]
    turns: tuple[Turn, ...]
    closed: tuple[int, str] | None

    @property
    def heard(self) -> tuple[Any, ...]:
        """All that came back, in order: a refused handshake's status, messages, the server's close."""
        refused = () if self.status == 101 else (self.status,)
        answers = (turn.answer for turn in self.turns if turn.answer is not None)
        return (*refused, *self.greeting, *answers, *(() if self.closed is None else (self.closed,)))

    def __str__(self) -> str:
        return f"{self.version}-{self.environment}-{self.name}"


@dataclass(frozen=True)
class Exchange:
    """One HTTP request and its answer; `status` is None where the connection was dropped instead."""

    method: str
    path: str
    body: str | None
    status: int | None
    answer: Any


@dataclass(frozen=True)
class Capacity:
    """A full server: how many sessions it held, how it refused on `/ws` and on `/mcp`, and what HTTP said meanwhile.

    Of the clients that said their reset at once, `eager_sent` could and `eager_failed` could not.
    """

    held: int
    ws: Conversation
    mcp: Conversation
    eager_sent: int
    eager_failed: int
    http: tuple[Exchange, ...]


@cache
def _recorded(version: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{version}.json").read_text())


def environments(version: str) -> tuple[str, ...]:
    """The environments recorded with this version."""
    return tuple(_recorded(version))


def conversations(version: str, environment: str) -> list[Conversation]:
    """Every conversation with this environment."""
    recorded = _recorded(version)[environment]["conversations"]
    return [_conversation(version, environment, name, one) for name, one in recorded.items()]


def every_conversation() -> list[Conversation]:
    """Every conversation of every version and environment."""
    return [one for version in VERSIONS for name in environments(version) for one in conversations(version, name)]


def capacity(version: str, environment: str) -> Capacity:
    """What a full server did."""
    recorded = _recorded(version)[environment]["capacity"]
    ws, mcp = (_conversation(version, environment, f"full_{path}", recorded[path]) for path in ("ws", "mcp"))
    return Capacity(recorded["held"], ws, mcp, *recorded["eager"], tuple(_exchange(row) for row in recorded["http"]))


def exchanges(version: str, environment: str) -> tuple[Exchange, ...]:
    """The HTTP requests and answers, in the order they were made."""
    return tuple(_exchange(row) for row in _recorded(version)[environment].get("http", []))


def _conversation(version: str, environment: str, name: str, recorded: dict[str, Any]) -> Conversation:
    closed = recorded.get("closed")
    return Conversation(
        version,
        environment,
        name,
        recorded.get("path", "ws"),
        recorded.get("status", 101),
        tuple(recorded.get("greeting", ())),
        tuple(Turn(*turn) for turn in recorded.get("turns", ())),
        None if closed is None else (closed, "") if isinstance(closed, int) else tuple(closed),
    )


def _exchange(row: list[Any]) -> Exchange:
    request, body, status, answer = row
    method, _, path = request.partition(" ")
    return Exchange(method, path, body if isinstance(body, str | None) else json.dumps(body), status, answer)


def schema_outline(schemas: dict[str, Any]) -> dict[str, Any]:
    """What is kept of `/schema`: which fields there are, which are required, whether others are allowed."""
    return {
        part: {
            "properties": sorted(schema["properties"]),
            "required": sorted(schema.get("required", ())),
            "additionalProperties": schema.get("additionalProperties"),
        }
        for part, schema in schemas.items()
    }


class Settling:
    """Makes answers comparable: whatever differs between two equal runs becomes the same word.

    - ids, hashes, process ids and host names are numbered in the order they first appear, so that the same one
      stays recognisable: `session_hash 1`; one Settling goes with one conversation;
    - a positive `waited_seconds` becomes 0.01: how long a sleep really took is the machine's;
    - the address of pydantic's explanation (`url`) holds its version, and is left out;
    - a message in Python's own words (a parser's complaint, an exception's text) is cut after the server's words.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Any, int]] = {}
        self.originals: dict[str, Any] = {}
        """What each numbered word stood for."""

    def __call__(self, value: Any) -> Any:
        """A comparable copy of this answer."""
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: self._field(key, item) for key, item in value.items() if key != "url"}

    def _field(self, key: str, value: Any) -> Any:
        if key in _IDENTITIES and isinstance(value, str):
            return self._numbered(key, value)
        if key == "pid":
            return self._known.setdefault(key, {}).setdefault(value, len(self._known[key]) + 1)
        if key == "waited_seconds":
            return 0.01 if value > 0 else 0.0
        if key == "error" and isinstance(value, str):
            return "…"
        if key == "message" and isinstance(value, str):
            return _WORDS_OF_PYTHON.sub(lambda match: f"{match[1]}: …" if match[1] else "…", value, count=1)
        return self(value)

    def _numbered(self, key: str, value: str) -> str:
        numbers = self._known.setdefault(key, {})
        word = f"{key} {numbers.setdefault(value, len(numbers) + 1)}"
        self.originals.setdefault(word, value)
        return word
