"""One session of a check: records every message, and returns every failure as an `Answer` instead of raising."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pytest_openenv_scale.client import frames, messages
from pytest_openenv_scale.client.connection import Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Loss
from pytest_openenv_scale.client.session import ManualSession
from pytest_openenv_scale.client.stock_client import handshake_refusals
from pytest_openenv_scale.core.text import Secrets
from pytest_openenv_scale.results.outcome import Transcript, TranscriptLine

_TRANSCRIPT_LINES, _LINE_CHARACTERS = 60, 400
_RECORDED_BYTES = 16_384
"""How many bytes of a message are searched for secrets: one that is cut off in the middle would not be recognized."""


class RawSession(ManualSession):
    """A WebSocket session with a server that may send anything; made by `RawClient`.

    `handshake` is how the handshake ended, `first_answer` the same or, where a reset was sent, the answer to that.
    After a timeout a session is not used any more: a late answer would be taken for the next one.
    """

    def __init__(self, number: int, began: float, patience_s: float, secrets: Secrets | None = None) -> None:
        super().__init__()
        self.number = number
        self.handshake = self.first_answer = Answer("silence")
        self.reset_data: dict[str, Any] = {}
        """The data of the last reset."""
        self.observation: Any = None
        """The last observation, of which some actions are made."""
        self.timed_out = False
        """Whether an answer did not come in time."""
        self.stock_refusals: tuple[str, ...] = ()
        """Why the stock client would refuse what the server accepted the upgrade with."""
        self._began = began
        self._pinged_at = began
        self.answered = False
        """Whether it is known how the session started: its reset was answered, or there will be no answer."""
        self._patience_s = patience_s
        self._secrets = secrets or Secrets()
        self._lines: deque[TranscriptLine] = deque(maxlen=_TRANSCRIPT_LINES)

    @property
    def connection(self) -> Connection:
        """The connection beneath, to drop, to reset or to mute."""
        return self._connection

    @property
    def close_frame(self) -> Answer | None:
        """The server's close frame, which may be there before the connection has ended."""
        frame = self._connection.close_received
        if frame is None:
            return None
        return redact(self._secrets, Answer("closed", code=str(frame[0]), message=frame[1] or None))

    def transcript(self, title: str) -> Transcript:
        """Return the last 60 messages sent and received."""
        return Transcript(title, tuple(self._lines))

    # Asking

    async def reset(self, data: Mapping[str, Any] | None = None, *, patience_s: float | None = None) -> Answer:
        """Start an episode."""
        self.reset_data = dict(data or {})
        return await self.ask({"type": "reset", "data": self.reset_data}, patience_s=patience_s)

    async def step(self, action: Mapping[str, Any], *, patience_s: float | None = None) -> Answer:
        """Take one step."""
        return await self.ask({"type": "step", "data": action}, patience_s=patience_s)

    async def state(self, *, patience_s: float | None = None) -> Answer:
        """Ask for the state of the episode."""
        return await self.ask({"type": "state"}, patience_s=patience_s)

    async def ask(self, message: Mapping[str, Any] | str, *, patience_s: float | None = None) -> Answer:
        """Send a message (text goes out as it is) and return the next answer."""
        self.send(message)
        return await self.next_answer(patience_s=patience_s)

    def send(self, message: Mapping[str, Any] | str) -> None:
        """Send a message; a failure shows in the next answer."""
        text = wire_text(message)
        self._record("client", text)
        self.send_message(Message(text.encode()))

    def send_binary(self, data: bytes) -> None:
        """Send a binary frame, which no OpenEnv message is."""
        self._record("client", f"<binary frame of {len(data)} bytes>")
        self.send_message(Message(data, frames.BINARY))

    def ping(self) -> None:
        """Send a ping; `pong_s` then tells when it was answered."""
        self._connection.pong_arrivals = []
        self._pinged_at = self._connection.send(Message(b"", frames.PING))

    @property
    def pong_s(self) -> float | None:
        """How long the last `ping` took to be answered, in seconds; None where it was not yet."""
        arrivals = self._connection.pong_arrivals
        return max(0.0, arrivals[0] - self._pinged_at) if arrivals else None

    def send_in_fragments(self, first: str, *rest: str) -> None:
        """Send one message in several frames with a ping after each but the last, as RFC 6455 (5.4) allows."""
        self._record("client", f"<in {1 + len(rest)} fragments, pings in between> {first}{''.join(rest)}")
        self.send_message(Message(first.encode(), final=False))
        for number, part in enumerate(rest, 1):
            self._connection.send(Message(b"", frames.PING))
            self._connection.send(Message(part.encode(), frames.CONTINUATION, final=number == len(rest)))

    def send_close_frame(self) -> None:
        """Close the WebSocket with code 1000; the server's own close frame is the next answer."""
        self._record("client", "<close frame 1000>")
        self._sent_at = time.perf_counter()
        self._connection.close()

    async def next_answer(self, *, patience_s: float | None = None) -> Answer:
        """Return the next answer, the end of the connection, or silence after `patience_s` seconds."""
        patience = self._patience_s if patience_s is None else patience_s
        try:
            arrived, latency_s = await self.next_message(patience)
        except TimeoutError:
            self._record("client", f"<waited {patience:g} s for an answer>")
            self.timed_out = True
            return silence_answer(patience)
        if isinstance(arrived, Loss):
            return redact(self._secrets, loss_answer(arrived, latency_s))
        answer = parse_answer(arrived, latency_s)
        if answer.kind == "observation":
            self.observation = answer.data.get("observation")
        return redact(self._secrets, answer) if self._secrets.may_be_in(arrived) else answer

    # Leaving

    async def close(self, *, patience_s: float = 5.0) -> Answer:
        """Send a close message as OpenEnv clients do; return how the connection ended, or silence on a timeout."""
        if not self.ended:
            self.send({"type": "close"})
        deadline = time.perf_counter() + patience_s
        while not (answer := await self.next_answer(patience_s=max(0.0, deadline - time.perf_counter()))).ended:
            if answer.kind == "silence":
                break
        self._connection.abort()
        return answer

    def drop(self) -> None:
        """Close the socket without a close message or a close frame."""
        self._record("client", "<closed the socket without goodbye>")
        self._disconnect(self._connection.abort)

    def reset_connection(self) -> None:
        """Drop the socket with a TCP reset, as a process that is killed does."""
        self._record("client", "<reset the connection>")
        self._disconnect(self._connection.reset)

    def _disconnect(self, end_connection: Any) -> None:
        end_connection()
        if self._loss is None:
            self._loss = Loss("closed_early", None, "dropped by the client"), time.perf_counter()

    # Called by the client and the connection

    async def connect(self, connection: Connection) -> Answer:
        """Start the connection and return how the handshake ended: `opened`, or why not."""
        self.start(connection)
        self.handshake = await self.next_answer()
        return self.handshake

    def opened(self, at: float) -> None:
        """Record that the handshake is done."""
        self._record("server", "<connected>")
        self.stock_refusals = handshake_refusals(self._connection.upgrade_response)
        super().opened(at)

    def received(self, text: bytes, at: float) -> None:
        """Record a message that arrived."""
        self._record("server", text[:_RECORDED_BYTES].decode(errors="replace"), len(text))
        super().received(text, at)

    def lost(self, loss: Loss, at: float) -> None:
        """Record that the connection has ended."""
        self._record("server", f"<{loss_answer(loss)}>")
        super().lost(loss, at)

    def _record(self, by: str, text: str, length: int | None = None) -> None:
        length = len(text) if length is None else length
        text = self._secrets.hide(text)
        excerpt = text if length <= _LINE_CHARACTERS else f"{text[:_LINE_CHARACTERS]}… ({length} in all)"
        self._lines.append(TranscriptLine(round(time.perf_counter() - self._began, 4), by, excerpt))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    `kind` is observation, state, mcp or another type the server wrote, `error` (an error frame, with its `code`),
    `unreadable` (no OpenEnv message), `closed` (a close frame, `code` is its number), `lost` (the connection went
    without one, or was never made; `code` is the errno or HTTP status) or `silence`. `latency_s` is seconds from the
    question to the answer's arrival, None where nothing arrived. `loss` is the kind of a connection's end, and
    `size_bytes` that of the message.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    code: str | None = None
    message: str | None = None
    latency_s: float | None = None
    loss: str | None = None
    size_bytes: int = 0

    @property
    def good(self) -> bool:
        """Whether this is neither an error, nor unreadable, nor the end of the connection, nor a timeout."""
        return self.kind not in ("error", "unreadable", "closed", "lost", "silence")

    @property
    def ended(self) -> bool:
        """Whether the connection has ended."""
        return self.kind in ("closed", "lost")

    @property
    def full(self) -> bool:
        """Whether the server said that no further session fits: CAPACITY_REACHED, or a handshake refused with 503."""
        return self.code == "CAPACITY_REACHED" or (self.kind == "lost" and self.code == "503")

    @property
    def retryable(self) -> bool:
        """Whether a later attempt may succeed: the server is full, or a platform limits handshakes (429)."""
        return self.full or (self.kind == "lost" and self.code == "429")

    @property
    def client_limited(self) -> bool:
        """Whether this machine could not open the connection, which is no refusal: descriptors, ports, memory."""
        return self.loss == "client_limit"

    @property
    def error_type(self) -> str:
        """The `error_type` of a row that ends with this answer."""
        if self.kind == "error":
            return "capacity" if self.code == "CAPACITY_REACHED" else "environment"
        if self.loss == "closed":
            return "closed_early"
        return self.loss or ("timeout" if self.kind == "silence" else "protocol")

    @property
    def named_limit(self) -> int | None:
        """The limit of sessions that a refusal names."""
        limit = self.data.get("max_sessions")
        return limit if type(limit) is int else None

    @property
    def observation(self) -> Mapping[str, Any]:
        """The fields of the observation; empty where there is none."""
        fields = self.data.get("observation")
        return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}

    @property
    def process(self) -> tuple[str, int] | None:
        """The server's process that answered, as its `host_url` and `pid`; None where the observation names none."""
        observation = self.observation
        pid = observation.get("pid")
        return (str(observation.get("host_url")), pid) if type(pid) is int else None

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.data.get("done") is True

    def __str__(self) -> str:
        """Return the answer in a few words: "VALIDATION_ERROR (Invalid message)", "closed with 1000"."""
        detail = f" ({self.message})" if self.message else ""
        match self.kind:
            case "error":
                return f"{self.code or 'an error without a code'}{detail}"
            case "closed":
                return f"closed with {self.code}{detail}"
            case "lost":
                return f"connection lost: {self.code or 'no reason'}{detail}"
            case "silence":
                return self.message or "no answer"
            case "unreadable":
                return f"no OpenEnv message{detail}"
            case kind:
                return kind


