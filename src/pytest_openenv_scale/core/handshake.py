"""The opening handshake of a WebSocket client (RFC 6455, section 4): the request, and what the answer means."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from .loss import Loss

_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD, _MAX_BODY = 64 * 1024, 4096


@dataclass(frozen=True, slots=True)
class Route:
    """Everything the sessions of a batch share about one URL, prepared once."""

    url: str
    family: int
    address: tuple[object, ...]
    head: bytes = field(repr=False)
    tls: ssl.SSLContext | None
    server_name: str | None
    source: str | None = None


class RouteError(Exception):
    """The URL cannot be used: its host does not resolve, or it is no http(s) or ws(s) URL."""


def websocket_url(url: str) -> str:
    """Return the address of the WebSocket endpoint `/ws` below a base URL."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise RouteError(f"not an http(s) or ws(s) URL: {url!r}")
    path = parts.path.rstrip("/")
    return f"{scheme}://{parts.netloc}{path if path.endswith('/ws') else path + '/ws'}"


def prepare_route(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    source: str | None = None,
) -> Route:
    """Resolve a base URL and prepare the upgrade request for its `/ws`; blocks while it asks the resolver.

    `source` is the local address to connect from; None leaves that to the system.

    Raises:
        RouteError: the URL is malformed or its host does not resolve.
    """
    parts = urlsplit(websocket_url(url))
    assert parts.hostname is not None
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    try:
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise RouteError(f"host {parts.hostname!r} does not resolve ({error})") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    lines = [
        f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {host}{'' if port == (443 if secure else 80) else f':{port}'}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        "Sec-WebSocket-Key: ",
    ]
    context = (tls or ssl.create_default_context()) if secure else None
    return Route(url, family, address, "\r\n".join(lines).encode(), context, parts.hostname if secure else None, source)


def new_key() -> bytes:
    """Return a fresh Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16))


def read_answer(data: bytes, key: bytes, *, ended: bool = False) -> bytes | Loss | None:
    """Read the server's answer to an upgrade request sent with `key`.

    Returns the bytes that follow an acceptance, why the server refused, or None while more must come;
    `ended` says that nothing more will.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data)) or len(data) > _MAX_HEAD:
            return Loss("protocol", "handshake", f"the answer to the upgrade is not HTTP: {data[:40]!r}")
        return Loss("closed_early", None, "closed before the upgrade was answered") if ended else None
    head = _parse_head(data[:end])
    if head is None:
        return Loss("protocol", "handshake", f"the answer to the upgrade is not HTTP: {data[:40]!r}")
    status, reason, fields = head
    rest = data[end + 4 :]
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        return _refusal(status, reason, fields, rest) if ended or _is_whole(status, fields, rest) else None
    wrong = _what_is_wrong(fields, key)
    return rest if wrong is None else Loss("protocol", "handshake", wrong)


def _parse_head(head: bytes) -> tuple[int, str, dict[str, str]] | None:
    """Return status, reason and lower-cased fields of a response head; None where it is not HTTP/1.x."""
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, line = first.partition(" ")
    status, _, reason = line.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not status.isdecimal():
        return None
    fields: dict[str, str] = {}
    for row in rest:
        name, _, value = row.partition(":")
        fields[name.strip().lower()] = value.strip()
    return int(status), reason, fields


def _is_whole(status: int, fields: Mapping[str, str], body: bytes) -> bool:
    """Tell whether as much of a refusal's body is there as will be read: it often holds the reason."""
    length = fields.get("content-length", "")
    if status in (204, 304) or len(body) >= _MAX_BODY:
        return True
    if length.isdecimal():
        return len(body) >= int(length)
    if "chunked" in fields.get("transfer-encoding", ""):
        return body.endswith(b"0\r\n\r\n")
    return "close" not in fields.get("connection", "").lower()


def _refusal(status: int, reason: str, fields: Mapping[str, str], body: bytes) -> Loss:
    words = " ".join(body.decode("utf-8", "replace").split())[:200]
    if status in (301, 302, 303, 307, 308):
        words = f"redirects to {fields.get('location', 'nowhere')}"
    server = fields.get("server")
    text = f"HTTP {status} {reason}".strip() + (f" from {server}" if server else "") + (f": {words}" if words else "")
    return Loss("handshake_status", str(status), text)


def _what_is_wrong(fields: Mapping[str, str], key: bytes) -> str | None:
    digest = base64.b64encode(hashlib.sha1(key + _ACCEPT_SALT).digest()).decode()
    if fields.get("sec-websocket-accept") != digest:
        return "status 101 with a wrong Sec-WebSocket-Accept"
    if fields.get("upgrade", "").lower() != "websocket" or "upgrade" not in fields.get("connection", "").lower():
        return "status 101 without Upgrade: websocket and Connection: Upgrade"
    if "sec-websocket-extensions" in fields:
        return f"extension that was not offered: {fields['sec-websocket-extensions']}"
    return None
