"""What the server says about itself: metadata, JSON schemas, the OpenAPI document and a page to read."""

from __future__ import annotations

import html

from .validation import MAX_TEXT_FIELD, MAX_WAIT_SECONDS, Json

ENVIRONMENT_NAME = "benchmark"

METADATA: Json = {
    "name": "BenchmarkEnvironment",
    "description": "Waits as long as each step asks and says which process answered, to measure servers.",
    "readme_content": None,
    "version": "1.0.0",
    "author": None,
    "documentation_url": None,
}

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
    described: Json = {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reply}}}},
    }
    if method == "post":
        described["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return described
