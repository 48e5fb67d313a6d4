"""The null server in a process of its own: started, asked for its truth, and never left behind."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any, Self

from pytest_openenv_scale.core.own_process import command

_STOP_S = 5.0


class SelfTestError(Exception):
    """Nothing can be measured here; one line."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What the server saw: its sessions, its CPU seconds, and each step's seconds beyond its wait, sorted."""

    sessions: int
    peak_open: int
    cpu_s: float
    overheads_s: tuple[float, ...]


class NullServerProcess:
    """A null server for one measurement; a context manager. It ends when this process ends, however that ends."""

    def __init__(self) -> None:
        self.url = ""
        self._popen: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(
            command(f"{__package__}.null_server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self.url = f"http://127.0.0.1:{self._read_line()['port']}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._popen.pid

    def truth(self) -> Truth:
        """End the server and return what it saw.

        Raises:
            SelfTestError: it ended before it was asked to.
        """
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except BrokenPipeError:
            pass
        told = self._read_line()
        return Truth(told["sessions"], told["peak_open"], told["cpu_s"], tuple(sorted(told["overheads_s"])))

    def _read_line(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        line = self._popen.stdout.readline()
        if not line:
            last_words = "".join(f": {line}" for line in self._popen.stderr.read().strip().splitlines()[-1:])
            raise SelfTestError(f"the null server ended by itself, with code {self._popen.wait()}{last_words}")
        return json.loads(line)

    def _end(self) -> None:
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
