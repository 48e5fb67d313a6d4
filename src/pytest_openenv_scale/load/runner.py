"""One cell: load processes, one start for all, one release for all, and every session accounted for."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Self

from pytest_openenv_scale.core.files import ErrorOutput, describe_exit
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.serialization import ClientFinding
from pytest_openenv_scale.core.text import Secrets, redact_text
from pytest_openenv_scale.results.row import SessionRow

from .client_health import ClientStats, Needs, check_pace, check_resources, choose_processes, http_findings
from .client_resources import loopback_source
from .ipc import (
    BatchReady,
    CellRequest,
    Prepare,
    Ready,
    Refused,
    Release,
    SetImportPath,
    ShareProgress,
    ShareResult,
    Start,
)

_SILENCE_S = 60.0
_START_S = 60.0
_STOP_S, _END_S = 2.0, 30.0
"""Seconds a process gets to end once we have closed its pipe, and once it has closed it itself."""


class LoadError(Exception):
    """No session could be started: the workload or the URL cannot be used; one line."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a repetition is: sessions asked for, open, over and failed among those; seconds since its start."""

    asked: int
    open: int
    over: int
    failed: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a load process ended, and ": " with the last it wrote to standard error, which says why; or nothing."""

    how: str
    why: str


@dataclass(frozen=True, slots=True)
class CellResult:
    """The rows of a cell, one for every session asked for, and what is known of the client that made them."""

    rows: list[SessionRow] = field(repr=False)
    wall_s: float
    started_at: datetime
    client: ClientStats
    findings: tuple[ClientFinding, ...]


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
        self._wait(_STOP_S)
        if said := self._errors.close():
            print(self._hidden(said), end="", file=sys.stderr)

    def ending(self) -> _Ending:
        """Wait for the end of a process that has let go of its pipe, and say how and why it ended."""
        how = describe_exit(self.popen.returncode) if self._wait(_END_S) else "fell silent"
        return self._ending(how)

    def silenced(self) -> _Ending:
        """End a process that does not answer."""
        self.popen.kill()
        self.popen.wait()
        return self._ending("stopped answering")

    def _wait(self, patience_s: float) -> bool:
        """Say whether the process ended by itself in so many seconds; else it is ended."""
        try:
            self.popen.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return False
        return True

    def _ending(self, how: str) -> _Ending:
        reason = self._errors.reason()
        return _Ending(how, f": {self._hidden(reason)}" if reason else "")

    def _hidden(self, text: str) -> str:
        return self.secrets.hide(redact_text(text))


class LoadGenerator:
    """Owns the load processes of a sweep; a context manager, so that none outlives it.

    `processes` None chooses their number for each cell.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._wanted = processes
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

    def run_cell(self, order: CellRequest, on_progress: Callable[[LoadProgress], None] | None = None) -> CellResult:
        """Run one repetition of a cell; blocks until every session is over.

        Raises:
            LoadError: a load process refused the order: an action cannot be made, a host does not resolve.
        """
        count = self._wanted or choose_processes(order.cell.batch)
        needs = check_resources(order, count)
        self._start(count)
        try:
            return _CellRun(order, needs, self._prepared(order, needs, count), on_progress).run()
        except BaseException:
            self._stop()  # They are in the middle of something: the next cell begins with fresh ones.
            raise

    def _prepared(self, order: CellRequest, needs: Needs, count: int) -> dict[_LoadProcess, Prepare]:
        """Say to each process which sessions are its own, and from where it connects them.

        No two processes share a source address, nor do cells that follow each other: what an earlier one left in
        TIME_WAIT is then of no concern.
        """
        each = math.ceil(needs.ports.sources / count)
        orders: dict[_LoadProcess, Prepare] = {}
        for process in self._processes[:count]:
            sources = tuple(loopback_source(number) for number in range(self._sources, self._sources + each))
            self._sources += each
            process.secrets = Secrets.from_headers(order.headers)
            orders[process] = Prepare(order, process.number, count, sources)
        return orders

    def _start(self, count: int) -> None:
        for process in [process for process in self._processes if process.popen.poll() is not None]:
            self._processes.remove(process)
            process.stop()
        for number, process in enumerate(self._processes):
            process.number = number
        while len(self._processes) < count:
            self._processes.append(_LoadProcess(len(self._processes)))


_LOST = _Ending("lost it", "")


