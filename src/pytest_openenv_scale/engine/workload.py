"""What sessions send to a server that is there: as a person wrote it, else as the server describes its actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_openenv_scale.client.http_request import action_schema, listed_tools
from pytest_openenv_scale.config.tool_action import Tool, may_call_tools, read_tools, tool_action
from pytest_openenv_scale.config.workload import (
    ActionSource,
    Workload,
    WorkloadError,
    make_workload,
    without_action,
)
from pytest_openenv_scale.core.endpoint import Endpoint


def find_workload(
    endpoint: Endpoint, action: ActionSource | None, reset: Mapping[str, Any] | ActionSource | None
) -> Workload:
    """Return what sessions of a server send.

    Where its action is a tool call (MCP), one of its tools is called; an action that names a tool and nothing else is
    completed by the arguments that this tool asks for.

    Raises:
        WorkloadError: no action can be made, or the tool that is named is not there.
    """
    if action is not None:
        if (name := action.tool_name) is None:
            return make_workload(None, action, reset)
        return _calling(_tools(endpoint), reset, name)
    schema = action_schema(endpoint.urls[0], endpoint.headers, endpoint.network)
    if may_call_tools(schema) and (tools := _tools(endpoint)):
        return _calling(tools, reset)
    return make_workload(schema, None, reset)


def workload_of_checks(
    endpoint: Endpoint, action: ActionSource | None, reset: Mapping[str, Any] | ActionSource | None
) -> Workload:
    """Return what sessions of a server send, or a workload without actions where none can be made of its schema.

    Raises:
        WorkloadError: the action that was written cannot be used.
    """
    try:
        return find_workload(endpoint, action, reset)
    except WorkloadError as problem:
        if action is not None:
            raise
        return without_action(reset, problem)


def _tools(endpoint: Endpoint) -> tuple[Tool, ...]:
    return read_tools(listed_tools(endpoint.urls[0], endpoint.headers, endpoint.network))


def _calling(
    tools: tuple[Tool, ...], reset: Mapping[str, Any] | ActionSource | None, name: str | None = None
) -> Workload:
    # Slow to import, and needed only where an action is made.
    from pytest_openenv_scale.config.action_schema.make import make_action

    try:
        action, source = tool_action(tools, lambda schema: make_action(schema).action, name)
    except ValueError as error:
        raise WorkloadError(f"action: {error}") from None
    return Workload((action,), None, reset or {}, False, source)
