"""Whether a server answers what no client should send as OpenEnv does, and goes on.

Each case of `cases.CASES` is played in a session of its own. There must be an answer and it must be OpenEnv's; after
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

from .cases import ANY_ERROR, CASES, OPENENV_VERSIONS, Case, CaseNotApplicableError
from .play import OUT_OF_ORDER, play

_PATIENCE_S, _PATIENCE_FACTOR = 5.0, 5.0
"""Answering a wrong message takes no work: the timeout is shorter than in other checks, as there are many cases."""

_CLOSING_S, _PAUSE_S = 0.5, 0.05
"""How long a server may take to close after its last message; the pause between attempts to get a slot; in seconds."""


def patience_s(subject: Subject, case: Case) -> float:
    """Return the timeout of each answer of a case, in seconds."""
    if case.with_bystander:
        return subject.patience_s
    return min(subject.timeout_s, max(_PATIENCE_S, _PATIENCE_FACTOR * subject.slowest_single_s))


def case_check(case: Case) -> Check:
    """Return the check that plays one case."""

    async def check(subject: Subject) -> CheckResult:
        return await _check_case(subject, case)

    return check


CHECKS: Mapping[str, Check] = {case.id: case_check(case) for case in CASES}
"""Every case by its id, as a check."""


@dataclass(slots=True)
class _CaseFindings:
    """What a case showed: `faults` are sentences in the order they were found, `doubt` says why it cannot be judged."""

    answer: Answer
    doubt: str | None = None
    aftermath: str = ""
    goes_on: bool | None = None
    new_session: Answer | None = None
    faults: list[str] = field(default_factory=list[str])
    transcripts: list[Transcript] = field(default_factory=list[Transcript])


async def _check_case(subject: Subject, case: Case) -> CheckResult:
    single = await subject.learn(single_session)
    async with subject.client(patience_s(subject, case)) as client:
        try:
            played = await _play_and_inspect(client, subject, case, single)
        except CaseNotApplicableError as reason:
            return CheckResult(CheckOutcome.SKIPPED, f"{case.description} cannot be asked of this server: {reason}")
        if isinstance(played, str):
            return CheckResult(CheckOutcome.INCONCLUSIVE, f"no session to ask it in: {played}", details=(case.meaning,))
        return _result(case, played)


async def _play_and_inspect(
    client: RawClient, subject: Subject, case: Case, single: SingleSession
) -> _CaseFindings | str:
    """Play a case and inspect what follows; return the refusal as text where no session could be opened."""
    opened = await _open_and_play(client, subject, case, single)
    session, answer, bystander = opened.session, opened.answer, opened.bystander
    if not opened.played:
        await _close(session)
        return str(answer)
    findings = _CaseFindings(answer)
    if answer.kind == "silence" and session.connection.has_unsent_bytes:
        findings.doubt = f"only a part of it was taken: {answer}"
    elif fault := _fault(case, answer):
        findings.faults.append(fault)
    if answer.kind != "silence" and not answer.ended:
        await _inspect_session_afterwards(findings, case, session, subject)
    findings.transcripts.append(session.transcript(f"the session with {case.description}"))
    await _close(session)
    if bystander is not None:
        await _step_bystander(findings, bystander, subject)
    await _play_new_session(findings, client, subject)
    return findings


@dataclass(frozen=True, slots=True)
class _CaseSession:
    """A session with the answer to its case; `played` tells whether it was played, `bystander` is open beside it."""

    session: RawSession
    answer: Answer
    played: bool
    bystander: RawSession | None


async def _open_and_play(client: RawClient, subject: Subject, case: Case, single: SingleSession) -> _CaseSession:
    """Open a session and play the case in it.

    A full server is tried again for a while: slots of earlier sessions may come back late.
    """
    deadline = time.perf_counter() + patience_s(subject, case)
    while True:
        session, bystander = await client.connect(), None
        answer = session.first_answer
        if answer.kind == "opened" and not case.before_reset:
            answer = await session.reset(subject.reset_data(subject.seed))
        played = answer.kind in ("opened", "observation")
        if played:
            bystander = await _open_bystander(client, subject) if case.with_bystander else None
            try:
                answer = await play(case, session, subject, single)
            except CaseNotApplicableError:
                await _close(session)
                raise
        if not answer.retryable or time.perf_counter() > deadline:
            return _CaseSession(session, answer, played and not answer.retryable, bystander)
        await _close(session)
        await asyncio.sleep(_PAUSE_S)


async def _close(session: RawSession) -> None:
    """Close with a close message, so that no slot depends on how the server takes a dropped socket."""
    await session.close(patience_s=1.0)


# Judging


def _answer_label(answer: Answer) -> str:
    """Return an answer as the table of cases writes it."""
    if answer.kind == "error":
        return answer.code or "an error frame without a code"
    return f"closed {answer.code}" if answer.kind == "closed" else answer.kind


def _answer_text(answer: Answer) -> str:
    """Return an answer as a headline writes it."""
    match answer.kind:
        case "error":
            return _answer_label(answer)
        case "closed" | "silence" | "lost":
            return str(answer)
        case kind if kind == OUT_OF_ORDER:
            return f"answers out of order ({answer.message})"
        case "unreadable":
            return str(answer)
        case kind:
            return f"{_with_article(kind)} ({answer.message})" if answer.message else _with_article(kind)


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind.startswith(tuple("aeiou")) else f"a {kind}"


def _expected_text(case: Case) -> str:
    """Return what OpenEnv does: "says INVALID_JSON and the session goes on"."""
    kind, _, code = case.expected.partition(" ")
    if kind == "closed":
        return f"closes with {code}"
    text = f"answers with {_with_article(kind)}" if kind.islower() else f"says {kind}"
    return f"{text} and the session goes on" if case.goes_on else text


def _fault(case: Case, answer: Answer) -> str | None:
    """Return what is wrong with the answer to a case; None where nothing is."""
    label = _answer_label(answer)
    if label in (case.expected, *case.also_accepted) or (answer.kind == "error" and ANY_ERROR in case.also_accepted):
        return None
    return f"{_answer_text(answer)} where OpenEnv {_expected_text(case)}"


async def _inspect_session_afterwards(
    findings: _CaseFindings, case: Case, session: RawSession, subject: Subject
) -> None:
    """Check that the session goes on, or ends where OpenEnv's does."""
    if not case.goes_on:
        end = await session.next_answer(patience_s=_CLOSING_S)
        if end.ended:
            findings.aftermath, findings.goes_on = f"then {end}", False
            return
    request, answer = "reset", await session.reset(subject.reset_data(subject.seed))
    if answer.kind == "observation":
        request, answer = "step", await session.step(quick_action(subject, 0, 0))
    if answer.kind == "observation":
        findings.aftermath, findings.goes_on = "the session goes on", True
    elif case.goes_on:
        findings.faults.append(f"the session does not go on: the {request} after it got {_answer_text(answer)}")
        findings.goes_on = False
    elif answer.kind == "silence":
        findings.faults.append(
            f"the session neither ends nor goes on: the {request} after it got {_answer_text(answer)}"
        )
    else:
        findings.aftermath, findings.goes_on = f"then {answer}", False


