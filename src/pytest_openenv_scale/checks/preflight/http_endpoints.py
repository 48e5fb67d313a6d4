"""What a server answers over HTTP beside its sessions: the endpoints `openenv validate` asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.client.http_request import HTTP_ERRORS, http_request, http_url
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.text import loads
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

_TIMEOUT_S = 5.0
_MAX_BYTES = 4 * 1024 * 1024
_EPISODE_PATHS = ("/reset", "/step", "/state")
_EPISODES = "/reset, /step and /state"

Fields = dict[str, Any]


def _holds(kind: type, *names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), kind) for name in names)


def _object(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    return cast("Fields", value) if isinstance(value, dict) else {}


_EXPECTED: Mapping[str, tuple[str, Callable[[Fields], bool]]] = {
    "/openapi.json": ("an info.version", lambda fields: _holds(str, "version")(_object(fields, "info"))),
    "/health": ('the status "healthy"', lambda fields: fields.get("status") == "healthy"),
    "/metadata": ("a name and a description", _holds(str, "name", "description")),
    "/schema": ("the schemas of action, observation and state", _holds(dict, "action", "observation", "state")),
    "/mcp": ("JSON-RPC 2.0", lambda fields: fields.get("jsonrpc") == "2.0"),
}
"""What the JSON object that each endpoint answers holds, in words and as a test."""


async def http_endpoints(subject: Subject) -> CheckResult:
    """Check what OpenEnv's own server answers over HTTP, on the first URL, with the headers of sessions.

    Of several URLs all have to have the `/schema` of the first: actions are made of it.
    """
    timeout_s = min(_TIMEOUT_S, subject.time_left_s)
    first, *others = subject.endpoint.urls
    asked = [*((first, path) for path in _EXPECTED), *((url, "/schema") for url in others)]
    answers = await asyncio.gather(
        *(asyncio.to_thread(_ask, subject.endpoint, url, path, timeout_s) for url, path in asked)
    )
    problems = {
        path: problem
        for path, answer in zip(_EXPECTED, answers, strict=False)
        if (problem := _problem(path, answer)) is not None
    }
    schema = answers[list(_EXPECTED).index("/schema")]
    for url, other in zip(others, answers[len(_EXPECTED) :], strict=True):
        if other != schema:
            problems[f"/schema of {url}"] = other if isinstance(other, str) else f"not that of {first}"
    if "/openapi.json" in problems:
        problems[_EPISODES] = "no list of paths to find them in"
    elif problem := _episode_paths_problem(_object(cast("Fields", answers[0]), "paths")):
        problems[_EPISODES] = problem
    count = len(asked) + 1
    figures = {"criteria": count, "criteria_passed": count - len(problems)}
    if not problems:
        headline = f"over HTTP {', '.join(_EXPECTED)} answer as OpenEnv's own server does"
        return CheckResult(CheckOutcome.MET, headline, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"over HTTP not all is answered as OpenEnv's own server does: {', '.join(problems)}",
        "create_app(...) of openenv serves all of them; sessions do not need them",
        tuple(f"{path}: {problem}" for path, problem in problems.items()),
        figures,
    )


def _ask(endpoint: Endpoint, url: str, path: str, timeout_s: float) -> Fields | str:
    """Return the JSON object an endpoint answers, or what came instead."""
    body = b"{}" if path == "/mcp" else None
    try:
        with http_request(
            http_url(url) + path,
            {"Content-Type": "application/json", **endpoint.headers},
            timeout_s,
            "GET" if body is None else "POST",
            body,
            network=endpoint.network,
        ) as answer:
            status, text = answer.status, answer.read(_MAX_BYTES)
    except TimeoutError:
        return f"no answer within {timeout_s:.3g} s"
    except HTTP_ERRORS as error:
        return f"no answer ({type(error).__name__})"
    if status != 200:
        return f"HTTP {status}"
    try:
        fields = loads(text)
    except (ValueError, RecursionError):
        fields = None
    return cast("Fields", fields) if isinstance(fields, dict) else "no JSON object"


def _problem(path: str, answer: Fields | str) -> str | None:
    expected, holds = _EXPECTED[path]
    if isinstance(answer, str):
        return answer
    return None if holds(answer) else f"an object without {expected}"


def _episode_paths_problem(paths: Fields) -> str | None:
    """Return what is wrong with the paths the server lists: those of an episode are all among them, or none is."""
    listed = [path for path in _EPISODE_PATHS if path in paths]
    if not paths:
        return "/openapi.json lists no paths"
    return None if len(listed) in (0, len(_EPISODE_PATHS)) else f"/openapi.json lists only {' and '.join(listed)}"
