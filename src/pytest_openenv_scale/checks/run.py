"""Asking one check, from a thread without an event loop: a result always comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pytest_openenv_scale.client.handshake import RouteError
from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.text import utf8_safe
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .background import single_session
from .subject import Subject

Check = Callable[[Subject], Awaitable[CheckResult]]
"""A question about a server. It bounds its own time, by `Subject.patience_s` for each answer."""

DIED = "the server died during this check"

_LOG_LINES = 20


def run_check(subject: Subject, check: Check) -> CheckResult:
    """Ask a check of a server and return its result; must not be called where an event loop runs.

    A server without `/ws` skips every check; one that ends meanwhile fails it; one that ended before leaves it
    inconclusive.
    """
    if ended := subject.endpoint.exit_status():
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"the server is not running any more: {ended}")
    restarts = _restarts(subject.endpoint)
    try:
        result = asyncio.run(_ask(subject, check))
    except (RouteError, WorkloadError) as error:
        return CheckResult(CheckOutcome.INCONCLUSIVE, str(error))
    return _storable(_alive(subject.endpoint, result, restarts))


async def _ask(subject: Subject, check: Check) -> CheckResult:
    alone = await subject.learn(single_session)
    if alone.reset.kind == "lost" and alone.reset.code in ("403", "404", "405"):
        said = f"the server has no /ws (HTTP {alone.reset.code}), and sessions need one"
        return CheckResult(CheckOutcome.SKIPPED, said)
    if not alone.plays:
        return CheckResult(
            CheckOutcome.INCONCLUSIVE,
            f"a session on its own does not play: {alone.trouble}",
            remedy="write an action the environment takes with --openenv-action",
            transcripts=(alone.transcript,),
        )
    return await check(subject)


def _alive(endpoint: Endpoint, result: CheckResult, restarts: int | None) -> CheckResult:
    """Return the result, unless the server ended or was started again meanwhile."""
    ended, again = endpoint.exit_status(), _restarts(endpoint)
    if ended is None and (again is None or restarts is None or again <= restarts):
        return result
    words = ended if ended is not None else "it was started again"
    tail = tuple(endpoint.log_tail(_LOG_LINES).splitlines())
    return replace(
        result,
        outcome=CheckOutcome.MISSED,
        headline=f"{DIED}: {words}",
        details=(result.headline, *result.details, *tail),
    )


def _restarts(endpoint: Endpoint) -> int | None:
    sample = endpoint.sample()
    return sample.restarts if sample is not None else None


def _storable(result: CheckResult) -> CheckResult:
    """Return the result without halves of surrogate pairs: servers may say them, no file or terminal takes them."""
    text = json.dumps(result.to_json(), ensure_ascii=False)
    clean = utf8_safe(text)
    return result if clean == text else CheckResult.from_json(json.loads(clean))
