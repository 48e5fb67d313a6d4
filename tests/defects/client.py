"""One session on the server, and several, driven by `websockets`."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ANSWER_S = 2.0
"""Seconds within which an answer counts as one."""

FREE_S = 5.0
"""Seconds within which a slot must be free again."""


class Client:
    """One session; an answer that is none is `{"type": "silence"}` or `{"type": "closed"}`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def ask(self, kind: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self.say(json.dumps({"type": kind} if data is None else {"type": kind, "data": data}))

    async def say(self, text: str | bytes) -> dict[str, Any]:
        try:
            await self.connection.send(text)
        except ConnectionClosed:
            pass
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        try:
            return json.loads(await asyncio.wait_for(self.connection.recv(), ANSWER_S))
        except ConnectionClosed as end:
            return {"type": "closed", "data": {"code": None if end.rcvd is None else end.rcvd.code}}
        except TimeoutError:
            return {"type": "silence", "data": {}}

    async def step(self, text: str = "", wait: float = 0.0) -> dict[str, Any]:
        """The observation, whatever came instead of one where none did."""
        answer = await self.ask("step", {"text": text, "wait_seconds": wait})
        return answer["data"].get("observation", answer)

    async def state(self) -> dict[str, Any]:
        return (await self.ask("state"))["data"]

    async def close(self) -> int | None:
        """Say goodbye; the server's close code."""
        await self.connection.send('{"type": "close"}')
        await asyncio.wait_for(self.connection.wait_closed(), FREE_S)
        return self.connection.close_code

    def drop(self) -> None:
        """End the connection by a TCP reset."""
        sock: socket.socket = self.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.transport.abort()


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Client]:
    async with connect(
        f"ws://{address}/ws", proxy=None, compression=None, close_timeout=0.1, ping_interval=None, max_size=None
    ) as connection:
        yield Client(connection)


@asynccontextmanager
async def several(address: str, count: int, **reset: Any) -> AsyncIterator[list[Client]]:
    """So many sessions, each reset with an episode of its own (`e0`, `e1`…) and closed at the end."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(address)) for _ in range(count)]
        for number, client in enumerate(clients):
            assert (await client.ask("reset", {"episode_id": f"e{number}", **reset}))["type"] == "observation"
        yield clients
        await asyncio.gather(*(client.close() for client in clients))
