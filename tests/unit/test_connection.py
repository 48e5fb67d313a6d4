"""One connection, byte for byte: against scripted servers that are nasty and real ones that are not."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from independent_servers import AUTHORITY, SERVERS, running, server_tls
from pytest_openenv_scale.client import connection as core_connection
from pytest_openenv_scale.client.connection import Clock, Connection
from pytest_openenv_scale.client.frames import Message
from pytest_openenv_scale.client.handshake import Loss, prepare_route
from pytest_openenv_scale.client.poller import Poller
from scripted_server import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    accepted,
    frame,
    message,
    refused_port,
    scripted,
)

pytestmark = pytest.mark.usefixtures("quick_waits")


class Recorder:
    """An owner that remembers what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.times: list[float] = []
        self.loss: Loss | None = None
        self.losses = 0
        self.is_open = asyncio.Event()
        self.heard = asyncio.Condition()
        self.is_lost = asyncio.Event()

    def opened(self, at: float) -> None:
        self.is_open.set()

    def received(self, text: bytes, at: float) -> None:
        self.texts.append(text.decode())
        self.times.append(at)

    def lost(self, loss: Loss, at: float) -> None:
        self.loss = loss
        self.losses += 1
        self.is_lost.set()

    async def end(self) -> Loss:
        async with asyncio.timeout(10):
            await self.is_lost.wait()
        assert self.loss is not None
        assert self.losses == 1
        return self.loss

    async def texts_after(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.texts) < count:
                await asyncio.sleep(0.002)
        return self.texts


@asynccontextmanager
async def connecting(
    url: str, *, tls: ssl.SSLContext | None = None, source: str | None = None
) -> AsyncIterator[tuple[Connection, Recorder]]:
    recorder = Recorder()
    with Poller(asyncio.get_running_loop()) as poller:
        connection = Connection(poller, Clock(), prepare_route(url, tls=tls, source=source), recorder)
        connection.start()
        try:
            yield connection, recorder
        finally:
            connection.abort()


@asynccontextmanager
async def opened(url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Connection, Recorder]]:
    async with connecting(url, tls=tls) as (connection, recorder):
        async with asyncio.timeout(10):
            await recorder.is_open.wait()
        yield connection, recorder


async def loss_of_script(script) -> tuple[Loss, list[str]]:
    """How a connection to this server ends by itself, and what was heard before."""
    async with scripted(script) as server, connecting(server.url) as (_, recorder):
        loss = await recorder.end()
    return loss, recorder.texts


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=AUTHORITY)


# Messages


async def test_what_is_said_and_what_is_sent_at_once_arrive_in_their_order():
    heard_frames: list[tuple[int, bytes]] = []
    words = [b"one", b"two", b"three", b"four"]

    async def script(peer: Peer) -> None:
        await peer.accept()
        heard_frames.extend([await peer.hear() for _ in words])
        await peer.part()

    async with scripted(script) as server, opened(server.url) as (connection, recorder):
        connection.send_after_round(Message(words[0]))
        connection.send_after_round(Message(words[1]))
        assert connection.sent_at == math.inf
        before = connection.send(Message(words[2]))
        assert connection.sent_at <= before
        connection.send_after_round(Message(words[3]))
        await recorder.end()
    assert heard_frames == [(TEXT, word) for word in words]


async def test_what_was_said_last_goes_out_before_the_close_frame():
    heard_frames: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        heard_frames.extend([await peer.hear(), await peer.hear()])
        peer.send(frame(CLOSE, b"\x03\xe8"))
        peer.writer.close()

    async with scripted(script) as server, opened(server.url) as (connection, recorder):
        connection.send_after_round(Message(b"goodbye"))
        connection.close()
        await recorder.end()
    assert heard_frames == [(TEXT, b"goodbye"), (CLOSE, b"\x03\xe8")]


async def test_what_was_said_to_a_connection_that_is_dropped_goes_nowhere():
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.gone() == b""

    async with scripted(script) as server, opened(server.url) as (connection, _):
        connection.send_after_round(Message(b"too late"))
        connection.abort()
        await asyncio.sleep(0)


