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

from .concurrent import known_alone
from .observations import Fields, Identity, StepView, after, episode, listed, quoted
from .reference import Leftover, Leftovers, SingleReference, counting_on, own_name

_TOGETHER, _FEW = 8, 2
"""Sessions at a time: enough to come to every worker, few enough for a server that loses slots; those that drop."""
_PAUSE_S, _BACK_S, _LONGEST_S = 0.05, 5.0, 45.0
"""Between two attempts to get in; how long slots may take to come back; after what time no more is asked."""

FRESH_REMEDY = (
    "build a new environment for each session (pass the class to create_app), or let the one that is used again "
    "forget everything before the next session gets it"
)
"""What an author does about sessions that begin with the last one's episode."""


@dataclass(frozen=True)
class _Played:
    """An episode that somebody played before: who, how far, and what the server called it."""

    session: RawSession
    me: Identity
    steps: int
    name: str | None


async def sequential(subject: Subject) -> CheckResult:
    """Let sessions leave, closed or dropped in mid-episode, and look whether those that come next begin anew."""
    known = await known_alone(subject)
    if isinstance(known, CheckResult):
        return known
    told = [f"{play.foreign[0]} showed what an earlier session had said" for play in known.plays if play.foreign]
    if going_on := [*told, *counting_on(known)]:
        return CheckResult(
            CheckOutcome.MISSED,
            f"sessions one after the other: {going_on[0]}",
            FRESH_REMEDY,
            tuple(going_on[1:4]),
            transcripts=tuple(play.transcript for play in known.plays[:2]),
        )
    places = await sessions_at_once(subject, _TOGETHER)
    lengths = lengths_of(known)
    left, counts, began = Leftovers(known), [0, 0], time.perf_counter()
    lost = ""
    for way, steps in [*(("closed", steps) for steps in lengths), *(("dropped", steps) for steps in lengths[:2])]:
        async with subject.client() as client:
            # Only few are dropped: a server that never notices would have no room for what comes after.
            before = await _play(client, subject, known, places if way == "closed" else min(places, _FEW), steps)
            await _leave(before, way)
            came = await _next_sessions(client, subject, known, places, before, left, f"after one that was {way}")
        counts = [counts[0] + len(before), counts[1] + came]
        if came < places:
            lost = f"{places - came} of {places} did not get in within {_BACK_S:g} s after others were {way}"
            places = came
        if not places or time.perf_counter() - began > _LONGEST_S:
            break
    return _sequential_result(known, left, counts, lost, set(lengths))


def lengths_of(known: SingleReference) -> list[int]:
    """Return after how many steps episodes are broken off, so that what goes on with them can be told."""
    return list(range(1, min(3, max(1, known.steps - 1)) + 1))


def _sequential_result(
    known: SingleReference, left: Leftovers, counts: Sequence[int], lost: str, lengths: set[int]
) -> CheckResult:
    figures = {"sessions_before": counts[0], "sessions_after": counts[1]}
    details = [f"seen by: {listed(known.signals)}"]
    if found := left.found(lengths):
        return left_over(found, figures, details, FRESH_REMEDY)
    if not counts[1]:
        said = f"no session got in within {_BACK_S:g} s after others had left"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said, details=tuple(details), figures=figures)
    details += [lost] if lost else []
    return CheckResult(
        CheckOutcome.MET,
        f"{counts[1]} sessions that came after {counts[0]} others, closed or dropped, began anew",
        details=tuple(details),
        figures=figures,
    )


def left_over(
    found: Sequence[Leftover], figures: Mapping[str, int], details: Sequence[str], remedy: str
) -> CheckResult:
    """Return the result of a check that found something left over."""
    return CheckResult(
        CheckOutcome.MISSED,
        found[0].words,
        remedy,
        (*list(dict.fromkeys(one.words for one in found if one.words != found[0].words))[:3], *details),
        {**figures, "leaks": len(found)},
        transcripts=found[0].transcripts,
    )


async def _play(client: RawClient, subject: Subject, known: SingleReference, places: int, steps: int) -> list[_Played]:
    """Play an episode of so many steps in each of so many sessions, at once."""
    identities = [known.identities.new() for _ in range(places)]
    of = {me.episode_id: me for me in identities}
    resets = [known.reset_data(subject, me) for me in identities]
    sessions = await open_sessions(client, subject, resets, within_s=_BACK_S)
    return list(
        await asyncio.gather(
            *(_episode(subject, known, session, of[session.reset_data["episode_id"]], steps) for session in sessions)
        )
    )


async def _episode(subject: Subject, known: SingleReference, session: RawSession, me: Identity, steps: int) -> _Played:
    taken, name = 0, None
    looks = episode(
        session, session.first_answer, lambda step: known.action(subject, me, step), steps, ask_state=known.has_state
    )
    async for look in looks:
        taken, name = look.step, own_name(known, known.read(look, me, set()))
    return _Played(session, me, taken, name)


async def _leave(played: Sequence[_Played], way: str) -> None:
    if way == "closed":
        await close_all([one.session for one in played])
        return
    for number, one in enumerate(played):
        # A peer that ends the connection in order, and one that is killed.
        if number % 2:
            one.session.reset_connection()
        else:
            one.session.drop()


async def _next_sessions(
    client: RawClient,
    subject: Subject,
    known: SingleReference,
    places: int,
    before: Sequence[_Played],
    left: Leftovers,
    where: str,
) -> int:
    """Open so many sessions and look at what each of them begins with; return how many got in."""
    deadline = time.perf_counter() + _BACK_S
    came = await asyncio.gather(*(_next(client, subject, known, before, left, where, deadline) for _ in range(places)))
    await close_all([session for session in came if session is not None])
    return sum(session is not None for session in came)


