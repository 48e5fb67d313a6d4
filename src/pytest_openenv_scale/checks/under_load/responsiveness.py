"""Responsiveness: while one session's step takes its time, the others and `/health` do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from statistics import median

from pytest_openenv_scale.checks.background import waiting_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.client.http import http_answer
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult


async def health(subject: Subject) -> CheckResult:
    """While steps run, HTTP is answered."""
    found = await subject.ask_once(stepping)
    if failed := _failed(found):
        return failed
    if found.idle_s is None:
        said = "GET /health gets no HTTP answer from this server, also while nothing else happens"
        return CheckResult(CheckOutcome.SKIPPED, said)
    last, figures = found.last, found.figures()
    slowest = max(last.alone_http_s or 0.0, last.together_http_s or 0.0)
    measured = (
        f"/health took {formatting.seconds(slowest)} at most"
        f" while {formatting.count_of(found.sessions, 'session')} stepped"
        f" ({formatting.seconds(found.idle_s)} before), one step takes {formatting.seconds(last.alone_s)}"
    )
    if found.short:
        return CheckResult(CheckOutcome.MET, _too_short(found), details=(measured,), figures=figures)
    if not all(map(found.blocked, found.rounds)):
        return CheckResult(CheckOutcome.MET, measured, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"steps block the event loop: {measured}",
        remedy=_FREE_THE_LOOP,
        details=(
            f"beside one session's steps /health took {formatting.seconds(last.alone_http_s)}{_beside_several(found)}",
            *_consequence(found),
            f"so it was in each of {len(found.rounds)} rounds",
        ),
        figures=figures,
    )


async def parallel(subject: Subject) -> CheckResult:
    """Steps of several sessions run side by side."""
    if skipped := await skip_single_slot(subject):
        return skipped
    found = await subject.ask_once(stepping)
    if failed := _failed(found):
        return failed
    if found.sessions < 2:
        said = "a second session could not be opened: there is nothing to run side by side"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said)
    last, figures = found.last, found.figures()
    together, alone = formatting.seconds(last.wall_s), formatting.seconds(last.alone_s)
    measured = f"{found.sessions} steps at once took {together}, one alone {alone}"
    if found.short:
        return CheckResult(CheckOutcome.MET, _too_short(found), details=(measured,), figures=figures)
    if not last.serial:
        return CheckResult(CheckOutcome.MET, measured, figures=figures)
    blocked = found.blocked(last)
    if not last.stairs and not blocked:
        said = f"{measured}: they share a core or Python's interpreter lock, in slices, and do not wait for each other"
        more = "more workers on more cores make them faster (uvicorn --workers N)"
        return CheckResult(CheckOutcome.MET, said, details=(more,), figures=figures)
    if blocked:
        health_s = formatting.seconds(last.together_http_s)
        said = f"{measured}: steps block the event loop (/health took {health_s} meanwhile)"
    else:
        said = f"{measured}: they run one after another"
    return CheckResult(
        CheckOutcome.MISSED,
        said,
        remedy=_FREE_THE_LOOP if blocked or found.idle_s is None else _FREE_THE_LOCK,
        details=(
            "latencies of the steps at once: "
            + ", ".join(formatting.seconds(step) for step in sorted(last.together_s)),
            f"so it was in each of {len(found.rounds)} rounds",
        ),
        figures=figures,
    )


_FREE_THE_LOOP = (
    "write step() as an ordinary function, which OpenEnv runs in a thread; in step_async() await what takes time"
    " (asyncio.sleep, an async client) or run it with await asyncio.to_thread(...)"
)
_FREE_THE_LOCK = (
    "steps of different sessions wait for one lock, one pool or one resource: give each session's environment its own"
)


def _too_short(found: Stepping) -> str:
    return f"a step takes {formatting.seconds(found.alone_s)}: too short to hold others up noticeably"


def _beside_several(found: Stepping) -> str:
    if found.sessions < 2 or found.last.together_http_s is None:
        return ""
    return f", beside {found.sessions} at once {formatting.seconds(found.last.together_http_s)}"


def _consequence(found: Stepping) -> tuple[str, ...]:
    if found.sessions < 2:
        return ()
    wall, alone = formatting.seconds(found.last.wall_s), formatting.seconds(found.last.alone_s)
    return (f"{found.sessions} steps at once took {wall}, one alone {alone}",)


def _failed(found: Stepping) -> CheckResult | None:
    return CheckResult(CheckOutcome.INCONCLUSIVE, found.failed) if found.failed is not None else None


_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to one `GET /health`: `latency_s` in seconds from connecting on, `status` None where none came."""

    latency_s: float
    status: int | None


