"""What stands behind Envoy: servers started here, or servers that run already; each one a replica."""

from __future__ import annotations

import ipaddress
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample, SessionSettings
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import resolve_host, usable_cores
from pytest_openenv_scale.targets.common.base import DescriptionPart, Server
from pytest_openenv_scale.targets.common.leftovers import graceful_signals
from pytest_openenv_scale.targets.common.options import TargetContext, settings_of, variables_for
from pytest_openenv_scale.targets.common.readiness import (
    ATTACH_RETRY_S,
    TIMEOUT_OPTION,
    Watch,
    attach_s,
    server_limit,
    wait_until_ready,
)
from pytest_openenv_scale.targets.common.sampling import LocalServers
from pytest_openenv_scale.targets.common.source import settings_of_process
from pytest_openenv_scale.targets.docker.container import Container, ContainerOptions
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image
from pytest_openenv_scale.targets.docker.target import describe_container, describe_image, wait_for_container
from pytest_openenv_scale.targets.local.target import ServedApplication, ServerOptions

from .config import Backend, ImageOptions

_FIRST_ADDRESS = ipaddress.IPv4Address("127.0.0.2")


class Hosts:
    """The servers behind a proxy, each with a number that counts from 0: `backends` are where they answer.

    `limits` and `session_settings` are the settings of each, `cores` those all share (None: unknown), `notes` what a
    reader of the results should know, once.
    """

    servers: Sequence[Server] = ()
    backends: tuple[Backend, ...] = ()
    limits: Mapping[str, str | int] = MappingProxyType({})
    session_settings: SessionSettings | None = None
    cores: int | None = None
    notes: tuple[str, ...] = ()

    def exit_status(self, number: int) -> ExitStatus | None:
        """Return how a server ended, or None while it runs or where that is unknown."""
        return self.servers[number].exit_status()

    def log_tail(self, number: int, lines: int) -> str:
        """Return the end of a server's log, or an empty string where there is none."""
        return self.servers[number].log_tail(lines)

    def sample(self) -> ServerSample | None:
        """Return what all of them use together; None where that cannot be read."""
        return sum_samples(server.sample() for server in self.servers)


class Replicas(Hosts, ABC):
    """A number of servers of the same application: `start` starts them, `wait` says when they answer."""

    @abstractmethod
    def describe(self) -> Sequence[DescriptionPart]:
        """Return what would be started, or is there already."""

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Start the replicas, which `stack` stops.

        Raises:
            TargetError: one cannot be started.
        """

    @abstractmethod
    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Return once each replica has answered a session; the notes say what is missing.

        Raises:
            TargetError: one did not; names it and says why.
        """


class LocalReplicas(Replicas):
    """`count` servers of an application on this machine, each on a loopback address of its own."""

    def __init__(self, options: ServerOptions, context: TargetContext, *, count: int, target: str) -> None:
        self._applications = [
            ServedApplication(
                options,
                context,
                target=target,
                host=replica_address(number),
                log_path=numbered_log_path(context.log_path, number),
            )
            for number in range(count)
        ]
        self.cores = usable_cores()
        self.notes = self._applications[0].application.notes

    def describe(self) -> Sequence[DescriptionPart]:
        """See `Replicas`."""
        return [served.describe(f"server {number}") for number, served in enumerate(self._applications, 1)]

    def start(self, stack: ExitStack) -> None:
        """See `Replicas`."""
        stack.callback(self._stop)
        port: int | None = None
        for served in self._applications:
            # The same port on every address reads best; where it is taken on one, any will do.
            served.start(port)
            port = served.port
        self.servers = [served.process for served in self._applications]
        self.backends = tuple(resolve_backend(served.url) for served in self._applications)
        self.limits = self._applications[0].limits
        self.session_settings = self._applications[0].session_settings

    def _stop(self) -> None:
        # Ending a server takes a while; several end side by side.
        with ThreadPoolExecutor(min(len(self._applications), 16)) as executor:
            list(executor.map(ServedApplication.stop, self._applications))

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        return tuple(
            f"{backend.name}: {note}"
            for backend, served in zip(self.backends, self._applications, strict=True)
            for note in served.wait(headers)
        )


