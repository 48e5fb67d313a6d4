"""Responsiveness: while one session's step runs, other sessions and `/health` do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.checks.background import single_session, waiting_action
from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import Figures, Subject, close_all
from pytest_openenv_scale.client.http_request import HTTP_ERRORS, http_request, http_url
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult


async def health(subject: Subject) -> CheckResult:
    """Check that `/health` is answered while steps run."""
    stepping = await subject.learn(measure_stepping)
    if stepping.failed is not None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, stepping.failed)
    if stepping.idle_s is None:
        headline = "GET /health gets no HTTP answer from this server, also while nothing else happens"
        return CheckResult(CheckOutcome.SKIPPED, headline)
    last, seconds = stepping.last, formatting.seconds
    slowest = max(last.alone_http_s or 0.0, last.together_http_s or 0.0)
    measured = (
        f"/health took {seconds(slowest)} at most while {formatting.count_of(stepping.sessions, 'session')} stepped"
        f" ({seconds(stepping.idle_s)} before), one step takes {seconds(last.alone_s)}"
    )
    beside = f"beside one session's steps /health took {seconds(last.alone_http_s)}"
    several = stepping.sessions > 1
    if several and last.together_http_s is not None:
        beside += f", beside {stepping.sessions} at once {seconds(last.together_http_s)}"
    return _judge(
        stepping,
        measured,
        f"steps block the event loop: {measured}" if all(map(stepping.blocked, stepping.rounds)) else None,
        _FREE_LOOP_REMEDY,
        (beside, stepping.comparison) if several else (beside,),
    )


async def parallel(subject: Subject) -> CheckResult:
    """Check that steps of several sessions run side by side."""
    if skipped := await skip_single_slot(subject):
        return skipped
    stepping = await subject.learn(measure_stepping)
    if stepping.failed is not None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, stepping.failed)
    if stepping.sessions < 2:
        headline = "a second session could not be opened: there is nothing to run side by side"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    last, measured, fault = stepping.last, stepping.comparison, None
    blocked = stepping.blocked(last)
    if last.serial and blocked:
        health_s = formatting.seconds(last.together_http_s)
        fault = f"{measured}: steps block the event loop (/health took {health_s} meanwhile)"
    elif last.one_after_another:
        fault = f"{measured}: they run one after another"
    elif last.serial and not stepping.too_short:
        shared = (
            f"{measured}: they share a core or Python's interpreter lock, in slices, and do not wait for each other"
        )
        advice = "more workers on more cores make them faster (uvicorn --workers N)"
        return CheckResult(CheckOutcome.MET, shared, details=(advice,), figures=stepping.figures())
    remedy = _FREE_LOOP_REMEDY if blocked or stepping.idle_s is None else _FREE_LOCK_REMEDY
    latencies = ", ".join(formatting.seconds(step) for step in sorted(last.together_s))
    return _judge(stepping, measured, fault, remedy, (f"latencies of the steps at once: {latencies}",))


_FREE_LOOP_REMEDY = (
    "write step() as an ordinary function, which OpenEnv runs in a thread; in step_async() await what takes time"
    " (asyncio.sleep, an async client) or run it with await asyncio.to_thread(...)"
)
_FREE_LOCK_REMEDY = (
    "steps of different sessions wait for one lock, one pool or one resource: give each session's environment its own"
)


def _judge(stepping: Stepping, measured: str, fault: str | None, remedy: str, details: tuple[str, ...]) -> CheckResult:
    """Return a missed result where there is a `fault`, unless steps are too short for one to matter."""
    figures = stepping.figures()
    if stepping.too_short:
        headline = f"a step takes {formatting.seconds(stepping.alone_s)}: too short to hold others up noticeably"
        return CheckResult(CheckOutcome.MET, headline, details=(measured,), figures=figures)
    if fault is None:
        return CheckResult(CheckOutcome.MET, measured, figures=figures)
    count = len(stepping.rounds)
    rounds = f"so it was in each of {count} rounds" if count > 1 else "so it was in the one round there was time for"
    return CheckResult(CheckOutcome.MISSED, fault, remedy, (*details, rounds), figures)


_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to one `GET /health`: `latency_s` in seconds from connecting on, `status` None where none came."""

    latency_s: float
    status: int | None


