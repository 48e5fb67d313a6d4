"""`docker[:IMAGE|:PATH]`: an environment in a container; and the removal of containers that killed runs left."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.base import HIDDEN, DescriptionPart, StartedTarget, shell_command
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.leftovers import graceful_signals, is_alive
from pytest_openenv_scale.targets.common.options import (
    TargetContext,
    TargetOptions,
    count,
    format_memory,
    one_of,
    option,
    read_options,
    variables,
)
from pytest_openenv_scale.targets.common.readiness import START_S, NotReadyError, wait_until_ready

from .container import OWNER_LABEL, RUN_LABEL, Container, ContainerOptions
from .engine import Engine, is_not_found
from .image import BENCHMARK_TAG, PULL_POLICIES, ImageSource, find_build, obtain_image

_WORKERS, _MAX_ENVS = "WORKERS", "MAX_CONCURRENT_ENVS"


@dataclass(frozen=True)
class DockerOptions(TargetOptions, ContainerOptions):
    """The keys of the target; `build` are those of `build.NAME=`."""

    workers: int | None = option(count)
    max_envs: int | None = option(count)
    pull: str | None = option(one_of(*PULL_POLICIES))
    wheels: str | None = option()
    build: Mapping[str, str] = variables("build")


class DockerTarget(StartedTarget):
    """A server in one container: built or pulled, run, watched, and removed on every way out."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        options = self._options = read_options(spec, DockerOptions)
        super().__init__(spec, context, options)
        self.source = ImageSource(
            spec.argument, context.root, options.pull or PULL_POLICIES[0], options.build, options.wheels
        )
        self._check_keys()

    def _check_keys(self) -> None:
        source, options = self.source, self._options
        if source.is_built and options.pull:
            raise GrammarError("target docker: pull= is for images by name; a folder is always built")
        if not source.is_built and source.arguments:
            raise GrammarError("target docker: build.NAME= is for what is built; name a folder instead of an image")
        if source.wheels is not None and source.name is not None:
            raise GrammarError("target docker: wheels= is for the packaged Dockerfile; leave out the image")

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        return [describe_image(self.source), describe_container(self.source, self.container_options())]

    def start(self, stack: ExitStack) -> Endpoint:
        """Build or pull the image, start a container and return once it has answered a session."""
        engine = Engine.connect()
        stack.callback(engine.close)
        # From here on: a build, too, is better interrupted than left to the engine.
        stack.enter_context(graceful_signals.held())
        image = obtain_image(engine, self.source, self.context.show_progress)
        began = time.monotonic()
        options = self.container_options(self._cores(engine))
        container = Container(engine, image, options, log_path=self.context.log_path)
        stack.enter_context(container)
        endpoint = Endpoint(
            urls=(container.url,),
            label="local-docker",
            target=self.spec,
            cores=self._cores(engine),
            hosts=1,
            limits=self._limits(engine, container, image),
            headers=dict(self.context.headers),
            sampler=container.sample,
            log_reader=container.log_tail,
            exit_reader=container.exit_status,
        )
        self._wait_until_ready(endpoint, container)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def container_options(self, cores: int | None = None) -> ContainerOptions:
        """Return how the container is run on an engine of `cores` processors."""
        options = self._options
        workers = options.workers
        if workers is None and self.source.name is None:
            # Inside, the server would see every processor of the machine, whatever it may use of them.
            workers = cores
        environment = {
            name: str(number) for name, number in ((_WORKERS, workers), (_MAX_ENVS, options.max_envs)) if number
        }
        return replace(options, env={**environment, **options.env}, run_id=self.context.run_id)

    def _cores(self, engine: Engine) -> int:
        limit = self._options.cpus
        return engine.cores if limit is None else min(math.ceil(limit), engine.cores)

    def _limits(self, engine: Engine, container: Container, image: str) -> dict[str, str | int]:
        limits: dict[str, str | int] = {}
        for name, variable in (("workers", _WORKERS), ("max_envs", _MAX_ENVS)):
            if container.env.get(variable, "").isdecimal() and int(container.env[variable]) > 0:
                limits[name] = int(container.env[variable])
        if (limit := self._options.cpus) is not None:
            limits["cpus"] = f"{limit:g}"
        if (memory := self._options.memory) is not None:
            limits["memory"] = format_memory(memory)
        if (nofile := self._options.nofile) is not None:
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


def describe_image(source: ImageSource) -> DescriptionPart:
    """Return how an image is had.

    Raises:
        TargetError: there is no such folder, or nothing to build in it.
    """
    arguments = [part for name in source.arguments for part in ("--build-arg", f"{name}={HIDDEN}")]
    if source.name is None:
        folder = str(deploy_file("docker"))
        return DescriptionPart("image", shell_command(["docker", "build", "--tag", BENCHMARK_TAG, *arguments, folder]))
    if source.is_built:
        build = find_build(source.name, source.root)
        file = str(build.folder / build.dockerfile)
        words = ["docker", "build", "--tag", build.tag, "--file", file, *arguments, str(build.folder)]
        return DescriptionPart("image", shell_command(words))
    pull_words = {"missing": "pulled where the engine does not have it", "always": "pulled", "never": "not pulled"}
    return DescriptionPart("image", f"{source.name} ({pull_words[source.pull]})")


def describe_container(source: ImageSource, options: ContainerOptions, title: str = "container") -> DescriptionPart:
    """Return how a container of an image is run."""
    words = ["docker", "run", "--detach", "--label", "openenv-scale.run=RUN_ID"]
    if options.network == "host":
        words += ["--network", "host"]
    else:
        words += ["--publish", f"{options.address}::{options.port or '8000'}"]
    for name, text in options.env.items():
        words += ["--env", f"{name}={text if name in ('WORKERS', 'MAX_CONCURRENT_ENVS') else HIDDEN}"]
    limits: Mapping[str, object] = {
        "--cpus": options.cpus and f"{options.cpus:g}",
        "--memory": options.memory,
        "--ulimit": options.nofile and f"nofile={options.nofile}:{options.nofile}",
        "--gpus": options.gpu and (options.gpu if options.gpu == "all" else f"device={options.gpu}"),
    }
    for name, limit in limits.items():
        words += [name, str(limit)] if limit is not None else []
    command = shell_command([*words, source.name if source.name and not source.is_built else BENCHMARK_TAG])
    return DescriptionPart(title, command)
