"""What older OpenEnv versions answered otherwise than the newest: a table, and whether it is the whole of it.

`python tests/wire_versions.py` compares the recordings (`tests/wire`) with the table, after one was made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from wire_cases import (
    NEWEST,
    VERSIONS,
    Conversation,
    Exchange,
    Settling,
    capacity,
    conversations,
    environments,
    every_conversation,
    exchanges,
)

# 1. Before 0.4.2 observations have no `metadata`, neither in them nor beside them.
WITHOUT_METADATA = VERSIONS[: VERSIONS.index("0.4.2")]
METADATA_CHARACTERS = len('"metadata": {}, ')

# 2. What was said back in these conversations, all of it.
NO_MCP = {"type": "error", "data": {"message": "Unknown message type: mcp", "code": "UNKNOWN_TYPE"}}
NO_TOOLS = {"code": -32603, "message": "Environment does not support MCP"}
NO_CREATE = {"code": -32601, "message": "Method not found: openenv/session/create"}
NO_METHOD = {"code": -32601, "message": "Method not found: "}
CLOSED = (1000, "")
A_PLAIN_RESET = "the answer to a plain reset, and no close"


def rpc(request_id: int | None, error: dict[str, Any]) -> dict[str, Any]:
    return {"type": "mcp", "data": {"jsonrpc": "2.0", "id": request_id, "error": error}}


HEARD: dict[str, dict[tuple[str, ...], Any]] = {
    "mcp_in_ws_tools_list": {("0.2.0",): (NO_MCP, CLOSED), ("0.2.1",): (rpc(1, NO_TOOLS), CLOSED)},
    "mcp_in_ws_bad": {("0.2.0",): (NO_MCP, CLOSED), ("0.2.1",): (rpc(None, NO_METHOD), CLOSED)},
    "mcp_in_ws_session_create": {("0.2.0",): (NO_MCP, CLOSED), ("0.2.1",): (rpc(1, NO_CREATE), CLOSED)},
    "mcp_socket": {("0.2.0", "0.2.1"): (403,)},
    "full_mcp": {("0.2.0", "0.2.1"): (403,)},
    # The query was not read.
    "ws_unknown_session_id": {("0.2.0", "0.2.1", "0.2.3", "0.3.0", "0.4.2"): A_PLAIN_RESET},
}

# 3. The status of these HTTP requests; with 404 and 405 comes `{"detail": …}`. None: it was not made.
STATUS: dict[str, dict[tuple[str, ...], int | None]] = {
    "GET /list_environments": {("0.2.0", "0.2.1", "0.2.3", "0.3.0"): 404},
    "GET /mcp": {("0.2.0", "0.2.1"): 404},
    "POST /mcp": {("0.2.0", "0.2.1"): 404},
    "POST /mcp openenv/session/close": {("0.2.0", "0.2.1"): None},
}
# 4. `/schema` describes the answer to a reset since later.
WITHOUT_RESET_SCHEMA = ("0.2.0", "0.2.1", "0.2.3", "0.3.0")

# 5. What was recorded with a few versions only.
RECORDED_WITH = {"factory_fails": ("0.2.0", "0.3.0"), "frame_of_17_megabytes": ("0.2.0", "0.3.0")}

OLDER = [(version, environment) for version in VERSIONS[:-1] for environment in environments(version)]


def listed(table: dict[str, dict[tuple[str, ...], Any]], name: str, version: str) -> list[Any]:
    """What the table says of this one in this version: nothing, or one value."""
    return [value for versions, value in table.get(name, {}).items() if version in versions]


def as_of(version: str, value: Any) -> Any:
    """What the newest version said, without what this one did not have yet."""
    if version not in WITHOUT_METADATA:
        return value
    if isinstance(value, list | tuple):
        return type(value)(as_of(version, item) for item in value)
    if not isinstance(value, dict):
        return value
    if "$characters" in value:
        return {"$characters": value["$characters"] - METADATA_CHARACTERS}
    return {key: as_of(version, item) for key, item in value.items() if key != "metadata"}


def by_name(version: str, environment: str) -> dict[str, Conversation]:
    full = capacity(version, environment)
    return {
        conversation.name: conversation for conversation in (*conversations(version, environment), full.ws, full.mcp)
    }


def expected(version: str, environment: str, name: str) -> tuple[Any, ...]:
    """What this version must have answered if the tables are right."""
    newest = by_name(NEWEST, environment)
    for answers in listed(HEARD, name, version):
        return as_of(version, newest["reset_without_data"].heard[:1]) if answers == A_PLAIN_RESET else answers
    return as_of(version, newest[name].heard)


def conversations_that_differ(version: str, environment: str) -> Iterator[str]:
    """Whatever was answered otherwise than by the newest version and is not listed, or is listed and was not."""
    recorded, newest = by_name(version, environment), by_name(NEWEST, environment)
    missing = {name for name, versions in RECORDED_WITH.items() if version not in versions}
    if newest.keys() ^ recorded.keys() != (missing if environment == "probe" else set()):
        yield f"not the same conversations: {sorted(newest.keys() ^ recorded.keys())}"
    for name, conversation in recorded.items():
        if conversation.heard != expected(version, environment, name):
            yield f"{name}: answered {conversation.heard}, expected {expected(version, environment, name)}"
        if [turn.said for turn in conversation.turns] != said_in(newest[name], conversation):
            yield f"{name}: the client said something else"
    for name in HEARD:
        unchanged = recorded[name].heard == as_of(version, newest[name].heard)
        if unchanged == bool(listed(HEARD, name, version)):
            difference = "listed, and answered as by the newest" if unchanged else "answered otherwise, and not listed"
            yield f"{name}: {difference}"


def said_in(newest: Conversation, older: Conversation) -> list[Any]:
    """What the newest was told; a version that greets with a close or refuses the handshake was told nothing."""
    if older.status != 101:
        return []
    return [turn.said for turn in newest.turns] or [{"type": "reset", "data": {}}] * len(older.turns)


# HTTP


def name_of(exchange: Exchange) -> str:
    closing = " openenv/session/close" if "openenv/session/close" in (exchange.body or "") else ""
    return f"{exchange.method} {exchange.path}{closing}"


def http_answers(version: str, environment: str) -> dict[tuple[Any, ...], tuple[Exchange, tuple[Any, ...]]]:
    """Status and answer of each request, also those to a full server."""
    requests = [
        *exchanges(version, environment),
        *((exchange, "full") for exchange in capacity(version, environment).http),
    ]
    rows = [request if isinstance(request, tuple) else (request, "") for request in requests]
    return {(one.method, one.path, one.body, when): (one, (one.status, one.answer)) for one, when in rows}


def http_expected(version: str, exchange: Exchange) -> tuple[Any, ...] | None:
    """What this version must have answered to this request of the newest one; None where it was not made."""
    for status in listed(STATUS, name_of(exchange), version):
        return None if status is None else (status, {"detail": "Not Found"})
    answer = as_of(version, exchange.answer)
    if exchange.path == "/schema" and version in WITHOUT_RESET_SCHEMA:
        answer = {part: schema for part, schema in answer.items() if part != "reset_observation"}
    return exchange.status, answer


def http_that_differs(version: str, environment: str) -> Iterator[str]:
    """The same of HTTP requests and their answers, of a full server too."""
    newest, recorded = http_answers(NEWEST, environment), http_answers(version, environment)
    answers = {key: http_expected(version, exchange) for key, (exchange, _) in newest.items()}
    if newest.keys() ^ recorded.keys() != {key for key, answer in answers.items() if answer is None}:
        yield f"not the same requests: {sorted(map(str, newest.keys() ^ recorded.keys()))}"
    for key, (exchange, answer) in recorded.items():
        if answer != answers.get(key):
            yield f"{name_of(exchange)}: answered {answer}, expected {answers.get(key)}"
    if environment == "benchmark":
        unchanged = {
            name_of(one) for key, (one, answer) in newest.items() if key in recorded and recorded[key][1] == answer
        }
        if listed_in_vain := sorted(name for name in STATUS if listed(STATUS, name, version) and name in unchanged):
            yield f"listed, and answered as by the newest: {listed_in_vain}"
        if version in WITHOUT_RESET_SCHEMA and "GET /schema" in unchanged:
            yield "GET /schema: listed, and answered as by the newest"


def differences() -> list[str]:
    """A line for everything in which recordings and table disagree, or that two equal runs would record differently."""
    lines = [
        f"{version} {environment}: {line}"
        for version, environment in OLDER
        for line in (*conversations_that_differ(version, environment), *http_that_differs(version, environment))
    ]
    for conversation in every_conversation():
        settle = Settling()
        if tuple(settle(answer) for answer in conversation.heard) != conversation.heard:
            lines.append(f"{conversation}: holds what differs between equal runs")
    return lines


if __name__ == "__main__":
    sys.exit("\n".join(differences()) or None)
