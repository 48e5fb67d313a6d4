"""The benchmark environment and the sessions of one worker: counted, limited, closed."""

from __future__ import annotations

import asyncio
import os
import secrets
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from .schemas import encode

# Sessions made over HTTP have no connection whose end would free them, so even "unlimited" bounds them.
MAX_DETACHED = 1024


class CapacityReachedError(Exception):
    """No further session fits; says how many there are and how many may be."""

    def __init__(self, active: int, limit: int) -> None:
        super().__init__(f"Server at capacity: {active}/{limit} sessions active. Cannot accept new connections.")
        self.active = active
        self.limit = limit


class UnknownSessionError(Exception):
    """A session id that cannot be attached to."""


class Sessions:
    """The sessions of one worker, at most `limit` at once (None: unlimited)."""

    def __init__(self, limit: int | None, host_url: str) -> None:
        self.active = 0
        self.closing = False
        self._limit = limit
        self._host_url = host_url
        self._detached: dict[str, Environment] = {}
        self._attached: set[str] = set()
        self._close_on_detach: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def environment(self) -> Environment:
        """A fresh environment that counts as no session, for an HTTP request."""
        return Environment(self._host_url)

    @contextmanager
    def hold_slot(self, session_id: str | None = None) -> Generator[Environment, None, None]:
        """Hold a session's slot for the length of the block, in a new session or one created over HTTP.

        The slot is free again however the block ends. Raises CapacityReachedError, UnknownSessionError.
        """
        if session_id:
            with self._attach(session_id) as environment:
                yield environment
            return
        self._take_slot()
        try:
            yield self.environment()
        finally:
            self.active -= 1

    def create(self) -> str:
        """Open a session that belongs to no connection and return its id. Raises CapacityReachedError."""
        if len(self._detached) >= MAX_DETACHED:
            raise CapacityReachedError(len(self._detached), MAX_DETACHED)
        self._take_slot()
        environment = self.environment()
        self._detached[environment.session_id] = environment
        return environment.session_id

    def close(self, session_id: str) -> bool:
        """Close a session made by `create`; False if a connection uses it, which then closes it at its end.

        Raises UnknownSessionError.
        """
        if session_id not in self._detached:
            raise UnknownSessionError(f"Unknown session_id: {session_id}")
        if session_id in self._attached:
            self._close_on_detach.add(session_id)
            return False
        self._release(session_id)
        return True

    @contextmanager
    def track_task(self) -> Generator[None, None, None]:
        """Let `close_all` reach the current task for the length of the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def close_all(self) -> None:
        """Close every connection: its client gets the close code for a server that goes away."""
        self.closing = True
        for task in self._tasks:
            task.cancel()

    @contextmanager
    def _attach(self, session_id: str) -> Generator[Environment, None, None]:
        environment = self._detached.get(session_id)
        if environment is None:
            raise UnknownSessionError(f"Unknown session_id: {session_id}")
        if session_id in self._attached:
            raise UnknownSessionError(f"Session {session_id} already has an attached WebSocket")
        self._attached.add(session_id)
        try:
            yield environment
        finally:
            self._attached.discard(session_id)
            if session_id in self._close_on_detach:
                self._release(session_id)

    def _take_slot(self) -> None:
        if self._limit is not None and self.active >= self._limit:
            raise CapacityReachedError(self.active, self._limit)
        self.active += 1

    def _release(self, session_id: str) -> None:
        self._close_on_detach.discard(session_id)
        del self._detached[session_id]
        self.active -= 1


class Environment:
    """One session's environment. It holds no thread and no timer: whoever drives it does the waiting."""

    __slots__ = ("_constant_fields", "_episode_id", "_session_id", "step_count")

    def __init__(self, host_url: str) -> None:
        # Everything between the wait and the count is the same in every observation: written once.
        self._constant_fields = (
            f',"pid":{os.getpid()},"session_hash":"{secrets.token_hex(6)}","host_url":{encode(host_url)},"step_count":'
        )
        self._episode_id: str | None = None
        self._session_id: str | None = None
        self.step_count = 0

    @property
    def session_id(self) -> str:
        """The session's id, by which clients that speak JSON-RPC know it; made when first asked for."""
        if self._session_id is None:
            self._session_id = str(uuid.uuid4())
        return self._session_id

    @property
    def episode_id(self) -> str:
        """The name given at reset, else a random one; made when first asked for, since few ask."""
        if self._episode_id is None:
            self._episode_id = str(uuid.uuid4())
        return self._episode_id

    def reset(self, episode_id: object = None) -> str:
        """Begin a new episode and return its first observation as JSON."""
        self._episode_id = episode_id if isinstance(episode_id, str) else None
        self.step_count = 0
        return self._observation(0.0)

    def step(self, waited: float) -> str:
        """Count a step that waited so many seconds and return its observation as JSON."""
        self.step_count += 1
        return self._observation(waited)

    def state(self) -> str:
        """The episode's state as JSON."""
        return f'{{"episode_id":{encode(self.episode_id)},"step_count":{self.step_count}}}'

    def _observation(self, waited: float) -> str:
        return (
            f'{{"observation":{{"metadata":{{}},"waited_seconds":{round(waited, 6)!r}'
            f'{self._constant_fields}{self.step_count}}},"reward":null,"done":false}}'
        )
