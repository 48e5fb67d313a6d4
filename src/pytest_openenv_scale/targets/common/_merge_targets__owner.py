"""Who a container or another leftover belongs to: a process, told apart from later ones of the same number."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import psutil

_DEAD_STATES = "ZXx"


def owner_label() -> str:
    """Return the label that names this process: `<pid>:<start time>:<machine>`, without spaces or commas."""
    pid = os.getpid()
    return f"{pid}:{_started(pid)}:{_machine()}"


def is_alive(label: str) -> bool:
    """Say whether the process that `owner_label` named may still run.

    True for one of another machine or container, and for a label nobody here wrote: what cannot be known
    to be left behind must be left alone.
    """
    pid, _, rest = label.partition(":")
    started, _, machine = rest.partition(":")
    if machine != _machine() or not pid.isdecimal():
        return True
    return _started(int(pid)) == started


def _started(pid: int) -> str | None:
    """Return when a process began, or None where none of that number runs (a zombie does not)."""
    try:
        # psutil's own time moves with the clock; the kernel's ticks since boot do not.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return _started_elsewhere(pid)
    return None if fields[0] in _DEAD_STATES else f"{_boot()}-{fields[19]}"


def _started_elsewhere(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "0"


def _machine() -> str:
    """Return what two processes share that can see each other's numbers: the host and its PID namespace."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]
