"""What is answered over HTTP, by servers that get one thing of it wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from checking_subjects import make_subject
from pytest_openenv_scale.checks.preflight import http_endpoints as asking
from pytest_openenv_scale.checks.preflight.http_endpoints import http_endpoints
from pytest_openenv_scale.results.outcome import CheckOutcome
from scripted_server import refused_port
from server_process import running_server

pytestmark = pytest.mark.usefixtures("quick_waits")

GOOD: dict[str, Any] = {
    "/openapi.json": {"info": {"version": "1.0.0"}, "paths": {"/reset": {}, "/step": {}, "/state": {}, "/ws": {}}},
    "/health": {"status": "healthy"},
    "/metadata": {"name": "echo", "description": "says it again"},
    "/schema": {"action": {}, "observation": {}, "state": {}},
    "/mcp": {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None},
}
EPISODES = "/reset, /step and /state"


@asynccontextmanager
async def answering(**changes: Any) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that answers as `GOOD` says, but for the paths named; a handler answers by itself."""
    answers = {**GOOD, **{f"/{name}": value for name, value in changes.items()}}
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        reply = answers.get(request.path)
        if callable(reply):
            return await reply(request)
        if reply is None or request.method != ("POST" if request.path == "/mcp" else "GET"):
            raise web.HTTPNotFound
        return web.Response(text=reply) if isinstance(reply, str) else web.json_response(reply)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", requests
    finally:
        await runner.cleanup()


async def failing(url: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """What fails, and what came instead."""
    result = await http_endpoints(make_subject(url, endpoint={"headers": headers or {}}))
    problems = dict(detail.split(": ", 1) for detail in result.details)
    assert result.figures == {"criteria": 6, "criteria_passed": 6 - len(problems)}
    assert result.outcome is (CheckOutcome.MISSED if problems else CheckOutcome.MET)
    return problems


async def test_a_server_that_serves_everything_passes_all_six():
    async with answering() as (url, requests):
        assert await failing(url) == {}
    assert sorted(f"{request.method} {request.path}" for request in requests) == [
        "GET /health",
        "GET /metadata",
        "GET /openapi.json",
        "GET /schema",
        "POST /mcp",
    ]


async def test_of_several_urls_all_have_the_schema_of_the_first():
    changed = {**GOOD["/schema"], "action": {"type": "object"}}
    async with answering() as (one, _), answering() as (same, _), answering(schema=changed) as (other, _):
        subject = make_subject(one)
        subject.endpoint = replace(subject.endpoint, urls=(one, same, other))
        result = await http_endpoints(subject)
    assert (result.outcome, result.details) == (CheckOutcome.MISSED, (f"/schema of {other}: not that of {one}",))
    assert result.figures == {"criteria": 8, "criteria_passed": 7}


async def test_the_benchmark_environment_passes_all_six():
    with running_server() as (_, address):
        assert await failing(f"ws://{address}/") == {}


async def test_the_right_body_with_another_status_does_not_pass():
    def unavailable(body: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=503)

        return answer

    async with answering(**{path[1:]: unavailable(body) for path, body in GOOD.items()}) as (url, _):
        failures = await failing(url)
    assert set(failures) == {*GOOD, EPISODES}
    assert failures["/health"] == "HTTP 503"


OPENAPI = GOOD["/openapi.json"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("health", {"status": "ok"}),
        ("health", None),
        ("health", "healthy"),
        ("health", ["healthy"]),
        ("metadata", {"name": "echo"}),
        ("metadata", {"name": "echo", "description": None}),
        ("schema", {"action": {}, "observation": {}}),
        ("schema", {"action": {}, "observation": {}, "state": []}),
        ("mcp", {"jsonrpc": "1.0"}),
        ("mcp", None),
    ],
)
async def test_one_thing_that_is_wrong_fails_one_criterion(golden, path, answer):
    async with answering(**{path: answer}) as (url, _):
        problems = await failing(url)
    assert set(problems) == {f"/{path}"}
    golden(problems.values())


@pytest.mark.parametrize(
    "paths", [{"/reset": {}, "/step": {}}, {"/state": {}, "/ws": {}}, {}, ["/reset", "/step", "/state"]]
)
async def test_endpoints_of_a_simulation_are_all_there_or_none(golden, paths):
    async with answering(**{"openapi.json": {**OPENAPI, "paths": paths}}) as (url, _):
        problems = await failing(url)
    assert set(problems) == {EPISODES}
    golden(problems.values())


async def test_a_server_without_reset_step_and_state_is_in_production_mode():
    async with answering(**{"openapi.json": {**OPENAPI, "paths": {"/mcp": {}}}}) as (url, _):
        assert await failing(url) == {}


@pytest.mark.parametrize("info", [None, "1.0.0", {"title": "echo"}, {"version": 1}])
async def test_without_a_version_the_paths_do_not_count_either(info):
    async with answering(**{"openapi.json": {**OPENAPI, "info": info}}) as (url, _):
        assert set(await failing(url)) == {"/openapi.json", EPISODES}


async def test_what_fails_is_named_and_told():
    async with answering(mcp=None, metadata={}) as (url, _):
        result = await http_endpoints(make_subject(url))
    assert result.headline.endswith(": /metadata, /mcp")
    assert result.details[1] == "/mcp: HTTP 404"


async def test_where_nothing_listens_every_criterion_fails():
    with refused_port() as port:
        failures = await failing(f"http://127.0.0.1:{port}")
    assert set(failures) == {*GOOD, EPISODES}
    assert failures["/health"] == "no answer (ConnectionRefusedError)"


async def test_a_path_prefix_and_the_headers_of_the_sessions_are_used():
    async with answering() as (url, requests):
        assert len(await failing(f"{url}/env/", {"Authorization": "Bearer s3cret"})) == 6
    assert {request.headers["Authorization"] for request in requests} == {"Bearer s3cret"}
    assert {request.path.rpartition("/")[0] for request in requests} == {"/env"}


async def test_headers_are_not_carried_to_another_server():
    async with answering() as (other, overheard):

        async def elsewhere(request: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(f"{other}/health")

        async with answering(health=elsewhere) as (url, _):
            failures = await failing(url, {"Authorization": "Bearer s3cret"})
    assert failures == {"/health": "HTTP 302"}
    assert overheard == []


async def test_silence_is_waited_for_for_a_while(monkeypatch):
    monkeypatch.setattr(asking, "_TIMEOUT_S", 0.5)

    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with answering(metadata=never) as (url, _):
        assert await failing(url) == {"/metadata": "no answer within 0.5 s"}


async def test_a_body_without_end_is_not_read_to_its_end():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with answering(schema=endless) as (url, _):
        assert await failing(url) == {"/schema": "no JSON object"}
