"""What stands behind Envoy: servers started here, or servers that run already; each one a replica."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.targets.common.base import DescriptionPart
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.common.readiness import (
    ATTACH_RETRY_S,
    ATTACH_S,
    START_S,
    NotReadyError,
    server_name,
    wait_until_ready,
)
from pytest_openenv_scale.targets.common.sampling import LocalServers
from pytest_openenv_scale.targets.docker.container import Container, ContainerOptions
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image
from pytest_openenv_scale.targets.docker.target import describe_container, describe_image
from pytest_openenv_scale.targets.local.application import ServedApplication, ServerOptions

from .config import Backend, ImageOptions

_FIRST_ADDRESS = ipaddress.IPv4Address("127.0.0.2")


class Hosts(Protocol):
    """The servers behind a proxy, while they serve."""

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Where each replica answers, once started."""
        ...

    def exit_status(self, number: int) -> ExitStatus | None:
        """Return how the replica ended, or None while it runs or where that is unknown."""
        ...

    def log_tail(self, number: int, lines: int) -> str:
        """Return the end of the replica's log, or an empty string where there is none."""
        ...


class Replicas(Hosts, Protocol):
    """A number of servers of the same application: `start` starts them, `wait` says when they answer."""

    @property
    def limits(self) -> dict[str, str | int]:
        """The settings of each replica."""
        ...

    @property
    def cores(self) -> int | None:
        """The cores all replicas share; None where that is unknown."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know, once."""
        ...

    def describe(self) -> Sequence[DescriptionPart]:
        """Return what would be started, or is there already."""
        ...

    def start(self, stack: ExitStack) -> None:
        """Start the replicas, which `stack` stops.

        Raises:
            TargetError: one cannot be started.
        """
        ...

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """Return once each replica has answered a session; the notes say what is missing.

        Raises:
            TargetError: one did not; names it and says why.
        """
        ...

    def sample(self) -> ServerSample | None:
        """Return what all replicas use together; None where that cannot be read."""
        ...


def replica_address(number: int) -> str:
    """Return the loopback address of replica `number`, counted from 0: 127.0.0.2, 127.0.0.3, …"""
    return str(_FIRST_ADDRESS + number)


class LocalReplicas:
    """`count` servers of an application on this machine, each on a loopback address of its own."""

    def __init__(self, options: ServerOptions, context: TargetContext, *, count: int, target: str) -> None:
        self._servers = [
            ServedApplication(
                options,
                context,
                target=target,
                host=replica_address(number),
                log_path=numbered_log_path(context.log_path, number),
            )
            for number in range(count)
        ]

    def describe(self) -> Sequence[DescriptionPart]:
        """See `Replicas`."""
        return [served.describe(f"server {number}") for number, served in enumerate(self._servers, 1)]

    def start(self, stack: ExitStack) -> None:
        """See `Replicas`."""
        stack.callback(self._stop)
        port: int | None = None
        for served in self._servers:
            # The same port on every address reads best; where it is taken on one, any will do.
            served.start(port)
            port = served.port

    def _stop(self) -> None:
        # Ending a server takes a while; several end side by side.
        with ThreadPoolExecutor(min(len(self._servers), 16)) as executor:
            list(executor.map(ServedApplication.stop, self._servers))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """See `Replicas`."""
        return tuple(Backend(replica_address(number), served.port) for number, served in enumerate(self._servers))

    @property
    def limits(self) -> dict[str, str | int]:
        """See `Replicas`."""
        return self._servers[0].limits

    @property
    def cores(self) -> int | None:
        """See `Replicas`."""
        return usable_cores()

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Replicas`."""
        return self._servers[0].application.notes

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        return tuple(
            f"{backend.name}: {note}"
            for backend, served in zip(self.backends, self._servers, strict=True)
            for note in served.wait(headers)
        )

    def exit_status(self, number: int) -> ExitStatus | None:
        """See `Replicas`."""
        return self._servers[number].process.exit_status()

    def log_tail(self, number: int, lines: int) -> str:
        """See `Replicas`."""
        return self._servers[number].process.log_tail(lines)

    def sample(self) -> ServerSample | None:
        """See `Replicas`."""
        return sum_samples(served.process.sample() for served in self._servers)


class AttachedReplicas:
    """Servers that run already, by their URLs; they are left alone."""

    def __init__(self, urls: Sequence[str], context: TargetContext) -> None:
        self._urls = tuple(urls)
        self._context = context
        self._backends: tuple[Backend, ...] = ()
        self._local_servers: LocalServers | None = None

    def describe(self) -> Sequence[DescriptionPart]:
        """See `Replicas`."""
        return [DescriptionPart("servers, which run already", "\n".join(self._urls))]

    def start(self, stack: ExitStack) -> None:
        """See `Replicas`; they run already, and go on."""
        self._backends = tuple(resolve_backend(url) for url in self._urls)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """See `Replicas`."""
        return self._backends

    @property
    def limits(self) -> dict[str, str | int]:
        """See `Replicas`."""
        server = server_name(self._urls[0], self._context.headers)
        return {"server": server} if server else {}

    @property
    def cores(self) -> int | None:
        """See `Replicas`; unknown."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Replicas`."""
        return ()

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        wait_until_ready(self._urls, headers, ATTACH_S, retry_s=ATTACH_RETRY_S, modes=self._context.modes)
        self._local_servers = LocalServers(self._urls)
        return ()

    def exit_status(self, number: int) -> ExitStatus | None:
        """See `Replicas`; only Envoy sees when a server of somebody else goes away."""
        return None

    def log_tail(self, number: int, lines: int) -> str:
        """See `Replicas`."""
        return ""

    def sample(self) -> ServerSample | None:
        """See `Replicas`."""
        return self._local_servers.sample() if self._local_servers is not None else None


def numbered_log_path(log_path: Path | None, number: int) -> Path | None:
    """Return the log of replica `number`, counted from 0, beside the one asked for: server.log, server-2.log, …"""
    if log_path is None or number == 0:
        return log_path
    return log_path.with_name(f"{log_path.stem}-{number + 1}{log_path.suffix}")


def sum_samples(samples: Iterable[ServerSample | None]) -> ServerSample | None:
    """Add up samples of several servers; None where there is none. Descriptors are those of the fullest process."""
    readable = [sample for sample in samples if sample is not None]
    if not readable:
        return None
    fullest = max(readable, key=lambda sample: (sample.descriptors or 0) / (sample.descriptor_limit or 1))
    return ServerSample(
        at_s=time.monotonic(),
        processes=_sum_counts(sample.processes for sample in readable),
        cpu_seconds=_sum_floats(sample.cpu_seconds for sample in readable),
        rss_bytes=_sum_counts(sample.rss_bytes for sample in readable),
        threads=_sum_counts(sample.threads for sample in readable),
        descriptors=fullest.descriptors,
        descriptor_limit=fullest.descriptor_limit,
        restarts=_sum_counts(sample.restarts for sample in readable),
    )


def _sum_floats(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def _sum_counts(values: Iterable[int | None]) -> int | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def resolve_backend(url: str) -> Backend:
    """Return the IP address and port a URL names, IPv4 where it has both."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    with contextlib.suppress(ValueError):
        return Backend(str(ipaddress.ip_address(host)), port)
    try:
        address_infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise TargetError(f"target envoy: {url} cannot be reached: the host name {host!r} does not resolve") from None
    addresses = sorted(address_infos, key=lambda entry: entry[0] is not socket.AF_INET)
    return Backend(str(addresses[0][4][0]), port)


