"""Sessions that step on while something happens to the server beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pytest_openenv_scale.core.check import Transcript

from .answer import Answer
from .session import RawSession
from .subject import Subject

SLOWER, SLOWER_S = 5.0, 0.25
"""A step counts as much slower than before from this factor and so many seconds on."""

_LEAST = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How sessions stepped for a while: `steps` answered, `step_s` their median and `slowest_s` their longest latency.

    Latencies are seconds, None where no step was answered. `stopped` are the sessions that were lost or stuck: what
    they got instead of an observation, and their transcript; `going` are the others.
    """

    steps: int
    step_s: float | None
    slowest_s: float | None
    stopped: tuple[tuple[Answer, Transcript], ...]
    going: tuple[RawSession, ...]

    def much_slower_than(self, before: Pace) -> bool:
        """Whether the median step takes five times as long and a quarter of a second more."""
        if self.step_s is None or before.step_s is None:
            return False
        return self.step_s > SLOWER * before.step_s + SLOWER_S


async def pace(subject: Subject, sessions: Sequence[RawSession], for_s: float) -> Pace:
    """Let sessions step, each as soon as all are answered, for so many seconds and three rounds at least.

    Where there is none the time passes all the same.
    """
    going: list[RawSession] = list(sessions)
    stopped: list[tuple[Answer, Transcript]] = []
    latencies: list[float] = []
    if not going:
        await asyncio.sleep(for_s)
    end, rounds = time.perf_counter() + for_s, 0
    while going and (rounds < _LEAST or time.perf_counter() < end):
        patience_s = subject.patience_among(len(going))
        answers = await asyncio.gather(
            *(one.step(quick(subject, one.number, rounds), patience_s=patience_s) for one in going)
        )
        rounds += 1
        played = list(zip(going, answers, strict=True))
        going = [session for session, answer in played if answer.kind == "observation"]
        latencies += [answer.latency_s or 0.0 for _, answer in played if answer.kind == "observation"]
        for session, answer in played:
            if answer.kind != "observation":
                stopped.append((answer, session.transcript(f"session {session.number}: {answer}")))
        over = [session for session, answer in played if answer.done]
        await asyncio.gather(*(session.reset(session.reset_data, patience_s=patience_s) for session in over))
    slowest = max(latencies, default=None)
    return Pace(len(latencies), median(latencies) if latencies else None, slowest, tuple(stopped), tuple(going))


def quick(subject: Subject, session: int, step: int) -> Mapping[str, Any]:
    """Return the action of a step that waits for nothing, as far as the environment lets that be asked."""
    return waiting(subject, session, step, 0.0)


def waiting(subject: Subject, session: int, step: int, wait_s: float) -> Mapping[str, Any]:
    """Return the action of a step that takes so many seconds, as far as the environment takes a wait."""
    return subject.action(session, step, wait_s=wait_s)
