"""The machine a benchmark runs on: which core is whose, what it is, and whether it has room."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .problem import Problem

SPARE_DESCRIPTORS = 64


@dataclass(frozen=True)
class Cores:
    """The core of the server and the core of the client: two different ones where the machine has them."""

    server: int
    client: int


def choose_cores() -> Cores:
    """Give server and client a core each, out of those this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Let the processes started within it, and their children, run on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe_machine() -> str:
    """Say in a line what the figures below it were measured on, and how busy it was before they were."""
    count = len(os.sched_getaffinity(0))
    return (
        f"machine: {count} core{'s' * (count > 1)} ({_model()}), {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}"
    )


def describe_cores(cores: Cores) -> str:
    """Say in a line which core is whose."""
    if cores.server == cores.client:
        return "only one core: server and client take turns on it, which shows in every figure below"
    return f"server on core {cores.server}, clients on core {cores.client}"


def _model() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def make_room(sessions: int) -> None:
    """Let the processes started from here open a descriptor per session.

    Raises:
        Problem: the hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < sessions + SPARE_DESCRIPTORS:
        raise Problem(
            f"{sessions} sessions in one process need {sessions + SPARE_DESCRIPTORS} descriptors and the limit is"
            f" {hard}: ask for fewer with --sessions, or raise ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
