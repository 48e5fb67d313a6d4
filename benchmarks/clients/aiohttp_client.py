"""A plain aiohttp client on uvloop: a task per session, `ws_connect`, no limit but a window of handshakes.

python aiohttp_client.py SESSIONS WAIT PORT ARRIVAL STEPS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import msgspec
import uvloop
from figures import resident_kib, step_over, tell

WINDOW = 256
"""Handshakes in flight, as in this project's engine: without it the handshakes starve each other."""


class Batch:
    """The sessions of one batch, and what they measure."""

    def __init__(self, sessions: int, wait: float, port: int, arrival: str, steps: int) -> None:
        self.sessions = sessions
        self.wait = wait
        self._url = f"ws://127.0.0.1:{port}/ws"
        self._holding = arrival == "hold"
        self._steps = steps
        self._step = json.dumps({"type": "step", "data": {"wait_seconds": wait}})
        self._window = asyncio.Semaphore(WINDOW)
        self._unready = sessions
        self._released = asyncio.Event()
        self.latencies: list[float] = []
        self.ok = 0
        self.held_kib = 0

    async def play(self) -> None:
        """Play all sessions to their end."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as client:
            await asyncio.gather(*(self._session(client) for _ in range(self.sessions)))

    async def _session(self, client: aiohttp.ClientSession) -> None:
        try:
            async with self._window:
                socket = await client.ws_connect(self._url)
            await socket.send_str('{"type":"reset","data":{}}')
            msgspec.json.decode(await socket.receive_str())
        except (aiohttp.ClientError, OSError, TypeError):
            return
        finally:
            self._one_more_up()
        if self._holding:
            await self._released.wait()
        await self._steps_and_close(socket)

    async def _steps_and_close(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            for _ in range(self._steps):
                sent_at = time.perf_counter()
                await socket.send_str(self._step)
                reply = await socket.receive_str()
                self.latencies.append(time.perf_counter() - sent_at)
                msgspec.json.decode(reply)
            await socket.send_str('{"type":"close"}')
            await socket.receive()  # The server's close frame; aiohttp answers it.
            await socket.close()
        except (aiohttp.ClientError, OSError, TypeError):
            return
        self.ok += 1

    def _one_more_up(self) -> None:
        self._unready -= 1
        if not self._unready:
            self.held_kib = resident_kib()
            self._released.set()


async def main() -> None:
    """Play one batch and tell what was measured."""
    sessions, wait, port, arrival, steps = sys.argv[1:]
    batch = Batch(int(sessions), float(wait), int(port), arrival, int(steps))
    await batch.play()
    tell(
        ok=batch.ok,
        held_kib=batch.held_kib,
        peak_kib=resident_kib(peak=True),
        **step_over(batch.latencies, batch.wait),
    )


if __name__ == "__main__":
    uvloop.run(main())
