"""One session played through: what each part of it takes, and how large the replies get."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .answer import Answer
from .subject import Subject

DEFAULT_LIMIT_BYTES = 1024 * 1024
"""The largest message the `websockets` library reads unless it is told otherwise, in bytes (its `max_size`)."""

_STEPS, _PLAY_S = 20, 1.5
"""The most steps of the episode that is played, and seconds after which no further one is taken."""


@dataclass(frozen=True, slots=True)
class Played:
    """A session from its connection to its end, steps without a wait: its answers, and the largest reply in bytes.

    `replies` is how many messages answered the reset, the state and the steps.
    """

    connect: Answer
    reset: Answer
    steps: tuple[Answer, ...]
    closed: Answer
    largest_bytes: int
    largest: str
    replies: int

    @property
    def step_s(self) -> float:
        """The median latency of a step, in seconds."""
        return median([step.latency_s or 0.0 for step in self.steps])


async def played(subject: Subject) -> Played:
    """Play one session, with a state and up to 20 steps; ask with `subject.learn(played)` to play once.

    Its slowest answer tells later questions how patient to be.
    """
    async with subject.client() as client:
        session = await client.connect()
        connect, heard_of, sizes = session.first, [session.first], list[tuple[int, str]]()

        def heard(answer: Answer, name: str) -> Answer:
            heard_of.append(answer)
            if answer.kind != "silence" and not answer.over:
                sizes.append((session.last_bytes, name))
            return answer

        reset = heard(await session.reset(subject.reset_data(subject.seed)), "reset")
        steps: list[Answer] = []
        if reset.good:
            heard(await session.state(), "state")
        began = time.perf_counter()
        while reset.good and len(steps) < _STEPS and (not steps or time.perf_counter() - began < _PLAY_S):
            steps.append(heard(await session.step(subject.action(0, len(steps), wait_s=0.0)), f"step {len(steps) + 1}"))
            if steps[-1].kind != "observation" or steps[-1].done:
                break
        subject.slowest_lone_s = max(subject.slowest_lone_s, *(answer.latency_s or 0.0 for answer in heard_of))
        largest, name = max(sizes, key=lambda size: size[0], default=(0, "reset"))
        return Played(connect, reset, tuple(steps), await session.close(), largest, name, len(sizes))


async def largest_reply(subject: Subject) -> CheckResult:
    """Say how large replies get, and whether clients that read up to 1 MiB can read them."""
    found = await subject.learn(played)
    said = f"largest of {found.replies} replies: {_size(found.largest_bytes)}, the answer to {_the(found.largest)}"
    figures = {"largest_reply_bytes": found.largest_bytes, "replies": found.replies}
    if found.largest_bytes <= DEFAULT_LIMIT_BYTES:
        return CheckResult(CheckOutcome.MET, said, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{said}; a client that reads up to 1 MiB ends the session there (1009)",
        "OpenEnv's own client reads up to 100 MB; others need a larger limit (websockets: max_size), or send less",
        figures=figures,
    )


def _size(number: int) -> str:
    return f"{number:,} bytes" if number < 10_000 else f"{number:,} bytes ({text_of.size(number)})"


def _the(name: str) -> str:
    return name if name.startswith("step ") else f"the {name}"
