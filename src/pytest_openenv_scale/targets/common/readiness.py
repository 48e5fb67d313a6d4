"""Whether a server is ready, that is, has answered a real session; and in one line why it has not."""

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
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from pytest_openenv_scale.client.handshake import describe_refusal, tls_context
from pytest_openenv_scale.client.http_request import HTTP_ERRORS, ProxyError, http_request, http_url
from pytest_openenv_scale.client.stock_client import MAX_MESSAGE_BYTES
from pytest_openenv_scale.core.endpoint import DIRECT, ExitStatus, Network
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.formatting import size
from pytest_openenv_scale.core.target_spec import read_redirect, redact_url
from pytest_openenv_scale.core.text import Secrets

from .options import FirstSession, TargetContext, ignore_line

if TYPE_CHECKING:
    from pytest_openenv_scale.client.session import SessionFailed

_REQUEST_TIMEOUT_S = 5.0
_MOST_WORDS, _MOST_WORDS_BYTES = 200, 4096
"""Most characters of an answer's body that are quoted, and most bytes of it that are read."""

_HANDSHAKE_HEADERS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(b"one look, no use").decode(),
}
_USE_TLS_HINT = "speaks TLS on this port; write https:// (or wss://) instead"
_NOT_OPENENV = (
    "does not speak OpenEnv: {what} was answered {status}; is the path prefix right, "
    "and is it an OpenEnv server from openenv-core 0.2.0 on?"
)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, as the rest of a sentence that begins with the URL.

    `transient` says that it may pass by itself (a server that still starts), so that a retry makes sense.
    """

    text: str
    transient: bool = False


@dataclass(frozen=True)
class _HttpAnswer:
    """An answer; `words` are its status, what it says of when to come back, and the start of its body."""

    status: int
    reason: str
    location: str | None
    server: str | None
    words: str


@dataclass(frozen=True)
class _ProbedServer:
    """The server that is looked at: the parts of its base URL, and what reaches it."""

    parts: SplitResult
    headers: Mapping[str, str]
    network: Network

    @property
    def uses_tls(self) -> bool:
        return self.parts.scheme.lower() in ("https", "wss")


def diagnose(url: str, headers: Mapping[str, str], mode: str, network: Network = DIRECT) -> Diagnosis | None:
    """Look at `url` once and say what stands in the way of a session.

    Returns None where the handshake (mode "ws") or `POST /reset` (mode "http") is answered as it should be.
    """
    server = _ProbedServer(urlsplit(url), headers, network)
    try:
        return _diagnose_answer(server, mode, _request_session(server, mode))
    except HTTP_ERRORS as error:
        return _diagnose_error(server, error)


def server_limit(url: str, headers: Mapping[str, str], network: Network = DIRECT) -> dict[str, str | int]:
    """Return `server`, "hypercorn" or "uvicorn", where the server at `url` says it is that, else nothing."""
    try:
        name = _request(_ProbedServer(urlsplit(url), headers, network), "GET", "/health").server or ""
    except HTTP_ERRORS:
        return {}
    match = re.match(r"hypercorn|uvicorn", name)
    return {"server": match[0]} if match else {}


def _diagnose_answer(server: _ProbedServer, mode: str, answer: _HttpAnswer) -> Diagnosis | None:
    what = "POST /reset" if mode == "http" else "the WebSocket handshake at /ws"
    status = f"{answer.status} {answer.reason}".strip()
    if answer.status == (200 if mode == "http" else 101):
        return None
    if answer.location and 300 <= answer.status < 400:
        redirect = read_redirect(_endpoint_url(server.parts, mode), answer.location)
        return Diagnosis(f"redirects to {redirect.url} ({status}); {redirect.advice}")
    if answer.status == 400 and not server.uses_tls and _speaks_tls(server):
        return Diagnosis(_USE_TLS_HINT)
    # A 403 is also how ASGI servers answer where there is no WebSocket: plain requests then pass.
    if answer.status in (401, 407) or (answer.status == 403 and _status(server) in (None, 401, 403)):
        return Diagnosis(
            f"asks for credentials ({status}); give them with --openenv-header 'Authorization: Bearer …' "
            "or as user:password@ in the URL"
        )
    if answer.status == 429:
        return Diagnosis(f"asks for fewer requests or sessions: {what} was answered {answer.words}", transient=True)
    if answer.status in (502, 504):
        return Diagnosis(f"is a proxy with no server behind it: {what} was answered {answer.words}", transient=True)
    if answer.status == 503:
        return Diagnosis(
            f"is not available: {what} was answered {answer.words}; it is full, starting or stopping, "
            "or a proxy in front of it is",
            transient=True,
        )
    if answer.status >= 500:
        return Diagnosis(f"failed: {what} was answered {answer.words}; its log says why")
    if mode == "ws" and _status(server, "POST", "/reset", b"{}") == 200:
        return Diagnosis(
            f"has no WebSocket sessions: {what} was answered {status} while POST /reset works; "
            "update it to openenv-core 0.2.0 or newer, or measure with --openenv-modes http"
        )
    return Diagnosis(_NOT_OPENENV.format(what=what, status=status))


def _diagnose_error(server: _ProbedServer, error: Exception) -> Diagnosis:
    parts = server.parts
    match error:
        case ProxyError():
            return Diagnosis(f"cannot be reached by {error}")
        case ssl.SSLCertVerificationError():
            return Diagnosis(
                f"has a certificate that is not trusted: {error.verify_message}; "
                "for a private authority set SSL_CERT_FILE to its certificate; or do not check it: --openenv-insecure"
            )
        case ssl.SSLError() | ConnectionResetError() if server.uses_tls and _status(_plain(server)):
            return Diagnosis("speaks plain HTTP on this port; write http:// (or ws://) instead")
        case ssl.SSLError():
            return Diagnosis(f"fails the TLS handshake: {error.reason or error}")
        case socket.gaierror():
            transient = error.errno == socket.EAI_AGAIN
            return Diagnosis(f"cannot be reached: the host name {parts.hostname!r} does not resolve", transient)
        case ConnectionRefusedError():
            return Diagnosis(f"refused the connection: nothing listens on {_host_port(server)}", transient=True)
        case TimeoutError():
            return Diagnosis("did not answer in time", transient=True)
        case http.client.BadStatusLine() | ConnectionResetError() | BrokenPipeError():
            if not server.uses_tls and _speaks_tls(server):
                return Diagnosis(_USE_TLS_HINT)
            if isinstance(error, ConnectionError):
                return Diagnosis("closes the connection without an answer", transient=True)
            return Diagnosis("does not speak HTTP; is the port right?")
        case OSError():
            return Diagnosis(f"cannot be reached: {error.strerror or error}", transient=True)
        case _:
            return Diagnosis(f"does not speak HTTP ({type(error).__name__}); is the port right?")


def _request_session(server: _ProbedServer, mode: str) -> _HttpAnswer:
    if mode == "http":
        return _request(server, "POST", "/reset", b"{}")
    return _request(replace(server, headers={**server.headers, **_HANDSHAKE_HEADERS}), "GET", "/ws")


def _request(server: _ProbedServer, method: str, path: str, body: bytes | None = None) -> _HttpAnswer:
    headers = {**server.headers, **({} if body is None else {"Content-Type": "application/json"})}
    url = http_url(server.parts.geturl()) + path
    with http_request(url, headers, _REQUEST_TIMEOUT_S, method, body, network=server.network) as answer:
        fields = {name.lower(): value for name, value in answer.getheaders()}
        words = ""
        if answer.status >= 400:
            with contextlib.suppress(*HTTP_ERRORS):
                words = " ".join(answer.read(_MOST_WORDS_BYTES).decode("utf-8", "replace").split())[:_MOST_WORDS]
        name = fields.pop("server", None)
        words = describe_refusal(answer.status, answer.reason, fields, words).removeprefix("HTTP ")
        return _HttpAnswer(answer.status, answer.reason, fields.get("location"), name, words)


def _status(server: _ProbedServer, method: str = "GET", path: str = "/health", body: bytes | None = None) -> int | None:
    """Return the status of an answer, None where there is none."""
    try:
        return _request(server, method, path, body).status
    except HTTP_ERRORS:
        return None


def _speaks_tls(server: _ProbedServer) -> bool:
    if server.network.proxy:
        return False
    parts = server.parts
    context = tls_context(Network(insecure=True))
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), _REQUEST_TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False


def _endpoint_url(parts: SplitResult, mode: str) -> str:
    return http_url(parts.geturl()) + ("/reset" if mode == "http" else "/ws")


def _plain(server: _ProbedServer) -> _ProbedServer:
    return replace(server, parts=server.parts._replace(scheme="http"), headers={})


def _host_port(server: _ProbedServer) -> str:
    return f"{server.parts.hostname}:{server.parts.port or (443 if server.uses_tls else 80)}"


START_S = 60.0
"""Seconds a server we start gets at least until its first answered session; real environments take 5 to 33."""

ATTACH_S = 30.0
"""Seconds a server that runs already gets to answer one session where nobody gave a timeout."""

ATTACH_RETRY_S = 10.0
"""Seconds within which what may pass by itself is tried again on a server that runs already."""

TIMEOUT_OPTION = "--openenv-timeout"
"""What makes the wait for a server longer that runs already."""

_PAUSE_S = 0.2
_TICK_S = 0.5
_CLOSE_S = 2.0
_RESET_CODES = frozenset({"EXECUTION_ERROR", "VALIDATION_ERROR", "422", "500"})
"""The codes with which a server tells that the environment could do nothing with a reset."""
_SESSION_COUNTS = re.compile(r"(\d+)\s*/\s*(\d+)")


def attach_s(context: TargetContext) -> float:
    """Return how many seconds a server that runs already gets: the run's timeout."""
    return context.timeout_s or ATTACH_S


