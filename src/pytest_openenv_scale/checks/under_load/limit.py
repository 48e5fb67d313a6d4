"""Past its limit the server says so, those who are in go on, and a slot that is freed is usable again."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, replace
from statistics import median

from pytest_openenv_scale.checks.background import BackgroundLoad, single_session, step_in_background
from pytest_openenv_scale.checks.capacity_probe import SLOT_RETURN_LIMIT_S, Slots, find_slots
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .full_server import (
    MID_STEP_S,
    ONE,
    SessionEnd,
    clean_close,
    dropped_connections,
    limit_advice,
    slot_arithmetic,
    time_slot_return,
    with_full_server,
)

_ATTEMPTS = 8
"""Sessions too many whose refusal is looked at."""

_PROMPT_S, _PROMPT_FACTOR = 2.0, 5.0
"""A refusal is late where its median is beyond both: so many seconds, and so many times a lone session's reset."""

_FULL_WORDS = re.compile(r"capacity|too many|maximum|max_|limit|full|busy|slots?\b|sessions? (active|already)", re.I)

_BEFORE_S, _DURING_S, _AFTER_S = 0.5, 2.0, 0.5
_KNOCKERS, _KNOCK_PAUSE_S = 4, 0.05
"""How long sessions are watched in each phase; how many knock meanwhile, and their pause between two attempts."""

_TIMES, _SHORT_FREE_S = 3, 5.0
"""How often a slot is freed in each way; how long one is waited for, in seconds, where another was not given back."""

_REFUSE = "before anything else of a session, send {'type': 'error', 'data': {'code': 'CAPACITY_REACHED', …}} and close"


async def refusal(subject: Subject) -> CheckResult:
    """Ask for one session too many, and again: each must hear at once, and clearly, that the server is full."""
    return await with_full_server(subject, _refusal)


async def _refusal(client: RawClient, subject: Subject, held: list[RawSession]) -> CheckResult:
    found = await subject.ask_once(find_slots)
    knocks: list[_OpenAttempt] = []
    while len(knocks) < _ATTEMPTS and len(held) <= subject.max_sessions:
        knock = await _attempt_open(client, subject)
        if knock.answer.kind == "observation":
            # Another worker had room, or a slot came back late.
            held.append(knock.session)
            continue
        knocks.append(knock)
        if knock.answer.kind == "silence":
            break
    await close_all(held)
    if not knocks:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"the server let {formatting.count_of(len(held), 'session')} in where it had refused at {found.open:,}",
        )
    reset_s = (await subject.ask_once(single_session)).reset.latency_s or 0.0
    return _judge_refusal(subject, found, len(held), knocks, reset_s)


@dataclass(frozen=True, slots=True)
class _OpenAttempt:
    """One session too many: what it was told, and how long after it began to connect, in seconds."""

    session: RawSession
    answer: Answer
    took_s: float


async def _attempt_open(client: RawClient, subject: Subject) -> _OpenAttempt:
    began = time.perf_counter()
    session = await client.start(subject.reset_data(subject.seed))
    took_s = time.perf_counter() - began
    if session.first_answer.kind != "observation":
        session.drop()
    return _OpenAttempt(session, session.first_answer, took_s)


