"""What `openenv validate --url` would say: six questions over HTTP, none of which opens a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import aiohttp

from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.client.http import http_url
from pytest_openenv_scale.core.text import loads
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

_ANSWER_S = 5.0
"""How long `openenv validate` waits for an answer, in seconds."""

_MOST_BYTES, _HOPS = 4 * 1024 * 1024, 5
_JSON = {"Content-Type": "application/json"}
_MODE = ("/reset", "/step", "/state")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer: its status and what its body holds as JSON (None where it is none), or what went wrong."""

    status: int | None = None
    body: Any = None
    problem: str | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of an object; empty where the body is none."""
        return _object(self.body) or {}

    def __str__(self) -> str:
        """Say what came instead of what was wanted, in a few words."""
        if self.problem is not None or self.status is None:
            return self.problem or "no answer"
        if self.status != 200:
            return f"HTTP {self.status}"
        return "no JSON object" if _object(self.body) is None else "other fields"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of the six: the name `openenv validate` gives it, what it wants, and whether that is so."""

    name: str
    wanted: str
    passed: bool
    got: str


async def validate(subject: Subject) -> CheckResult:
    """Ask what `openenv validate --url` (openenv 0.10) asks, of the first URL, with the headers sessions send too."""
    found = await ask_criteria(subject.endpoint.urls[0], subject.endpoint.headers)
    failed = [criterion for criterion in found if not criterion.passed]
    counted = f"openenv validate --url: {len(found) - len(failed)} of {len(found)} criteria pass"
    figures = {"criteria": len(found), "criteria_passed": len(found) - len(failed)}
    if not failed:
        return CheckResult(CheckOutcome.MET, counted, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{counted}; not {', '.join(criterion.name for criterion in failed)}",
        "create_app(...) of openenv serves all of them; sessions do not need them",
        tuple(f"{criterion.name}: {criterion.wanted}; got {criterion.got}" for criterion in failed),
        figures,
    )


async def ask_criteria(url: str, headers: Mapping[str, str]) -> tuple[Criterion, ...]:
    """Return the six criteria in the order `openenv validate` has them; nothing a server answers raises."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(headers=dict(headers), timeout=timeout) as client:

        def ask(method: str, path: str) -> asyncio.Task[HttpReply]:
            return asyncio.create_task(_ask(client, method, http_url(url) + path))

        openapi, health = ask("GET", "/openapi.json"), ask("GET", "/health")
        metadata, schema, mcp = ask("GET", "/metadata"), ask("GET", "/schema"), ask("POST", "/mcp")
        return (
            _judge("openapi_version_available", "GET /openapi.json with info.version", await openapi, _has_version),
            _judge("health_endpoint", 'GET /health with status "healthy"', await health, _is_healthy),
            _judge("metadata_endpoint", "GET /metadata with name and description", await metadata, _has_metadata),
            _judge("schema_endpoint", "GET /schema with action, observation and state", await schema, _has_schemas),
            _judge("mcp_endpoint", "POST /mcp answering JSON-RPC 2.0", await mcp, _is_json_rpc),
            _mode(await openapi),
        )


def _judge(name: str, wanted: str, reply: HttpReply, passes: Callable[[Mapping[str, Any]], bool]) -> Criterion:
    return Criterion(name, wanted, reply.status == 200 and passes(reply.fields), str(reply))


def _has_version(fields: Mapping[str, Any]) -> bool:
    return isinstance((_object(fields.get("info")) or {}).get("version"), str)


def _is_healthy(fields: Mapping[str, Any]) -> bool:
    return fields.get("status") == "healthy"


def _has_metadata(fields: Mapping[str, Any]) -> bool:
    return all(isinstance(fields.get(name), str) for name in ("name", "description"))


def _has_schemas(fields: Mapping[str, Any]) -> bool:
    return all(isinstance(fields.get(name), dict) for name in ("action", "observation", "state"))


def _is_json_rpc(fields: Mapping[str, Any]) -> bool:
    return fields.get("jsonrpc") == "2.0"


def _mode(openapi: HttpReply) -> Criterion:
    """Judge by the paths of /openapi.json, as far as that counts: `/reset`, `/step` and `/state` are there, or none."""
    paths = _object(openapi.fields.get("paths")) or {}
    counts = openapi.status == 200 and _has_version(openapi.fields) and bool(paths)
    there = [path for path in _MODE if path in paths]
    return Criterion(
        "mode_endpoint_consistency",
        "/reset, /step and /state all in /openapi.json, or none",
        counts and len(there) in (0, len(_MODE)),
        f"only {' and '.join(there)}" if there else "no paths",
    )


async def _ask(client: aiohttp.ClientSession, method: str, url: str) -> HttpReply:
    """Ask once, following redirects within the server: headers meant for one are not carried to another."""
    origin = _origin(url)
    try:
        for _ in range(_HOPS):
            body = b"{}" if method == "POST" else None
            async with client.request(
                method, url, data=body, headers=_JSON if body else None, allow_redirects=False
            ) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or location is None:
                    return HttpReply(response.status, _json(await _body(response)))
            url = urljoin(url, location)
            if _origin(url) != origin:
                return HttpReply(problem=f"HTTP {response.status} to another server")
            method = method if response.status in (307, 308) else "GET"
    except TimeoutError:
        return HttpReply(problem=f"no answer within {_ANSWER_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return HttpReply(problem=f"no answer ({type(error).__name__})")
    return HttpReply(problem="one redirect after the other")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MOST_BYTES:
            break
    return bytes(body)


def _object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _json(text: bytes) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None
