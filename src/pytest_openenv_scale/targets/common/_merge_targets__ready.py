"""Readiness: a server is ready once it has answered a real session, whatever its health check says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.endpoint import TargetError
from pytest_openenv_scale.core.grammar import redact_url
from pytest_openenv_scale.core.secrets import Secrets

from .diagnose import Diagnosis, diagnose

if TYPE_CHECKING:
    from pytest_openenv_scale.core.client import SessionFailed

START_S = 60.0
"""Seconds a server we start gets until its first answered session; real environments take 5 to 33."""

ATTACH_S = 30.0
"""Seconds a server that runs already gets to answer one session."""

ATTACH_RETRY_S = 10.0
"""Seconds within which what may pass by itself is tried again on a server that runs already."""

_PAUSE_S = 0.2
_CLOSE_S = 2.0
_FULL = re.compile(r"(\d+)\s*/\s*(\d+)")


def _alive() -> str | None:
    return None


def wait_until_ready(
    urls: Sequence[str],
    headers: Mapping[str, str],
    deadline_s: float,
    still_alive: Callable[[], str | None] = _alive,
    *,
    retry_s: float | None = None,
    modes: Sequence[str] = ("ws",),
) -> float:
    """Play one session (connect, reset, close) at each URL and return the seconds until all had answered.

    What may pass by itself, such as a refused connection, is tried again for `retry_s` seconds (default:
    the whole deadline); what cannot, such as 401, fails at once. `still_alive` returns why there is no use
    in waiting any longer, or None. The session is a WebSocket one unless `modes` is only "http". May be
    called while an event loop runs in this thread.

    Raises:
        TargetError: one line naming the URL, what is wrong there and what to do.
    """
    began = time.monotonic()
    mode = "ws" if "ws" in modes else "http"
    for url in urls:
        _wait_for_one(url, headers, mode, began + deadline_s, began + (retry_s or deadline_s), still_alive)
    return time.monotonic() - began


def _wait_for_one(
    url: str,
    headers: Mapping[str, str],
    mode: str,
    deadline: float,
    retry_until: float,
    still_alive: Callable[[], str | None],
) -> None:
    while True:
        given_s = max(deadline - time.monotonic(), 0.1)
        failure = _try_session(url, headers, mode, given_s)
        if failure is None:
            return
        problem = _explain(url, headers, mode, failure, given_s)
        if reason := still_alive():
            raise TargetError(reason)
        if not problem.passing or time.monotonic() + _PAUSE_S >= min(retry_until, deadline):
            raise TargetError(f"{redact_url(url)} {Secrets.of(headers).hide(problem.text)}")
        time.sleep(_PAUSE_S)


def _explain(url: str, headers: Mapping[str, str], mode: str, failure: SessionFailed, given_s: float) -> Diagnosis:
    said = failure.message or failure.type
    if failure.type == "capacity":
        counts = _FULL.search(said)
        active = f"{counts[1]}/{counts[2]} sessions active" if counts else said
        return Diagnosis(
            f"is full: {active}; end other clients and wait until their slots are free, or raise MAX_CONCURRENT_ENVS",
            passing=True,
        )
    if failure.type == "client_limit":
        return Diagnosis(f"cannot be tried from this machine: {said}")
    if failure.type == "environment":
        return Diagnosis(f"answers, but its environment fails to reset: {failure.code or 'error'}: {said}")
    found = diagnose(url, headers, mode)
    if found is not None:
        return found
    endpoint = "POST /reset" if mode == "http" else "the WebSocket at /ws"
    if failure.type == "timeout":
        return Diagnosis(f"accepts {endpoint} but did not answer a reset within {given_s:.0f} s", passing=True)
    if failure.type in ("refused", "closed_early", "connection_reset"):
        return Diagnosis(f"closed {endpoint} before it answered a reset: {said}", passing=True)
    return Diagnosis(f"does not speak OpenEnv: {endpoint} answers something else: {said}")


def _try_session(url: str, headers: Mapping[str, str], mode: str, timeout_s: float) -> SessionFailed | None:
    from pytest_openenv_scale.core.client import SessionFailed

    try:
        _run_apart(lambda: _play_session(url, headers, mode, timeout_s))
    except SessionFailed as failure:
        return failure
    except TimeoutError:
        return SessionFailed("reset", "timeout", None, f"no answer within {timeout_s:.0f} s")
    return None


async def _play_session(url: str, headers: Mapping[str, str], mode: str, timeout_s: float) -> None:
    """Connect, reset and close; a server that has answered the reset may be slow or odd about the close."""
    from pytest_openenv_scale.core.client import SessionFailed, open_http_session, open_session

    answered = False
    try:
        async with asyncio.timeout(timeout_s) as limit:
            opened = open_http_session if mode == "http" else open_session
            async with opened(url, headers=headers, timeout_s=timeout_s) as session:
                await session.reset()
                answered = True
                limit.reschedule(asyncio.get_running_loop().time() + _CLOSE_S)
    except (SessionFailed, TimeoutError):
        if not answered:
            raise


def _run_apart(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` in a thread and loop of its own; an interrupt of this thread cancels it."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
    done: Future[None] = Future()

    async def main() -> None:
        task = asyncio.create_task(work())
        begun.set_result((asyncio.get_running_loop(), task))
        await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    thread = threading.Thread(target=run, name="openenv-scale-ready", daemon=True)
    try:
        thread.start()
        done.result()
    except BaseException:
        # RuntimeError: the interrupt came before the thread, or after its loop.
        with contextlib.suppress(RuntimeError, TimeoutError):
            loop, task = begun.result(1.0)
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            thread.join()
