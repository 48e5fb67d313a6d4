"""An environment whose steps cost CPU and wait for each other: what a step takes grows with the sessions at once."""

from __future__ import annotations

import os
import time
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

STEP_CPU = "CPU_ENV_STEP_S"
"""The variable that holds how many seconds of CPU a step costs."""

_OBSERVATION: dict[str, Any] = {"type": "observation", "data": {"observation": {}, "reward": None, "done": False}}


async def play(socket: WebSocket) -> None:
    """Play one session; each step keeps the one thread of the server busy."""
    step_s = float(os.environ[STEP_CPU])
    await socket.accept()
    try:
        while (message := await socket.receive_json())["type"] != "close":
            until = time.thread_time() + (step_s if message["type"] == "step" else 0.0)
            while time.thread_time() < until:
                pass
            await socket.send_json(_OBSERVATION)
        await socket.close()
    except WebSocketDisconnect:
        pass


async def health(request: object) -> PlainTextResponse:
    """Say that the server is up."""
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/health", health), WebSocketRoute("/ws", play)])
