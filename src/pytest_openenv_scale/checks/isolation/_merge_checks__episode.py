"""One episode of a session, looked at after the reset and after each step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .answer import Answer
from .client import RawClient
from .seats import fill
from .session import RawSession
from .subject import Subject


@dataclass(frozen=True, slots=True)
class Look:
    """What a session was answered: to the reset (`step` 0) or a step, and to `state` after it (None: not asked)."""

    step: int
    answer: Answer
    state: Answer | None


async def open_alone(client: RawClient, subject: Subject, reset: Mapping[str, Any]) -> RawSession:
    """Open a session on a server nobody else uses; `first` is an observation, or why it is none.

    A server whose slots come back late is asked again; one that does not take what the reset says is not.
    """
    session = await client.start(reset)
    if session.first.kind == "observation" or not (session.first.full or session.first.over):
        return session
    session.drop()
    return next(iter(await fill(client, subject, [reset])), session)


async def episode(
    session: RawSession,
    first: Answer,
    action: Callable[[int], Mapping[str, Any]],
    steps: int,
    *,
    ask_state: bool = True,
    pause_s: float = 0.0,
    pause_at: int | None = None,
) -> AsyncGenerator[Look, None]:
    """Yield what a session sees, from the answer `first` to its reset on, until it is done or took so many steps.

    An answer that is no observation ends it too. Each step, or only the one numbered `pause_at`, waits `pause_s`
    seconds before it is taken.
    """
    answer = first
    for taken in range(steps + 1):
        if taken:
            if pause_s and pause_at in (None, taken):
                await asyncio.sleep(pause_s)
            answer = await session.step(action(taken - 1))
        if answer.kind != "observation":
            return
        state = await session.state() if ask_state else None
        if state is not None and state.kind != "state":
            return
        yield Look(taken, answer, state)
        if answer.done:
            return
