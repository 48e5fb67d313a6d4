"""A load-generating process: takes messages over a pipe, runs its share of each cell, returns the rows.

Started as `python -m pytest_openenv_scale.load.worker FD`. It holds nothing but sessions, so that neither
the test runner's work nor its garbage collection comes between a session and the server.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from threading import Thread
from typing import Any

from pytest_openenv_scale.core.own_process import standard_library_first
from pytest_openenv_scale.core.system import raise_descriptor_limit

from . import ipc
from .worker_share import WorkerShare


class Worker:
    """Handles the messages of the parent, one cell at a time."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._share: WorkerShare | None = None
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Serve until the parent closes its end of the pipe.

        Raises what went wrong in a cell: a process that dies is noticed at once, a silent one is not.
        """
        # A thread, because an event loop would make the pipe non-blocking and tear large messages apart.
        Thread(target=self._listen, args=(asyncio.get_running_loop(),), daemon=True).start()
        await self._stopped.wait()
        for task in self._tasks:
            task.cancel()
        if self._error is not None:
            raise self._error

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # The loop has ended by itself meanwhile; its own error is what is to be read.
            while True:
                try:
                    message = self._pipe.recv()
                except Exception:  # The parent is gone, or what it sent cannot be read here.
                    loop.call_soon_threadsafe(self._stopped.set)
                    return
                loop.call_soon_threadsafe(self._handle_message, message)

    def _handle_message(self, message: object) -> None:
        match message:
            case ipc.SetImportPath(path=path):
                sys.path[:] = standard_library_first(path)
            case ipc.Prepare():
                self._spawn(self._run_cell(message))
            case ipc.Start(at=at, wall_clock=wall) if self._share is not None:
                self._share.start(at, wall)
            case ipc.Release(at=at) if self._share is not None:
                self._share.release(at)
            case ipc.Halt(failed=failed) if self._share is not None:
                self._share.halt(failed)
            case _:
                pass

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_cell(self, assignment: ipc.Prepare) -> None:
        try:
            share = self._share = WorkerShare(assignment, self._pipe.send)
            share.prepare()
        except Exception as error:
            self._pipe.send(ipc.Refused(str(error) or type(error).__name__))
            return
        gc.collect()
        gc.freeze()
        if not share.leaves_garbage:
            gc.disable()
        try:
            self._pipe.send(ipc.Ready())
            self._pipe.send(await share.run())
        except OSError:
            self._stopped.set()
        except Exception as error:
            self._error = error
            self._stopped.set()
        finally:
            self._share = None
            gc.enable()
            gc.unfreeze()


def main() -> None:
    """Run a worker on the descriptor named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()
    pipe = Pipe(int(sys.argv[1]))

    async def serve() -> None:
        await Worker(pipe).run()

    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())


if __name__ == "__main__":
    main()
