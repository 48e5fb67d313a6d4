"""A self-test: batches that double against a null server, until this client or this machine resolves no more."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import quantiles
from typing import Any, Self

import psutil

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.errors import ScaleError
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.system import descriptor_limit, usable_cores
from pytest_openenv_scale.load.client_resources import SPARE_DESCRIPTORS, ports_per_source
from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator

from .figures import (
    ARRIVALS,
    SMALLEST_BATCH,
    MeasuredBatch,
    ModeLadder,
    SearchEnd,
    SelfTest,
    SelfTestRequest,
    make_ladder,
    median_batch,
)

_REPEATS = 3
_EXPECTED_GROWTH = 2.0
_WARM_UP_BATCH = 16


def self_test(
    request: SelfTestRequest | None = None, on_measured: Callable[[MeasuredBatch], None] | None = None
) -> SelfTest:
    """Measure up to which batch this client resolves 5 ms at the median and 40 ms at the 99th percentile here.

    Takes a minute or two; `on_measured` is called with each batch once measured. Nothing is left running.

    Raises:
        LoadError: a load process refused the order: the workload cannot be used.
        SelfTestError: the null server cannot be started, or not a single session fits this machine.
    """
    return BatchSearch(request or SelfTestRequest(), on_measured).run()


def batches_up_to(smallest: int, top: int, max_batch: int) -> tuple[int, ...]:
    """Return the batches to try: doubling up to `top`, which is one of them where it is what was asked for."""
    batches: list[int] = []
    batch = min(smallest, top)
    while batch <= top:
        batches.append(batch)
        batch *= 2
    return (*batches, top) if top == max_batch and batches[-1] != top else tuple(batches)


class BatchSearch:
    """A self-test under way; `result()` gives what is known at any moment, also after an interruption.

    Raises:
        SelfTestError: not a single session fits this machine.
    """

    def __init__(self, request: SelfTestRequest, on_measured: Callable[[MeasuredBatch], None] | None = None) -> None:
        self._request = request
        self._on_measured = on_measured
        self._measured: list[MeasuredBatch] = []
        self._ends: dict[str, SearchEnd] = {}
        self._tops = {mode: largest_possible_batch(mode, request.max_batch) for mode in request.modes}

    def run(self) -> SelfTest:
        """Search every mode for the largest batch this client resolves."""
        modes = self._request.modes
        deadline = time.monotonic() + self._request.time_s
        with LoadGenerator(self._request.processes) as generator:
            for number, mode in enumerate(modes):
                now = time.monotonic()
                # Each mode has an equal part of what time is left.
                self._ends[mode] = self._search_mode(generator, mode, now + (deadline - now) / (len(modes) - number))
        return self.result()

    def result(self) -> SelfTest:
        """Return what is known; a mode that has not come to its end counts as interrupted."""
        return SelfTest(
            tuple(self._mode_ladder(mode) for mode in self._request.modes),
            self._request.wait_s,
            usable_cores(),
            version("pytest-openenv-scale"),
        )

    def _mode_ladder(self, mode: str) -> ModeLadder:
        measured = [result for result in self._measured if result.mode == mode]
        top, reason = self._tops[mode]
        return make_ladder(mode, measured, self._ends.get(mode, "interrupted"), top, reason)

    def _search_mode(self, generator: LoadGenerator, mode: str, deadline: float) -> SearchEnd:
        # The first sessions of a process pay for what it never did before.
        measure(generator, replace(self._request, wait_s=0.0), mode, "burst", _WARM_UP_BATCH)
        expected = 0.0
        for batch in batches_up_to(SMALLEST_BATCH[mode], self._tops[mode][0], self._request.max_batch):
            began = time.monotonic()
            if expected and began + expected > deadline:
                return "time"
            resolved = [self._measure_batch(generator, mode, arrival, batch, deadline) for arrival in ARRIVALS]
            if not all(resolved):
                return "unresolved"
            expected = (time.monotonic() - began) * _EXPECTED_GROWTH
        return "top"

    def _measure_batch(self, generator: LoadGenerator, mode: str, arrival: str, batch: int, deadline: float) -> bool:
        """Measure a batch in one arrival; again, to know the median, where it does not resolve at once."""
        began = time.monotonic()
        runs = [measure(generator, self._request, mode, arrival, batch)]
        took = time.monotonic() - began
        while not runs[0].resolved and len(runs) < _REPEATS and time.monotonic() + took < deadline:
            runs.append(measure(generator, self._request, mode, arrival, batch))
        measured = median_batch(runs)
        self._measured.append(measured)
        if self._on_measured is not None:
            self._on_measured(measured)
        return measured.resolved


_SPARE_PORTS = 64
_SESSION_BYTES = {"ws": 48 * 1024, "http": 192 * 1024}
"""Memory of one session: the client's, the server's and the kernel's part of it, rounded up generously."""


