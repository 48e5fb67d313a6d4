"""What sessions left behind: a server as it was before they came, and as it is when all of them are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pytest_openenv_scale.checks.background import quick_action
from pytest_openenv_scale.checks.capacity_probe import SLOT_RETURN_LIMIT_S, fill_empty_server, find_slots, open_sessions, slot_return_s
from pytest_openenv_scale.checks.resources import Usage, sample_when_released, sample_when_settled
from pytest_openenv_scale.checks.session import RawSession
from pytest_openenv_scale.checks.subject import Subject, close_all
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Transcript

from .full_server import GIVE_BACK, no_slot_free

RESOURCES = ("memory", "threads", "descriptors")

_MOST, _WARM, _WARM_S = 64, 32, 5.0
"""Sessions at a time, at most, where the limit is not known; ordinary sessions played before the first look, and after
how many seconds no more of them are begun."""

_LONE, _LONE_STEPS, _LONE_S, _LONE_LEAST = 10, 2, 3.0, 3
_SLOWER, _SLOWER_S, _QUIET_S = 2.0, 0.1, 0.5
"""Sessions on their own, their steps, seconds they may take in all, and how many are played whatever it takes. A lone
session is slower from this factor and so many seconds on, and is asked after so many seconds of quiet."""

_REMEDIES = {
    "memory": "look for what still refers to a session that is over (a registry, a cache, a log in memory) and drop it "
    "in the environment's close()",
    "threads": "end threads and shut executors down in the environment's close()",
    "descriptors": "close files, sockets and clients in the environment's close()",
}


@dataclass(frozen=True, slots=True)
class ServerBefore:
    """A server before a check: how many sessions fit, what it used with none, a lone session's step (seconds)."""

    room: int
    sample: ServerSample | None
    lone_s: float | None


@dataclass
class Findings:
    """What a check of churn saw so far: `problems` are sentences with what to do about each."""

    figures: dict[str, float | int | str | bool | None] = field(
        default_factory=dict[str, float | int | str | bool | None]
    )
    problems: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    details: list[str] = field(default_factory=list[str])
    transcripts: list[Transcript] = field(default_factory=list[Transcript])


async def before(subject: Subject) -> ServerBefore | CheckResult:
    """Play a few sessions, look at the server, and count how many sessions fit; or the result where none does."""
    found = await subject.ask_once(find_slots)
    most = found.open if found.limit_reached else min(found.open, _MOST)
    played, until = 0, time.perf_counter() + _WARM_S
    async with subject.client() as client:
        held, _ = await fill_empty_server(client, subject, most)
        if not held:
            return no_slot_free(found)
        room = len(held)
        while held:
            await _step_and_leave(subject, held)
            played += len(held)
            if played >= _WARM or time.perf_counter() > until:
                break
            held = await open_sessions(
                client, subject, [subject.reset_data(subject.seed)] * room, within_s=slot_return_s(subject)
            )
    lone_s = await lone_step_s(subject)
    return ServerBefore(room, await sample_when_settled(subject.endpoint), lone_s)


async def _step_and_leave(subject: Subject, sessions: list[RawSession]) -> None:
    """Take a step in all sessions at once, so that pools of threads are as large as they get, and close them."""
    patience_s = subject.patience_among(len(sessions))
    await asyncio.gather(
        *(session.step(quick_action(subject, session.number, 0), patience_s=patience_s) for session in sessions)
    )
    await close_all(sessions)


async def judge(
    subject: Subject,
    start: ServerBefore,
    usage: Usage,
    sessions: int,
    did: str,
    found: Findings,
    *,
    within_s: float,
    waited: bool = False,
) -> CheckResult:
    """Hold the server against what it was, once `sessions` sessions are gone; `did` says in words what they were.

    Slots get `within_s` seconds to come back, unless they were `waited` for as long already.
    """
    words = [await _slots(subject, start, found, within_s, waited)]
    words += await _resources(subject, start, usage, sessions, found)
    words += await _lone(subject, start, found)
    outcome = CheckOutcome.MISSED if found.problems else CheckOutcome.MET
    said = "; ".join(text for text, _ in found.problems) or ", ".join(words)
    return CheckResult(
        outcome,
        f"{did}: {said}",
        remedy="; ".join(dict.fromkeys(remedy for _, remedy in found.problems)) or None,
        details=(*found.details, *(words if found.problems else ())),
        figures=found.figures,
        series={"sessions": tuple(map(float, usage.sessions)), **_series(usage)} if len(usage.samples) > 1 else {},
        transcripts=tuple(found.transcripts),
    )


