"""One cell: load processes, one start for all, one release for all, and every session accounted for."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Self

from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import ScaleError
from pytest_openenv_scale.core.files import ErrorOutput
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.text import Secrets, redact_text
from pytest_openenv_scale.results.cell import ClientFinding, SessionRow
from pytest_openenv_scale.results.progress import LoadProgress

from .client_health import ClientStats, ResourceNeeds, check_answer_lags, check_pace, check_resources, choose_processes
from .client_resources import loopback_source
from .ipc import (
    AnsweredError,
    BatchReady,
    CellRequest,
    Halt,
    Prepare,
    Ready,
    Refused,
    Release,
    RowBlock,
    SessionMessages,
    SetImportPath,
    ShareProgress,
    ShareResult,
    Start,
)
from .machine import load_between, read_machine

_SILENCE_TIMEOUT_S = 60.0
_PREPARE_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S, _EXIT_TIMEOUT_S = 2.0, 30.0
"""Seconds a process gets to end once we have closed its pipe, and once it has closed it itself."""


OnRows = Callable[[Sequence[SessionRow], Mapping[int, AnsweredError]], None]


class LoadError(ScaleError):
    """No session could be started: the workload or the URL cannot be used; one line."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a load process ended, and ": " with the last it wrote to standard error, which says why; or nothing."""

    how: str
    why: str


@dataclass(frozen=True, slots=True)
class CellResult:
    """The rows of a cell that were not given away meanwhile, and what is known of the client that made them.

    There is a row for every session asked for, or that slots played. `answered_errors` holds, by the number of a
    session of `rows`, what it was answered that is an error; `messages` are those of the first session where they are
    kept.
    """

    rows: list[SessionRow] = field(repr=False)
    wall_s: float
    started_at: datetime
    client: ClientStats
    findings: tuple[ClientFinding, ...]
    answered_errors: Mapping[int, AnsweredError] = field(default_factory=dict[int, AnsweredError])
    messages: SessionMessages | None = None
    started_s: float = 0.0
    """When it started, by `time.monotonic()`, which is the clock of `time.perf_counter()` too."""


