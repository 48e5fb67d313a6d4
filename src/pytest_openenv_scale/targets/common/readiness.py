"""Whether a server is ready: once it has answered a real session; and why none came about, told in one line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import redact_url
from pytest_openenv_scale.core.text import Secrets

if TYPE_CHECKING:
    from pytest_openenv_scale.client.session import SessionFailed

_LOOK_S = 5.0
_HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(b"one look, no use").decode(),
}
_WRITE_TLS = "speaks TLS on this port; write https:// (or wss://) instead"
_NOT_OPENENV = (
    "does not speak OpenEnv: {what} was answered {status}; is the path prefix right, "
    "and is it an OpenEnv server from openenv-core 0.2.0 on?"
)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, as the rest of a sentence that begins with the URL.

    `passing` says that it may pass by itself (a server that still starts), so that asking again makes sense.
    """

    text: str
    passing: bool = False


@dataclass(frozen=True)
class _HttpAnswer:
    status: int
    reason: str
    location: str | None
    server: str | None


def diagnose(url: str, headers: Mapping[str, str], mode: str) -> Diagnosis | None:
    """Look at `url` once and say what stands in the way of a session.

    Returns None where the handshake (mode "ws") or `POST /reset` (mode "http") is answered as it should be.
    """
    parts = urlsplit(url)
    try:
        return _judge(parts, headers, mode, _ask_session(parts, headers, mode))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _from_error(parts, error)


def server_name(url: str, headers: Mapping[str, str]) -> str | None:
    """Return "hypercorn" or "uvicorn" where the server at `url` says it is that, else None."""
    try:
        name = _ask(urlsplit(url), "GET", "/health", headers).server or ""
    except (OSError, http.client.HTTPException, ValueError):
        return None
    found = re.match(r"hypercorn|uvicorn", name)
    return found[0] if found else None


def _judge(parts: SplitResult, headers: Mapping[str, str], mode: str, answer: _HttpAnswer) -> Diagnosis | None:
    what = "POST /reset" if mode == "http" else "the WebSocket handshake at /ws"
    status = f"{answer.status} {answer.reason}".strip()
    if answer.status == (200 if mode == "http" else 101):
        return None
    if answer.location and 300 <= answer.status < 400:
        return Diagnosis(f"redirects to {redact_url(_without_endpoint(answer.location))} ({status}); write that URL")
    if answer.status == 400 and not _tls(parts) and _speaks_tls(parts):
        return Diagnosis(_WRITE_TLS)
    if answer.status in (401, 407) or (answer.status == 403 and not _open_elsewhere(parts, headers)):
        return Diagnosis(
            f"asks for credentials ({status}); give them with --openenv-header 'Authorization: Bearer …' "
            "or as user:password@ in the URL"
        )
    if answer.status == 429:
        return Diagnosis(f"asks for fewer requests ({status})", passing=True)
    if answer.status in (502, 504):
        return Diagnosis(f"is a proxy with no server behind it: {what} was answered {status}", passing=True)
    if answer.status == 503:
        return Diagnosis(
            f"is not available: {what} was answered {status}; it is starting, overloaded, "
            "or refuses by a limit of its own (uvicorn --limit-concurrency)",
            passing=True,
        )
    if answer.status >= 500:
        return Diagnosis(f"failed: {what} was answered {status}; its log says why")
    if mode == "ws" and _plays_http(parts, headers):
        return Diagnosis(
            f"has no WebSocket sessions: {what} was answered {status} while POST /reset works; "
            "update it to openenv-core 0.2.0 or newer, or measure with --openenv-modes http"
        )
    return Diagnosis(_NOT_OPENENV.format(what=what, status=status))


