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
# How long a connection may take to send the head of a request, and how long that may be; hypercorn bounds both itself,
# the first by its keep-alive timeout.
HEAD_TIMEOUT_S = 60.0
MAX_HEAD = 64 * 1024
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
    # Above our own limit, whose last message says more than a close code.
    config.websocket_max_message_size = 16 * MAX_MESSAGE
    _end_what_is_too_long()
    stopping = asyncio.Event()
    stop = _make_stop(application.state.sessions, stopping.set, lifeline)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    # hypercorn types applications by its own copies of the ASGI types, and not completely.
    serve = cast(Any, hypercorn.asyncio).serve
    await serve(application, config, shutdown_trigger=stopping.wait)


def _end_what_is_too_long() -> None:
    """Let hypercorn end a connection whose message is too long: it says 1009, then goes on reading and keeping it."""
    from hypercorn.protocol import h2, h11, ws_stream
    from hypercorn.protocol.events import StreamClosed
    from wsproto.events import CloseConnection
    from wsproto.frame_protocol import CloseReason

    stream: Any = ws_stream.WSStream

    class BoundedStream(stream):
        async def _send_wsproto_event(self, event: object) -> None:
            parent: Any = super()
            await parent._send_wsproto_event(event)
            if isinstance(event, CloseConnection) and event.code == CloseReason.MESSAGE_TOO_BIG:
                await self.send(StreamClosed(stream_id=self.stream_id))

    for protocol in (h11, h2):
        cast(Any, protocol).WSStream = BoundedStream


async def _serve_on_uvicorn(application: Starlette, fd: int, lifeline: int, backlog: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        application,
        http=_bounded_http(),
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


def _bounded_http() -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP with bounds on the head of a request, which it takes however long it is and lasts."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    protocol: Any = AutoHTTPProtocol

    class BoundedHttp(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            parent: Any = super()
            parent.connection_made(transport)
            self._head_size = 0
            self._last_request: object = None
            self._look = self.loop.call_later(HEAD_TIMEOUT_S, self._end_if_silent)

        def connection_lost(self, exc: Exception | None) -> None:
            self._look.cancel()
            parent: Any = super()
            parent.connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head_size = 0 if self._is_answering() else self._head_size + len(data)
            parent: Any = super()
            parent.data_received(data)
            if self._is_answering():
                self._head_size = 0
            elif self._head_size > MAX_HEAD:
                self.transport.close()

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _end_if_silent(self) -> None:
            # A connection that became a WebSocket has another protocol.
            if self.transport.get_protocol() is not self:
                return
            if not self._is_answering() and self.cycle is self._last_request:
                self.transport.close()
                return
            self._last_request = self.cycle
            self._look = self.loop.call_later(HEAD_TIMEOUT_S, self._end_if_silent)

    return cast("type[asyncio.Protocol]", BoundedHttp)


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
