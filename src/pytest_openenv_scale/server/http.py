"""The HTTP endpoints. As in OpenEnv, every request gets a fresh environment and none counts as a session."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import ws
from .schemas import (
    ENVIRONMENT_NAME,
    METADATA,
    SCHEMAS,
    Json,
    Problem,
    docs_page,
    encode,
    in_body,
    openapi,
    parse_wait,
    problem,
    reset_problems,
)
from .sessions import Sessions
from .ws import MAX_MESSAGE, UNPARSABLE, ClientGoneError, Event, wait_watching

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
        body = await _json_body(request)
        options = _as_object(body) if body is not None else {}
        if problems := reset_problems(options):
            raise _InvalidBodyError(in_body(problems))
        return _observation(sessions.environment().reset(options.get("episode_id")))

    async def step(request: Request) -> Response:
        action = _action_of(await _json_body(request))
        wait, problems = parse_wait(action)
        if problems:
            raise _InvalidBodyError(problems)
        try:
            waited = await wait_watching(wait, request.receive, _ends_with_client) if wait else 0.0
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return _observation(sessions.environment().stepped(waited))

    async def state(_: Request) -> Response:
        return _json(sessions.environment().state())

    async def rpc(request: Request) -> Response:
        try:
            parsed: Any = json.loads(await _body(request))
        except UNPARSABLE:
            return _json(encode(ws.rpc_error(ws.PARSE_ERROR, "Parse error")))
        return _json(encode(ws.answer(parsed, sessions)))

    return [
        Route("/reset", _refusing(reset), methods=["POST"]),
        Route("/step", _refusing(step), methods=["POST"]),
        Route("/state", state),
        Route("/health", _constant({"status": "healthy"})),
        Route("/metadata", _constant(METADATA)),
        Route("/schema", _constant(SCHEMAS)),
        Route("/list_environments", _constant([ENVIRONMENT_NAME])),
        Route("/openapi.json", _constant(openapi())),
        Route("/mcp", rpc, methods=["POST"]),
        Route("/docs", _docs),
    ]


async def http_error(_: Request, error: Exception) -> Response:
    """404, 405 and the like as OpenEnv words them: `{"detail": ...}`."""
    refused = cast(HTTPException, error)
    return JSONResponse({"detail": refused.detail}, refused.status_code, headers=refused.headers)


Endpoint = Callable[[Request], Awaitable[Response]]


def _refusing(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _InvalidBodyError as error:
            return _json(encode({"detail": error.problems}), 422)

    return answer


def _constant(value: object) -> Endpoint:
    body = encode(value)

    async def answer(_: Request) -> Response:
        return _json(body)

    return answer


async def _docs(_: Request) -> Response:
    return HTMLResponse(docs_page())


def _json(body: str, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _observation(observation: str) -> Response:
    return _json(f'{observation[:-1]},"metadata":null}}')


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_MESSAGE:
                raise HTTPException(413, f"Body exceeds {MAX_MESSAGE} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise HTTPException(CLIENT_CLOSED_REQUEST) from error
    return b"".join(chunks)


async def _json_body(request: Request) -> Any:
    """The parsed body, None where there is none."""
    body = await _body(request)
    if not body:
        return None
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise _InvalidBodyError([_bad_json(error.pos, error.msg)]) from error
    except UNPARSABLE as error:
        raise _InvalidBodyError([_bad_json(0, str(error))]) from error


def _bad_json(position: int, reason: str) -> Problem:
    return {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }


def _as_object(body: object) -> Json:
    if isinstance(body, dict):
        return cast(Json, body)
    msg = "Input should be a valid dictionary or object to extract fields from"
    raise _InvalidBodyError([{"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": body}])


def _action_of(body: object) -> Json:
    if body is None:
        raise _InvalidBodyError([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    request = _as_object(body)
    if "action" not in request:
        raise _InvalidBodyError(in_body([problem("missing", "action", "Field required", request)]))
    action = request["action"]
    if not isinstance(action, dict):
        msg = "Input should be a valid dictionary"
        raise _InvalidBodyError(in_body([problem("dict_type", "action", msg, action)]))
    return cast(Json, action)


def _ends_with_client(event: Event) -> bool:
    if event["type"] == "http.disconnect":
        raise ClientGoneError
    return True
