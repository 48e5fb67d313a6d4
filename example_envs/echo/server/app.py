"""An OpenEnv environment that says back what it is told: the protocol in one file, on Starlette alone.

A WebSocket at `/ws` is a session with an environment of its own. Each worker holds MAX_CONCURRENT_ENVS of them;
whoever comes after that is told so, in the words that OpenEnv's own servers use.
"""

import json
import os
from uuid import uuid4

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

MAX_SESSIONS = int(os.environ.get("MAX_CONCURRENT_ENVS", "64"))

METADATA = {"name": "echo", "description": "Says back what it is told.", "version": "0.1.0"}
TEXT, COUNT = {"type": "string"}, {"type": "integer"}
SCHEMA = {
    "action": {"type": "object", "properties": {"message": TEXT}, "required": ["message"]},
    "observation": {"type": "object", "properties": {"echoed_message": TEXT, "message_length": COUNT}},
    "state": {"type": "object", "properties": {"episode_id": TEXT, "step_count": COUNT}},
}


class RequestError(Exception):
    """A request that cannot be answered; the session goes on after it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EchoEnvironment:
    def __init__(self) -> None:
        self.reset()

    def reset(self, episode_id: str | None = None) -> dict:
        self.state = {"episode_id": episode_id or str(uuid4()), "step_count": 0}
        return self._observation("ready", reward=None)

    def step(self, message: str) -> dict:
        self.state["step_count"] += 1
        return self._observation(message, reward=min(len(message) / 10, 1.0))

    def _observation(self, text: str, reward: float | None) -> dict:
        observed = {"echoed_message": text, "message_length": len(text)}
        return {"observation": observed, "reward": reward, "done": False}


def answer(environment: EchoEnvironment, request: dict) -> dict:
    match request:
        case {"type": "reset"} if isinstance(data := request.get("data", {}), dict):
            return {"type": "observation", "data": environment.reset(data.get("episode_id"))}
        case {"type": "step", "data": {"message": str(message), **extra}} if not extra:
            return {"type": "observation", "data": environment.step(message)}
        case {"type": "state"}:
            return {"type": "state", "data": environment.state}
        case {"type": "reset" | "step" as kind}:
            raise RequestError("VALIDATION_ERROR", f"Not the data of a {kind}: {request.get('data')}")
    raise RequestError("UNKNOWN_TYPE", f"Unknown message type: {request.get('type')}")


def error(code: str, message: str, **details: int) -> dict:
    return {"type": "error", "data": {"code": code, "message": message, **details}}


async def converse(websocket: WebSocket) -> None:
    """Answer requests until one of them is `close` or is no request at all."""
    environment = EchoEnvironment()
    while True:
        try:
            request = json.loads(await websocket.receive_text())
            if not isinstance(request, dict):
                return await websocket.send_json(error("SESSION_ERROR", "A request is a JSON object"))
            if request.get("type") == "close":
                return None
            await websocket.send_json(answer(environment, request))
        except json.JSONDecodeError as wrong:
            await websocket.send_json(error("INVALID_JSON", f"Invalid JSON: {wrong}"))
        except RequestError as wrong:
            await websocket.send_json(error(wrong.code, str(wrong)))
        except (KeyError, TypeError, RecursionError):
            # A binary frame, which has no text, or brackets without end.
            return await websocket.send_json(error("SESSION_ERROR", "A request is a JSON object, as text"))


open_sessions: set[WebSocket] = set()


async def session(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        if (active := len(open_sessions)) >= MAX_SESSIONS:
            full = f"Server at capacity: {active}/{MAX_SESSIONS} sessions active. Cannot accept new connections."
            counts = {"active_sessions": active, "max_sessions": MAX_SESSIONS}
            await websocket.send_json(error("CAPACITY_REACHED", full, **counts))
        else:
            open_sessions.add(websocket)
            await converse(websocket)
        await websocket.close()
    except WebSocketDisconnect:
        pass  # the client left without saying so
    finally:
        open_sessions.discard(websocket)


app = Starlette(
    routes=[
        WebSocketRoute("/ws", session),
        Route("/schema", JSONResponse(SCHEMA)),
        Route("/health", JSONResponse({"status": "healthy"})),
        Route("/metadata", JSONResponse(METADATA)),
    ]
)
