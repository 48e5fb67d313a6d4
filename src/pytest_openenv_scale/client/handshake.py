"""How a WebSocket client connects (TLS, opening handshake of RFC 6455, section 4), and why a connection ended."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from urllib.parse import SplitResult, quote, urlsplit

from pytest_openenv_scale.core.endpoint import DIRECT, Network, Proxy
from pytest_openenv_scale.core.target_spec import read_redirect, redact_url

_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD, _MAX_BODY, _MAX_ACCEPTED = 64 * 1024, 4096, 64
_PROBE_TIMEOUT_S = 2.0
_MAX_DIGITS, _MAX_RETRY_AFTER_S = 9, 86_400.0
_PATH = "/%:@!$&'()*+,;=~-._"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r\n")
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")


@dataclass(frozen=True, slots=True)
class Route:
    """Everything the sessions of a batch share about one URL, prepared once; `url` is what they ask for.

    With a `proxy`, `address` is its address, and `connect` is what asks it for a tunnel to the server.
    """

    url: str
    family: int
    address: tuple[object, ...]
    head: bytes = field(repr=False)
    tls: ssl.SSLContext | None
    server_name: str | None
    source: str | None = None
    proxy: Proxy | None = None
    connect: bytes = field(default=b"", repr=False)


class RouteError(Exception):
    """A URL or a header cannot be used; one line, without userinfo and without the header's value."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a base URL leads: its host and port, and the address that the host resolves to."""

    host: str
    port: int
    family: int
    address: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _ServerAddress:
    """What a base URL says of a server: its parts, its host as it is looked up, its port, whether to speak TLS."""

    parts: SplitResult
    host: str
    port: int
    secure: bool

    @property
    def host_port(self) -> str:
        """The host, in brackets where it is an address of IPv6, and the port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def _read_url(url: str) -> _ServerAddress:
    """Read a base URL.

    Raises:
        RouteError: it is malformed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RouteError(f"not a URL: {redact_url(url)!r} ({error})") from None
    secure = parts.scheme in ("https", "wss")
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise RouteError(f"not an http(s) or ws(s) URL: {redact_url(url)!r}")
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    except UnicodeError as error:
        raise RouteError(f"host {parts.hostname!r} does not resolve ({error})") from None
    return _ServerAddress(parts, host, port or (443 if secure else 80), secure)


def find_address(url: str) -> ServerAddress:
    """Resolve the host of an http(s) or ws(s) URL; blocks while it asks the resolver.

    A host with addresses of both families ("localhost" is one) is tried in the resolver's order: a server
    often listens on one of them only.

    Raises:
        RouteError: the URL is malformed or its host does not resolve.
    """
    server = _read_url(url)
    try:
        candidates = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RouteError(f"host {server.parts.hostname!r} does not resolve ({error})") from None
    family, address = candidates[0][0], candidates[0][4]
    if len({item[0] for item in candidates}) > 1:
        family, address = next((item[0], item[4]) for item in (*filter(_listens, candidates), candidates[0]))
    return ServerAddress(server.host, server.port, family, address)


def _listens(candidate: tuple[int, int, int, str, tuple[object, ...]]) -> bool:
    with socket.socket(candidate[0], socket.SOCK_STREAM) as sock:
        sock.settimeout(_PROBE_TIMEOUT_S)
        try:
            return sock.connect_ex(candidate[4]) == 0
        except OSError:
            return False


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that would break out of their line.

    Raises:
        RouteError: a name is no token, or a value has line breaks or other control characters.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RouteError(f"a header cannot be named {name[:40]!r}: letters, digits and dashes only")
        if _CONTROL.search(value):
            raise RouteError(f"the value of header {name!r} must be one line of text without control characters")


