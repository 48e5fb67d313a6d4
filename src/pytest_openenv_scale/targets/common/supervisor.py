"""The life of a child process: started tethered, logged, watched, and stopped without leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO

import psutil

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.files import read_tail
from pytest_openenv_scale.core.system import wait_for
from pytest_openenv_scale.core.text import LOG_LINES

from . import parent_death
from .base import Startable, log_words, with_log
from .sampling import ProcessSampler

_GROUP_EXIT_S = 1.0
"""Seconds the rest of a process group gets to follow its leader by itself before it is killed."""

_PAUSE_S = 0.02


class ServerProcess(Startable):
    """A command in a session of its own, its output in one log, ended together with whatever it started.

    The command dies with this process even when that is killed (see `parent_death`). `nofile` sets its soft
    limit of open descriptors; by default that is raised to the hard limit. Without `log_path` the log
    is an unnamed temporary file. `stop_s` is how many seconds the command gets to end after SIGTERM.
    `orphan_signal` is the signal it gets where this process dies: SIGTERM for one that cleans up by itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_path: Path | None = None,
        nofile: int | None = None,
        pass_fds: Sequence[int] = (),
        stop_s: float = 5.0,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self._command = command
        self._env = env
        self._cwd = cwd
        self._log_path = log_path
        self._nofile = nofile
        self._pass_fds = pass_fds
        self._stop_s = stop_s
        self._orphan_signal = orphan_signal
        self._popen: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None
        self._log_start = 0
        self._final_log = b""
        self._sampler: ProcessSampler | None = None
        self._stopped = threading.Event()

    @property
    def pid(self) -> int:
        """The process id of the command, which leads its own session and process group."""
        if self._popen is None:
            raise RuntimeError("the process was not started")
        return self._popen.pid

    def start(self) -> None:
        """Start the command.

        Raises:
            TargetError: the log file or the working directory cannot be used.
        """
        try:
            self._log = self._open_log()
            if threading.current_thread() is threading.main_thread():
                self._spawn()
            else:
                _run_in_lasting_thread(self._spawn, stopped=self._stopped)
        except OSError as error:
            self._close_log()
            raise TargetError(f"the server cannot be started: {error.strerror}: {error.filename}") from None
        self._sampler = ProcessSampler([self.pid])

    def exit_status(self) -> ExitStatus | None:
        """Return how the command ended, or None while it runs."""
        code = None if self._popen is None else _peek_return_code(self._popen)
        return None if code is None else ExitStatus.from_returncode(code)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last `lines` lines of the output, also after the end."""
        text = self._read_tail().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""

    def state(self) -> str:
        """Return in a few words whether the command runs, and how its output ends."""
        return f"process alive, {log_words(self.log_tail(1))}"

    def with_log(self, message: str) -> str:
        """Return `message` with the last lines of the output below it, where there are any."""
        return with_log(message, self.log_tail(LOG_LINES))

    def sample(self) -> ServerSample | None:
        """Return what the command and its children use now; None once they are gone."""
        return self._sampler.sample() if self._sampler is not None else None

    def processes(self) -> frozenset[int] | None:
        """Return the ids of the command and of what it started, as far as they run; None before its start."""
        return self._sampler.pids() if self._sampler is not None else None

    def stop(self) -> None:
        """End the command (SIGTERM, then SIGKILL) and everything in its process group; may be repeated."""
        if self._popen is None or self._stopped.is_set():
            return
        try:
            self._end_leader(self._popen)
        finally:
            self._end_group()
            self._popen.wait()
            self._stopped.set()
            self._final_log = self._read_tail()
            self._close_log()

    def _spawn(self) -> None:
        wrapper = [sys.executable, "-I", parent_death.__file__, "--parent", str(os.getpid())]
        wrapper += ["--signal", str(int(self._orphan_signal))]
        if self._nofile is not None:
            wrapper += ["--nofile", str(self._nofile)]
        self._popen = subprocess.Popen(
            [*wrapper, "--", *self._command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            pass_fds=self._pass_fds,
            start_new_session=True,
        )

    def _open_log(self) -> BinaryIO:
        if self._log_path is None:
            return tempfile.TemporaryFile(buffering=0)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        log = self._log_path.open("a+b", buffering=0)
        self._log_start = log.seek(0, os.SEEK_END)
        return log

    def _read_tail(self) -> bytes:
        if self._log is None:
            return self._final_log
        return read_tail(self._log.fileno(), self._log_start)

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _end_leader(self, popen: subprocess.Popen[bytes]) -> None:
        try:
            if _peek_return_code(popen) is None:
                os.kill(popen.pid, signal.SIGTERM)
                wait_for(lambda: _peek_return_code(popen) is not None, self._stop_s, _PAUSE_S)
        finally:
            if _peek_return_code(popen) is None:
                os.kill(popen.pid, signal.SIGKILL)

    def _end_group(self) -> None:
        """Let what is left of the group end by itself for a moment, then kill it.

        Workers follow their leader by their tether; multiprocessing's resource tracker removes named
        semaphores first, which SIGKILL would leave behind.
        """
        if wait_for(lambda: not self._group_members(), _GROUP_EXIT_S, _PAUSE_S):
            return
        for process in self._group_members():
            try:
                process.kill()
            except psutil.Error:
                continue
        wait_for(lambda: not self._group_members(), _GROUP_EXIT_S, _PAUSE_S)

    def _group_members(self) -> list[psutil.Process]:
        """Return the living members of the group, whose number is ours until its leader is reaped."""
        members: list[psutil.Process] = []
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) != self.pid:
                    continue
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
            except (psutil.Error, OSError):
                continue
        return members


def _peek_return_code(popen: subprocess.Popen[bytes]) -> int | None:
    """Return the return code of a process that has ended, without reaping it where that is possible."""
    if popen.returncode is not None or not hasattr(os, "waitid"):
        return popen.poll()
    try:
        ended = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return popen.poll()
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _run_in_lasting_thread(spawn: Callable[[], None], *, stopped: threading.Event) -> None:
    """Call `spawn` in a thread that lasts until `stopped`: the kernel ends the child together with that thread."""
    spawned: Future[None] = Future()

    def spawn_and_wait() -> None:
        try:
            spawn()
        except BaseException as error:
            spawned.set_exception(error)
        else:
            spawned.set_result(None)
            stopped.wait()

    threading.Thread(target=spawn_and_wait, name="openenv-scale-parent", daemon=True).start()
    spawned.result()
