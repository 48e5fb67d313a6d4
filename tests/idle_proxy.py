"""A TCP proxy that drops a connection on which nothing was sent either way for a while, as load balancers do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class IdleProxy:
    """Where it listens, and how many connections it has dropped."""

    url: str
    dropped: int = 0


@contextlib.asynccontextmanager
async def idle_proxy(behind: str, idle_s: float) -> AsyncIterator[IdleProxy]:
    """Stand before the server at a base URL, on a free port."""
    address = urlsplit(behind)
    proxy = IdleProxy("")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            async with asyncio.timeout(idle_s) as idle:
                await asyncio.wait(
                    [
                        asyncio.create_task(_pump(*ends, idle, idle_s))
                        for ends in ((reader, server_writer), (server_reader, writer))
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except TimeoutError:
            proxy.dropped += 1
        finally:
            writer.close()
            server_writer.close()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout, idle_s: float
) -> None:
    with contextlib.suppress(OSError):  # The other end has gone meanwhile.
        while data := await reader.read(65536):
            idle.reschedule(asyncio.get_running_loop().time() + idle_s)
            writer.write(data)
            await writer.drain()