def tls_context(network: Network) -> ssl.SSLContext:
    """Return what a client's TLS connections are made with."""
    context = ssl.create_default_context()
    if network.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def prepare_route(
    url: str,
    headers: Mapping[str, str] | None = None,
    network: Network = DIRECT,
    *,
    tls: ssl.SSLContext | None = None,
    source: str | None = None,
) -> Route:
    """Resolve a base URL and prepare the upgrade request for its `/ws`; blocks while it asks the resolver.

    With a proxy, that resolves the URL's host. `source` is the local address to connect from; None leaves that to the
    system.

    Raises:
        RouteError: the URL is malformed, its host does not resolve, or a header cannot be sent.
    """
    check_headers(headers or {})
    server, proxy = _read_url(url), network.proxy
    destination = find_address(proxy.url if proxy else url)
    host = server.host_port.removesuffix(":443" if server.secure else ":80")
    path = quote(server.parts.path.rstrip("/"), safe=_PATH)
    path += "" if path.endswith("/ws") else "/ws"
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        "Sec-WebSocket-Key: ",
    ]
    context = (tls or tls_context(network)) if server.secure else None
    return Route(
        url=f"{'https' if server.secure else 'http'}://{host}{path}",
        family=destination.family,
        address=destination.address,
        head="\r\n".join(lines).encode(),
        tls=context,
        server_name=server.host if server.secure else None,
        source=source,
        proxy=proxy,
        connect=connect_request(proxy, server.host, server.port) if proxy else b"",
    )


def connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    """Return what asks a proxy for a tunnel."""
    server = f"{f'[{host}]' if ':' in host else host}:{port}"
    headers = {"Host": server, **proxy.headers}
    lines = [f"CONNECT {server} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_connect_response(data: bytes, proxy: Proxy, *, ended: bool = False) -> bytes | Loss | None:
    """Read a proxy's answer to `CONNECT`.

    Returns the bytes that follow it once the tunnel is open, why there is none, or None while more must come; `ended`
    says that nothing more will.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 and not ended and len(data) <= _MAX_HEAD:
        return None
    head = _parse_head(data[:end]) if end >= 0 else None
    if head is None:
        return Loss("protocol", "proxy", f"the proxy {proxy} does not answer CONNECT in HTTP")
    status, reason, _ = head
    if not 200 <= status < 300:
        return Loss("protocol", "proxy", f"the proxy {proxy} opens no tunnel: HTTP {status} {reason}".rstrip())
    return data[end + 4 :]


def new_key() -> bytes:
    """Return a fresh Sec-WebSocket-Key."""
    return b2a_base64(os.urandom(16), newline=False)


def read_upgrade_response(data: bytes, key: bytes, url: str, *, ended: bool = False) -> bytes | Loss | None:
    """Read the server's answer to an upgrade request for `url` sent with `key`.

    Returns the bytes that follow an acceptance, why the server refused, or None while more must come;
    `ended` says that nothing more will.
    """
    if _is_known_acceptance(data, key):
        return b""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data)) or len(data) > _MAX_HEAD:
            return _not_http_loss(data)
        return Loss("closed_early", None, "closed before the upgrade was answered") if ended else None
    head = _parse_head(data[:end])
    if head is None:
        return _not_http_loss(data)
    status, reason, fields = head
    rest = data[end + 4 :]
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        if not ended and not _is_body_complete(status, fields, rest):
            return None
        return _refusal_loss(url, status, reason, fields, rest)
    fault = _find_upgrade_fault(fields, key)
    if fault is not None:
        return Loss("protocol", "handshake", fault)
    _remember_acceptance(data[: end + 4], key)
    return rest


_accepted_heads: set[tuple[bytes, bytes]] = set()
"""Heads that were read in full and accepted, cut in two where their digest stood."""


def _is_known_acceptance(data: bytes, key: bytes) -> bool:
    """Tell whether this is, digest apart, byte for byte a head that was accepted before.

    The answers of a server differ in little else than the digest; reading each anew would cost a load
    generator more than the digest itself.
    """
    before, digest, after = data.partition(_accept_digest(key))
    return bool(digest) and (before, after) in _accepted_heads


def _remember_acceptance(head: bytes, key: bytes) -> None:
    before, _, after = head.partition(_accept_digest(key))
    if len(_accepted_heads) >= _MAX_ACCEPTED:
        _accepted_heads.clear()
    _accepted_heads.add((before, after))


def _accept_digest(key: bytes) -> bytes:
    return b2a_base64(sha1(key + _ACCEPT_SALT).digest(), newline=False)


def has_response_head(data: bytes) -> bool:
    """Tell whether the bytes hold a whole response head."""
    return b"\r\n\r\n" in data


def _not_http_loss(data: bytes) -> Loss:
    if _TLS_RECORD.match(data):
        return Loss("protocol", "handshake", "the server speaks TLS where ws was asked: write https:// or wss://")
    return Loss("protocol", "handshake", f"the answer to the upgrade is not HTTP: {data[:40]!r}")


def _parse_head(head: bytes) -> tuple[int, str, dict[str, str]] | None:
    """Return status, reason and lower-cased fields of a response head; None where it is not HTTP/1.x.

    Lines of one name are joined by commas, as RFC 9110 (5.3) has it.
    """
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, line = first.partition(" ")
    status, _, reason = line.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not status.isdecimal():
        return None
    fields: dict[str, str] = {}
    for row in rest:
        name, _, value = row.partition(":")
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return int(status), reason, fields


def _tokens(fields: Mapping[str, str], name: str) -> list[str]:
    """Return the lower-cased elements of a field that is a list."""
    return [token.strip().lower() for token in fields.get(name, "").split(",") if token.strip()]


def _is_body_complete(status: int, fields: Mapping[str, str], body: bytes) -> bool:
    """Tell whether as much of a refusal's body is there as will be read: it often holds the reason."""
    length = fields.get("content-length", "").partition(",")[0]
    if status in (204, 304) or len(body) >= _MAX_BODY:
        return True
    if length.isdecimal():
        return len(body) >= int(length)
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return body.endswith(b"0\r\n\r\n")
    return "close" not in _tokens(fields, "connection")


def _refusal_loss(url: str, status: int, reason: str, fields: Mapping[str, str], body: bytes) -> Loss:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    body_text = " ".join(body.decode("utf-8", "replace").split())[:200]
    if status in (301, 302, 303, 307, 308):
        body_text = f"redirects to {read_redirect(url, fields['location']).url if 'location' in fields else 'nowhere'}"
    words = describe_refusal(status, reason, fields, body_text)
    return Loss("handshake_status", str(status), words, read_retry_after(fields))


def read_retry_after(fields: Mapping[str, str]) -> float | None:
    """Return in how many seconds a server asks to be asked again: a number, or a date (RFC 9110, section 10.2.3)."""
    text = fields.get("retry-after", "").strip()
    if text.isdecimal() and text.isascii():
        return min(float(text[:_MAX_DIGITS]), _MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": a time in UTC, from no known zone.
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), _MAX_RETRY_AFTER_S)


def describe_refusal(status: int, reason: str, fields: Mapping[str, str], words: str) -> str:
    """Return an answer in its server's words: "HTTP 503 Service Unavailable from nginx (Retry-After: 7 s): full".

    `fields` are its headers by lower-case names, `words` the text of its body or what stands for that.
    """
    server, retry_after = fields.get("server"), fields.get("retry-after")
    text = f"HTTP {status} {reason}".strip() + (f" from {server}" if server else "")
    if retry_after:
        text += f" (Retry-After: {retry_after[:40]}{' s' if retry_after.isdecimal() else ''})"
    return text + (f": {words}" if words else "")


def _join_chunks(body: bytes) -> bytes:
    """Join the chunks of a body, as far as they are there."""
    parts: list[bytes] = []
    position = 0
    while (head := _CHUNK.match(body, position)) and (size := int(head[1], 16)):
        parts.append(body[head.end() : head.end() + size])
        position = head.end() + size + 2
    return b"".join(parts)


