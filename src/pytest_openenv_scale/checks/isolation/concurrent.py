"""Do sessions that play at the same time see each other's state?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from pytest_openenv_scale.checks.capacity_probe import find_slots, sessions_at_once, skip_single_slot
from pytest_openenv_scale.checks.session import Answer, RawSession
from pytest_openenv_scale.checks.subject import RawClient, Subject, close_all
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .observations import (
    Identity,
    ObservationDifference,
    StepView,
    after_step,
    join_names,
    json_excerpt,
    open_alone,
    path_pattern,
)
from .processes import Sharing, sharing_of
from .reference import Leak, SingleReference, View, leak_result, replay_alone, usable_reference
from .replays import (
    Deviations,
    ReplayVerdict,
    Suspect,
    group_deviations,
    judge_by_replaying,
    replay_s,
)


@dataclass
class _Episode:
    """An episode that deviated from lone ones: after how many steps it ended, and where it did."""

    identity: Identity
    steps: int = 0
    deviations: list[ObservationDifference] = field(default_factory=list[ObservationDifference])


@dataclass
class ConcurrentPlay:
    """Sessions that play at the same time: what they were shown of each other.

    `answers` counts the answers inspected, `episodes` those begun; `unanswered` tells which sessions ended early.
    `processes` are those that served the sessions, by the number of the session, where observations tell. `shared_ids`
    are the fields in which two sessions had the same name, with the sessions that had it.
    """

    reference: SingleReference
    sessions: list[RawSession] = field(default_factory=list[RawSession])
    leaks: list[Leak] = field(default_factory=list[Leak])
    answers: int = 0
    episodes: int = 0
    unanswered: list[str] = field(default_factory=list[str])
    processes: dict[int, tuple[str, int]] = field(default_factory=dict[int, tuple[str, int]])
    shared_ids: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    _deviating: dict[int, _Episode] = field(default_factory=dict[int, "_Episode"])
    _owners: dict[int, RawSession] = field(default_factory=dict[int, RawSession])
    _steps_taken: dict[int, int] = field(default_factory=dict[int, int])
    _id_owners: dict[tuple[str, object], RawSession] = field(default_factory=dict[tuple[str, object], RawSession])
    _last_answered: RawSession | None = None

    async def play(self, client: RawClient, count: int, *, lasting_s: float, longest_s: float) -> None:
        """Open `count` sessions and play episodes in all of them at once, again and again for `lasting_s` seconds.

        Each session takes another number of steps than its neighbours. Episodes are cut off after `longest_s` seconds.
        """
        players = await self.reference.open(client, count)
        self.sessions = [session for session, _ in players]
        self._owners = {identity.number: session for session, identity in players}
        began = time.perf_counter()
        await asyncio.gather(
            *(
                self._play_episodes(session, identity, position, began + lasting_s, began + longest_s)
                for position, (session, identity) in enumerate(players)
            )
        )

    async def _play_episodes(
        self, session: RawSession, identity: Identity, position: int, until: float, cutoff: float
    ) -> None:
        first = session.first_answer
        while await self._play_episode(session, first, identity, 1 + position % self.reference.steps, cutoff):
            if time.perf_counter() >= until or not self.reference.resets_cleanly:
                return
            identity, position = self.reference.identities.new(), position + 1
            self._owners[identity.number] = session
            first = await session.reset(self.reference.reset_data(identity))

    async def _play_episode(
        self, session: RawSession, first: Answer, identity: Identity, steps: int, cutoff: float
    ) -> bool:
        """Play one episode; return whether every request was answered."""
        self.episodes += 1
        last_step, done = -1, False
        async with aclosing(self.reference.play(session, first, identity, steps)) as views:
            async for view in views:
                last_step, done = view.step, view.answer.done
                self._inspect(session, identity, view)
                if time.perf_counter() > cutoff and last_step:
                    done = True
                    break
        if last_step == steps and not done and self.reference.has_state:
            # What the others do after this session's last step must not show either.
            state = await session.state()
            if state.kind == "state":
                view = self.reference.read(StepView(last_step, first, state), identity)
                self._record_deviations(session, identity, view, "state.")
        if episode := self._deviating.get(identity.number):
            episode.steps = last_step
        if last_step < steps and not done:
            self.unanswered.append(
                f"session {session.number} was not answered any more {after_step(max(last_step, 0))}"
            )
            session.drop()
        return last_step == steps or done

    def _inspect(self, session: RawSession, identity: Identity, view: View) -> None:
        self.answers += 1
        if process := view.answer.process:
            self.processes.setdefault(session.number, process)
        self._steps_taken[session.number] = view.step
        for number in sorted(view.foreign):
            self._record_foreign_identity(session, number, view)
        self._record_deviations(session, identity, view)
        for path in self.reference.session_ids & view.fields.keys():
            self._record_shared_id(session, path, view.fields[path])
        self._last_answered = session

    def _record_foreign_identity(self, session: RawSession, number: int, view: View) -> None:
        owner = self._owners.get(number)
        if owner is session:
            # What is left of the same session's earlier episode is another check's matter.
            return
        whose = f"session {owner.number}'s" if owner is not None else "an earlier session's"
        shows = self.reference.identities.appears_in
        path, value = next(
            (item for item in view.fields.items() if any(shows(part, number) for part in item)), ("an answer", "")
        )
        description = f"session {session.number} saw {whose} {path} {after_step(view.step)}: {json_excerpt(value)}"
        self._record_leak(True, path, description, session, owner)

    def _record_deviations(self, session: RawSession, identity: Identity, view: View, path_prefix: str = "") -> None:
        for deviation in self.reference.deviations(view.fields, view.step):
            if not deviation.path.startswith(path_prefix):
                continue
            self._deviating.setdefault(identity.number, _Episode(identity)).deviations.append(deviation)
            owner, path = self._likely_owner(session, deviation.actual), path_pattern(deviation.path)
            description = f"session {session.number}: {deviation}"
            self._record_leak(False, path, description, session, owner, identity.number)

    def suspects(self) -> list[Suspect[_Episode]]:
        """Return the episodes that were shown what no lone one was, and no identity explains it."""
        return [Suspect(episode, group_deviations(episode.deviations)) for episode in self._deviating.values()]

    def _record_shared_id(self, session: RawSession, path: str, value: object) -> None:
        first = self._id_owners.setdefault((path, value), session)
        if first is session:
            return
        self.shared_ids.setdefault(path, set()).add(session.number)
        description = f"sessions {first.number} and {session.number} both showed {path} {json_excerpt(value)}"
        self._record_leak(False, path, description, session, first)

    def _likely_owner(self, session: RawSession, value: object) -> RawSession | None:
        """Return the session that has taken as many steps as `value`, else the one that was answered last."""
        others = [other for other in self.sessions if other is not session]
        return next((other for other in others if self._steps_taken.get(other.number) == value), None) or (
            self._last_answered if self._last_answered is not session else next(iter(others), None)
        )

    def _record_leak(
        self,
        certain: bool,
        path: str,
        description: str,
        session: RawSession,
        owner: RawSession | None,
        episode: int | None = None,
    ) -> None:
        transcripts: list[Transcript] = []
        if not any(leak.certain == certain and leak.transcripts for leak in self.leaks):
            transcripts.append(session.transcript(f"session {session.number}, which saw it"))
            if owner is not None and owner is not session:
                whose = "whose it is" if certain and "step_count" not in path else "which played at the same time"
                transcripts.append(owner.transcript(f"session {owner.number}, {whose}"))
        self.leaks.append(Leak(description, tuple(transcripts), path, certain, episode))


_SESSIONS = 16
_BUSY_S, _LONGEST_S = 3.0, 20.0
_LONGEST_PAUSE_S = 0.3

REMEDY = (
    "give each session an environment object of its own: pass the class (or a factory that makes a new one) to "
    "create_app, and keep nothing of an episode in module variables or class attributes"
)
"""What the environment's author does about sessions that see each other."""