async def test_a_ping_is_answered_with_its_payload():
    answers: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(PING, b"are you there?") + frame(PING, b""))
        answers.extend([await peer.hear(), await peer.hear()])
        await peer.part()

    await loss_of_script(script)
    assert answers == [(PONG, b"are you there?"), (PONG, b"")]


async def test_a_pong_nobody_asked_for_is_ignored():
    async def script(peer: Peer) -> None:
        await peer.accept(frame(PONG, b"hello"), message("after"))
        await peer.part()

    loss, texts = await loss_of_script(script)
    assert loss == Loss("closed", "1000", None)
    assert texts == ["after"]


async def test_messages_in_the_same_read_as_the_acceptance_are_heard_in_order():
    async def script(peer: Peer) -> None:
        await peer.accept(message("one"), frame(PING, b"p"), message("two"), message("three"))
        assert await peer.hear() == (PONG, b"p")
        await peer.part()

    _, texts = await loss_of_script(script)
    assert texts == ["one", "two", "three"]


async def test_everything_split_into_single_bytes_is_heard_the_same():
    async def script(peer: Peer) -> None:
        data = accepted(await peer.head()) + message("x" * 200) + frame(TEXT, "ä".encode()[:1], final=False)
        data += frame(PING, b"between") + frame(CONTINUATION, "ä".encode()[1:]) + frame(CLOSE, b"\x03\xe8bye")
        peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for offset in range(len(data)):
            peer.send(data[offset : offset + 1])
            await asyncio.sleep(0)
        assert await peer.hear() == (PONG, b"between")
        assert await peer.hear() == (CLOSE, b"\x03\xe8")
        peer.writer.close()

    loss, texts = await loss_of_script(script)
    assert loss == Loss("closed", "1000", "bye")
    assert texts == ["x" * 200, "ä"]


async def test_a_message_of_twenty_megabytes_is_heard_whole():
    text = "x" * 20_000_000

    async def script(peer: Peer) -> None:
        await peer.accept(message(text))
        await peer.part()

    _, texts = await loss_of_script(script)
    assert [len(received) for received in texts] == [len(text)]


async def test_a_large_message_is_sent_whole_to_a_server_that_reads_slowly():
    payload = b"x" * 5_000_000
    heard_frames: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept(message("go"))
        await asyncio.sleep(0.05)
        heard_frames.append(await peer.hear())
        heard_frames.append(await peer.hear())
        await peer.part()

    async with scripted(script) as server, opened(server.url) as (connection, recorder):
        await recorder.texts_after(1)
        connection.send(Message(payload))
        connection.send(Message(b"next"))
        await recorder.end()
    assert heard_frames == [(TEXT, payload), (TEXT, b"next")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_json_in_a_binary_frame_is_read_as_the_stock_client_does(encoding, secure):
    text = json.dumps({"größe": "\U0001f600"}, ensure_ascii=False)

    async def script(peer: Peer) -> None:
        binary = frame(BINARY, text.encode(encoding))
        await peer.accept(binary)
        peer.say("between")
        peer.send(binary)
        await peer.part()

    async with (
        scripted(script, tls=server_tls() if secure else None) as server,
        opened(server.url, tls=trusting()) as (_, recorder),
    ):
        assert await recorder.end() == Loss("closed", "1000", None)
    assert recorder.texts == [text, "between", text]


async def test_a_socket_is_non_blocking_also_where_the_system_has_no_such_kind(monkeypatch):
    monkeypatch.setattr(core_connection, "_NON_BLOCKING", 0)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.part()

    async with scripted(script) as server, opened(server.url) as (connection, _):
        assert connection._sock is not None
        assert connection._sock.gettimeout() == 0.0
        assert not os.get_blocking(connection._sock.fileno())


@pytest.mark.skipif(sys.platform != "linux", reason="kernel arrival times are Linux's")
async def test_a_message_arrives_when_the_kernel_has_it_not_when_it_is_read():
    late: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        for _ in range(3):
            await asyncio.sleep(0.02)
            peer.say("now")
            late.append(time.perf_counter())
            time.sleep(0.1)  # the client shares this loop and cannot read meanwhile
        await peer.part()

    async with scripted(script) as server, connecting(server.url) as (_, recorder):
        await recorder.end()
    # The best of three: a machine that is busy may be late by itself.
    assert min(at - sent_at for at, sent_at in zip(recorder.times, late, strict=True)) < 0.03


# Ends


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, None), (1000, "bye"), (1011, "oops"), (1012, None), (4000, "mine")]
)
async def test_a_close_frame_is_answered_with_its_code_and_reported(code, reason):
    payload = code.to_bytes(2, "big") + (reason or "").encode()

    async def script(peer: Peer) -> None:
        await peer.accept(message("last words"), frame(CLOSE, payload))
        assert await peer.hear() == (CLOSE, payload[:2])
        peer.writer.close()

    assert await loss_of_script(script) == (Loss("closed", str(code), reason), ["last words"])


