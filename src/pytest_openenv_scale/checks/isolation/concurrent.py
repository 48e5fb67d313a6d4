"""Sessions that play at the same time, each watched for what it should not see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_openenv_scale.core.check import Transcript

from .alone import Alone
from .answer import Answer
from .client import RawClient
from .episode import Look, episode
from .seats import fill
from .session import RawSession
from .subject import Subject
from .tokens import Identity
from .trajectory import Fields, after, pattern, quoted


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
class Crowd:
    """Sessions at the same time: what they saw of each other, and how much was looked at.

    `answers` counts what was looked at, `episodes` those begun; `unanswered` says of sessions that ended early why.
    `suspects` are the fields of leaks that are not sure, with the episodes in which they were seen.
    """

    subject: Subject
    known: Alone
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
        self.sessions = await fill(client, self.subject, [self.known.reset_data(self.subject, me) for me in identities])
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
        first = session.first
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
                self._compare(session, me, seen, self.known.read(Look(seen, first, state), me, set()), "state.")
        if seen < steps and not done:
            self.unanswered.append(f"session {session.number} was not answered any more {after(max(seen, 0))}")
            session.drop()
        return seen == steps or done

    def _look(self, session: RawSession, me: Identity, look: Look) -> None:
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


def spread(crowd: Crowd) -> tuple[dict[str, int], Iterable[str]]:
    """Return how many processes and hosts answered, as far as observations tell, as figures and as sentences."""
    pids, hosts = len(crowd.pids - {None}), len(crowd.hosts - {None})
    figures = {name: count for name, count in (("pids", pids), ("hosts", hosts)) if count}
    words = [
        f"{count} {name if count > 1 else name[:-1]}"
        for name, count in (("processes", pids), ("hosts", hosts))
        if count
    ]
    return figures, [f"answers came from {' on '.join(words)}"] if words else []
