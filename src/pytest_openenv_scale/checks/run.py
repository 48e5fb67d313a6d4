"""Running one check, from a thread without an event loop: it always ends in a result."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from pytest_openenv_scale.client.handshake import RouteError
from pytest_openenv_scale.client.messages import error_in
from pytest_openenv_scale.config.workload import WorkloadError
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus
from pytest_openenv_scale.core.text import LOG_LINES, end_of_log, utf8_safe
from pytest_openenv_scale.reporting.content.remedies import environment_remedy
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .background import SingleSession, can_step, single_session
from .subject import Subject, sample_action

Check = Callable[[Subject], Awaitable[CheckResult]]
"""A question about a server. It bounds its own time, by `Subject.patience_s` for each answer."""

Needs = Literal["steps", "sessions", "http"]
"""What a check needs: sessions that play; sessions that can be opened and reset; or none, as it asks over HTTP."""

_LOG_LINES = 20


def run_check(subject: Subject, check: Check, needs: Needs = "steps") -> CheckResult:
    """Run a check on a server and return its result; must not be called where an event loop runs.

    Where a session on its own cannot do what the check `needs`, the result is inconclusive and `unmet`, with what to
    write.
    A server without `/ws` skips every check; one that ends meanwhile fails it; one that ended before leaves it
    inconclusive. A check that is not over at the subject's deadline is cut off, and skipped as `unmet`.
    """
    if (ended := subject.endpoint.exit_status()) and not subject.endpoint.rejoin():
        return CheckResult(CheckOutcome.INCONCLUSIVE, f"the server is not running any more: {ended}")
    restarts = _restart_count(subject.endpoint)
    try:
        result = asyncio.run(_check_in_time(subject, check, needs))
    except (RouteError, WorkloadError) as error:
        return CheckResult(CheckOutcome.INCONCLUSIVE, str(error))
    return _without_surrogates(_fail_if_server_died(subject.endpoint, _after_what_is_shared(subject, result), restarts))


def _after_what_is_shared(subject: Subject, result: CheckResult) -> CheckResult:
    """Return a missed result that may follow from what sessions share with that said first."""
    if result.outcome is not CheckOutcome.MISSED:
        return result
    settings = subject.endpoint.session_settings
    first = "sessions see each other's state, and this may follow from it" if subject.leaks_state else ""
    if settings is not None and settings.shared is not None:
        first = f"all sessions get the one environment made at {settings.shared}"
    subject.leaks_state |= bool(result.figures.get("leaks"))
    return replace(result, headline=f"{first}: {result.headline}") if first and first not in result.headline else result


async def _check_in_time(subject: Subject, check: Check, needs: Needs) -> CheckResult:
    if subject.time_left_s <= 0:
        return CheckResult(CheckOutcome.SKIPPED, "not asked: no time was left", unmet="time")
    began = time.monotonic()
    try:
        async with asyncio.timeout(None if math.isinf(subject.time_left_s) else subject.time_left_s):
            result = await _check_playable_server(subject, check, needs)
            if result.outcome is CheckOutcome.MET or subject.time_left_s > 0:
                return result
    except TimeoutError:
        if subject.time_left_s > 0:
            raise
    took = formatting.seconds(time.monotonic() - began)
    return CheckResult(CheckOutcome.SKIPPED, f"cut off after {took}: no time was left", unmet="time")


async def _check_playable_server(subject: Subject, check: Check, needs: Needs) -> CheckResult:
    if needs == "http":
        return await check(subject)
    single = await subject.learn(single_session)
    if single.reset.kind == "lost" and single.reset.code in ("403", "404", "405"):
        headline = f"the server has no /ws (HTTP {single.reset.code}), and sessions need one"
        return CheckResult(CheckOutcome.SKIPPED, headline)
    if await can_step(subject) or (needs == "sessions" and single.opened):
        return await check(subject)
    unmet = CheckResult(
        CheckOutcome.INCONCLUSIVE,
        f"a session on its own does not play: {single.first_failure}",
        remedy=_what_to_do(subject, single),
        transcripts=(single.transcript,),
        unmet="steps" if single.opened else "sessions",
    )
    if subject.workload.no_action is not None and single.opened:
        return replace(unmet, headline=f"a session opens, but {subject.workload.no_action}", remedy=None)
    if not single.succeeded:
        return unmet
    return replace(
        unmet,
        headline=f"sessions did not play: a session on its own got errors only: {single.error_words}",
        remedy=f"write {_what_to_write(subject, single)}, or ask all the same with --openenv-played any",
    )


def _what_to_do(subject: Subject, single: SingleSession) -> str:
    """Return what makes a lone session play: not every error is of what was sent."""
    failed = single.failed_answer
    if failed is None or failed.code not in ("FACTORY_ERROR", "VALIDATION_ERROR", "EXECUTION_ERROR"):
        return f"write {_what_to_write(subject, single)}, or see the server's log"
    phase, sent = ("step", sample_action(subject)) if single.opened else ("reset", "")
    return environment_remedy(failed.code, phase, sent)


def _what_to_write(subject: Subject, single: SingleSession) -> str:
    """Return which option says what was answered with an error: no action makes good for a reset that failed."""
    if not single.steps or error_in(single.reset.data):
        return "what the environment takes with --openenv-reset"
    return f"what the environment takes with --openenv-action ({sample_action(subject)} was sent)"


def _fail_if_server_died(endpoint: Endpoint, result: CheckResult, restarts: int | None) -> CheckResult:
    """Return the result, or a missed one where the server ended or was restarted meanwhile."""
    ended, restarts_now = endpoint.exit_status(), _restart_count(endpoint)
    if ended is None and (restarts_now is None or restarts is None or restarts_now <= restarts):
        return result
    again = ended is None or endpoint.rejoin()
    reason = f"{ended or 'it ended'}, and a server listens again" if again else str(ended)
    tail = tuple(end_of_log(endpoint.log_tail(LOG_LINES), _LOG_LINES))
    return replace(
        result,
        outcome=CheckOutcome.MISSED,
        headline=f"the server died during this check: {reason}",
        exit=ended or ExitStatus("other", reason),
        details=(result.headline, *result.details, *tail),
    )


def _restart_count(endpoint: Endpoint) -> int | None:
    sample = endpoint.sample()
    return sample.restarts if sample is not None else None


def _without_surrogates(result: CheckResult) -> CheckResult:
    """Return the result without lone surrogates: servers may send them, but no file or terminal takes them."""
    text = json.dumps(result.to_json(), ensure_ascii=False)
    clean = utf8_safe(text)
    return result if clean == text else CheckResult.from_json(json.loads(clean))
