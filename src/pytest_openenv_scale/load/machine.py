"""How busy this machine is with something else, as its kernel tells it, and a bounded wait until it is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.core.system import usable_cores

MAX_CALM_WAIT_S = 10.0
"""Longest wait for a calm machine, in seconds."""

MAX_STEAL_SHARE = 0.02
"""Share of all cores' time that a hypervisor may take on a calm machine."""

MAX_WAITING_SHARE = 0.2
"""Share of the time in which something ready to run may have waited for a core on a calm machine."""

_WINDOW_S = 0.25
_CALM_WINDOWS = 2
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class MachineReading:
    """What the kernel has counted up to a moment; seconds, None where it does not count.

    `cores_s` is the time of all cores together and `steal_s` what the hypervisor took of it (/proc/stat),
    `waiting_s` how long something was ready to run and had no core (/proc/pressure/cpu), `runnable` how many tasks
    run or are ready to, this reading's own among them.
    """

    at_s: float
    cores_s: float | None = None
    steal_s: float | None = None
    waiting_s: float | None = None
    runnable: int | None = None


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """What became of the machine's time between two readings, as shares; None where the kernel does not tell."""

    steal_share: float | None
    waiting_share: float | None
    runnable: int | None

    @property
    def calm(self) -> bool:
        """Whether nothing that is known keeps this machine from a load process; also where nothing is known."""
        return (
            (self.steal_share or 0.0) <= MAX_STEAL_SHARE
            and (self.waiting_share or 0.0) <= MAX_WAITING_SHARE
            and (self.runnable or 1) - 1 < usable_cores()
        )


def read_machine() -> MachineReading:
    """Read what the kernel has counted so far."""
    cores_s = steal_s = waiting_s = None
    runnable = None
    for line in _read_lines("stat"):
        name, *words = line.split()
        if name == "cpu" and len(words) >= 8:
            ticks = list(map(int, words[:8]))
            per_second = os.sysconf("SC_CLK_TCK")
            cores_s, steal_s = sum(ticks) / per_second, ticks[7] / per_second
        elif name == "procs_running":
            runnable = int(words[0])
    for line in _read_lines("pressure/cpu"):
        if line.startswith("some "):
            waiting_s = int(line.rpartition("total=")[2]) * 1e-6
    return MachineReading(time.perf_counter(), cores_s, steal_s, waiting_s, runnable)


def load_between(first: MachineReading, last: MachineReading) -> MachineLoad:
    """Return what became of the machine's time between two readings."""
    return MachineLoad(
        _share(first.steal_s, last.steal_s, _difference(first.cores_s, last.cores_s)),
        _share(first.waiting_s, last.waiting_s, last.at_s - first.at_s),
        last.runnable,
    )


def await_calm(
    read: Callable[[], MachineReading] = read_machine,
    sleep: Callable[[float], None] = time.sleep,
    max_wait_s: float = MAX_CALM_WAIT_S,
) -> bool:
    """Wait until the machine has been calm for half a second, and return whether it was within `max_wait_s`."""
    first = previous = read()
    calm_windows = 0
    while previous.at_s - first.at_s < max_wait_s:
        sleep(_WINDOW_S)
        now = read()
        calm_windows = calm_windows + 1 if load_between(previous, now).calm else 0
        if calm_windows == _CALM_WINDOWS:
            return True
        previous = now
    return False


def _difference(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first


def _share(first: float | None, last: float | None, whole: float | None) -> float | None:
    part = _difference(first, last)
    return None if part is None or not whole else min(1.0, max(0.0, part / whole))


def _read_lines(name: str) -> list[str]:
    try:
        return (_PROC / name).read_text().splitlines()
    except OSError:  # Not Linux, or without pressure counts.
        return []
