"""Do sessions see each other's state? Side by side, under load, one after the other, and one episode of the next."""

from __future__ import annotations

from pytest_openenv_scale.core.check import CheckOutcome, CheckResult
from pytest_openenv_scale.core.format import count_of

from .alone import Alone, alone, play_alone
from .client import close_all
from .confirm import only_among_others
from .crowd import Crowd, Leak, spread
from .seats import one_session, together
from .subject import Subject
from .trajectory import listed, pattern

_TOGETHER = 16
_BUSY_S, _LONGEST_S = 3.0, 20.0
_SLOWEST_S = 0.3

REMEDY = (
    "give each session an environment object of its own: pass the class (or a factory that makes a new one) to "
    "create_app, and keep nothing of an episode in module variables or class attributes"
)
"""What an author does about sessions that see each other."""


async def interleaved(subject: Subject) -> CheckResult:
    """Play sessions side by side, each with its own identity and number of steps, and look for what is another's."""
    return await _among(subject, _TOGETHER, "side by side", 0.0)


async def under_load(subject: Subject) -> CheckResult:
    """Play as many sessions as fit, episode after episode, and look for what is another's."""
    return await _among(subject, subject.most, f"at once for {_BUSY_S:g} s", _BUSY_S)


async def _among(subject: Subject, wanted: int, how: str, lasting_s: float) -> CheckResult:
    if skipped := await one_session(subject):
        return skipped
    known = await known_alone(subject)
    if isinstance(known, CheckResult):
        return known
    count = await together(subject, wanted)
    crowd = Crowd(subject, known)
    async with subject.client() as client:
        if count > 1:
            await crowd.play(client, count, lasting_s=lasting_s, most_s=_LONGEST_S)
        await close_all(crowd.sessions)
    if len(crowd.sessions) < 2:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"isolation needs two sessions at once, and {count_of(len(crowd.sessions), 'session')} got in",
        )
    return await _judged(subject, known, crowd, how)


async def known_alone(subject: Subject) -> Alone | CheckResult:
    """Return what lone sessions see, or the result where no answer tells one session from another."""
    known = await subject.learn(alone)
    if known is None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, "sessions on their own were not answered, one after the other")
    if known.signals:
        return known
    return CheckResult(
        CheckOutcome.SKIPPED,
        "nothing the server answers tells one session from another: no step_count, no episode_id, no field that "
        "repeats what was sent or changes from step to step",
    )


async def _judged(subject: Subject, known: Alone, crowd: Crowd, how: str) -> CheckResult:
    found, words = spread(crowd)
    figures = {"sessions": len(crowd.sessions), "episodes": crowd.episodes, "answers": crowd.answers, **found}
    details = [f"seen by: {listed(known.signals)}", *words, *_missing(crowd)]
    sessions = f"{len(crowd.sessions)} sessions {how}"
    sure = [leak for leak in crowd.leaks if leak.sure]
    suspects = [leak for leak in crowd.leaks if not leak.sure]
    if sure:
        return _leaking(sessions, sure, figures, details)
    if suspects:
        suspected = set(crowd.suspects)
        verdict, replayed = await _confirmed(subject, known, crowd)
        suspects = [leak for leak in suspects if leak.field in crowd.suspects]
        figures = {**figures, "episodes_alone": replayed}
        differing = len(set[int]().union(*crowd.suspects.values()))
        if verdict is CheckOutcome.MISSED:
            return _leaking(
                sessions, suspects, figures, [*details, f"{replayed} more sessions on their own never saw it"]
            )
        if verdict is CheckOutcome.INCONCLUSIVE:
            said = f"{differing} of {crowd.episodes} episodes among others saw what none of {replayed} alone did"
            return CheckResult(
                verdict,
                f"{sessions}: {said}; too few to say that it comes from the others",
                details=(*(leak.words for leak in suspects[:3]), *details),
                figures=figures,
                transcripts=suspects[0].transcripts,
            )
        details.append(f"{listed(suspected)}: differs between sessions on their own too, and was left out")
    if not crowd.answers:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"{sessions}: none was answered", details=tuple(details))
    return CheckResult(
        CheckOutcome.MET,
        f"{sessions}, {crowd.answers:,} answers: none showed another session's state",
        details=tuple(details),
        figures=figures,
    )


def _leaking(sessions: str, leaks: list[Leak], figures: dict[str, int], details: list[str]) -> CheckResult:
    fields = sorted({leak.field for leak in leaks})
    more = f" (and {len(leaks) - 1:,} more like it)" if len(leaks) > 1 else ""
    return CheckResult(
        CheckOutcome.MISSED,
        f"{sessions}: {leaks[0].words}{more}",
        REMEDY,
        (f"leaking: {listed(fields)}", *(leak.words for leak in leaks[1:4]), *details),
        {**figures, "leaks": len(leaks)},
        transcripts=next((leak.transcripts for leak in leaks if leak.transcripts), ()),
    )


def _missing(crowd: Crowd) -> list[str]:
    if not crowd.unanswered:
        return []
    return [f"{count_of(len(crowd.unanswered), 'episode')} ended early, which is no leak: {crowd.unanswered[0]}"]


async def _confirmed(subject: Subject, known: Alone, crowd: Crowd) -> tuple[CheckOutcome, int]:
    """Play alone until it is clear whether what was seen among others is seen alone; and how often that was."""
    # Names that sessions share by chance are rare enough to need all the sessions there is time for.
    named = set(crowd.suspects) & known.ids
    names: dict[str, set[object]] = {path: {play.again[path] for play in known.plays} for path in named}

    async def again(number: int) -> set[str] | None:
        # First as slowly as a busy server answers, then as fast as it goes.
        pause = 0.0 if number else min(_SLOWEST_S, subject.patience_s)
        played, _ = await play_alone(subject, known, 1, pause_s=pause)
        if not played:
            return None
        looks = enumerate(played[0].views)
        unlike = {pattern(found.path) for step, fields in looks for found in known.unlike(fields, step)}
        for path, seen in names.items():
            name = played[0].again.get(path)
            unlike |= {path} if name in seen else set()
            seen.add(name)
        return unlike

    return await only_among_others(crowd.suspects, crowd.episodes, len(known.plays) - 1, again, rare=named)
