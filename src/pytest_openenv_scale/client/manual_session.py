"""A WebSocket session that is driven by hand: connect, send, wait for what comes next."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from .connection import Connection
from .frames import Message
from .handshake import Loss

_OPENED = b'{"type":"opened","data":{}}'
"""Stands among the server's messages for the end of the handshake."""


class ManualSession:
    """One WebSocket session: what was sent, what has arrived and was not read yet, and how it ended."""

    def __init__(self) -> None:
        self._connection: Connection
        self._unread: deque[tuple[bytes, float]] = deque()
        self._loss: tuple[Loss, float] | None = None
        self._arrived = asyncio.Event()
        self._sent_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether the connection has ended and everything that arrived on it was read."""
        return self._loss is not None and not self._unread

    def start(self, connection: Connection) -> None:
        """Start the connection; the next message is `opened`, of no server, or how the handshake failed."""
        self._connection = connection
        self._sent_at = time.perf_counter()
        connection.start()

    def send_message(self, message: Message) -> None:
        """Send a message; a failure shows in what comes next."""
        self._sent_at = self._connection.send(message)

    async def next_message(self, timeout_s: float) -> tuple[bytes | Loss, float]:
        """Return the next message or, after the last, how the connection ended; and its seconds since the last sent.

        Raises:
            TimeoutError: nothing came within `timeout_s` seconds.
        """
        async with asyncio.timeout(timeout_s):
            while not self._unread and self._loss is None:
                self._arrived.clear()
                await self._arrived.wait()
        if self._unread:
            arrived, at = self._unread.popleft()
        else:
            assert self._loss is not None
            arrived, at = self._loss
        return arrived, self._connection.latency_since(self._sent_at, at)

    # Called by the connection

    def opened(self, at: float) -> None:
        """The handshake is done."""
        self._unread.append((_OPENED, at))
        self._arrived.set()

    def received(self, text: bytes, at: float) -> None:
        """A message arrived."""
        self._unread.append((text, at))
        self._arrived.set()

    def lost(self, loss: Loss, at: float) -> None:
        """The connection is over."""
        self._loss = loss, at
        self._arrived.set()
