"""A server for environments of a few lines, on the test's own loop: whatever mistake a test needs, it writes itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from scripted_server import Peer, error, scripted

ACTION = {"type": "object", "properties": {"text": {"type": "string", "default": ""}}}


class RefusedError(Exception):
    """What an environment does not take: the server answers EXECUTION_ERROR."""


class Toy:
    """Counts its steps and repeats what it is told; subclasses get something wrong."""

    def __init__(self) -> None:
        self.begin({})
        self.episode_id = None

    def begin(self, data: dict[str, Any]) -> None:
        self.episode_id, self.count, self.text = data.get("episode_id"), 0, ""

    def take(self, action: dict[str, Any]) -> None:
        self.count, self.text = self.count + 1, action.get("text", "")

    def see(self) -> dict[str, Any]:
        return {"steps": self.count, "text": self.text}

    def state(self) -> dict[str, Any] | None:
        return {"episode_id": self.episode_id, "step_count": self.count}

    def done(self) -> bool:
        return False

    def reward(self) -> float | None:
        return None

    def end(self) -> None:
        """The session is over."""


@asynccontextmanager
async def serving(make: Callable[[], Toy], limit: int = 100) -> AsyncIterator[str]:
    """Serve an environment per session, `limit` at once; yields the base URL."""
    live: set[Peer] = set()

    async def play(peer: Peer) -> None:
        await peer.accept()
        if len(live) >= limit:
            full = f"Server at capacity: {len(live)}/{limit} sessions active"
            peer.say(error("CAPACITY_REACHED", full, active_sessions=len(live), max_sessions=limit))
            await peer.part()
            return
        live.add(peer)
        toy = make()
        try:
            await converse(peer, toy)
        finally:
            live.discard(peer)
            toy.end()
        await peer.part()

    async with scripted(play) as server:
        yield server.url


async def converse(peer: Peer, toy: Toy) -> None:
    while (message := await peer.asked())["type"] != "close":
        if message["type"] == "state":
            state = toy.state()
            peer.say({"type": "state", "data": state} if state is not None else error("UNKNOWN_TYPE", "state"))
            continue
        try:
            toy.begin(message.get("data", {})) if message["type"] == "reset" else toy.take(message["data"])
        except RefusedError as refused:
            peer.say(error("EXECUTION_ERROR", str(refused)))
            continue
        answer = {"observation": toy.see(), "reward": toy.reward(), "done": toy.done()}
        peer.say({"type": "observation", "data": answer})
