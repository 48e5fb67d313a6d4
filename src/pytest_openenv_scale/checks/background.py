"""Sessions a check compares with: one that has the server to itself, and a background load of several that step."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import uuid4

from pytest_openenv_scale.client.messages import error_in
from pytest_openenv_scale.results.outcome import Transcript

from .session import Answer, RawSession
from .subject import Subject

_STEPS = 3


@dataclass(frozen=True, slots=True)
class SingleSession:
    """A lone session: connect, reset, state, some steps, close.

    There are fewer steps where the episode ends before, or where one is not answered with an observation, and none
    where no action can be made. `state` is
    the answer to `state` after the reset; `states` are those after the steps, none where they were not asked for.
    `closed` is how the connection ended, silence where it was dropped. Latencies are seconds. `stock_refusals` are the
    reasons why the stock client would have refused the upgrade.
    """

    connect: Answer
    reset: Answer
    steps: tuple[Answer, ...]
    state: Answer
    states: tuple[Answer, ...]
    closed: Answer
    transcript: Transcript
    stock_refusals: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the reset and every step were answered with an observation."""
        return all(answer.kind == "observation" for answer in (self.reset, *self.steps))

    @property
    def opened(self) -> bool:
        """Whether it was let in: its reset was answered with an observation."""
        return self.reset.kind == "observation"

    @property
    def failed_answer(self) -> Answer | None:
        """The first answer to the reset or a step that is no observation, or None."""
        return next((answer for answer in (self.reset, *self.steps) if answer.kind != "observation"), None)

    @property
    def first_failure(self) -> str:
        """Which request was first not answered with an observation, and with what instead."""
        answers = [("reset", self.reset), *self.numbered_steps]
        return next((f"{name}: {answer}" for name, answer in answers if answer.kind != "observation"), "nothing")

    @property
    def error_words(self) -> str | None:
        """What the reset or every step was answered with, where that is an error; None where the session played."""
        if words := error_in(self.reset.data):
            return f"reset: {words}"
        errors = [error_in(step.data) for step in self.steps]
        return f"step 1: {errors[0]}" if errors and all(errors) else None

    @property
    def numbered_steps(self) -> list[tuple[str, Answer]]:
        """The answers to "step 1" and so on."""
        return [(f"step {number}", step) for number, step in enumerate(self.steps, 1)]

    @property
    def replies(self) -> list[tuple[str, Answer]]:
        """The messages that answered reset, the state after it, and steps."""
        answers = [("reset", self.reset), ("state", self.state), *self.numbered_steps]
        return [(name, answer) for name, answer in answers if answer.kind != "silence" and not answer.ended]

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
        """The median latency of a step, in seconds; 0 where none was taken."""
        return median([step.latency_s or 0.0 for step in self.steps] or [0.0])


async def single_session(subject: Subject) -> SingleSession:
    """Play one session alone; call it as `subject.learn(single_session)`, so that it is played once."""
    reset = {**subject.reset_data(subject.seed), "episode_id": f"check-{uuid4().hex[:12]}"}
    return await play_single(subject, reset, subject.wait_s, most_steps=_STEPS)


async def can_step(subject: Subject) -> bool:
    """Return whether a session that plays alone is answered more than errors, so that sessions may be asked to step."""
    single = await subject.learn(single_session)
    return bool(single.steps) and single.succeeded and not (subject.must_play and single.error_words)


async def play_single(
    subject: Subject,
    reset: Mapping[str, Any],
    wait_s: float | None,
    *,
    most_steps: int,
    longest_s: float = math.inf,
    ask_states: bool = True,
) -> SingleSession:
    """Play one session alone, with up to `most_steps` steps, of which none is begun after `longest_s` seconds.

    Its slowest answer sets the timeouts of what is asked later (`Subject.slowest_single_s`).
    """
    steps, states = list[Answer](), list[Answer]()
    state = closed = Answer("silence")
    async with subject.client(subject.timeout_s) as client:
        session = await client.start_when_free(reset, within_s=subject.patience_s)
        first = session.first_answer
        if first.kind == "observation":
            state = await session.state(patience_s=subject.patience_s)
            began = time.perf_counter()
            most_steps = most_steps if subject.workload.no_action is None else 0
            while len(steps) < most_steps and (not steps or time.perf_counter() - began < longest_s):
                steps.append(await session.step(waiting_action(subject, session, len(steps), wait_s, number=0)))
                if steps[-1].kind != "observation":
                    break
                if ask_states and state.kind == "state":
                    states.append(await session.state(patience_s=subject.patience_s))
                if steps[-1].done:
                    break
        if all(answer.good for answer in (first, *steps)):
            # Checks wait for slots to come back, which an environment with a slow close() gives back as slowly.
            closed = await session.close(patience_s=subject.patience_s)
        latencies = [answer.latency_s or 0.0 for answer in (first, *steps, closed)]
        subject.slowest_single_s = max(subject.slowest_single_s, *latencies)
        transcript = session.transcript("a session on its own")
        return SingleSession(
            connect=session.handshake,
            reset=first,
            steps=tuple(steps),
            state=state,
            states=tuple(states),
            closed=closed,
            transcript=transcript,
            stock_refusals=session.stock_refusals,
        )


