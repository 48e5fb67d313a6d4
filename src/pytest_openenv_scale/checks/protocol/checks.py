"""Whether a server answers what no client should send as OpenEnv does, and goes on.

Each case of `cases.CASES` is played in a session of its own. There must be an answer and it must be OpenEnv's; after
it the session goes on where OpenEnv's does, and a new session works in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pytest_openenv_scale.checks.background import can_step, quick_action
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .cases import ANY_ERROR, CASES, OPENENV_VERSIONS, Case, CaseNotApplicableError
from .play import OUT_OF_ORDER, STEPPING, play

_PATIENCE_S, _PATIENCE_FACTOR = 5.0, 5.0
"""Answering a wrong message takes no work: the timeout is shorter than in other checks, as there are many cases."""

_CLOSING_S, _PAUSE_S = 0.5, 0.05
"""How long a server may take to close after its last message; the pause between attempts to get a slot; in seconds."""


@dataclass(slots=True)
class _CasePlay:
    """A case that is played on a server, and what it showed.

    `faults` are sentences in the order they were found, `doubt` says why it cannot be judged. `bystander` is a session
    open beside the one of the case. Only `with_steps` sessions are asked for a step; else a reset tells if they go on.
    """

    client: RawClient
    subject: Subject
    case: Case
    answer: Answer = field(default_factory=lambda: Answer("silence"))
    doubt: str | None = None
    aftermath: str = ""
    goes_on: bool | None = None
    bystander: RawSession | None = None
    new_session: Answer | None = None
    with_steps: bool = True
    faults: list[str] = field(default_factory=list[str])
    transcripts: list[Transcript] = field(default_factory=list[Transcript])

    @property
    def reset_data(self) -> dict[str, Any]:
        """The reset data of every session."""
        return self.subject.reset_data(self.subject.seed)

    async def run(self) -> CheckResult:
        """Play the case and inspect what follows."""
        case = self.case
        try:
            session, played = await self._open_and_play()
        except CaseNotApplicableError as reason:
            return CheckResult(CheckOutcome.SKIPPED, f"{case.description} cannot be asked of this server: {reason}")
        if not played:
            await _close(session)
            headline = f"no session to ask it in: {self.answer}"
            return CheckResult(CheckOutcome.INCONCLUSIVE, headline, details=(case.meaning,))
        if self.answer.kind == "silence" and session.connection.has_unsent_bytes:
            self.doubt = f"only a part of it was taken: {self.answer}"
        elif fault := _fault(case, self.answer):
            self.faults.append(fault)
        if self.answer.kind != "silence" and not self.answer.ended:
            await self._inspect_session_afterwards(session)
        self.transcripts.append(session.transcript(f"the session with {case.description}"))
        await _close(session)
        if self.bystander is not None:
            await self._step_bystander(self.bystander)
        await self._play_new_session()
        return _result(self)

    async def _open_and_play(self) -> tuple[RawSession, bool]:
        """Open a session and play the case in it; return it, and whether the case was played.

        A full server is tried again for a while: slots of earlier sessions may come back late.
        """
        deadline = time.perf_counter() + _case_patience_s(self.subject, self.case)
        while True:
            session = await self.client.connect()
            self.answer = session.first_answer
            if self.answer.kind == "opened" and not self.case.before_reset:
                self.answer = await session.reset(self.reset_data)
            played = self.answer.kind in ("opened", "observation")
            if played:
                self.bystander = await self._open_bystander() if self.case.with_bystander else None
                try:
                    self.answer = await play(self.case, session, self.subject)
                except CaseNotApplicableError:
                    await _close(session)
                    raise
            if not self.answer.retryable or time.perf_counter() > deadline:
                return session, played and not self.answer.retryable
            await _close(session)
            await asyncio.sleep(_PAUSE_S)

    async def _open_bystander(self) -> RawSession | None:
        """Open a session beside the one of the case, where one fits."""
        session = await self.client.start(self.reset_data)
        if session.first_answer.kind == "observation":
            return session
        await _close(session)
        return None

    async def _inspect_session_afterwards(self, session: RawSession) -> None:
        """Check that the session goes on, or ends where OpenEnv's does."""
        if not self.case.goes_on:
            end = await session.next_answer(patience_s=_CLOSING_S)
            if end.ended:
                self.aftermath, self.goes_on = f"then {end}", False
                return
        request, answer = "reset", await session.reset(self.reset_data)
        if answer.kind == "observation" and self.with_steps:
            request, answer = "step", await session.step(quick_action(self.subject, session, 0, number=0))
        self.goes_on = False
        got = f"the {request} after it got {_answer_text(answer)}"
        if answer.kind == "observation":
            self.aftermath, self.goes_on = "the session goes on", True
        elif self.case.goes_on:
            self.faults.append(f"the session does not go on: {got}")
        elif answer.kind == "silence":
            self.faults.append(f"the session neither ends nor goes on: {got}")
            self.goes_on = None
        else:
            self.aftermath = f"then {answer}"

    async def _step_bystander(self, bystander: RawSession) -> None:
        """Take a step in the session that was open beside the case."""
        answer = await bystander.step(quick_action(self.subject, bystander, 0, number=0))
        if answer.kind == "observation":
            self.aftermath = ", ".join(filter(None, (self.aftermath, "another session goes on")))
        else:
            self.faults.append(f"a session beside it got {_answer_text(answer)} for its next step")
            self.transcripts.append(bystander.transcript("the session beside it"))
        await _close(bystander)

    async def _play_new_session(self) -> None:
        """Open a new session and take a step; a server that answers that it is full works too."""
        session = await self.client.start_when_free(self.reset_data, within_s=_PATIENCE_S)
        answer = session.first_answer
        if answer.kind == "observation" and self.with_steps:
            answer = await session.step(quick_action(self.subject, session, 0, number=0))
        if answer.kind != "observation" and not answer.retryable:
            self.faults.append(f"a new session does not work: {answer}")
            self.transcripts.append(session.transcript("a new session after it"))
        self.new_session = answer
        await _close(session)


