"""What a server answered to one message, as a value: nothing a server does raises an error here."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pytest_openenv_scale.core import messages
from pytest_openenv_scale.core.loss import CLIENT_ERRNOS, Loss
from pytest_openenv_scale.core.secrets import Secrets

_CLIENT_CODES = frozenset(errno.errorcode[number] for number in CLIENT_ERRNOS)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    `kind` is observation, state, mcp or another type the server wrote, `error` (an error frame, with its `code`),
    `unreadable` (no OpenEnv message), `closed` (a close frame, `code` is its number), `lost` (the connection went
    without one, or was never made; `code` is the errno or HTTP status) or `silence`. `latency_s` is seconds from the
    question to the answer's arrival, None where nothing arrived.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    code: str | None = None
    message: str | None = None
    latency_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether this is an answer of a session that goes on as asked."""
        return self.kind not in ("error", "unreadable", "closed", "lost", "silence")

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self.kind in ("closed", "lost")

    @property
    def full(self) -> bool:
        """Whether the server said that no further session fits: CAPACITY_REACHED, or a handshake refused with 503."""
        return self.code == "CAPACITY_REACHED" or (self.kind == "lost" and self.code == "503")

    @property
    def put_off(self) -> bool:
        """Whether a session may get in later: the server is full, or a platform limits the rate of handshakes (429)."""
        return self.full or (self.kind == "lost" and self.code == "429")

    @property
    def by_client(self) -> bool:
        """Whether this machine could not open the connection, which is no refusal: descriptors, ports, memory."""
        return self.kind == "lost" and self.code in _CLIENT_CODES

    @property
    def observation(self) -> Mapping[str, Any]:
        """The fields of the observation; empty where there is none."""
        found = self.data.get("observation")
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.data.get("done") is True

    def __str__(self) -> str:
        """Say what was answered in a few words: "VALIDATION_ERROR (Invalid message)", "closed with 1000"."""
        said = f" ({self.message})" if self.message else ""
        match self.kind:
            case "error":
                return f"{self.code or 'an error without a code'}{said}"
            case "closed":
                return f"closed with {self.code}{said}"
            case "lost":
                return f"connection lost: {self.code or 'no reason'}{said}"
            case "silence":
                return self.message or "no answer"
            case "unreadable":
                return f"no OpenEnv message{said}"
            case kind:
                return kind


def read_text(text: bytes, latency_s: float | None) -> Answer:
    """Read a message of a server."""
    try:
        kind, data = messages.read(text)
    except messages.MessageError as error:
        return Answer("unreadable", message=str(error), latency_s=latency_s)
    if kind == "error":
        failed = messages.as_error(data)
        return Answer("error", data, failed.code, failed.message, latency_s)
    return Answer(kind, data, latency_s=latency_s)


def read_loss(loss: Loss, latency_s: float | None = None) -> Answer:
    """Read the end of a connection."""
    kind = "closed" if loss.kind == "closed" else "lost"
    return Answer(kind, code=loss.code, message=loss.message, latency_s=latency_s)


def silence(waited_s: float) -> Answer:
    """Return the answer that did not come within so many seconds."""
    return Answer("silence", message=f"no answer within {waited_s:g} s")


def wire_text(message: Mapping[str, Any] | str) -> str:
    """Return a message as it is sent."""
    return message if isinstance(message, str) else json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def without(secrets: Secrets, answer: Answer) -> Answer:
    """Return the answer with no secret in any text of it; the names of its fields stay."""
    data = {name: _hidden(secrets, value) for name, value in answer.data.items()}
    code = None if answer.code is None else secrets.hide(answer.code)
    message = None if answer.message is None else secrets.hide(answer.message)
    return replace(answer, data=data, code=code, message=message)


def _hidden(secrets: Secrets, value: Any) -> Any:
    if isinstance(value, str):
        return secrets.hide(value)
    if isinstance(value, dict):
        return {name: _hidden(secrets, item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_hidden(secrets, item) for item in cast("list[Any]", value)]
    return value
