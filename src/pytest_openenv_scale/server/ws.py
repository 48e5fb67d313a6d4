"""The WebSocket endpoints as raw ASGI: `/ws` speaks OpenEnv sessions, `/mcp` bare JSON-RPC."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any, cast
from urllib.parse import parse_qs

from .schemas import Json, Problem, encode, message_problems, parse_wait
from .sessions import AddressLimitError, CapacityReachedError, Environment, Sessions, UnknownSessionError

# What the parser raises: bad syntax, a number of more than 4,300 digits, too deep a nesting.
UNPARSABLE = (ValueError, RecursionError)


class _WebSocketEndpoint(ABC):
    """A WebSocket from handshake to close: what every endpoint does around its conversation."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        socket = Socket(receive, send)
        last_message, code = None, NORMAL
        client: tuple[str, int] | None = scope.get("client")
        with self.sessions.track(socket):
            try:
                await socket.accept()
                with self.sessions.hold_slot(self.requested_session(scope), client[0] if client else "") as environment:
                    await self.converse(socket, environment)
            except ClientGoneError:
                return
            except CapacityReachedError as full:
                last_message = self.capacity_message(full)
            except AddressLimitError as error:
                last_message, code = self.failure_message(str(error)), POLICY
            except UnreadableError as error:
                last_message, code = self.failure_message(str(error)), error.close_code
            except asyncio.CancelledError:
                if not (self.sessions.closing or socket.expired):
                    raise
                cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
                code = GOING_AWAY
                if not self.sessions.closing:
                    last_message, code = self.failure_message(socket.expired), POLICY
            except Exception as error:
                # Whatever a message provokes ends its own session, said as OpenEnv says it, and nothing else.
                last_message = self.failure_message(str(error))
        await socket.close(last_message, code)

    @abstractmethod
    def requested_session(self, scope: Event) -> str | None:
        """The id of the existing session the client asks for."""

    @abstractmethod
    async def converse(self, socket: Socket, environment: Environment) -> None:
        """Answer messages until the session is to be closed."""

    @abstractmethod
    def capacity_message(self, error: CapacityReachedError) -> str:
        """The last message of a session that does not fit."""

    @abstractmethod
    def failure_message(self, message: str) -> str:
        """The last message of a session that cannot go on."""


class SessionEndpoint(_WebSocketEndpoint):
    """`/ws`: one environment per connection; reset, step, state, mcp, close."""

    def requested_session(self, scope: Event) -> str | None:
        """`?session_id=` names a session created over HTTP."""
        query: bytes = scope["query_string"]
        return parse_qs(query.decode("latin-1")).get("session_id", [None])[0] if query else None

    async def converse(self, socket: Socket, environment: Environment) -> None:
        """One reply per message, in order, until `close`; JSON that is no object ends it too.

        So does what the parser gives up on, as in OpenEnv: thousands of nested brackets, of digits.
        """
        while True:
            text = await socket.read()
            try:
                message = json.loads(text)
            except json.JSONDecodeError as error:
                await socket.write(error_message("INVALID_JSON", f"Invalid JSON: {error}"))
                continue
            if not isinstance(message, dict):
                raise UnreadableError(f"'{type(message).__name__}' object has no attribute 'get'")
            reply = await self._answer(cast(Json, message), socket, environment)
            if reply is None:
                return
            await socket.write(reply)

    def capacity_message(self, error: CapacityReachedError) -> str:
        """The error CAPACITY_REACHED, with the active and the possible sessions."""
        return error_message("CAPACITY_REACHED", str(error), active_sessions=error.active, max_sessions=error.limit)

    def failure_message(self, message: str) -> str:
        """The error SESSION_ERROR with this text."""
        return error_message("SESSION_ERROR", message)

    async def _answer(self, message: Json, socket: Socket, environment: Environment) -> str | None:
        kind = message.get("type", "")
        if not isinstance(kind, str) or kind not in _DATA:
            return error_message("UNKNOWN_TYPE", f"Unknown message type: {kind}")
        wait, problems = 0.0, message_problems(message, data=_DATA[kind])
        if kind == "step" and not problems:
            wait, problems = parse_wait(message["data"])
        if problems:
            return error_message("VALIDATION_ERROR", "Invalid message", errors=problems)
        if kind == "step":
            waited = await socket.wait(wait) if wait else 0.0
            return _observation_message(environment.step(waited))
        if kind == "reset":
            data: Json = message.get("data", {})
            return _observation_message(environment.reset(data.get("episode_id")))
        if kind == "state":
            return f'{{"type":"state","data":{environment.state()}}}'
        if kind == "mcp":
            reply = answer_rpc(message["data"], self.sessions, in_session=environment.session_id)
            return encode({"type": "mcp", "data": reply})
        return None


