"""At its limit the server refuses clearly, open sessions go on, and a freed slot is usable again."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.checks.background import (
    BackgroundLoad,
    background_figures,
    can_step,
    single_session,
    step_in_background,
)
from pytest_openenv_scale.checks.capacity_probe import SLOT_RETURN_LIMIT_S, Slots, find_slots
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .full_server import (
    MID_STEP_S,
    SINGLE_SLOT,
    SessionEnd,
    clean_close,
    dropped_connections,
    limit_advice,
    slot_arithmetic,
    time_slot_return,
    with_full_server,
)

_ATTEMPTS = 8
"""How many refused sessions are inspected."""

_PROMPT_S, _PROMPT_FACTOR = 2.0, 5.0
"""A refusal is late where its median exceeds both: this many seconds, and this many times a lone session's reset."""

_FULL_WORDS = re.compile(r"capacity|too many|maximum|max_|limit|full|busy|slots?\b|sessions? (active|already)", re.I)

_BEFORE_S, _DURING_S, _AFTER_S = 0.5, 2.0, 0.5
_NEWCOMERS, _NEWCOMER_PAUSE_S = 4, 0.05
"""How long open sessions step in each phase; how many newcomers try meanwhile, and their pause between attempts."""

_REPEATS, _SHORT_SLOT_RETURN_S = 3, 5.0
"""How often a slot is freed in each way; how long one is waited for, in seconds, once another was not given back."""

_REFUSAL_REMEDY = (
    "before anything else of a session, send {'type': 'error', 'data': {'code': 'CAPACITY_REACHED', …}} and close"
)


async def refusal(subject: Subject) -> CheckResult:
    """Open sessions beyond the limit: each must be told at once, and clearly, that the server is full."""
    return await with_full_server(subject, _check_refusal)


async def _check_refusal(client: RawClient, subject: Subject, sessions: list[RawSession]) -> CheckResult:
    slots = await subject.learn(find_slots)
    attempts: list[_OpenAttempt] = []
    while len(attempts) < _ATTEMPTS and len(sessions) <= subject.max_sessions:
        began = time.perf_counter()
        session = await client.start(subject.reset_data(subject.seed))
        if session.first_answer.kind == "observation":
            # Another worker had room, or a slot came back late.
            sessions.append(session)
            continue
        attempts.append(_OpenAttempt(session, session.first_answer, time.perf_counter() - began))
        session.drop()
        if session.timed_out:
            break
    await close_all(sessions)
    if not attempts:
        let_in = formatting.count_of(len(sessions), "session")
        headline = f"the server let {let_in} in where it had refused at {slots.open:,}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    reset_s = (await subject.learn(single_session)).reset.latency_s or 0.0
    return _judge_refusal(subject, slots, len(sessions), attempts, reset_s)


@dataclass(frozen=True, slots=True)
class _OpenAttempt:
    """One session too many: its answer, and how long that took from connecting on, in seconds."""

    session: RawSession
    answer: Answer
    took_s: float


