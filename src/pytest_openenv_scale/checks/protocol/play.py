"""How a protocol case is played in a session: it returns the answer that is judged."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from pytest_openenv_scale.checks.background import SingleSession, quick_action, single_session
from pytest_openenv_scale.checks.session import Answer, RawSession, silence_answer
from pytest_openenv_scale.checks.subject import Subject

from . import cases as protocol_cases
from .cases import Case, CaseNotApplicableError, Schema

OUT_OF_ORDER = "unordered"
"""The kind of an answer that does not match the request it should follow."""

_MIB, _17_MB = 1024 * 1024, 17_000_000
_POLL_S = 0.5
"""How often a server that does not answer is polled for a close frame, in seconds."""

_MAX_STEPS, _EPISODE_S = 100, 5.0

PlayCase = Callable[[RawSession, Subject], Awaitable[Answer]]


async def play(case: Case, session: RawSession, subject: Subject) -> Answer:
    """Play a case in a session and return the answer that is to be judged.

    Raises:
        CaseNotApplicableError: the server lacks what the case needs.
        WorkloadError: the user's callable fails.
    """
    if isinstance(case.message, bytes):
        session.send_binary(case.message)
        return await session.next_answer()
    if case.message is not None:
        return await session.ask(case.message)
    return await CASE_PLAYS[case.id](session, subject)


def _action_schema(subject: Subject) -> Schema | None:
    action = (subject.schema or {}).get("action")
    return cast("Schema", action) if isinstance(action, Mapping) else None


# Actions made for the server

BuildInvalidAction = Callable[[Schema | None, Mapping[str, Any]], Mapping[str, Any]]


async def _step_with(make: BuildInvalidAction, session: RawSession, subject: Subject) -> Answer:
    return await session.step(make(_action_schema(subject), quick_action(subject, session, 0, number=0)))


async def _invalid_action(session: RawSession, subject: Subject) -> Answer:
    """Send every invalid value the schema allows to make; the first answer that accepts one counts, else the last."""
    schema, action = _action_schema(subject), quick_action(subject, session, 0, number=0)
    invalid_actions: list[Mapping[str, Any]] = []
    lacks: list[str] = []
    for make in (protocol_cases.wrong_type, protocol_cases.out_of_range):
        try:
            invalid_actions.append(make(schema, action))
        except CaseNotApplicableError as lack:
            lacks.append(str(lack))
    if not invalid_actions:
        raise CaseNotApplicableError("; ".join(dict.fromkeys(lacks)))
    answer = Answer("silence")
    for invalid in invalid_actions:
        answer = await session.step(invalid)
        if answer.kind != "error" or answer.code != "VALIDATION_ERROR":
            break
    return answer


async def _long_text(characters: int, session: RawSession, subject: Subject) -> Answer:
    session.send(
        {
            "type": "step",
            "data": protocol_cases.long_text(
                _action_schema(subject), quick_action(subject, session, 0, number=0), characters
            ),
        }
    )
    deadline = time.perf_counter() + subject.patience_s
    while (answer := await session.next_answer(patience_s=_POLL_S)).kind == "silence":
        closed = session.close_frame
        if closed is not None:
            # Some servers (hypercorn) send a close frame for what is too long, but do not close the socket.
            final = await session.next_answer(patience_s=_POLL_S)
            return final if final.ended else closed
        if time.perf_counter() > deadline:
            return silence_answer(subject.patience_s)
    return answer


# Messages at another time


async def _step(session: RawSession, subject: Subject) -> Answer:
    return await session.step(quick_action(subject, session, 0, number=0))


async def _state(session: RawSession, subject: Subject) -> Answer:
    await _session_with_state(subject)
    return await session.state()


async def _state_with_data(session: RawSession, subject: Subject) -> Answer:
    await _session_with_state(subject)
    return await session.ask({"type": "state", "data": {}})


async def _session_with_state(subject: Subject) -> SingleSession:
    single = await subject.learn(single_session)
    if not single.has_state:
        raise CaseNotApplicableError(f"it knows no state ({single.state})")
    return single


async def _step_after_done(session: RawSession, subject: Subject) -> Answer:
    """Step past the end of the episode; where none comes in 100 steps or 5 s, the answer's message says so."""
    deadline = time.perf_counter() + _EPISODE_S
    answer, number = Answer("silence"), 0
    while number < _MAX_STEPS and time.perf_counter() < deadline:
        answer = await session.step(quick_action(subject, session, number, number=0))
        number += 1
        if answer.done:
            return await session.step(quick_action(subject, session, number, number=0))
        if answer.kind != "observation":
            return answer
    return replace(answer, message=f"none of {number} steps ended the episode")


async def _reset_again(session: RawSession, subject: Subject) -> Answer:
    answer = await session.step(quick_action(subject, session, 0, number=0))
    return await session.reset(subject.reset_data(subject.seed)) if answer.kind == "observation" else answer


async def _unawaited(session: RawSession, subject: Subject) -> Answer:
    """Send reset, state, step, state, step, state without waiting; each state's `step_count` shows the order.

    Fewer steps are sent where a lone session's episode was over after fewer.
    """
    single = await _session_with_state(subject)
    reset = {"type": "reset", "data": subject.reset_data(subject.seed)}
    steps = [
        {"type": "step", "data": quick_action(subject, session, number, number=0)}
        for number in range(min(2, len(single.steps)))
    ]
    requests = [message for change in (reset, *steps) for message in (change, {"type": "state"})]
    for message in requests:
        session.send(message)
    answer = Answer("silence")
    for number, message in enumerate(requests):
        answer = await session.next_answer()
        expected_kind = "state" if message["type"] == "state" else "observation"
        if not answer.good:
            return answer
        if answer.kind != expected_kind:
            return replace(
                answer, kind=OUT_OF_ORDER, message=f"answer {number + 1} is no {expected_kind} but {answer.kind}"
            )
        steps_taken, counted = number // 2, answer.data.get("step_count")
        if expected_kind == "state" and single.counts_steps and counted != steps_taken:
            message = f"step_count {counted} after {steps_taken} steps"
            return replace(answer, kind=OUT_OF_ORDER, message=message)
    return answer


# The socket


async def _fragments(session: RawSession, subject: Subject) -> Answer:
    text = json.dumps({"type": "reset", "data": subject.reset_data(subject.seed)})
    session.send_in_fragments(text[:5], text[5:12], text[12:])
    return await session.next_answer()


async def _close_frame(session: RawSession, subject: Subject) -> Answer:
    session.send_close_frame()
    return await session.next_answer()


CASE_PLAYS: Mapping[str, PlayCase] = {
    "state-with-data": _state_with_data,
    "unknown-action-field": partial(_step_with, protocol_cases.unknown_field),
    "invalid-action": _invalid_action,
    "wrapped-action": partial(_step_with, protocol_cases.wrapped_action),
    "text-1-mib": partial(_long_text, _MIB),
    "text-17-mb": partial(_long_text, _17_MB),
    "step-before-reset": _step,
    "state-before-reset": _state,
    "step-after-done": _step_after_done,
    "reset-twice": _reset_again,
    "unawaited": _unawaited,
    "fragments": _fragments,
    "close-frame": _close_frame,
}
"""The cases that take more than sending one message, by id."""

STEPPING = CASE_PLAYS.keys() - {"state-with-data", "state-before-reset", "fragments", "close-frame"}
"""The cases that send an action, by id."""
