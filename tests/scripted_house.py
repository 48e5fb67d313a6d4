"""A server with room for so many sessions, whose manners at the door and whose leaks are a test's to choose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pytest_openenv_scale.core.endpoint import ServerSample
from scripted_server import CLOSE, TEXT, Peer, error, observation


async def refuse_at_capacity(peer: Peer) -> None:
    """Refuse as OpenEnv does."""
    peer.say(error("CAPACITY_REACHED", "Server at capacity", active_sessions=2, max_sessions=2))
    await peer.part()


@dataclass
class House:
    """Sessions that step until they leave; `keeps(number, politely)` tells whether a session's slot is kept for good.

    Each session that has ended leaves so many bytes, threads and descriptors in what `sample` shows, each step `slower`
    seconds for all later ones. `stands` tells, of a step, whether it is never answered.
    """

    limit: int = 4
    refuse: Callable[[Peer], Awaitable[object]] = refuse_at_capacity
    keeps: Callable[[int, bool], bool] = lambda number, politely: False
    stands: Callable[[House], bool] = lambda slot_server: False
    leaves_bytes: int = 0
    leaves_threads: int = 0
    leaves_descriptors: int = 0
    slower_s: float = 0.0
    inside: int = 0
    ended: int = 0
    outside: int = 0
    readable: bool = True

    async def __call__(self, peer: Peer) -> None:
        await peer.accept()
        if self.inside >= self.limit:
            self.outside += 1
            try:
                await self.refuse(peer)
            finally:
                self.outside -= 1
            return
        self.inside += 1
        politely = False
        try:
            politely = await self._play(peer)
        finally:
            self.ended += 1
            if not self.keeps(self.ended, politely):
                self.inside -= 1
        await peer.part()

    async def _play(self, peer: Peer) -> bool:
        while True:
            opcode, payload = await peer.hear()
            if opcode == CLOSE:
                return True
            assert opcode == TEXT
            message = json.loads(payload)
            if message["type"] == "close":
                return True
            if message["type"] == "step":
                if self.stands(self):
                    await peer.gone()
                    return False
                await asyncio.sleep(self.slower_s * self.ended + message["data"].get("wait_seconds", 0.0))
            peer.say(observation() if message["type"] != "state" else {"type": "state", "data": {}})
            with contextlib.suppress(ConnectionError):
                await peer.writer.drain()

    def sample(self) -> ServerSample | None:
        """What a look at the server shows."""
        if not self.readable:
            return None
        return ServerSample(
            at_s=time.monotonic(),
            processes=1,
            rss_bytes=50_000_000 + self.leaves_bytes * self.ended,
            threads=2 + self.leaves_threads * self.ended,
            descriptors=7 + self.inside + self.leaves_descriptors * self.ended,
        )
