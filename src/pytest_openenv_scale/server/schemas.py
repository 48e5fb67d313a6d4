"""The server's JSON schemas and metadata, and what is wrong with a message it received."""

from __future__ import annotations

import html
import json
import math
from typing import Any, cast

Json = dict[str, Any]
Problem = dict[str, Any]

ENVIRONMENT_NAME = "benchmark"
MAX_WAIT_SECONDS = 3600
MAX_TEXT_FIELD = 255

METADATA: Json = {
    "name": "BenchmarkEnvironment",
    "description": "Waits as long as each step asks and says which process answered, to measure servers.",
    "readme_content": None,
    "version": "1.0.0",
    "author": None,
    "documentation_url": None,
}


def _object_schema(title: str, *, others: bool, **properties: Json) -> Json:
    """Return the schema of an object with these properties, titled by their names; `others` may be there as well."""
    titled = {name: {"title": name.replace("_", " ").title(), **schema} for name, schema in properties.items()}
    return {"title": title, "type": "object", "properties": titled, "additionalProperties": others}


def _field_schema(kind: str | list[str], description: str, **more: object) -> Json:
    return {"type": kind, "description": description, **more}


_METADATA_FIELD = _field_schema("object", "Additional metadata", additionalProperties=True)
ACTION_SCHEMA = _object_schema(
    "BenchmarkAction",
    others=False,
    metadata=_METADATA_FIELD,
    wait_seconds=_field_schema(
        "number", "How long the step takes, in seconds", default=0.0, minimum=0, maximum=MAX_WAIT_SECONDS
    ),
)
OBSERVATION_SCHEMA = _object_schema(
    "BenchmarkObservation",
    others=False,
    done=_field_schema("boolean", "Whether the episode has terminated", default=False),
    reward=_field_schema(["boolean", "integer", "number", "null"], "Reward of the last action", default=None),
    metadata=_METADATA_FIELD,
    waited_seconds=_field_schema("number", "How long the step took by the server's own clock, in seconds", default=0.0),
    pid=_field_schema("integer", "The worker process that holds the session", default=0),
    session_hash=_field_schema("string", "Random per session", default=""),
    host_url=_field_schema("string", "host:port of the server", default=""),
    step_count=_field_schema("integer", "Steps taken in this episode", default=0),
)
STATE_SCHEMA = _object_schema(
    "State",
    others=True,
    episode_id=_field_schema(["string", "null"], "Unique identifier of the current episode", default=None),
    step_count=_field_schema("integer", "Steps taken in the current episode", default=0, minimum=0),
)
SCHEMAS: Json = {
    "action": ACTION_SCHEMA,
    "observation": OBSERVATION_SCHEMA,
    "state": STATE_SCHEMA,
    "reset_observation": OBSERVATION_SCHEMA,
}
_RESET_BODY = _object_schema(
    "ResetRequest",
    others=True,
    seed=_field_schema(["integer", "null"], "Seed of the episode", default=None, minimum=0),
    episode_id=_field_schema(["string", "null"], "Name of the episode", default=None, maxLength=MAX_TEXT_FIELD),
)
_STEP_BODY = {**_object_schema("StepRequest", others=True, action=ACTION_SCHEMA), "required": ["action"]}
_RPC_BODY: Json = {"title": "JsonRpcRequest", "type": "object"}

# path: (method, summary, body schema, response schema)
_OPERATIONS: dict[str, tuple[str, str, Json | None, Json]] = {
    "/reset": ("post", "Reset a fresh environment", _RESET_BODY, OBSERVATION_SCHEMA),
    "/step": ("post", "Take one step in a fresh environment", _STEP_BODY, OBSERVATION_SCHEMA),
    "/state": ("get", "State of a fresh environment", None, STATE_SCHEMA),
    "/health": ("get", "Whether the server answers", None, {"type": "object"}),
    "/metadata": ("get", "What this environment is", None, {"type": "object"}),
    "/schema": ("get", "JSON schemas of action, observation and state", None, {"type": "object"}),
    "/list_environments": ("get", "Names of the environments served", None, {"type": "array"}),
    "/mcp": ("post", "JSON-RPC 2.0; this environment has no tools", _RPC_BODY, {"type": "object"}),
}