def ask_health(url: str, headers: Mapping[str, str], patience_s: float, network: Network = DIRECT) -> HttpAnswer:
    """Send `GET /health` on a new connection; blocks until it is answered, fails or times out after `patience_s`."""
    began = time.perf_counter()
    try:
        with http_request(f"{http_url(url)}/health", headers, patience_s, network=network) as answer:
            status = answer.status
    except HTTP_ERRORS:
        status = None
    return HttpAnswer(time.perf_counter() - began, status)


async def ask_next_url(subject: Subject, number: int, patience_s: float) -> HttpAnswer:
    """Send `GET /health` to one of the server's URLs, in turn by `number`; it ends by the subject's deadline."""
    endpoint = subject.endpoint
    url = endpoint.urls[number % len(endpoint.urls)]
    patience_s = min(patience_s, subject.time_left_s)
    return await asyncio.to_thread(ask_health, url, endpoint.headers, patience_s, endpoint.network)


@asynccontextmanager
async def polling_health(subject: Subject, patience_s: float) -> AsyncGenerator[list[HttpAnswer], None]:
    """Send `GET /health` again and again while the block runs; the last request's answer is waited for."""
    answers: list[HttpAnswer] = []
    stop = asyncio.Event()

    async def poll() -> None:
        while not stop.is_set():
            answers.append(await ask_next_url(subject, len(answers), patience_s))
            await asyncio.sleep(_PAUSE_S)

    task = asyncio.create_task(poll())
    try:
        yield answers
    finally:
        stop.set()
        await task


WAIT_S = 0.3
"""The wait of a step where the action takes one, in seconds: long enough to stand out from everything else."""

SHORT_S = 0.02
"""A step that takes less than this many seconds holds nobody up noticeably."""

SESSIONS, PER_WORKER = 8, 4
"""Sessions that step at once: at least the first, and the second per worker, so that every worker surely has one."""

ROUNDS, SLOW_STEP_S = 3, 1.0
"""What occurs in each of this many rounds is due to the server; one good round is enough, and where a step takes this
many seconds, which no busy machine makes of a short one, one bad round is."""

BLOCKED_SHARE = 0.5
"""HTTP is blocked by a step where it takes longer than this share of the step; below, it may wait for a core."""

SERIAL_FACTOR, SERIAL_LEAST_S = 1.6, 0.03
"""Steps are not side by side where the median of several takes this many times as long as a lone one, and this many
seconds more."""

EARLY_SHARE = 0.4
"""Steps that run one after another end one after another: a quarter of them by this share of the time, or earlier.
Steps that share a core or Python's interpreter lock all end near the end."""

LATE_SHARE = 0.8
"""Near the end is from this share of the time on. Connections spread unevenly over workers: the few of an idle one end
early, but those of the busiest one, and these are many, still end together."""

_ALONE_S = 0.3
_IDLE_REQUESTS = 5


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
        return middle >= SERIAL_FACTOR * self.alone_s + SERIAL_LEAST_S

    @property
    def one_after_another(self) -> bool:
        """Whether the steps at once were run one after another, not in slices."""
        count, quarter = len(self.together_s), len(self.together_s) // 4
        early = sorted(self.together_s)[quarter] <= max(EARLY_SHARE, (quarter + 1) / count + 0.1) * self.wall_s
        late = sum(step_s >= LATE_SHARE * self.wall_s for step_s in self.together_s)
        return self.serial and early and late < max(2, count / 2)


@dataclass(frozen=True, slots=True)
class Stepping:
    """What was measured: `idle_s` is the longest `/health` took before any step, None where HTTP gets no answer.

    `waited` tells that steps wait as the action asks, and use no core meanwhile.
    """

    rounds: tuple[StepRound, ...]
    sessions: int
    waited: bool
    idle_s: float | None
    failed: str | None = None

    @property
    def alone_s(self) -> float:
        """How long one step takes, in seconds."""
        return median(step_round.alone_s for step_round in self.rounds)

    @property
    def too_short(self) -> bool:
        """Whether steps are too short to hold others up noticeably."""
        return self.alone_s < SHORT_S

    def blocked(self, step_round: StepRound) -> bool:
        """Whether HTTP waited for steps in this round."""
        if self.idle_s is None or step_round.alone_http_s is None or step_round.together_http_s is None:
            return False
        if step_round.alone_http_s - self.idle_s >= BLOCKED_SHARE * step_round.alone_s:
            return True
        # One step may be on another worker than the one that answers HTTP: several are on all of them. What needs a
        # core is given it in slices, which many threads make long: only steps in a row are then evidence.
        waited_s = step_round.together_http_s - self.idle_s
        return waited_s >= BLOCKED_SHARE * (step_round.alone_s if self.waited else step_round.wall_s) and (
            self.waited or step_round.one_after_another
        )

    @property
    def last(self) -> StepRound:
        """The round that counts: a good one, or the last of all that were not."""
        return self.rounds[-1]

    @property
    def comparison(self) -> str:
        """How long the steps at once took beside one alone, in words."""
        together, alone = formatting.seconds(self.last.wall_s), formatting.seconds(self.last.alone_s)
        return f"{self.sessions} steps at once took {together}, one alone {alone}"

    def figures(self) -> Figures:
        """Return all figures by name; times in seconds."""
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


