"""Refusals by a number the server was given: its sessions per worker, or its connections per worker."""

from __future__ import annotations

import re

from . import format as text_of
from .evidence import Evidence, total
from .outcome import Refusal
from .summary import ErrorCount

_SPARE_CONNECTIONS = 10
"""Room for connections besides sessions: health checks, browsers."""

_ACTIVE_OF_MAX = re.compile(r"(\d+)\s*/\s*(\d+)\s+sessions", re.IGNORECASE)
_MAX = re.compile(r"max(?:imum)?[_ ]sessions\D{0,4}(\d+)", re.IGNORECASE)


def sessions_per_worker(evidence: Evidence) -> Refusal | None:
    """MAX_CONCURRENT_ENVS, named by the server itself: CAPACITY_REACHED."""
    claimed = evidence.claim(lambda error: error.type == "capacity" or error.code == "CAPACITY_REACHED")
    if not claimed:
        return None
    limit = _limit_told(claimed, evidence)
    if limit == 1:
        return _one_session(evidence, total(claimed))
    text, remedy = _capacity_words(evidence, limit)
    return Refusal("capacity", total(claimed), evidence.batch, text, remedy)


def _limit_told(errors: list[ErrorCount], evidence: Evidence) -> int | None:
    """Return the limit per worker as the server's refusal or the endpoint's settings tell it."""
    for error in errors:
        message = error.message or ""
        if found := _ACTIVE_OF_MAX.search(message):
            return int(found[2])
        if found := _MAX.search(message):
            return int(found[1])
    told = evidence.summary.limits.get("max_envs")
    return int(told) if told is not None and str(told).isdecimal() else None


def _one_session(evidence: Evidence, refused: int) -> Refusal:
    workers = evidence.workers or 1
    each = -(-evidence.needed // workers)
    per_worker = f" per worker ({workers} workers)" if workers > 1 else ""
    return Refusal(
        "one_session",
        refused,
        evidence.batch,
        f"CAPACITY_REACHED: the environment is configured for one session{per_worker or ' at a time'} "
        "(max_concurrent_envs=1)",
        f"in the app's file write create_app(..., max_concurrent_envs={each}){per_worker}",
    )


def _capacity_words(evidence: Evidence, limit: int | None) -> tuple[str, str]:
    """Return what refused, with the arithmetic workers × limit, and the setting that would hold `needed`."""
    workers, needed = evidence.workers, evidence.needed
    held = f"CAPACITY_REACHED at {text_of.count_of(evidence.summary.held, 'session')}"
    if evidence.summary.peak_concurrency is None:
        held = f"CAPACITY_REACHED; {text_of.count_of(evidence.summary.successful, 'session')} got in"
    if limit is None or workers is None:
        known = "" if limit is None else f"; each worker holds {limit:,}"
        return f"{held}{known}", _setting(needed, "per worker (capacity is workers × limit)", evidence)
    slots = workers * limit
    counted = f"{text_of.count_of(workers, 'worker')} × {limit:,}"
    equals = "=" if evidence.summary.held == slots else "of"
    if workers == 1:
        return f"{held} {equals} {counted}", _setting(needed, "", evidence)
    if slots < needed:
        more = f"per worker ({workers} workers; somewhat more, as connections split unevenly over them)"
        return f"{held} {equals} {counted}", _setting(-(-needed // workers), more, evidence)
    uneven = "connections split unevenly over workers, and one was full"
    text = f"{held}, though {counted} = {slots:,} slots are enough for {evidence.batch:,}: {uneven}"
    return text, _setting(needed, "per worker (any one may have to hold most of them), or one worker", evidence)


def _setting(wanted: int, words: str, evidence: Evidence) -> str:
    """Name the setting: the target's key where the plugin starts the server, else the variable and the line."""
    setting = f"MAX_CONCURRENT_ENVS ≥ {wanted} {words}".rstrip()
    if "max_envs" in evidence.summary.limits:
        return f"{setting}: max_envs={wanted} in the target"
    return f"{setting}; where the app does not read it, create_app(..., max_concurrent_envs={wanted})"


def connections_per_worker(evidence: Evidence) -> Refusal | None:
    """Uvicorn's `--limit-concurrency`: HTTP 503 where its log, its settings or its answers tell who speaks."""
    limit = evidence.summary.limits.get("limit_concurrency")
    told = evidence.log("exceeded concurrency limit") or evidence.said("exceeded concurrency limit|from uvicorn")
    # A Space's proxy answers 503 too, whatever serves behind it, but not in the server's name.
    if not told and limit is None and (evidence.is_space or not evidence.is_uvicorn):
        return None
    claimed = evidence.claim(lambda error: error.code == "503")
    if not claimed:
        return None
    workers = evidence.workers or 1
    setting = "--limit-concurrency" if limit is None else f"--limit-concurrency {limit}"
    each = f" in each of {workers} workers" if workers > 1 else ""
    room = -(-evidence.needed // workers) + _SPARE_CONNECTIONS
    return Refusal(
        "limit_concurrency",
        total(claimed),
        evidence.batch,
        f"HTTP 503 from uvicorn: {setting}{each} (it counts every connection, WebSockets too)",
        f"start uvicorn without --limit-concurrency, or with {room} or more",
    )