async def test_a_close_frame_without_a_code_is_answered_without_one():
    async def script(peer: Peer) -> None:
        await peer.accept(frame(CLOSE, b""))
        assert await peer.hear() == (CLOSE, b"")
        peer.writer.close()

    assert (await loss_of_script(script))[0] == Loss("closed", "1005", None)


async def test_a_close_of_ours_waits_for_the_answer_and_hears_what_comes_before_it():
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.hear() == (CLOSE, b"\x03\xe8")
        peer.say("on its way")
        peer.send(frame(CLOSE, b"\x03\xe8"))
        assert await peer.gone() == b""
        peer.writer.close()

    async with scripted(script) as server, opened(server.url) as (connection, recorder):
        connection.close()
        connection.close()
        await recorder.texts_after(1)
        await asyncio.sleep(0.02)
        server.peers[0].writer.close()
        assert await recorder.end() == Loss("closed", "1000", None)
    assert recorder.texts == ["on its way"]


async def test_an_end_without_a_close_frame_is_closed_early():
    async def script(peer: Peer) -> None:
        await peer.accept(message("last words"))
        peer.writer.close()

    assert await loss_of_script(script) == (
        Loss("closed_early", "1006", "closed without a close frame"),
        ["last words"],
    )


async def test_an_end_in_the_middle_of_a_frame_is_closed_early():
    async def script(peer: Peer) -> None:
        await peer.accept(message("never whole")[:5])
        peer.writer.close()

    loss, texts = await loss_of_script(script)
    assert (loss.kind, texts) == ("closed_early", [])


async def test_a_reset_is_a_connection_reset():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await asyncio.sleep(0.02)
        peer.reset()

    assert (await loss_of_script(script))[0].kind == "connection_reset"


async def test_a_reset_that_a_send_meets_first_is_a_connection_reset_too():
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.hear()
        peer.reset()

    async with scripted(script) as server, opened(server.url) as (connection, recorder):
        connection.send(Message(b"1"))
        for _ in range(100):  # no turn of the loop for reading in between: the send learns of it
            await asyncio.sleep(0)
            if server.peers[0].writer.transport.is_closing():
                break
        time.sleep(0.01)
        connection.send(Message(b"2"))
        assert (await recorder.end()).kind == "connection_reset"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x00", 1002),
        (b"\x81\x02\xc3\x28", 1007),
        (b"\x81\x7f" + b"\x00\x00\x01" + b"\x00" * 5, 1009),
        (frame(BINARY, b"\xff\xd8\xff\xe0"), 1003),
        (frame(CLOSE, b"\x03\xed"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
    ],
)
async def test_a_violation_is_named_after_the_last_words_and_told_to_the_server(data, code):
    heard_frames: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.accept(message("last words"), data)
        heard_frames.append(await peer.hear())

    loss, texts = await loss_of_script(script)
    assert (loss.kind, loss.code) == ("protocol", str(code))
    assert loss.message
    assert texts == ["last words"]
    assert heard_frames == [(CLOSE, code.to_bytes(2, "big"))]