async def measure_stepping(subject: Subject) -> Stepping:
    """Measure steps alone and at once, and `/health` beside them.

    Call it as `subject.learn(measure_stepping)`.
    """
    idle_s = await _idle_health_s(subject)
    workers = str(subject.endpoint.limits.get("workers", ""))
    slow = (await subject.learn(single_session)).step_s >= SLOW_STEP_S
    count = await sessions_at_once(subject, max(SESSIONS, PER_WORKER * int(workers) if workers.isdecimal() else 0))
    async with subject.client() as client:
        sessions = await open_sessions(client, subject, subject.resets(count))
        result = Stepping((), len(sessions), False, idle_s, None if sessions else "no session could be opened")
        while result.failed is None and len(result.rounds) < (1 if slow else ROUNDS):
            step_round = await _measure_round(subject, sessions, http=idle_s is not None)
            if isinstance(step_round, Answer):
                result = replace(
                    result, failed=f"a step was answered otherwise than one of a lone session: {step_round}"
                )
                break
            waited = subject.wait_s is not None and step_round.alone_s >= WAIT_S
            result = replace(result, rounds=(*result.rounds, step_round), waited=waited)
            if result.too_short or not (result.blocked(step_round) or step_round.one_after_another):
                break
        await close_all(sessions)
    return result


async def _idle_health_s(subject: Subject) -> float | None:
    """Return the longest `/health` takes on an idle server, in seconds; None where it gets no answer."""
    longest = 0.0
    for number in range(_IDLE_REQUESTS):
        answer = await ask_next_url(subject, number, subject.patience_s)
        if answer.status is None:
            return None
        longest = max(longest, answer.latency_s)
    return longest


async def _measure_round(subject: Subject, sessions: Sequence[RawSession], *, http: bool) -> StepRound | Answer:
    alone: list[Answer] = []
    # One step after another in a server that takes them so: the last has waited for all the others.
    patience = subject.patience_s + len(sessions) * max(subject.slowest_single_s, WAIT_S)

    async def step(session: RawSession) -> Answer:
        return await session.step(waiting_action(subject, session, 0, WAIT_S), patience_s=patience)

    async with AsyncExitStack() as stack:
        beside_one = await stack.enter_async_context(polling_health(subject, patience)) if http else None
        began = time.perf_counter()
        while not alone or time.perf_counter() < began + _ALONE_S:
            alone.append(await step(sessions[0]))
            if not alone[-1].good:
                return alone[-1]
            await _reset_finished([sessions[0]], alone[-1:])
    async with AsyncExitStack() as stack:
        beside_all = await stack.enter_async_context(polling_health(subject, patience)) if http else None
        at_once = await asyncio.gather(*map(step, sessions))
    if bad := next((answer for answer in at_once if not answer.good), None):
        return bad
    await _reset_finished(sessions, at_once)
    return StepRound(
        median(_latencies(alone)), tuple(_latencies(at_once)), _slowest_s(beside_one), _slowest_s(beside_all)
    )


async def _reset_finished(sessions: Sequence[RawSession], answers: Sequence[Answer]) -> None:
    """Reset the sessions whose episode is over."""
    over = [session for session, answer in zip(sessions, answers, strict=True) if answer.done]
    await asyncio.gather(*(session.reset(session.reset_data) for session in over))


def _latencies(answers: Sequence[Answer]) -> list[float]:
    return [answer.latency_s or 0.0 for answer in answers]


def _slowest_s(answers: Sequence[HttpAnswer] | None) -> float | None:
    return max((answer.latency_s for answer in answers), default=0.0) if answers is not None else None
