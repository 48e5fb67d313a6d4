"""Does a session begin anew that comes after others, and an episode that follows another one?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .concurrent import usable_reference
from .observations import Fields, Identity, StepView, after_step, join_names, json_excerpt, play_episode
from .reference import Leftover, Leftovers, SingleReference, counters_across_sessions, server_episode_id

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
    leftovers, counts, began = Leftovers(reference), [0, 0], time.perf_counter()
    lost = ""
    for ending, steps in [*(("closed", steps) for steps in lengths), *(("dropped", steps) for steps in lengths[:2])]:
        async with subject.client() as client:
            # Only few are dropped: a server that never notices would have no room for what comes after.
            before = await _play_episodes(
                client, subject, reference, slots if ending == "closed" else min(slots, _DROPPED_SESSIONS), steps
            )
            await _end_sessions(before, ending)
            arrived = await _open_next_sessions(
                client, subject, reference, slots, before, leftovers, f"after one that was {ending}"
            )
        counts = [counts[0] + len(before), counts[1] + arrived]
        if arrived < slots:
            lost = f"{slots - arrived} of {slots} did not get in within {_SLOT_RETURN_S:g} s after others were {ending}"
            slots = arrived
        if not slots or time.perf_counter() - began > _LONGEST_S:
            break
    return _sequential_result(reference, leftovers, counts, lost, set(lengths))


def episode_lengths(reference: SingleReference) -> list[int]:
    """Return after how many steps episodes are cut off: several, so that what goes on with them shows."""
    return list(range(1, min(3, max(1, reference.steps - 1)) + 1))


def _sequential_result(
    reference: SingleReference, leftovers: Leftovers, counts: Sequence[int], lost: str, lengths: set[int]
) -> CheckResult:
    figures = {"sessions_before": counts[0], "sessions_after": counts[1]}
    details = [f"seen by: {join_names(reference.signals)}"]
    if confirmed := leftovers.confirmed(lengths):
        return leftover_result(confirmed, figures, details, FRESH_REMEDY)
    if not counts[1]:
        headline = f"no session got in within {_SLOT_RETURN_S:g} s after others had left"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline, details=tuple(details), figures=figures)
    details += [lost] if lost else []
    return CheckResult(
        CheckOutcome.MET,
        f"{counts[1]} sessions that came after {counts[0]} others, closed or dropped, began anew",
        details=tuple(details),
        figures=figures,
    )


def leftover_result(
    leftovers: Sequence[Leftover], figures: Mapping[str, int], details: Sequence[str], remedy: str
) -> CheckResult:
    """Return the result of a check that found something left over."""
    return CheckResult(
        CheckOutcome.MISSED,
        leftovers[0].description,
        remedy,
        (
            *list(
                dict.fromkeys(
                    leftover.description for leftover in leftovers if leftover.description != leftovers[0].description
                )
            )[:3],
            *details,
        ),
        {**figures, "leaks": len(leftovers)},
        transcripts=leftovers[0].transcripts,
    )


async def _play_episodes(
    client: RawClient, subject: Subject, reference: SingleReference, count: int, steps: int
) -> list[_PlayedEpisode]:
    """Play an episode of `steps` steps in each of `count` sessions, at once."""
    identities = [reference.identities.new() for _ in range(count)]
    by_episode_id = {identity.episode_id: identity for identity in identities}
    resets = [reference.reset_data(subject, identity) for identity in identities]
    sessions = await open_sessions(client, subject, resets, within_s=_SLOT_RETURN_S)
    return list(
        await asyncio.gather(
            *(
                _play_episode(subject, reference, session, by_episode_id[session.reset_data["episode_id"]], steps)
                for session in sessions
            )
        )
    )


async def _play_episode(
    subject: Subject, reference: SingleReference, session: RawSession, identity: Identity, steps: int
) -> _PlayedEpisode:
    last_step, episode_id = 0, None
    step_views = play_episode(
        session,
        session.first_answer,
        lambda step: reference.action(subject, identity, step),
        steps,
        ask_state=reference.has_state,
    )
    async for step_view in step_views:
        last_step, episode_id = (
            step_view.step,
            server_episode_id(reference, reference.read_view(step_view, identity, set())),
        )
    return _PlayedEpisode(session, identity, last_step, episode_id)


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


async def _open_next_sessions(
    client: RawClient,
    subject: Subject,
    reference: SingleReference,
    count: int,
    before: Sequence[_PlayedEpisode],
    leftovers: Leftovers,
    context: str,
) -> int:
    """Open `count` sessions and inspect what each of them begins with; return how many were let in."""
    deadline = time.perf_counter() + _SLOT_RETURN_S
    arrived = await asyncio.gather(
        *(_open_next_session(client, subject, reference, before, leftovers, context, deadline) for _ in range(count))
    )
    await close_all([session for session in arrived if session is not None])
    return sum(session is not None for session in arrived)


async def _open_next_session(
    client: RawClient,
    subject: Subject,
    reference: SingleReference,
    before: Sequence[_PlayedEpisode],
    leftovers: Leftovers,
    context: str,
    deadline: float,
) -> RawSession | None:
    """Open one session as soon as there is room, and inspect it before its reset, after it and after a step."""
    identity = reference.identities.new()
    while True:
        session = await client.connect()
        state, first = None, session.first_answer
        if first.kind == "opened":
            state = await session.state() if reference.has_state else None
            # No identity is sent: a server that takes a reset without data for "go on" must show itself.
            if state is None or not (state.ended or state.full):
                first = await session.reset(subject.reset_data(identity.seed))
        if first.kind == "observation":
            break
        session.drop()
        if time.perf_counter() > deadline:
            return None
        await asyncio.sleep(_PAUSE_S)
    if state is not None and state.kind == "state":
        step_view = StepView(0, Answer("observation"), state)
        _inspect(
            reference,
            before,
            leftovers,
            session,
            identity,
            step_view,
            f"a fresh session's state before its reset, {context},",
        )
    step_views = play_episode(
        session, first, lambda step: reference.action(subject, identity, step), 1, ask_state=reference.has_state
    )
    async for step_view in step_views:
        _inspect(reference, before, leftovers, session, identity, step_view, f"a fresh session, {context},")
    return session


def _inspect(
    reference: SingleReference,
    before: Sequence[_PlayedEpisode],
    leftovers: Leftovers,
    session: RawSession,
    identity: Identity,
    step_view: StepView,
    observer: str,
) -> None:
    foreign: set[int] = set()
    fields = reference.read_view(step_view, identity, foreign)
    episode_id = server_episode_id(reference, fields)
    owner = next(
        (
            earlier
            for earlier in before
            if earlier.identity.number in foreign or (episode_id is not None and earlier.episode_id == episode_id)
        ),
        None,
    )
    transcripts = _transcripts(session, owner or next(iter(before), None))
    if owner is not None or foreign:
        path, value = _foreign_field(reference, fields, foreign, episode_id)
        leftovers.certain.append(
            Leftover(f"{observer} showed an earlier session's {path}: {json_excerpt(value)}", transcripts)
        )
    lengths = {earlier.steps for earlier in before}
    if len(lengths) != 1:
        return
    if step_view.answer.data:
        leftovers.inspect(fields, step_view.step, lengths.pop(), observer, transcripts)
    else:
        leftovers.inspect_before_reset(fields, lengths.pop(), observer, transcripts)


def _foreign_field(
    reference: SingleReference, fields: Fields, foreign: set[int], episode_id: str | None
) -> tuple[str, Any]:
    for path, value in fields.items():
        if any(reference.identities.appears_in(value, number) for number in foreign):
            return path, value
    return "state.episode_id", episode_id


def _transcripts(session: RawSession, owner: _PlayedEpisode | None) -> tuple[Transcript, ...]:
    if owner is None:
        return (session.transcript("the fresh session"),)
    return (
        session.transcript("the fresh session"),
        owner.session.transcript("the session before it, whose episode it was"),
    )


RESET_REMEDY = "in reset() make a new state (State(episode_id=..., step_count=0)) and clear every field of the episode"
"""What the environment's author does about an episode that outlives a reset."""