async def interleaved(subject: Subject) -> CheckResult:
    """Play sessions side by side, each with its own identity and number of steps, and look for foreign state."""
    return await _check_concurrent(subject, _SESSIONS, "side by side", 0.0)


async def under_load(subject: Subject) -> CheckResult:
    """Play as many sessions as fit, episode after episode, and look for foreign state."""
    return await _check_concurrent(subject, subject.max_sessions, f"at once for {_BUSY_S:g} s", _BUSY_S)


async def _check_concurrent(subject: Subject, requested: int, manner: str, lasting_s: float) -> CheckResult:
    if skipped := await skip_single_slot(subject):
        return skipped
    reference = await usable_reference(subject)
    if isinstance(reference, CheckResult):
        return reference
    count = await sessions_at_once(subject, requested)
    concurrent = ConcurrentPlay(reference)
    async with subject.client() as client:
        if count > 1:
            await concurrent.play(client, count, lasting_s=lasting_s, longest_s=_LONGEST_S)
        await close_all(concurrent.sessions)
    if len(concurrent.sessions) < 2:
        headline = f"isolation needs two sessions at once, and {count_of(len(concurrent.sessions), 'session')} got in"
        return CheckResult(CheckOutcome.INCONCLUSIVE, headline)
    slots = await subject.learn(find_slots)
    sharing = sharing_of(concurrent.processes, len(concurrent.sessions), subject.endpoint, slots)
    return await _judge(concurrent, sharing, manner)


