"""The HTTP side: what `openenv validate` asks for. As in OpenEnv, every request gets a fresh environment."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .environment import ACTION, OBSERVATION, STATE, InvalidError, parse_action, problem
from .server import NOT_SUPPORTED, Server, Session

METADATA = {
    "name": "NumbersEnvironment",
    "description": "Draws a number from its seed in each step.",
    "readme_content": None,
    "version": "1.0.0",
    "author": None,
    "documentation_url": None,
}
SCHEMAS = {"action": ACTION, "observation": OBSERVATION, "state": STATE, "reset_observation": OBSERVATION}
_POST, _GET = {"post": {"responses": {}}}, {"get": {"responses": {}}}
OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "NumbersEnvironment", "version": "1.0.0"},
    "paths": {
        "/reset": _POST,
        "/step": _POST,
        "/state": _GET,
        "/health": _GET,
        "/metadata": _GET,
        "/schema": _GET,
        "/mcp": _POST,
    },
}

Endpoint = Callable[[Request], Awaitable[Response]]


def http_routes(server: Server) -> list[Route]:
    """The routes over this server's environments."""

    async def reset(request: Request) -> Response:
        data = await _body(request, default={})
        return JSONResponse({**server.reset(Session(server.environment()), data), "metadata": None})

    async def step(request: Request) -> Response:
        body = await _body(request, default=None)
        action = body.get("action") if isinstance(body, dict) else None
        if not isinstance(action, dict):
            raise InvalidError([problem("missing", "action", "Field required", body)])
        reply = await server.step(Session(server.environment()), parse_action(action))
        return JSONResponse({**reply, "metadata": None})

    async def state(_: Request) -> Response:
        return JSONResponse(server.environment().state())

    return [
        Route("/reset", _checked(reset), methods=["POST"]),
        Route("/step", _checked(step), methods=["POST"]),
        Route("/state", state),
        Route("/mcp", _rpc, methods=["POST"]),
        Route("/health", _constant({"status": "healthy"})),
        Route("/metadata", _constant(METADATA)),
        Route("/schema", _constant(SCHEMAS)),
        Route("/openapi.json", _constant(OPENAPI)),
    ]


def _checked(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except InvalidError as error:
            return JSONResponse({"detail": error.problems}, 422)

    return answer


def _constant(value: object) -> Endpoint:
    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return answer


async def _body(request: Request, *, default: Any) -> Any:
    raw = await request.body()
    if not raw:
        return default
    try:
        return json.loads(raw)
    except ValueError as error:
        raise InvalidError([problem("json_invalid", "body", "JSON decode error", str(error))]) from None


async def _rpc(request: Request) -> Response:
    try:
        message = json.loads(await request.body())
    except ValueError:
        error = {"code": -32700, "message": "Parse error", "data": None}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error})
    asked_id = message.get("id") if isinstance(message, dict) else None
    return JSONResponse({"jsonrpc": "2.0", "id": asked_id, "error": NOT_SUPPORTED})
