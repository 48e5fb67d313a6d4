"""The stages a Space goes through until it runs, and what it says when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_openenv_scale.core.endpoint import TargetError

from .spaces_api import Runtime, SpaceApi

START_S = 1800.0
"""Seconds a Space gets to be built and to start: images of environments take minutes, and hardware may queue."""

_SETTLE_S = 20.0
"""Seconds a Space that was told to restart may still be seen as it was before."""

_ASLEEP_S = 30.0
"""Seconds of knocking after which a Space that sleeps is restarted, where the token may do that."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_LOG_LINES = 20
_BUILD_FAILED = ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE")
_RUN_FAILED = ("RUNTIME_ERROR", "DELETING", "STOPPED", "PAUSED")
_WORDS = {
    "BUILDING": "is being built",
    "RUNNING_BUILDING": "runs, while its next version is being built",
    "APP_STARTING": "starts",
    "RUNNING_APP_STARTING": "runs, while its next version starts",
    "SLEEPING": "sleeps: waking it",
    "RUNNING": "runs",
    "PAUSED": "is paused",
    "STOPPED": "is stopped",
    "BUILD_ERROR": "could not be built",
    "CONFIG_ERROR": "has a mistake in the YAML of its README",
    "NO_APP_FILE": "has no files to build from",
    "RUNTIME_ERROR": "stopped with an error",
    "DELETING": "is being deleted",
}


@dataclass(frozen=True)
class Wanted:
    """What is waited for: `hardware` that runs (None: any), and what the Space was told: other hardware, a restart."""

    hardware: str | None = None
    moved: bool = False
    restarted: bool = False


def wait_until_running(
    space: SpaceApi, wanted: Wanted, knock: Callable[[], object], say: Callable[[str], None]
) -> Runtime:
    """Return the runtime of a Space that runs as wanted; says each stage on the way, and `knock`s at one that sleeps.

    Raises:
        TargetError: it failed to build or to start, with the end of its log, or takes longer than `START_S`.
    """
    began = time.monotonic()
    pause, seen, changed = _FIRST_PAUSE_S, "", not (wanted.restarted or wanted.moved)
    asleep_since: float | None = None
    while True:
        runtime = space.runtime()
        stage, waited = runtime.stage, time.monotonic() - began
        changed = changed or stage not in ("RUNNING", *_RUN_FAILED, *_BUILD_FAILED) or waited >= _SETTLE_S
        if stage != seen:
            say(f"spaces: {space.repo_id} {stage_words(stage)}{_after(waited)}")
            pause, seen = _FIRST_PAUSE_S, stage
        ready = wanted.hardware is None or runtime.hardware == wanted.hardware
        # Other hardware than before that runs is proof of a restart.
        if stage == "RUNNING" and ready and (changed or wanted.moved):
            return runtime
        if changed and stage in (*_BUILD_FAILED, *_RUN_FAILED):
            raise TargetError(_failure(space, runtime))
        if waited >= START_S:
            build = "BUILDING" in stage
            raise TargetError(
                with_log(
                    f"target spaces: {space.repo_id} {_late(runtime, wanted)} after {START_S / 60:.0f} minutes",
                    space.log(_LOG_LINES, build=build),
                )
            )
        if stage == "SLEEPING":
            asleep_since = asleep_since or time.monotonic()
            asleep_since = _wake(space, knock, asleep_since)
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def stage_words(stage: str) -> str:
    """Return what a stage means, as the rest of a sentence that begins with the Space."""
    return _WORDS.get(stage, f"is in stage {stage}")


def with_log(text: str, log: str) -> str:
    """Return a message with the end of a log below it, where there is one."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    return "\n".join([text, *(f"  {line}" for line in lines)])


def gone(runtime: Runtime) -> str | None:
    """Say why a Space that ran is of no more use to a run, or None while it answers."""
    stage = runtime.stage
    if stage.startswith("RUNNING"):
        return None
    words = {"SLEEPING": "went to sleep", "PAUSED": "was paused"}.get(stage, stage_words(stage))
    return f"the Space {words} (stage {stage})" + (f": {runtime.error}" if runtime.error else "")


def _wake(space: SpaceApi, knock: Callable[[], object], since: float) -> float:
    """Ask it for a page, which wakes it; where that is of no use, restart it."""
    knock()
    if time.monotonic() - since < _ASLEEP_S:
        return since
    space.ask("restart it, as it goes on sleeping", lambda: space.api.restart_space(space.repo_id))
    return time.monotonic()


def _failure(space: SpaceApi, runtime: Runtime) -> str:
    stage = runtime.stage
    reason = f": {runtime.error}" if runtime.error else ""
    text = f"target spaces: {space.repo_id} {stage_words(stage)} ({stage}){reason}"
    if stage in ("PAUSED", "STOPPED"):
        return f"{text}; restart it in its settings, or with a token that may do so"
    if stage == "NO_APP_FILE":
        return f"{text}; put a Dockerfile and a README with sdk: docker into it (openenv-scale deploy spaces does)"
    return with_log(text, space.log(_LOG_LINES, build=stage in _BUILD_FAILED))


def _late(runtime: Runtime, wanted: Wanted) -> str:
    if wanted.hardware is not None and runtime.hardware != wanted.hardware:
        return f"has {runtime.hardware or 'no hardware'} and waits for {wanted.hardware} ({runtime.stage})"
    return f"{stage_words(runtime.stage).partition(':')[0]} still ({runtime.stage})"


def _after(waited_s: float) -> str:
    return f" (after {waited_s:.0f} s)" if waited_s >= 1 else ""
