"""JSON-RPC 2.0 as far as OpenEnv asks for it: this environment has no tools and says so."""

from __future__ import annotations

from typing import Any, cast

from .sessions import CapacityReachedError, Sessions, UnknownSessionError
from .validation import Json

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, SERVER_ERROR = -32603, -32000


def rpc_error(code: int, message: str, request_id: object = None, data: Json | None = None) -> Json:
    """A JSON-RPC error reply."""
    error = {"code": code, "message": message, "data": data}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def refusal(full: CapacityReachedError, request_id: object = None) -> Json:
    """The reply to a session that does not fit."""
    data = {"active_sessions": full.active, "max_sessions": full.limit}
    return rpc_error(SERVER_ERROR, str(full), request_id, data)


def answer(request: object, sessions: Sessions, *, in_session: str | None = None) -> Json:
    """The reply to one parsed request; `in_session` is the id of the WebSocket's session it came through."""
    wrong = _what_is_wrong(request)
    if wrong:
        return rpc_error(INVALID_REQUEST, f"Invalid request: {wrong}")
    call = cast(Json, request)
    request_id, method, params = call.get("id"), call["method"], call.get("params", {})
    if not isinstance(params, dict):
        return rpc_error(INVALID_PARAMS, "Params must be an object", request_id)
    if method in ("tools/list", "tools/call"):
        return rpc_error(INTERNAL_ERROR, "Environment does not support MCP", request_id)
    if method == "openenv/session/create":
        return _create(request_id, sessions, in_session)
    if method == "openenv/session/close":
        return _close(request_id, cast(Json, params).get("session_id"), sessions, in_session)
    return rpc_error(METHOD_NOT_FOUND, f"Method not found: {method}", request_id)


def _create(request_id: object, sessions: Sessions, in_session: str | None) -> Json:
    try:
        session_id = in_session or sessions.create()
    except CapacityReachedError as full:
        return refusal(full, request_id)
    return _result(request_id, {"session_id": session_id})


def _close(request_id: object, session_id: object, sessions: Sessions, in_session: str | None) -> Json:
    if not isinstance(session_id, str) or not session_id:
        return rpc_error(INVALID_PARAMS, "Invalid params - 'session_id' is required", request_id)
    if session_id == in_session:
        message = "Cannot close active WebSocket-managed session via MCP method"
        return rpc_error(INVALID_REQUEST, message, request_id)
    try:
        closed = sessions.close(session_id)
    except UnknownSessionError as error:
        return rpc_error(INVALID_PARAMS, str(error), request_id)
    result: Json = {"session_id": session_id, "closed": closed}
    return _result(request_id, result if closed else {**result, "closing": True})


def _result(request_id: object, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _what_is_wrong(request: object) -> str:
    if not isinstance(request, dict):
        return f"expected an object, not {type(request).__name__}"
    call = cast(dict[str, Any], request)
    wrong: list[str] = []
    if call.get("jsonrpc") != "2.0":
        wrong.append("jsonrpc: must be '2.0'")
    if not isinstance(call.get("method"), str):
        wrong.append("method: a string is required")
    if not isinstance(call.get("id"), (str, int, type(None))):
        wrong.append("id: must be a string or an integer")
    wrong += [f"{name}: not permitted" for name in call if name not in ("jsonrpc", "id", "method", "params")]
    return "; ".join(wrong)
