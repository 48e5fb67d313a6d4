"""What the server says of itself and takes from clients: JSON schemas, and checks with pydantic's error objects."""

from __future__ import annotations

import html
import json
import math
from typing import Any, cast

ENVIRONMENT_NAME = "benchmark"

METADATA: Json = {
    "name": "BenchmarkEnvironment",
    "description": "Waits as long as each step asks and says which process answered, to measure servers.",
    "readme_content": None,
    "version": "1.0.0",
    "author": None,
    "documentation_url": None,
}
MAX_WAIT_SECONDS = 3600
ACTION_SCHEMA: Json = {
    "additionalProperties": False,
    "description": "Wait for a duration.",
    "properties": {
        "metadata": {
            "additionalProperties": True,
            "description": "Additional metadata for the action",
            "title": "Metadata",
            "type": "object",
        },
        "wait_seconds": {
            "default": 0.0,
            "description": "How long the step takes, in seconds",
            "maximum": MAX_WAIT_SECONDS,
            "minimum": 0,
            "title": "Wait Seconds",
            "type": "number",
        },
    },
    "title": "BenchmarkAction",
    "type": "object",
}

OBSERVATION_SCHEMA: Json = {
    "additionalProperties": False,
    "properties": {
        "done": {
            "default": False,
            "description": "Whether the episode has terminated",
            "title": "Done",
            "type": "boolean",
        },
        "reward": {
            "anyOf": [{"type": "boolean"}, {"type": "integer"}, {"type": "number"}, {"type": "null"}],
            "default": None,
            "description": "Reward signal from the last action",
            "title": "Reward",
        },
        "metadata": {
            "additionalProperties": True,
            "description": "Additional metadata for the observation",
            "title": "Metadata",
            "type": "object",
        },
        "waited_seconds": {
            "default": 0.0,
            "description": "How long the step took by the server's own clock, in seconds",
            "title": "Waited Seconds",
            "type": "number",
        },
        "pid": {
            "default": 0,
            "description": "The worker process that holds the session",
            "title": "Pid",
            "type": "integer",
        },
        "session_hash": {
            "default": "",
            "description": "Random per session",
            "title": "Session Hash",
            "type": "string",
        },
        "host_url": {
            "default": "",
            "description": "host:port of the server",
            "title": "Host Url",
            "type": "string",
        },
        "step_count": {
            "default": 0,
            "description": "Steps taken in this episode",
            "title": "Step Count",
            "type": "integer",
        },
    },
    "title": "BenchmarkObservation",
    "type": "object",
}

STATE_SCHEMA: Json = {
    "additionalProperties": True,
    "properties": {
        "episode_id": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
            "description": "Unique identifier for the current episode",
            "title": "Episode Id",
        },
        "step_count": {
            "default": 0,
            "description": "Number of steps taken in the current episode",
            "minimum": 0,
            "title": "Step Count",
            "type": "integer",
        },
    },
    "title": "State",
    "type": "object",
}

SCHEMAS: Json = {
    "action": ACTION_SCHEMA,
    "observation": OBSERVATION_SCHEMA,
    "state": STATE_SCHEMA,
    "reset_observation": OBSERVATION_SCHEMA,
}
MAX_TEXT_FIELD = 255
_RESET_BODY: Json = {
    "additionalProperties": True,
    "properties": {
        "seed": {"anyOf": [{"minimum": 0, "type": "integer"}, {"type": "null"}], "default": None},
        "episode_id": {
            "anyOf": [{"maxLength": MAX_TEXT_FIELD, "type": "string"}, {"type": "null"}],
            "default": None,
        },
    },
    "title": "ResetRequest",
    "type": "object",
}
_STEP_BODY: Json = {
    "additionalProperties": True,
    "properties": {"action": ACTION_SCHEMA},
    "required": ["action"],
    "title": "StepRequest",
    "type": "object",
}
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


Json = dict[str, Any]
Problem = dict[str, Any]

_ERROR_DOCS_URL = "https://errors.pydantic.dev/2.14/v/"


def problem(kind: str, field: str, msg: str, value: object, ctx: Json | None = None) -> Problem:
    """One validation error at a field."""
    error: Problem = {"type": kind, "loc": [field], "msg": msg, "input": value}
    if ctx is not None:
        error["ctx"] = ctx
    error["url"] = _ERROR_DOCS_URL + kind
    return error


