"""A server filled to its limit, and the words for that limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .client import RawClient
from .seats import Seats, crowd_in, seats
from .session import RawSession
from .subject import Subject

ONE = "the environment is configured for one session at a time (max_concurrent_envs=1)"

GIVE_BACK = "see that the environment's close() returns, and give slots back in a `finally` around the whole session"
"""What to do where slots do not come back."""


Asking = Callable[[RawClient, Subject, list[RawSession]], Awaitable[CheckResult]]
"""Asks something of a full server, given the sessions that are in, and closes them."""


async def in_full_house(subject: Subject, ask: Asking) -> CheckResult:
    """Fill the server to its limit and ask; skip where the limit is beyond what may be opened."""
    if (skipped := await _no_limit(subject)) is not None:
        return skipped
    found = await subject.learn(seats)
    async with subject.client() as client:
        held = await _fill_up(client, subject)
        if not held:
            return none_free(found)
        fewer = _fewer_free(found, len(held))
        result = await ask(client, subject, held)
    return replace(result, details=(*result.details, *fewer))


async def _fill_up(client: RawClient, subject: Subject) -> list[RawSession]:
    """Open sessions until the server lets no more in; those that got in, none where nobody did."""
    found = await subject.learn(seats)
    # Where the refusal is silence, knocking again costs the whole patience, and may do harm.
    quiet = found.refusal is not None and found.refusal.kind == "silence"
    held, _ = await crowd_in(client, subject, found.held if quiet else subject.most)
    return held


async def _no_limit(subject: Subject) -> CheckResult | None:
    """Return the result of a check about a full server where the limit is beyond what may be opened; else None."""
    found = await subject.learn(seats)
    if found.known:
        return None
    known = _slots(subject, found)
    told = f" (the target's settings make it {known[1]})" if known else ""
    opened = text_of.count_of(found.held, "session")
    said = f"no limit was reached with {opened}{told}; ask for more with --openenv-batches"
    if found.held < subject.most:
        # Neither the server nor what was asked for ended it.
        said = (
            f"no limit was reached with the {opened} this machine could open{told}; raise `ulimit -n` where pytest runs"
        )
    return CheckResult(CheckOutcome.SKIPPED, said, figures={"sessions": found.held})


def none_free(found: Seats) -> CheckResult:
    """Return the result of a check that finds every slot taken, though this client has no session open."""
    if not found.known or not found.held:
        return _nobody_in(found)
    slots = "the only slot is not" if found.held == 1 else f"none of {text_of.count_of(found.held, 'slot')} is"
    return CheckResult(
        CheckOutcome.MISSED,
        f"{slots} free any more, though no session is open: what was asked before took them for good",
        remedy=GIVE_BACK,
        figures={"slots_before": found.held, "slots_after": 0},
    )


def _fewer_free(found: Seats, free: int) -> tuple[str, ...]:
    """Say that fewer slots were free at the start of a check than fitted first; nothing where all were."""
    return (f"{free:,} of {text_of.count_of(found.held, 'slot')} free at the start",) if free < found.held else ()


def _nobody_in(found: Seats) -> CheckResult:
    """Return the result of a check that found no room on a server whose limit is not known."""
    said = f": {found.refusal}" if found.refusal is not None else ""
    return CheckResult(
        CheckOutcome.INCONCLUSIVE,
        f"no session gets in any more{said}",
        remedy="ask this check alone, on a server that was just started: what was asked before it took the slots",
        transcripts=(found.refused,) if found.refused is not None else (),
    )


def arithmetic(subject: Subject, found: Seats) -> str | None:
    """Return how the sessions that fit come of workers and their limit: "16 = 2 workers × 8"; None where unknown."""
    slots = _slots(subject, found)
    held = f"{found.held:,}"
    if slots is not None:
        total, words = slots
        uneven = ": connections split unevenly over workers, and others hold slots too" if found.held != total else ""
        return f"{held} = {words}" if found.held == total else f"{held} of {words} = {total:,}{uneven}"
    limit = found.limit
    if limit is None or limit >= found.held:
        return None
    if found.held % limit == 0:
        return f"{held} = {found.held // limit} × {limit:,}: each worker holds {limit:,}"
    return f"{held} fit and each worker holds {limit:,}: connections split unevenly over workers"


def limit_advice(subject: Subject, found: Seats) -> str | None:
    """Return the line that lets more sessions in, where the limit is one per worker."""
    if found.held != 1 and found.limit != 1:
        return None
    workers = subject.endpoint.limits.get("workers", 1)
    per_worker = f" per worker ({workers} workers)" if workers not in (1, "1") else ""
    return f"in the app's file write create_app(..., max_concurrent_envs=N){per_worker} for N sessions at a time"


def _slots(subject: Subject, found: Seats) -> tuple[int, str] | None:
    """Return workers × limit with its words; None where either is unknown or there are several hosts."""
    endpoint = subject.endpoint
    limit = found.limit if found.limit is not None else endpoint.limits.get("max_envs")
    workers = endpoint.limits.get("workers")
    if len(endpoint.urls) > 1 or (endpoint.hosts or 1) > 1:
        return None
    if not isinstance(limit, int) or not isinstance(workers, int) or (workers == 1 and found.known):
        return None
    return workers * limit, f"{text_of.count_of(workers, 'worker')} × {limit:,}"
