"""What sessions leave behind: the server before they come, compared with the server after all of them are gone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median

from pytest_openenv_scale.checks.background import quick_action
from pytest_openenv_scale.checks.capacity_probe import (
    SLOT_RETURN_LIMIT_S,
    fill_empty_server,
    find_slots,
    open_sessions,
    slot_return_s,
)
from pytest_openenv_scale.checks.resources import Usage, sample_when_released, sample_when_settled
from pytest_openenv_scale.checks.session import RawSession
from pytest_openenv_scale.checks.subject import Figures, FigureValue, Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .full_server import SLOT_REMEDY, no_slot_free

_MAX_SESSIONS, _WARM_UP_SESSIONS, _WARM_UP_S = 64, 32, 5.0
"""Sessions at a time, at most, where the limit is not known; sessions played before the first sample, and after how
many seconds no more of them are begun."""

_LONE_SESSIONS = 10
"""Sessions played on their own, one after another, to see how long a step takes."""

_LONE_STEPS = 2
_LONE_S = 3.0
"""Seconds after which no further one is begun, once `_LONE_FEWEST` were played."""

_LONE_FEWEST = 3
_SLOWER_FACTOR = 2.0
_SLOWER_LEAST_S = 0.1
"""A step on its own counts as slower from this factor and this many seconds on."""

_QUIET_S = 0.5
"""Seconds of rest before it is measured."""

_REMEDIES = {
    "memory": "look for what still refers to a session that is over (a registry, a cache, a log in memory) and drop it "
    "in the environment's close()",
    "threads": "end threads and shut executors down in the environment's close()",
    "descriptors": "close files, sockets and clients in the environment's close()",
}


@dataclass(frozen=True, slots=True)
class ServerBefore:
    """A server before a check: how many sessions fit, a sample with none open, and a lone session's step in seconds."""

    slots: int
    sample: ServerSample | None
    lone_step_s: float | None


async def measure_before(subject: Subject) -> ServerBefore | CheckResult:
    """Play a few sessions, sample the server and count how many sessions fit; a result where none does."""
    slots = await subject.learn(find_slots)
    limit = slots.open if slots.limit_reached else min(slots.open, _MAX_SESSIONS)
    played, until = 0, time.perf_counter() + _WARM_UP_S
    async with subject.client() as client:
        sessions, _ = await fill_empty_server(client, subject, limit)
        if not sessions:
            return no_slot_free(slots)
        count = len(sessions)
        while sessions:
            await _step_and_close(subject, sessions)
            played += len(sessions)
            if played >= _WARM_UP_SESSIONS or time.perf_counter() > until:
                break
            sessions = await open_sessions(client, subject, subject.resets(count), within_s=slot_return_s(subject))
    lone_s = await lone_step_s(subject)
    return ServerBefore(count, await sample_when_settled(subject.endpoint), lone_s)


async def _step_and_close(subject: Subject, sessions: list[RawSession]) -> None:
    """Take a step in all sessions at once, so that thread pools reach their size, and close them."""
    patience_s = subject.patience_among(len(sessions))
    await asyncio.gather(
        *(session.step(quick_action(subject, session, 0), patience_s=patience_s) for session in sessions)
    )
    await close_all(sessions)