@pytest.mark.parametrize("junk", [b"\xff\xff\xff", message("too late")])
@pytest.mark.parametrize("pause", [0, 0.02], ids=["same read", "later"])
async def test_what_follows_a_close_frame_is_ignored(junk, pause):
    async def script(peer: Peer) -> None:
        await peer.accept(message("last words"), frame(CLOSE, b"\x03\xe8"), *([] if pause else [junk]))
        await asyncio.sleep(pause)
        peer.send(junk)
        peer.writer.close()

    assert await loss_of_script(script) == (Loss("closed", "1000", None), ["last words"])


async def test_an_aborted_connection_reports_nothing_and_keeps_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.gone()
        peer.writer.close()

    async with scripted(script) as server:
        with Poller(asyncio.get_running_loop()) as poller:
            recorders = [Recorder() for _ in range(20)]
            connections = [Connection(poller, Clock(), prepare_route(server.url), one) for one in recorders]
            for connection in connections:
                connection.start()
            for recorder in recorders:
                await recorder.is_open.wait()
            for connection in connections:
                connection.abort()
                connection.abort()
            await asyncio.sleep(0.02)
    assert [recorder.loss for recorder in recorders] == [None] * 20
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.02)


async def test_a_connection_comes_from_the_address_it_is_given():
    sources: list[str] = []

    async def script(peer: Peer) -> None:
        sources.append(peer.writer.get_extra_info("peername")[0])
        await peer.accept()
        await peer.part()

    async with scripted(script) as server, connecting(server.url, source="127.0.0.9") as (_, recorder):
        await recorder.end()
    assert sources == ["127.0.0.9"]


async def test_an_address_that_is_not_ours_is_the_clients_own_limit():
    with refused_port() as port:
        async with connecting(f"http://127.0.0.1:{port}", source="192.0.2.1") as (_, recorder):
            loss = await recorder.end()
    assert (loss.kind, loss.code) == ("client_limit", "EADDRNOTAVAIL")


# Refusals


async def test_a_port_where_nothing_listens_is_refused():
    with refused_port() as port:
        async with connecting(f"http://127.0.0.1:{port}") as (_, recorder):
            loss = await recorder.end()
    assert (loss.kind, loss.code) == ("refused", "ECONNREFUSED")


@pytest.mark.parametrize("end", ["kept open", "closed", "reset"])
@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 500, 502, 503])
async def test_a_refused_handshake_keeps_its_status_however_the_connection_ends(status, end):
    async def script(peer: Peer) -> None:
        await peer.head()
        length = 100 if end == "reset" else 4
        peer.send(f"HTTP/1.1 {status} Why\r\nLocation: /x\r\nContent-Length: {length}\r\n\r\nbody".encode())
        await asyncio.sleep(0.02 if end == "reset" else 0)
        if end != "kept open":
            peer.writer.close() if end == "closed" else peer.reset()

    loss, _ = await loss_of_script(script)
    assert (loss.kind, loss.code) == ("handshake_status", str(status))
    assert ("redirects to http://127.0.0.1:" if status == 301 else "body") in (loss.message or "")


async def test_a_close_before_the_answer_is_closed_early():
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.close()

    assert (await loss_of_script(script))[0].kind == "closed_early"


async def test_a_reset_before_the_answer_is_a_connection_reset():
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    loss, _ = await loss_of_script(script)
    assert loss.kind == "connection_reset"
    assert "before the upgrade" in (loss.message or "")


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"* OK IMAP4 ready\r\n"])
async def test_a_server_of_another_protocol_is_named_by_its_first_bytes(data):
    async def script(peer: Peer) -> None:
        peer.send(data)
        await peer.gone()

    loss, _ = await loss_of_script(script)
    assert (loss.kind, loss.code) == ("protocol", "handshake")
    assert repr(data) in (loss.message or "")


# TLS


