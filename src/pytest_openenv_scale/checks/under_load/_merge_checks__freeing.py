"""Ways in which a session ends, and how soon its slot can be used again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pytest_openenv_scale.core.check import Transcript

from .bystanders import waiting
from .client import RawClient
from .session import RawSession
from .subject import Subject

MID_STEP_S = 0.4
"""How long the step takes in whose midst a client drops, in seconds."""

_RETRY_S = 0.02
"""Pause between two attempts to get a slot, in seconds."""

End = Callable[[Subject, RawSession], Awaitable[float]]
"""Ends a session and returns when, as `time.perf_counter()`."""


async def _close(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    await session.close(patience_s=subject.patience_s)
    return at


async def _drop(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    session.drop()
    return at


async def _reset(subject: Subject, session: RawSession) -> float:
    at = time.perf_counter()
    session.reset_connection()
    return at


def _in_step(end: End, wait_s: float) -> End:
    """Return how to end a session while a step of so many seconds runs."""

    async def end_in_step(subject: Subject, session: RawSession) -> float:
        session.send({"type": "step", "data": waiting(subject, session.number, 0, wait_s)})
        await asyncio.sleep(wait_s / 4)
        return await end(subject, session)

    return end_in_step


@dataclass
class Way:
    """One way to end a session, `name` in words, and how long each slot that it freed took to be usable, in seconds.

    `kept` is what the newcomer saw where a slot was not given back.
    """

    name: str
    figure: str
    end: End
    took_s: list[float] = field(default_factory=list[float])
    kept: Transcript | None = None


def closing() -> Way:
    """Return the polite way."""
    return Way("a clean close", "closed_s", _close)


def dropping(mid_step_s: float) -> list[Way]:
    """Return the ways without goodbye, idle and in the midst of a step of so many seconds."""
    return [
        Way("a socket closed without goodbye", "dropped_s", _drop),
        Way("a TCP reset", "reset_s", _reset),
        Way("a socket closed in mid-step", "dropped_in_step_s", _in_step(_drop, mid_step_s)),
        Way("a TCP reset in mid-step", "reset_in_step_s", _in_step(_reset, mid_step_s)),
    ]


async def free_and_take(client: RawClient, subject: Subject, held: list[RawSession], way: Way, within_s: float) -> None:
    """End the last session of a full server in this way and open another in its slot, trying for `within_s` seconds."""
    began = await way.end(subject, held.pop())
    while True:
        session = await client.start(subject.reset_data(subject.seed))
        passed_s = time.perf_counter() - began
        if session.first.kind == "observation":
            held.append(session)
            way.took_s.append(passed_s)
            return
        session.drop()
        if passed_s > within_s or session.first.kind == "silence":
            way.kept = session.transcript(f"a newcomer {passed_s:.1f} s after {way.name}")
            return
        await asyncio.sleep(_RETRY_S)