class _LoadProcess:
    """One load process, the parent's end of its pipe, and what it writes to standard error."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.secrets = Secrets()
        self._errors = ErrorOutput()
        ours, theirs = Pipe()
        self.pipe: Connection = ours
        self.popen = subprocess.Popen(
            command("pytest_openenv_scale.load.worker", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors.file,
            start_new_session=True,
        )
        theirs.close()
        with suppress(OSError):  # One that has ended already is noticed when it gets its first cell.
            self.pipe.send(SetImportPath(sys.path))

    def stop(self) -> None:
        """End the process where it has not ended, and show what it wrote to standard error; may be repeated."""
        self.pipe.close()
        self._wait(_STOP_TIMEOUT_S)
        if output := self._errors.close():
            print(self._redact(output), end="", file=sys.stderr)

    def await_ending(self) -> _Ending:
        """Wait for the end of a process that has let go of its pipe, and say how and why it ended."""
        ended = self._wait(_EXIT_TIMEOUT_S)
        return self._describe_ending(str(ExitStatus.from_returncode(self.popen.returncode)) if ended else "fell silent")

    def kill_silent(self) -> _Ending:
        """Kill a process that does not answer, and return how it ended."""
        self.popen.kill()
        self.popen.wait()
        return self._describe_ending("stopped answering")

    def _wait(self, timeout_s: float) -> bool:
        """Return whether the process ended by itself within `timeout_s` seconds; kill it otherwise."""
        try:
            self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return False
        return True

    def _describe_ending(self, how: str) -> _Ending:
        reason = self._errors.reason()
        return _Ending(how, f": {self._redact(reason)}" if reason else "")

    def _redact(self, text: str) -> str:
        return self.secrets.hide(redact_text(text))


class LoadGenerator:
    """Owns the load processes of a sweep; a context manager, so that none outlives it.

    `processes` None chooses their number for each cell.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._fixed_count = processes
        self._processes: list[_LoadProcess] = []
        self._sources = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.pipe.close()
        while self._processes:
            self._processes[-1].stop()
            self._processes.pop()

    def run_cell(
        self,
        request: CellRequest,
        on_progress: Callable[[LoadProgress], None] | None = None,
        on_rows: OnRows | None = None,
    ) -> CellResult:
        """Run one repetition of a cell; blocks until every session is over.

        `on_rows` is given the rows that leave a load process while others of its sessions play on, in the order in
        which these ended, and what they were answered that is an error; without it they are kept for the result.

        Raises:
            LoadError: a load process refused the cell: an action cannot be made, a host does not resolve.
        """
        count = self._fixed_count or choose_processes(request.cell.batch)
        needs = check_resources(request, count)
        self._ensure_processes(count)
        try:
            assignments = self._assign_sessions(request, needs, count)
            return _CellRun(request, needs, assignments, on_progress, on_rows).run()
        except BaseException:
            self._stop()  # They may be in the middle of a cell: the next one begins with fresh processes.
            raise

    def _assign_sessions(self, request: CellRequest, needs: ResourceNeeds, count: int) -> dict[_LoadProcess, Prepare]:
        """Return for each process which sessions are its own, and from which addresses it connects them.

        No two processes share a source address, nor do cells that follow each other: what an earlier one left in
        TIME_WAIT is then of no concern.
        """
        sources_each = math.ceil(needs.ports.sources / count)
        assignments: dict[_LoadProcess, Prepare] = {}
        for process in self._processes[:count]:
            sources = tuple(loopback_source(number) for number in range(self._sources, self._sources + sources_each))
            self._sources += sources_each
            process.secrets = Secrets.from_headers(request.headers)
            assignments[process] = Prepare(request, process.number, count, sources)
        return assignments

    def _ensure_processes(self, count: int) -> None:
        for process in [process for process in self._processes if process.popen.poll() is not None]:
            self._processes.remove(process)
            process.stop()
        for number, process in enumerate(self._processes):
            process.number = number
        while len(self._processes) < count:
            self._processes.append(_LoadProcess(len(self._processes)))


_UNKNOWN_ENDING = _Ending("lost it", "")