def parse_answer(text: bytes, latency_s: float | None) -> Answer:
    """Return the answer that a message of the server holds; one that cannot be read is of kind `unreadable`."""
    try:
        kind, data = messages.read_message(text)
    except messages.MessageError as error:
        return Answer("unreadable", message=str(error), latency_s=latency_s, size_bytes=len(text))
    if kind == "error":
        failed = messages.as_error(data)
        return Answer("error", data, failed.code, failed.message, latency_s, size_bytes=len(text))
    return Answer(kind, data, latency_s=latency_s, size_bytes=len(text))


def loss_answer(loss: Loss, latency_s: float | None = None) -> Answer:
    """Return the answer for a connection that ended: of kind `closed` or `lost`."""
    kind = "closed" if loss.kind == "closed" else "lost"
    return Answer(kind, code=loss.code, message=loss.message, latency_s=latency_s, loss=loss.kind)


def silence_answer(waited_s: float) -> Answer:
    """Return the answer of kind `silence` for a timeout after `waited_s` seconds."""
    return Answer("silence", message=f"no answer within {waited_s:g} s")


def wire_text(message: Mapping[str, Any] | str) -> str:
    """Return a message as the text that is sent."""
    return message if isinstance(message, str) else json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def redact(secrets: Secrets, answer: Answer) -> Answer:
    """Return the answer with no secret in any text of it; the names of its fields stay."""
    data = {name: _redact_value(secrets, value) for name, value in answer.data.items()}
    code = None if answer.code is None else secrets.hide(answer.code)
    message = None if answer.message is None else secrets.hide(answer.message)
    return replace(answer, data=data, code=code, message=message)


def _redact_value(secrets: Secrets, value: Any) -> Any:
    if isinstance(value, str):
        return secrets.hide(value)
    if isinstance(value, dict):
        return {name: _redact_value(secrets, item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_redact_value(secrets, item) for item in cast("list[Any]", value)]
    return value
