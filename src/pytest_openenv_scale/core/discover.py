"""What a server says its actions look like: the action schema of `GET /schema`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, cast
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from .http import http_url

_TIMEOUT_S = 10.0
_MAX_BYTES = 4 * 1024 * 1024


class _NoRedirect(HTTPRedirectHandler):
    """Headers meant for one server are not carried to another."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow none: the sessions will not either."""


def action_schema(url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the JSON schema of the actions of the server at a base URL; None where it publishes none."""
    # As the sessions: straight to the server, whatever proxy the environment names.
    opener = build_opener(ProxyHandler({}), _NoRedirect)
    request = Request(f"{http_url(url)}/schema", headers=dict(headers))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            body = json.loads(answer.read(_MAX_BYTES))
    except (URLError, HTTPException, OSError, ValueError, RecursionError):
        return None
    action = cast("dict[str, Any]", body).get("action") if isinstance(body, dict) else None
    return cast("Mapping[str, Any]", action) if isinstance(action, dict) else None