def _judge_refusal(
    subject: Subject, found: Slots, held: int, knocks: list[_OpenAttempt], reset_s: float
) -> CheckResult:
    first = f"the {_ordinal(held + 1)} session"
    took_s = median([knock.took_s for knock in knocks])
    unclear = [knock for knock in knocks if not _clear(knock.answer)]
    worst = unclear[0] if unclear else knocks[0]
    base = CheckResult(
        CheckOutcome.MISSED,
        "",
        details=tuple(filter(None, (slot_arithmetic(subject, found), *_said(knocks)))),
        figures={
            "sessions": held,
            "limit_told": found.limit,
            "refused": len(knocks),
            "unclear": len(unclear),
            "refusal_s": took_s,
            "slowest_refusal_s": max(knock.took_s for knock in knocks),
            "answer": str(worst.answer),
        },
        transcripts=(worst.session.transcript("the session that was not let in"),),
    )
    if worst.answer.kind == "silence":
        said = f"{first} was neither let in nor refused within {subject.patience_s:g} s"
        return replace(base, headline=said, remedy=f"refuse what does not fit instead of queueing it: {_REFUSE}")
    # One connection of many may be cut on its way; two are a habit.
    if len(unclear) > 1 or len(unclear) == len(knocks):
        said = f"{first} was not told that the server is full; what its client sees is: {worst.answer}"
        return replace(base, headline=said, remedy=_REFUSE)
    if took_s > max(_PROMPT_S, _PROMPT_FACTOR * reset_s):
        said = f"{first} was refused only after {formatting.seconds(took_s)} ({worst.answer})"
        return replace(
            base, headline=said, remedy="look for a free slot before the environment is made, and refuse then"
        )
    told = next(knock.answer for knock in knocks if _clear(knock.answer))
    said = f"{first} was refused in {formatting.seconds(took_s)}: {told.code or told}"
    if held == 1:
        said = f"{ONE}; the next one was refused in {formatting.seconds(took_s)}: {told.code or told}"
    elif (sum_ := slot_arithmetic(subject, found)) is not None:
        said += f" ({sum_})"
    return replace(base, outcome=CheckOutcome.MET, headline=said, remedy=limit_advice(subject, found), transcripts=())


def _clear(answer: Answer) -> bool:
    """Whether a client can tell from this that the server is full, or at least that it was turned away."""
    if answer.retryable:
        return True
    if answer.kind == "error":
        return _FULL_WORDS.search(f"{answer.code} {answer.message}") is not None
    if answer.kind == "closed":
        return answer.code == "1013" or bool(answer.message)
    return answer.kind == "lost" and answer.code == "403"


def _said(knocks: list[_OpenAttempt]) -> list[str]:
    """Say what refusals other than OpenEnv's were, and how many."""
    texts = [str(knock.answer) for knock in knocks if not (knock.answer.retryable or knock.answer.kind == "silence")]
    found = [f"{texts.count(text)} of {len(knocks)} were answered: {text}" for text in dict.fromkeys(texts)]
    if any(knock.answer.code == "403" for knock in knocks):
        found.append("HTTP 403 refuses, but does not say why; 503, or CAPACITY_REACHED after accepting, would")
    return found


def _ordinal(number: int) -> str:
    """Return 1st, 2nd, 17th."""
    tens = number % 100 in (11, 12, 13)
    return f"{number:,}{'th' if tens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


async def others_go_on(subject: Subject) -> CheckResult:
    """Let the sessions that are in step before, while and after others knock in vain."""
    return await with_full_server(subject, _others_go_on)


async def _others_go_on(client: RawClient, subject: Subject, held: list[RawSession]) -> CheckResult:
    before = await step_in_background(subject, held, _BEFORE_S)
    if before.stopped:
        await close_all(held)
        said = f"a session among {len(held):,} did not step before anybody knocked: {before.stopped[0][0]}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said, transcripts=(before.stopped[0][1],))
    knockers = _OpenAttempts(client, subject)
    knocking = [asyncio.create_task(knockers.attempt()) for _ in range(_KNOCKERS)]
    during = await step_in_background(subject, held, _DURING_S)
    for task in knocking:
        task.cancel()
    await asyncio.gather(*knocking, return_exceptions=True)
    after = await step_in_background(subject, during.still_playing, _AFTER_S)
    await close_all(list(after.still_playing))
    return _judge_others(len(held), before, during, after, knockers)


class _OpenAttempts:
    """Clients that ask for a session again and again; one that gets in after all leaves at once."""

    def __init__(self, client: RawClient, subject: Subject) -> None:
        self._client, self._subject = client, subject
        self.knocks = 0
        self.last: RawSession | None = None

    async def attempt(self) -> None:
        """Knock until cancelled."""
        while True:
            session = self.last = await self._client.connect()
            self.knocks += 1
            try:
                answer = session.first_answer
                if answer.kind == "opened":
                    answer = await session.reset(self._subject.reset_data(self._subject.seed))
                if answer.kind == "observation":
                    await session.close()
            finally:
                session.drop()
            await asyncio.sleep(_KNOCK_PAUSE_S)