def _judge_refusal(
    subject: Subject, slots: Slots, session_count: int, attempts: list[_OpenAttempt], reset_s: float
) -> CheckResult:
    session_text = f"the {_ordinal(session_count + 1)} session"
    took_s = median([attempt.took_s for attempt in attempts])
    unclear = [attempt for attempt in attempts if not _says_full(attempt.answer)]
    worst = unclear[0] if unclear else attempts[0]
    base = CheckResult(
        CheckOutcome.MISSED,
        "",
        details=tuple(filter(None, (slot_arithmetic(subject, slots), *_other_refusals(attempts)))),
        figures={
            "sessions": session_count,
            "limit_told": slots.limit,
            "refused": len(attempts),
            "unclear": len(unclear),
            "refusal_s": took_s,
            "slowest_refusal_s": max(attempt.took_s for attempt in attempts),
            "answer": str(worst.answer),
        },
        transcripts=(worst.session.transcript("the session that was not let in"),),
    )
    if worst.answer.kind == "silence":
        headline = f"{session_text} was neither let in nor refused within {subject.patience_s:g} s"
        return replace(
            base, headline=headline, remedy=f"refuse what does not fit instead of queueing it: {_REFUSAL_REMEDY}"
        )
    # One connection of many may be cut on its way; two are a habit.
    if len(unclear) > 1 or len(unclear) == len(attempts):
        headline = f"{session_text} was not told that the server is full; what its client sees is: {worst.answer}"
        return replace(base, headline=headline, remedy=_REFUSAL_REMEDY)
    if took_s > max(_PROMPT_S, _PROMPT_FACTOR * reset_s):
        headline = f"{session_text} was refused only after {formatting.seconds(took_s)} ({worst.answer})"
        return replace(
            base, headline=headline, remedy="look for a free slot before the environment is made, and refuse then"
        )
    clear_answer = next(attempt.answer for attempt in attempts if _says_full(attempt.answer))
    headline = f"{session_text} was refused in {formatting.seconds(took_s)}: {clear_answer.code or clear_answer}"
    if session_count == 1:
        delay, reason = formatting.seconds(took_s), clear_answer.code or clear_answer
        headline = f"{SINGLE_SLOT}; the next one was refused in {delay}: {reason}"
    elif (arithmetic := slot_arithmetic(subject, slots)) is not None:
        headline += f" ({arithmetic})"
    return replace(
        base, outcome=CheckOutcome.MET, headline=headline, remedy=limit_advice(subject, slots), transcripts=()
    )


def _says_full(answer: Answer) -> bool:
    """Whether a client can tell from this answer that the server is full, or at least that it was turned away."""
    if answer.retryable:
        return True
    if answer.kind == "error":
        return _FULL_WORDS.search(f"{answer.code} {answer.message}") is not None
    if answer.kind == "closed":
        return answer.code == "1013" or bool(answer.message)
    return answer.kind == "lost" and answer.code == "403"


def _other_refusals(attempts: list[_OpenAttempt]) -> list[str]:
    """Return a detail for each refusal other than OpenEnv's, with how often it came."""
    texts = [
        str(attempt.answer)
        for attempt in attempts
        if not (attempt.answer.retryable or attempt.answer.kind == "silence")
    ]
    details = [
        f"{count} of {len(attempts)} {'was' if count == 1 else 'were'} answered: {text}"
        for text, count in Counter(texts).items()
    ]
    if any(attempt.answer.code == "403" for attempt in attempts):
        details.append("HTTP 403 refuses, but does not say why; 503, or CAPACITY_REACHED after accepting, would")
    return details


def _ordinal(number: int) -> str:
    """Return 1st, 2nd, 17th."""
    tens = number % 100 in (11, 12, 13)
    return f"{number:,}{'th' if tens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


async def others_go_on(subject: Subject) -> CheckResult:
    """Let open sessions step before, while and after newcomers try in vain to open one."""
    return await with_full_server(subject, _check_others_go_on)