def _from_error(parts: SplitResult, error: Exception) -> Diagnosis:
    where = _host_port(parts)
    match error:
        case ssl.SSLCertVerificationError():
            return Diagnosis(
                f"has a certificate that is not trusted: {error.verify_message}; "
                "for a private authority set SSL_CERT_FILE to its certificate"
            )
        case ssl.SSLError() | ConnectionResetError() if _tls(parts) and _speaks_http(parts):
            return Diagnosis("speaks plain HTTP on this port; write http:// (or ws://) instead")
        case ssl.SSLError():
            return Diagnosis(f"fails the TLS handshake: {error.reason or error}")
        case socket.gaierror():
            passing = error.errno == socket.EAI_AGAIN
            return Diagnosis(f"cannot be reached: the host name {parts.hostname!r} does not resolve", passing)
        case ConnectionRefusedError():
            return Diagnosis(f"refused the connection: nothing listens on {where}", passing=True)
        case TimeoutError():
            return Diagnosis("did not answer in time", passing=True)
        case http.client.BadStatusLine() | ConnectionResetError() | BrokenPipeError():
            if not _tls(parts) and _speaks_tls(parts):
                return Diagnosis(_WRITE_TLS)
            if isinstance(error, ConnectionError):
                return Diagnosis("closes the connection without an answer", passing=True)
            return Diagnosis("does not speak HTTP; is the port right?")
        case OSError():
            return Diagnosis(f"cannot be reached: {error.strerror or error}", passing=True)
        case _:
            return Diagnosis(f"does not speak HTTP ({type(error).__name__}); is the port right?")


def _ask_session(parts: SplitResult, headers: Mapping[str, str], mode: str) -> _HttpAnswer:
    if mode == "http":
        return _ask(parts, "POST", "/reset", headers, b"{}")
    return _ask(parts, "GET", "/ws", {**headers, **_HANDSHAKE})


def _ask(
    parts: SplitResult, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> _HttpAnswer:
    sent = dict(headers)
    if body is not None:
        sent["Content-Type"] = "application/json"
    connection = _connection(parts)
    try:
        connection.request(method, parts.path.rstrip("/") + path, body, sent)
        response = connection.getresponse()
        response.close()
        return _HttpAnswer(
            response.status, response.reason, response.getheader("Location"), response.getheader("Server")
        )
    finally:
        connection.close()


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if _tls(parts):
        return http.client.HTTPSConnection(host, parts.port, timeout=_LOOK_S)
    return http.client.HTTPConnection(host, parts.port, timeout=_LOOK_S)


def _open_elsewhere(parts: SplitResult, headers: Mapping[str, str]) -> bool:
    """Say whether plain requests pass; a 403 is then how ASGI servers answer where there is no WebSocket."""
    try:
        return _ask(parts, "GET", "/health", headers).status not in (401, 403)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _plays_http(parts: SplitResult, headers: Mapping[str, str]) -> bool:
    try:
        return _ask(parts, "POST", "/reset", headers, b"{}").status == 200
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _speaks_http(parts: SplitResult) -> bool:
    try:
        _ask(parts._replace(scheme="http"), "GET", "/health", {})
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def _speaks_tls(parts: SplitResult) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), _LOOK_S) as raw,
            context.wrap_socket(raw, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False


def _without_endpoint(location: str) -> str:
    return re.sub(r"/(ws|reset)/?$", "", location.partition("?")[0]) or "/"


def _tls(parts: SplitResult) -> bool:
    return parts.scheme.lower() in ("https", "wss")


def _host_port(parts: SplitResult) -> str:
    return f"{parts.hostname}:{parts.port or (443 if _tls(parts) else 80)}"


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
            raise TargetError(f"{redact_url(url)} {Secrets.from_headers(headers).hide(problem.text)}")
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
    from pytest_openenv_scale.client.session import SessionFailed

    try:
        _run_apart(lambda: _play_session(url, headers, mode, timeout_s))
    except SessionFailed as failure:
        return failure
    except TimeoutError:
        return SessionFailed("reset", "timeout", None, f"no answer within {timeout_s:.0f} s")
    return None


async def _play_session(url: str, headers: Mapping[str, str], mode: str, timeout_s: float) -> None:
    """Connect, reset and close; a server that has answered the reset may be slow or odd about the close."""
    from pytest_openenv_scale.client.session import SessionFailed, open_http_session, open_session

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
