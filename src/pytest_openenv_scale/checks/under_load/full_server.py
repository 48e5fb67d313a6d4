"""A server filled to its limit, and how soon the slot of a session that ended can be used again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.checks.background import waiting_action
from pytest_openenv_scale.checks.capacity_probe import Slots, fill_empty_server, find_slots, more_sessions_remedy
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript
from pytest_openenv_scale.verdict.refusals import Capacity, capacity_of

SINGLE_SLOT = "the environment is configured for one session at a time (max_concurrent_envs=1)"

SLOT_REMEDY = "see that the environment's close() returns, and give slots back in a `finally` around the whole session"
"""The remedy where slots do not come back."""


FullServerCheck = Callable[[RawClient, Subject, list[RawSession]], Awaitable[CheckResult]]
"""Checks a full server, given the sessions that are open, and closes them."""


async def with_full_server(subject: Subject, check: FullServerCheck) -> CheckResult:
    """Fill the server to its limit and run the check; skip where the limit is beyond `subject.max_sessions`."""
    slots = await subject.learn(find_slots)
    if not slots.limit_reached:
        return _skip_without_limit(subject, slots)
    # Where the refusal is a timeout, another attempt costs as long again, and may do harm.
    silent_refusal = slots.refusal is not None and slots.refusal.kind == "silence"
    async with subject.client() as client:
        sessions, _ = await fill_empty_server(client, subject, slots.open if silent_refusal else subject.max_sessions)
        if not sessions:
            return no_slot_free(slots)
        free = len(sessions)
        result = await check(client, subject, sessions)
    if free >= slots.open:
        return result
    missing = f"{free:,} of {formatting.count_of(slots.open, 'slot')} free at the start"
    return replace(result, details=(*result.details, missing))


def _skip_without_limit(subject: Subject, slots: Slots) -> CheckResult:
    """Return a skipped result where the server's limit was not reached."""
    fits = _capacity(subject, slots)
    configured_text = f" (the target's settings make it {fits})" if fits.slots else ""
    opened = formatting.count_of(slots.open, "session")
    headline = f"no limit was reached with {opened}{configured_text}; ask for more with --openenv-batches"
    if slots.open < subject.max_sessions:
        # Neither the server nor `max_sessions` was the limit, but this machine.
        headline = (
            f"no limit was reached with the {opened} this machine could open{configured_text};"
            " raise `ulimit -n` where pytest runs"
        )
    return CheckResult(CheckOutcome.SKIPPED, headline, figures={"sessions": slots.open})


def no_slot_free(slots: Slots) -> CheckResult:
    """Return the result of a check that finds every slot taken, though this client has no session open."""
    if not slots.limit_reached or not slots.open:
        reason = f": {slots.refusal}" if slots.refusal is not None else ""
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"no session gets in any more{reason}",
            remedy="ask this check alone, on a server that was just started: what was asked before it took the slots",
            transcripts=(slots.refused_transcript,) if slots.refused_transcript is not None else (),
        )
    slots_text = "the only slot is not" if slots.open == 1 else f"none of {formatting.count_of(slots.open, 'slot')} is"
    return CheckResult(
        CheckOutcome.MISSED,
        f"{slots_text} free any more, though no session is open: what was asked before took them for good",
        remedy=SLOT_REMEDY,
        figures={"slots_before": slots.open, "slots_after": 0},
    )


def slot_arithmetic(subject: Subject, slots: Slots) -> str | None:
    """Return how workers and their limit make up the sessions that fit, "16 = 2 workers × 8"; None where unknown."""
    fits = _capacity(subject, slots)
    if fits.slots is None or (fits.workers == 1 and slots.limit_reached):
        return None
    if fits.held == fits.slots:
        return f"{fits.held:,} = {fits}"
    held_by_others = "" if fits.at_least else ", and others hold slots too"
    return f"{fits.held:,} of {fits} = {fits.slots:,}: connections split unevenly over workers{held_by_others}"


def limit_advice(subject: Subject, slots: Slots) -> str | None:
    """Return how more sessions are let in, where the limit is one per worker."""
    return more_sessions_remedy(subject) if slots.open == 1 or slots.limit == 1 else None


def _capacity(subject: Subject, slots: Slots) -> Capacity:
    """Return how many sessions fit; the workers are not known where there are several hosts."""
    endpoint = subject.endpoint
    limit = slots.limit if slots.limit is not None else endpoint.limits.get("max_envs")
    workers = endpoint.limits.get("workers")
    one_host = len(endpoint.urls) == 1 and (endpoint.hosts or 1) == 1
    return capacity_of(
        slots.open,
        limit=limit if isinstance(limit, int) else None,
        workers=workers if isinstance(workers, int) and one_host else None,
    )


MID_STEP_S = 0.4
"""How long the step takes during which a client drops, in seconds."""

_RETRY_S = 0.02
"""Pause between two attempts to get a slot, in seconds."""


@dataclass
class SessionEnd:
    """One way to end a session, `name` in words, and how long each freed slot took to be usable again, in seconds.

    A session that ends in mid-step does so while a step of `step_s` seconds runs. `unreturned` is the transcript of the
    newcomer where a slot was not given back.
    """

    name: str
    figure: str
    leave: Callable[[RawSession], Awaitable[Answer] | None]
    step_s: float = 0.0
    took_s: list[float] = field(default_factory=list[float])
    unreturned: Transcript | None = None

    async def end(self, subject: Subject, session: RawSession) -> float:
        """End a session and return when, as `time.perf_counter()`."""
        if self.step_s:
            session.send({"type": "step", "data": waiting_action(subject, session, 0, self.step_s)})
            await asyncio.sleep(self.step_s / 4)
        ended_at = time.perf_counter()
        if (closing := self.leave(session)) is not None:
            await closing
        return ended_at


def clean_close(subject: Subject) -> SessionEnd:
    """Return the ending with a close message."""
    return SessionEnd("a clean close", "closed_s", lambda session: session.close(patience_s=subject.patience_s))


def dropped_connections(mid_step_s: float | None) -> list[SessionEnd]:
    """Return the endings without a close message, idle and during a step of `mid_step_s` seconds, None: idle only."""
    drop, reset = RawSession.drop, RawSession.reset_connection
    idle = [
        SessionEnd("a socket closed without goodbye", "dropped_s", drop),
        SessionEnd("a TCP reset", "reset_s", reset),
    ]
    if mid_step_s is None:
        return idle
    return [
        *idle,
        SessionEnd("a socket closed in mid-step", "dropped_in_step_s", drop, mid_step_s),
        SessionEnd("a TCP reset in mid-step", "reset_in_step_s", reset, mid_step_s),
    ]


async def time_slot_return(
    client: RawClient, subject: Subject, sessions: list[RawSession], ending: SessionEnd, within_s: float
) -> None:
    """End the last session of a full server and open another in its slot, trying for `within_s` seconds.

    The time it took, or the transcript of the last attempt, goes into `ending`.
    """
    began = await ending.end(subject, sessions.pop())
    session = await client.start_when_free(
        subject.reset_data(subject.seed),
        within_s=began + within_s - time.perf_counter(),
        again=lambda answer: answer.kind not in ("observation", "silence"),
        pause_s=_RETRY_S,
    )
    passed_s = time.perf_counter() - began
    if session.first_answer.kind == "observation":
        sessions.append(session)
        ending.took_s.append(passed_s)
    else:
        session.drop()
        ending.unreturned = session.transcript(f"a newcomer {passed_s:.1f} s after {ending.name}")