async def _check_others_go_on(client: RawClient, subject: Subject, sessions: list[RawSession]) -> CheckResult:
    before = await step_in_background(subject, sessions, _BEFORE_S)
    if before.stopped:
        await close_all(sessions)
        headline = f"a session among {len(sessions):,} did not step before anybody knocked: {before.stopped[0][0]}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline, transcripts=(before.stopped[0][1],))
    newcomers: list[RawSession] = []
    tasks = [asyncio.create_task(_knock(client, subject, newcomers)) for _ in range(_NEWCOMERS)]
    during = await step_in_background(subject, sessions, _DURING_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    after = await step_in_background(subject, during.still_playing, _AFTER_S)
    await close_all(list(after.still_playing))
    return _judge_others(len(sessions), before, during, after, newcomers)


async def _knock(client: RawClient, subject: Subject, newcomers: list[RawSession]) -> None:
    """Try to open a session, again and again, until cancelled; one that gets in after all closes at once."""
    while True:
        newcomers.append(session := await client.connect())
        try:
            answer = session.first_answer
            if answer.kind == "opened":
                answer = await session.reset(subject.reset_data(subject.seed))
            if answer.kind == "observation":
                await session.close()
        finally:
            session.drop()
        await asyncio.sleep(_NEWCOMER_PAUSE_S)


def _judge_others(
    session_count: int,
    before: BackgroundLoad,
    during: BackgroundLoad,
    after: BackgroundLoad,
    newcomers: list[RawSession],
) -> CheckResult:
    sessions_text = formatting.count_of(session_count, "session")
    result = CheckResult(
        CheckOutcome.MISSED,
        "",
        remedy="refuse a session too many before taking any lock that steps or resets take",
        figures={
            "sessions": session_count,
            "knocks": len(newcomers),
            "stopped": len(during.stopped) + len(after.stopped),
            **background_figures(before, during),
            "step_after_s": after.step_s,
        },
    )
    for when, load in (("while others knocked", during), ("after others had knocked", after)):
        if load.stopped:
            answer, transcript = load.stopped[0]
            headline = f"{len(load.stopped):,} of {sessions_text} got no step done {when} in vain: {answer}"
            knocked = [session.transcript("one that knocked") for session in newcomers[-1:]]
            return replace(result, headline=headline, transcripts=(transcript, *knocked))
    pair = f"{formatting.seconds(before.step_s)} before and"
    for when, load in (("while others knocked", during), ("after others had knocked", after)):
        if load.much_slower_than(before):
            headline = f"a step took {pair} {formatting.seconds(load.step_s)} {when} in vain ({sessions_text} inside)"
            return replace(result, headline=headline)
    went_on = f"{sessions_text} went on" if session_count > 1 else "the session inside went on"
    headline = f"{went_on} while others knocked {len(newcomers):,} times in vain: "
    headline += f"a step took {pair} {formatting.seconds(during.step_s)} meanwhile"
    return replace(result, outcome=CheckOutcome.MET, headline=headline, remedy=None)


async def freed_slot(subject: Subject) -> CheckResult:
    """Free a slot of a full server in each way a session can end, and take it again."""
    return await with_full_server(subject, _check_freed_slot)


async def _check_freed_slot(client: RawClient, subject: Subject, sessions: list[RawSession]) -> CheckResult:
    mid_step_s = MID_STEP_S if await can_step(subject) else None
    total, endings = len(sessions), [clean_close(subject), *dropped_connections(mid_step_s)]
    for ending in endings:
        within_s = _SHORT_SLOT_RETURN_S if any(other.unreturned for other in endings) else SLOT_RETURN_LIMIT_S
        # The slot of a client that drops in mid-step is held until the step returns, as documented; any slot until
        # the environment's close() returns.
        within_s += MID_STEP_S + subject.slowest_single_s
        for _ in range(_REPEATS):
            if sessions and ending.unreturned is None:
                await time_slot_return(client, subject, sessions, ending, within_s)
    await close_all(sessions)
    return _judge_freed(total, endings)


def _judge_freed(total: int, endings: list[SessionEnd]) -> CheckResult:
    return_times = {
        ending.name: formatting.seconds(median(ending.took_s)) if ending.took_s else formatting.MISSING
        for ending in endings
    }
    tried = [ending for ending in endings if ending.took_s or ending.unreturned]
    result = CheckResult(
        CheckOutcome.MET,
        "a freed slot was usable after "
        + ", ".join(f"{return_times[ending.name]} ({ending.name})" for ending in tried),
        figures={
            "sessions": total,
            **{ending.figure: median(ending.took_s) if ending.took_s else None for ending in endings},
        },
        details=tuple(f"not tried, as no slot was left: {ending.name}" for ending in endings if ending not in tried),
    )
    unreturned = [ending for ending in endings if ending.unreturned is not None]
    if not unreturned:
        return result
    names = ", ".join(ending.name for ending in unreturned)
    returned = [f"usable again {return_times[ending.name]} after {ending.name}" for ending in tried if ending.took_s]
    return replace(
        result,
        outcome=CheckOutcome.MISSED,
        headline=f"a slot was not usable again within {SLOT_RETURN_LIMIT_S:g} s after {names}",
        remedy="give the slot back in a `finally` around the whole session, whatever ends it; "
        "see that the environment's close() returns",
        details=(*returned, *result.details),
        transcripts=tuple(ending.unreturned for ending in unreturned if ending.unreturned is not None),
    )