async def _judge(concurrent: ConcurrentPlay, sharing: Sharing, manner: str) -> CheckResult:
    reference = concurrent.reference
    figures = {
        "sessions": len(concurrent.sessions),
        "episodes": concurrent.episodes,
        "answers": concurrent.answers,
        **sharing.figures,
    }
    details = [f"seen by: {join_names(reference.signals)}", *sharing.sentences]
    if concurrent.unanswered:
        ended = count_of(len(concurrent.unanswered), "episode")
        details.append(f"{ended} ended early, which is no leak: {concurrent.unanswered[0]}")
    sessions = f"{len(concurrent.sessions)} sessions {manner}"
    if certain := [leak for leak in concurrent.leaks if leak.certain]:
        return _leak_result(sessions, certain, figures, details)
    shared, opened = await _fields_of_shared_ids(concurrent)
    if shared and opened == _ID_SESSIONS:
        leaks = [leak for leak in concurrent.leaks if leak.field in shared]
        details.append(f"{opened} more sessions on their own never saw it")
        return _leak_result(sessions, leaks, figures | {"episodes_alone": opened}, details)
    if shared:
        details.append(f"not decided: two sessions had the same {join_names(shared)}, and {opened} alone are too few")
    verdict = await _replay(concurrent)
    if verdict is not None:
        figures |= {"episodes_alone": verdict.plays}
        if verdict.outcome is not CheckOutcome.MET:
            return _judge_left(concurrent, verdict, sessions, figures, details)
        details += _explained_details(verdict)
    if not concurrent.answers:
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"{sessions}: none was answered", details=tuple(details))
    headline = f"{sessions}, {concurrent.answers:,} answers: none showed another session's state{sharing.note}"
    if sharing.apart:
        return CheckResult(
            CheckOutcome.SKIPPED,
            f"{sessions} had a process each, where none can see another's state: that tells nothing of isolation",
            "serve it with fewer workers, or ask for more sessions than there are workers",
            tuple(details),
            figures,
        )
    return CheckResult(CheckOutcome.MET, headline, details=tuple(details), figures=figures)


def _leak_result(sessions: str, leaks: list[Leak], figures: dict[str, int], details: list[str]) -> CheckResult:
    more = f" (and {len(leaks) - 1:,} more like it)" if len(leaks) > 1 else ""
    result = leak_result(f"{sessions}: {leaks[0].description}{more}", leaks, REMEDY, details, figures)
    leaking = f"leaking: {join_names({leak.field for leak in leaks})}"
    return replace(result, details=(leaking, *result.details))


