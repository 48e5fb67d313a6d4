"""The application: `app` for any ASGI server, `create_app` for one with settings of its own."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from .http import EXCEPTION_HANDLERS, http_routes
from .sessions import Sessions
from .settings import SettingError, settings_from
from .ws import McpEndpoint, SessionEndpoint


def create_app(max_concurrent_envs: int | None = None, *, host_url: str | None = None) -> Starlette:
    """The benchmark environment, at most `max_concurrent_envs` sessions at once in this process.

    What is not given is read from the environment: MAX_CONCURRENT_ENVS (unset or 0: unlimited), HOST and PORT
    for the `host_url` that observations report. Raises SettingError for values nobody can serve with.
    `app.state.sessions` holds the sessions.
    """
    settings = settings_from(os.environ)
    limit = settings.max_envs if max_concurrent_envs is None else max_concurrent_envs or None
    if limit is not None and limit < 0:
        raise SettingError(f"max_concurrent_envs={limit}: expected a whole number (0 = unlimited)")
    sessions = Sessions(limit, host_url or settings.host_url)
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
