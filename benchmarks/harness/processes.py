"""A program run to its end on one core, with the CPU of everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from .machine import pinned_to

PATIENCE_S = 600.0


@dataclass(frozen=True)
class Ended:
    """How a program ended; `cpu_s` is user and system seconds of it and of all children it waited for."""

    output: str
    complaints: str
    cpu_s: float
    wall_s: float


def run_pinned(
    command: Sequence[str],
    core: int,
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    patience_s: float = PATIENCE_S,
    started: Callable[[int], object] | None = None,
) -> Ended:
    """Run a program to its end on one core; what it started ends with it, at the latest after `patience_s` seconds.

    `environment` stands in for this process's, and `folder` for its working directory; `started` is told the process
    id, and that process goes on meanwhile.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        began = time.perf_counter()
        with pinned_to(core):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        patience = Timer(patience_s, _end, [process.pid])
        patience.daemon = True
        patience.start()
        try:
            if started is not None:
                started(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            patience.cancel()
            if process.returncode is None:
                _end(process.pid)
        wall = time.perf_counter() - began
        output.seek(0)
        complaints.seek(0)
        return Ended(output.read(), complaints.read(), usage.ru_utime + usage.ru_stime, wall)


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
