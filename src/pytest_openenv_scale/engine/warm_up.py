"""Sessions that play alone: one before a sweep, and some after a cell in which answers were errors.

The first tells whether sessions play at all, and warms the server up. The others tell whether errors are part of the
game: an "invalid move" comes alone as well, an error of load does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from pytest_openenv_scale.client.messages import error_in, is_unsuccessful
from pytest_openenv_scale.core.text import loads, shorten, utf8_safe
from pytest_openenv_scale.load.ipc import SessionMessages
from pytest_openenv_scale.load.runner import CellResult
from pytest_openenv_scale.results.cell import AnsweredErrors
from pytest_openenv_scale.results.outcome import Sample, WarmUp

from .tally import SessionTally

WARM_UP_STEPS = 3
"""Steps that a warm-up takes at least, where they take it no longer than `_WARM_UP_S`."""

MAX_CHANCE = 0.01
"""Chance from which on errors in a cell, and none alone, count as no accident."""

_WARM_UP_S = 3.0
_MAX_PLAYS = 200
_MAX_PLAYS_S = 10.0
_SAMPLE_LENGTH = 200


def warm_up_steps(steps: int, wait_s: float | None) -> int:
    """Return how many steps a warm-up takes whose sessions take `steps`, each waiting `wait_s` seconds."""
    return max(steps, WARM_UP_STEPS) if WARM_UP_STEPS * (wait_s or 0.0) <= _WARM_UP_S else steps


def read_warm_up(
    mode: str,
    wait_s: float | None,
    result: CellResult,
    *,
    made_action: bool,
    guessed_action: bool = False,
    keep_sample: bool,
) -> WarmUp:
    """Return what the only session of a result was answered."""
    row, messages = result.rows[0], result.messages
    answers = [(phase, _read(text)) for phase, text in messages.answers] if messages else []
    resets = [data for phase, data in answers if phase == "reset" and row.reset_latency is not None]
    steps = [data for phase, data in answers if phase == "step"][: row.steps_done]
    errors = [error_in(data) for data in steps]
    return WarmUp(
        mode=mode,
        steps=len(steps),
        step_errors=sum(error is not None for error in errors),
        reset_error=error_in(resets[0]) if resets else None,
        step_error=next((error for error in errors if error), None),
        unsuccessful_steps=sum(is_unsuccessful(data) for data in steps),
        done_on_reset=bool(resets) and resets[0].get("done") is True,
        first_done_step=next((number for number, data in enumerate(steps, 1) if data.get("done") is True), None),
        wait_s=wait_s,
        longest_step_s=max(row.step_latencies, default=None),
        made_action=made_action,
        guessed_action=guessed_action,
        sample=_sample(messages) if messages and keep_sample else None,
        same_episode=mode == "ws" or _is_same_episode(resets[:1], steps),
    )


def _is_same_episode(resets: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> bool | None:
    """Say whether steps over HTTP belong to the episode of the reset, by what the environment tells of itself.

    One that names its session names the same one throughout; one that counts steps counts on. None where neither is
    told.
    """
    observations = [data.get("observation") for data in (*resets, *steps)]
    told = [cast("dict[str, Any]", each) for each in observations if isinstance(each, dict)]
    names = [each.get("session_hash") for each in told]
    if resets and steps and all(isinstance(name, str) and name for name in names):
        return len(set(names)) == 1
    counts = [each.get("step_count") for each in told[len(resets) :]]
    if len(counts) > 1 and all(isinstance(count, int) for count in counts):
        return len(set(counts)) == len(counts)
    return None


def _read(text: bytes) -> Mapping[str, Any]:
    """Return the data of an answer: that of a message, or the body of an HTTP answer."""
    try:
        message: Any = loads(text)
    except (ValueError, RecursionError):
        return {}
    fields = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    data = fields.get("data", fields)
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _sample(messages: SessionMessages) -> Sample:
    def cut(data: object) -> str:
        return utf8_safe(shorten(json.dumps(data, ensure_ascii=False, default=str), _SAMPLE_LENGTH))

    sent = _read(messages.actions[0] if messages.actions else b"{}")
    answers = {phase: cut(_read(text)) for phase, text in reversed(messages.answers)}
    return Sample(cut(sent.get("action", sent)), answers.get("step"), answers.get("reset"))


class SoloSessions:
    """The sessions of one mode that played alone, and what they say of errors in its cells.

    `play(number)` plays session `number` alone and returns its result, None where no session can be played.
    """

    def __init__(self, play: Callable[[int], CellResult | None]) -> None:
        self._play = play
        self._plays = self._errors = 0

    def note(self, *, error: bool) -> None:
        """Count one session that played alone."""
        self._plays += 1
        self._errors += error

    def judge(self, tally: SessionTally) -> AnsweredErrors:
        """Say whether errors in the answers of a cell come under load only; plays those sessions alone to find out.

        Sessions alone that get none, while `k` of `n` in the cell did, do so by chance with the probability that all
        `k` fall among the `n` of `n + alone`: Fisher's exact test (1922), one-sided.
        """
        numbers = sorted(tally.errors)
        if tally.played == 1:
            self.note(error=bool(numbers))
            return self._judged(tally, under_load=False)
        deadline = time.monotonic() + _MAX_PLAYS_S
        needed = solo_sessions_needed(tally.answered_errors, tally.reset)
        while not self._errors and self._plays < needed <= _MAX_PLAYS and time.monotonic() < deadline:
            alone = self._play(numbers[self._plays % len(numbers)])
            if alone is None or not alone.rows[0].success:
                break
            self.note(error=bool(alone.answered_errors))
        return self._judged(tally, under_load=not self._errors and self._plays >= needed)

    def _judged(self, tally: SessionTally, *, under_load: bool) -> AnsweredErrors:
        words = next(iter(tally.errors.values())).words
        return AnsweredErrors(tally.answered_errors, words, self._plays, self._errors, under_load)


@lru_cache(maxsize=1024)
def solo_sessions_needed(
    errors: int, sessions: int, *, max_chance: float = MAX_CHANCE, at_most: int = _MAX_PLAYS
) -> int:
    """Return how many sessions have to play alone without an error for the difference not to be chance.

    More than `at_most` are not counted: the result is one more then.
    """
    chance, alone = 1.0, 0
    while chance >= max_chance and alone <= at_most:
        alone += 1
        chance *= (sessions + alone - errors) / (sessions + alone)
    return alone