class AttachedReplicas(Replicas):
    """Servers that run already, by their URLs; they are left alone, and only Envoy sees when one goes away."""

    def __init__(self, urls: Sequence[str], context: TargetContext) -> None:
        self._urls = tuple(urls)
        self._context = context
        self._local_servers = LocalServers(())

    def describe(self) -> Sequence[DescriptionPart]:
        """See `Replicas`."""
        return [DescriptionPart("servers, which run already", "\n".join(self._urls))]

    def start(self, stack: ExitStack) -> None:
        """See `Replicas`; they run already, and go on."""
        self.backends = tuple(map(resolve_backend, self._urls))

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        wait_until_ready(
            self._urls,
            headers,
            attach_s(self._context),
            retry_s=ATTACH_RETRY_S,
            session=self._context.first_session,
            watch=Watch(TIMEOUT_OPTION, show=self._context.show_status, prefix="envoy: waiting for the servers"),
        )
        self._local_servers = LocalServers(self._urls)
        self.limits = server_limit(self._urls[0], headers, self._context.network)
        if pids := self._local_servers.pids:
            self.session_settings = settings_of_process(pids[0])
        return ()

    def exit_status(self, number: int) -> ExitStatus | None:
        """See `Hosts`; unknown."""
        return None

    def log_tail(self, number: int, lines: int) -> str:
        """See `Hosts`; it is somebody else's."""
        return ""

    def sample(self) -> ServerSample | None:
        """See `Hosts`."""
        return self._local_servers.sample()


class ContainerReplicas(Replicas):
    """Containers of an image.

    On an engine that publishes no ports each listens at its own loopback address, by HOST and PORT.
    """

    def __init__(self, options: ImageOptions, context: TargetContext, *, target: str) -> None:
        self._options = options
        self._context = context
        self._target = target
        self._containers: list[Container] = []
        self.source = ImageSource(options.image, context.base, options.pull)
        """The image of all of them."""

    def describe(self) -> Sequence[DescriptionPart]:
        """See `Replicas`."""
        containers = [
            describe_container(self.source, self.options(number), f"container {number + 1}")
            for number in range(self._options.replicas)
        ]
        return [describe_image(self.source), *containers]

    def start(self, stack: ExitStack) -> None:
        """See `Replicas`."""
        engine = Engine.connect("target envoy")
        stack.callback(engine.close)
        stack.enter_context(graceful_signals)
        options = self._options
        self.cores = engine.cores_within(None if options.cpus is None else options.cpus * options.replicas)
        image = obtain_image(engine, self.source, self._context.show_progress, self._context.show_status)
        for number in range(options.replicas):
            log_path = numbered_log_path(self._context.log_path, number)
            container = Container(engine, image, self.options(number), log_path=log_path)
            self._containers.append(stack.enter_context(container))
        self.servers = self._containers
        self.backends = tuple(resolve_backend(container.url) for container in self._containers)
        first = self._containers[0]
        self.limits = {**settings_of(first.env), "network": first.network, "image": options.image}

    def options(self, number: int) -> ContainerOptions:
        """Return how container `number`, counted from 0, is run."""
        options = self._options
        return ContainerOptions(
            env={**variables_for(**options.declared), **options.env},
            address=replica_address(number),
            cpus=options.cpus,
            memory=options.memory,
            nofile=options.nofile,
            run_id=self._context.run_id,
        )

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        for container, backend in zip(self._containers, self.backends, strict=True):
            wait_for_container(
                container,
                headers,
                self._context,
                target=self._target,
                start_timeout=self._options.start_timeout,
                name=f"the container at {backend.name}",
            )
        return ()


def replica_address(number: int) -> str:
    """Return the loopback address of replica `number`, counted from 0: 127.0.0.2, 127.0.0.3, …"""
    return str(_FIRST_ADDRESS + number)


def numbered_log_path(log_path: Path | None, number: int) -> Path | None:
    """Return the log of replica `number`, counted from 0, beside the one asked for: server.log, server-2.log, …"""
    if log_path is None or number == 0:
        return log_path
    return log_path.with_name(f"{log_path.stem}-{number + 1}{log_path.suffix}")


def sum_samples(samples: Iterable[ServerSample | None]) -> ServerSample | None:
    """Add up samples of several servers; None where there is none. `descriptors` are the fullest process's."""
    readable = [sample for sample in samples if sample is not None]
    if not readable:
        return None
    fullest = max(readable, key=lambda sample: (sample.descriptors or 0) / (sample.descriptor_limit or 1))
    return ServerSample(
        at_s=time.monotonic(),
        processes=_sum(sample.processes for sample in readable),
        cpu_seconds=_sum(sample.cpu_seconds for sample in readable),
        rss_bytes=_sum(sample.rss_bytes for sample in readable),
        threads=_sum(sample.threads for sample in readable),
        descriptors=fullest.descriptors,
        descriptor_limit=fullest.descriptor_limit,
        restarts=_sum(sample.restarts for sample in readable),
        all_descriptors=_sum(sample.all_descriptors for sample in readable),
    )


def _sum(values: Iterable[Any]) -> Any:
    """Return the sum of the numbers among `values`, None where there is none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def resolve_backend(url: str) -> Backend:
    """Return the IP address and port a URL names, IPv4 where it has both."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        return Backend(resolve_host(host), parts.port or 80)
    except socket.gaierror:
        raise TargetError(f"target envoy: {url} cannot be reached: the host name {host!r} does not resolve") from None
