"""Start the benchmark environment: a supervisor with one process per worker, on sockets it listens on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.system import UVICORN_WEBSOCKETS, install_command, url_host

from .settings import (
    DEFAULT_BACKLOG,
    HOST,
    IDLE_TIMEOUT,
    MAX_CONCURRENT_ENVS,
    MAX_SESSIONS_PER_ADDRESS,
    PORT,
    SERVERS,
    SESSION_TIMEOUT,
    WORKERS,
    ServerSettings,
    SettingError,
    settings_from,
)

# What uvicorn cannot do without: module, and what it is. The order matters: a package before its modules.
_UVICORN_MODULES = {
    "uvicorn": "uvicorn",
    "websockets": "websockets",
    UVICORN_WEBSOCKETS: "uvicorn 0.35 or newer",
}
# A worker ends by itself within 3 s of being asked to; one that does not is killed.
_STOP_DEADLINE_S = 5.0
_RESTART_PAUSE_S = 1.0

_HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def serve(
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    max_envs: int | None = None,
    server: str = "hypercorn",
    backlog: int = DEFAULT_BACKLOG,
    max_sessions_per_address: int | None = None,
    session_timeout: int | None = None,
    idle_timeout: int | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP and return the exit code; every error is one line on stderr.

    What is None is read from HOST, PORT, WORKERS, MAX_CONCURRENT_ENVS, MAX_SESSIONS_PER_ADDRESS, SESSION_TIMEOUT and
    IDLE_TIMEOUT. `max_envs` and sessions per address are per worker, timeouts are seconds, 0 is unlimited; port 0 takes
    a free port and says which. Call it from the main thread: it handles signals.
    0: asked to stop. 1: the address is taken or a worker failed. 2: a setting is wrong.
    """
    try:
        settings = _read_settings(
            {
                HOST: host,
                PORT: port,
                WORKERS: workers,
                MAX_CONCURRENT_ENVS: max_envs,
                MAX_SESSIONS_PER_ADDRESS: max_sessions_per_address,
                SESSION_TIMEOUT: session_timeout,
                IDLE_TIMEOUT: idle_timeout,
            }
        )
        _check_server(server)
        if backlog < 1:
            raise SettingError(f"backlog={backlog}: expected 1 or more")
    except SettingError as error:
        return _log_failure(str(error), 2)
    address = f"{url_host(settings.host)}:{settings.port}"
    try:
        sockets = listening_sockets(settings.host, settings.port, settings.workers, backlog)
    except socket.gaierror as error:
        return _log_failure(f"HOST={settings.host!r}: {error.strerror}", 2)
    except OSError as error:
        return _log_failure(f"cannot listen on {address}: {os.strerror(error.errno or 0)}", 1)
    settings = replace(settings, port=sockets[0].getsockname()[1])
    try:
        return _Supervisor(settings, server, sockets, backlog).run()
    finally:
        for sock in sockets:
            sock.close()


def _read_settings(arguments: Mapping[str, str | int | None]) -> ServerSettings:
    # Both ways of setting a value go through the one check.
    overrides = {name: str(value) for name, value in arguments.items() if value is not None}
    return settings_from({**os.environ, **overrides})


def _check_server(server: str) -> None:
    if server not in SERVERS:
        raise SettingError(f"server={server!r}: expected one of {', '.join(SERVERS)}")
    for module, package in _UVICORN_MODULES.items():
        if server == "uvicorn" and (install := install_command(module)):
            raise SettingError(f"server={server!r}: {package} is not installed; {install}")


def _log(text: str) -> None:
    print(f"openenv-scale serve: {text}", file=sys.stderr, flush=True)


def _log_failure(text: str, code: int) -> int:
    _log(text)
    return code


class _StopSignals:
    """Signals as something to wait for: a self-pipe, so that none is lost between looking and waiting."""

    def __init__(self) -> None:
        self.stop_count = 0

    def __enter__(self) -> Self:
        self._read_end, self._write_end = socket.socketpair()
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)
        self._previous = {number: signal.signal(number, self._on_signal) for number in _HANDLED_SIGNALS}
        self._previous_wakeup = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._read_end.close()
        self._write_end.close()

    def wait(self, timeout: float | None = None) -> None:
        """Return at the next signal, at latest after `timeout` seconds."""
        self._read_end.settimeout(timeout)
        try:
            self._read_end.recv(4096)
        except (TimeoutError, BlockingIOError):
            pass

    def _on_signal(self, number: int, _frame: object) -> None:
        self.stop_count += number != signal.SIGCHLD


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    socket: socket.socket