# Others


async def _open_bystander(client: RawClient, subject: Subject) -> RawSession | None:
    """Open a session beside the one of the case, where one fits."""
    session = await client.start(subject.reset_data(subject.seed))
    if session.first_answer.kind == "observation":
        return session
    await _close(session)
    return None


async def _step_bystander(findings: _CaseFindings, bystander: RawSession, subject: Subject) -> None:
    """Take a step in the session that was open beside the case."""
    answer = await bystander.step(quick_action(subject, 0, 0))
    if answer.kind == "observation":
        findings.aftermath = ", ".join(filter(None, (findings.aftermath, "another session goes on")))
    else:
        findings.faults.append(f"a session beside it got {_answer_text(answer)} for its next step")
        findings.transcripts.append(bystander.transcript("the session beside it"))
    await _close(bystander)


async def _play_new_session(findings: _CaseFindings, client: RawClient, subject: Subject) -> None:
    """Open a new session and take a step; a server that answers that it is full works too."""
    began = time.perf_counter()
    while True:
        session = await client.start(subject.reset_data(subject.seed))
        findings.new_session = session.first_answer
        if not findings.new_session.retryable or time.perf_counter() - began > _PATIENCE_S:
            break
        await _close(session)
        await asyncio.sleep(_PAUSE_S)
    if findings.new_session.kind == "observation":
        findings.new_session = await session.step(quick_action(subject, 0, 0))
    if findings.new_session.kind != "observation" and not findings.new_session.retryable:
        findings.faults.append(f"a new session does not work: {findings.new_session}")
        findings.transcripts.append(session.transcript("a new session after it"))
    await _close(session)


# The result


def _result(case: Case, findings: _CaseFindings) -> CheckResult:
    answer, new_session = findings.answer, findings.new_session
    figures = {
        "answer": _answer_label(answer),
        "answer_s": answer.latency_s,
        "session_goes_on": findings.goes_on,
        "new_session_works": new_session is not None and new_session.kind == "observation",
    }
    full_server = (
        f"a new session is refused with {_answer_text(new_session)}"
        if new_session is not None and new_session.retryable
        else ""
    )
    if findings.faults:
        first, *more = findings.faults
        remarks = (f"the server's words: {answer}",) if answer.message and answer.kind == "error" else ()
        if answer.kind == "silence" and new_session is not None and new_session.kind == "observation":
            remarks = ("a new session is answered meanwhile: it is this session that hangs",)
        return CheckResult(
            CheckOutcome.MISSED,
            f"{case.description}: {first}",
            remedy=case.remedy,
            details=(*more, *remarks, *filter(None, (full_server,)), case.meaning),
            figures=figures,
            transcripts=tuple(findings.transcripts),
        )
    details = (f"OpenEnv {OPENENV_VERSIONS} {_expected_text(case)}", case.meaning)
    if findings.doubt is not None:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE, f"{case.description}: {findings.doubt}", details=details, figures=figures
        )
    delay = f" after {formatting.seconds(answer.latency_s)}" if answer.latency_s is not None else ""
    parts = (f"{_answer_text(answer)}{delay}", *filter(None, (findings.aftermath, full_server)))
    return CheckResult(CheckOutcome.MET, f"{case.description}: {', '.join(parts)}", details=details, figures=figures)
