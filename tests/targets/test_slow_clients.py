"""The benchmark server ends connections that take for ever, on hypercorn and on uvicorn."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from server_process import running_server

pytestmark = pytest.mark.matrix


@pytest.fixture(params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param) as started:
        yield started


SLOW = {
    "a head": b"GET /health HTTP/1.1\r\nx-a: ",
    "a handshake": b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nx-a: ",
    "a body": b"POST /step HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    "a second head": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nx-a: ",
    "nothing": b"",
}


def test_who_sends_a_byte_a_second_is_cut_off(server):
    host, _, port = server[1].rpartition(":")

    def trickle(start: bytes) -> float:
        began = time.monotonic()
        with socket.create_connection((host, int(port)), 20) as peer, contextlib.suppress(ConnectionError):
            peer.sendall(start)
            peer.settimeout(1)
            while time.monotonic() - began < 200:
                try:
                    if not peer.recv(65_536):
                        break
                except TimeoutError:
                    if start:
                        peer.sendall(b"a")
        return time.monotonic() - began

    with ThreadPoolExecutor(len(SLOW)) as pool:
        seconds = dict(zip(SLOW, pool.map(trickle, SLOW.values()), strict=True))
    print(seconds)
    assert max(seconds.values()) < 180
