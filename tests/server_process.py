"""The benchmark environment as a process of its own, for tests that talk to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

SRC = Path(__file__).resolve().parents[1] / "src"


def server_command(*options: object) -> list[str]:
    return [sys.executable, "-m", "pytest_openenv_scale.server", *map(str, options)]


def server_environ(**extra: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("HOST", "PORT", "WORKERS")}
    for name in ("MAX_CONCURRENT_ENVS", "MAX_SESSIONS_PER_ADDRESS", "SESSION_TIMEOUT", "IDLE_TIMEOUT"):
        inherited.pop(name, None)
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")]), **extra}


@contextmanager
def running_server(*options: object, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port: the process and its `host:port`, as its own first line announces it."""
    command = server_command("--port", 0, "--workers", 1, *options)
    process = subprocess.Popen(command, env=server_environ(**(env or {})), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.search(r"listening on http://(\S+) ", line)
        assert match, f"the server did not start: {line}{process.stderr.read()}"
        yield process, match[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


class Client:
    """One WebSocket that speaks JSON both ways."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        await self.connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def receive(self) -> Any:
        return json.loads(await self.connection.recv())

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.receive()

    async def closed(self) -> int | None:
        """Wait until the server has closed; its close code."""
        await self.connection.wait_closed()
        return self.connection.close_code


@asynccontextmanager
async def session(address: str, path: str = "ws", *, close_timeout: float = 2) -> AsyncIterator[Client]:
    async with connect(
        f"ws://{address}/{path}", close_timeout=close_timeout, compression=None, proxy=None
    ) as connection:
        yield Client(connection)
