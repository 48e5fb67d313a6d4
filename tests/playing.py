"""Sessions of the engine in the test's own event loop, against whatever URL a test gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.load.client_health import ClientStats
from pytest_openenv_scale.load.ipc import BatchReady, CellRequest, Prepare, RowBlock, ShareProgress, ShareResult
from pytest_openenv_scale.load.runner import CellResult, LoadProgress
from pytest_openenv_scale.load.worker_share import WorkerShare
from pytest_openenv_scale.results.cell import SessionRow
from scripted_server import Peer, scripted

WAITING = Workload(({"wait_seconds": "$wait"},))


def cell(batch: int = 1, *, wait: float | None = 0.0, steps: int = 1, arrival: str = "burst", mode: str = "ws") -> Cell:
    return Cell("test_x.py::test_x", "http://x", "x", mode, wait, batch, steps, arrival)


def order(
    *urls: str,
    batch: int = 1,
    wait: float | None = 0.0,
    steps: int = 1,
    arrival: str = "burst",
    mode: str = "ws",
    workload: Workload = WAITING,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    seed: int = 0,
    repetition: int = 1,
    until_done: bool = False,
    http_connections: str = "session",
    network: Network = DIRECT,
    think: ThinkTime | None = None,
) -> CellRequest:
    cell_asked = cell(batch, wait=wait, steps=steps, arrival=arrival, mode=mode)
    request = CellRequest(
        cell_asked, repetition, urls, headers or {}, workload, timeout, seed, until_done, http_connections
    )
    return replace(request, network=network, think=think)


async def play_share(
    request: CellRequest,
    process: int = 0,
    processes: int = 1,
    on_progress: Callable[[ShareProgress], None] = lambda progress: None,
) -> tuple[ShareResult, list[ShareProgress]]:
    """Run one process's share of a cell here; a hold is released as soon as it is up.

    The rows are all of them, also those that left while others played.
    """
    progress: list[ShareProgress] = []
    rows: list[SessionRow] = []

    def hear(event: Any) -> None:
        if isinstance(event, BatchReady):
            asyncio.get_running_loop().call_soon(share.release)
        elif isinstance(event, ShareProgress):
            progress.append(event)
            on_progress(event)
        elif isinstance(event, RowBlock):
            rows.extend(event.rows)

    share = WorkerShare(Prepare(request, process, processes), hear)
    share.prepare()
    share.start(time.perf_counter(), time.time())
    result = await asyncio.wait_for(share.run(), 60)
    return replace(result, rows=[*rows, *result.rows]), progress


async def play_cell(request: CellRequest, on_progress: Callable[[LoadProgress], None]) -> CellResult:
    """Run a cell here, as load processes would."""
    began, started_at = time.perf_counter(), datetime.now(UTC)

    def report(share: ShareProgress) -> None:
        elapsed_s = time.perf_counter() - began
        on_progress(LoadProgress(request.cell.batch, share.open, share.finished, share.failed, elapsed_s))

    result, _ = await play_share(request, on_progress=report)
    return CellResult(result.rows, result.wall_s, started_at, ClientStats(cpu_s=(result.cpu_s,)), ())


async def play(*urls: str, **details: Any) -> list[SessionRow]:
    """The rows of a cell, in the order of their numbers."""
    rows, _ = await play_share(order(*urls, **details))
    return sorted(rows.rows)


async def play_one(*urls: str, **details: Any) -> SessionRow:
    """The row of a single session."""
    (row,) = await play(*urls, **details)
    return row


async def play_row(script: Callable[[Peer], Awaitable[object]], **details: Any) -> SessionRow:
    """The row of a single session with a scripted server."""
    async with scripted(script) as server:
        return await play_one(server.url, **details)


def failure(row: SessionRow) -> tuple[str | None, str | None, str | None]:
    """Phase, type and code of a session that failed."""
    assert not row.success
    return row.error_phase, row.error_type, row.error_code
