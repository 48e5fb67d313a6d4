"""The null server as a process: a fresh one, on a port of its own, for every measurement."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.request import urlopen

from .machine import pinned_to
from .problem import Problem


@dataclass(frozen=True)
class Truth:
    """What the server saw, in seconds.

    `step_over_*` is how long steps took beyond their wait, `pause_*` how long clients waited between a reply and the
    next step.
    """

    sessions: int
    peak_open: int
    steps: int
    step_over_p50: float
    step_over_p99: float
    pause_p50: float
    pause_p99: float


class NullServer:
    """A context manager; `port` is known within it, `stop()` tells the server's own view."""

    def __init__(self, program: Path, core: int) -> None:
        self._command = [str(program), "0"]
        self._core = core
        self.port = 0

    def __enter__(self) -> Self:
        with pinned_to(self._core):
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if not line.startswith("listening on "):
            self.__exit__()
            raise Problem(f"the null server does not start: {line.strip() or 'it said nothing'}")
        self.port = int(line.rpartition(":")[2])
        return self

    def count_steps(self) -> int:
        """Ask the server how many steps it has answered so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/steps", timeout=30) as answer:
            return json.load(answer)["steps"]

    def stop(self) -> Truth:
        """End the server and return what it saw."""
        self._process.send_signal(signal.SIGTERM)
        report = json.loads(self._process.communicate(timeout=30)[0])
        return Truth(**{name: report[name] for name in Truth.__dataclass_fields__})

    def __exit__(self, *exc: object) -> None:
        with self._process:  # Closes the pipes and waits.
            self._process.kill()
