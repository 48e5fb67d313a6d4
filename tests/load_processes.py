"""Load generators whose processes are started once for many tests, and a look at those processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from pytest_openenv_scale.load.ipc import CellRequest
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator, LoadProgress
from server_process import running_server


@pytest.fixture(scope="module")
def environment() -> Iterator[str]:
    """The benchmark environment, in a process of its own."""
    with running_server() as (_, address):
        yield f"http://{address}"


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the import path of this process and its load processes, for modules of actions."""
    folder = tmp_path_factory.mktemp("actions")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def generators(actions: Path) -> Iterator[Callable[[int], LoadGenerator]]:
    """Give a generator with so many processes; it is kept for the tests that follow."""
    started: dict[int, LoadGenerator] = {}
    with ExitStack() as stack:

        def give(processes: int) -> LoadGenerator:
            if processes not in started:
                started[processes] = stack.enter_context(LoadGenerator(processes))
            return started[processes]

        yield give


def workers(generator: LoadGenerator) -> list[psutil.Process]:
    """The processes of a generator that run."""
    pids = [process.popen.pid for process in generator._processes if process.popen.poll() is None]
    return [psutil.Process(pid) for pid in pids]


async def run_beside(
    generator: LoadGenerator, request: CellRequest, on_progress: Callable[[LoadProgress], None] | None = None
) -> CellResult:
    """Run a cell while the test's own loop goes on serving."""
    return await asyncio.wait_for(asyncio.to_thread(generator.run_cell, request, on_progress), 60)


def kinds(result: CellResult) -> set[str]:
    """The kinds of what was found about the client."""
    return {finding.kind for finding in result.findings}
