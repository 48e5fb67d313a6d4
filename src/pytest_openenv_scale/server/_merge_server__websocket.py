"""A WebSocket as raw ASGI events: Starlette's class would cost more per message than the environment does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from .waiting import ClientGoneError, Event, Receive, wait_watching

MAX_MESSAGE = 1 << 20
# Messages kept while a step waits; a client that is further ahead is read again after the step.
MAX_AHEAD = 16

NORMAL, GOING_AWAY, TOO_BIG = 1000, 1001, 1009
# How long a client may take to answer a close frame before its connection is dropped.
CLOSE_TIMEOUT_S = 5.0

Send = Callable[[Event], Awaitable[None]]


class UnreadableError(Exception):
    """A frame no session can go on after: its text, and the code of the close that follows."""

    def __init__(self, message: str, close_code: int = NORMAL) -> None:
        super().__init__(message)
        self.close_code = close_code


class Socket:
    """One accepted WebSocket. Reading from or writing to a client that left raises ClientGoneError."""

    __slots__ = ("_ahead", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._ahead: deque[Event] = deque()

    async def accept(self) -> None:
        """Answer the handshake."""
        await self._receive()
        await self._emit({"type": "websocket.accept"})

    async def read(self) -> str:
        """The next message. Raises UnreadableError for a binary frame and for one that is too long."""
        event = self._ahead.popleft() if self._ahead else await self._receive()
        if event["type"] == "websocket.disconnect":
            raise ClientGoneError
        text = event.get("text")
        if text is None:
            # The words of an OpenEnv server, which looks for the key 'text'.
            raise UnreadableError("'text'")
        if len(text) > MAX_MESSAGE:
            raise UnreadableError(f"message of {len(text)} characters exceeds {MAX_MESSAGE}", TOO_BIG)
        return text

    async def write(self, text: str) -> None:
        """Send one message."""
        await self._emit({"type": "websocket.send", "text": text})

    async def wait(self, seconds: float) -> float:
        """Wait that long, keeping what arrives; the seconds really waited."""
        return await wait_watching(seconds, self._receive, self._keep)

    async def close(self, last_words: str | None = None, code: int = NORMAL) -> None:
        """Send a last message if there is one, close, and let the client finish reading it.

        Closing a connection with unread data resets it, and a client that is still sending would lose the
        last message, the only place that says why: what it sends is read and dropped until it closes too.
        """
        try:
            if last_words is not None:
                await self.write(last_words)
            await self._emit({"type": "websocket.close", "code": code})
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while (await self._receive())["type"] != "websocket.disconnect":
                    pass
        except (ClientGoneError, TimeoutError, RuntimeError):
            # RuntimeError: the ASGI server closed the socket itself (a protocol error, its own shutdown).
            pass

    def _keep(self, event: Event) -> bool:
        if event["type"] == "websocket.disconnect":
            raise ClientGoneError
        self._ahead.append(event)
        return len(self._ahead) < MAX_AHEAD

    async def _emit(self, event: Event) -> None:
        try:
            await self._send(event)
        except OSError as error:
            raise ClientGoneError from error
