"""What the stock client refuses of a handshake that is taken here: held to the library it is built on."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from checking_subjects import make_subject
from pytest_openenv_scale.checks.preflight.questions import handshake
from pytest_openenv_scale.client.handshake import read_upgrade_response
from pytest_openenv_scale.client.stock_client import handshake_refusals
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.results.outcome import CheckOutcome
from scripted_server import Peer, accepted, observation, scripted

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEAD = accepted(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: " + KEY)
STATUS = b"HTTP/1.1 101 Switching Protocols"


def with_field(line: bytes) -> bytes:
    return HEAD[:-2] + line + b"\r\n\r\n"


def stock_takes(head: bytes) -> bool:
    """Whether the library accepts this answer to its own handshake."""
    client = ClientProtocol(parse_uri("ws://h/ws"))
    client.key = KEY.decode()
    client.send_request(client.connect())
    client.receive_data(head)
    return client.handshake_exc is None


TAKEN = {
    "as-it-is": HEAD,
    "no-reason": HEAD.replace(STATUS, b"HTTP/1.1 101 "),
    "two-lines": HEAD.replace(b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: ,Upgrade,"),
    "lower-case": HEAD.replace(b"Connection: Upgrade", b"connection:upgrade"),
    "latin-1": with_field(b"X-Server: caf\xe9\ttable"),
    "empty-value": with_field(b"X-Server:"),
    "field-of-8192": with_field(b"X-Long: " + b"x" * (8192 - 10)),
    "fields-of-128": HEAD[:-2] + b"X: 1\r\n" * 125 + b"\r\n",
}
REFUSED = {
    "no-space": HEAD.replace(STATUS, b"HTTP/1.1 101"),
    "http-1.0": HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "http-1.2": HEAD.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "control-in-reason": HEAD.replace(STATUS, b"HTTP/1.1 101 \x07"),
    "no-colon": with_field(b"X-Server"),
    "space-before-colon": with_field(b"X-Server : a"),
    "folded": with_field(b"X-Server: a\r\n b"),
    "unnamed": with_field(b": a"),
    "control-in-value": with_field(b"X-Server: a\x01b"),
    "bare-line-feed": with_field(b"X-Server: a\nb"),
    "connection-of-two-words": HEAD.replace(b"Connection: Upgrade", b"Connection: keep alive, Upgrade"),
    "connection-in-quotes": HEAD.replace(b"Connection: Upgrade", b'Connection: "x", Upgrade'),
    "empty-connection": with_field(b"Connection: "),
    "empty-upgrade": with_field(b"Upgrade: ,"),
    "long-status": HEAD.replace(STATUS, STATUS + b"x" * 8192),
    "field-of-8193": with_field(b"X-Long: " + b"x" * (8193 - 10)),
    "fields-of-129": HEAD[:-2] + b"X: 1\r\n" * 126 + b"\r\n",
}


@pytest.mark.parametrize("head", TAKEN.values(), ids=TAKEN)
def test_what_the_stock_client_takes_is_not_noted(head: bytes) -> None:
    assert read_upgrade_response(head, KEY, "http://h/ws") == b""
    assert stock_takes(head)
    assert handshake_refusals(head) == ()


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED)
def test_what_is_taken_here_and_the_stock_client_refuses_is_noted(golden: Any, head: bytes) -> None:
    assert read_upgrade_response(head, KEY, "http://h/ws") == b""
    assert not stock_takes(head)
    golden(list(handshake_refusals(head)))


def answering(first: bytes):
    """An environment whose answer to the upgrade begins with this status line."""

    async def script(peer: Peer) -> None:
        peer.send(accepted(await peer.head()).replace(STATUS, first, 1))
        while (message := await peer.asked())["type"] != "close":
            peer.say({"type": "state", "data": {}} if message["type"] == "state" else observation())
        await peer.part()

    return script


@pytest.mark.parametrize(("first", "outcome"), [(STATUS, CheckOutcome.MET), (b"HTTP/1.0 101", CheckOutcome.MISSED)])
async def test_check_notes_what_the_stock_client_would_refuse(golden: Any, first: bytes, outcome: CheckOutcome) -> None:
    async with scripted(answering(first)) as server:
        result = await handshake(make_subject(server.url, workload=Workload(no_action="none")))
    assert result.outcome is outcome
    golden(result.headline)
