"""The server that is checked, answers that checks share, and the client that opens sessions on it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from pytest_openenv_scale.client.connection import PING_S, Clock, Connection
from pytest_openenv_scale.client.handshake import Route, prepare_route
from pytest_openenv_scale.client.poller import Poller
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.text import Secrets, shorten

from .session import Answer, RawSession

__all__ = ["RawClient", "close_all"]

T = TypeVar("T")

FigureValue = float | int | str | bool | None
Figures = dict[str, FigureValue]
"""What a check measured, by name, as a `CheckResult` holds it."""

_PATIENCE_S, _PATIENCE_FACTOR = 15.0, 5.0

AT_ONCE = 32
"""New sessions at a time."""

RETRY_PAUSE_S = 0.05
"""Pause before a refused session is tried again, in seconds."""


def ignore_progress(text: str) -> None:
    """Ignore a progress message."""


@dataclass
class Subject:
    """One server and the settings of its checks.

    `max_sessions` is how many sessions checks may open at once. `wait_s` is the wait of a step in seconds, None where
    the environment takes none. `timeout_s` bounds what a lone session waits for, `soak_s` is how long the endurance
    check lasts, both in seconds. `seed` makes what is random repeatable. `schema` is the answer of `/schema`, or None.
    `must_play` tells that nothing is asked where a session alone gets errors only. Sessions ping every `ping_s`
    seconds, None: never. `report_progress` is called with short texts for the terminal. `deadline` is when all checks
    have to be over, as `time.monotonic()`, None: never.
    """

    endpoint: Endpoint
    workload: Workload
    max_sessions: int
    wait_s: float | None
    timeout_s: float
    soak_s: float
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    must_play: bool = True
    ping_s: float | None = PING_S
    report_progress: Callable[[str], None] = ignore_progress
    deadline: float | None = None
    slowest_single_s: float = 0.0
    """The slowest answer to a lone session, in seconds; timeouts grow with it."""
    leaks_state: bool = False
    """Whether a check found that sessions see each other's state."""
    _answers: dict[Any, Any] = field(default_factory=dict[Any, Any], repr=False)

    @property
    def time_left_s(self) -> float:
        """How many seconds are left until the deadline; 0 where it has passed."""
        return math.inf if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def patience_s(self) -> float:
        """The timeout of an answer, in seconds."""
        return min(self.timeout_s, max(_PATIENCE_S, _PATIENCE_FACTOR * self.slowest_single_s))

    def patience_among(self, sessions: int) -> float:
        """Return the timeout of an answer, in seconds, where `sessions` sessions ask at once.

        A server that serves one session after another lets the last of them wait for all.
        """
        return min(self.timeout_s, self.patience_s + sessions * self.slowest_single_s)

    def client(self, patience_s: float | None = None) -> RawClient:
        """Return a client for this server, to be entered with `async with`."""
        return RawClient(self.endpoint, self.patience_s if patience_s is None else patience_s, self.ping_s)

    def action(
        self, session: int = 0, step: int = 0, *, wait_s: float | None = None, observation: Any = None
    ) -> Mapping[str, Any]:
        """Return the action of a step, session and step counted from 0; `wait_s` overrides the subject's own.

        `observation` is the last one of the session, of which a user's callable may make it.

        Raises:
            WorkloadError: the user's callable fails.
        """
        return self.workload.maker(self.wait_s if wait_s is None else wait_s)(session, step, observation)

    def reset_data(self, seed: int) -> dict[str, Any]:
        """Return the workload's reset data for the session with this seed."""
        return dict(self.workload.reset_data(seed - self.seed, self.seed))

    def resets(self, count: int) -> list[dict[str, Any]]:
        """Return the reset data of `count` sessions, each with its own seed."""
        return [self.reset_data(self.seed + number) for number in range(count)]

    async def learn(self, question: Callable[[Subject], Awaitable[T]]) -> T:
        """Await `question(self)` once and keep its answer: later calls with the same question return it."""
        if question not in self._answers:
            self._answers[question] = await question(self)
        return cast(T, self._answers[question])


_SAMPLE_CHARACTERS = 200
"""Most characters of an action or an answer that are shown."""


def sample_text(data: Mapping[str, Any]) -> str:
    """Return an action or an answer as JSON that wraps between its fields, cut off."""
    return shorten(json.dumps(data, ensure_ascii=False), _SAMPLE_CHARACTERS)


def sample_action(subject: Subject) -> str:
    """Return the first action as it is sent, cut off, and whether it is made up or a guess."""
    if subject.workload.maker(0.0).observes:
        return f"what {subject.workload.function} makes of the observation"
    text = sample_text(subject.action(wait_s=0.0))
    if subject.workload.guessed:
        return f"{text}, a guess, as there is no /schema,"
    return f"{text}, made from /schema, may mean nothing," if subject.workload.made_up else text


