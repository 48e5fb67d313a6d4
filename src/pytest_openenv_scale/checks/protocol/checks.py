"""Whether a server answers what no client should send as OpenEnv does, and goes on.

Each case of `standard.CASES` is played in a session of its own. There must be an answer and it must be OpenEnv's; after
it the session goes on where OpenEnv's does, and a new session works in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_openenv_scale.checks.background import SingleSession, quick_action, single_session
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .cases import ANY_ERROR, CASES, VERSIONS, Case, LackError
from .play import UNORDERED, play

_PATIENCE_S, _PATIENCE_FACTOR = 5.0, 5.0
"""An answer to a single wrong message takes no work: shorter than other checks wait, as there are many cases."""

_CLOSING_S, _PAUSE_S = 0.5, 0.05
"""How long a server may take to close after its last word; pause between attempts to get a slot."""


def patience_s(subject: Subject, case: Case) -> float:
    """Return how long each answer of a case may take, in seconds."""
    if case.crowd:
        return subject.patience_s
    return min(subject.timeout_s, max(_PATIENCE_S, _PATIENCE_FACTOR * subject.slowest_single_s))


def check_of(case: Case) -> Check:
    """Return the check that asks one case."""

    async def check(subject: Subject) -> CheckResult:
        return await _ask(subject, case)

    return check


CHECKS: Mapping[str, Check] = {case.id: check_of(case) for case in CASES}
"""Every case by its id, as a check."""


@dataclass(slots=True)
class _CaseFindings:
    """What became of a case; `faults` are sentences, in the order they were found, `doubt` is why it cannot be told."""

    answer: Answer
    doubt: str | None = None
    then: str = ""
    goes_on: bool | None = None
    new: Answer | None = None
    faults: list[str] = field(default_factory=list[str])
    transcripts: list[Transcript] = field(default_factory=list[Transcript])


async def _ask(subject: Subject, case: Case) -> CheckResult:
    alone = await subject.ask_once(single_session)
    async with subject.client(patience_s(subject, case)) as client:
        try:
            played = await _played(client, subject, case, alone)
        except LackError as lack:
            return CheckResult(CheckOutcome.SKIPPED, f"{case.what} cannot be asked of this server: {lack}")
        if isinstance(played, str):
            return CheckResult(CheckOutcome.INCONCLUSIVE, f"no session to ask it in: {played}", details=(case.means,))
        return _result(case, played)


async def _played(client: RawClient, subject: Subject, case: Case, alone: SingleSession) -> _CaseFindings | str:
    """Play a case and look at what is left; return why it could not be played where no session was to be had."""
    asked = await _asked(client, subject, case, alone)
    session, answer, other = asked.session, asked.answer, asked.other
    if not asked.ready:
        await _part(session)
        return str(answer)
    found = _CaseFindings(answer)
    if answer.kind == "silence" and session.connection.backed_up:
        found.doubt = f"only a part of it was taken: {answer}"
    elif fault := _fault(case, answer):
        found.faults.append(fault)
    if answer.kind != "silence" and not answer.ended:
        await _afterwards(found, case, session, subject)
    found.transcripts.append(session.transcript(f"the session with {case.what}"))
    await _part(session)
    if other is not None:
        await _the_other(found, other, subject)
    await _a_new_one(found, client, subject)
    return found


@dataclass(frozen=True, slots=True)
class _CaseSession:
    """A session with the answer to its case; `ready` tells whether the case came to be asked, `other` is beside it."""

    session: RawSession
    answer: Answer
    ready: bool
    other: RawSession | None


async def _asked(client: RawClient, subject: Subject, case: Case, alone: SingleSession) -> _CaseSession:
    """Open a session and play the case in it.

    A server that is full is asked again for a while: slots of earlier sessions may come back late.
    """
    deadline = time.perf_counter() + patience_s(subject, case)
    while True:
        session, other = await client.connect(), None
        answer = session.first_answer
        if answer.kind == "opened" and not case.first:
            answer = await session.reset(subject.reset_data(subject.seed))
        ready = answer.kind in ("opened", "observation")
        if ready:
            other = await _another(client, subject) if case.crowd else None
            try:
                answer = await play(case, session, subject, alone)
            except LackError:
                await _part(session)
                raise
        if not answer.retryable or time.perf_counter() > deadline:
            return _CaseSession(session, answer, ready and not answer.retryable, other)
        await _part(session)
        await asyncio.sleep(_PAUSE_S)


async def _part(session: RawSession) -> None:
    """Take leave in good order, so that no slot depends on how the server takes a dropped socket."""
    await session.close(patience_s=1.0)


# Judging


def _word(answer: Answer) -> str:
    """Return an answer in the words of the table."""
    if answer.kind == "error":
        return answer.code or "an error frame without a code"
    return f"closed {answer.code}" if answer.kind == "closed" else answer.kind


def _said(answer: Answer) -> str:
    """Return an answer in the words of a headline."""
    match answer.kind:
        case "error":
            return _word(answer)
        case "closed" | "silence" | "lost":
            return str(answer)
        case kind if kind == UNORDERED:
            return f"answers out of order ({answer.message})"
        case "unreadable":
            return str(answer)
        case kind:
            return f"{_a(kind)} ({answer.message})" if answer.message else _a(kind)


def _a(kind: str) -> str:
    return f"an {kind}" if kind.startswith(tuple("aeiou")) else f"a {kind}"


def _openenv(case: Case) -> str:
    """Say what OpenEnv does: "says INVALID_JSON and the session goes on"."""
    kind, _, code = case.openenv.partition(" ")
    if kind == "closed":
        return f"closes with {code}"
    said = f"answers with {_a(kind)}" if kind.islower() else f"says {kind}"
    return f"{said} and the session goes on" if case.goes_on else said


def _fault(case: Case, answer: Answer) -> str | None:
    """Say what is wrong with the answer to a case."""
    word = _word(answer)
    if word in (case.openenv, *case.also) or (answer.kind == "error" and ANY_ERROR in case.also):
        return None
    return f"{_said(answer)} where OpenEnv {_openenv(case)}"


async def _afterwards(found: _CaseFindings, case: Case, session: RawSession, subject: Subject) -> None:
    """See whether the session goes on, or ends as OpenEnv's does."""
    if not case.goes_on:
        end = await session.next_answer(patience_s=_CLOSING_S)
        if end.ended:
            found.then, found.goes_on = f"then {end}", False
            return
    asked, answer = "reset", await session.reset(subject.reset_data(subject.seed))
    if answer.kind == "observation":
        asked, answer = "step", await session.step(quick_action(subject, 0, 0))
    if answer.kind == "observation":
        found.then, found.goes_on = "the session goes on", True
    elif case.goes_on:
        found.faults.append(f"the session does not go on: the {asked} after it got {_said(answer)}")
        found.goes_on = False
    elif answer.kind == "silence":
        found.faults.append(f"the session neither ends nor goes on: the {asked} after it got {_said(answer)}")
    else:
        found.then, found.goes_on = f"then {answer}", False


