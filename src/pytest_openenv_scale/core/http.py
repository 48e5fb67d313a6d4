"""One session over HTTP: POST /reset, POST /step, each answered before the next is sent, on aiohttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from . import messages
from .loss import CLIENT_ERRNOS, loss_of
from .session import Record


class HttpFailure(Exception):
    """A request failed; the fields are a row's `error_type`, `error_code` and `error_message`."""

    def __init__(self, kind: str, code: str | None, message: str) -> None:
        super().__init__(message)
        self.kind, self.code, self.message = kind, code, message


def http_url(url: str) -> str:
    """Return a base URL with the scheme HTTP requests need, without a trailing slash."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


class HttpChannel:
    """One client's connection to the HTTP endpoints of a server, kept alive between its requests.

    `connected_at` is when its first connection was established and `connecting_s` how long that took, in
    seconds; None before.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.connected_at: float | None = None
        self.connecting_s: float | None = None
        self._base = http_url(url)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(self._connecting)
        trace.on_connection_create_end.append(self._connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            headers=dict(headers),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[trace],
            auto_decompress=True,
        )
        self._started = 0.0

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a JSON body and return the JSON object answered.

        Raises:
            HttpFailure: no answer in time, a status other than 200, or an answer that is no JSON object.
        """
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.post(self._base + path, json=body, allow_redirects=False) as answer:
                    text = await answer.text()
        except TimeoutError:
            raise HttpFailure("timeout", None, f"no answer within {timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise HttpFailure("protocol", "tls", f"TLS certificate not accepted: {error.certificate_error}") from None
        except aiohttp.ClientSSLError as error:
            raise HttpFailure("protocol", "tls", f"TLS failed: {error}") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise HttpFailure("refused", None, f"the host does not resolve ({error.os_error})") from None
        except aiohttp.ClientOSError as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            loss = loss_of(cause, established=self.connected_at is not None)
            raise HttpFailure(loss.kind, loss.code, loss.message or str(error)) from None
        except aiohttp.ServerDisconnectedError:
            raise HttpFailure("closed_early", None, "the server closed the connection without an answer") from None
        except aiohttp.ClientPayloadError as error:
            raise HttpFailure("closed_early", None, f"the answer broke off ({error})") from None
        except aiohttp.ClientConnectionResetError:
            raise HttpFailure("connection_reset", "ECONNRESET", "the server closed the connection") from None
        except (aiohttp.ClientError, UnicodeDecodeError) as error:
            raise HttpFailure("protocol", None, f"{type(error).__name__}: {error}") from None
        except OSError as error:
            kind = "client_limit" if error.errno in CLIENT_ERRNOS else "protocol"
            raise HttpFailure(kind, None, str(error)) from None
        return _read(answer.status, answer.reason or "", answer.headers.get("location"), text)

    async def _connecting(self, session: object, context: SimpleNamespace, params: object) -> None:
        self._started = time.perf_counter()

    async def _connected(self, session: object, context: SimpleNamespace, params: object) -> None:
        if self.connected_at is None:
            self.connected_at = time.perf_counter()
            self.connecting_s = self.connected_at - self._started


def _read(status: int, reason: str, location: str | None, text: str) -> dict[str, Any]:
    words = " ".join(text.split())[:200]
    if status in (400, 422, 500):
        raise HttpFailure("environment", str(status), f"HTTP {status} {reason}: {words}")
    if status != 200:
        if location:
            words = f"redirects to {location}"
        raise HttpFailure("handshake_status", str(status), f"HTTP {status} {reason}" + (f": {words}" if words else ""))
    try:
        body = messages.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HttpFailure("protocol", None, f"an answer that is not a JSON object: {text[:80]!r}")
    return cast("dict[str, Any]", body)


class HttpSession:
    """Drives one HTTP session; `reset()` and `steps()` note times and failures in the record.

    Each `POST /step` stands alone: HTTP cannot hold an episode, so a `done` is not followed by a reset.
    """

    def __init__(self, record: Record, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self.record = record
        self._url, self._headers, self._timeout = url, headers, timeout_s
        self._channel: HttpChannel | None = None

    async def reset(self, body: Mapping[str, Any]) -> bool:
        """Connect and reset; returns whether that worked."""
        record = self.record
        start = record.start = time.perf_counter()
        channel = self._channel = HttpChannel(self._url, self._headers)
        try:
            data = await channel.post("/reset", body, self._timeout)
        except HttpFailure as failure:
            self._note_connection(channel)
            phase = "connect" if record.connected is None else "reset"
            record.fail(phase, failure.kind, failure.code, failure.message)
            return False
        now = time.perf_counter()
        self._note_connection(channel)
        record.reset_done = now
        record.reset_latency = max(0.0, now - start - (record.connect_latency or 0.0))
        record.observe(messages.as_reply(data).observation, stepped=False)
        return True

    async def step(self, action: Mapping[str, Any], timeout_s: float) -> messages.Reply | None:
        """Take one step; None after a failure."""
        assert self._channel is not None
        sent = time.perf_counter()
        try:
            data = await self._channel.post("/step", {"action": action}, timeout_s)
        except HttpFailure as failure:
            self.record.fail("step", failure.kind, failure.code, failure.message)
            return None
        self.record.steps.append(time.perf_counter() - sent)
        reply = messages.as_reply(data)
        self.record.observe(reply.observation, stepped=True)
        return reply

    async def close(self) -> None:
        """Close the connection and note the end."""
        if self._channel is not None:
            await self._channel.close()
        self.record.closed = time.perf_counter()

    def _note_connection(self, channel: HttpChannel) -> None:
        self.record.connected = channel.connected_at
        self.record.connect_latency = channel.connecting_s
