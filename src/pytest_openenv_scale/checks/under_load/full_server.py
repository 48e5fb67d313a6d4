"""A server filled to its limit, and how soon the slot of a session that ended can be used again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.checks.background import waiting_action
from pytest_openenv_scale.checks.capacity_probe import Slots, fill_empty_server, find_slots
from pytest_openenv_scale.checks.session import RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

ONE = "the environment is configured for one session at a time (max_concurrent_envs=1)"

GIVE_BACK = "see that the environment's close() returns, and give slots back in a `finally` around the whole session"
"""What to do where slots do not come back."""


FullServerCheck = Callable[[RawClient, Subject, list[RawSession]], Awaitable[CheckResult]]
"""Asks something of a full server, given the sessions that are in, and closes them."""


async def with_full_server(subject: Subject, ask: FullServerCheck) -> CheckResult:
    """Fill the server to its limit and ask; skip where the limit is beyond what may be opened."""
    if (skipped := await _no_limit(subject)) is not None:
        return skipped
    found = await subject.ask_once(find_slots)
    async with subject.client() as client:
        held = await _fill_up(client, subject)
        if not held:
            return no_slot_free(found)
        fewer = _fewer_free(found, len(held))
        result = await ask(client, subject, held)
    return replace(result, details=(*result.details, *fewer))


async def _fill_up(client: RawClient, subject: Subject) -> list[RawSession]:
    """Open sessions until the server lets no more in; those that got in, none where nobody did."""
    found = await subject.ask_once(find_slots)
    # Where the refusal is silence, knocking again costs the whole patience, and may do harm.
    quiet = found.refusal is not None and found.refusal.kind == "silence"
    held, _ = await fill_empty_server(client, subject, found.open if quiet else subject.max_sessions)
    return held


async def _no_limit(subject: Subject) -> CheckResult | None:
    """Return the result of a check about a full server where the limit is beyond what may be opened; else None."""
    found = await subject.ask_once(find_slots)
    if found.limit_reached:
        return None
    known = _slots(subject, found)
    told = f" (the target's settings make it {known[1]})" if known else ""
    opened = formatting.count_of(found.open, "session")
    said = f"no limit was reached with {opened}{told}; ask for more with --openenv-batches"
    if found.open < subject.max_sessions:
        # Neither the server nor what was asked for ended it.
        said = (
            f"no limit was reached with the {opened} this machine could open{told}; raise `ulimit -n` where pytest runs"
        )
    return CheckResult(CheckOutcome.SKIPPED, said, figures={"sessions": found.open})


def no_slot_free(found: Slots) -> CheckResult:
    """Return the result of a check that finds every slot taken, though this client has no session open."""
    if not found.limit_reached or not found.open:
        return _nobody_in(found)
    slots = "the only slot is not" if found.open == 1 else f"none of {formatting.count_of(found.open, 'slot')} is"
    return CheckResult(
        CheckOutcome.MISSED,
        f"{slots} free any more, though no session is open: what was asked before took them for good",
        remedy=GIVE_BACK,
        figures={"slots_before": found.open, "slots_after": 0},
    )


def _fewer_free(found: Slots, free: int) -> tuple[str, ...]:
    """Say that fewer slots were free at the start of a check than fitted first; nothing where all were."""
    return (f"{free:,} of {formatting.count_of(found.open, 'slot')} free at the start",) if free < found.open else ()


def _nobody_in(found: Slots) -> CheckResult:
    """Return the result of a check that found no room on a server whose limit is not known."""
    said = f": {found.refusal}" if found.refusal is not None else ""
    return CheckResult(
        CheckOutcome.INCONCLUSIVE,
        f"no session gets in any more{said}",
        remedy="ask this check alone, on a server that was just started: what was asked before it took the slots",
        transcripts=(found.refused_transcript,) if found.refused_transcript is not None else (),
    )


def slot_arithmetic(subject: Subject, found: Slots) -> str | None:
    """Return how the sessions that fit come of workers and their limit: "16 = 2 workers × 8"; None where unknown."""
    slots = _slots(subject, found)
    held = f"{found.open:,}"
    if slots is not None:
        total, words = slots
        uneven = ": connections split unevenly over workers, and others hold slots too" if found.open != total else ""
        return f"{held} = {words}" if found.open == total else f"{held} of {words} = {total:,}{uneven}"
    limit = found.limit
    if limit is None or limit >= found.open:
        return None
    if found.open % limit == 0:
        return f"{held} = {found.open // limit} × {limit:,}: each worker holds {limit:,}"
    return f"{held} fit and each worker holds {limit:,}: connections split unevenly over workers"


def limit_advice(subject: Subject, found: Slots) -> str | None:
    """Return the line that lets more sessions in, where the limit is one per worker."""
    if found.open != 1 and found.limit != 1:
        return None
    workers = subject.endpoint.limits.get("workers", 1)
    per_worker = f" per worker ({workers} workers)" if workers not in (1, "1") else ""
    return f"in the app's file write create_app(..., max_concurrent_envs=N){per_worker} for N sessions at a time"


def _slots(subject: Subject, found: Slots) -> tuple[int, str] | None:
    """Return workers × limit with its words; None where either is unknown or there are several hosts."""
    endpoint = subject.endpoint
    limit = found.limit if found.limit is not None else endpoint.limits.get("max_envs")
    workers = endpoint.limits.get("workers")
    if len(endpoint.urls) > 1 or (endpoint.hosts or 1) > 1:
        return None
    if not isinstance(limit, int) or not isinstance(workers, int) or (workers == 1 and found.limit_reached):
        return None
    return workers * limit, f"{formatting.count_of(workers, 'worker')} × {limit:,}"


MID_STEP_S = 0.4
"""How long the step takes in whose midst a client drops, in seconds."""

_RETRY_S = 0.02
"""Pause between two attempts to get a slot, in seconds."""

EndSession = Callable[[Subject, RawSession], Awaitable[float]]
"""Ends a session and returns when, as `time.perf_counter()`."""


async def _close(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    await session.close(patience_s=subject.patience_s)
    return at


async def _drop(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    session.drop()
    return at


async def _reset(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    session.reset_connection()
    return at


def _in_step(end: EndSession, wait_s: float) -> EndSession:
    """Return how to end a session while a step of so many seconds runs."""

    async def end_in_step(subject: Subject, session: RawSession) -> float:
        session.send({"type": "step", "data": waiting_action(subject, session.number, 0, wait_s)})
        await asyncio.sleep(wait_s / 4)
        return await end(subject, session)

    return end_in_step


@dataclass
class SessionEnd:
    """One way to end a session, `name` in words, and how long each slot that it freed took to be usable, in seconds.

    `kept` is what the newcomer saw where a slot was not given back.
    """

    name: str
    figure: str
    end: EndSession
    took_s: list[float] = field(default_factory=list[float])
    kept: Transcript | None = None


def clean_close() -> SessionEnd:
    """Return the polite way."""
    return SessionEnd("a clean close", "closed_s", _close)


def dropped_connections(mid_step_s: float) -> list[SessionEnd]:
    """Return the ways without goodbye, idle and in the midst of a step of so many seconds."""
    return [
        SessionEnd("a socket closed without goodbye", "dropped_s", _drop),
        SessionEnd("a TCP reset", "reset_s", _reset),
        SessionEnd("a socket closed in mid-step", "dropped_in_step_s", _in_step(_drop, mid_step_s)),
        SessionEnd("a TCP reset in mid-step", "reset_in_step_s", _in_step(_reset, mid_step_s)),
    ]


async def time_slot_return(
    client: RawClient, subject: Subject, held: list[RawSession], way: SessionEnd, within_s: float
) -> None:
    """End the last session of a full server in this way and open another in its slot, trying for `within_s` seconds."""
    began = await way.end(subject, held.pop())
    while True:
        session = await client.start(subject.reset_data(subject.seed))
        passed_s = time.perf_counter() - began
        if session.first_answer.kind == "observation":
            held.append(session)
            way.took_s.append(passed_s)
            return
        session.drop()
        if passed_s > within_s or session.first_answer.kind == "silence":
            way.kept = session.transcript(f"a newcomer {passed_s:.1f} s after {way.name}")
            return
        await asyncio.sleep(_RETRY_S)
