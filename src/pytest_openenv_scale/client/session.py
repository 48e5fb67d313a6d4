"""A session to drive by hand, in tests of one's own: `await s.reset(seed=1)`, `await s.step({...})`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.core.text import Secrets

from . import messages
from .connection import PING_S, Clock, Connection
from .frames import Message
from .handshake import Loss, RouteError, check_headers, prepare_route
from .http import HttpChannel, HttpFailure, HttpPool
from .messages import Reply
from .poller import Poller

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


class SessionFailed(Exception):
    """A session failed; the fields are those of a row.

    `phase` is connect, reset, step, state or close, `type` a row's `error_type`; `code` and `message` are
    the server's own where it gave any, without the values of the headers that were sent.
    """

    def __init__(self, phase: str, type: str, code: str | None, message: str | None) -> None:
        details = " ".join(part for part in (type, code, f"({message})" if message else "") if part)
        super().__init__(f"{phase} failed: {details}")
        self.phase, self.type, self.code, self.message = phase, type, code, message

    @classmethod
    def without(cls, secrets: Secrets, phase: str, type: str, code: str | None, message: str | None) -> SessionFailed:
        """Return the failure with every secret hidden in `code` and `message`, where the server may repeat them."""
        hidden = (None if text is None else secrets.hide(text) for text in (code, message))
        return cls(phase, type, *hidden)


class ClientSession(ManualSession):
    """One open session over a WebSocket; made by `open_session`.

    A session whose answer did not come in time is over: a late answer could be taken for the next one.
    """

    def __init__(self, timeout_s: float, secrets: Secrets) -> None:
        super().__init__()
        self._timeout_s = timeout_s
        self._secrets = secrets
        self._waiting = False
        self.latency_s: float | None = None
        """How long the last answer took, in seconds."""

    async def reset(self, **data: Any) -> Reply:
        """Start an episode; keyword arguments (for example `seed`) become the reset data.

        Raises:
            SessionFailed: the server answered with an error, not at all, or closed the session.
        """
        return messages.as_reply(await self._request("reset", messages.encode_request("reset", data), "observation"))

    async def step(self, action: Mapping[str, Any]) -> Reply:
        """Take one step with this action.

        Raises:
            SessionFailed: the server answered with an error, not at all, or closed the session.
        """
        return messages.as_reply(await self._request("step", messages.encode_request("step", action), "observation"))

    async def state(self) -> dict[str, Any]:
        """Return the state of the episode.

        Raises:
            SessionFailed: the server answered with an error, not at all, or closed the session.
        """
        return await self._request("state", messages.encode_request("state"), "state")

    async def close(self) -> None:
        """Send `close` and wait until the server has closed the connection; does nothing the second time."""
        if self._loss is None:
            self.send_message(Message(messages.encode_request("close")))
            while not isinstance(await self._wait("close"), Loss):
                pass

    async def _request(self, phase: str, request: bytes, expected: str) -> dict[str, Any]:
        if self._waiting:
            raise RuntimeError("one request at a time: this session still waits for an answer")
        if self._loss is None:
            self.send_message(Message(request))
        text = await self._wait_for_message(phase)
        try:
            kind, data = messages.read_message(text)
        except messages.MessageError as error:
            raise self._failure(phase, "protocol", None, str(error)) from None
        if kind == "error":
            raise self._failure(phase, *messages.as_error(data))
        if kind != expected:
            raise self._failure(phase, "protocol", None, f"a reply of type {kind!r} instead of {expected!r}")
        return data

    def _failure(self, phase: str, type: str, code: str | None, message: str | None) -> SessionFailed:
        return SessionFailed.without(self._secrets, phase, type, code, message)

    async def _wait_for_message(self, phase: str) -> bytes:
        arrived = await self._wait(phase)
        if isinstance(arrived, Loss):
            kind = "closed_early" if arrived.kind == "closed" else arrived.kind
            raise self._failure(phase, kind, arrived.code, arrived.message)
        return arrived

    async def _wait(self, phase: str) -> bytes | Loss:
        self._waiting = True
        try:
            return (await self.next_message(self._timeout_s))[0]
        except TimeoutError:
            self._connection.abort()
            loss = Loss("timeout", None, f"no answer within {self._timeout_s:g} s")
            self.lost(loss, time.perf_counter())
            raise self._failure(phase, loss.kind, loss.code, loss.message) from None
        finally:
            self._waiting = False

    async def connect(self, connection: Connection) -> None:
        """Start the connection and wait for its handshake."""
        self.start(connection)
        await self._wait_for_message("connect")

    def received(self, text: bytes, at: float) -> None:
        """A message arrived."""
        self.latency_s = self._connection.latency_since(self._sent_at, at)
        super().received(text, at)


class HttpClientSession:
    """One session over HTTP; each request stands alone, as HTTP cannot hold an episode."""

    def __init__(self, channel: HttpChannel, timeout_s: float, secrets: Secrets) -> None:
        self._channel, self._timeout, self._secrets = channel, timeout_s, secrets

    async def reset(self, **data: Any) -> Reply:
        """`POST /reset`; raises `SessionFailed`."""
        return await self._post("reset", "/reset", data)

    async def step(self, action: Mapping[str, Any]) -> Reply:
        """`POST /step` with this action; raises `SessionFailed`."""
        return await self._post("step", "/step", {"action": action})

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _post(self, phase: str, path: str, body: Mapping[str, Any]) -> Reply:
        try:
            return messages.as_reply(await self._channel.post(path, body, self._timeout))
        except HttpFailure as failure:
            failed_phase = "connect" if self._channel.connected_at is None else phase
            raise SessionFailed.without(
                self._secrets, failed_phase, failure.kind, failure.code, failure.message
            ) from None


@asynccontextmanager
async def open_session(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    ping_s: float | None = PING_S,
    network: Network = DIRECT,
) -> AsyncGenerator[ClientSession]:
    """Open a WebSocket session on the server at a base URL; it is closed at the end of the block.

    `timeout_s` bounds each answer; every `ping_s` the server is pinged, None: never. Both are seconds. `network` is
    how it is reached.

    Raises:
        SessionFailed: the URL cannot be used, or the server cannot be reached or refuses the handshake.
    """
    loop = asyncio.get_running_loop()
    try:
        route = await loop.run_in_executor(None, prepare_route, url, headers, network)
    except RouteError as error:
        raise SessionFailed("connect", "refused", None, str(error)) from None
    session = ClientSession(timeout_s, Secrets.from_headers(headers or {}))
    with Poller(loop) as poller:
        connection = Connection(poller, Clock(), route, session)
        try:
            await session.connect(connection)
            connection.keep_alive(ping_s)
            yield session
            await session.close()
        finally:
            connection.abort()


@asynccontextmanager
async def open_http_session(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 120.0, network: Network = DIRECT
) -> AsyncGenerator[HttpClientSession]:
    """Open a session over `POST /reset` and `POST /step`; `timeout_s` bounds each answer, in seconds.

    Raises:
        SessionFailed: a header cannot be sent.
    """
    try:
        check_headers(headers or {})
    except RouteError as error:
        raise SessionFailed("connect", "refused", None, str(error)) from None
    channel = HttpChannel(url, HttpPool(headers or {}, network=network))
    session = HttpClientSession(channel, timeout_s, Secrets.from_headers(headers or {}))
    try:
        yield session
    finally:
        await session.close()