def _judge_left(
    concurrent: ConcurrentPlay,
    verdict: ReplayVerdict[_Episode],
    sessions: str,
    figures: dict[str, int],
    details: list[str],
) -> CheckResult:
    """Return the result where episodes among others saw what plays alone do not explain."""
    left = {suspect.episode.identity.number for suspect in verdict.left}
    leaks = [leak for leak in concurrent.leaks if leak.episode in left and leak.field in verdict.fields]
    figures |= {"episodes_differing": len(left)}
    if verdict.outcome is CheckOutcome.MISSED:
        return _leak_result(sessions, leaks, figures, [*details, verdict.plays_text])
    differing = f"{len(left):,} of {concurrent.episodes:,} episodes among others saw what none alone did"
    details = [*(leak.description for leak in leaks[:3]), verdict.plays_text, *details]
    if not verdict.answered:
        headline = f"{sessions}: {differing}; too few to say that it comes from the others"
        transcripts = leaks[0].transcripts
        return CheckResult(verdict.outcome, headline, None, tuple(details), figures, transcripts=transcripts)
    headline = (
        f"{sessions}, {concurrent.answers:,} answers: none showed another session's identity; not decided: {differing}"
    )
    return CheckResult(CheckOutcome.MET, headline, details=tuple(details), figures=figures)


def _explained_details(verdict: ReplayVerdict[_Episode]) -> Iterator[str]:
    """Say what differed among others, and alone too."""
    if verdict.random:
        yield f"{join_names(verdict.random)}: differs between sessions on their own too, and was left out"
    if verdict.repeated:
        names, episodes = join_names(verdict.repeated_fields), count_of(verdict.repeated, "episode")
        yield f"{names}: deviates in {episodes} that show the same alone, with the same seed and actions"
    if verdict.left:
        yield f"{count_of(len(verdict.left), 'more episode')} that deviated were not played again"


_ID_SESSIONS = 40
"""Names that sessions share by chance are rare enough to need so many sessions alone."""


async def _fields_of_shared_ids(concurrent: ConcurrentPlay) -> tuple[set[str], int]:
    """Return the fields in which two sessions had one name but no two alone have, and how many were opened alone."""
    fields, reference = set(concurrent.shared_ids), concurrent.reference
    names = {path: [play.after_second_reset[path] for play in reference.plays] for path in fields}
    began, opened, within_s = time.perf_counter(), 0, replay_s(reference.subject)
    while fields and opened < _ID_SESSIONS and time.perf_counter() - began < within_s:
        opened += 1
        identity = reference.identities.new()
        async with reference.subject.client(reference.subject.timeout_s) as client:
            session = await open_alone(client, reference.subject, reference.reset_data(identity))
            async for view in reference.play(session, session.first_answer, identity, 0):
                fields -= {path for path in fields if view.fields.get(path) in names[path]}
                for path in fields:
                    names[path].append(view.fields.get(path))
            await session.close()
    return fields, opened


async def _replay(concurrent: ConcurrentPlay) -> ReplayVerdict[_Episode] | None:
    """Play alone again what deviated among others; None where nothing did."""
    reference, suspects = concurrent.reference, concurrent.suspects()
    if not suspects:
        return None

    async def replay(suspect: Suspect[_Episode], number: int) -> Deviations | None:
        # First as slowly as a busy server answers, then as fast as it goes.
        pause = 0.0 if number else min(_LONGEST_PAUSE_S, reference.subject.patience_s)
        episode = suspect.episode
        deviations = await replay_alone(reference, episode.identity, episode.steps, pause_s=pause)
        return None if deviations is None else group_deviations(deviations)

    return await judge_by_replaying(
        suspects,
        replay,
        among=concurrent.episodes,
        alone=len(reference.plays) - 1,
        within_s=replay_s(reference.subject),
    )