_DATA = {"step": "required", "reset": "optional", "state": "forbidden", "mcp": "required", "close": "forbidden"}
"""What a session may be told, and whether the message has `data`."""


class McpEndpoint(_WebSocketEndpoint):
    """`/mcp` as a WebSocket: JSON-RPC requests without an envelope, in a session of their own."""

    def requested_session(self, scope: Event) -> str | None:
        """None: every connection has a new session."""
        return None

    async def converse(self, socket: Socket, environment: Environment) -> None:
        """One reply per request until the client leaves."""
        while True:
            text = await socket.read()
            try:
                request: Any = json.loads(text)
            except UNPARSABLE as error:
                reply = rpc_error(PARSE_ERROR, f"Parse error: {error}")
            else:
                reply = answer_rpc(request, self.sessions, in_session=environment.session_id)
            await socket.write(encode(reply))

    def capacity_message(self, error: CapacityReachedError) -> str:
        """A JSON-RPC server error, with the active and the possible sessions."""
        return encode(rpc_capacity_error(error))

    def failure_message(self, message: str) -> str:
        """A JSON-RPC internal error with this text."""
        return encode(rpc_error(INTERNAL_ERROR, message))


def error_message(code: str, message: str, **details: int | list[Problem]) -> str:
    """An OpenEnv error message as JSON."""
    return encode({"type": "error", "data": {"message": message, "code": code, **details}})


def _observation_message(observation: str) -> str:
    return f'{{"type":"observation","data":{observation}}}'


# JSON-RPC 2.0, section 5.1.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000


def rpc_error(code: int, message: str, request_id: object = None, data: Json | None = None) -> Json:
    """A JSON-RPC error reply."""
    error = {"code": code, "message": message, "data": data}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def rpc_capacity_error(error: CapacityReachedError, request_id: object = None) -> Json:
    """The reply to a session that does not fit."""
    data = {"active_sessions": error.active, "max_sessions": error.limit}
    return rpc_error(SERVER_ERROR, str(error), request_id, data)


def answer_rpc(request: object, sessions: Sessions, *, in_session: str | None = None) -> Json:
    """The reply to one parsed request; `in_session` is the id of the WebSocket's session it came through."""
    problem = _request_problem(request)
    if problem:
        return rpc_error(INVALID_REQUEST, f"Invalid request: {problem}")
    call = cast(Json, request)
    request_id, method, params = call.get("id"), call["method"], call.get("params", {})
    if not isinstance(params, dict):
        return rpc_error(INVALID_PARAMS, "Params must be an object", request_id)
    if method in ("tools/list", "tools/call"):
        return rpc_error(INTERNAL_ERROR, "Environment does not support MCP", request_id)
    if method == "openenv/session/create":
        return _create_session(request_id, sessions, in_session)
    if method == "openenv/session/close":
        return _close_session(request_id, cast(Json, params).get("session_id"), sessions, in_session)
    return rpc_error(METHOD_NOT_FOUND, f"Method not found: {method}", request_id)


def _create_session(request_id: object, sessions: Sessions, in_session: str | None) -> Json:
    try:
        session_id = in_session or sessions.create()
    except CapacityReachedError as error:
        return rpc_capacity_error(error, request_id)
    return _rpc_result(request_id, {"session_id": session_id})


def _close_session(request_id: object, session_id: object, sessions: Sessions, in_session: str | None) -> Json:
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
    return _rpc_result(request_id, result if closed else {**result, "closing": True})


