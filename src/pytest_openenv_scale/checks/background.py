"""What one session sees that has the server to itself: the measure of all others, and of what the server can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import uuid4

from pytest_openenv_scale.core.check import Transcript

from .answer import Answer
from .client import RawClient
from .session import RawSession
from .subject import Subject

PAUSE_S = 0.05
"""Pause before one who was refused asks again, in seconds."""

_STEPS = 3


@dataclass(frozen=True, slots=True)
class Lone:
    """A lone session: reset, three steps, the state after each, close.

    There are fewer steps where the episode ends before, or where one is not answered with an observation. `state` is
    the answer to `state` after the reset; `states` are those after the steps, none where the first was no state.
    `closed` is how the connection ended, silence where it was dropped.
    `counts_steps` tells whether the state's `step_count` went 0, 1, 2, 3. Latencies are seconds.
    """

    reset: Answer
    steps: tuple[Answer, ...]
    state: Answer
    states: tuple[Answer, ...]
    closed: Answer
    transcript: Transcript

    @property
    def plays(self) -> bool:
        """Whether the reset and every step were answered with an observation."""
        return self.reset.kind == "observation" and all(step.kind == "observation" for step in self.steps)

    @property
    def trouble(self) -> str:
        """Say what went wrong with the first question that did."""
        asked = [("reset", self.reset), *((f"step {number}", step) for number, step in enumerate(self.steps, 1))]
        return next((f"{name}: {answer}" for name, answer in asked if answer.kind != "observation"), "nothing")

    @property
    def has_state(self) -> bool:
        """Whether the server answers `state`."""
        return self.state.kind == "state"

    @property
    def counts_steps(self) -> bool:
        """Whether `step_count` is the number of steps of the episode, as OpenEnv's schema has it."""
        counts = [answer.data.get("step_count") for answer in (self.state, *self.states)]
        return counts == list(range(len(self.steps) + 1))

    @property
    def step_s(self) -> float:
        """The median latency of a step, in seconds."""
        return median([step.latency_s or 0.0 for step in self.steps])


async def lone(subject: Subject) -> Lone:
    """Play one session alone; ask with `subject.learn(lone)`, so that it is played once."""
    episode = f"check-{uuid4().hex[:12]}"
    async with subject.client(subject.timeout_s) as client:
        session = await let_in(client, subject, {**subject.reset_data(subject.seed), "episode_id": episode})
        answers = [session.first]
        state = Answer("silence")
        states: list[Answer] = []
        if session.first.kind == "observation":
            state = await session.state(patience_s=subject.patience_s)
            for number in range(_STEPS):
                answers.append(await session.step(subject.action(0, number)))
                if answers[-1].kind != "observation":
                    break
                if state.kind == "state":
                    states.append(await session.state(patience_s=subject.patience_s))
                if answers[-1].done:
                    break
        reset, *steps = answers
        closed = Answer("silence")
        if answers[-1].good:
            # Checks wait for slots to come back, which an environment with a slow close() gives back as slowly.
            closed = await session.close(patience_s=subject.patience_s)
            answers.append(closed)
        subject.slowest_lone_s = max(subject.slowest_lone_s, *(answer.latency_s or 0.0 for answer in answers))
        transcript = session.transcript("a session on its own")
        return Lone(reset, tuple(steps), state, tuple(states), closed, transcript)


async def let_in(client: RawClient, subject: Subject, reset: Mapping[str, Any]) -> RawSession:
    """Open a session; where it is put off, ask again for `subject.patience_s` seconds.

    Slots may still come back: those of sessions that others, or earlier checks, have just ended.
    """
    deadline = time.perf_counter() + subject.patience_s
    while (session := await client.start(reset)).first.put_off and time.perf_counter() < deadline:
        session.drop()
        await asyncio.sleep(PAUSE_S)
    return session
