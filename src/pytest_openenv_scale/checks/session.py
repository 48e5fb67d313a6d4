"""One session of a check: every message in and out is kept, and every answer is a value."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from pytest_openenv_scale.core import frames
from pytest_openenv_scale.core.check import Said, Transcript
from pytest_openenv_scale.core.connection import Connection
from pytest_openenv_scale.core.frames import Message
from pytest_openenv_scale.core.loss import Loss
from pytest_openenv_scale.core.secrets import Secrets

from .answer import Answer, read_loss, read_text, silence, wire_text, without

_KEPT, _LONGEST = 60, 400
_NOTED = 16_384
"""As many bytes of a message are looked at: a secret that is cut off in the midst is not known again."""


class RawSession:
    """A WebSocket to a server that may say anything on it; made by `RawClient`.

    `first` is the answer to the handshake or, where one was asked for, to the first reset. After silence a session is
    not used any more: a late answer would be taken for the next one.
    """

    def __init__(self, number: int, began: float, patience_s: float, secrets: Secrets | None = None) -> None:
        self.number = number
        self.first = Answer("silence")
        self.reset_data: dict[str, Any] = {}
        """What the last reset said."""
        self.last_bytes = 0
        """How long the newest message of the server is."""
        self.silent = False
        """Whether an answer did not come in time."""
        self._began = began
        self._patience_s = patience_s
        self._secrets = secrets or Secrets()
        self._connection: Connection
        self._said: deque[Said] = deque(maxlen=_KEPT)
        self._unread: deque[tuple[bytes, float]] = deque()
        self._loss: tuple[Loss, float] | None = None
        self._arrived = asyncio.Event()
        self._sent_at = 0.0

    @property
    def over(self) -> bool:
        """Whether the connection has ended and everything that arrived on it was read."""
        return self._loss is not None and not self._unread

    @property
    def connection(self) -> Connection:
        """The connection beneath, to drop, to reset or to mute."""
        return self._connection

    @property
    def goodbye(self) -> Answer | None:
        """The server's close frame, which may be there before the connection has ended."""
        found = self._connection.close_received
        if found is None:
            return None
        return without(self._secrets, Answer("closed", code=str(found[0]), message=found[1] or None))

    def transcript(self, title: str) -> Transcript:
        """Return what was said so far, the last 60 messages of it."""
        return Transcript(title, tuple(self._said))

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
        return await self.next(patience_s=patience_s)

    def send(self, message: Mapping[str, Any] | str) -> None:
        """Send a message; a failure shows in the next answer."""
        text = wire_text(message)
        self._note("client", text)
        self._sent_at = self._connection.send(Message(text.encode()))

    def send_binary(self, data: bytes) -> None:
        """Send a binary frame, which no OpenEnv message is."""
        self._note("client", f"<binary frame of {len(data)} bytes>")
        self._sent_at = self._connection.send(Message(data, frames.BINARY))

    def send_in_fragments(self, first: str, *rest: str) -> None:
        """Send one message in several frames with a ping after each but the last, as RFC 6455 (5.4) allows."""
        self._note("client", f"<in {1 + len(rest)} fragments, pings in between> {first}{''.join(rest)}")
        self._sent_at = self._connection.send(Message(first.encode(), final=False))
        for number, part in enumerate(rest, 1):
            self._connection.send(Message(b"", frames.PING))
            self._connection.send(Message(part.encode(), frames.CONTINUATION, final=number == len(rest)))

    def send_close_frame(self) -> None:
        """Close the WebSocket with code 1000; the server's own close frame is the next answer."""
        self._note("client", "<close frame 1000>")
        self._sent_at = time.perf_counter()
        self._connection.close()

    async def next(self, *, patience_s: float | None = None) -> Answer:
        """Return the next answer, the end of the connection, or silence after `patience_s` seconds."""
        patience = self._patience_s if patience_s is None else patience_s
        deadline = time.perf_counter() + patience
        while not self._unread:
            if self._loss is not None:
                return without(self._secrets, read_loss(self._loss[0], max(0.0, self._loss[1] - self._sent_at)))
            self._arrived.clear()
            try:
                async with asyncio.timeout(deadline - time.perf_counter()):
                    await self._arrived.wait()
            except TimeoutError:
                self._note("client", f"<waited {patience:g} s for an answer>")
                self.silent = True
                return silence(patience)
        text, at = self._unread.popleft()
        answer = read_text(text, max(0.0, at - self._sent_at))
        return without(self._secrets, answer) if self._secrets.are_in(text) else answer

    # Leaving

    async def close(self, *, patience_s: float = 5.0) -> Answer:
        """Say goodbye as OpenEnv clients do, and return how the connection ended (or silence)."""
        if not self.over:
            self.send({"type": "close"})
        deadline = time.perf_counter() + patience_s
        while not (answer := await self.next(patience_s=max(0.0, deadline - time.perf_counter()))).over:
            if answer.kind == "silence":
                break
        self._connection.abort()
        return answer

    def drop(self) -> None:
        """Close the socket without a word."""
        self._note("client", "<closed the socket without goodbye>")
        self._end(self._connection.abort)

    def reset_connection(self) -> None:
        """Drop the socket with a TCP reset, as a process that is killed does."""
        self._note("client", "<reset the connection>")
        self._end(self._connection.reset)

    def _end(self, act: Any) -> None:
        act()
        if self._loss is None:
            self._loss = Loss("closed_early", None, "dropped by the client"), time.perf_counter()

    # Called by the client and the connection

    async def connect(self, connection: Connection) -> Answer:
        """Start the connection and return how the handshake ended: `opened`, or why not."""
        self._connection = connection
        self._sent_at = time.perf_counter()
        connection.start()
        return await self.next()

    def opened(self, at: float) -> None:
        """The handshake is done."""
        self._note("server", "<connected>")
        self._unread.append((b'{"type":"opened","data":{}}', at))
        self._arrived.set()

    def received(self, text: bytes, at: float) -> None:
        """A message arrived."""
        self.last_bytes = len(text)
        self._note("server", text[:_NOTED].decode(errors="replace"), len(text))
        self._unread.append((text, at))
        self._arrived.set()

    def lost(self, loss: Loss, at: float) -> None:
        """The connection is over."""
        self._note("server", f"<{read_loss(loss)}>")
        self._loss = loss, at
        self._arrived.set()

    def _note(self, by: str, text: str, length: int | None = None) -> None:
        length = len(text) if length is None else length
        text = self._secrets.hide(text)
        shown = text if length <= _LONGEST else f"{text[:_LONGEST]}… ({length} in all)"
        self._said.append(Said(round(time.perf_counter() - self._began, 4), by, shown))
