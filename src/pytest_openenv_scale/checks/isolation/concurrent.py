"""Do sessions that play at the same time see each other's state?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_openenv_scale.checks.capacity_probe import open_sessions, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import Fields, Identity, StepView, after, episode, listed, only_among_others, pattern, quoted
from .reference import SingleReference, learn_reference, play_alone


@dataclass(frozen=True, slots=True)
class Leak:
    """What a session saw that is not its own.

    `sure` where nothing else explains it: an identity that another session had, or OpenEnv's own `step_count`.
    """

    sure: bool
    field: str
    words: str
    transcripts: tuple[Transcript, ...]


@dataclass
class ConcurrentPlay:
    """Sessions at the same time: what they saw of each other, and how much was looked at.

    `answers` counts what was looked at, `episodes` those begun; `unanswered` says of sessions that ended early why.
    `suspects` are the fields of leaks that are not sure, with the episodes in which they were seen.
    """

    subject: Subject
    known: SingleReference
    sessions: list[RawSession] = field(default_factory=list[RawSession])
    leaks: list[Leak] = field(default_factory=list[Leak])
    answers: int = 0
    episodes: int = 0
    unanswered: list[str] = field(default_factory=list[str])
    pids: set[object] = field(default_factory=set[object])
    hosts: set[object] = field(default_factory=set[object])
    suspects: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    _owners: dict[int, RawSession] = field(default_factory=dict[int, RawSession])
    _taken: dict[int, int] = field(default_factory=dict[int, int])
    _shown: dict[tuple[str, object], RawSession] = field(default_factory=dict[tuple[str, object], RawSession])
    _last: RawSession | None = None

    async def play(self, client: RawClient, count: int, *, lasting_s: float, most_s: float) -> None:
        """Open so many sessions and play episodes with all of them at once, again and again for `lasting_s` seconds.

        Each session takes another number of steps than its neighbours. An episode is broken off after `most_s` seconds.
        """
        identities = [self.known.identities.new() for _ in range(count)]
        of = {me.episode_id: me for me in identities}
        self.sessions = await open_sessions(
            client, self.subject, [self.known.reset_data(self.subject, me) for me in identities]
        )
        began = time.perf_counter()
        who = [(session, of[session.reset_data["episode_id"]]) for session in self.sessions]
        for session, me in who:
            self._owners[me.number] = session
        await asyncio.gather(
            *(
                self._repeat(session, me, place, began + lasting_s, began + most_s)
                for place, (session, me) in enumerate(who)
            )
        )

    async def _repeat(self, session: RawSession, me: Identity, place: int, until: float, stop: float) -> None:
        first = session.first_answer
        while await self._episode(session, first, me, 1 + place % self.known.steps, stop):
            if time.perf_counter() >= until or not self.known.begins_anew:
                return
            me, place = self.known.identities.new(), place + 1
            self._owners[me.number] = session
            first = await session.reset(self.known.reset_data(self.subject, me))

    async def _episode(self, session: RawSession, first: Answer, me: Identity, steps: int, stop: float) -> bool:
        """Play one episode; return whether every question was answered."""
        self.episodes += 1
        seen = -1
        looks = episode(
            session,
            first,
            lambda step: self.known.action(self.subject, me, step),
            steps,
            ask_state=self.known.has_state,
        )
        done = False
        async for look in looks:
            seen, done = look.step, look.answer.done
            self._look(session, me, look)
            if time.perf_counter() > stop and seen:
                done = True
                break
        await looks.aclose()
        if seen == steps and not done and self.known.has_state:
            # What the others do after this session's last step must not show either.
            state = await session.state()
            if state.kind == "state":
                self._compare(session, me, seen, self.known.read(StepView(seen, first, state), me, set()), "state.")
        if seen < steps and not done:
            self.unanswered.append(f"session {session.number} was not answered any more {after(max(seen, 0))}")
            session.drop()
        return seen == steps or done

    def _look(self, session: RawSession, me: Identity, look: StepView) -> None:
        self.answers += 1
        self.pids.add(look.answer.observation.get("pid"))
        self.hosts.add(look.answer.observation.get("host_url"))
        self._taken[session.number] = look.step
        foreign: set[int] = set()
        fields = self.known.read(look, me, foreign)
        for number in sorted(foreign):
            self._foreign(session, me, number, fields, look.step)
        self._compare(session, me, look.step, fields)
        for path in self.known.ids:
            self._name(session, path, fields)
        self._last = session

    def _foreign(self, session: RawSession, me: Identity, number: int, fields: Fields, step: int) -> None:
        owner = self._owners.get(number)
        if owner is session:
            # What is left of an episode after a reset is another check's question.
            return
        whose = f"session {owner.number}'s" if owner is not None else "an earlier session's"
        path, value = next(
            (
                (path, value)
                for path, value in fields.items()
                if self.known.identities.holds(value, number) or self.known.identities.holds(path, number)
            ),
            ("an answer", ""),
        )
        words = f"session {session.number} saw {whose} {path} {after(step)}: {quoted(value)}"
        self._add(True, path, words, session, owner)

    def _compare(self, session: RawSession, me: Identity, step: int, fields: Fields, only: str = "") -> None:
        for found in self.known.unlike(fields, step):
            if not found.path.startswith(only):
                continue
            sure = self.known.counts_steps and found.path == "state.step_count"
            if not sure:
                self.suspects.setdefault(pattern(found.path), set()).add(me.number)
            owner = self._likely(session, found.seen)
            self._add(sure, pattern(found.path), f"session {session.number}: {found}", session, owner)

    def _name(self, session: RawSession, path: str, fields: Fields) -> None:
        if path not in fields:
            return
        first = self._shown.setdefault((path, fields[path]), session)
        if first is session:
            return
        self.suspects.setdefault(path, set()).add(session.number)
        words = f"sessions {first.number} and {session.number} both showed {path} {quoted(fields[path])}"
        self._add(False, path, words, session, first)

    def _likely(self, session: RawSession, seen: object) -> RawSession | None:
        """Return the session that is as far as what was seen, else the one that was answered last."""
        others = [one for one in self.sessions if one is not session]
        return next((one for one in others if self._taken.get(one.number) == seen), None) or (
            self._last if self._last is not session else next(iter(others), None)
        )

    def _add(self, sure: bool, path: str, words: str, session: RawSession, owner: RawSession | None) -> None:
        shown: list[Transcript] = []
        if not any(leak.sure == sure and leak.transcripts for leak in self.leaks):
            shown.append(session.transcript(f"session {session.number}, which saw it"))
            if owner is not None and owner is not session:
                whose = "whose it is" if sure and "step_count" not in path else "which played at the same time"
                shown.append(owner.transcript(f"session {owner.number}, {whose}"))
        self.leaks.append(Leak(sure, path, words, tuple(shown)))


def spread(crowd: ConcurrentPlay) -> tuple[dict[str, int], Iterable[str]]:
    """Return how many processes and hosts answered, as far as observations tell, as figures and as sentences."""
    pids, hosts = len(crowd.pids - {None}), len(crowd.hosts - {None})
    figures = {name: count for name, count in (("pids", pids), ("hosts", hosts)) if count}
    words = [
        f"{count} {name if count > 1 else name[:-1]}"
        for name, count in (("processes", pids), ("hosts", hosts))
        if count
    ]
    return figures, [f"answers came from {' on '.join(words)}"] if words else []


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
    return await _among(subject, subject.max_sessions, f"at once for {_BUSY_S:g} s", _BUSY_S)


async def _among(subject: Subject, wanted: int, how: str, lasting_s: float) -> CheckResult:
    if skipped := await skip_single_slot(subject):
        return skipped
    known = await known_alone(subject)
    if isinstance(known, CheckResult):
        return known
    count = await sessions_at_once(subject, wanted)
    crowd = ConcurrentPlay(subject, known)
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


async def known_alone(subject: Subject) -> SingleReference | CheckResult:
    """Return what lone sessions see, or the result where no answer tells one session from another."""
    known = await subject.ask_once(learn_reference)
    if known is None:
        return CheckResult(CheckOutcome.INCONCLUSIVE, "sessions on their own were not answered, one after the other")
    if known.signals:
        return known
    return CheckResult(
        CheckOutcome.SKIPPED,
        "nothing the server answers tells one session from another: no step_count, no episode_id, no field that "
        "repeats what was sent or changes from step to step",
    )


async def _judged(subject: Subject, known: SingleReference, crowd: ConcurrentPlay, how: str) -> CheckResult:
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


def _missing(crowd: ConcurrentPlay) -> list[str]:
    if not crowd.unanswered:
        return []
    return [f"{count_of(len(crowd.unanswered), 'episode')} ended early, which is no leak: {crowd.unanswered[0]}"]


async def _confirmed(subject: Subject, known: SingleReference, crowd: ConcurrentPlay) -> tuple[CheckOutcome, int]:
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
