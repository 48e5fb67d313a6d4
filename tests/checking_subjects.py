"""A server as checks see it, for tests that ask them without pytest's plugin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from defects.running import configuration
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import Endpoint


def make_subject(url: str, *, endpoint: dict[str, Any] | None = None, **changes: Any) -> Subject:
    """The server at a base URL, which takes `wait_seconds`; patient for a second or two, up to eight sessions."""
    defaults: dict[str, Any] = {
        "workload": Workload(({"wait_seconds": "$wait"},)),
        "max_sessions": 8,
        "wait_s": 0.0,
        "timeout_s": 2.0,
        "soak_s": 2.0,
    }
    return Subject(Endpoint((url,), "here", url, **(endpoint or {})), **{**defaults, **changes})


class _Server(uvicorn.Server):
    """Signals are pytest's."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def served(defect: str = "none", limit: int = 16) -> AsyncIterator[str]:
    """The server with a defect under uvicorn, in the loop of the test, where waits can pass quickly; its base URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        server = _Server(configuration(defect, limit))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