def ask_health(url: str, headers: Mapping[str, str], patience_s: float) -> HttpAnswer:
    """Ask the server at a base URL on a new connection; blocks until it answers, fails or `patience_s` have passed."""
    began = time.perf_counter()
    try:
        with http_answer(url, "/health", headers, patience_s) as answer:
            status = answer.status
    except (OSError, HTTPException, ValueError):
        status = None
    return HttpAnswer(time.perf_counter() - began, status)


async def ask_in_turn(endpoint: Endpoint, number: int, patience_s: float) -> HttpAnswer:
    """Ask one of the endpoint's URLs, the next with each number."""
    url = endpoint.urls[number % len(endpoint.urls)]
    return await asyncio.to_thread(ask_health, url, endpoint.headers, patience_s)


@asynccontextmanager
async def asking(endpoint: Endpoint, patience_s: float) -> AsyncGenerator[list[HttpAnswer], None]:
    """Ask one after the other while the block runs; the answer to a question asked within it is waited for."""
    answers: list[HttpAnswer] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers.append(await ask_in_turn(endpoint, len(answers), patience_s))
            await asyncio.sleep(_PAUSE_S)

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        stop.set()
        await task


WAIT_S = 0.3
"""The wait of a step where the action takes one: long enough to be told from everything else that takes time."""

SHORT_S = 0.02
"""A step that takes less holds nobody up so that it would be noticed."""

SESSIONS, PER_WORKER = 8, 4
"""Sessions that step at once: at least eight, and so many per worker that every worker surely has one."""

ROUNDS = 3
"""What is seen in each of so many rounds is the server's doing; one good round is enough."""

BLOCKED = 0.5
"""HTTP that takes longer than this share of the step it waits for waits for the step, not for a core."""

SERIAL, SERIAL_LEAST_S = 1.6, 0.03
"""Where the middle one of several steps takes this many times as long as a lone one, and so much longer, they are not
side by side."""

STAIRS = 0.4
"""Steps that run one after another end one after another: a quarter of them when this share of the time has passed, or
earlier. Steps that share a core or Python's interpreter lock all end near the end."""

LANDING = 0.8
"""Near the end is from this share of the time on. Connections spread unevenly over workers: the few of an idle one end
early, but those of the busiest one, and these are many, still end together."""

_ALONE_S = 0.3
_IDLE_ASKED = 5


