"""`provider:MODULE:CLASS`: a server that one of OpenEnv's runtime providers, or a class like them, starts."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, TextIO

import psutil

from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.system import usable_cores, wait_for
from pytest_openenv_scale.core.target_spec import TargetSpec, names_secret
from pytest_openenv_scale.core.text import redact_text
from pytest_openenv_scale.targets.common.application import import_paths, is_app_name
from pytest_openenv_scale.targets.common.base import HIDDEN, DescriptionPart, StartedTarget
from pytest_openenv_scale.targets.common.options import (
    StartOptions,
    TargetContext,
    TargetOptions,
    count,
    option,
    option_names,
    read_options,
    variables,
    variables_for,
)
from pytest_openenv_scale.targets.common.readiness import NotReadyError, Watch, start_s, wait_until_ready
from pytest_openenv_scale.targets.common.sampling import ProcessSampler
from pytest_openenv_scale.targets.common.supervisor import ServerProcess

from . import host
from .host import ProviderRequest, ServerRequest

_START_S = 900.0
"""Seconds a provider gets at least to start and to find its servers ready: one that builds an image takes minutes."""

_STOP_S = 60.0
"""Seconds each provider gets to stop; LocalDockerProvider takes up to 20."""

_END_S = 5.0
"""Seconds a process gets to end once it has closed its socket."""


@dataclass(frozen=True)
class ProviderOptions(TargetOptions, StartOptions):
    """The keys that are ours; all others are arguments of the provider."""

    replicas: int | None = option(count)
    env: Mapping[str, str] = variables()


class ProviderTarget(StartedTarget):
    """Has a provider start servers, in a process of its own, and stop them when the context ends.

    Raises:
        GrammarError: the argument is not MODULE:CLASS, or one of our own keys has a value that cannot be used.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        keys = option_names(ProviderOptions)
        own_options = tuple((key, text) for key, text in spec.options if key in keys or key.startswith("env."))
        self._options = read_options(replace(spec, options=own_options), ProviderOptions)
        super().__init__(spec, context, self._options)
        if spec.argument is None or not is_app_name(spec.argument):
            raise GrammarError(
                "target provider: write provider:MODULE:CLASS, "
                "for example provider:openenv.core.containers.runtime:UVProvider,project_path=."
            )
        self._class_name = spec.argument
        self._start_s = start_s(self._options.start_timeout, context)
        self._provider_s = start_s(self._options.start_timeout, context, _START_S)
        self._arguments = {key: text for key, text in spec.options if (key, text) not in own_options}

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        request = self.provider_request()
        server_request = request.server_request
        arguments = [
            f"{key}={HIDDEN if names_secret(key) else redact_text(text)}"
            for key, text in server_request.arguments.items()
        ]
        lines = [f"class      {request.provider}", *(f"argument   {text}" for text in arguments)]
        lines += [f"variable   {name}={HIDDEN}" for name in server_request.env]
        lines += [f"servers    {server_request.replicas}"] if server_request.replicas is not None else []
        lines += [f"workers    {server_request.workers}"] if server_request.workers is not None else []
        lines += [f"import     {path}" for path in request.paths]
        return [DescriptionPart("provider, in a process of its own", "\n".join(lines))]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start the provider and return once each of its servers has answered a session."""
        began = time.monotonic()
        process, started = self._start_host(stack)
        servers = _ChildServers(process.pid)
        endpoint = self.endpoint(
            started["started"],
            self._class_name.rpartition(":")[2].rpartition(".")[2],
            process,
            cores=usable_cores() if servers.pids else None,
            hosts=started["hosts"],
            limits=self._options.declared,
            sampler=servers.sample,
            exit_reader=lambda: process.exit_status() or servers.exit_status(),
        )
        self._wait_until_ready(endpoint, process)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def _start_host(self, stack: ExitStack) -> tuple[ServerProcess, dict[str, Any]]:
        """Start the provider in its process, which `stack` ends, and return the event it sends once it has started."""
        own_socket, host_socket = socket.socketpair()
        stream = stack.enter_context(stack.enter_context(own_socket).makefile("rw", encoding="utf-8"))
        with host_socket:
            process = ServerProcess(
                command(host.__name__, "--fd", str(host_socket.fileno())),
                env={**os.environ, "PYTHONUNBUFFERED": "1"},  # What it prints is in the log when somebody looks.
                cwd=self.context.root,
                log_path=self.context.log_path,
                pass_fds=[host_socket.fileno()],
                stop_s=_STOP_S * (self._options.replicas or 1),
                orphan_signal=host.END_SIGNAL,
            )
            process.start()
        stack.callback(_stop_host, process, stream)
        own_socket.settimeout(self._provider_s)
        # A process that ended at once is noticed below: it sends no event.
        with suppress(OSError):
            print(json.dumps(self.provider_request().to_json()), file=stream)
            stream.flush()
        return process, self._read_start_event(stream, process)

    def _read_start_event(self, stream: TextIO, process: ServerProcess) -> dict[str, Any]:
        """Read the event that the provider has started.

        Raises:
            TargetError: it failed, ended, or took too long.
        """
        try:
            line = stream.readline()
        except TimeoutError:
            raise TargetError(
                process.with_log(
                    f"target {self.spec}: {self._class_name} did not start within {self._provider_s:.0f} s; "
                    "write a longer start_timeout="
                )
            ) from None
        except OSError:
            line = ""
        event: dict[str, Any] = json.loads(line) if line else {}
        if "started" in event:
            return event
        failed = event.get("failed") or f"its process {_wait_for_exit(process)} before it had started"
        raise TargetError(process.with_log(f"target provider: {failed}"))

    def provider_request(self) -> ProviderRequest:
        """Return the request that the provider's process gets."""
        env = {**variables_for(max_envs=self._options.max_envs), **self._options.env}
        server_request = ServerRequest(self._arguments, env, self._options.replicas, self._options.workers)
        paths = tuple(map(str, import_paths(self.context)))
        return ProviderRequest(self._class_name, server_request, self._start_s, paths)

    def _wait_until_ready(self, endpoint: Endpoint, process: ServerProcess) -> None:
        try:
            wait_until_ready(
                endpoint.urls,
                endpoint.headers,
                self._start_s,
                endpoint.exit_status,
                session=self.context.first_session,
                watch=Watch(state=process.state, show=self.context.show_status),
            )
        except NotReadyError as error:
            raise error.target_error(self.spec, with_log=process.with_log) from None


class _ChildServers:
    """The servers below the provider's process, where it starts them as processes; else nothing."""

    def __init__(self, pid: int) -> None:
        try:
            self.pids = [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            self.pids = []
        self._sampler = ProcessSampler(self.pids)

    def sample(self) -> ServerSample | None:
        return self._sampler.sample()

    def exit_status(self) -> ExitStatus | None:
        return ExitStatus("other", "ended") if self.pids and not self._sampler.running() else None


def _stop_host(process: ServerProcess, stream: TextIO) -> None:
    process.stop()
    leftovers: list[str] = []
    with suppress(OSError, ValueError):
        leftovers = [event["left"] for line in stream if "left" in (event := json.loads(line))]
    status = process.exit_status()
    if status is not None and status.kind == "killed":
        leftovers.append(f"it did not stop in time and was {status}; what it started may still run")
    if leftovers:
        raise TargetError(f"target provider: {'; '.join(leftovers)}")


def _wait_for_exit(process: ServerProcess) -> str:
    """Return how a process ended that has closed its socket, which happens just before its end."""
    return str(wait_for(process.exit_status, _END_S, 0.02) or "went silent")
