"""`provider:MODULE:CLASS`: a server that one of OpenEnv's runtime providers, or a class like them, starts."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, TextIO

import psutil

from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.files import MANIFEST, is_app_name
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.common.readiness import START_S, wait_until_ready
from pytest_openenv_scale.targets.common.sampling import ProcessSampler
from pytest_openenv_scale.targets.common.supervisor import ServerProcess

from . import host
from .calls import ServerRequest
from .host import ProviderRequest

_KEYS = {
    "label": options.text,
    "cores": options.count,
    "hardware": options.text,
    "replicas": options.count,
    "workers": options.count,
    "max_envs": options.count,
}
_MAX_ENVS = "MAX_CONCURRENT_ENVS"
_START_S = 900.0
"""Seconds a provider gets to start and to find its servers ready: one that builds an image takes minutes."""

_STOP_S = 60.0
"""Seconds each provider gets to stop; LocalDockerProvider takes up to 20."""

_END_S = 5.0
"""Seconds between the last word of a process and its end."""


class ProviderTarget:
    """Has a provider start servers, in a process of its own, and stop them when the context ends.

    Raises:
        GrammarError: the argument is not MODULE:CLASS, or one of our own keys has a value that cannot be used.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.spec = redact_target(spec)
        self._context = context
        if spec.argument is None or not is_app_name(spec.argument):
            raise GrammarError(
                "target provider: write provider:MODULE:CLASS, "
                "for example provider:openenv.core.containers.runtime:UVProvider,project_path=."
            )
        self._class = spec.argument
        ours = tuple((key, text) for key, text in spec.options if key in _KEYS or key.startswith("env."))
        self._given = options.read_options(replace(spec, options=ours), _KEYS, env=True)
        self._arguments = {key: text for key, text in spec.options if (key, text) not in ours}
        self._life = ExitStack()

    def __enter__(self) -> Endpoint:
        """Start the provider and return once each of its servers has answered a session; see `Target`."""
        life = ExitStack()
        try:
            endpoint = self._start(life)
        except BaseException as error:
            left = _close(life)
            if left and isinstance(error, TargetError):
                raise TargetError(f"{error}\n{left}") from None
            raise
        self._life = life
        return endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the provider.

        Raises:
            TargetError: it failed to stop, so that what it started may still run.
        """
        left = _close(self._life)
        if left:
            raise TargetError(left)

    def _start(self, life: ExitStack) -> Endpoint:
        began = time.monotonic()
        process, started = self._host(life)
        urls = tuple(started["started"])
        servers = _Children(process.pid)
        endpoint = Endpoint(
            urls=urls,
            label=self._given.text("label") or self._class.rpartition(":")[2].rpartition(".")[2],
            target=self.spec,
            cores=self._given.count("cores") or (usable_cores() if servers.found else None),
            hosts=started["hosts"],
            limits=self._limits(),
            headers=dict(self._context.headers),
            hardware=self._given.text("hardware"),
            sampler=servers.sample,
            log_reader=process.log_tail,
            exit_reader=lambda: process.exit_status() or servers.exit_status(),
        )
        self._await(endpoint, process)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def _host(self, life: ExitStack) -> tuple[ServerProcess, dict[str, Any]]:
        """Start the provider in its process, which `life` ends, and return what it says once it has started."""
        ours, theirs = socket.socketpair()
        talk = life.enter_context(life.enter_context(ours).makefile("rw", encoding="utf-8"))
        with theirs:
            process = ServerProcess(
                command(host.__name__, "--fd", str(theirs.fileno())),
                env={**os.environ, "PYTHONUNBUFFERED": "1"},  # What it prints is in the log when somebody looks.
                cwd=self._context.root,
                log_path=self._context.log_path,
                pass_fds=[theirs.fileno()],
                stop_s=_STOP_S * (self._given.count("replicas") or 1),
                orphaned_by=host.ENDS,
            )
            process.start()
        life.callback(_stop, process, talk)
        ours.settimeout(_START_S)
        # A process that ended at once is told by what it does not say.
        with suppress(OSError):
            talk.write(self.order().to_line())
            talk.flush()
        return process, self._first(talk, process)

    def _first(self, talk: TextIO, process: ServerProcess) -> dict[str, Any]:
        """Return the event of the start."""
        try:
            line = talk.readline()
        except TimeoutError:
            raise TargetError(
                process.with_log(f"target {self.spec}: {self._class} did not start within {_START_S:.0f} s")
            ) from None
        except OSError:
            line = ""
        event: dict[str, Any] = json.loads(line) if line else {}
        if "started" in event:
            return event
        failed = event.get("failed") or f"its process {_end_of(process)} before it had started"
        raise TargetError(process.with_log(f"target provider: {failed}"))

    def order(self) -> ProviderRequest:
        """Return what the provider's process is told to do."""
        root = self._context.root
        env = dict(self._given.env)
        max_envs = self._given.count("max_envs")
        if max_envs is not None:
            env = {_MAX_ENVS: str(max_envs), **env}
        asked = ServerRequest(self._arguments, env, self._given.count("replicas"), self._given.count("workers"))
        paths = (str(root), str(root.parent)) if (root / MANIFEST).exists() else (str(root),)
        return ProviderRequest(self._class, asked, START_S, paths)

    def _limits(self) -> dict[str, str | int]:
        given = {key: self._given.count(key) for key in ("workers", "max_envs")}
        return {key: number for key, number in given.items() if number is not None}

    def _await(self, endpoint: Endpoint, process: ServerProcess) -> None:
        def still_alive() -> str | None:
            status = endpoint.exit_status()
            return f"target {self.spec}: the server {status} before it answered a session" if status else None

        try:
            wait_until_ready(endpoint.urls, endpoint.headers, START_S, still_alive, modes=self._context.modes)
        except TargetError as error:
            said = str(error)
            where = "" if said.startswith("target ") else f"target {self.spec}: "
            raise TargetError(process.with_log(f"{where}{said}")) from None


class _Children:
    """The servers below the provider's process, where it starts them as processes; else nothing."""

    def __init__(self, pid: int) -> None:
        try:
            self.found = [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            self.found = []
        self._sampler = ProcessSampler(self.found)

    def sample(self) -> ServerSample | None:
        return self._sampler.sample()

    def exit_status(self) -> str | None:
        return "ended" if self.found and not self._sampler.running() else None


class _LeftError(Exception):
    """What a provider said it could not stop."""


def _stop(process: ServerProcess, talk: TextIO) -> None:
    process.stop()
    said: list[str] = []
    with suppress(OSError, ValueError):
        said = [event["left"] for line in talk if "left" in (event := json.loads(line))]
    status = process.exit_status() or ""
    if status.startswith("killed"):
        said.append(f"it did not stop in time and was {status}; what it started may still run")
    if said:
        raise _LeftError(f"target provider: {'; '.join(said)}")


def _end_of(process: ServerProcess) -> str:
    """Say how a process ended that has let go of its socket, which is just before its end."""
    until = time.monotonic() + _END_S
    while (status := process.exit_status()) is None and time.monotonic() < until:
        time.sleep(0.02)
    return status or "went silent"


def _close(life: ExitStack) -> str | None:
    """End what was started and return what could not be ended."""
    try:
        life.close()
    except _LeftError as left:
        return str(left)
    return None
