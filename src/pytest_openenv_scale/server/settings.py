"""What an operator may set, read from the environment: HOST, PORT, WORKERS, MAX_CONCURRENT_ENVS, bounds on clients."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_openenv_scale.core.system import url_host, usable_cores

SERVERS = ("hypercorn", "uvicorn")
DEFAULT_BACKLOG = 16_384
"""Connections the kernel may hold until a worker accepts them; it caps this at somaxconn by itself."""

HOST = "HOST"
PORT = "PORT"
WORKERS = "WORKERS"
MAX_CONCURRENT_ENVS = "MAX_CONCURRENT_ENVS"
MAX_SESSIONS_PER_ADDRESS = "MAX_SESSIONS_PER_ADDRESS"
SESSION_TIMEOUT = "SESSION_TIMEOUT"
IDLE_TIMEOUT = "IDLE_TIMEOUT"

# Addresses that say nothing about which machine answers: the observation then names the machine instead.
_ANONYMOUS_HOSTS = frozenset({"", "127.0.0.1", "0.0.0.0", "::", "::1", "localhost"})


class SettingError(ValueError):
    """A setting nobody can serve with; the message is the one line to show."""


@dataclass(frozen=True)
class ClientBounds:
    """What one client may take of a worker: sessions at once, seconds a session lives and seconds it says nothing.

    None means unlimited. A session is not idle while a step of its own waits. Sessions are counted by the address that
    connects, which behind a proxy is the proxy's: unlimited unless it is set.
    """

    sessions_per_address: int | None = None
    session_timeout_s: float | None = 86_400
    idle_timeout_s: float | None = 3_600


DEFAULT_BOUNDS = ClientBounds()


@dataclass(frozen=True)
class ServerSettings:
    """How one server is run.

    `max_envs` is the number of sessions **per worker**, as in OpenEnv; None means unlimited, so that the
    built-in environment is not what refuses a batch unless it is asked to.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    max_envs: int | None = None
    bounds: ClientBounds = DEFAULT_BOUNDS

    @property
    def host_url(self) -> str:
        """What observations report: the bound address where it tells servers apart, else `hostname:port`."""
        name = socket.gethostname() if self.host in _ANONYMOUS_HOSTS else self.host
        return f"{url_host(name)}:{self.port}"

    def environ(self) -> dict[str, str]:
        """These settings as environment variables, for worker processes."""
        return {
            HOST: self.host,
            PORT: str(self.port),
            WORKERS: str(self.workers),
            MAX_CONCURRENT_ENVS: str(self.max_envs or 0),
            MAX_SESSIONS_PER_ADDRESS: str(self.bounds.sessions_per_address or 0),
            SESSION_TIMEOUT: f"{self.bounds.session_timeout_s or 0:.0f}",
            IDLE_TIMEOUT: f"{self.bounds.idle_timeout_s or 0:.0f}",
        }


def settings_from(environ: Mapping[str, str]) -> ServerSettings:
    """Read the settings; what is unset or empty takes its default (WORKERS: the usable cores).

    Raises SettingError naming the variable, its value and what is expected.
    """
    return ServerSettings(
        host=environ.get(HOST, "") or ServerSettings.host,
        port=_whole_number(environ, PORT, ServerSettings.port, 0, 65535),
        workers=_whole_number(environ, WORKERS, usable_cores(), 1, 1024),
        max_envs=_count_or_unlimited(environ, MAX_CONCURRENT_ENVS, None),
        bounds=ClientBounds(
            _count_or_unlimited(environ, MAX_SESSIONS_PER_ADDRESS, ClientBounds.sessions_per_address),
            _count_or_unlimited(environ, SESSION_TIMEOUT, ClientBounds.session_timeout_s),
            _count_or_unlimited(environ, IDLE_TIMEOUT, ClientBounds.idle_timeout_s),
        ),
    )


def _count_or_unlimited(environ: Mapping[str, str], name: str, default: float | None) -> int | None:
    return _whole_number(environ, name, int(default or 0), 0, 10**9, " (0 = unlimited)") or None


def _whole_number(environ: Mapping[str, str], name: str, default: int, low: int, high: int, hint: str = "") -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        raise SettingError(f"{name}={environ[name]!r}: expected a whole number from {low} to {high}{hint}")
    return int(text)


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`; their names in the parsed namespace are its parameters."""
    parser.add_argument("--host", help=f"address to listen on (HOST, else {ServerSettings.host})")
    parser.add_argument(
        "--port", type=int, help=f"port to listen on, 0 for a free one (PORT, else {ServerSettings.port})"
    )
    parser.add_argument("--workers", type=int, help="worker processes (WORKERS, else one per core)")
    parser.add_argument(
        "--max-envs", type=int, help="sessions per worker, 0 for no limit (MAX_CONCURRENT_ENVS, else no limit)"
    )
    parser.add_argument(
        "--max-sessions-per-address",
        type=int,
        help="sessions per worker from one address, 0 for no limit (MAX_SESSIONS_PER_ADDRESS, else no limit)",
    )
    parser.add_argument(
        "--session-timeout",
        type=int,
        help=f"seconds until a session is closed, 0 for never (SESSION_TIMEOUT, else {ClientBounds.session_timeout_s})",
    )
    parser.add_argument(
        "--idle-timeout",
        type=int,
        help="seconds without a message until a session is closed, 0 for never "
        f"(IDLE_TIMEOUT, else {ClientBounds.idle_timeout_s})",
    )
    parser.add_argument("--server", default=SERVERS[0], help="hypercorn or uvicorn (default: %(default)s)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=DEFAULT_BACKLOG,
        help="connections that may wait to be accepted (default: %(default)s)",
    )