async def test_wss_works_where_the_certificate_is_trusted():
    async def script(peer: Peer) -> None:
        await peer.accept(message("x" * 3_000_000))
        assert await peer.hear() == (TEXT, b"y" * 500_000)
        await peer.part()

    async with (
        scripted(script, tls=server_tls()) as server,
        opened(server.url, tls=trusting()) as (connection, recorder),
    ):
        connection.send(Message(b"y" * 500_000))
        assert await recorder.end() == Loss("closed", "1000", None)
    assert [len(text) for text in recorder.texts] == [3_000_000]


async def test_an_authority_is_trusted_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.part()

    async with scripted(script, tls=server_tls()) as server, connecting(server.url) as (_, recorder):
        assert (await recorder.end()).kind == "closed"


async def test_a_certificate_nobody_vouches_for_is_named():
    async with scripted(Peer.gone, tls=server_tls()) as server, connecting(server.url) as (_, recorder):
        loss = await recorder.end()
    assert (loss.kind, loss.code) == ("protocol", "tls")
    assert "certificate" in (loss.message or "")


async def test_a_certificate_for_another_host_is_named(monkeypatch):
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", None)]
    async with scripted(Peer.gone, tls=server_tls()) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [(*addresses[0][:4], address)])
        async with connecting(f"https://other.test:{address[1]}", tls=trusting()) as (_, recorder):
            loss = await recorder.end()
    assert (loss.kind, loss.code) == ("protocol", "tls")
    assert "other.test" in (loss.message or "")


async def test_a_server_of_plain_http_where_tls_was_asked_is_named():
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        peer.writer.close()

    async with (
        scripted(script) as server,
        connecting(server.url.replace("http:", "https:"), tls=trusting()) as (_, recorder),
    ):
        loss = await recorder.end()
    assert (loss.kind, loss.code) == ("protocol", "tls")
    assert "http://" in (loss.message or "")


async def test_a_server_of_tls_where_plain_http_was_asked_is_named():
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.send(b"\x15\x03\x01\x00\x02\x02\x46")  # what OpenSSL says to an HTTP request
        peer.writer.close()

    loss, _ = await loss_of_script(script)
    assert (loss.kind, loss.code) == ("protocol", "handshake")
    assert "https://" in (loss.message or "")


async def test_tls_that_ends_without_a_word_ends_the_connection():
    """Asyncio's servers wait for an answer to their last TLS record before they close the socket."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.send(frame(CLOSE, b"\x03\xe8"))
        while (await peer.hear())[0] != CLOSE:
            pass
        peer.writer.close()
        await asyncio.sleep(10)

    began = time.perf_counter()
    async with scripted(script, tls=server_tls()) as server, connecting(server.url, tls=trusting()) as (_, recorder):
        assert await recorder.end() == Loss("closed", "1000", None)
    assert time.perf_counter() - began < 3


# Servers nobody here wrote


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("name", SERVERS)
async def test_independent_servers_are_spoken_to_from_open_to_close(name, tls):
    """Large replies, several messages at once, pings during a wait, and the closing handshake."""
    async with running(name, tls=tls) as url, opened(url, tls=trusting() if tls else None) as (connection, recorder):
        connection.send(Message(b'{"type":"reset"}'))
        connection.send(Message(b'{"type":"step","data":{"size":300000}}'))
        connection.send(Message(b'{"type":"step","data":{"wait_seconds":0.2}}'))
        texts = await recorder.texts_after(3)
        assert [text.startswith('{"type": "observation"') for text in texts] == [True] * 3
        assert len(texts[1]) > 300_000
        began = time.perf_counter()
        connection.send(Message(b'{"type":"close"}'))
        assert (await recorder.end()).kind == "closed"
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("name", SERVERS)
async def test_independent_servers_answer_a_close_of_ours(name):
    async with running(name) as url, opened(url) as (connection, recorder):
        connection.close()
        assert await recorder.end() == Loss("closed", "1000", None)


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "websockets"])  # that one takes any path
async def test_a_path_that_independent_servers_do_not_know_is_a_status(name):
    async with running(name) as url, connecting(f"{url}/wrong") as (_, recorder):
        loss = await recorder.end()
    assert loss.kind == "handshake_status"
    assert loss.code in ("403", "404")
