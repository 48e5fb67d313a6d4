"""What a container engine tells of a container, as figures and in words."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from typing import Any

from pytest_openenv_scale.core.endpoint import ServerSample

_KILLED = 128
"""An exit code beyond this one names the signal that ended the process."""


def read_stats(stats: Mapping[str, Any], at_s: float) -> ServerSample | None:
    """Return the figures of one answer of the engine's statistics; None for a container that does not run."""
    memory: dict[str, Any] = stats.get("memory_stats") or {}
    usage: int | None = memory.get("usage")
    if usage is None:
        return None
    details: dict[str, int] = memory.get("stats") or {}
    # The names of control groups version 1 and 2; what the docker command leaves out as well.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu: dict[str, Any] = stats.get("cpu_stats") or {}
    used: dict[str, int] = cpu.get("cpu_usage") or {}
    tasks: dict[str, int] = stats.get("pids_stats") or {}
    return ServerSample(
        at_s=at_s,
        cpu_seconds=used.get("total_usage", 0) / 1e9,
        rss_bytes=max(usage - cache, 0),
        threads=tasks.get("current"),
    )


def exit_words(state: Mapping[str, Any], memory: int | None) -> str:
    """Say how a container ended, from the State that the engine tells; `memory` is its limit in bytes."""
    code = int(state.get("ExitCode") or 0)
    said = str(state.get("Error") or "").strip()
    if state.get("OOMKilled"):
        return f"exited with code {code}: out of memory ({memory_words(memory)})"
    if code > _KILLED:
        try:
            return f"exited with code {code}: killed by {signal.Signals(code - _KILLED).name}"
        except ValueError:
            pass
    return f"exited with code {code}" + (f": {said}" if said else "")


def memory_words(memory: int | None) -> str:
    """Name the limit that a container ran into, and the key that sets it."""
    if memory is None:
        return "the engine's machine has no more; memory= would limit it earlier"
    return f"its limit is memory={format_memory(memory)}; write a larger memory="


def format_memory(memory: int) -> str:
    """Return bytes as docker writes them: "512m", "2g"."""
    for power, unit in ((3, "g"), (2, "m"), (1, "k")):
        whole = memory / 1024**power
        if whole >= 1 and math.isclose(whole, round(whole, 2)):
            return f"{round(whole, 2):g}{unit}"
    return str(memory)