class ContainerReplicas:
    """Containers of an image; see `Replicas`.

    On an engine that publishes no ports each listens at its own loopback address, by HOST and PORT.
    """

    def __init__(self, options: ImageOptions, context: TargetContext, *, target: str) -> None:
        self._options = options
        self._context = context
        self._target = target
        self._containers: list[Container] = []
        self._backends: tuple[Backend, ...] = ()
        self._engine_cores: int | None = None

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
        self._engine_cores = engine.cores
        image = obtain_image(engine, self.source, self._context.show_progress)
        self._containers = [
            stack.enter_context(self._make_container(engine, image, n)) for n in range(self._options.replicas)
        ]
        self._backends = tuple(resolve_backend(container.url) for container in self._containers)

    @property
    def source(self) -> ImageSource:
        """The image of all of them."""
        return ImageSource(self._options.image, self._context.root, self._options.pull)

    def options(self, number: int) -> ContainerOptions:
        """Return how container `number`, counted from 0, is run."""
        options = self._options
        return ContainerOptions(
            env=options.variables,
            address=replica_address(number),
            cpus=options.cpus,
            memory=options.memory,
            nofile=options.nofile,
            run_id=self._context.run_id,
        )

    def _make_container(self, engine: Engine, image: str, number: int) -> Container:
        return Container(
            engine, image, self.options(number), log_path=numbered_log_path(self._context.log_path, number)
        )

    @property
    def backends(self) -> tuple[Backend, ...]:
        """See `Replicas`."""
        return self._backends

    @property
    def limits(self) -> dict[str, str | int]:
        """See `Replicas`; the variables of the image count where none were given."""
        variables, limits = self._containers[0].env, dict[str, str | int]()
        for name, variable in (("workers", "WORKERS"), ("max_envs", "MAX_CONCURRENT_ENVS")):
            if variables.get(variable, "").isdecimal() and int(variables[variable]) > 0:
                limits[name] = int(variables[variable])
        limits["network"] = self._containers[0].network
        limits["image"] = self._options.image
        return limits

    @property
    def cores(self) -> int | None:
        """See `Replicas`; no more than all containers together may use."""
        if self._options.cpus is None or self._engine_cores is None:
            return self._engine_cores
        return min(math.ceil(self._options.cpus * self._options.replicas), self._engine_cores)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Replicas`."""
        return ()

    def wait(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `Replicas`."""
        for number, container in enumerate(self._containers):
            self._wait_for(container, self._backends[number], headers)
        return ()

    def _wait_for(self, container: Container, backend: Backend, headers: Mapping[str, str]) -> None:
        try:
            wait_until_ready((container.url,), headers, START_S, container.exit_status, modes=self._context.modes)
        except NotReadyError as error:
            server = f"the container at {backend.name}"
            raise error.told(self._target, server=server, with_log=container.with_log) from None

    def exit_status(self, number: int) -> ExitStatus | None:
        """See `Replicas`."""
        return self._containers[number].exit_status()

    def log_tail(self, number: int, lines: int) -> str:
        """See `Replicas`."""
        return self._containers[number].log_tail(lines)

    def sample(self) -> ServerSample | None:
        """See `Replicas`."""
        return sum_samples(container.sample() for container in self._containers)