async def check_case(case: Case, subject: Subject, *, with_steps: bool = True) -> CheckResult:
    """Play a case, in a session of its own, and see that the server goes on.

    Without steps a reset tells whether sessions go on; so it does where steps of a lone session are not answered, and
    a case that is one is not asked then.
    """
    steps_play = await can_step(subject)
    if case.id in STEPPING and not steps_play:
        headline = f"not asked: {case.description} needs a step that is answered"
        return CheckResult(CheckOutcome.SKIPPED, headline, unmet="steps")
    async with subject.client(_case_patience_s(subject, case)) as client:
        return await _CasePlay(client, subject, case, with_steps=with_steps and steps_play).run()


def _case_patience_s(subject: Subject, case: Case) -> float:
    """Return the timeout of each answer of a case, in seconds."""
    if case.with_bystander:
        return subject.patience_s
    return min(subject.timeout_s, max(_PATIENCE_S, _PATIENCE_FACTOR * subject.slowest_single_s))


CHECKS: Mapping[str, Check] = {case.id: partial(check_case, case) for case in CASES}
"""Every case by its id, as a check."""


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


def _result(findings: _CasePlay) -> CheckResult:
    case, answer, new_session = findings.case, findings.answer, findings.new_session
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
        headline = f"{case.description}: {findings.doubt}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline, details=details, figures=figures)
    delay = f" after {formatting.seconds(answer.latency_s)}" if answer.latency_s is not None else ""
    parts = (f"{_answer_text(answer)}{delay}", *filter(None, (findings.aftermath, full_server)))
    return CheckResult(CheckOutcome.MET, f"{case.description}: {', '.join(parts)}", details=details, figures=figures)
