"""How a case of the protocol is played in a session: the answer that counts comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from pytest_openenv_scale.checks.background import SingleSession, quick_action
from pytest_openenv_scale.checks.session import Answer, RawSession, silence_answer
from pytest_openenv_scale.checks.subject import Subject

from . import cases as protocol_cases
from .cases import Case, LackError, Schema

UNORDERED = "unordered"
"""The kind of an answer that is not the one of the message it should follow."""

_MIB, _17_MB = 1024 * 1024, 17_000_000
_LOOK_S = 0.5
"""How often it is looked whether a server that says nothing has at least closed, in seconds."""

_LAST_STEP, _EPISODE_S = 100, 5.0

Play = Callable[[RawSession, Subject, SingleSession], Awaitable[Answer]]


async def play(case: Case, session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    """Play a case in a session and return the answer that is to be judged.

    Raises:
        LackError: the server lacks what the case needs.
        WorkloadError: the user's callable fails.
    """
    if isinstance(case.sent, bytes):
        session.send_binary(case.sent)
        return await session.next_answer()
    if case.sent is not None:
        return await session.ask(case.sent)
    return await PLAYS[case.id](session, subject, alone)


def _schema(subject: Subject) -> Schema | None:
    found = (subject.schema or {}).get("action")
    return cast("Schema", found) if isinstance(found, Mapping) else None


# Actions made for the server

BuildInvalidAction = Callable[[Schema | None, Mapping[str, Any]], Mapping[str, Any]]


async def _misfit(make: BuildInvalidAction, session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    return await session.step(make(_schema(subject), quick_action(subject, 0, 0)))


async def _invalid_action(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    """Send every invalid value the schema allows to make; the first answer that accepts one counts, else the last."""
    schema, action = _schema(subject), quick_action(subject, 0, 0)
    made: list[Mapping[str, Any]] = []
    lacks: list[str] = []
    for make in (protocol_cases.wrong_type, protocol_cases.out_of_range):
        try:
            made.append(make(schema, action))
        except LackError as lack:
            lacks.append(str(lack))
    if not made:
        raise LackError("; ".join(dict.fromkeys(lacks)))
    answer = Answer("silence")
    for wrong in made:
        answer = await session.step(wrong)
        if answer.kind != "error" or answer.code != "VALIDATION_ERROR":
            break
    return answer


async def _long_text(characters: int, session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    session.send(
        {"type": "step", "data": protocol_cases.long_text(_schema(subject), quick_action(subject, 0, 0), characters)}
    )
    deadline = time.perf_counter() + subject.patience_s
    while (answer := await session.next_answer(patience_s=_LOOK_S)).kind == "silence":
        closed = session.close_frame
        if closed is not None:
            # Some servers (hypercorn) say goodbye to what is too long, and then forget to let go of the socket.
            last = await session.next_answer(patience_s=_LOOK_S)
            return last if last.ended else closed
        if time.perf_counter() > deadline:
            return silence_answer(subject.patience_s)
    return answer


# Messages at another time


async def _step(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    return await session.step(quick_action(subject, 0, 0))


async def _state(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    _needs_state(alone)
    return await session.state()


async def _state_with_data(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    _needs_state(alone)
    return await session.ask({"type": "state", "data": {}})


def _needs_state(alone: SingleSession) -> None:
    if not alone.has_state:
        raise LackError(f"it knows no state ({alone.state})")


async def _after_done(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    """Step past the end of the episode; where none comes, go on for long enough and say so."""
    deadline = time.perf_counter() + _EPISODE_S
    answer, number = Answer("silence"), 0
    while number < _LAST_STEP and time.perf_counter() < deadline:
        answer = await session.step(quick_action(subject, 0, number))
        number += 1
        if answer.done:
            return await session.step(quick_action(subject, 0, number))
        if answer.kind != "observation":
            return answer
    return replace(answer, message=f"none of {number} steps ended the episode")


async def _reset_again(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    answer = await session.step(quick_action(subject, 0, 0))
    return await session.reset(subject.reset_data(subject.seed)) if answer.kind == "observation" else answer


async def _unawaited(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    """Reset, state, step, state, step, state, all at once; the state's count of steps shows what was done when.

    A lone session that was over after fewer steps tells that no more can be asked.
    """
    _needs_state(alone)
    reset = {"type": "reset", "data": subject.reset_data(subject.seed)}
    steps = [{"type": "step", "data": quick_action(subject, 0, number)} for number in range(min(2, len(alone.steps)))]
    asked = [message for change in (reset, *steps) for message in (change, {"type": "state"})]
    for message in asked:
        session.send(message)
    answer = Answer("silence")
    for number, message in enumerate(asked):
        answer = await session.next_answer()
        wanted = "state" if message["type"] == "state" else "observation"
        if not answer.good:
            return answer
        if answer.kind != wanted:
            return replace(answer, kind=UNORDERED, message=f"answer {number + 1} is no {wanted} but {answer.kind}")
        taken, counted = number // 2, answer.data.get("step_count")
        if wanted == "state" and alone.counts_steps and counted != taken:
            said = f"step_count {counted} after {taken} steps"
            return replace(answer, kind=UNORDERED, message=said)
    return answer


# The socket


async def _fragments(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    text = json.dumps({"type": "reset", "data": subject.reset_data(subject.seed)})
    session.send_in_fragments(text[:5], text[5:12], text[12:])
    return await session.next_answer()


async def _close_frame(session: RawSession, subject: Subject, alone: SingleSession) -> Answer:
    session.send_close_frame()
    return await session.next_answer()


PLAYS: Mapping[str, Play] = {
    "state-with-data": _state_with_data,
    "unknown-action-field": partial(_misfit, protocol_cases.unknown_field),
    "invalid-action": _invalid_action,
    "wrapped-action": partial(_misfit, protocol_cases.wrapped),
    "text-1-mib": partial(_long_text, _MIB),
    "text-17-mb": partial(_long_text, _17_MB),
    "step-before-reset": _step,
    "state-before-reset": _state,
    "step-after-done": _after_done,
    "reset-twice": _reset_again,
    "unawaited": _unawaited,
    "fragments": _fragments,
    "close-frame": _close_frame,
}
"""How the cases are played that are more than one message to send."""