async def _next(
    client: RawClient,
    subject: Subject,
    known: SingleReference,
    before: Sequence[_Played],
    left: Leftovers,
    where: str,
    deadline: float,
) -> RawSession | None:
    """Open one session as soon as there is room, and look at it before its reset, after it and after a step."""
    me = known.identities.new()
    while True:
        session = await client.connect()
        state, first = None, session.first_answer
        if first.kind == "opened":
            state = await session.state() if known.has_state else None
            # Nothing of its own is said: a server that takes a reset without data for "go on" must show itself.
            if state is None or not (state.ended or state.full):
                first = await session.reset(subject.reset_data(me.seed))
        if first.kind == "observation":
            break
        session.drop()
        if time.perf_counter() > deadline:
            return None
        await asyncio.sleep(_PAUSE_S)
    if state is not None and state.kind == "state":
        look = StepView(0, Answer("observation"), state)
        _look(known, before, left, session, me, look, f"a fresh session's state before its reset, {where},")
    looks = episode(session, first, lambda step: known.action(subject, me, step), 1, ask_state=known.has_state)
    async for look in looks:
        _look(known, before, left, session, me, look, f"a fresh session, {where},")
    return session


def _look(
    known: SingleReference,
    before: Sequence[_Played],
    left: Leftovers,
    session: RawSession,
    me: Identity,
    look: StepView,
    who: str,
) -> None:
    foreign: set[int] = set()
    fields = known.read(look, me, foreign)
    name = own_name(known, fields)
    owner = next((one for one in before if one.me.number in foreign or (name is not None and one.name == name)), None)
    shown = _shown(session, owner or next(iter(before), None))
    if owner is not None or foreign:
        path, value = _where(known, fields, foreign, name)
        left.sure.append(Leftover(f"{who} showed an earlier session's {path}: {quoted(value)}", shown))
    lengths = {one.steps for one in before}
    if len(lengths) != 1:
        return
    if look.answer.data:
        left.look(fields, look.step, lengths.pop(), who, shown)
    else:
        left.look_before_reset(fields, lengths.pop(), who, shown)


def _where(known: SingleReference, fields: Fields, foreign: set[int], name: str | None) -> tuple[str, Any]:
    for path, value in fields.items():
        if any(known.identities.holds(value, number) for number in foreign):
            return path, value
    return "state.episode_id", name


def _shown(session: RawSession, owner: _Played | None) -> tuple[Transcript, ...]:
    if owner is None:
        return (session.transcript("the fresh session"),)
    return (
        session.transcript("the fresh session"),
        owner.session.transcript("the session before it, whose episode it was"),
    )


RESET_REMEDY = "in reset() make a new state (State(episode_id=..., step_count=0)) and clear every field of the episode"
"""What an author does about an episode that outlives a reset."""


async def reset_twice(subject: Subject) -> CheckResult:
    """Reset in mid-episode, again and again, and look whether anything of the last episode is left."""
    known = await known_alone(subject)
    if isinstance(known, CheckResult):
        return known
    left, lengths = Leftovers(known), lengths_of(known)
    async with subject.client() as client:
        first = known.identities.new()
        opened = await open_sessions(client, subject, [known.reset_data(subject, first)])
        done, stopped = (
            await _again(subject, known, opened[0], first, lengths, left) if opened else (0, "no slot was free")
        )
        await close_all(opened)
    figures = {"resets": done}
    details = [f"seen by: {listed(known.signals)}", *([stopped] if stopped and done else [])]
    if found := left.found(set(lengths)):
        return left_over(found, figures, details, RESET_REMEDY)
    if not done:
        said = f"no second reset was answered: {stopped}"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said, details=tuple(details), figures=figures)
    return CheckResult(
        CheckOutcome.MET,
        f"{count_of(done, 'reset')} in mid-episode left nothing of the episode before",
        details=tuple(details),
        figures=figures,
    )


async def _again(
    subject: Subject,
    known: SingleReference,
    session: RawSession,
    first: Identity,
    lengths: Sequence[int],
    left: Leftovers,
) -> tuple[int, str]:
    """Play episodes of these lengths in one session; return how many resets were answered, and what ended it early."""
    answer, me, begins_done, before, last = session.first_answer, first, session.first_answer.done, 0, None
    for number, steps in enumerate([*lengths, 1]):
        if number:
            last, me = me, known.identities.new()
            answer = await session.reset(known.reset_data(subject, me))
        if answer.kind != "observation":
            return number - 1, f"a reset after {count_of(before, 'step')}: {answer}"
        if answer.done and not begins_done:
            left.sure.append(Leftover("done is still true after another reset", (session.transcript("the session"),)))
        taken = 0
        looks = episode(
            session, answer, lambda step, me=me: known.action(subject, me, step), steps, ask_state=known.has_state
        )
        async for look in looks:
            taken = look.step
            if last is not None:
                _left_of(known, left, session, look, me, last, before)
        before = taken
    return len(lengths), ""


def _left_of(
    known: SingleReference,
    left: Leftovers,
    session: RawSession,
    look: StepView,
    me: Identity,
    last: Identity,
    before: int,
) -> None:
    """Look at what an episode shows of the one before it in the same session."""
    fields = known.read(look, me, set())
    shown = (session.transcript("the session, from one episode to the next"),)
    for path, value in fields.items():
        if known.repeats(path) and known.identities.holds(value, last.number):
            words = f"after another reset {path} is still the last episode's {after(look.step)}: {quoted(value)}"
            left.sure.append(Leftover(words, shown))
    left.look(fields, look.step, before, "an episode after another reset,", shown)