# Others


async def _another(client: RawClient, subject: Subject) -> RawSession | None:
    """Open a session beside the one of the case, where one fits."""
    session = await client.start(subject.reset_data(subject.seed))
    if session.first_answer.kind == "observation":
        return session
    await _part(session)
    return None


async def _the_other(found: _CaseFindings, other: RawSession, subject: Subject) -> None:
    """Take a step in the session that was open beside the case."""
    answer = await other.step(quick_action(subject, 0, 0))
    if answer.kind == "observation":
        found.then = ", ".join(filter(None, (found.then, "another session goes on")))
    else:
        found.faults.append(f"a session beside it got {_said(answer)} for its next step")
        found.transcripts.append(other.transcript("the session beside it"))
    await _part(other)


async def _a_new_one(found: _CaseFindings, client: RawClient, subject: Subject) -> None:
    """Open a new session and play a step; a server that says that it is full is alive."""
    began = time.perf_counter()
    while True:
        session = await client.start(subject.reset_data(subject.seed))
        found.new = session.first_answer
        if not found.new.retryable or time.perf_counter() - began > _PATIENCE_S:
            break
        await _part(session)
        await asyncio.sleep(_PAUSE_S)
    if found.new.kind == "observation":
        found.new = await session.step(quick_action(subject, 0, 0))
    if found.new.kind != "observation" and not found.new.retryable:
        found.faults.append(f"a new session does not work: {found.new}")
        found.transcripts.append(session.transcript("a new session after it"))
    await _part(session)


# The result


def _result(case: Case, found: _CaseFindings) -> CheckResult:
    answer, new = found.answer, found.new
    figures = {
        "answer": _word(answer),
        "answer_s": answer.latency_s,
        "session_goes_on": found.goes_on,
        "new_session_works": new is not None and new.kind == "observation",
    }
    full = f"a new session is refused with {_said(new)}" if new is not None and new.retryable else ""
    if found.faults:
        first, *more = found.faults
        words = (f"the server's words: {answer}",) if answer.message and answer.kind == "error" else ()
        if answer.kind == "silence" and new is not None and new.kind == "observation":
            words = ("a new session is answered meanwhile: it is this session that hangs",)
        return CheckResult(
            CheckOutcome.MISSED,
            f"{case.what}: {first}",
            remedy=case.remedy,
            details=(*more, *words, *filter(None, (full,)), case.means),
            figures=figures,
            transcripts=tuple(found.transcripts),
        )
    details = (f"OpenEnv {VERSIONS} {_openenv(case)}", case.means)
    if found.doubt is not None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"{case.what}: {found.doubt}", details=details, figures=figures)
    after = f" after {formatting.seconds(answer.latency_s)}" if answer.latency_s is not None else ""
    said = (f"{_said(answer)}{after}", *filter(None, (found.then, full)))
    return CheckResult(CheckOutcome.MET, f"{case.what}: {', '.join(said)}", details=details, figures=figures)