SLOWER_FACTOR, SLOWER_LEAST_S = 5.0, 0.25
"""A step counts as much slower than before from this factor and this many seconds more."""

_FEWEST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class BackgroundLoad:
    """How sessions stepped for a while: `steps` answered, their median latency `step_s`, their longest `slowest_s`.

    Latencies are seconds, None where no step was answered. `stopped` are the sessions that were lost or stuck: what
    they got instead of an observation, and their transcript; `still_playing` are the others.
    """

    steps: int
    step_s: float | None
    slowest_s: float | None
    stopped: tuple[tuple[Answer, Transcript], ...]
    still_playing: tuple[RawSession, ...]

    def much_slower_than(self, before: BackgroundLoad) -> bool:
        """Whether the median step takes five times as long and a quarter of a second more."""
        if self.step_s is None or before.step_s is None:
            return False
        return self.step_s > SLOWER_FACTOR * before.step_s + SLOWER_LEAST_S


async def step_in_background(subject: Subject, sessions: Sequence[RawSession], duration_s: float) -> BackgroundLoad:
    """Let all sessions step in rounds, for `duration_s` seconds and three rounds at least.

    A round begins as soon as the last one is answered. Without sessions it just waits for `duration_s`.
    """
    still_playing: list[RawSession] = list(sessions)
    stopped: list[tuple[Answer, Transcript]] = []
    latencies: list[float] = []
    if not still_playing:
        await asyncio.sleep(duration_s)
    end, rounds = time.perf_counter() + duration_s, 0
    while still_playing and (rounds < _FEWEST_ROUNDS or time.perf_counter() < end):
        patience_s = subject.patience_among(len(still_playing))
        answers = await asyncio.gather(
            *(session.step(quick_action(subject, session, rounds), patience_s=patience_s) for session in still_playing)
        )
        rounds += 1
        played = list(zip(still_playing, answers, strict=True))
        still_playing = [session for session, answer in played if answer.kind == "observation"]
        latencies += [answer.latency_s or 0.0 for _, answer in played if answer.kind == "observation"]
        for session, answer in played:
            if answer.kind != "observation":
                stopped.append((answer, session.transcript(f"session {session.number}: {answer}")))
        over = [session for session, answer in played if answer.done]
        await asyncio.gather(*(session.reset(session.reset_data, patience_s=patience_s) for session in over))
    slowest = max(latencies, default=None)
    return BackgroundLoad(
        len(latencies), median(latencies) if latencies else None, slowest, tuple(stopped), tuple(still_playing)
    )


def background_figures(before: BackgroundLoad, during: BackgroundLoad) -> dict[str, float | None]:
    """Return how sessions stepped before something happened and while it did, as figures of a check."""
    return {
        "step_before_s": before.step_s,
        "step_during_s": during.step_s,
        "slowest_step_during_s": during.slowest_s,
    }


def quick_action(subject: Subject, session: RawSession, step: int, *, number: int | None = None) -> Mapping[str, Any]:
    """Return the action of a step with a wait of 0 s, where the environment takes a wait; see `waiting_action`."""
    return waiting_action(subject, session, step, 0.0, number=number)


def waiting_action(
    subject: Subject, session: RawSession, step: int, wait_s: float | None, *, number: int | None = None
) -> Mapping[str, Any]:
    """Return the action of a step with a wait of `wait_s` seconds, where the environment takes a wait.

    It is that of session `number` (by default the session's own), made of the session's last observation where a user's
    callable makes it.
    """
    number = session.number if number is None else number
    return subject.action(number, step, wait_s=wait_s, observation=session.observation)
