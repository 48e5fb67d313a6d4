"""`docker[:IMAGE|:PATH]`: an environment in a container; and the removal of containers that killed runs left."""

from __future__ import annotations

import contextlib
import math
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common import options as common_options
from pytest_openenv_scale.targets.common.base import StartedTarget
from pytest_openenv_scale.targets.common.leftovers import graceful_signals, is_alive
from pytest_openenv_scale.targets.common.options import TargetContext, cpus, format_memory, memory
from pytest_openenv_scale.targets.common.readiness import START_S, NotReadyError, wait_until_ready

from .container import OWNER_LABEL, RUN_LABEL, Container, ContainerOptions, Network
from .engine import Engine, is_not_found
from .image import PULL_POLICIES, ImageSource, obtain_image

_WORKERS, _MAX_ENVS = "WORKERS", "MAX_CONCURRENT_ENVS"
_BUILD_ARGUMENT = re.compile(r"build\.([A-Za-z_][A-Za-z0-9_]*)")
_KEYS = {
    "workers": common_options.count,
    "max_envs": common_options.count,
    "port": common_options.port,
    "cpus": cpus,
    "memory": memory,
    "pull": common_options.one_of(*PULL_POLICIES),
    "nofile": common_options.count,
    "network": common_options.one_of("auto", "host", "publish"),
    "gpu": common_options.text,
    "wheels": common_options.text,
    "label": common_options.text,
    "cores": common_options.count,
    "hardware": common_options.text,
}


class DockerTarget(StartedTarget):
    """A server in one container: built or pulled, run, watched, and removed on every way out."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        arguments = {match[1]: text for key, text in spec.options if (match := _BUILD_ARGUMENT.fullmatch(key))}
        plain_spec = replace(
            spec, options=tuple(pair for pair in spec.options if not _BUILD_ARGUMENT.fullmatch(pair[0]))
        )
        self._options = common_options.read_options(plain_spec, _KEYS, env=True)
        super().__init__(spec, context)
        self.source = ImageSource(
            spec.argument,
            context.root,
            self._options.text("pull") or PULL_POLICIES[0],
            arguments,
            self._options.text("wheels"),
        )
        self._check_keys()

    def _check_keys(self) -> None:
        source, options = self.source, self._options
        if source.is_built and options.text("pull"):
            raise GrammarError("target docker: pull= is for images by name; a folder is always built")
        if not source.is_built and source.arguments:
            raise GrammarError("target docker: build.NAME= is for what is built; name a folder instead of an image")
        if source.wheels is not None and source.name is not None:
            raise GrammarError("target docker: wheels= is for the packaged Dockerfile; leave out the image")

    def start(self, stack: ExitStack) -> Endpoint:
        """Build or pull the image, start a container and return once it has answered a session."""
        engine = Engine.connect()
        stack.callback(engine.close)
        # From here on: a build, too, is better interrupted than left to the engine.
        stack.enter_context(graceful_signals.held())
        image = obtain_image(engine, self.source, self.context.show_progress)
        began = time.monotonic()
        container = Container(engine, image, self.options(self._cores(engine)), log_path=self.context.log_path)
        stack.enter_context(container)
        endpoint = Endpoint(
            urls=(container.url,),
            label=self._options.text("label") or "local-docker",
            target=self.spec,
            cores=self._options.count("cores") or self._cores(engine),
            hosts=1,
            limits=self._limits(engine, container, image),
            headers=dict(self.context.headers),
            hardware=self._options.text("hardware"),
            sampler=container.sample,
            log_reader=container.log_tail,
            exit_reader=container.exit_status,
        )
        self._wait_until_ready(endpoint, container)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def options(self, cores: int | None = None) -> ContainerOptions:
        """Return how the container is run on an engine of `cores` processors."""
        options = self._options
        environment: dict[str, str] = {}
        workers, max_envs = options.count("workers"), options.count("max_envs")
        if workers is None and self.source.name is None:
            # Inside, the server would see every processor of the machine, whatever it may use of them.
            workers = cores
        if workers is not None:
            environment[_WORKERS] = str(workers)
        if max_envs is not None:
            environment[_MAX_ENVS] = str(max_envs)
        return ContainerOptions(
            env={**environment, **options.env},
            port=options.count("port"),
            network=cast("Network", options.text("network") or "auto"),
            cpus=options.values.get("cpus"),
            memory=options.values.get("memory"),
            nofile=options.count("nofile"),
            gpu=options.text("gpu"),
            run_id=self.context.run_id,
        )

    def _cores(self, engine: Engine) -> int:
        limit: float | None = self._options.values.get("cpus")
        return engine.cores if limit is None else min(math.ceil(limit), engine.cores)

    def _limits(self, engine: Engine, container: Container, image: str) -> dict[str, str | int]:
        limits: dict[str, str | int] = {}
        for name, variable in (("workers", _WORKERS), ("max_envs", _MAX_ENVS)):
            if container.env.get(variable, "").isdecimal() and int(container.env[variable]) > 0:
                limits[name] = int(container.env[variable])
        if (limit := self._options.values.get("cpus")) is not None:
            limits["cpus"] = f"{limit:g}"
        if (limit := self._options.values.get("memory")) is not None:
            limits["memory"] = format_memory(limit)
        if (nofile := self._options.count("nofile")) is not None:
            limits["nofile"] = nofile
        limits["network"] = container.network
        limits["image"] = (engine.image_id(image) or image).removeprefix("sha256:")[:12]
        return limits

    def _wait_until_ready(self, endpoint: Endpoint, container: Container) -> None:
        try:
            wait_until_ready(endpoint.urls, endpoint.headers, START_S, container.exit_status, modes=self.context.modes)
        except NotReadyError as error:
            variables = f"HOST={container.env.get('HOST')} PORT={container.env.get('PORT')}"
            raise error.told(
                self.spec,
                server="the container",
                at=f"the container at {error.url}",
                hint=f"; it was told {variables}: write port= if it listens elsewhere",
                with_log=container.with_log,
            ) from None


def collect_containers(*, dry_run: bool = False) -> list[str]:
    """Remove the containers whose run is gone and return a line for each; `dry_run` only looks.

    What belongs to a process that may still run, here or on another machine, stays.

    Raises:
        TargetError: no engine answers, or it refuses.
    """
    engine = Engine.connect("docker")
    with contextlib.closing(engine):
        containers: list[Any] = engine.call(
            engine.client.containers.list,
            "list its containers",
            all=True,
            ignore_removed=True,
            filters={"label": OWNER_LABEL},
        )
        leftovers = [container for container in containers if not is_alive(container.labels.get(OWNER_LABEL, ""))]
        return [_leftover_line(container) for container in leftovers if dry_run or _remove_container(engine, container)]


def _remove_container(engine: Engine, container: Any) -> bool:
    """Remove one; False where it is gone already."""

    def remove() -> bool:
        try:
            container.remove(force=True, v=True)
        except Exception as error:
            if is_not_found(error):
                return False
            raise
        return True

    return bool(engine.call(remove, f"remove the container {container.name}"))


def _leftover_line(container: Any) -> str:
    run = container.labels.get(RUN_LABEL) or "unknown"
    image = container.attrs.get("Config", {}).get("Image", "")
    return f"container {container.name} of {image} (run {run})"