class _CellRun:
    """One repetition of a cell in flight."""

    def __init__(
        self,
        request: CellRequest,
        needs: ResourceNeeds,
        assignments: dict[_LoadProcess, Prepare],
        on_progress: Callable[[LoadProgress], None] | None,
        on_rows: OnRows | None,
    ) -> None:
        self._request = request
        self._rows: list[SessionRow] = []
        self._answered_errors: dict[int, AnsweredError] = {}
        self._on_rows = on_rows or self._keep_rows
        self._first_sessions: set[int] = set()
        self._halted = False
        self._needs = needs
        self._assignments = assignments
        self._on_progress = on_progress
        self._results: dict[_LoadProcess, ShareResult] = {}
        self._dead: dict[_LoadProcess, _Ending] = {}
        self._ready: set[_LoadProcess] = set()
        self._progress: dict[_LoadProcess, ShareProgress] = {}
        self._last_message_at: dict[_LoadProcess, float] = {}
        self._released = False
        self._ready_at: float | None = None
        self._started = 0.0
        self._started_wall_clock = 0.0

    def run(self) -> CellResult:
        started_at = datetime.now(UTC)
        machine = read_machine()
        findings = self._needs.findings
        if not findings:
            self._prepare()
            self._started, self._started_wall_clock = time.perf_counter() + 0.02, time.time() + 0.02
            self._broadcast(Start(self._started, self._started_wall_clock))
            self._await_results()
        for share in self._results.values():
            self._answered_errors.update(share.answered_errors)
        rows = self._collect_rows()
        stats = self._stats(load_between(machine, read_machine()).steal_share)
        findings += tuple(
            ClientFinding(
                "process_died",
                f"load process {process.number + 1} of {len(self._assignments)} {ending.how} and took"
                f" {count_of(len(self._assignments[process].sessions), 'session')} with it{ending.why}",
            )
            for process, ending in self._dead.items()
        )
        wall_s = max((share.wall_s for share in self._results.values()), default=0.0)
        shares = self._results.values()
        return CellResult(
            rows=rows,
            wall_s=wall_s,
            started_at=started_at,
            client=stats,
            findings=findings + check_pace(stats) + check_answer_lags(stats),
            answered_errors=self._answered_errors,
            messages=next((share.messages for share in shares if share.messages), None),
            started_s=self._started,
        )

    def _prepare(self) -> None:
        for process, assignment in self._assignments.items():
            self._send(process, assignment)
        waiting = set(self._assignments)
        self._last_message_at = dict.fromkeys(self._assignments, time.monotonic())
        while waiting := {process for process in waiting if process not in self._dead}:
            for process, message in self._receive(waiting, _PREPARE_TIMEOUT_S):
                if isinstance(message, Refused):
                    raise LoadError(message.reason)
                if isinstance(message, Ready):
                    waiting.discard(process)

    def _await_results(self) -> None:
        """Receive messages until every process has returned its rows or died."""
        holding = parse_arrival(self._request.cell.arrival).kind == "hold"
        self._last_message_at = dict.fromkeys(self._assignments, time.monotonic())
        while waiting := {p for p in self._assignments if p not in self._results and p not in self._dead}:
            for process, message in self._receive(waiting, _SILENCE_TIMEOUT_S):
                if isinstance(message, BatchReady):
                    self._ready.add(process)
                    self._progress[process] = message.progress
                    self._ready_at = _max_known((self._ready_at, message.at))
                elif isinstance(message, ShareProgress):
                    self._progress[process] = message
                    self._report_progress()
                    self._halt_when_decided()
                elif isinstance(message, RowBlock):
                    self._note_numbers(message.rows)
                    self._on_rows(message.rows, message.answered_errors)
                elif isinstance(message, ShareResult):
                    self._results[process] = message
            if holding and not self._released and all(p in self._ready or p in self._dead for p in self._assignments):
                self._released = True
                self._report_progress()  # The whole batch is open: the best moment to sample the server.
                self._broadcast(Release(self._ready_at))

    def _keep_rows(self, rows: Sequence[SessionRow], answered_errors: Mapping[int, AnsweredError]) -> None:
        self._rows += rows
        self._answered_errors.update(answered_errors)

    def _note_numbers(self, rows: Sequence[SessionRow]) -> None:
        """Note which of the sessions asked for have a row; those that follow in their slots were not asked for."""
        last = self._request.first_session + self._request.cell.batch
        self._first_sessions.update(row.request_id for row in rows if row.request_id < last)

    def _halt_when_decided(self) -> None:
        """Let no other session begin once so many have failed that the cell has."""
        most, failed = self._request.most_failures, sum(share.failed for share in self._progress.values())
        if most is not None and failed > most and not self._halted:
            self._halted = True
            self._broadcast(Halt(failed))

    def _receive(self, waiting: set[_LoadProcess], timeout_s: float) -> list[tuple[_LoadProcess, object]]:
        """Return the messages received; a process is dead if its pipe broke or it is silent for `timeout_s` seconds."""
        pipes = {process.pipe: process for process in waiting}
        deadline = min(self._last_message_at[process] for process in waiting) + timeout_s
        ready = wait(list(pipes), timeout=max(0.0, deadline - time.monotonic()))
        now = time.monotonic()
        received: list[tuple[_LoadProcess, object]] = []
        for pipe in ready:
            assert isinstance(pipe, Connection)
            process = pipes[pipe]
            self._last_message_at[process] = now
            try:
                received.append((process, pipe.recv()))
            except (EOFError, OSError):
                self._dead[process] = process.await_ending()
        for process in waiting:
            if now - self._last_message_at[process] >= timeout_s:
                self._dead[process] = process.kill_silent()
        return received

    def _send(self, process: _LoadProcess, message: object) -> None:
        try:
            process.pipe.send(message)
        except OSError:
            self._dead[process] = process.await_ending()

    def _broadcast(self, message: object) -> None:
        for process in self._assignments:
            if process not in self._dead:
                self._send(process, message)

    def _report_progress(self) -> None:
        if self._on_progress is not None:
            shares = self._progress.values()
            self._on_progress(
                LoadProgress(
                    self._request.cell.batch,
                    sum(item.open for process, item in self._progress.items() if process not in self._dead),
                    sum(item.finished for item in shares),
                    sum(item.failed for item in shares),
                    time.perf_counter() - self._started,
                    sum(item.steps for item in shares),
                )
            )

    def _collect_rows(self) -> list[SessionRow]:
        """Return the rows that have not been given away, also for sessions asked for that never started."""
        rows = [*self._rows, *(row for share in self._results.values() for row in share.rows)]
        self._note_numbers(rows)
        for process, assignment in self._assignments.items():
            shortages = " and ".join(finding.kind for finding in self._needs.findings)
            ending = self._dead.get(process, _UNKNOWN_ENDING)
            reason = f"not started: too few {shortages}" if shortages else f"load process {ending.how}{ending.why}"
            rows += [
                SessionRow(
                    number,
                    process.number,
                    self._started_wall_clock or time.time(),
                    0.0,
                    error_phase="connect",
                    error_type="client_limit",
                    error_message=reason,
                )
                for number in assignment.sessions
                if number not in self._first_sessions
            ]
        return sorted(rows)

    def _stats(self, steal_share: float | None) -> ClientStats:
        shares = self._results.values()
        timed = [share for share in shares if share.wall_s > 0]
        needs = self._needs
        return ClientStats(
            processes=len(self._assignments),
            cpu_s=tuple(share.cpu_s for share in shares),
            cpu_share=max((share.cpu_s / share.wall_s for share in timed), default=0.0),
            starved_s=tuple(share.starved_s for share in shares),
            starved_share=max((share.starved_s / share.wall_s for share in timed), default=0.0),
            busy_share=max(((share.cpu_s + share.starved_s) / share.wall_s for share in timed), default=0.0),
            read_lag_p99_s=max((share.read_lag_p99_s for share in shares), default=0.0),
            loop_lag_max_s=max((share.loop_lag_max_s for share in shares), default=0.0),
            answer_lag_p50_s=_max_known(share.answer_lag_p50_s for share in shares),
            answer_lag_p99_s=_max_known(share.answer_lag_p99_s for share in shares),
            answer_lag_max_s=_max_known(share.answer_lag_max_s for share in shares),
            session_lag_max_s=_max_known(share.session_lag_max_s for share in shares),
            descriptors_needed=needs.descriptors,
            descriptor_limit=needs.descriptor_limit,
            ports_needed=needs.ports.needed,
            ports_there=needs.ports.per_source,
            sources=sum(len(assignment.sources) for assignment in self._assignments.values()),
            rss_bytes=sum(share.rss_bytes for share in shares),
            clock_moved_s=max((share.clock_moved_s for share in shares), default=0.0),
            impossible_arrivals=sum(share.impossible_arrivals for share in shares),
            missed_pongs=sum(share.missed_pongs for share in shares),
            function_share=max((share.function_s / share.wall_s for share in timed), default=0.0),
            ping_s=self._request.ping_s,
            steal_share=steal_share,
            late_sessions=_sum_known(share.late_sessions for share in shares),
            send_lag_p50_s=_max_known(share.send_lag_p50_s for share in shares),
            send_lag_p99_s=_max_known(share.send_lag_p99_s for share in shares),
        )


def _sum_known(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _max_known(lags: Iterable[float | None]) -> float | None:
    return max((lag for lag in lags if lag is not None), default=None)
