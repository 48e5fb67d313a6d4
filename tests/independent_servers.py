"""Well-kept WebSocket servers nobody here wrote, each holding the same tiny environment."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import uvicorn
import websockets.asyncio.server
from aiohttp import WSMsgType, web
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TLS = Path(__file__).parent / "tls"
AUTHORITY = TLS / "authority.pem"
CERTIFICATE = TLS / "server.pem"
PING_S = 0.05
"""How often these servers ping, in seconds; they drop who does not answer."""


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


async def answer(text: str) -> str | None:
    """The reply to one message: a step waits `wait_seconds` and returns `size` characters; None ends the session."""
    message = json.loads(text)
    if message["type"] == "close":
        return None
    action = message.get("data", {})
    await asyncio.sleep(action.get("wait_seconds", 0.0))
    fields: dict[str, Any] = {"pid": 1, "waited_seconds": action.get("wait_seconds", 0.0)}
    fields["text"] = "ä" * action.get("size", 0)
    return json.dumps({"type": "observation", "data": {"observation": fields, "reward": None, "done": False}})


async def _starlette(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while (reply := await answer(await socket.receive_text())) is not None:
            await socket.send_text(reply)
        await socket.close()
    except WebSocketDisconnect:
        pass


APP = Starlette(routes=[WebSocketRoute("/ws", _starlette)])


@asynccontextmanager
async def _websockets(sock: socket.socket, tls: bool) -> AsyncIterator[None]:
    async def handle(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for text in connection:
            assert isinstance(text, str)
            if (reply := await answer(text)) is None:
                return
            await connection.send(reply)

    async with websockets.asyncio.server.serve(
        handle, sock=sock, ssl=server_tls() if tls else None, ping_interval=PING_S, ping_timeout=1
    ):
        yield


@asynccontextmanager
async def _aiohttp(sock: socket.socket, tls: bool) -> AsyncIterator[None]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(heartbeat=PING_S * 4)
        await connection.prepare(request)
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                if (reply := await answer(message.data)) is None:
                    await connection.close()
                    break
                await connection.send_str(reply)
        return connection

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=server_tls() if tls else None).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _hypercorn(sock: socket.socket, tls: bool) -> AsyncIterator[None]:
    config = Config()
    config.bind = [f"fd://{os.dup(sock.fileno())}"]  # it closes what it is given
    config.websocket_ping_interval = PING_S
    config.errorlog = config.accesslog = None
    if tls:
        config.certfile = config.keyfile = str(CERTIFICATE)
    stop = asyncio.Event()
    task = asyncio.create_task(hypercorn.asyncio.serve(APP, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        stop.set()
        await task


class _Uvicorn(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _uvicorn(ws: str) -> Callable[[socket.socket, bool], Any]:
    @asynccontextmanager
    async def serve(sock: socket.socket, tls: bool) -> AsyncIterator[None]:
        config = uvicorn.Config(
            APP,
            ws=ws,  # type: ignore[arg-type]
            ws_ping_interval=PING_S,
            ws_ping_timeout=1,
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=CERTIFICATE if tls else None,
            ssl_keyfile=CERTIFICATE if tls else None,
        )
        server = _Uvicorn(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            server.should_exit = True
            await task

    return serve


SERVERS: dict[str, Callable[[socket.socket, bool], Any]] = {
    "websockets": _websockets,
    "aiohttp": _aiohttp,
    "hypercorn": _hypercorn,
    "uvicorn-sansio": _uvicorn("websockets-sansio"),
    "uvicorn-wsproto": _uvicorn("wsproto"),
}


@asynccontextmanager
async def running(name: str, *, tls: bool = False) -> AsyncIterator[str]:
    """One of `SERVERS` on a free port; its base URL."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=500)
    sock.setblocking(False)
    port = sock.getsockname()[1]
    with sock:
        async with SERVERS[name](sock, tls):
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