def start_s(start_timeout: float | None, context: TargetContext, least: float = START_S) -> float:
    """Return how many seconds a server we start gets: `start_timeout`, else the run's timeout but not below `least`."""
    return start_timeout or max(least, context.timeout_s or 0.0)


def _no_answer() -> str:
    return "no answer"


@dataclass(frozen=True)
class Watch:
    """What a wait reports: the option that extends it, and the state of the server meanwhile.

    `state` returns for example "process alive, log empty"; `show` is given it several times while it is waited for,
    after `prefix` where there is one.
    """

    option: str = "start_timeout="
    state: Callable[[], str] = _no_answer
    show: Callable[[str], None] = ignore_line
    prefix: str = ""

    def words(self, waited_s: float, deadline_s: float) -> str:
        """Return the state and how much of the time is over."""
        return f"{self.state()}, {waited_s:.0f} s of {deadline_s:.0f} s"


class NotReadyError(TargetError):
    """A server has answered no session.

    `url` is where, without userinfo, and `problem` what is wrong there, as the rest of a sentence that begins with the
    URL; `exit` is how the server ended, None while it runs.
    """

    def __init__(self, url: str, problem: str, exit: ExitStatus | None = None) -> None:
        self.url, self.problem, self.exit = url, problem, exit
        super().__init__(self._words("the server", url))

    def target_error(
        self, target: str, *, server: str = "the server", at: str = "", hint: str = "", with_log: Callable[[str], str]
    ) -> TargetError:
        """Return the error of a target: `server` ended, or what `at` names (default: the URL) has the problem.

        `hint` follows the problem, and `with_log` adds the end of a log.
        """
        text = self._words(server, at or self.url)
        return TargetError(with_log(f"target {target}: {text}{'' if self.exit else hint}"))

    def _words(self, server: str, at: str) -> str:
        return f"{server} {self.exit} before it answered a session" if self.exit else f"{at} {self.problem}"


