"""What an operator may set: HOST, PORT, WORKERS and MAX_CONCURRENT_ENVS, read from the environment."""

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

# Addresses that say nothing about which machine answers: the observation then names the machine instead.
_ANONYMOUS_HOSTS = frozenset({"", "127.0.0.1", "0.0.0.0", "::", "::1", "localhost"})


class SettingError(ValueError):
    """A setting nobody can serve with; the message is the one line to show."""


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
        }


def settings_from(environ: Mapping[str, str]) -> ServerSettings:
    """Read the settings; what is unset or empty takes its default (WORKERS: the usable cores).

    Raises SettingError naming the variable, its value and what is expected.
    """
    return ServerSettings(
        host=environ.get(HOST, "") or ServerSettings.host,
        port=_whole_number(environ, PORT, ServerSettings.port, 0, 65535),
        workers=_whole_number(environ, WORKERS, usable_cores(), 1, 1024),
        max_envs=_whole_number(environ, MAX_CONCURRENT_ENVS, 0, 0, 10**9) or None,
    )


def _whole_number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        hint = " (0 = unlimited)" if name == MAX_CONCURRENT_ENVS else ""
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
    parser.add_argument("--server", default=SERVERS[0], help="hypercorn or uvicorn (default: %(default)s)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=DEFAULT_BACKLOG,
        help="connections that may wait to be accepted (default: %(default)s)",
    )