def _rpc_result(request_id: object, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _request_problem(request: object) -> str:
    if not isinstance(request, dict):
        return f"expected an object, not {type(request).__name__}"
    call = cast(dict[str, Any], request)
    problems: list[str] = []
    if call.get("jsonrpc") != "2.0":
        problems.append("jsonrpc: must be '2.0'")
    if not isinstance(call.get("method"), str):
        problems.append("method: a string is required")
    if not isinstance(call.get("id"), (str, int, type(None))):
        problems.append("id: must be a string or an integer")
    problems += [f"{name}: not permitted" for name in call if name not in ("jsonrpc", "id", "method", "params")]
    return "; ".join(problems)


Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

# uvloop counts whole milliseconds and rounds to the nearest: half of one more makes it round up.
_ROUND_UP = 0.0005


class ClientGoneError(Exception):
    """The client dropped its connection."""


async def wait_while_receiving(seconds: float, receive: Receive, on_event: Callable[[Event], bool]) -> float:
    """Wait and return the seconds really waited, never fewer than asked for.

    Meanwhile events are received and handed to `on_event`, until it answers False (it can hold no more). The
    wait itself is a deadline on `receive`, so a waiting session costs one timer and no further task. Whatever
    `on_event` raises ends the wait.
    """
    started_at = monotonic()
    receiving = True
    while (remaining_s := started_at + seconds - monotonic()) > 0:
        try:
            async with asyncio.timeout(remaining_s + _ROUND_UP):
                while receiving:
                    receiving = on_event(await receive())
                await asyncio.sleep(remaining_s + 1)
        except TimeoutError:
            continue
    return monotonic() - started_at


MAX_MESSAGE = 1 << 20
# Messages kept while a step waits; a client that is further ahead is read again after the step.
MAX_AHEAD = 16

NORMAL, GOING_AWAY, POLICY, TOO_BIG = 1000, 1001, 1008, 1009
# How long a client may take to answer a close frame before its connection is dropped.
CLOSE_TIMEOUT_S = 5.0

Send = Callable[[Event], Awaitable[None]]


class UnreadableError(Exception):
    """A frame no session can go on after: its text, and the code of the close that follows."""

    def __init__(self, message: str, close_code: int = NORMAL) -> None:
        super().__init__(message)
        self.close_code = close_code


class Socket:
    """One accepted WebSocket. Reading from or writing to a client that left raises ClientGoneError."""

    __slots__ = ("_receive", "_received_ahead", "_send", "began_at", "expired", "heard_at")

    def __init__(self, receive: Receive, send: Send) -> None:
        self.began_at = self.heard_at = monotonic()
        self.expired = ""
        self._receive = receive
        self._send = send
        self._received_ahead: deque[Event] = deque()

    async def accept(self) -> None:
        """Answer the handshake."""
        await self._receive()
        await self._emit({"type": "websocket.accept"})

    async def read(self) -> str:
        """The next message. Raises UnreadableError for a binary frame and for one that is too long."""
        event = self._received_ahead.popleft() if self._received_ahead else await self._receive()
        self.heard_at = monotonic()
        if event["type"] == "websocket.disconnect":
            raise ClientGoneError
        text = event.get("text")
        if text is None:
            # The words of an OpenEnv server, which looks for the key 'text'.
            raise UnreadableError("'text'")
        if len(text) > MAX_MESSAGE:
            raise UnreadableError(f"message of {len(text)} characters exceeds {MAX_MESSAGE}", TOO_BIG)
        return text

    async def write(self, text: str) -> None:
        """Send one message."""
        await self._emit({"type": "websocket.send", "text": text})

    async def wait(self, seconds: float) -> float:
        """Wait that long, keeping what arrives; the seconds really waited."""
        # Until the step is over its session is not idle.
        self.heard_at += seconds
        return await wait_while_receiving(seconds, self._receive, self._queue_event)

    async def close(self, last_message: str | None = None, code: int = NORMAL) -> None:
        """Send a last message if there is one, close, and let the client finish reading it.

        Closing a connection with unread data resets it, and a client that is still sending would lose the
        last message, the only place that says why: what it sends is read and dropped until it closes too.
        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if last_message is not None:
                    await self.write(last_message)
                await self._emit({"type": "websocket.close", "code": code})
                while (await self._receive())["type"] != "websocket.disconnect":
                    pass
        except (ClientGoneError, TimeoutError, RuntimeError):
            # RuntimeError: the ASGI server closed the socket itself (a protocol error, its own shutdown).
            pass

    def _queue_event(self, event: Event) -> bool:
        if event["type"] == "websocket.disconnect":
            raise ClientGoneError
        self._received_ahead.append(event)
        return len(self._received_ahead) < MAX_AHEAD

    async def _emit(self, event: Event) -> None:
        try:
            await self._send(event)
        except OSError as error:
            raise ClientGoneError from error