class _CellRun:
    """One repetition of a cell in flight."""

    def __init__(
        self,
        order: CellRequest,
        needs: Needs,
        orders: dict[_LoadProcess, Prepare],
        on_progress: Callable[[LoadProgress], None] | None,
    ) -> None:
        self._order = order
        self._needs = needs
        self._orders = orders
        self._on_progress = on_progress
        self._rows: dict[_LoadProcess, ShareResult] = {}
        self._dead: dict[_LoadProcess, _Ending] = {}
        self._up: set[_LoadProcess] = set()
        self._progress: dict[_LoadProcess, ShareProgress] = {}
        self._heard: dict[_LoadProcess, float] = {}
        self._released = False
        self._began = 0.0
        self._wall = 0.0

    def run(self) -> CellResult:
        started_at = datetime.now(UTC)
        findings = self._needs.findings
        if not findings:
            self._prepare()
            self._began, self._wall = time.perf_counter() + 0.02, time.time() + 0.02
            self._tell(Start(self._began, self._wall))
            self._attend()
        result = self._collect()
        stats = self._stats()
        findings += tuple(
            ClientFinding(
                "process_died",
                f"load process {process.number + 1} of {len(self._orders)} {ending.how} and took"
                f" {count_of(len(self._orders[process].sessions), 'session')} with it{ending.why}",
            )
            for process, ending in self._dead.items()
        )
        wall = max((rows.wall_s for rows in self._rows.values()), default=0.0)
        return CellResult(result, wall, started_at, stats, findings + check_pace(stats) + http_findings(stats))

    def _prepare(self) -> None:
        for process, order in self._orders.items():
            self._send(process, order)
        waiting = set(self._orders)
        self._heard = dict.fromkeys(self._orders, time.monotonic())
        while waiting := {process for process in waiting if process not in self._dead}:
            for process, answer in self._hear(waiting, _START_S):
                if isinstance(answer, Refused):
                    raise LoadError(answer.reason)
                if isinstance(answer, Ready):
                    waiting.discard(process)

    def _attend(self) -> None:
        """Listen until every process has returned its rows or died."""
        holding = parse_arrival(self._order.cell.arrival).kind == "hold"
        self._heard = dict.fromkeys(self._orders, time.monotonic())
        while waiting := {p for p in self._orders if p not in self._rows and p not in self._dead}:
            for process, answer in self._hear(waiting, _SILENCE_S):
                if isinstance(answer, BatchReady):
                    self._up.add(process)
                elif isinstance(answer, ShareProgress):
                    self._progress[process] = answer
                    self._report()
                elif isinstance(answer, ShareResult):
                    self._rows[process] = answer
            if holding and not self._released and all(p in self._up or p in self._dead for p in self._orders):
                self._released = True
                self._report()  # The batch is up: no better moment to look at the server.
                self._tell(Release())

    def _hear(self, waiting: set[_LoadProcess], patience_s: float) -> list[tuple[_LoadProcess, object]]:
        """Return what processes said; one whose pipe broke is dead, and so is one that stays silent too long."""
        pipes = {process.pipe: process for process in waiting}
        first = min(self._heard[process] for process in waiting) + patience_s
        ready = wait(list(pipes), timeout=max(0.0, first - time.monotonic()))
        now = time.monotonic()
        heard: list[tuple[_LoadProcess, object]] = []
        for pipe in ready:
            assert isinstance(pipe, Connection)
            process = pipes[pipe]
            self._heard[process] = now
            try:
                heard.append((process, pipe.recv()))
            except (EOFError, OSError):
                self._dead[process] = process.ending()
        for process in waiting:
            if now - self._heard[process] >= patience_s:
                self._dead[process] = process.silenced()
        return heard

    def _send(self, process: _LoadProcess, order: object) -> None:
        try:
            process.pipe.send(order)
        except OSError:
            self._dead[process] = process.ending()

    def _tell(self, order: object) -> None:
        for process in self._orders:
            if process not in self._dead:
                self._send(process, order)

    def _report(self) -> None:
        if self._on_progress is not None:
            seen = self._progress.values()
            self._on_progress(
                LoadProgress(
                    self._order.cell.batch,
                    sum(item.open for item in seen),
                    sum(item.over for item in seen),
                    sum(item.failed for item in seen),
                    time.perf_counter() - self._began,
                )
            )

    def _collect(self) -> list[SessionRow]:
        """Return one row for every session asked for, also for those that never started."""
        rows = [row for part in self._rows.values() for row in part.rows]
        known = {row.request_id for row in rows}
        for process, order in self._orders.items():
            lacking = " and ".join(finding.kind for finding in self._needs.findings)
            ending = self._dead.get(process, _LOST)
            why = f"not started: too few {lacking}" if lacking else f"load process {ending.how}{ending.why}"
            rows += [
                SessionRow(
                    number,
                    process.number,
                    self._wall or time.time(),
                    0.0,
                    error_phase="connect",
                    error_type="client_limit",
                    error_message=why,
                )
                for number in order.sessions
                if number not in known
            ]
        return sorted(rows)

    def _stats(self) -> ClientStats:
        parts = self._rows.values()
        timed = [part for part in parts if part.wall_s > 0]
        needs = self._needs
        return ClientStats(
            processes=len(self._orders),
            cpu_s=tuple(part.cpu_s for part in parts),
            cpu_share=max((part.cpu_s / part.wall_s for part in timed), default=0.0),
            starved_s=tuple(part.starved_s for part in parts),
            starved_share=max((part.starved_s / part.wall_s for part in timed), default=0.0),
            busy_share=max(((part.cpu_s + part.starved_s) / part.wall_s for part in timed), default=0.0),
            read_lag_p99_s=max((part.read_lag_p99_s for part in parts), default=0.0),
            loop_lag_max_s=max((part.loop_lag_max_s for part in parts), default=0.0),
            answer_lag_p50_s=_slowest(part.answer_lag_p50_s for part in parts),
            answer_lag_p99_s=_slowest(part.answer_lag_p99_s for part in parts),
            descriptors_needed=needs.descriptors,
            descriptor_limit=needs.descriptor_limit,
            ports_needed=needs.ports.needed,
            ports_there=needs.ports.there,
            sources=sum(len(order.sources) for order in self._orders.values()),
            rss_bytes=sum(part.rss_bytes for part in parts),
        )


def _slowest(lags: Iterable[float | None]) -> float | None:
    return max((lag for lag in lags if lag is not None), default=None)
