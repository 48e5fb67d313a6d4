"""Replicas behind Envoy that are containers of one image, each reached at an address of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.targets.common.description import DescriptionPart
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.common.readiness import START_S, NotReadyError, wait_until_ready
from pytest_openenv_scale.targets.docker.container import Container, ContainerOptions
from pytest_openenv_scale.targets.docker.description import describe_container, describe_image
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image

from .config import Backend
from .replicas import numbered_log_path, replica_address, resolve_backend, sum_samples
from .spec import ImageOptions


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
