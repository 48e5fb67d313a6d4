"""The six criteria of `openenv validate --url`, asked over HTTP; none of them opens a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import aiohttp

from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.client.http_request import http_url
from pytest_openenv_scale.core.text import loads
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

_TIMEOUT_S = 5.0
"""How long `openenv validate` waits for an answer, in seconds."""

_MAX_BYTES, _MAX_REDIRECTS = 4 * 1024 * 1024, 5
_JSON = {"Content-Type": "application/json"}
_MODE_PATHS = ("/reset", "/step", "/state")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer: its status and what its body holds as JSON (None where it is none), or what went wrong."""

    status: int | None = None
    body: Any = None
    problem: str | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of an object; empty where the body is none."""
        return _as_object(self.body) or {}

    def __str__(self) -> str:
        """Return what came instead of the expected reply, in a few words."""
        if self.problem is not None or self.status is None:
            return self.problem or "no answer"
        if self.status != 200:
            return f"HTTP {self.status}"
        return "no JSON object" if _as_object(self.body) is None else "other fields"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of the six: its name in `openenv validate`, what it expects, whether it passed, and what came instead."""

    name: str
    expected: str
    passed: bool
    actual: str


async def validate(subject: Subject) -> CheckResult:
    """Ask what `openenv validate --url` (openenv 0.10) asks, of the first URL, with the headers of sessions."""
    criteria = await ask_criteria(subject.endpoint.urls[0], subject.endpoint.headers)
    failed = [criterion for criterion in criteria if not criterion.passed]
    counted = f"openenv validate --url: {len(criteria) - len(failed)} of {len(criteria)} criteria pass"
    figures = {"criteria": len(criteria), "criteria_passed": len(criteria) - len(failed)}
    if not failed:
        return CheckResult(CheckOutcome.MET, counted, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{counted}; not {', '.join(criterion.name for criterion in failed)}",
        "create_app(...) of openenv serves all of them; sessions do not need them",
        tuple(f"{criterion.name}: {criterion.expected}; got {criterion.actual}" for criterion in failed),
        figures,
    )


async def ask_criteria(url: str, headers: Mapping[str, str]) -> tuple[Criterion, ...]:
    """Return the six criteria in the order of `openenv validate`; whatever the server answers, nothing is raised."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=dict(headers), timeout=timeout) as client:

        def start_request(method: str, path: str) -> asyncio.Task[HttpReply]:
            return asyncio.create_task(_request(client, method, http_url(url) + path))

        openapi, health = start_request("GET", "/openapi.json"), start_request("GET", "/health")
        metadata, schema, mcp = (
            start_request("GET", "/metadata"),
            start_request("GET", "/schema"),
            start_request("POST", "/mcp"),
        )
        return (
            _judge("openapi_version_available", "GET /openapi.json with info.version", await openapi, _has_version),
            _judge("health_endpoint", 'GET /health with status "healthy"', await health, _is_healthy),
            _judge("metadata_endpoint", "GET /metadata with name and description", await metadata, _has_metadata),
            _judge("schema_endpoint", "GET /schema with action, observation and state", await schema, _has_schemas),
            _judge("mcp_endpoint", "POST /mcp answering JSON-RPC 2.0", await mcp, _is_json_rpc),
            _judge_mode(await openapi),
        )


def _judge(name: str, expected: str, reply: HttpReply, passes: Callable[[Mapping[str, Any]], bool]) -> Criterion:
    return Criterion(name, expected, reply.status == 200 and passes(reply.fields), str(reply))


def _has_version(fields: Mapping[str, Any]) -> bool:
    return isinstance((_as_object(fields.get("info")) or {}).get("version"), str)


def _is_healthy(fields: Mapping[str, Any]) -> bool:
    return fields.get("status") == "healthy"


def _has_metadata(fields: Mapping[str, Any]) -> bool:
    return all(isinstance(fields.get(name), str) for name in ("name", "description"))


def _has_schemas(fields: Mapping[str, Any]) -> bool:
    return all(isinstance(fields.get(name), dict) for name in ("action", "observation", "state"))


def _is_json_rpc(fields: Mapping[str, Any]) -> bool:
    return fields.get("jsonrpc") == "2.0"


def _judge_mode(openapi: HttpReply) -> Criterion:
    """Judge whether /openapi.json lists `/reset`, `/step` and `/state`, or none of them."""
    paths = _as_object(openapi.fields.get("paths")) or {}
    counts = openapi.status == 200 and _has_version(openapi.fields) and bool(paths)
    served = [path for path in _MODE_PATHS if path in paths]
    return Criterion(
        "mode_endpoint_consistency",
        "/reset, /step and /state all in /openapi.json, or none",
        counts and len(served) in (0, len(_MODE_PATHS)),
        f"only {' and '.join(served)}" if served else "no paths",
    )


async def _request(client: aiohttp.ClientSession, method: str, url: str) -> HttpReply:
    """Send one request, following redirects within the server only, so that its headers go to no other."""
    origin = _origin(url)
    try:
        for _ in range(_MAX_REDIRECTS):
            body = b"{}" if method == "POST" else None
            async with client.request(
                method, url, data=body, headers=_JSON if body else None, allow_redirects=False
            ) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or location is None:
                    return HttpReply(response.status, _parse_json(await _read_body(response)))
            url = urljoin(url, location)
            if _origin(url) != origin:
                return HttpReply(problem=f"HTTP {response.status} to another server")
            method = method if response.status in (307, 308) else "GET"
    except TimeoutError:
        return HttpReply(problem=f"no answer within {_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return HttpReply(problem=f"no answer ({type(error).__name__})")
    return HttpReply(problem="one redirect after the other")


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_BYTES:
            break
    return bytes(body)


def _as_object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _parse_json(text: bytes) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None
