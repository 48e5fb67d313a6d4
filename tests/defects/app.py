"""`defects.app:app`: the server for any ASGI server; DEFECT and MAX_CONCURRENT_ENVS are read from the environment."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from .http import http_routes
from .planted import DEFECTS

SESSIONS = 32
"""How many sessions fit in a process where MAX_CONCURRENT_ENVS says nothing."""


def create_app(defect: str = "none", limit: int = SESSIONS) -> Starlette:
    """Return the server with this defect for so many sessions; raises ValueError for one it does not have."""
    if defect not in DEFECTS:
        raise ValueError(f"DEFECT={defect!r}: expected one of {', '.join(DEFECTS)}")
    server = DEFECTS[defect](limit)
    return Starlette(routes=[WebSocketRoute("/ws", server.serve), *http_routes(server)])


app = create_app(os.environ.get("DEFECT") or "none", int(os.environ.get("MAX_CONCURRENT_ENVS") or SESSIONS))
