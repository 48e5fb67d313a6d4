"""Sessions over HTTP, on aiohttp: a pool of connections, requests with the times of their phases, failures by type."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection as AiohttpConnection
from aiohttp.tracing import Trace

from pytest_openenv_scale.core import text as core_text
from pytest_openenv_scale.core.endpoint import DIRECT, Network, Proxy
from pytest_openenv_scale.core.target_spec import read_redirect

from .handshake import (
    CLIENT_ERRNOS,
    Loss,
    ServerAddress,
    connect_request,
    describe_refusal,
    find_address,
    loss_from_error,
    read_connect_response,
    read_retry_after,
    tls_context,
)
from .http_request import http_url


class HttpFailure(Exception):
    """A request failed; the fields are a row's `error_type`, `error_code` and `error_message`.

    `retry_after_s` is in how many seconds the server asks to be asked again, where it says so.
    """

    def __init__(self, kind: str, code: str | None, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.code, self.message = kind, code, message
        self.retry_after_s = retry_after_s


def encode_body(value: Mapping[str, Any]) -> bytes:
    """Encode the body of a request."""
    return core_text.encode_json(value)


class HttpPool:
    """Opens the HTTP connections of a process's sessions; closed when they are over.

    `connections` is `session` (one of its own for each session, kept over its requests), `request` (a fresh one
    for every request) or `shared` (idle ones are taken from a common pool). Hosts of `addresses` are not resolved
    again.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        connections: str = "session",
        addresses: Sequence[ServerAddress] = (),
        network: Network = DIRECT,
    ) -> None:
        self._connections = connections
        close_header = {"Connection": "close"} if connections == "request" else {}
        self._headers = {"Content-Type": "application/json", **close_header, **headers}
        self._network = network
        self._addresses = addresses
        # Made once, as it takes 10 ms.
        self._tunnel_tls = tls_context(network) if network.proxy else None
        self._resolver = _Resolver(addresses) if addresses else None
        self._cookies = aiohttp.DummyCookieJar()
        self._shared = self._new_session() if connections == "shared" else None

    def session(self) -> tuple[aiohttp.ClientSession, bool]:
        """Return an aiohttp session for one session's requests, and whether that session is to close it."""
        return (self._new_session(), True) if self._shared is None else (self._shared, False)

    async def close(self) -> None:
        """Close the connections that sessions shared."""
        if self._shared is not None:
            await self._shared.close()

    def _new_session(self) -> aiohttp.ClientSession:
        # An idle connection is the server's to close: aiohttp would after 15 s, in the middle of a hold.
        return aiohttp.ClientSession(
            connector=self._new_connector(),
            headers=self._headers,
            cookie_jar=self._cookies,
            timeout=_NO_TIMEOUT,
            trace_configs=[_TRACE],
            request_class=_Request,
        )

    def _new_connector(self) -> aiohttp.BaseConnector:
        fresh = self._connections == "request"
        keepalive_s = None if fresh else _KEEPALIVE_S
        if self._network.proxy and self._tunnel_tls:
            address = self._addresses[0] if self._addresses else None
            return _TunnelConnector(
                self._network.proxy, address, self._tunnel_tls, force_close=fresh, keepalive_timeout=keepalive_s
            )
        return aiohttp.TCPConnector(
            limit=0,
            resolver=self._resolver,
            ssl=not self._network.insecure,
            force_close=fresh,
            keepalive_timeout=keepalive_s,
        )


_KEEPALIVE_S = 86_400.0
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)


