"""What a target yields: the URLs of a running server and the facts known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from .spread import ProxyLook


class TargetError(Exception):
    """A target could not be started, reached or used.

    The first line of the message says what was wrong and what to write or do instead; the tail of the
    server's log may follow on further lines.
    """


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One look at a server's processes, summed over the process tree; None where it cannot be read.

    `at_s` is `time.monotonic()` in seconds and `cpu_seconds` counts from the start of the processes.
    `descriptors` and `descriptor_limit` describe the one process closest to its limit. `restarts` counts how
    often a container was started again.
    """

    at_s: float
    processes: int | None = None
    cpu_seconds: float | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    descriptor_limit: int | None = None
    restarts: int | None = None


def _no_sample() -> ServerSample | None:
    return None


def _no_log(lines: int) -> str:
    return ""


def _no_exit() -> str | None:
    return None


def _no_proxy() -> ProxyLook | None:
    return None


@dataclass(frozen=True)
class Endpoint:
    """Where a server answers, and what is known about it.

    `urls` are http(s) or ws(s) base URLs over which sessions are spread round-robin. `limits` holds the
    settings the server was started with (for example `workers`, `max_envs`, `server`). `startup_s` is
    the time in seconds from the start of the server to its first answered session. `headers` are sent
    with every request and never shown. `default_limits` are limits of an SLO, by name, that hold for this
    endpoint unless others are written, such as the number of hosts that have to share a batch.
    """

    urls: tuple[str, ...]
    label: str
    target: str
    cores: int | None = None
    hosts: int | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    hardware: str | None = None
    startup_s: float = 0.0
    notes: tuple[str, ...] = ()
    default_limits: Mapping[str, float] = field(default_factory=dict[str, float])
    sampler: Callable[[], ServerSample | None] = field(default=_no_sample, repr=False)
    log_reader: Callable[[int], str] = field(default=_no_log, repr=False)
    exit_reader: Callable[[], str | None] = field(default=_no_exit, repr=False)
    proxy_reader: Callable[[], ProxyLook | None] = field(default=_no_proxy, repr=False)

    def sample(self) -> ServerSample | None:
        """Read the server's CPU, memory, threads and descriptors now; None where that is impossible."""
        return self.sampler()

    def log_tail(self, n: int = 20) -> str:
        """Return the last `n` lines of the server's log, or an empty string where there is none."""
        return self.log_reader(n)

    def exit_status(self) -> str | None:
        """Say how the server ended ("exited with code 1"), or None while it runs or where that is unknown."""
        return self.exit_reader()

    def proxy(self) -> ProxyLook | None:
        """Ask the proxy in front of several hosts how it has spread requests so far; None where there is none."""
        return self.proxy_reader()


class Target(Protocol):
    """A way for a URL to come to exist: a synchronous context manager around a server's life."""

    spec: str
    """The canonical target specification, options sorted, without secrets."""

    def __enter__(self) -> Endpoint:
        """Start or attach to the server and return once a real session was answered.

        Raises:
            TargetError: it did not start, or did not answer as OpenEnv within its deadline.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stop whatever was started; an attached server is left alone.

        Raises:
            TargetError: something could not be stopped and may still run.
        """
        ...