async def _slots(subject: Subject, start: ServerBefore, found: Findings, within_s: float, waited: bool) -> str:
    """Fill the server as far as it could be filled before."""
    began = time.perf_counter()
    async with subject.client() as client:
        resets: list[Mapping[str, Any]] = [subject.reset_data(subject.seed)] * start.room
        held = await open_sessions(client, subject, resets, within_s=0.0 if waited else within_s)
        took_s = time.perf_counter() - began
        refused = None if len(held) == start.room else await client.start(subject.reset_data(subject.seed))
        if refused is not None:
            refused.drop()
            found.transcripts.append(refused.transcript("one for whom there is no slot any more"))
        await close_all(held)
    found.figures |= {"slots_before": start.room, "slots_after": len(held), "slots_back_s": took_s}
    if len(held) < start.room:
        lost = f"{start.room - len(held):,} of {formatting.count_of(start.room, 'slot')}"
        found.problems.append(
            (f"{lost} not given back within {round(within_s, 1 if within_s < 10 else None):g} s", GIVE_BACK)
        )
    return f"{len(held):,} of {formatting.count_of(start.room, 'slot')} free"


async def _resources(subject: Subject, start: ServerBefore, usage: Usage, sessions: int, found: Findings) -> list[str]:
    after = await sample_when_released(subject.endpoint, start.sample, sessions, SLOT_RETURN_LIMIT_S)
    words: list[str] = []
    for name in RESOURCES:
        kept = usage.change(name, start.sample, after, sessions)
        unit = "_bytes" if name == "memory" else ""
        found.figures |= {
            f"{name}_before{unit}": None if kept is None else kept.before,
            f"{name}_after{unit}": None if kept is None else kept.after,
            f"{name}_per_session{unit}": None if kept is None else kept.per_session,
        }
        if kept is None:
            found.details.append(f"{name}: not readable here")
            continue
        words.append(str(kept))
        if name == "memory" and usage.too_few_samples(name):
            found.details.append("too few sessions to tell whether memory grows")
        if kept.leaked:
            each = f"{formatting.size(round(kept.per_session or 0))} of memory" if name == "memory" else name
            if name == "memory":
                said = f"each session leaves {each}"
            else:
                said = f"{kept.after - kept.before:,} {name} stay ({kept.before:,} → {kept.after:,})"
            found.problems.append((said, _REMEDIES[name]))
    return words


async def _lone(subject: Subject, start: ServerBefore, found: Findings) -> list[str]:
    """Compare the step of a session on its own with what it was; what is noise is gone the next time."""
    lone_s = None
    if found.figures["slots_after"]:
        await asyncio.sleep(_QUIET_S)
        lone_s = await lone_step_s(subject)
    for _ in range(2):
        if _slow(start.lone_s, lone_s):
            lone_s = await lone_step_s(subject)
    found.figures |= {"lone_step_before_s": start.lone_s, "lone_step_after_s": lone_s}
    if lone_s is None and start.lone_s is not None and found.figures["slots_after"]:
        found.problems.append(("a session on its own gets no step done any more", "look into the server's log"))
    if lone_s is None or start.lone_s is None:
        return []
    pair = f"{formatting.seconds(start.lone_s)} → {formatting.seconds(lone_s)}"
    if _slow(start.lone_s, lone_s):
        remedy = "look for what grows with every session and is walked through in each step"
        found.problems.append((f"a lone session's step is slower: {pair}", remedy))
    return [f"a lone step {pair}"]


def _slow(before_s: float | None, after_s: float | None) -> bool:
    return before_s is not None and after_s is not None and after_s > _SLOWER * before_s + _SLOWER_S


async def lone_step_s(subject: Subject) -> float | None:
    """Return the median latency of a step in sessions on their own, one after another; None where none gets in."""
    latencies: list[float] = []
    end = time.perf_counter() + _LONE_S
    for number in range(_LONE):
        async with subject.client() as client:
            reset = subject.reset_data(subject.seed + number)
            opened = await open_sessions(client, subject, [reset], within_s=slot_return_s(subject))
            if not opened:
                break
            for session in opened:
                answers = [await session.step(quick_action(subject, number, step)) for step in range(_LONE_STEPS)]
                latencies += [answer.latency_s for answer in answers if answer.good and answer.latency_s is not None]
                if answers[-1].good:
                    await session.close(patience_s=subject.patience_s)
        if number + 1 >= _LONE_LEAST and time.perf_counter() > end:
            break
    return median(latencies) if latencies else None


def _series(usage: Usage) -> dict[str, tuple[float | None, ...]]:
    names = {"memory": "memory_bytes", "threads": "threads", "descriptors": "descriptors"}
    return {named: usage.series(name) for name, named in names.items()}