class _Resolver(AbstractResolver):
    """Returns addresses resolved before the cell, so that no connect latency contains a look-up."""

    def __init__(self, addresses: Sequence[ServerAddress]) -> None:
        self._addresses = {address.host: address for address in addresses}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._addresses.get(host)
        if address is None:
            raise OSError(None, f"{host} was not looked up before the cell")
        return [
            ResolveResult(
                hostname=host,
                host=str(address.address[0]),
                port=port,
                family=address.family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class _TunnelConnector(aiohttp.BaseConnector):
    """Connects by tunnels of a proxy, also for plain HTTP, for which aiohttp's own asks the proxy to forward."""

    def __init__(
        self,
        proxy: Proxy,
        address: ServerAddress | None,
        tls: ssl.SSLContext,
        *,
        force_close: bool,
        keepalive_timeout: float | None,
    ) -> None:
        super().__init__(limit=0, force_close=force_close, keepalive_timeout=keepalive_timeout)
        self._proxy, self._address, self._tls = proxy, address, tls

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        host, secure = req.url.raw_host or "", req.is_ssl()
        sock = await self._open_tunnel(host, req.url.port or (443 if secure else 80))
        try:
            _, handler = await asyncio.get_running_loop().create_connection(
                self._factory,
                sock=sock,
                ssl=self._tls if secure else None,
                server_hostname=host if secure else None,
            )
        except ssl.SSLCertVerificationError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        return handler

    async def _open_tunnel(self, host: str, port: int) -> socket.socket:
        """Return a socket connected to the server.

        Raises:
            HttpFailure: the proxy cannot be reached, or opens no tunnel.
        """
        loop, proxy = asyncio.get_running_loop(), self._proxy
        address = self._address or await loop.run_in_executor(None, find_address, proxy.url)
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address.address)
            await loop.sock_sendall(sock, connect_request(proxy, host, port))
            answer, data = None, b""
            while answer is None:
                part = await loop.sock_recv(sock, 4096)
                data += part
                answer = read_connect_response(data, proxy, ended=not part)
            if isinstance(answer, Loss):
                raise HttpFailure(answer.kind, answer.code, answer.message or "")
        except OSError as error:
            sock.close()
            loss = loss_from_error(error)
            # asyncio's own text names the address again.
            text = os.strerror(error.errno) if error.errno else loss.message
            raise HttpFailure(loss.kind, loss.code, f"the proxy {proxy}: {text}") from None
        except BaseException:
            sock.close()
            raise
        return sock


_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_LAST_DATA_RECEIVED = struct.Struct("52xI")
"""`tcpi_last_data_recv` of Linux' `struct tcp_info`, in milliseconds, as fine as the kernel's clock tick."""


def seconds_since_last_data(transport: asyncio.Transport) -> float | None:
    """Return how long ago this machine received the last data of a connection, in seconds; None where unknown.

    Of a new connection, how long ago it was established.
    """
    sock = transport.get_extra_info("socket")
    if _TCP_INFO is None or sock is None:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_RECEIVED.size)
    except OSError:
        return None
    return _LAST_DATA_RECEIVED.unpack(info)[0] / 1000 if len(info) == _LAST_DATA_RECEIVED.size else None


_CURRENT_CHANNEL: ContextVar[HttpChannel] = ContextVar("channel")


class _Request(aiohttp.ClientRequest):
    """A request that reports to its channel which connection was assigned to it."""

    async def send(self, conn: AiohttpConnection) -> aiohttp.ClientResponse:
        _CURRENT_CHANNEL.get().connection_assigned(conn)
        return await super().send(conn)


@dataclass(slots=True)
class Timing:
    """What is known of one request; times are `time.perf_counter()` in seconds, None what did not happen.

    `connect_s` is how long it took to make a connection for it. `connect_lag_s` and `answer_lag_s` are how long
    the connection, and then the whole answer, were there before this process saw them: the client's own share
    of those times.
    """

    connecting_at: float | None = None
    connected_at: float | None = None
    reused: bool = False
    sent_at: float | None = None
    answered_at: float | None = None
    connect_lag_s: float | None = None
    answer_lag_s: float | None = None

    @property
    def connect_s(self) -> float | None:
        """How long it took to make a connection for this request; None where it needed none."""
        if self.connecting_at is None or self.connected_at is None:
            return None
        return self.connected_at - self.connecting_at

    @property
    def answer_s(self) -> float:
        """How long the answer took, from the moment the request was written."""
        if self.answered_at is None or self.sent_at is None:
            return 0.0
        return self.answered_at - self.sent_at


