"""How many sessions the server holds at once, learned from its refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.reporting.content.remedies import steps_words
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript
from pytest_openenv_scale.verdict.remedies import Setter, session_steps

from .background import single_session
from .session import Answer, RawSession
from .subject import RETRY_PAUSE_S, RawClient, Subject, close_all

_AT_ONCE, _PAUSE_SHARE = 16, 0.05
"""New sessions at a time; the pause before another attempt, as a share of the time waited so far."""

_REFUSALS_IN_A_ROW, _REFUSALS_IN_A_ROW_UNEVEN = 16, 96
"""Refusals in a row after which the server counts as full; the second where the limit in its refusals does not divide
the sessions that fit, so that some worker may have room."""

SLOT_RETURN_LIMIT_S = 15.0
"""How long a server may take until the slots of ended sessions can be used again, in seconds."""


@dataclass(frozen=True, slots=True)
class Slots:
    """How many sessions fit: `open` were open when the next one was refused, or `Subject.max_sessions` was reached.

    `refusal` is what the next one got, None where none was refused; `limit` is the limit per worker that the refusal
    names. `refused_transcript` is that session's.
    """

    open: int
    refusal: Answer | None = None
    limit: int | None = None
    refused_transcript: Transcript | None = None

    @property
    def limit_reached(self) -> bool:
        """Whether a session was refused, so that `open` is the server's limit."""
        return self.refusal is not None


async def find_slots(subject: Subject) -> Slots:
    """Open sessions until the server refuses one or `subject.max_sessions` are open.

    Call it as `subject.learn(find_slots)`.
    """
    await subject.learn(single_session)
    async with subject.client() as client:
        admitted, turned_away = await fill_empty_server(client, subject, subject.max_sessions)
        await close_all(admitted)
    return _slots_from_refusals(len(admitted), turned_away)


async def fill_empty_server(
    client: RawClient, subject: Subject, limit: int
) -> tuple[list[RawSession], list[RawSession]]:
    """Open sessions as `fill_server` does, on a server that should be empty.

    The first one waits for a slot: a server whose slots come back late is not full.
    """
    first = await client.start_when_free(subject.reset_data(subject.seed), within_s=subject.patience_s)
    if first.first_answer.kind == "observation":
        return await fill_server(client, subject, limit, (first,))
    first.drop()
    return await fill_server(client, subject, limit)


async def fill_server(
    client: RawClient, subject: Subject, limit: int, already_open: Sequence[RawSession] = ()
) -> tuple[list[RawSession], list[RawSession]]:
    """Open sessions until `limit` are open or the server is full; return those, and the last ones turned away.

    Those `already_open` count. Connections split unevenly over workers, and each has its own limit: one refusal
    does not mean that all are full. A burst that gets no answer is followed by one session at a time, so that a slow
    server is not taken for a full one. Where this machine can open no more, none counts as turned away.
    """
    admitted: list[RawSession] = list(already_open)
    turned_away: list[RawSession] = []
    at_once = _AT_ONCE
    while len(admitted) < limit and not _is_full(len(admitted), turned_away):
        burst = min(at_once, limit - len(admitted), max(1, len(admitted)))
        let_in, refused = await client.admit_many(subject.resets(burst))
        admitted += let_in
        turned_away = [*turned_away, *refused] if len(refused) == burst else refused
        if any(session.first_answer.client_limited for session in refused):
            return admitted, []
        if any(session.first_answer.kind == "silence" for session in refused):
            if burst == 1:
                break
            at_once = 1
    return admitted, turned_away


def _is_full(admitted: int, turned_away: list[RawSession]) -> bool:
    if len(turned_away) < _REFUSALS_IN_A_ROW:
        return False
    limits = {session.first_answer.named_limit for session in turned_away}
    uneven = any(limit and admitted % limit for limit in limits)
    return not uneven or len(turned_away) >= _REFUSALS_IN_A_ROW_UNEVEN


def _slots_from_refusals(admitted: int, turned_away: list[RawSession]) -> Slots:
    if not turned_away:
        return Slots(admitted)
    # Prefer a refusal that says why: other connections may merely have been cut.
    example = next((session for session in turned_away if session.first_answer.full), turned_away[0])
    answer = example.first_answer
    return Slots(admitted, answer, answer.named_limit, example.transcript("the session that was not let in"))


async def open_sessions(
    client: RawClient, subject: Subject, resets: Sequence[Mapping[str, Any]], *, within_s: float = SLOT_RETURN_LIMIT_S
) -> list[RawSession]:
    """Open one session per reset and return those that were let in, in the order of the resets.

    Slots of earlier sessions may come back a little later than these were closed, and workers may be full unevenly:
    each that was refused is tried again, for `within_s` seconds after its first refusal.
    """
    window = asyncio.Semaphore(_AT_ONCE)

    async def open_one(reset: Mapping[str, Any]) -> RawSession | None:
        first_at = None
        while True:
            async with window:
                began = time.perf_counter()
                session = await client.start(reset)
            answer = session.first_answer
            if answer.kind == "observation":
                return session
            session.drop()
            if answer.kind in ("error", "unreadable") and not answer.full:
                return None
            if first_at is None:
                # One that got no answer at all has waited already.
                first_at = began if answer.kind == "silence" else time.perf_counter()
            if (waited_s := time.perf_counter() - first_at) >= within_s:
                return None
            await asyncio.sleep(max(RETRY_PAUSE_S, waited_s * _PAUSE_SHARE))

    opened = await asyncio.gather(*map(open_one, resets))
    return [session for session in opened if session is not None]


def slot_return_s(subject: Subject, sessions: int = 1) -> float:
    """Return how long slots may take to come back once their clients have left, in seconds.

    That is `SLOT_RETURN_LIMIT_S` and the time that `sessions` sessions may need to end, one after another: a step that
    still runs, an environment's close(). Each counts as long as a lone session's slowest answer, all together
    `subject.timeout_s` at most.
    """
    return SLOT_RETURN_LIMIT_S + min(subject.timeout_s, sessions * subject.slowest_single_s)


async def sessions_at_once(subject: Subject, requested: int) -> int:
    """Return how many sessions a check may hold at once: as many as requested, allowed and known to fit."""
    return max(1, min(requested, subject.max_sessions, (await subject.learn(find_slots)).open))


async def skip_single_slot(subject: Subject) -> CheckResult | None:
    """Return a skipped result for checks that need two sessions at once where the server holds only one; else None."""
    slots = await subject.learn(find_slots)
    if slots.open > 1 or not slots.limit_reached:
        return None
    return CheckResult(
        CheckOutcome.SKIPPED,
        "the server holds one session at a time (max_concurrent_envs=1)",
        remedy=more_sessions_remedy(subject),
    )


def more_sessions_remedy(subject: Subject) -> str:
    """Return the steps that let a server of one session per worker hold N of them, in words."""
    endpoint = subject.endpoint
    steps = session_steps("N", setter=Setter(endpoint.target), settings=endpoint.session_settings, limit=1)
    return steps_words(steps, ", per worker" if endpoint.limits.get("workers", 1) not in (1, "1") else "")