def openapi() -> Json:
    """The OpenAPI 3.1 document of the HTTP endpoints."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": METADATA["name"],
            "description": METADATA["description"],
            "version": METADATA["version"],
        },
        "paths": {path: {operation[0]: _operation(*operation)} for path, operation in _OPERATIONS.items()},
    }


def docs_page() -> str:
    """The endpoints as one HTML page that loads nothing from anywhere."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{path}</code></td><td>{html.escape(summary)}</td></tr>"
        for path, (method, summary, _, _) in _OPERATIONS.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{METADATA["name"]}</title>'
        "<style>body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:48rem}"
        "td{padding:.2rem .8rem}</style>"
        f"<h1>{METADATA['name']}</h1><p>{html.escape(str(METADATA['description']))}</p>"
        "<p>Sessions live on the WebSocket <code>/ws</code>: send <code>reset</code>, <code>step</code>, "
        "<code>state</code>, <code>close</code>.</p>"
        f'<table>{rows}</table><p><a href="openapi.json">openapi.json</a></p></html>'
    )


def _operation(method: str, summary: str, body: Json | None, reply: Json) -> Json:
    operation: Json = {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reply}}}},
    }
    if method == "post":
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return operation


def problem(kind: str, msg: str, value: object, *loc: str | int) -> Problem:
    """One validation error, of a pydantic kind: what is wrong with the value at `loc`."""
    return {"type": kind, "loc": list(loc), "msg": msg, "input": value}


def message_problems(message: Json, *, data: str) -> list[Problem]:
    """What is wrong with a WebSocket message's envelope; `data` is 'required', 'optional' or 'forbidden'."""
    if data == "forbidden":
        return extra_problems(message, {"type"})
    problems = _dict_problems(message, "data")
    if data == "required" and "data" not in message:
        problems = [problem("missing", "Field required", message, "data")]
    return problems + extra_problems(message, {"type", "data"})


def extra_problems(fields: Json, allowed: set[str]) -> list[Problem]:
    """One problem per field that is not allowed."""
    return [
        problem("extra_forbidden", "Extra inputs are not permitted", value, field)
        for field, value in fields.items()
        if field not in allowed
    ]


def parse_wait(action: Json) -> tuple[float, list[Problem]]:
    """The wait of an action in seconds (0 where absent) and everything that is wrong with the action."""
    problems: list[Problem] = _dict_problems(action, "metadata") if "metadata" in action else []
    value = action.get("wait_seconds", 0.0)
    try:
        wait = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        wait = math.nan
    if not 0 <= wait <= MAX_WAIT_SECONDS:
        msg = f"Value error, expected a number of seconds from 0 to {MAX_WAIT_SECONDS}"
        problems.append(problem("value_error", msg, value, "wait_seconds"))
    return wait, problems + extra_problems(action, {"metadata", "wait_seconds"})


def reset_problems(body: Json) -> list[Problem]:
    """What is wrong with an HTTP reset: seed and episode_id are checked, anything else is welcome."""
    problems: list[Problem] = []
    seed, episode_id = body.get("seed"), body.get("episode_id")
    if seed is not None and not _is_count(seed):
        msg = "Input should be a valid integer, unable to parse string as an integer"
        kind, msg = ("int_parsing", msg) if isinstance(seed, str) else ("value_error", "Value error, expected a count")
        problems.append(problem(kind, msg, seed, "body", "seed"))
    if episode_id is not None and not (isinstance(episode_id, str) and len(episode_id) <= MAX_TEXT_FIELD):
        msg = f"Value error, expected text of at most {MAX_TEXT_FIELD} characters"
        problems.append(problem("value_error", msg, episode_id, "body", "episode_id"))
    return problems


def encode(value: object) -> str:
    """Compact JSON. NaN and infinity, which a client can smuggle into an echoed input, become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return encode(json.loads(json.dumps(value), parse_constant=lambda name: None))


def _dict_problems(message: Json, field: str) -> list[Problem]:
    value = message.get(field, message)
    return [] if isinstance(value, dict) else [problem("dict_type", "Input should be a valid dictionary", value, field)]


def _is_count(value: object) -> bool:
    try:
        whole = int(cast("int | float | str", value))
    except (TypeError, ValueError, OverflowError):
        return False
    return whole >= 0 and (isinstance(value, str) or whole == value)
