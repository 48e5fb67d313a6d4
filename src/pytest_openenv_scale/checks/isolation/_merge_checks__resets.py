"""Does an episode begin anew that follows another one in the same session?"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.core.check import CheckOutcome, CheckResult
from pytest_openenv_scale.core.format import count_of

from .alone import Alone
from .client import close_all
from .episode import Look, episode
from .freshness import left_over, lengths_of
from .isolation import known_alone
from .leftovers import Leftover, Leftovers
from .seats import fill
from .session import RawSession
from .subject import Subject
from .tokens import Identity
from .trajectory import after, listed, quoted

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
        opened = await fill(client, subject, [known.reset_data(subject, first)])
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
    subject: Subject, known: Alone, session: RawSession, first: Identity, lengths: Sequence[int], left: Leftovers
) -> tuple[int, str]:
    """Play episodes of these lengths in one session; return how many resets were answered, and what ended it early."""
    answer, me, begins_done, before, last = session.first, first, session.first.done, 0, None
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
    known: Alone, left: Leftovers, session: RawSession, look: Look, me: Identity, last: Identity, before: int
) -> None:
    """Look at what an episode shows of the one before it in the same session."""
    fields = known.read(look, me, set())
    shown = (session.transcript("the session, from one episode to the next"),)
    for path, value in fields.items():
        if known.repeats(path) and known.identities.holds(value, last.number):
            words = f"after another reset {path} is still the last episode's {after(look.step)}: {quoted(value)}"
            left.sure.append(Leftover(words, shown))
    left.look(fields, look.step, before, "an episode after another reset,", shown)
