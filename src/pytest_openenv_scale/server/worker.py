"""One worker process: the application on hypercorn or uvicorn, on a listening socket it is given."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from starlette.applications import Starlette

from pytest_openenv_scale.core.system import raise_descriptor_limit

from .app import app
from .sessions import Sessions
from .ws import MAX_MESSAGE

# A loaded server may take long between accepting a connection and reading its first request.
KEEP_ALIVE_S = 120
# From being asked to stop until the process ends, whatever is still open.
GRACE_S = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, or until the process that holds the lifeline's other end is gone."""
    parser = argparse.ArgumentParser(prog="pytest_openenv_scale.server.worker")
    parser.add_argument("--server", choices=["hypercorn", "uvicorn"], required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--backlog", type=int, required=True)
    options = parser.parse_args(argv)
    raise_descriptor_limit()
    _relax_garbage_collection()
    serve = _serve_on_hypercorn if options.server == "hypercorn" else _serve_on_uvicorn
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(app, options.fd, options.lifeline, options.backlog))
    return 0


async def _serve_on_hypercorn(application: Starlette, fd: int, lifeline: int, backlog: int) -> None:
    import hypercorn.asyncio
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{fd}"]
    config.backlog = backlog
    config.loglevel = "WARNING"
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = sys.maxsize
    config.graceful_timeout = GRACE_S / 2
    # Above our own limit: hypercorn says 1009 to what is longer, but then never ends the connection and its slot.
    config.websocket_max_message_size = 16 * MAX_MESSAGE
    stopping = asyncio.Event()
    stop = _make_stop(application.state.sessions, stopping.set, lifeline)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    # hypercorn types applications by its own copies of the ASGI types, and not completely.
    serve = cast(Any, hypercorn.asyncio).serve
    await serve(application, config, shutdown_trigger=stopping.wait)


async def _serve_on_uvicorn(application: Starlette, fd: int, lifeline: int, backlog: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=MAX_MESSAGE,
        # The kernel's keep-alive finds dead peers (see `listening_sockets`); pings would be work per session.
        ws_ping_interval=None,
        backlog=backlog,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(GRACE_S - 1),
    )
    server = uvicorn.Server(config)
    stop = _make_stop(application.state.sessions, lambda: setattr(server, "should_exit", True), lifeline)
    loop = asyncio.get_running_loop()
    # uvicorn's signal handlers call this; ours also closes the sessions and sets the deadline.
    server.handle_exit = lambda sig, frame: loop.call_soon_threadsafe(stop) and None
    await server.serve(sockets=[socket.socket(fileno=fd)])


def _make_stop(sessions: Sessions, stop_server: Callable[[], None], lifeline: int) -> Callable[[], None]:
    """What ends this worker: sessions first, because hypercorn waits for open WebSockets, then the server.

    It is also called when the lifeline breaks, so that no worker outlives a killed supervisor.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not sessions.closing:
            loop.remove_reader(lifeline)
            loop.call_later(GRACE_S, os._exit, 0)
            sessions.close_all()
            stop_server()

    loop.add_reader(lifeline, stop)
    return stop


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _relax_garbage_collection() -> None:
    """Spare the collector what cannot be garbage: modules, and thousands of sessions that are in use.

    In two paired runs at 8,192 sessions this took 12 and 20 % off the server's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


if __name__ == "__main__":
    raise SystemExit(main())
