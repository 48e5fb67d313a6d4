"""Responsiveness: while one session's step takes its time, the others and `/health` do not wait for it."""

from __future__ import annotations

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .seats import one_session
from .stepping import Stepping, stepping
from .subject import Subject


async def health(subject: Subject) -> CheckResult:
    """While steps run, HTTP is answered."""
    found = await subject.learn(stepping)
    if failed := _failed(found):
        return failed
    if found.idle_s is None:
        said = "GET /health gets no HTTP answer from this server, also while nothing else happens"
        return CheckResult(CheckOutcome.SKIPPED, said)
    last, figures = found.last, found.figures()
    slowest = max(last.alone_http_s or 0.0, last.together_http_s or 0.0)
    measured = (
        f"/health took {text_of.seconds(slowest)} at most while {text_of.count_of(found.sessions, 'session')} stepped"
        f" ({text_of.seconds(found.idle_s)} before), one step takes {text_of.seconds(last.alone_s)}"
    )
    if found.short:
        return CheckResult(CheckOutcome.MET, _too_short(found), details=(measured,), figures=figures)
    if not all(map(found.blocked, found.rounds)):
        return CheckResult(CheckOutcome.MET, measured, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"steps block the event loop: {measured}",
        remedy=_FREE_THE_LOOP,
        details=(
            f"beside one session's steps /health took {text_of.seconds(last.alone_http_s)}{_beside_several(found)}",
            *_consequence(found),
            f"so it was in each of {len(found.rounds)} rounds",
        ),
        figures=figures,
    )


async def parallel(subject: Subject) -> CheckResult:
    """Steps of several sessions run side by side."""
    if skipped := await one_session(subject):
        return skipped
    found = await subject.learn(stepping)
    if failed := _failed(found):
        return failed
    if found.sessions < 2:
        said = "a second session could not be opened: there is nothing to run side by side"
        return CheckResult(CheckOutcome.INCONCLUSIVE, said)
    last, figures = found.last, found.figures()
    measured = (
        f"{found.sessions} steps at once took {text_of.seconds(last.wall_s)}, one alone {text_of.seconds(last.alone_s)}"
    )
    if found.short:
        return CheckResult(CheckOutcome.MET, _too_short(found), details=(measured,), figures=figures)
    if not last.serial:
        return CheckResult(CheckOutcome.MET, measured, figures=figures)
    blocked = found.blocked(last)
    if not last.stairs and not blocked:
        said = f"{measured}: they share a core or Python's interpreter lock, in slices, and do not wait for each other"
        more = "more workers on more cores make them faster (uvicorn --workers N)"
        return CheckResult(CheckOutcome.MET, said, details=(more,), figures=figures)
    if blocked:
        said = (
            f"{measured}: steps block the event loop (/health took {text_of.seconds(last.together_http_s)} meanwhile)"
        )
    else:
        said = f"{measured}: they run one after another"
    return CheckResult(
        CheckOutcome.MISSED,
        said,
        remedy=_FREE_THE_LOOP if blocked or found.idle_s is None else _FREE_THE_LOCK,
        details=(
            "latencies of the steps at once: " + ", ".join(text_of.seconds(step) for step in sorted(last.together_s)),
            f"so it was in each of {len(found.rounds)} rounds",
        ),
        figures=figures,
    )


_FREE_THE_LOOP = (
    "write step() as an ordinary function, which OpenEnv runs in a thread; in step_async() await what takes time"
    " (asyncio.sleep, an async client) or run it with await asyncio.to_thread(...)"
)
_FREE_THE_LOCK = (
    "steps of different sessions wait for one lock, one pool or one resource: give each session's environment its own"
)


def _too_short(found: Stepping) -> str:
    return f"a step takes {text_of.seconds(found.alone_s)}: too short to hold others up noticeably"


def _beside_several(found: Stepping) -> str:
    if found.sessions < 2 or found.last.together_http_s is None:
        return ""
    return f", beside {found.sessions} at once {text_of.seconds(found.last.together_http_s)}"


def _consequence(found: Stepping) -> tuple[str, ...]:
    if found.sessions < 2:
        return ()
    wall, alone = text_of.seconds(found.last.wall_s), text_of.seconds(found.last.alone_s)
    return (f"{found.sessions} steps at once took {wall}, one alone {alone}",)


def _failed(found: Stepping) -> CheckResult | None:
    return CheckResult(CheckOutcome.INCONCLUSIVE, found.failed) if found.failed is not None else None
