"""One HTTP request that blocks, and what a server says of its actions: `/schema`, and the tools it has."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Timer
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pytest_openenv_scale.core.endpoint import DIRECT, Network, Proxy

from .handshake import tls_context

HTTP_ERRORS = (OSError, HTTPException, ValueError)
"""What a request ends with where no answer came, or none that is HTTP, or the URL is none."""


class ProxyError(OSError):
    """A proxy cannot be reached, or opens no tunnel; one line that names it."""


_TIMEOUT_S = 10.0
_MAX_BYTES = 4 * 1024 * 1024


def http_url(url: str) -> str:
    """Return a base URL with the scheme HTTP requests need, without a trailing slash."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


@contextmanager
def http_request(
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    method: str = "GET",
    body: bytes | None = None,
    *,
    network: Network = DIRECT,
) -> Generator[HTTPResponse]:
    """Send a request on a new connection, which is cut off after `timeout_s` seconds, and yield the answer.

    Like the sessions, it goes by the network's proxy or straight to the server, whatever proxy the environment names,
    and follows no redirect, so that headers meant for one server are not sent to another.

    Raises:
        TimeoutError: it was cut off before the block was over.
        ProxyError: the proxy cannot be reached, or opens no tunnel.
        OSError, HTTPException, ValueError: no answer came, or none that is HTTP, or the URL is none.
    """
    parts = urlsplit(url)
    connection = _new_connection(parts, timeout_s, network)
    deadline = time.monotonic() + timeout_s
    try:
        _connect(connection, network.proxy)
        # The timeout of a socket begins anew with each read: a byte now and then would keep us waiting for ever.
        timer = Timer(max(0.0, deadline - time.monotonic()), _shut_down, (connection.sock,))
        timer.daemon = True
        timer.start()
        try:
            path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request(method, path, body, {"Connection": "close", **headers})
            with connection.getresponse() as answer:
                yield answer
        except (OSError, HTTPException):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no answer within {timeout_s:g} s") from None
            raise
        finally:
            timer.cancel()
    finally:
        connection.close()


def _new_connection(parts: SplitResult, timeout_s: float, network: Network) -> HTTPConnection:
    secure, proxy = parts.scheme in ("https", "wss"), network.proxy
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    address = (proxy.host, proxy.port) if proxy else (host, port)
    connection = (
        HTTPSConnection(*address, timeout=timeout_s, context=tls_context(network))
        if secure
        else HTTPConnection(*address, timeout=timeout_s)
    )
    if proxy:
        connection.set_tunnel(host, port, dict(proxy.headers))
    return connection


def _connect(connection: HTTPConnection, proxy: Proxy | None) -> None:
    try:
        connection.connect()
    except (TimeoutError, ssl.SSLError):
        raise
    except OSError as error:
        if proxy is None:
            raise
        raise ProxyError(f"the proxy {proxy}: {error.strerror or error}") from None


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the TLS socket's own: that one may not be called while another thread reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def server_schema(url: str, headers: Mapping[str, str], network: Network = DIRECT) -> Mapping[str, Any] | None:
    """Return `/schema` of the server at a base URL (action, observation, state); None where it publishes none."""
    return _json_object(f"{http_url(url)}/schema", headers, network)


def action_schema(url: str, headers: Mapping[str, str], network: Network = DIRECT) -> Mapping[str, Any] | None:
    """Return the JSON schema of the actions of the server at a base URL; None where it publishes none."""
    return _field(server_schema(url, headers, network), "action")


def listed_tools(url: str, headers: Mapping[str, str], network: Network = DIRECT) -> object:
    """Return the tools that the server at a base URL lists, as it lists them; None where it lists none.

    It is asked by MCP (`POST /mcp`, JSON-RPC `tools/list`), then by OpenEnv's action of that name over HTTP.
    """
    base = http_url(url)
    by_rpc = _json_object(
        f"{base}/mcp", headers, network, {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    )
    if tools := (_field(by_rpc, "result") or {}).get("tools"):
        return tools
    by_step = _json_object(f"{base}/step", headers, network, {"action": {"type": "list_tools"}})
    return (_field(by_step, "observation") or {}).get("tools")


def _json_object(
    url: str, headers: Mapping[str, str], network: Network, body: object = None
) -> Mapping[str, Any] | None:
    """Return the JSON object that a GET, or a POST of `body`, is answered with; None where it is answered otherwise."""
    method, sent = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    sent_headers = {"Content-Type": "application/json", **headers}
    try:
        with http_request(url, sent_headers, _TIMEOUT_S, method, sent, network=network) as answer:
            raw = answer.read(_MAX_BYTES + 1) if 200 <= answer.status < 300 else b""
        parsed: Any = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except (*HTTP_ERRORS, RecursionError):
        return None
    return cast("Mapping[str, Any]", parsed) if isinstance(parsed, dict) else None


def _field(fields: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    value: Any = (fields or {}).get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None