def _find_upgrade_fault(fields: Mapping[str, str], key: bytes) -> str | None:
    if fields.get("sec-websocket-accept") != _accept_digest(key).decode():
        return "status 101 with a wrong Sec-WebSocket-Accept"
    if _tokens(fields, "upgrade") != ["websocket"] or "upgrade" not in _tokens(fields, "connection"):
        return "status 101 without Upgrade: websocket and Connection: Upgrade"
    if "sec-websocket-extensions" in fields:
        return f"extension that was not offered: {fields['sec-websocket-extensions']}"
    if "sec-websocket-protocol" in fields:
        return f"subprotocol that was not offered: {fields['sec-websocket-protocol']}"
    return None


CLIENT_ERRNOS = frozenset(
    (
        *(errno.EMFILE, errno.ENFILE),
        *(errno.EADDRNOTAVAIL, errno.EADDRINUSE),
        *(errno.ENOBUFS, errno.ENOMEM),
        *(errno.EACCES, errno.EPERM),
        *(errno.ENETDOWN, errno.EAFNOSUPPORT),
    )
)
"""Errors of this machine, not of the server: no descriptors, no ports, no memory, not allowed, no network."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended: `kind` is a row's `error_type`, or `closed` after a clean close handshake.

    `retry_after_s` is in how many seconds a server that refused it asks to be asked again.
    """

    kind: str
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None


@lru_cache(maxsize=16)
def loss_from_close(code: int, reason: str) -> Loss:
    """Return the loss of a connection whose close handshake was completed; nearly every session ends alike."""
    return Loss("closed", str(code), reason or None)


def loss_from_error(error: OSError, *, established: bool = False) -> Loss:
    """Return the loss for an error of the socket; `established` says whether the server had answered before."""
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    text = error.strerror or str(error)
    if error.errno in CLIENT_ERRNOS:
        return Loss("client_limit", code, text)
    if error.errno == errno.ECONNREFUSED:
        return Loss("refused", code, text)
    if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Loss("timeout" if error.errno == errno.ETIMEDOUT else "refused", code, text)
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Loss("connection_reset", code, text if established else "reset before the upgrade was answered")
    return Loss("protocol", code, text)


_READ_SIZE = 1024 * 1024


class NotTlsError(ssl.SSLError):
    """The server answered in plain HTTP."""


class TlsStream:
    """TLS over bytes: the socket stays ours, so that arrival times and non-blocking reads do too."""

    __slots__ = ("_handshake_done", "_incoming", "_outgoing", "_pending", "_ssl", "ended")

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._handshake_done = False
        self._pending = b""
        self.ended = False
        """Whether the server has said that it will send nothing more."""
        self._do_handshake()

    def encrypt(self, data: bytes) -> None:
        """Take bytes to send: they wait for the TLS handshake, and are dropped once the server has ended."""
        if self.ended:
            return
        if self._handshake_done:
            self._ssl.write(data)
        else:
            self._pending += data

    def outgoing(self) -> bytes:
        """Return what must be written to the socket now."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Take what was read from the socket and return the plain text in it, which may be nothing.

        Raises:
            ssl.SSLError: the handshake failed or the stream is damaged.
        """
        if not self._handshake_done and data.startswith(b"HTTP/"):
            raise NotTlsError
        self._incoming.write(data)
        if not self._handshake_done:
            self._do_handshake()
            if not self._handshake_done:
                return b""
        parts: list[bytes] = []
        try:
            while part := self._ssl.read(_READ_SIZE):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def _do_handshake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._handshake_done = True
        if self._pending:
            self._ssl.write(self._pending)
            self._pending = b""


def describe_tls_error(error: ssl.SSLError) -> str:
    """Return one line saying what went wrong."""
    if isinstance(error, NotTlsError):
        return "the server speaks plain HTTP where TLS was asked: write http:// or ws://"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not accepted: {error.verify_message}"
    return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
