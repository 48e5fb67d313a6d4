"""Does a session begin anew that comes after others, and an episode that follows another one?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.checks.capacity_probe import sessions_at_once
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .observations import Identity, StepView, after_step, join_names, json_excerpt
from .reference import (
    Leak,
    Leftovers,
    SingleReference,
    View,
    counters_across_sessions,
    leak_result,
    server_episode_id,
    usable_reference,
)

_SESSIONS, _DROPPED_SESSIONS = 8, 2
"""Sessions at a time: enough to reach every worker, few enough for a server that loses slots; fewer are dropped."""
_PAUSE_S, _SLOT_RETURN_S, _LONGEST_S = 0.05, 5.0, 45.0
"""The pause between attempts to open a session, how long slots may take to come back, and after what time the check
begins no further round; in seconds."""

FRESH_REMEDY = (
    "build a new environment for each session (pass the class to create_app), or let the one that is used again "
    "forget everything before the next session gets it"
)
"""What the environment's author does about sessions that begin with the last one's episode."""


@dataclass(frozen=True)
class _PlayedEpisode:
    """An episode that was played: its session and identity, its steps, and the `episode_id` the server chose."""

    session: RawSession
    identity: Identity
    steps: int
    episode_id: str | None


async def sequential(subject: Subject) -> CheckResult:
    """End sessions, closed or dropped in mid-episode, and check that those that come next begin anew."""
    reference = await usable_reference(subject)
    if isinstance(reference, CheckResult):
        return reference
    echoed = [
        f"{play.foreign_fields[0]} showed what an earlier session had said"
        for play in reference.plays
        if play.foreign_fields
    ]
    if continued := [*echoed, *counters_across_sessions(reference)]:
        return CheckResult(
            CheckOutcome.MISSED,
            f"sessions one after the other: {continued[0]}",
            FRESH_REMEDY,
            tuple(continued[1:4]),
            transcripts=tuple(play.transcript for play in reference.plays[:2]),
        )
    slots = await sessions_at_once(subject, _SESSIONS)
    lengths = episode_lengths(reference)
    leftovers, before_count, after_count, began = Leftovers(reference), 0, 0, time.perf_counter()
    lost: list[str] = []
    for ending, steps in [*(("closed", steps) for steps in lengths), *(("dropped", steps) for steps in lengths[:2])]:
        async with subject.client() as client:
            # Only few are dropped: a server that never notices would have no room for what comes after.
            count = slots if ending == "closed" else min(slots, _DROPPED_SESSIONS)
            before = await _play_episodes(client, reference, count, steps)
            await _end_sessions(before, ending)
            arrived = await _NextSessions(client, leftovers, before, f"after one that was {ending}").open(slots)
        before_count, after_count = before_count + len(before), after_count + arrived
        if arrived < slots:
            late = f"{slots - arrived} of {slots} did not get in within {_SLOT_RETURN_S:g} s"
            lost = [f"{late} after others were {ending}"]
            slots = arrived
        if not slots or time.perf_counter() - began > _LONGEST_S:
            break
    return _judge(
        leftovers,
        {"sessions_before": before_count, "sessions_after": after_count},
        FRESH_REMEDY,
        lost,
        sound=f"{after_count} sessions that came after {before_count} others, closed or dropped, began anew"
        if after_count
        else None,
        unknown=f"no session got in within {_SLOT_RETURN_S:g} s after others had left",
    )


def episode_lengths(reference: SingleReference) -> list[int]:
    """Return after how many steps episodes are cut off: several, so that what goes on with them shows."""
    return list(range(1, min(3, max(1, reference.steps - 1)) + 1))


def _judge(
    leftovers: Leftovers, figures: dict[str, int], remedy: str, details: list[str], *, sound: str | None, unknown: str
) -> CheckResult:
    """Return a missed result where something is left over, else the headline `sound`, or `unknown` where it is None."""
    seen_by = f"seen by: {join_names(leftovers.reference.signals)}"
    if confirmed := leftovers.confirmed(set(episode_lengths(leftovers.reference))):
        return leak_result(confirmed[0].description, confirmed, remedy, [seen_by, *details], figures)
    outcome = CheckOutcome.INCONCLUSIVE if sound is None else CheckOutcome.MET
    return CheckResult(outcome, sound or unknown, details=(seen_by, *details), figures=figures)


async def _play_episodes(client: RawClient, reference: SingleReference, count: int, steps: int) -> list[_PlayedEpisode]:
    """Play an episode of `steps` steps in each of `count` sessions, at once."""

    async def play(session: RawSession, identity: Identity) -> _PlayedEpisode:
        last_step, episode_id = 0, None
        async for view in reference.play(session, session.first_answer, identity, steps):
            last_step, episode_id = view.step, server_episode_id(reference, view.fields)
        return _PlayedEpisode(session, identity, last_step, episode_id)

    opened = await reference.open(client, count, within_s=_SLOT_RETURN_S)
    return list(await asyncio.gather(*(play(session, identity) for session, identity in opened)))


async def _end_sessions(played: Sequence[_PlayedEpisode], ending: str) -> None:
    if ending == "closed":
        await close_all([episode.session for episode in played])
        return
    for number, episode in enumerate(played):
        # Every other one as if its process were killed.
        if number % 2:
            episode.session.reset_connection()
        else:
            episode.session.drop()


@dataclass(frozen=True)
class _NextSessions:
    """Fresh sessions that come after the episodes `before`, and what they show of those; `context` says when."""

    client: RawClient
    leftovers: Leftovers
    before: Sequence[_PlayedEpisode]
    context: str

    async def open(self, count: int) -> int:
        """Open `count` sessions and inspect what each of them begins with; return how many were let in."""
        deadline = time.perf_counter() + _SLOT_RETURN_S
        arrived = await asyncio.gather(*(self._open_one(deadline) for _ in range(count)))
        sessions = [session for session in arrived if session is not None]
        await close_all(sessions)
        return len(sessions)

    async def _open_one(self, deadline: float) -> RawSession | None:
        """Open one session as soon as there is room, and inspect it before its reset, after it and after a step."""
        reference = self.leftovers.reference
        identity = reference.identities.new()
        while True:
            session = await self.client.connect()
            state, first = None, session.first_answer
            if first.kind == "opened":
                state = await session.state() if reference.has_state else None
                # No identity is sent: a server that takes a reset without data for "go on" must show itself.
                if state is None or not (state.ended or state.full):
                    first = await session.reset(reference.subject.reset_data(identity.seed))
            if first.kind == "observation":
                break
            session.drop()
            if time.perf_counter() > deadline:
                return None
            await asyncio.sleep(_PAUSE_S)
        if state is not None and state.kind == "state":
            view = reference.read(StepView(0, Answer("observation"), state), identity)
            self._inspect(session, view, f"a fresh session's state before its reset, {self.context},")
        async for view in reference.play(session, first, identity, 1):
            self._inspect(session, view, f"a fresh session, {self.context},")
        return session

    def _inspect(self, session: RawSession, view: View, observer: str) -> None:
        episode_id = server_episode_id(self.leftovers.reference, view.fields)
        owner = next(
            (
                earlier
                for earlier in self.before
                if earlier.identity.number in view.foreign or (episode_id and earlier.episode_id == episode_id)
            ),
            None,
        )
        transcripts = [session.transcript("the fresh session")]
        if shown := owner or next(iter(self.before), None):
            transcripts.append(shown.session.transcript("the session before it, whose episode it was"))
        if owner is not None or view.foreign:
            path, value = self._foreign_field(view, episode_id)
            description = f"{observer} showed an earlier session's {path}: {json_excerpt(value)}"
            self.leftovers.certain.append(Leak(description, tuple(transcripts)))
        lengths = {earlier.steps for earlier in self.before}
        if len(lengths) != 1:
            return
        inspect = self.leftovers.inspect if view.answer.data else self.leftovers.inspect_before_reset
        inspect(view.fields, view.step, lengths.pop(), observer, tuple(transcripts))

    def _foreign_field(self, view: View, episode_id: str | None) -> tuple[str, Any]:
        appears_in = self.leftovers.reference.identities.appears_in
        for path, value in view.fields.items():
            if any(appears_in(value, number) for number in view.foreign):
                return path, value
        return "state.episode_id", episode_id


RESET_REMEDY = "in reset() make a new state (State(episode_id=..., step_count=0)) and clear every field of the episode"
"""What the environment's author does about an episode that outlives a reset."""


