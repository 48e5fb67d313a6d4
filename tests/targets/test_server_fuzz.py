"""The benchmark server is sent whatever there is, for minutes: it lives, keeps no session, and does not grow."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from raw_websocket import client_frame, opened, read_to_end
from server_process import running_server

pytestmark = pytest.mark.matrix

MINUTES = float(os.environ.get("OPENENV_SCALE_FUZZ_MINUTES", "5"))
"""How long each of the two servers is fuzzed."""

SLOTS = 4

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=12,
)
messages = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["reset", "step", "state", "mcp", "close"]) | st.text(max_size=8)},
        optional={"data": json_values | st.fixed_dictionaries({"wait_seconds": json_values}), "more": json_values},
    ),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": st.sampled_from(["openenv/session/create", "tools/list"])},
        optional={"id": json_values, "params": json_values},
    ),
    json_values,
).map(lambda value: json.dumps(value).encode())
payloads = messages | st.binary(max_size=300) | st.integers(1, 5_000).map(lambda depth: b"[" * depth)
frames = st.one_of(
    payloads.map(client_frame),
    st.builds(client_frame, payloads, kind=st.integers(0, 15), final=st.booleans()),
    st.builds(lambda frame, end: frame[:end], payloads.map(client_frame), st.integers(0, 40)),
    st.binary(max_size=40),
)
heads = st.builds(
    lambda method, path, headers, body: (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode("utf-8", "replace") + body
    ),
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "get", ""]),
    st.sampled_from(["/reset", "/step", "/state", "/mcp", "/schema", "/ws", "/docs", "*", "http://x/"])
    | st.text(max_size=9),
    st.sampled_from(
        [
            "",
            "Content-Length: 5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999\r\n",
            "Connection: close\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            "Expect: 100-continue\r\n",
        ]
    )
    | st.text(max_size=30),
    payloads,
)


@pytest.fixture(params=["hypercorn", "uvicorn"])
def server(request):
    bounds = {"IDLE_TIMEOUT": "5", "MAX_CONCURRENT_ENVS": str(SLOTS)}
    with running_server("--server", request.param, env=bounds) as started:
        yield started


def test_nothing_that_is_sent_ends_the_server_holds_a_session_or_makes_it_grow(server):
    process, address = server
    (worker,) = psutil.Process(process.pid).children()
    sent = 0

    def send(path: str, data: list[bytes]) -> None:
        nonlocal sent
        sent += 1
        host, _, port = address.rpartition(":")
        connection = opened(address, path) if path else socket.create_connection((host, int(port)), 20)
        with connection as peer, contextlib.suppress(ConnectionError, TimeoutError):
            peer.sendall(b"".join(data))
            peer.settimeout(0.02)
            read_to_end(peer)

    def fuzz(number: int) -> None:
        @seed(number)
        @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(
            path=st.sampled_from(["/ws", "/mcp"]),
            data=st.lists(frames, min_size=1, max_size=8),
            request=st.lists(heads, max_size=3),
        )
        def example(path: str, data: list[bytes], request: list[bytes]) -> None:
            send(path, data)
            send("", request)

        example()

    fuzz(0)
    settled = worker.memory_info().rss
    end = time.monotonic() + 60 * MINUTES
    number = 0
    while time.monotonic() < end:
        number += 1
        fuzz(number)
    print(f"{sent:,} connections in {number + 1} rounds, {settled >> 20} to {worker.memory_info().rss >> 20} MiB")
    assert worker.is_running()
    assert worker.memory_info().rss < settled + (32 << 20)
    assert worker.num_fds() < 64
    assert open_at_once(address) == SLOTS


def open_at_once(address: str) -> int:
    """How many sessions fit now, and one more is refused; those made over HTTP are given up after a while."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(opened(address)) for _ in range(SLOTS + 1)]
            answers = []
            for peer in peers:
                peer.sendall(client_frame(b'{"type":"reset"}'))
                answers.append(b'"observation"' in peer.recv(65_536))
        if sum(answers) == SLOTS or time.monotonic() > deadline:
            return sum(answers)
        time.sleep(0.5)


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
