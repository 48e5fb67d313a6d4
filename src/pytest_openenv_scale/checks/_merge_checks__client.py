"""The client of a check: opens any number of sessions on a server and leaves none behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Self

from pytest_openenv_scale.core.connection import Clock, Connection
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.handshake import Route, RouteError, prepare_route
from pytest_openenv_scale.core.poller import Poller
from pytest_openenv_scale.core.secrets import Secrets

from .answer import Answer
from .session import RawSession


class RawClient:
    """Opens sessions on the running event loop, spread over the endpoint's URLs in turn.

    `patience_s` is how long each answer may take, in seconds, unless a question says otherwise. Leaving the block
    drops every connection that is still open.
    """

    def __init__(self, endpoint: Endpoint, patience_s: float) -> None:
        self._endpoint = endpoint
        self._patience_s = patience_s
        self._secrets = Secrets.of(endpoint.headers)
        self._routes: list[Route] = []
        self._sessions: list[RawSession] = []
        self._began = time.perf_counter()
        self._clock = Clock()
        self._poller: Poller

    async def __aenter__(self) -> Self:
        """Resolve the URLs.

        Raises:
            RouteError: a URL or a header cannot be used.
        """
        loop = asyncio.get_running_loop()
        for url in self._endpoint.urls:
            self._routes.append(await loop.run_in_executor(None, prepare_route, url, self._endpoint.headers))
        self._poller = Poller(loop)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Drop what is still open."""
        for session in self._sessions:
            session.connection.abort()
        self._poller.close()

    @property
    def elapsed_s(self) -> float:
        """Seconds since this client was made, the zero of every transcript."""
        return time.perf_counter() - self._began

    async def connect(self) -> RawSession:
        """Open a connection and say nothing; `first` is "opened", or why it is not."""
        number = len(self._sessions)
        session = RawSession(number, self._began, self._patience_s, self._secrets)
        self._sessions.append(session)
        self._clock.refresh()
        route = self._routes[number % len(self._routes)]
        session.first = await session.connect(Connection(self._poller, self._clock, route, session))
        return session

    async def start(self, reset: Mapping[str, Any] | None = None, *, patience_s: float | None = None) -> RawSession:
        """Open a session and reset it; `first` is the answer to the reset, or what kept it from one."""
        session = await self.connect()
        if session.first.kind == "opened":
            session.first = await session.reset(reset, patience_s=patience_s)
        return session

    async def start_many(self, resets: list[Mapping[str, Any]], *, at_once: int = 32) -> list[RawSession]:
        """Open a session per reset, `at_once` at a time; those that were refused are in the list too."""
        window = asyncio.Semaphore(at_once)

        async def one(reset: Mapping[str, Any]) -> RawSession:
            async with window:
                return await self.start(reset)

        return list(await asyncio.gather(*map(one, resets)))


async def close_all(sessions: list[RawSession]) -> list[Answer]:
    """Say goodbye on every session that is still open, at once; those that fell silent are left without a word."""
    for session in sessions:
        if session.silent and not session.over:
            session.drop()
    return list(await asyncio.gather(*(session.close() for session in sessions if not session.over)))


__all__ = ["RawClient", "RouteError", "close_all"]