class HttpChannel:
    """One session's requests to the HTTP endpoints of a server.

    `connected_at` is when a first connection was established, None before and where an idle one was taken;
    `last_timing` is what is known of the last request.
    """

    def __init__(self, url: str, pool: HttpPool) -> None:
        self.connected_at: float | None = None
        self.last_timing = Timing()
        self._base = http_url(url)
        self._session, self._owns_session = pool.session()
        self._transport: asyncio.Transport | None = None

    async def close(self) -> None:
        """Close the connection, unless others use it."""
        if self._owns_session:
            await self._session.close()

    async def post(self, path: str, body: Mapping[str, Any] | bytes, timeout_s: float) -> dict[str, Any]:
        """Send a JSON body and return the JSON object answered.

        Raises:
            HttpFailure: no answer in time, a status other than 200, or an answer that is no JSON object.
        """
        data = body if isinstance(body, bytes) else encode_body(body)
        url = self._base + path
        timing = self.last_timing = Timing()
        _CURRENT_CHANNEL.set(self)
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.post(
                    url, data=data, allow_redirects=False, trace_request_ctx=timing
                ) as answer:
                    raw = await answer.read()
                    timing.answered_at = time.perf_counter()
                    self._note_answer_lag()
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
            loss = loss_from_error(cause, established=self.connected_at is not None)
            raise HttpFailure(loss.kind, loss.code, loss.message or str(error)) from None
        except aiohttp.ServerDisconnectedError:
            raise HttpFailure("closed_early", None, "the server closed the connection without an answer") from None
        except aiohttp.ClientPayloadError as error:
            raise HttpFailure("closed_early", None, f"the answer broke off ({error})") from None
        except aiohttp.ClientConnectionResetError:
            raise HttpFailure("connection_reset", "ECONNRESET", "the server closed the connection") from None
        except aiohttp.ClientError as error:
            raise HttpFailure("protocol", None, f"{type(error).__name__}: {error}") from None
        except OSError as error:
            kind = "client_limit" if error.errno in CLIENT_ERRNOS else "protocol"
            raise HttpFailure(kind, None, str(error)) from None
        return _read_json_object(url, answer.status, answer.reason or "", answer.headers, raw)

    def connection_assigned(self, connection: AiohttpConnection) -> None:
        """Note the connection of the current request, and how late it was seen to be established."""
        timing, self._transport = self.last_timing, connection.transport
        if timing.connected_at is not None and self._transport is not None:
            timing.connect_lag_s = seconds_since_last_data(self._transport)
            if self.connected_at is None:
                self.connected_at = timing.connected_at
        # The last moment to look at a connection that will not be kept.
        connection.add_callback(self._note_answer_lag)

    def _note_answer_lag(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.last_timing.answer_lag_s = seconds_since_last_data(self._transport)


async def _on_connecting(session: object, context: SimpleNamespace, params: object) -> None:
    context.trace_request_ctx.connecting_at = time.perf_counter()


async def _on_connected(session: object, context: SimpleNamespace, params: object) -> None:
    context.trace_request_ctx.connected_at = time.perf_counter()


async def _on_reused(session: object, context: SimpleNamespace, params: object) -> None:
    context.trace_request_ctx.reused = True


async def _on_sending(session: object, context: SimpleNamespace, params: object) -> None:
    timing: Timing = context.trace_request_ctx
    if timing.sent_at is None:
        timing.sent_at = time.perf_counter()


def _trace_config() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(_on_connecting)
    trace.on_connection_create_end.append(_on_connected)
    trace.on_connection_reuseconn.append(_on_reused)
    trace.on_request_chunk_sent.append(_on_sending)
    return trace


_TRACE = _trace_config()


def _read_json_object(url: str, status: int, reason: str, fields: Mapping[str, str], raw: bytes) -> dict[str, Any]:
    if status != 200:
        body_text = " ".join(raw[:4000].decode(errors="replace").split())[:200]
        if status in (400, 422, 500):
            raise HttpFailure("environment", str(status), f"HTTP {status} {reason}: {body_text}")
        if "location" in fields:
            body_text = f"redirects to {read_redirect(url, fields['location']).url}"
        words = describe_refusal(status, reason, fields, body_text)
        raise HttpFailure("handshake_status", str(status), words, read_retry_after(fields))
    problem = "that is not a JSON object"
    try:
        body = core_text.loads(raw)
    except RecursionError:
        body, problem = None, "that is nested too deeply to be read"
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HttpFailure("protocol", None, f"an answer {problem}: {raw[:80].decode(errors='replace')!r}")
    return cast("dict[str, Any]", body)
