"""Actions of environments whose action is a tool call (MCP): which of their tools is called, and with what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pytest_openenv_scale.core.parsing import short_repr, suggestion

LIST_TOOLS: Mapping[str, Any] = {"type": "list_tools"}
"""The action that lists the tools; every MCP environment of OpenEnv takes it."""

_CALL = "call_tool"
_UNSAFE = re.compile(
    "bash|buy|cancel|clear|close|commit|create|delete|deploy|destroy|done|drop|end|eval|exec|execute|exit|finish|insert"
    "|install|kill|pay|post|push|put|python|quit|remove|replace|reset|run|sell|send|set|shell|shutdown|stop|submit"
    "|terminate|transfer|trade|update|upload|write"
)
"""Words in the name of a tool that changes something, may take long, or ends the episode."""

_LOOKING = re.compile("describe|echo|get|help|info|inspect|list|look|observe|peek|ping|read|search|show|status|view")
"""Words in the name of a tool that only looks."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as MCP lists it; `annotations` are its hints (`readOnlyHint`, `destructiveHint`)."""

    name: str
    input_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def words(self) -> frozenset[str]:
        """The words of its name, in lower case."""
        return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", self.name))

    @property
    def safe(self) -> bool:
        """Whether calling it again and again harms nothing, by its hints, else by its name."""
        if self.annotations.get("readOnlyHint") is True:
            return True
        return self.annotations.get("destructiveHint") is not True and not any(map(_UNSAFE.fullmatch, self.words))

    @property
    def cost(self) -> tuple[int, int, str]:
        """What sorts the cheapest first: those that only look, then those that need the fewest arguments."""
        looks = self.annotations.get("readOnlyHint") is True or any(map(_LOOKING.fullmatch, self.words))
        required = self.input_schema.get("required")
        return (not looks, len(cast("list[object]", required)) if isinstance(required, list) else 0, self.name)


def read_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a listing; what is no tool is passed over."""
    listed = cast("list[object]", tools) if isinstance(tools, list) else []
    return tuple(tool for item in listed if (tool := _read_tool(item)) is not None)


def _read_tool(item: object) -> Tool | None:
    fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        return None
    schema, annotations = fields.get("inputSchema", fields.get("input_schema")), fields.get("annotations")
    return Tool(
        name,
        cast("dict[str, Any]", schema) if isinstance(schema, dict) else {},
        cast("dict[str, Any]", annotations) if isinstance(annotations, dict) else {},
    )


def may_call_tools(schema: Mapping[str, Any] | None) -> bool:
    """Return whether actions of this schema are tool calls, or the schema leaves open what they are."""
    if schema is None:
        return False
    properties = schema.get("properties")
    names = set(cast("dict[str, Any]", properties)) if isinstance(properties, dict) else set[str]()
    if {"tool_name", "arguments"} <= names:
        return True
    return not names - {"metadata"} and not any(key in schema for key in ("anyOf", "oneOf", "allOf", "$ref", "enum"))


def tool_action(
    tools: Sequence[Tool], make: Callable[[Mapping[str, Any]], Mapping[str, Any]], tool_name: str | None = None
) -> tuple[Mapping[str, Any], str]:
    """Return an action and where it comes from: the cheapest safe tool, or the one named, else the listing.

    `make` makes the smallest object that a JSON schema admits, and raises ValueError where it cannot.

    Raises:
        ValueError: the tool named is not there, or its arguments cannot be made; one line.
    """
    if tool_name is not None:
        tool = next((tool for tool in tools if tool.name == tool_name), None)
        if tool is None:
            names = [tool.name for tool in tools]
            raise ValueError(f"there is no tool {short_repr(tool_name)}{suggestion(tool_name, names)}")
        return _call(tool, make), f"tool {tool.name}"
    for tool in sorted((tool for tool in tools if tool.safe), key=lambda tool: tool.cost):
        try:
            return _call(tool, make), f"tool {tool.name}"
        except ValueError:
            continue
    return LIST_TOOLS, "a listing of the tools"


def _call(tool: Tool, make: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"type": _CALL, "tool_name": tool.name, "arguments": make({"type": "object", **tool.input_schema})}