def _no_exit() -> ExitStatus | None:
    return None


def wait_until_ready(
    urls: Sequence[str],
    headers: Mapping[str, str],
    deadline_s: float,
    exit_status: Callable[[], ExitStatus | None] = _no_exit,
    *,
    retry_s: float | None = None,
    session: FirstSession | None = None,
    watch: Watch | None = None,
) -> float:
    """Play one session (connect, reset, close) at each URL and return the seconds until all had answered.

    What may pass by itself, such as a refused connection, is tried again for `retry_s` seconds (default:
    the whole deadline); what cannot, such as 401, fails at once. `exit_status` returns how the
    server ended, or None; `watch` says meanwhile what is known of it. `session` says
    how it is played (default: over a WebSocket, with an empty reset). May be called while an event loop runs in this
    thread.

    Raises:
        NotReadyError: one line naming the URL, what is wrong there and what to do, or how the server ended.
    """
    wait = _Wait(deadline_s, retry_s, watch)
    session = session or FirstSession()
    for url in urls:
        _wait_until_url_ready(url, headers, session, wait, exit_status)
    return wait.elapsed_s


class _Wait:
    """The time a first session gets, and what is said while it passes."""

    def __init__(self, deadline_s: float, retry_s: float | None, watch: Watch | None) -> None:
        self._began = time.monotonic()
        self._deadline_s = deadline_s
        self._retry_s = min(retry_s or deadline_s, deadline_s)
        self._watch = watch

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def remaining_s(self) -> float:
        return max(self._deadline_s - self.elapsed_s, 0.1)

    @property
    def allows_another_try(self) -> bool:
        return self.elapsed_s + _PAUSE_S < self._retry_s

    def report(self) -> None:
        """Say what is waited for."""
        if self._watch is not None:
            words = self._watch.words(self.elapsed_s, self._deadline_s)
            self._watch.show(f"{self._watch.prefix}: {words}" if self._watch.prefix else words)

    def end_words(self) -> str:
        """Return what to add to a problem where the time is over; nothing where more of it would not have helped."""
        if self._watch is None or self.elapsed_s + _PAUSE_S < self._deadline_s:
            return ""
        return f" ({self._watch.words(self.elapsed_s, self._deadline_s)}); write a longer {self._watch.option}"