class _Supervisor:
    """The workers of one server, from start to end."""

    def __init__(self, settings: ServerSettings, server: str, sockets: Sequence[socket.socket], backlog: int) -> None:
        self._settings = settings
        self._server = server
        self._sockets = sockets
        self._backlog = backlog
        self._workers: list[_Worker] = []

    def run(self) -> int:
        """Start the workers, keep them, stop them; the exit code."""
        # Workers hold the read end: it breaks when this process is gone, however it went.
        self._lifeline, write_end = os.pipe()
        try:
            with _StopSignals() as signals:
                try:
                    self._workers = [_Worker(self._start(sock), sock) for sock in self._sockets]
                    self._announce()
                    return self._watch(signals)
                finally:
                    self._stop(signals)
        finally:
            os.close(write_end)
            os.close(self._lifeline)

    def _announce(self) -> None:
        settings = self._settings
        limit = f"{settings.max_envs} sessions per worker" if settings.max_envs else "unlimited sessions"
        _log(
            f"listening on http://{url_host(settings.host)}:{settings.port} "
            f"(workers {settings.workers}, {self._server}, {limit})"
        )

    def _start(self, sock: socket.socket) -> subprocess.Popen[bytes]:
        options = {
            "server": self._server,
            "fd": sock.fileno(),
            "lifeline": self._lifeline,
            "backlog": self._backlog,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        # Ctrl-C reaches the whole terminal group; blocked here it stays blocked in the worker, which this
        # process ends in its own time. Here it is delivered as soon as the mask is lifted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return subprocess.Popen(
                command(f"{__package__}.worker", *arguments),
                env={**os.environ, **self._settings.environ()},
                pass_fds=(sock.fileno(), self._lifeline),
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _watch(self, signals: _StopSignals) -> int:
        while not signals.stop_count:
            for worker in self._workers:
                code = worker.process.poll()
                if code is None:
                    continue
                if code > 0:
                    return _log_failure(f"worker {worker.process.pid} failed with exit code {code}", 1)
                self._restart(worker, code, signals)
                if signals.stop_count:
                    return 0
            signals.wait()
        return 0

    def _restart(self, worker: _Worker, code: int, signals: _StopSignals) -> None:
        ending = f"was killed by {signal.Signals(-code).name}" if code else "ended"
        _log(f"worker {worker.process.pid} {ending}; its sessions are lost, starting another")
        # A worker that dies at once must not become a loop that takes the machine.
        restart_at = time.monotonic() + _RESTART_PAUSE_S
        while not signals.stop_count and (remaining_s := restart_at - time.monotonic()) > 0:
            signals.wait(remaining_s)
        if not signals.stop_count:
            worker.process = self._start(worker.socket)

    def _stop(self, signals: _StopSignals) -> None:
        stops_before = signals.stop_count
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + _STOP_DEADLINE_S
        # Whoever asks twice does not want to wait.
        while signals.stop_count == stops_before and any(worker.process.poll() is None for worker in self._workers):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                break
            signals.wait(remaining_s)
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()


# The kernel probes a silent client, so that half-open connections do not hold slots for ever.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 60, 15, 4
# The option with which a kernel spreads connections over sockets of one address; macOS has it and does not.
_SHARE_PORT: int | None = getattr(socket, "SO_REUSEPORT" if sys.platform == "linux" else "SO_REUSEPORT_LB", None)


def listening_sockets(host: str, port: int, count: int, backlog: int) -> list[socket.socket]:
    """`count` sockets on one address (port 0: any free one); the kernel spreads connections over them.

    One per worker: on a shared socket whoever wakes first takes all that wait, and capacity is per worker. Where the
    kernel cannot spread them, all are the same socket.
    Raises OSError when the address cannot be had.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # SO_REUSEPORT would silently share the port with another server of ours: ask for it alone first.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        address = (address[0], probe.getsockname()[1], *address[2:])
    sockets: list[socket.socket] = []
    try:
        for _ in range(count if _SHARE_PORT is not None else 1):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            _set_socket_options(sock, shared=count > 1)
            sock.bind(address)
            sock.listen(backlog)
        sockets += (sockets[0].dup() for _ in range(count - len(sockets)))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _set_socket_options(sock: socket.socket, *, shared: bool) -> None:
    """Options that accepted connections inherit."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and _SHARE_PORT is not None:
        sock.setsockopt(socket.SOL_SOCKET, _SHARE_PORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
