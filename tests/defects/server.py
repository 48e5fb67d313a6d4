"""The server: one session per WebSocket, with a method for everything a defect can spoil."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .environment import Action, Environment, InvalidError, parse_action, problem

DROPPED = (1005, 1006)
"""What servers call the end of a connection that ended without a close frame (uvicorn 1005, hypercorn 1006)."""

NOT_SUPPORTED = {"code": -32603, "message": "Environment does not support MCP", "data": None}


class Inbox:
    """What a client sends, in order, also after somebody looked whether the client is still there."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._early: deque[Any] = deque()

    async def next(self) -> Any:
        """The next event; raises WebSocketDisconnect at the end."""
        event = self._early.popleft() if self._early else await self._socket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1006))
        return event

    async def until_gone(self) -> None:
        """Return once the client has left; what it says till then is kept."""
        while not self._early or self._early[-1]["type"] != "websocket.disconnect":
            self._early.append(await self._socket.receive())


@dataclass
class Session:
    """One session; `slot` is its place among those that fit, None for a request over HTTP."""

    environment: Environment
    slot: int | None = None
    opened_s: float = field(default_factory=time.monotonic)


class Server:
    """A sound server for at most `limit` sessions; each defect is a subclass that gets one thing wrong."""

    environment: type[Environment] = Environment

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.slots: set[int] = set()
        self.freed = asyncio.Event()

    # A connection from beginning to end

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept()
        inbox = Inbox(socket)
        try:
            slot = await self.admit(inbox)
            if slot is None:
                await self.refuse(socket)
            else:
                await self._hold(slot, socket, inbox)
        except WebSocketDisconnect:
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.close()

    async def _hold(self, slot: int, socket: WebSocket, inbox: Inbox) -> None:
        session = Session(self.open(), slot)
        dropped = False
        try:
            await self.converse(session, socket, inbox)
        except WebSocketDisconnect as end:
            dropped = end.code in DROPPED
            raise
        except (NotAMessageError, RecursionError) as error:
            await self.say(socket, self.error("SESSION_ERROR", str(error)))
        finally:
            self.closed(session)
            self.release(slot, dropped=dropped)

    async def converse(self, session: Session, socket: WebSocket, inbox: Inbox) -> None:
        """Answer until the client says close; raises NotAMessageError and WebSocketDisconnect."""
        while True:
            event = await inbox.next()
            if event.get("text") is None:
                raise NotAMessageError("'text'")
            try:
                message = json.loads(event["text"])
            except ValueError as error:
                await self.bad_json(error, socket)
                continue
            if not isinstance(message, dict):
                raise NotAMessageError(f"'{type(message).__name__}' object has no attribute 'get'")
            try:
                reply = await self.answer(session, message, inbox)
            except InvalidError as error:
                reply = self.error("VALIDATION_ERROR", "Invalid message", errors=error.problems)
            except WebSocketDisconnect:
                raise
            except Exception as error:
                reply = self.error("EXECUTION_ERROR", str(error))
            if reply is None:
                return
            await self.say(socket, reply)

    async def answer(self, session: Session, message: dict[str, Any], inbox: Inbox) -> dict[str, Any] | None:
        """The reply to one message, None for the last one."""
        kind = message.get("type", "")
        if kind == "reset":
            return {"type": "observation", "data": self.reset(session, data_of(message, required=False))}
        if kind == "step":
            action = parse_action(data_of(message, required=True))
            return {"type": "observation", "data": await self.step(session, action)}
        if kind == "state":
            refuse_extra(message, {"type"})
            return self.state(session)
        if kind == "close":
            refuse_extra(message, {"type"})
            return None
        if kind == "mcp":
            request = data_of(message, required=True)
            return {"type": "mcp", "data": {"jsonrpc": "2.0", "id": request.get("id"), "error": NOT_SUPPORTED}}
        return await self.unknown_type(kind, inbox)

    # Slots

    async def admit(self, inbox: Inbox) -> int | None:
        """Take a slot; None where all are taken."""
        return self.take_slot()

    def take_slot(self) -> int | None:
        free = next((slot for slot in range(self.limit) if slot not in self.slots), None)
        if free is not None:
            self.slots.add(free)
        return free

    def release(self, slot: int, *, dropped: bool) -> None:
        """Give a slot back; `dropped` where the client left without a close frame."""
        self.slots.remove(slot)
        self.freed.set()

    async def refuse(self, socket: WebSocket) -> None:
        active = len(self.slots)
        words = f"Server at capacity: {active}/{self.limit} sessions active. Cannot accept new connections."
        refusal = error_frame("CAPACITY_REACHED", words, active_sessions=active, max_sessions=self.limit)
        await self.say(socket, refusal)

    async def wait_for_slot(self, inbox: Inbox) -> int | None:
        """Take a slot as soon as there is one; None where the client leaves before."""
        disconnected = asyncio.ensure_future(inbox.until_gone())
        try:
            while (slot := self.take_slot()) is None and not disconnected.done():
                self.freed.clear()
                freed = asyncio.ensure_future(self.freed.wait())
                await asyncio.wait({disconnected, freed}, return_when=asyncio.FIRST_COMPLETED)
                freed.cancel()
            return slot
        finally:
            disconnected.cancel()

    # A session

    def open(self) -> Environment:
        return self.environment()

    def closed(self, session: Session) -> None:
        """A session is over."""

    def reset(self, session: Session, data: dict[str, Any]) -> dict[str, Any]:
        return session.environment.reset(data.get("seed"), data.get("episode_id"))

    async def step(self, session: Session, action: Action) -> dict[str, Any]:
        session.environment.begin_step(action)
        await self.wait(action.wait_seconds)
        return session.environment.end_step()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def state(self, session: Session) -> dict[str, Any]:
        return {"type": "state", "data": session.environment.state()}

    # What is wrong

    async def bad_json(self, error: ValueError, socket: WebSocket) -> None:
        await self.say(socket, self.error("INVALID_JSON", f"Invalid JSON: {error}"))

    async def unknown_type(self, kind: object, inbox: Inbox) -> dict[str, Any]:
        return self.error("UNKNOWN_TYPE", f"Unknown message type: {kind}")

    def error(self, code: str, message: str, **details: Any) -> dict[str, Any]:
        return error_frame(code, message, **details)

    async def say(self, socket: WebSocket, message: dict[str, Any]) -> None:
        """Send a message; raises WebSocketDisconnect where the client has left."""
        try:
            await socket.send_text(json.dumps(message))
        except RuntimeError:
            # The server's word for a client that has said goodbye meanwhile.
            raise WebSocketDisconnect(1000) from None


class NotAMessageError(Exception):
    """A frame after which a session cannot go on."""


def error_frame(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"message": message, "code": code, **details}}


def data_of(message: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """The data of a message; raises InvalidError where it is missing, no object, or has company."""
    refuse_extra(message, {"type", "data"})
    if "data" not in message:
        if required:
            raise InvalidError([problem("missing", "data", "Field required", message)])
        return {}
    if not isinstance(message["data"], dict):
        raise InvalidError([problem("dict_type", "data", "Input should be a valid dictionary", message["data"])])
    return message["data"]


def refuse_extra(message: dict[str, Any], allowed: set[str]) -> None:
    """Raises InvalidError for every field that is not allowed."""
    problems = [
        problem("extra_forbidden", field, "Extra inputs are not permitted", value)
        for field, value in message.items()
        if field not in allowed
    ]
    if problems:
        raise InvalidError(problems)
