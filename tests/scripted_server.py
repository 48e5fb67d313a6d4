"""Servers that do exactly what a test says, byte for byte: what real servers do rarely, and bad ones do always."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One frame as a server sends it."""
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return head + struct.pack("!BH", 126, len(payload)) + payload
    return head + struct.pack("!BQ", 127, len(payload)) + payload


def unmasked(data: bytes) -> tuple[int, bytes]:
    """Opcode and payload of one whole frame as a client sends it."""
    assert data[0] & 0xF0 == 0x80, "final, no reserved bits"
    assert data[1] & 0x80, "masked"
    start, length = 2, data[1] & 0x7F
    if length == 126:
        start, length = 4, struct.unpack_from("!H", data, 2)[0]
    elif length == 127:
        start, length = 10, struct.unpack_from("!Q", data, 2)[0]
    key, body = data[start : start + 4], data[start + 4 :]
    assert len(body) == length
    repeated_key = key * (length // 4 + 1)
    return data[0] & 0x0F, bytes(a ^ b for a, b in zip(body, repeated_key, strict=False))


def observation(*, done: bool = False, **fields: Any) -> dict[str, Any]:
    return {"type": "observation", "data": {"observation": fields, "reward": None, "done": done}}


def error(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"message": message, "code": code, **details}}


CAPACITY = error("CAPACITY_REACHED", "Server at capacity: 2/2 sessions active", active_sessions=2, max_sessions=2)


def message(value: Any) -> bytes:
    """A text frame holding this value as JSON, or this text as it is."""
    return frame(TEXT, (value if isinstance(value, str) else json.dumps(value)).encode())


def accepted(head: bytes, *lines: str) -> bytes:
    """The answer that accepts an upgrade request."""
    key = next(line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    rows = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", *lines)
    return ("\r\n".join((*rows, f"Sec-WebSocket-Accept: {digest}")) + "\r\n\r\n").encode()


class Peer:
    """The server's end of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number, self.reader, self.writer = number, reader, writer

    async def head(self) -> bytes:
        """Read a request head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def accept(self, *then: bytes) -> bytes:
        """Accept the upgrade, sending `then` in the same write; the request head."""
        head = await self.head()
        self.send(accepted(head) + b"".join(then))
        return head

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def say(self, *values: Any) -> None:
        """Send messages in one write."""
        self.send(b"".join(map(message, values)))

    async def hear(self) -> tuple[int, bytes]:
        """Read one frame of the client."""
        data = await self.reader.readexactly(2)
        length = data[1] & 0x7F
        if length >= 126:
            data += (size := await self.reader.readexactly(2 if length == 126 else 8))
            length = int.from_bytes(size, "big")
        return unmasked(data + await self.reader.readexactly(4 + length))

    async def asked(self) -> dict[str, Any]:
        """Read one JSON message of the client."""
        opcode, payload = await self.hear()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def asked_or_pinged(self, *, pong: bool = True) -> dict[str, Any]:
        """Read one JSON message of the client; pings before it are answered, unless not to be."""
        while (frame_heard := await self.hear())[0] == PING:
            if pong:
                self.send(frame(PONG, frame_heard[1]))
        assert frame_heard[0] == TEXT, frame_heard
        return json.loads(frame_heard[1])

    async def serve(self, *, steps: int = 1) -> None:
        """Answer a reset and so many steps."""
        assert (await self.asked())["type"] == "reset"
        self.say(observation(pid=7))
        for _ in range(steps):
            assert (await self.asked())["type"] == "step"
            self.say(observation(waited_seconds=0.0))

    async def part(self, code: int | None = 1000) -> None:
        """Close as OpenEnv servers do: a close frame, the client's answer, the end."""
        self.send(frame(CLOSE, b"" if code is None else code.to_bytes(2, "big")))
        while (await self.hear())[0] != CLOSE:
            pass
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> bytes:
        """Read until the client ends the connection; what it sent till then."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                rest += data
        return rest


async def good(peer: Peer) -> None:
    """Play one step and close as OpenEnv servers do."""
    await peer.accept()
    await peer.serve()
    assert await peer.asked() == {"type": "close"}
    await peer.part()


@dataclass
class Scripted:
    """A running scripted server: `url`, its connections so far, and what went wrong in its scripts."""

    url: str
    peers: list[Peer] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


@asynccontextmanager
async def scripted(
    script: Callable[[Peer], Awaitable[object]], *, tls: ssl.SSLContext | None = None, backlog: int = 1000
) -> AsyncIterator[Scripted]:
    """A server on 127.0.0.1 that runs `script` on every connection; a connection it leaves open stays open.

    An assertion that fails in a script fails the test.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def run(peer: Peer) -> None:
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as failure:
            server_state.failures.append(failure)
            peer.writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(server_state.peers), reader, writer)
        server_state.peers.append(peer)
        task = asyncio.create_task(run(peer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, backlog=backlog)
    port = server.sockets[0].getsockname()[1]
    server_state = Scripted(f"{'https' if tls else 'http'}://127.0.0.1:{port}")
    try:
        yield server_state
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in server_state.peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)
    for failure in server_state.failures:
        raise failure


@contextlib.contextmanager
def refused_port():
    """A port of 127.0.0.1 on which nothing listens while the block runs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