def message_problems(message: Json, *, data: str) -> list[Problem]:
    """What is wrong with a WebSocket message's envelope; `data` is 'required', 'optional' or 'forbidden'."""
    problems: list[Problem] = []
    if data != "forbidden":
        if "data" in message:
            problems += _dict_problems(message, "data")
        elif data == "required":
            problems.append(problem("missing", "data", "Field required", message))
    allowed = {"type"} if data == "forbidden" else {"type", "data"}
    return problems + extra_problems(message, allowed)


def extra_problems(fields: Json, allowed: set[str]) -> list[Problem]:
    """One problem per field that is not allowed."""
    return [
        problem("extra_forbidden", field, "Extra inputs are not permitted", value)
        for field, value in fields.items()
        if field not in allowed
    ]


def parse_wait(action: Json) -> tuple[float, list[Problem]]:
    """The wait of an action in seconds (0 where absent) and everything that is wrong with the action."""
    problems: list[Problem] = []
    if "metadata" in action:
        problems += _dict_problems(action, "metadata")
    value = action.get("wait_seconds", 0.0)
    wait, wait_problem = _as_float(value)
    if wait_problem is None and not wait <= MAX_WAIT_SECONDS:
        msg = f"Input should be less than or equal to {MAX_WAIT_SECONDS}"
        wait_problem = problem("less_than_equal", "wait_seconds", msg, value, {"le": float(MAX_WAIT_SECONDS)})
    elif wait_problem is None and wait < 0:
        msg = "Input should be greater than or equal to 0"
        wait_problem = problem("greater_than_equal", "wait_seconds", msg, value, {"ge": 0.0})
    if wait_problem is not None:
        problems.append(wait_problem)
    return wait, problems + extra_problems(action, {"metadata", "wait_seconds"})


def reset_problems(body: Json) -> list[Problem]:
    """What is wrong with an HTTP reset: seed and episode_id are checked, anything else is welcome."""
    problems: list[Problem] = []
    seed = body.get("seed")
    if seed is not None:
        seed_problem = _seed_problem(seed)
        problems += [seed_problem] if seed_problem else []
    episode_id = body.get("episode_id")
    if episode_id is not None and not isinstance(episode_id, str):
        problems.append(problem("string_type", "episode_id", "Input should be a valid string", episode_id))
    elif episode_id is not None and len(episode_id) > MAX_TEXT_FIELD:
        msg = f"String should have at most {MAX_TEXT_FIELD} characters"
        problems.append(problem("string_too_long", "episode_id", msg, episode_id, {"max_length": MAX_TEXT_FIELD}))
    return problems


def in_body(problems: list[Problem]) -> list[Problem]:
    """The same problems as an HTTP body's: located under `body`, without the explanation's address."""
    return [
        {**{key: value for key, value in error.items() if key != "url"}, "loc": ["body", *error["loc"]]}
        for error in problems
    ]


def encode(value: object) -> str:
    """Compact JSON. NaN and infinity, which a client can smuggle into an echoed input, become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast(Json, value).items()}
    if isinstance(value, list):
        return [_finite(item) for item in cast(list[Any], value)]
    return value


def _dict_problems(message: Json, field: str) -> list[Problem]:
    value = message[field]
    if isinstance(value, dict):
        return []
    return [problem("dict_type", field, "Input should be a valid dictionary", value)]


def _as_float(value: object) -> tuple[float, Problem | None]:
    msg = "Input should be a valid number"
    if isinstance(value, str):
        try:
            return float(value), None
        except ValueError:
            msg += ", unable to parse string as a number"
            return 0.0, problem("float_parsing", "wait_seconds", msg, value)
    if isinstance(value, (int, float)):
        try:
            return float(value), None
        except OverflowError:
            pass
    return 0.0, problem("float_type", "wait_seconds", msg, value)


def _seed_problem(seed: object) -> Problem | None:
    msg = "Input should be a valid integer"
    if isinstance(seed, str):
        try:
            number = int(seed)
        except ValueError:
            return problem("int_parsing", "seed", f"{msg}, unable to parse string as an integer", seed)
    elif isinstance(seed, int):
        number = seed
    elif not isinstance(seed, float):
        return problem("int_type", "seed", msg, seed)
    elif not math.isfinite(seed):
        return problem("finite_number", "seed", "Input should be a finite number", seed)
    elif seed.is_integer():
        number = int(seed)
    else:
        return problem("int_from_float", "seed", f"{msg}, got a number with a fractional part", seed)
    if number >= 0:
        return None
    return problem("greater_than_equal", "seed", "Input should be greater than or equal to 0", seed, {"ge": 0})
