"""The WebSocket endpoints, raw ASGI both: `/ws` speaks OpenEnv sessions, `/mcp` bare JSON-RPC."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from typing import Any, cast
from urllib.parse import parse_qs

from . import mcp
from .environment import Environment
from .sessions import CapacityReachedError, Sessions
from .validation import Json, Problem, encode, message_problems, parse_wait
from .waiting import ClientGoneError, Event, Receive
from .websocket import GOING_AWAY, NORMAL, Send, Socket, UnreadableError

# What the parser raises: bad syntax, a number of more than 4,300 digits, too deep a nesting.
UNPARSABLE = (ValueError, RecursionError)


class _Endpoint(ABC):
    """A WebSocket from handshake to close: what every endpoint does around its conversation."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        socket = Socket(receive, send)
        last_words, code = None, NORMAL
        with self.sessions.tracked():
            try:
                await socket.accept()
                with self.sessions.seat(self.wanted_session(scope)) as environment:
                    await self.converse(socket, environment)
            except ClientGoneError:
                return
            except CapacityReachedError as full:
                last_words = self.refused(full)
            except UnreadableError as error:
                last_words, code = self.broken(str(error)), error.close_code
            except asyncio.CancelledError:
                if not self.sessions.closing:
                    raise
                cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
                code = GOING_AWAY
            except Exception as error:
                # Whatever a message provokes ends its own session, said as OpenEnv says it, and nothing else.
                last_words = self.broken(str(error))
        await socket.close(last_words, code)

    @abstractmethod
    def wanted_session(self, scope: Event) -> str | None:
        """The id of the existing session the client asks for."""

    @abstractmethod
    async def converse(self, socket: Socket, environment: Environment) -> None:
        """Answer messages until the session is to be closed."""

    @abstractmethod
    def refused(self, full: CapacityReachedError) -> str:
        """The last message of a session that does not fit."""

    @abstractmethod
    def broken(self, message: str) -> str:
        """The last message of a session that cannot go on."""


class SessionEndpoint(_Endpoint):
    """`/ws`: one environment per connection; reset, step, state, mcp, close."""

    def wanted_session(self, scope: Event) -> str | None:
        """`?session_id=` names a session created over HTTP."""
        query: bytes = scope["query_string"]
        return parse_qs(query.decode("latin-1")).get("session_id", [None])[0] if query else None

    async def converse(self, socket: Socket, environment: Environment) -> None:
        """One reply per message, in order, until `close`; JSON that is no object ends it too."""
        while True:
            text = await socket.read()
            try:
                message = json.loads(text)
            except UNPARSABLE as error:
                await socket.write(error_message("INVALID_JSON", f"Invalid JSON: {error}"))
                continue
            if not isinstance(message, dict):
                raise UnreadableError(f"'{type(message).__name__}' object has no attribute 'get'")
            reply = await self._answer(cast(Json, message), socket, environment)
            if reply is None:
                return
            await socket.write(reply)

    def refused(self, full: CapacityReachedError) -> str:
        """CAPACITY_REACHED, with the numbers."""
        return error_message("CAPACITY_REACHED", str(full), active_sessions=full.active, max_sessions=full.limit)

    def broken(self, message: str) -> str:
        """SESSION_ERROR."""
        return error_message("SESSION_ERROR", message)

    async def _answer(self, message: Json, socket: Socket, environment: Environment) -> str | None:
        kind = message.get("type", "")
        if kind == "step":
            problems = message_problems(message, data="required")
            if not problems:
                wait, problems = parse_wait(message["data"])
                if not problems:
                    waited = await socket.wait(wait) if wait else 0.0
                    return _observation_message(environment.stepped(waited))
        elif kind == "reset":
            problems = message_problems(message, data="optional")
            if not problems:
                data: Json = message.get("data", {})
                return _observation_message(environment.reset(data.get("episode_id")))
        elif kind == "state":
            problems = message_problems(message, data="forbidden")
            if not problems:
                return f'{{"type":"state","data":{environment.state()}}}'
        elif kind == "close":
            problems = message_problems(message, data="forbidden")
            if not problems:
                return None
        elif kind == "mcp":
            problems = message_problems(message, data="required")
            if not problems:
                reply = mcp.answer(message["data"], self.sessions, in_session=environment.session_id)
                return encode({"type": "mcp", "data": reply})
        else:
            return error_message("UNKNOWN_TYPE", f"Unknown message type: {kind}")
        return error_message("VALIDATION_ERROR", "Invalid message", errors=problems)


class McpEndpoint(_Endpoint):
    """`/mcp` as a WebSocket: JSON-RPC requests without an envelope, in a session of their own."""

    def wanted_session(self, scope: Event) -> str | None:
        """Always a new one."""
        return None

    async def converse(self, socket: Socket, environment: Environment) -> None:
        """One reply per request until the client leaves."""
        while True:
            text = await socket.read()
            try:
                request: Any = json.loads(text)
            except UNPARSABLE as error:
                reply = mcp.rpc_error(mcp.PARSE_ERROR, f"Parse error: {error}")
            else:
                reply = mcp.answer(request, self.sessions, in_session=environment.session_id)
            await socket.write(encode(reply))

    def refused(self, full: CapacityReachedError) -> str:
        """A server error with the numbers."""
        return encode(mcp.refusal(full))

    def broken(self, message: str) -> str:
        """An internal error."""
        return encode(mcp.rpc_error(mcp.INTERNAL_ERROR, message))


def error_message(code: str, message: str, **details: int | list[Problem]) -> str:
    """An OpenEnv error message as JSON."""
    return encode({"type": "error", "data": {"message": message, "code": code, **details}})


def _observation_message(observation: str) -> str:
    return f'{{"type":"observation","data":{observation}}}'
