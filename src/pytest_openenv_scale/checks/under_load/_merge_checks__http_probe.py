"""How long a server takes to answer `GET /health`, or to answer it with anything at all, while sessions do things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPException

from pytest_openenv_scale.core.discover import http_answer
from pytest_openenv_scale.core.endpoint import Endpoint

_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to one `GET /health`: `latency_s` in seconds from connecting on, `status` None where none came."""

    latency_s: float
    status: int | None


def ask_health(url: str, headers: Mapping[str, str], patience_s: float) -> HttpAnswer:
    """Ask the server at a base URL on a new connection; blocks until it answers, fails or `patience_s` have passed."""
    began = time.perf_counter()
    try:
        with http_answer(url, "/health", headers, patience_s) as answer:
            status = answer.status
    except (OSError, HTTPException, ValueError):
        status = None
    return HttpAnswer(time.perf_counter() - began, status)


async def ask_in_turn(endpoint: Endpoint, number: int, patience_s: float) -> HttpAnswer:
    """Ask one of the endpoint's URLs, the next with each number."""
    url = endpoint.urls[number % len(endpoint.urls)]
    return await asyncio.to_thread(ask_health, url, endpoint.headers, patience_s)


@asynccontextmanager
async def asking(endpoint: Endpoint, patience_s: float) -> AsyncGenerator[list[HttpAnswer], None]:
    """Ask one after the other while the block runs; the answer to a question asked within it is waited for."""
    answers: list[HttpAnswer] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers.append(await ask_in_turn(endpoint, len(answers), patience_s))
            await asyncio.sleep(_PAUSE_S)

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        stop.set()
        await task
