"""Defects of what a server answers when a message is wrong."""

from __future__ import annotations

import os
from typing import Any

from starlette.websockets import WebSocket

from .server import Inbox, Server, Session, error_frame


class SilentHang(Server):
    """A `match` whose last branch waits for a reply nobody makes: the session never answers again."""

    async def unknown_type(self, kind: object, inbox: Inbox) -> dict[str, Any]:
        while True:
            await inbox.next()


class CrashOnBadJson(Server):
    """A native parser that aborts: the process is gone, and every session with it."""

    async def bad_json(self, error: ValueError, socket: WebSocket) -> None:
        os._exit(1)


class CrashSessionOnBadJson(Server):
    """`json.loads` outside the `try`: the connection ends without a word of why."""

    async def bad_json(self, error: ValueError, socket: WebSocket) -> None:
        raise error


class WrongCode(Server):
    """Error codes of one's own; only the refusal of a full server is OpenEnv's."""

    def error(self, code: str, message: str, **details: Any) -> dict[str, Any]:
        return error_frame("BAD_REQUEST", message, **details)


class NoState(Server):
    """No defect: a server without `state`, which it does not know as a type of message."""

    def state(self, session: Session) -> dict[str, Any]:
        return self.error("UNKNOWN_TYPE", "Unknown message type: state")