class RawClient:
    """Opens sessions on the running event loop, spread over the endpoint's URLs in turn.

    `patience_s` is how long each answer may take, unless a question says otherwise; every `ping_s` each session pings,
    None: never. Both are seconds. Leaving the block drops every connection that is still open.
    """

    def __init__(self, endpoint: Endpoint, patience_s: float, ping_s: float | None = PING_S) -> None:
        self._endpoint = endpoint
        self._patience_s = patience_s
        self._ping_s = ping_s
        self._secrets = Secrets.from_headers(endpoint.headers)
        self._routes: list[Route] = []
        self._sessions: list[RawSession] = []
        self._open: list[RawSession] = []
        self._began = time.perf_counter()
        self._clock = Clock()
        self._poller: Poller

    async def __aenter__(self) -> Self:
        """Resolve the URLs.

        Raises:
            RouteError: a URL or a header cannot be used.
        """
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        for url in endpoint.urls:
            route = await loop.run_in_executor(None, prepare_route, url, endpoint.headers, endpoint.network)
            self._routes.append(route)
        self._poller = Poller(loop)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Drop what is still open."""
        for session in self._sessions:
            session.connection.abort()
        self._poller.close()

    @property
    def sessions(self) -> Sequence[RawSession]:
        """All sessions that were opened, or are being opened."""
        return self._sessions

    @property
    def elapsed_s(self) -> float:
        """Seconds since this client was made, the zero of every transcript."""
        return time.perf_counter() - self._began

    async def connect(self) -> RawSession:
        """Open a connection and send nothing; `first_answer` is of kind "opened", or says why it is not."""
        number = len(self._sessions)
        session = RawSession(number, self._began, self._patience_s, self._secrets)
        self._sessions.append(session)
        self._clock.refresh()
        route = self._routes[number % len(self._routes)]
        session.first_answer = await session.connect(Connection(self._poller, self._clock, route, session))
        session.connection.keep_alive(self._ping_s)
        self._open = [one for one in (*self._open, session) if not one.ended]
        self._endpoint.held.note(len(self._open))
        return session

    async def start(self, reset: Mapping[str, Any] | None = None, *, patience_s: float | None = None) -> RawSession:
        """Open a session and reset it; `first_answer` is the answer to the reset, or says why there is none."""
        session = await self.connect()
        if session.first_answer.kind == "opened":
            session.first_answer = await session.reset(reset, patience_s=patience_s)
        session.answered = True
        return session

    async def start_when_free(
        self,
        reset: Mapping[str, Any],
        *,
        within_s: float,
        again: Callable[[Answer], bool] = lambda answer: answer.retryable,
        pause_s: float = RETRY_PAUSE_S,
    ) -> RawSession:
        """Open a session and reset it; while `again` is true of its first answer, try again for `within_s` seconds.

        Slots of sessions that have just ended may still come back.
        """
        deadline = time.perf_counter() + within_s
        while again((session := await self.start(reset)).first_answer) and time.perf_counter() < deadline:
            session.drop()
            await asyncio.sleep(pause_s)
        return session

    async def start_many(
        self, resets: Sequence[Mapping[str, Any]], *, at_once: int = AT_ONCE, until_silent: bool = False
    ) -> list[RawSession]:
        """Open one session per reset, `at_once` at a time; the list includes those that were refused.

        With `until_silent` no more are opened after one got no answer, and the list is as much shorter.
        """
        window, silent = asyncio.Semaphore(at_once), asyncio.Event()

        async def start_one(reset: Mapping[str, Any]) -> RawSession | None:
            async with window:
                if until_silent and silent.is_set():
                    return None
                session = await self.start(reset)
                if session.timed_out:
                    silent.set()
                return session

        started = await asyncio.gather(*map(start_one, resets))
        return [session for session in started if session is not None]

    async def admit_many(
        self, resets: Sequence[Mapping[str, Any]], *, until_silent: bool = False
    ) -> tuple[list[RawSession], list[RawSession]]:
        """Open sessions as `start_many` does; return those that were let in, and those that were not, dropped."""
        started = await self.start_many(resets, until_silent=until_silent)
        refused = [session for session in started if session.first_answer.kind != "observation"]
        for session in refused:
            session.drop()
        return [session for session in started if session.first_answer.kind == "observation"], refused


async def close_all(sessions: list[RawSession]) -> list[Answer]:
    """Close all sessions that are still open, concurrently, and return how each ended.

    Those that timed out are dropped instead, as they would not answer a close message either.
    """
    for session in sessions:
        if session.timed_out and not session.ended:
            session.drop()
    return list(await asyncio.gather(*(session.close() for session in sessions if not session.ended)))