async def reset_twice(subject: Subject) -> CheckResult:
    """Reset in mid-episode, again and again, and check that nothing of the last episode is left."""
    reference = await usable_reference(subject)
    if isinstance(reference, CheckResult):
        return reference
    leftovers, resets, stopped = Leftovers(reference), 0, "no slot was free"
    async with subject.client() as client:
        for session, identity in await reference.open(client, 1):
            resets, stopped = await _reset_repeatedly(session, identity, leftovers)
            await close_all([session])
    return _judge(
        leftovers,
        {"resets": resets},
        RESET_REMEDY,
        [stopped] if stopped and resets else [],
        sound=f"{count_of(resets, 'reset')} in mid-episode left nothing of the episode before" if resets else None,
        unknown=f"no second reset was answered: {stopped}",
    )


async def _reset_repeatedly(session: RawSession, identity: Identity, leftovers: Leftovers) -> tuple[int, str]:
    """Play one episode after another in a session; return how many resets were answered, and what ended it early."""
    reference, answer = leftovers.reference, session.first_answer
    lengths, begins_done, before, last_identity = episode_lengths(reference), answer.done, 0, None
    for number, steps in enumerate([*lengths, 1]):
        if number:
            last_identity, identity = identity, reference.identities.new()
            answer = await session.reset(reference.reset_data(identity))
        if answer.kind != "observation":
            return number - 1, f"a reset after {count_of(before, 'step')}: {answer}"
        if answer.done and not begins_done:
            leftovers.certain.append(
                Leak("done is still true after another reset", (session.transcript("the session"),))
            )
        last_step = 0
        async for view in reference.play(session, answer, identity, steps):
            last_step = view.step
            if last_identity is not None:
                _inspect_after_reset(leftovers, session, view, last_identity, before)
        before = last_step
    return len(lengths), ""


def _inspect_after_reset(
    leftovers: Leftovers, session: RawSession, view: View, last_identity: Identity, before: int
) -> None:
    """Inspect what an episode shows of the one before it in the same session."""
    reference = leftovers.reference
    transcripts = (session.transcript("the session, from one episode to the next"),)
    for path, value in view.fields.items():
        if reference.echoes(path) and reference.identities.appears_in(value, last_identity.number):
            when, excerpt = after_step(view.step), json_excerpt(value)
            description = f"after another reset {path} is still the last episode's {when}: {excerpt}"
            leftovers.certain.append(Leak(description, transcripts))
    leftovers.inspect(view.fields, view.step, before, "an episode after another reset,", transcripts)
