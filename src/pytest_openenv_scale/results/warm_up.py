"""What the session was answered that plays alone before a sweep: whether the sessions of the sweep play at all."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_openenv_scale.core.serialization import Jsonable


@dataclass(frozen=True, slots=True)
class Sample(Jsonable):
    """The action that was sent first and the start of its answer, as JSON, cut off, without secrets.

    `reset` is what the first reset was answered. They stay on the machine that measured: nothing of them is pushed.
    """

    action: str | None = None
    answer: str | None = None
    reset: str | None = None


@dataclass(frozen=True, slots=True)
class WarmUp(Jsonable):
    """One session of a mode that played alone: its answers, counted.

    `reset_error` and `step_error` are the words of the first answers that are observations and errors; of its `steps`,
    `step_errors` were answered so, and `unsuccessful_steps` with `success: false`. `done_on_reset` and
    `first_done_step` (from 1) tell when `done` came. `wait_s` is what each step was asked to wait, `longest_step_s` the
    longest that one took, in seconds. `made_action` tells that the action was made from `/schema` and may mean nothing
    to the environment, `guessed_action` that there was no `/schema`, so that it is a guess.
    """

    mode: str
    steps: int = 0
    step_errors: int = 0
    reset_error: str | None = None
    step_error: str | None = None
    unsuccessful_steps: int = 0
    done_on_reset: bool = False
    first_done_step: int | None = None
    wait_s: float | None = None
    longest_step_s: float | None = None
    made_action: bool = False
    guessed_action: bool = False
    sample: Sample | None = None

    @property
    def played(self) -> bool:
        """Whether it did more than get errors: its reset and one step at least were answered otherwise."""
        return self.reset_error is None and (not self.steps or self.step_errors < self.steps)

    @property
    def single_turn(self) -> bool:
        """Whether an episode is over with its first step."""
        return self.first_done_step == 1

    @property
    def ignores_wait(self) -> bool:
        """Whether every step was answered before the wait it was asked for could be over."""
        if not self.wait_s or self.longest_step_s is None:
            return False
        return self.longest_step_s < _WAITED_SHARE * self.wait_s


_WAITED_SHARE = 0.9
"""Share of a wait that a step has to take for the environment to count as one that waits."""