@dataclass
class LeakCheck:
    """A check of what sessions leave behind, and what it found so far; `problems` are sentences with their remedies."""

    subject: Subject
    before: ServerBefore
    usage: Usage = field(init=False)
    figures: Figures = field(default_factory=dict[str, FigureValue])
    problems: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    details: list[str] = field(default_factory=list[str])
    transcripts: list[Transcript] = field(default_factory=list[Transcript])

    def __post_init__(self) -> None:
        self.usage = Usage(self.subject.endpoint)

    async def judge(self, sessions: int, activity: str, *, within_s: float, waited: bool = False) -> CheckResult:
        """Compare the server with what it was, once `sessions` sessions are gone; `activity` says what they did.

        Slots get `within_s` seconds to come back, unless `waited` tells that they were waited for as long already.
        """
        remarks = [await self._judge_slots(within_s, waited), *await self._judge_resources(sessions)]
        remarks += await self._judge_lone_step()
        verdict_text = "; ".join(text for text, _ in self.problems) or ", ".join(remarks)
        names = {"memory_bytes": "memory", "threads": "threads", "descriptors": "descriptors"}
        series = {"sessions": tuple(map(float, self.usage.sessions))}
        return CheckResult(
            CheckOutcome.MISSED if self.problems else CheckOutcome.MET,
            f"{activity}: {verdict_text}",
            remedy="; ".join(dict.fromkeys(remedy for _, remedy in self.problems)) or None,
            details=(*self.details, *(remarks if self.problems else ())),
            figures=self.figures,
            series=series | {name: self.usage.series(resource) for name, resource in names.items()}
            if len(self.usage.samples) > 1
            else {},
            transcripts=tuple(self.transcripts),
        )

    async def _judge_slots(self, within_s: float, waited: bool) -> str:
        """Open as many sessions as fitted before, and report slots that did not come back."""
        subject, slots, began = self.subject, self.before.slots, time.perf_counter()
        async with subject.client() as client:
            patience_s = 0.0 if waited else within_s
            reopened = await open_sessions(client, subject, subject.resets(slots), within_s=patience_s)
            took_s = time.perf_counter() - began
            if len(reopened) < slots:
                refused = await client.start(subject.reset_data(subject.seed))
                refused.drop()
                self.transcripts.append(refused.transcript("one for whom there is no slot any more"))
            await close_all(reopened)
        self.figures |= {"slots_before": slots, "slots_after": len(reopened), "slots_back_s": took_s}
        if len(reopened) < slots:
            lost = f"{slots - len(reopened):,} of {formatting.count_of(slots, 'slot')}"
            waited_s = round(within_s, 1 if within_s < 10 else None)
            self.problems.append((f"{lost} not given back within {waited_s:g} s", SLOT_REMEDY))
        return f"{len(reopened):,} of {formatting.count_of(slots, 'slot')} free"

    async def _judge_resources(self, sessions: int) -> list[str]:
        before, usage = self.before.sample, self.usage
        after = await sample_when_released(self.subject.endpoint, before, sessions, SLOT_RETURN_LIMIT_S)
        remarks: list[str] = []
        for name, remedy in _REMEDIES.items():
            change = usage.change(name, before, after, sessions)
            unit = "_bytes" if name == "memory" else ""
            for part in ("before", "after", "per_session"):
                self.figures[f"{name}_{part}{unit}"] = None if change is None else getattr(change, part)
            if change is None:
                self.details.append(f"{name}: not readable here")
                continue
            remarks.append(str(change))
            if name == "memory" and usage.too_few_samples(name):
                self.details.append("too few sessions to tell whether memory grows")
            if change.leaked and name == "memory":
                size = formatting.size(round(change.per_session or 0))
                self.problems.append((f"each session leaves {size} of memory", remedy))
            elif change.leaked:
                stay = f"{change.after - change.before:,} {name} stay ({change.before:,} → {change.after:,})"
                self.problems.append((stay, remedy))
        return remarks

    async def _judge_lone_step(self) -> list[str]:
        """Compare a lone session's step with what it was; a slower one is measured again, as it may be noise."""
        before_s, lone_s = self.before.lone_step_s, None
        if self.figures["slots_after"]:
            await asyncio.sleep(_QUIET_S)
            lone_s = await lone_step_s(self.subject)
        for _ in range(2):
            if _is_slower(before_s, lone_s):
                lone_s = await lone_step_s(self.subject)
        self.figures |= {"lone_step_before_s": before_s, "lone_step_after_s": lone_s}
        if lone_s is None and before_s is not None and self.figures["slots_after"]:
            self.problems.append(("a session on its own gets no step done any more", "look into the server's log"))
        if lone_s is None or before_s is None:
            return []
        pair = f"{formatting.seconds(before_s)} → {formatting.seconds(lone_s)}"
        if _is_slower(before_s, lone_s):
            remedy = "look for what grows with every session and is walked through in each step"
            self.problems.append((f"a lone session's step is slower: {pair}", remedy))
        return [f"a lone step {pair}"]


def _is_slower(before_s: float | None, after_s: float | None) -> bool:
    return before_s is not None and after_s is not None and after_s > _SLOWER_FACTOR * before_s + _SLOWER_LEAST_S


async def lone_step_s(subject: Subject) -> float | None:
    """Return the median latency of a step in lone sessions, one after another, in seconds; None where none gets in."""
    latencies: list[float] = []
    end = time.perf_counter() + _LONE_S
    for number in range(_LONE_SESSIONS):
        async with subject.client() as client:
            reset = subject.reset_data(subject.seed + number)
            opened = await open_sessions(client, subject, [reset], within_s=slot_return_s(subject))
            if not opened:
                break
            for session in opened:
                answers = [
                    await session.step(quick_action(subject, session, step, number=number))
                    for step in range(_LONE_STEPS)
                ]
                latencies += [answer.latency_s for answer in answers if answer.good and answer.latency_s is not None]
                if answers[-1].good:
                    await session.close(patience_s=subject.patience_s)
        if number + 1 >= _LONE_FEWEST and time.perf_counter() > end:
            break
    return median(latencies) if latencies else None