def largest_possible_batch(mode: str, max_batch: int) -> tuple[int, str | None]:
    """Return the largest batch up to `max_batch` that can be tried, and why it is smaller, where it is.

    Raises:
        SelfTestError: there is not room for a single session.
    """
    limits = [(max_batch, None), _batch_limit_of_descriptors(), _batch_limit_of_memory(mode)]
    ports = ports_per_source()
    if ports is not None:
        # The client connects from one address to one port: each session takes a port of its own.
        limits.append((ports - _SPARE_PORTS, f"there are {ports:,} local ports (net.ipv4.ip_local_port_range)"))
    top, reason = min(limits, key=lambda limit: limit[0])
    if top < 1:
        raise SelfTestError(f"there is no room for a single session: {reason}")
    return top, reason


def _batch_limit_of_descriptors() -> tuple[int, str]:
    """The server is one process; load processes left to `auto` are as many as descriptors ask for."""
    limit = descriptor_limit()
    return limit - SPARE_DESCRIPTORS, f"the limit is {limit:,} descriptors per process (ulimit -n)"


def _batch_limit_of_memory(mode: str) -> tuple[int, str]:
    free = psutil.virtual_memory().available
    return free // 2 // _SESSION_BYTES[mode], f"{formatting.size(free)} of memory are free"


_TIMEOUT_S = 30.0


def measure(generator: LoadGenerator, request: SelfTestRequest, mode: str, arrival: str, batch: int) -> MeasuredBatch:
    """Run one batch against a server of its own: nothing an earlier one left behind is met again.

    Raises:
        LoadError: a load process refused the order: the workload cannot be used.
        SelfTestError: the null server cannot be started, or ended by itself.
    """
    cell = Cell(
        test="self-test",
        target="null",
        infrastructure="null",
        mode=mode,
        wait=request.wait_s,
        batch=batch,
        steps=1,
        arrival=arrival,
    )
    with NullServerProcess() as server:
        cell_request = CellRequest(
            cell=cell, repetition=1, urls=(server.url,), headers={}, workload=request.workload, timeout_s=_TIMEOUT_S
        )
        result = generator.run_cell(cell_request)
        overheads_s = server.end_and_read_totals().overheads_s
    steps, failures = _latencies_and_failures(result, request.wait_s)
    server_figures, client_figures = (p50_p99(overheads_s), p50_p99(steps))
    invented = tuple(
        None if client_s is None or server_s is None else client_s - server_s
        for client_s, server_s in zip(client_figures, server_figures, strict=True)
    )
    return MeasuredBatch(
        mode,
        arrival,
        batch,
        result.client.processes,
        *server_figures,
        *client_figures,
        *invented,
        cpu_s=sum(result.client.cpu_s) / batch,
        failed=len(failures),
        problem=_problem(failures, result, batch),
    )


def _latencies_and_failures(result: CellResult, wait_s: float) -> tuple[list[float], list[str]]:
    """Return the successful sessions' step latencies beyond the wait, sorted, and what the others died of."""
    steps = sorted(row.step_latency - wait_s for row in result.rows if row.success and row.step_latency is not None)
    failures = [f"{row.error_phase}: {row.error_message or row.error_type}" for row in result.rows if not row.success]
    return steps, failures


def _problem(failures: Sequence[str], result: CellResult, batch: int) -> str | None:
    if failures:
        return f"{len(failures):,} of {batch:,} sessions failed ({failures[0]})"
    return result.findings[0].message if result.findings else None


def p50_p99(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the middle and the 99th percentile, linear between neighbours; None where there is no value."""
    if not values:
        return None, None
    # Python before 3.13 wants two values; one alone is every percentile of itself.
    percentiles = quantiles(values if len(values) > 1 else [*values, *values], n=100, method="inclusive")
    return percentiles[49], percentiles[98]


_STOP_S = 5.0


class SelfTestError(ScaleError):
    """Nothing can be measured here; one line."""


@dataclass(frozen=True, slots=True)
class NullServerTotals:
    """The server's own figures: its sessions, its CPU seconds, and each step's seconds beyond its wait, sorted."""

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

    def end_and_read_totals(self) -> NullServerTotals:
        """End the server and return what it counted and timed.

        Raises:
            SelfTestError: it ended before it was asked to.
        """
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except BrokenPipeError:
            pass
        report = self._read_line()
        return NullServerTotals(
            report["sessions"], report["peak_open"], report["cpu_s"], tuple(sorted(report["overheads_s"]))
        )

    def _read_line(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        line = self._popen.stdout.readline()
        if not line:
            last_error = "".join(f": {line}" for line in self._popen.stderr.read().strip().splitlines()[-1:])
            raise SelfTestError(f"the null server ended by itself, with code {self._popen.wait()}{last_error}")
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
