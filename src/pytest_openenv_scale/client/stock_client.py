"""OpenEnv's own client (`EnvClient`, on the `websockets` library): how long it waits, and what it refuses.

Sessions here take more than it does, so that a server can be measured; `openenv-scale check` tells the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CONNECT_S, REPLY_S, PONG_S = 10.0, 60.0, 20.0
"""How long it waits for a connection, for an answer to a message, and for one to a ping, in seconds (openenv 0.10)."""

MAX_MESSAGE_BYTES = 100 * 1024 * 1024
"""The largest message it reads, in bytes."""

_MAX_FIELDS, _MAX_LINE_BYTES = 128, 8192
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def handshake_refusals(head: bytes) -> tuple[str, ...]:
    """Return why it would refuse the head of an upgrade response that is accepted here; empty where it would not.

    It reads a response as RFC 9112 writes it, to the letter (`websockets.http11`, `websockets.headers`, 13 to 17).
    """
    status, *fields = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return tuple(dict.fromkeys((*_status_refusals(status), *_field_refusals(fields))))


def _status_refusals(line: bytes) -> Iterator[str]:
    version, _, rest = line.partition(b" ")
    if version != b"HTTP/1.1":
        yield f"the answer to the upgrade is {_shown(version)}, not HTTP/1.1"
    status, space, reason = rest.partition(b" ")
    if not space:
        yield f"the status line has no space after {_shown(status)}"
    if not _VALUE.fullmatch(reason):
        yield "the reason phrase has a control character"
    if len(line) + 2 > _MAX_LINE_BYTES:
        yield f"the status line is longer than {_MAX_LINE_BYTES:,} bytes"


def _field_refusals(lines: list[bytes]) -> Iterator[str]:
    if len(lines) > _MAX_FIELDS:
        yield f"the response has {len(lines)} header fields, more than {_MAX_FIELDS}"
    for line in lines:
        name, colon, value = line.partition(b":")
        shown, value = _shown(name), value.strip(b" \t")
        if not colon:
            yield f"the header line {shown} has no colon"
        elif not _TOKEN.fullmatch(name):
            yield f"a header field is named {shown}, which is no token"
        elif not _VALUE.fullmatch(value):
            yield f"the value of {shown} has a control character"
        elif name.lower() in (b"connection", b"upgrade") and not _is_list_of_tokens(value):
            yield f"the value of {shown} is no list of tokens: {_shown(value)}"
        if len(line) + 2 > _MAX_LINE_BYTES:
            yield f"the header field {shown} is longer than {_MAX_LINE_BYTES:,} bytes"


def _is_list_of_tokens(value: bytes) -> bool:
    items = [item for item in (part.strip(b" \t") for part in value.split(b",")) if item]
    return bool(items) and all(map(_TOKEN.fullmatch, items))


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))