async def reset_twice(subject: Subject) -> CheckResult:
    """Reset in mid-episode, again and again, and check that nothing of the last episode is left."""
    reference = await usable_reference(subject)
    if isinstance(reference, CheckResult):
        return reference
    leftovers, lengths = Leftovers(reference), episode_lengths(reference)
    async with subject.client() as client:
        first = reference.identities.new()
        opened = await open_sessions(client, subject, [reference.reset_data(subject, first)])
        resets, stopped = (
            await _reset_repeatedly(subject, reference, opened[0], first, lengths, leftovers)
            if opened
            else (0, "no slot was free")
        )
        await close_all(opened)
    figures = {"resets": resets}
    details = [f"seen by: {join_names(reference.signals)}", *([stopped] if stopped and resets else [])]
    if confirmed := leftovers.confirmed(set(lengths)):
        return leftover_result(confirmed, figures, details, RESET_REMEDY)
    if not resets:
        headline = f"no second reset was answered: {stopped}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline, details=tuple(details), figures=figures)
    return CheckResult(
        CheckOutcome.MET,
        f"{count_of(resets, 'reset')} in mid-episode left nothing of the episode before",
        details=tuple(details),
        figures=figures,
    )


async def _reset_repeatedly(
    subject: Subject,
    reference: SingleReference,
    session: RawSession,
    first: Identity,
    lengths: Sequence[int],
    leftovers: Leftovers,
) -> tuple[int, str]:
    """Play episodes of these lengths in one session; return how many resets were answered, and what ended it early."""
    answer, identity, begins_done, before, last_identity = (
        session.first_answer,
        first,
        session.first_answer.done,
        0,
        None,
    )
    for number, steps in enumerate([*lengths, 1]):
        if number:
            last_identity, identity = identity, reference.identities.new()
            answer = await session.reset(reference.reset_data(subject, identity))
        if answer.kind != "observation":
            return number - 1, f"a reset after {count_of(before, 'step')}: {answer}"
        if answer.done and not begins_done:
            leftovers.certain.append(
                Leftover("done is still true after another reset", (session.transcript("the session"),))
            )
        last_step = 0
        step_views = play_episode(
            session,
            answer,
            lambda step, me=identity: reference.action(subject, me, step),
            steps,
            ask_state=reference.has_state,
        )
        async for step_view in step_views:
            last_step = step_view.step
            if last_identity is not None:
                _inspect_after_reset(reference, leftovers, session, step_view, identity, last_identity, before)
        before = last_step
    return len(lengths), ""


def _inspect_after_reset(
    reference: SingleReference,
    leftovers: Leftovers,
    session: RawSession,
    step_view: StepView,
    identity: Identity,
    last_identity: Identity,
    before: int,
) -> None:
    """Inspect what an episode shows of the one before it in the same session."""
    fields = reference.read_view(step_view, identity, set())
    transcripts = (session.transcript("the session, from one episode to the next"),)
    for path, value in fields.items():
        if reference.echoes(path) and reference.identities.appears_in(value, last_identity.number):
            when, excerpt = after_step(step_view.step), json_excerpt(value)
            description = f"after another reset {path} is still the last episode's {when}: {excerpt}"
            leftovers.certain.append(Leftover(description, transcripts))
    leftovers.inspect(fields, step_view.step, before, "an episode after another reset,", transcripts)