@dataclass(frozen=True, slots=True)
class StepRound:
    """One session's steps, then a step of every session at once; all figures in seconds.

    `alone_http_s` and `together_http_s` are the longest that `GET /health` took meanwhile, None where it is not asked.
    """

    alone_s: float
    together_s: tuple[float, ...]
    alone_http_s: float | None
    together_http_s: float | None

    @property
    def wall_s(self) -> float:
        """How long the steps at once took in all."""
        return max(self.together_s)

    @property
    def serial(self) -> bool:
        """Whether several steps at once took much longer than one."""
        middle = sorted(self.together_s)[len(self.together_s) // 2]
        return middle >= SERIAL * self.alone_s + SERIAL_LEAST_S

    @property
    def stairs(self) -> bool:
        """Whether they were taken one after another."""
        count, place = len(self.together_s), len(self.together_s) // 4
        early = sorted(self.together_s)[place] <= max(STAIRS, (place + 1) / count + 0.1) * self.wall_s
        late = sum(step_s >= LANDING * self.wall_s for step_s in self.together_s)
        return self.serial and early and late < max(2, count / 2)


@dataclass(frozen=True, slots=True)
class Stepping:
    """What was measured: `idle_s` is the longest `/health` took before, None where HTTP gets no answer.

    `waited` tells that steps wait for the time they are asked to, and take no core meanwhile.
    """

    rounds: tuple[StepRound, ...]
    sessions: int
    waited: bool
    idle_s: float | None
    failed: str | None = None

    @property
    def alone_s(self) -> float:
        """How long one step takes, in seconds."""
        return median(found.alone_s for found in self.rounds)

    @property
    def short(self) -> bool:
        """Whether steps are too short to hold anybody up."""
        return self.alone_s < SHORT_S

    def blocked(self, found: StepRound) -> bool:
        """Whether HTTP waited for steps in this round."""
        if self.idle_s is None or found.alone_http_s is None or found.together_http_s is None:
            return False
        if found.alone_http_s - self.idle_s >= BLOCKED * found.alone_s:
            return True
        # One step may be on another worker than the one that answers HTTP: several are on all of them. What needs a
        # core is given it in slices, which many threads make long: only steps in a row are then evidence.
        waited_s = found.together_http_s - self.idle_s
        return waited_s >= BLOCKED * (found.alone_s if self.waited else found.wall_s) and (self.waited or found.stairs)

    @property
    def last(self) -> StepRound:
        """The round that counts: a good one, or the last of all that were not."""
        return self.rounds[-1]

    def figures(self) -> dict[str, float | int | str | bool | None]:
        """Return everything by name."""
        return {
            "sessions": self.sessions,
            "rounds": len(self.rounds),
            "step_alone_s": self.last.alone_s,
            "steps_together_s": self.last.wall_s,
            "step_together_p50_s": median(self.last.together_s),
            "health_idle_s": self.idle_s,
            "health_during_step_s": self.last.alone_http_s,
            "health_during_steps_s": self.last.together_http_s,
        }


async def stepping(subject: Subject) -> Stepping:
    """Measure steps alone and at once, and `/health` beside them; ask with `subject.learn(stepping)`."""
    idle = await _idle(subject)
    workers = str(subject.endpoint.limits.get("workers", ""))
    wanted = await sessions_at_once(subject, max(SESSIONS, PER_WORKER * int(workers) if workers.isdecimal() else 0))
    async with subject.client() as client:
        sessions = await open_sessions(
            client, subject, [subject.reset_data(subject.seed + number) for number in range(wanted)]
        )
        found = Stepping((), len(sessions), False, idle, None if sessions else "no session could be opened")
        while found.failed is None and len(found.rounds) < ROUNDS:
            played = await _round(subject, sessions, http=idle is not None)
            if isinstance(played, Answer):
                found = replace(found, failed=f"a step was answered otherwise than one of a lone session: {played}")
                break
            waited = subject.wait_s is not None and played.alone_s >= WAIT_S
            found = replace(found, rounds=(*found.rounds, played), waited=waited)
            if found.short or not (found.blocked(played) or played.stairs):
                break
        await close_all(sessions)
    return found


async def _idle(subject: Subject) -> float | None:
    """Return the longest `/health` takes while nothing else happens; None where it gets no answer."""
    longest = 0.0
    for number in range(_IDLE_ASKED):
        answer = await ask_in_turn(subject.endpoint, number, subject.patience_s)
        if answer.status is None:
            return None
        longest = max(longest, answer.latency_s)
    return longest


async def _round(subject: Subject, sessions: Sequence[RawSession], *, http: bool) -> StepRound | Answer:
    alone: list[Answer] = []
    # One step after another in a server that takes them so: the last has waited for all the others.
    patience = subject.patience_s + len(sessions) * max(subject.slowest_single_s, WAIT_S)

    async def step(session: RawSession) -> Answer:
        return await session.step(waiting_action(subject, session.number, 0, WAIT_S), patience_s=patience)

    async with AsyncExitStack() as stack:
        beside_one = await stack.enter_async_context(asking(subject.endpoint, patience)) if http else None
        began = time.perf_counter()
        while not alone or time.perf_counter() < began + _ALONE_S:
            alone.append(await step(sessions[0]))
            if not alone[-1].good:
                return alone[-1]
            await _start_again([sessions[0]], alone[-1:])
    async with AsyncExitStack() as stack:
        beside_all = await stack.enter_async_context(asking(subject.endpoint, patience)) if http else None
        at_once = await asyncio.gather(*map(step, sessions))
    if bad := next((answer for answer in at_once if not answer.good), None):
        return bad
    await _start_again(sessions, at_once)
    return StepRound(median(_latencies(alone)), tuple(_latencies(at_once)), _longest(beside_one), _longest(beside_all))


async def _start_again(sessions: Sequence[RawSession], answers: Sequence[Answer]) -> None:
    """Reset the sessions whose episode is over."""
    over = [session for session, answer in zip(sessions, answers, strict=True) if answer.done]
    await asyncio.gather(*(session.reset(session.reset_data) for session in over))


def _latencies(answers: Sequence[Answer]) -> list[float]:
    return [answer.latency_s or 0.0 for answer in answers]


def _longest(answers: Sequence[HttpAnswer] | None) -> float | None:
    return max((answer.latency_s for answer in answers), default=0.0) if answers is not None else None
