"""What a server says its actions and observations look like: `GET /schema`, asked in bounded time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Timer
from typing import Any, cast
from urllib.parse import urlsplit

from .http import http_url

_TIMEOUT_S = 10.0
_MAX_BYTES = 4 * 1024 * 1024
_READ_BYTES = 65_536


@contextmanager
def http_answer(url: str, path: str, headers: Mapping[str, str], within_s: float) -> Generator[HTTPResponse]:
    """Ask `GET path` of the server at a base URL on a new connection; within `within_s` seconds of it all is cut off.

    As the sessions: straight to the server, whatever proxy the environment names, and no redirect is followed, so
    that headers meant for one server are not carried to another.

    Raises:
        OSError, HTTPException, ValueError: no answer came, or none that is HTTP, or the URL is none.
    """
    parts = urlsplit(http_url(url))
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_s)
    end = time.monotonic() + within_s
    try:
        connection.connect()
        # The timeout of a socket begins anew with each read: a byte now and then would keep us waiting for ever.
        cut = Timer(max(0.0, end - time.monotonic()), _cut, (connection.sock,))
        cut.daemon = True
        cut.start()
        try:
            connection.request("GET", f"{parts.path}{path}", headers={"Connection": "close", **headers})
            with connection.getresponse() as answer:
                yield answer
        finally:
            cut.cancel()
    finally:
        connection.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the TLS socket's own: that one may not be called while another thread reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def server_schema(url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return `/schema` of the server at a base URL (action, observation, state); None where it publishes none."""
    end = time.monotonic() + _TIMEOUT_S
    try:
        with http_answer(url, "/schema", headers, _TIMEOUT_S) as answer:
            raw = _read(answer, end) if 200 <= answer.status < 300 else None
        body = None if raw is None else json.loads(raw)
    except (HTTPException, OSError, ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else None


def _read(answer: HTTPResponse, end: float) -> bytes | None:
    """Return the body of an answer; None if it has too many bytes or is not over at `end`, on the monotonic clock."""
    body = bytearray()
    while some := answer.read1(_READ_BYTES):
        body += some
        if len(body) > _MAX_BYTES or time.monotonic() >= end:
            return None
    return bytes(body)


def action_schema(url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the JSON schema of the actions of the server at a base URL; None where it publishes none."""
    action = (server_schema(url, headers) or {}).get("action")
    return cast("Mapping[str, Any]", action) if isinstance(action, dict) else None