def _judge_others(
    held: int, before: BackgroundLoad, during: BackgroundLoad, after: BackgroundLoad, knockers: _OpenAttempts
) -> CheckResult:
    inside = formatting.count_of(held, "session")
    result = CheckResult(
        CheckOutcome.MISSED,
        "",
        remedy="refuse a session too many before taking any lock that steps or resets take",
        figures={
            "sessions": held,
            "knocks": knockers.knocks,
            "stopped": len(during.stopped) + len(after.stopped),
            "step_before_s": before.step_s,
            "step_during_s": during.step_s,
            "step_after_s": after.step_s,
            "slowest_step_during_s": during.slowest_s,
        },
    )
    for when, found in (("while others knocked", during), ("after others had knocked", after)):
        if found.stopped:
            answer, transcript = found.stopped[0]
            said = f"{len(found.stopped):,} of {inside} got no step done {when} in vain: {answer}"
            shown = (knockers.last.transcript("one that knocked"),) if knockers.last is not None else ()
            return replace(result, headline=said, transcripts=(transcript, *shown))
    pair = f"{formatting.seconds(before.step_s)} before and"
    for when, found in (("while others knocked", during), ("after others had knocked", after)):
        if found.much_slower_than(before):
            said = f"a step took {pair} {formatting.seconds(found.step_s)} {when} in vain ({inside} inside)"
            return replace(result, headline=said)
    went_on = f"{inside} went on" if held > 1 else "the session inside went on"
    said = f"{went_on} while others knocked {knockers.knocks:,} times in vain: "
    said += f"a step took {pair} {formatting.seconds(during.step_s)} meanwhile"
    return replace(result, outcome=CheckOutcome.MET, headline=said, remedy=None)


async def freed_slot(subject: Subject) -> CheckResult:
    """Free a slot of a full server in each way a session can end, and take it again."""
    return await with_full_server(subject, _freed_slot)


async def _freed_slot(client: RawClient, subject: Subject, held: list[RawSession]) -> CheckResult:
    total, ways = len(held), [clean_close(), *dropped_connections(MID_STEP_S)]
    for way in ways:
        within_s = _SHORT_FREE_S if any(other.kept for other in ways) else SLOT_RETURN_LIMIT_S
        # The slot of a client that drops in mid-step is held until the step returns, as documented; any slot until
        # the environment's close() does.
        within_s += MID_STEP_S + subject.slowest_single_s
        for _ in range(_TIMES):
            if held and way.kept is None:
                await time_slot_return(client, subject, held, way, within_s)
    await close_all(held)
    return _judge_freed(total, ways)


def _judge_freed(total: int, ways: list[SessionEnd]) -> CheckResult:
    texts = {way.name: formatting.seconds(median(way.took_s)) if way.took_s else formatting.MISSING for way in ways}
    tried = [way for way in ways if way.took_s or way.kept]
    result = CheckResult(
        CheckOutcome.MET,
        "a freed slot was usable after " + ", ".join(f"{texts[way.name]} ({way.name})" for way in tried),
        figures={"sessions": total, **{way.figure: median(way.took_s) if way.took_s else None for way in ways}},
        details=tuple(f"not tried, as no slot was left: {way.name}" for way in ways if way not in tried),
    )
    kept = [way for way in ways if way.kept is not None]
    if not kept:
        return result
    names = ", ".join(way.name for way in kept)
    back = [f"usable again {texts[way.name]} after {way.name}" for way in tried if way.took_s]
    return replace(
        result,
        outcome=CheckOutcome.MISSED,
        headline=f"a slot was not usable again within {SLOT_RETURN_LIMIT_S:g} s after {names}",
        remedy="give the slot back in a `finally` around the whole session, whatever ends it; "
        "see that the environment's close() returns",
        details=(*back, *result.details),
        transcripts=tuple(way.kept for way in kept if way.kept is not None),
    )
