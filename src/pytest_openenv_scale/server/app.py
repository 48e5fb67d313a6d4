"""The benchmark environment as an ASGI application: `app` for any server, `create_app` for settings of your own.

As in OpenEnv, every HTTP request gets a fresh environment, and none counts as a session.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from . import ws
from .schemas import (
    ENVIRONMENT_NAME,
    METADATA,
    SCHEMAS,
    Json,
    Problem,
    docs_page,
    encode,
    openapi,
    parse_wait,
    problem,
    reset_problems,
)
from .sessions import Sessions
from .settings import SettingError, settings_from
from .ws import MAX_MESSAGE, UNPARSABLE, ClientGoneError, Event, McpEndpoint, SessionEndpoint, wait_while_receiving

# From the headers of a request to the end of its body.
BODY_TIMEOUT_S = 60.0
# nginx's status for a client that closed its request: nobody is there to read it.
CLIENT_CLOSED_REQUEST = 499


class _InvalidBodyError(Exception):
    """A body that is refused with 422."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("invalid body")
        self.problems = problems


def http_routes(sessions: Sessions) -> list[Route]:
    """The routes of the HTTP side, over the same sessions the WebSockets count in."""

    async def reset(request: Request) -> Response:
        body = await _read_json(request)
        options = _require_object(body) if body is not None else {}
        if problems := reset_problems(options):
            raise _InvalidBodyError(problems)
        return _observation_response(sessions.environment().reset(options.get("episode_id")))

    async def step(request: Request) -> Response:
        action = _require_action(await _read_json(request))
        wait, problems = parse_wait(action)
        if problems:
            raise _InvalidBodyError(problems)
        try:
            waited = await wait_while_receiving(wait, request.receive, _stop_if_client_gone) if wait else 0.0
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return _observation_response(sessions.environment().step(waited))

    async def state(_: Request) -> Response:
        return _json_response(sessions.environment().state())

    async def rpc(request: Request) -> Response:
        try:
            parsed: Any = json.loads(await _read_body(request))
        except UNPARSABLE:
            return _json_response(encode(ws.rpc_error(ws.PARSE_ERROR, "Parse error")))
        return _json_response(encode(ws.answer_rpc(parsed, sessions)))

    return [
        Route("/reset", reset, methods=["POST"]),
        Route("/step", step, methods=["POST"]),
        Route("/state", state),
        Route("/health", _constant_handler({"status": "healthy"})),
        Route("/metadata", _constant_handler(METADATA)),
        Route("/schema", _constant_handler(SCHEMAS)),
        Route("/list_environments", _constant_handler([ENVIRONMENT_NAME])),
        Route("/openapi.json", _constant_handler(openapi())),
        Route("/mcp", rpc, methods=["POST"]),
        Route("/docs", _docs_handler),
    ]


async def _http_error(_: Request, error: Exception) -> Response:
    """404, 405 and the like as OpenEnv words them: `{"detail": ...}`."""
    http_exception = cast(HTTPException, error)
    return JSONResponse({"detail": http_exception.detail}, http_exception.status_code, headers=http_exception.headers)


async def _body_error(_: Request, error: Exception) -> Response:
    return _json_response(encode({"detail": cast(_InvalidBodyError, error).problems}), 422)


EXCEPTION_HANDLERS = {HTTPException: _http_error, _InvalidBodyError: _body_error}
"""How errors that the routes raise are answered."""

HttpHandler = Callable[[Request], Awaitable[Response]]


def _constant_handler(value: object) -> HttpHandler:
    body = encode(value)

    async def answer(_: Request) -> Response:
        return _json_response(body)

    return answer


async def _docs_handler(_: Request) -> Response:
    return HTMLResponse(docs_page())


def _json_response(body: str, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _observation_response(observation: str) -> Response:
    return _json_response(f'{observation[:-1]},"metadata":null}}')


async def _read_body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_MESSAGE:
                    raise HTTPException(413, f"Body exceeds {MAX_MESSAGE} bytes")
                chunks.append(chunk)
    except TimeoutError:
        slow = f"Body not complete after {BODY_TIMEOUT_S:g} s"
        raise HTTPException(408, slow, headers={"connection": "close"}) from None
    except ClientDisconnect as error:
        raise HTTPException(CLIENT_CLOSED_REQUEST) from error
    return b"".join(chunks)


async def _read_json(request: Request) -> Any:
    """The parsed body, None where there is none."""
    body = await _read_body(request)
    if not body:
        return None
    try:
        return json.loads(body)
    except UNPARSABLE as error:
        position, reason = (error.pos, error.msg) if isinstance(error, json.JSONDecodeError) else (0, str(error))
        invalid = problem("json_invalid", "JSON decode error", {}, "body", position)
        raise _InvalidBodyError([{**invalid, "ctx": {"error": reason}}]) from error


def _require_object(body: object, *loc: str) -> Json:
    if isinstance(body, dict):
        return cast(Json, body)
    raise _InvalidBodyError([problem("dict_type", "Input should be a valid dictionary", body, "body", *loc)])


def _require_action(body: object) -> Json:
    if body is None:
        raise _InvalidBodyError([problem("missing", "Field required", None, "body")])
    request = _require_object(body)
    if "action" not in request:
        raise _InvalidBodyError([problem("missing", "Field required", request, "body", "action")])
    return _require_object(request["action"], "action")


def _stop_if_client_gone(event: Event) -> bool:
    if event["type"] == "http.disconnect":
        raise ClientGoneError
    return True


def create_app(max_concurrent_envs: int | None = None, *, host_url: str | None = None) -> Starlette:
    """The benchmark environment, at most `max_concurrent_envs` sessions at once in this process.

    What is not given is read from the environment: MAX_CONCURRENT_ENVS (unset or 0: unlimited), HOST and PORT
    for the `host_url` that observations report, and the bounds on clients. Raises SettingError for values nobody can
    serve with. `app.state.sessions` holds the sessions.
    """
    settings = settings_from(os.environ)
    limit = settings.max_envs if max_concurrent_envs is None else max_concurrent_envs or None
    if limit is not None and limit < 0:
        raise SettingError(f"max_concurrent_envs={limit}: expected a whole number (0 = unlimited)")
    sessions = Sessions(limit, host_url or settings.host_url, settings.bounds)
    # Starlette takes any ASGI application for an endpoint that is no function; its types know functions only.
    session, rpc = cast(Any, SessionEndpoint(sessions)), cast(Any, McpEndpoint(sessions))
    # /ws comes first: it is what thousands ask for at once.
    routes = [WebSocketRoute("/ws", session), WebSocketRoute("/mcp", rpc), *http_routes(sessions)]
    app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
    app.state.sessions = sessions
    return app


def _app_or_exit() -> Starlette:
    try:
        return create_app()
    except SettingError as error:
        # A server imports this module: its traceback would bury the one line that helps.
        print(f"pytest-openenv-scale server: {error}", file=sys.stderr)
        raise SystemExit(2) from None


app = _app_or_exit()
