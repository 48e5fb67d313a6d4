"""What one client may take of the benchmark server: bytes, seconds, sessions; the server stays as it was."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import psutil
import pytest
from websockets.asyncio.client import connect

from pytest_openenv_scale.server import worker
from pytest_openenv_scale.server.sessions import AddressLimitError, Sessions
from pytest_openenv_scale.server.settings import ClientBounds
from pytest_openenv_scale.server.ws import MAX_MESSAGE, SessionEndpoint
from raw_websocket import client_frame, opened, read_to_end
from server_process import running_server, session

BOUNDS = {"IDLE_TIMEOUT": "1", "SESSION_TIMEOUT": "2", "MAX_SESSIONS_PER_ADDRESS": "3"}


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(request):
    with running_server("--server", request.param) as started:
        yield started


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def bounded(request):
    with running_server("--server", request.param, env=BOUNDS) as (_, address):
        yield address


async def expired(client):
    return (await client.receive())["data"]["message"], await client.closed()


async def test_a_session_that_says_nothing_is_closed_and_says_why(bounded):
    async with session(bounded) as client:
        assert await expired(client) == ("No message for 1 s (IDLE_TIMEOUT): the session is closed", 1008)


async def test_a_session_that_waits_in_a_step_is_not_idle_and_ends_when_it_is_too_old(bounded):
    async with session(bounded) as client:
        reply = await client.ask({"type": "step", "data": {"wait_seconds": 1.3}})
        assert reply["data"]["observation"]["waited_seconds"] >= 1.3
        with contextlib.suppress(asyncio.CancelledError):
            for _ in range(40):
                reply = await client.ask({"type": "step", "data": {"wait_seconds": 0.1}})
                if reply["type"] == "error":
                    break
        assert reply["data"]["message"] == "The session is 2 s old (SESSION_TIMEOUT): it is closed"
        assert await client.closed() == 1008


async def test_an_address_has_its_sessions_and_no_more_until_one_is_closed(bounded):
    async with session(bounded) as first, session(bounded), session(bounded):
        async with session(bounded) as fourth:
            told = "3 sessions are open from this address, as many as MAX_SESSIONS_PER_ADDRESS allows"
            assert await expired(fourth) == (told, 1008)
        async with connect(f"ws://{bounded}/ws", local_addr=("127.0.0.2", 0), proxy=None) as elsewhere:
            await elsewhere.send('{"type":"reset"}')
            assert "observation" in await elsewhere.recv()
        await first.send({"type": "close"})
        await first.closed()
        async with session(bounded) as another:
            assert (await another.ask({"type": "reset"}))["type"] == "observation"


def test_addresses_are_forgotten_with_their_last_session():
    sessions = Sessions(None, "host:1", ClientBounds(sessions_per_address=1))
    with sessions.hold_slot(address="a"):
        with pytest.raises(AddressLimitError), sessions.hold_slot(address="a"):
            pass
        with sessions.hold_slot(address="b"):
            assert sessions.active == 2
    assert sessions.active == 0
    with sessions.hold_slot(address="a"):
        pass
    assert not sessions._by_address


async def test_a_session_made_over_http_is_given_up_when_nobody_uses_it():
    sessions = Sessions(1, "host:1", ClientBounds(idle_timeout_s=0.02))
    sessions.create()
    async with asyncio.timeout(5):
        while sessions.active:
            await asyncio.sleep(0.005)
    with sessions.hold_slot():
        pass


async def test_no_timer_runs_where_there_is_no_session():
    sessions = Sessions(None, "host:1", ClientBounds(idle_timeout_s=0.02))
    sent, silent = [], asyncio.Event()

    async def receive():
        if not sent:
            return {"type": "websocket.connect"}
        if sent[-1]["type"] == "websocket.close":
            return {"type": "websocket.disconnect"}
        return await silent.wait()

    async def send(event):
        sent.append(event)

    await SessionEndpoint(sessions)({"query_string": b"", "client": None}, receive, send)
    assert [event["type"] for event in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    await asyncio.sleep(0.05)
    assert sessions._look is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5_000], ids=["lists", "objects", "digits"])
async def test_what_the_parser_gives_up_on_ends_the_session(server, text):
    async with session(server[1]) as client:
        await client.send(text)
        assert (await client.receive())["data"]["code"] == "SESSION_ERROR"
        assert await client.closed() == 1000


@pytest.mark.parametrize(
    "bytes_sent",
    [b'\x81\x83\0\0\0\0\xff\xfe"', b"\xf1\x80\0\0\0\0", b"\x81\x01a", b"\x83\x80\0\0\0\0", b"\x89\xfe\x01\x00\0\0\0\0"],
    ids=["no UTF-8", "reserved bits", "not masked", "unknown kind", "a long ping"],
)
def test_what_is_no_websocket_ends_the_connection(server, bytes_sent):
    with opened(server[1]) as peer:
        peer.sendall(bytes_sent + bytes(256))
        read_to_end(peer)


def test_a_message_without_end_is_cut_off_and_not_kept(server):
    process, address = server
    before = memory(process, address)
    more = client_frame(b"x" * 65_536, kind=0, final=False)
    with opened(address) as peer, pytest.raises(ConnectionError):
        send(peer, client_frame(b"x", final=False), more, times=64 * MAX_MESSAGE // len(more))
    assert memory(process, address) - before < 40 * MAX_MESSAGE


def test_who_sends_and_never_reads_is_not_read_either(server):
    process, address = server
    before = memory(process, address)
    with opened(address, patience_s=0.5) as peer, pytest.raises(TimeoutError):
        send(peer, b"", client_frame(b'{"type":"reset"}') * 1_000, times=10_000)
    assert memory(process, address) - before < 40 * MAX_MESSAGE


def test_a_head_without_end_is_cut_off(server):
    with socket.create_connection(split(server[1]), 20) as peer, pytest.raises(ConnectionError):
        send(peer, b"GET /health HTTP/1.1\r\n", b"x-more: " + b"a" * 1_000 + b"\r\n", times=64_000)


class Patient(asyncio.Protocol):
    """Takes a head however long it is and lasts, as uvicorn does where httptools is installed."""

    cycle = None

    def connection_made(self, transport):
        self.loop, self.transport = asyncio.get_running_loop(), transport


class Transport:
    """Belongs to one protocol, and is closed once."""

    def __init__(self, protocol):
        self.get_protocol = lambda: protocol
        self.close = (closed := asyncio.Event()).set
        self.closed = closed


@pytest.fixture
async def patient(monkeypatch):
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", Patient)
    monkeypatch.setattr(worker, "HEAD_TIMEOUT_S", 0.01)
    protocol = worker._bounded_http()()
    transport = Transport(protocol)
    protocol.connection_made(transport)
    yield protocol, transport
    protocol.connection_lost(None)


async def test_a_parser_that_takes_heads_of_any_length_is_bounded(patient):
    protocol, transport = patient
    protocol.data_received(bytes(worker.MAX_HEAD))
    assert not transport.closed.is_set()
    protocol.data_received(b"x")
    assert transport.closed.is_set()


async def test_a_parser_that_waits_for_ever_is_bounded(patient):
    _, transport = patient
    async with asyncio.timeout(5):
        await transport.closed.wait()


def send(peer, first, more, *, times):
    peer.sendall(first)
    for _ in range(times):
        peer.sendall(more)


def split(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


def memory(process, address):
    """The bytes of a server that has answered: it announces itself before its worker is up."""
    with opened(address):
        return sum(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