def _wait_until_url_ready(
    url: str,
    headers: Mapping[str, str],
    session: FirstSession,
    wait: _Wait,
    exit_status: Callable[[], ExitStatus | None],
) -> None:
    while True:
        remaining_s = wait.remaining_s
        failure = _try_session(url, headers, session, remaining_s, wait.report)
        if failure is None:
            return
        problem = _explain_failure(url, headers, session, failure, remaining_s)
        status = exit_status()
        if status or not problem.transient or not wait.allows_another_try:
            text = problem.text + (wait.end_words() if problem.transient else "")
            raise NotReadyError(redact_url(url), Secrets.from_headers(headers).hide(text), status)
        wait.report()
        time.sleep(_PAUSE_S)


def _explain_failure(
    url: str, headers: Mapping[str, str], first: FirstSession, failure: SessionFailed, timeout_s: float
) -> Diagnosis:
    message = failure.message or failure.type
    if failure.type == "capacity":
        counts = _SESSION_COUNTS.search(message)
        active = f"{counts[1]}/{counts[2]} sessions active" if counts else message
        return Diagnosis(
            f"is full: {active}; end other clients and wait until their slots are free, or let more in "
            "(what binds: SUPPORTS_CONCURRENT_SESSIONS, max_concurrent_envs=, MAX_CONCURRENT_ENVS)",
            transient=True,
        )
    if failure.type == "client_limit":
        return Diagnosis(f"cannot be tried from this machine: {message}")
    if failure.type == "environment":
        text = f"answers, but its environment fails to reset: {failure.code or 'error'}: {message}"
        hint = "; where it needs reset data, write them with --openenv-reset" if failure.code in _RESET_CODES else ""
        if failure.code == "FACTORY_ERROR":
            hint = "; its class cannot be made, whatever is sent: make one in Python for the traceback"
        return Diagnosis(text + hint)
    if failure.type == "protocol" and failure.code == "1009":
        return Diagnosis(
            f"answers a reset with more than can be read: {message}; OpenEnv's own client reads up to "
            f"{size(MAX_MESSAGE_BYTES)}, so send less"
        )
    diagnosis = diagnose(url, headers, first.mode, first.network)
    if diagnosis is not None:
        return diagnosis
    endpoint = "POST /reset" if first.mode == "http" else "the WebSocket at /ws"
    if failure.type == "timeout":
        return Diagnosis(f"accepts {endpoint} but did not answer a reset within {timeout_s:.0f} s", transient=True)
    if failure.type in ("refused", "closed_early", "connection_reset"):
        return Diagnosis(f"closed {endpoint} before it answered a reset: {message}", transient=True)
    return Diagnosis(f"does not speak OpenEnv: {endpoint} answers something else: {message}")


def _try_session(
    url: str, headers: Mapping[str, str], first: FirstSession, timeout_s: float, on_tick: Callable[[], None]
) -> SessionFailed | None:
    from pytest_openenv_scale.client.session import SessionFailed

    try:
        _run_in_own_thread(lambda: _play_session(url, headers, first, timeout_s), on_tick)
    except SessionFailed as failure:
        return failure
    except TimeoutError:
        return SessionFailed("reset", "timeout", None, f"no answer within {timeout_s:.0f} s")
    return None


async def _play_session(url: str, headers: Mapping[str, str], first: FirstSession, timeout_s: float) -> None:
    """Connect, reset and close; a server that has answered the reset may be slow or odd about the close."""
    from pytest_openenv_scale.client.session import SessionFailed, open_http_session, open_session

    answered = False
    try:
        async with asyncio.timeout(timeout_s) as limit:
            open_client = open_http_session if first.mode == "http" else open_session
            async with open_client(url, headers=headers, timeout_s=timeout_s, network=first.network) as session:
                await session.reset(**first.reset)
                answered = True
                limit.reschedule(asyncio.get_running_loop().time() + _CLOSE_S)
    except (SessionFailed, TimeoutError):
        if not answered:
            raise


def _run_in_own_thread(work: Callable[[], Coroutine[Any, Any, None]], on_tick: Callable[[], None]) -> None:
    """Run `work` in a thread and loop of its own, calling `on_tick` meanwhile; an interrupt here cancels it."""
    task_started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
    outcome: Future[None] = Future()

    async def main() -> None:
        task = asyncio.create_task(work())
        task_started.set_result((asyncio.get_running_loop(), task))
        await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    thread = threading.Thread(target=run, name="openenv-scale-ready", daemon=True)
    try:
        thread.start()
        while not futures.wait([outcome], _TICK_S).done:
            on_tick()
        outcome.result()
    except BaseException:
        # RuntimeError: the interrupt came before the thread, or after its loop.
        with contextlib.suppress(RuntimeError, TimeoutError):
            loop, task = task_started.result(1.0)
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            thread.join()
