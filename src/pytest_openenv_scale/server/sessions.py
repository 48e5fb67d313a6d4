"""The benchmark environment and the sessions of one worker: counted, limited, closed."""

from __future__ import annotations

import asyncio
import os
import secrets
import uuid
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from .schemas import encode
from .settings import DEFAULT_BOUNDS, IDLE_TIMEOUT, MAX_SESSIONS_PER_ADDRESS, SESSION_TIMEOUT, ClientBounds

# Sessions made over HTTP have no connection whose end would free them, so even "unlimited" bounds them.
MAX_DETACHED = 1024

# Sessions past their time are looked for four times as often as the shortest timeout, and at least so often.
_LOOK_S = 15.0


class CapacityReachedError(Exception):
    """No further session fits; says how many there are and how many may be."""

    def __init__(self, active: int, limit: int) -> None:
        super().__init__(f"Server at capacity: {active}/{limit} sessions active. Cannot accept new connections.")
        self.active = active
        self.limit = limit


class UnknownSessionError(Exception):
    """A session id that cannot be attached to."""


class AddressLimitError(Exception):
    """One address has as many sessions as it may have."""


class Conversation(Protocol):
    """A connection as far as its end is concerned: when it began, when it was last heard, and why it was ended."""

    began_at: float
    heard_at: float
    expired: str


class Sessions:
    """The sessions of one worker, at most `limit` at once (None: unlimited), each within the bounds for clients."""

    def __init__(self, limit: int | None, host_url: str, bounds: ClientBounds = DEFAULT_BOUNDS) -> None:
        self.active = 0
        self.closing = False
        self._limit = limit
        self._host_url = host_url
        self._bounds = bounds
        self._by_address: Counter[str] = Counter()
        self._look: asyncio.TimerHandle | None = None
        self._detached: dict[str, Environment] = {}
        self._used_at: dict[str, float] = {}
        self._attached: set[str] = set()
        self._close_on_detach: set[str] = set()
        self._tasks: dict[asyncio.Task[None], Conversation] = {}

    def environment(self) -> Environment:
        """A fresh environment that counts as no session, for an HTTP request."""
        return Environment(self._host_url)

    @contextmanager
    def hold_slot(self, session_id: str | None = None, address: str = "") -> Generator[Environment, None, None]:
        """Hold a session's slot for the length of the block, in a new session or one created over HTTP.

        The slot is free again however the block ends.
        Raises AddressLimitError, CapacityReachedError, UnknownSessionError.
        """
        if session_id:
            with self._attach(session_id) as environment:
                yield environment
            return
        with self._counted(address):
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
        self._used_at[environment.session_id] = monotonic()
        self._look_later()
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
    def track(self, conversation: Conversation) -> Generator[None, None, None]:
        """Let `close_all` and the bounds on time reach the current task for the length of the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = conversation
        self._look_later()
        try:
            yield
        finally:
            del self._tasks[task]

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
            self._used_at[session_id] = monotonic()
            self._attached.discard(session_id)
            if session_id in self._close_on_detach:
                self._release(session_id)

    def _take_slot(self) -> None:
        if self._limit is not None and self.active >= self._limit:
            raise CapacityReachedError(self.active, self._limit)
        self.active += 1

    def _release(self, session_id: str) -> None:
        self._close_on_detach.discard(session_id)
        del self._detached[session_id], self._used_at[session_id]
        self.active -= 1

    @contextmanager
    def _counted(self, address: str) -> Generator[None, None, None]:
        most = self._bounds.sessions_per_address
        if most is None:
            yield
            return
        if self._by_address[address] >= most:
            raise AddressLimitError(
                f"{most} sessions are open from this address, as many as {MAX_SESSIONS_PER_ADDRESS} allows"
            )
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _look_later(self) -> None:
        """See to it that sessions past their time are looked for while there are any: one timer for all of them."""
        timeouts = [seconds for seconds in (self._bounds.session_timeout_s, self._bounds.idle_timeout_s) if seconds]
        if timeouts and self._look is None:
            self._look = asyncio.get_running_loop().call_later(min(*timeouts, _LOOK_S * 4) / 4, self._end_expired)

    def _end_expired(self) -> None:
        self._look = None
        now = monotonic()
        life_s, idle_s = self._bounds.session_timeout_s, self._bounds.idle_timeout_s
        for task, conversation in self._tasks.items():
            if conversation.expired:
                continue
            if idle_s and now - conversation.heard_at >= idle_s:
                conversation.expired = f"No message for {idle_s:g} s ({IDLE_TIMEOUT}): the session is closed"
            elif life_s and now - conversation.began_at >= life_s:
                conversation.expired = f"The session is {life_s:g} s old ({SESSION_TIMEOUT}): it is closed"
            else:
                continue
            task.cancel()
        for session_id, used_at in tuple(self._used_at.items()):
            if idle_s and session_id not in self._attached and now - used_at >= idle_s:
                self._release(session_id)
        if self._tasks or self._used_at:
            self._look_later()


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
