"""`docker[:IMAGE|:PATH]`: an environment in a container; and the removal of containers that killed runs left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.targets.common.application import BUILT_IN, MANIFEST
from pytest_openenv_scale.targets.common.base import (
    HIDDEN,
    DescriptionPart,
    StartedTarget,
    log_words,
    shell_command,
    shown_variables,
    with_log,
)
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.leftovers import Leftover, graceful_signals, is_alive
from pytest_openenv_scale.targets.common.options import (
    StartOptions,
    TargetContext,
    TargetOptions,
    format_memory,
    one_of,
    option,
    read_options,
    settings_of,
    variables,
    variables_for,
)
from pytest_openenv_scale.targets.common.readiness import NotReadyError, Watch, start_s, wait_until_ready

from .container import DEFAULT_PORT, OWNER_LABEL, RUN_LABEL, Container, ContainerOptions, create_request
from .engine import Engine, is_not_found
from .image import BENCHMARK_TAG, PULL_POLICIES, ImageSource, find_build, obtain_image


@dataclass(frozen=True)
class DockerOptions(TargetOptions, ContainerOptions, StartOptions):
    """The keys of the target; `build` are those of `build.NAME=`."""

    pull: str | None = option(one_of(*PULL_POLICIES))
    wheels: str | None = option()
    app: str | None = option(one_of(BUILT_IN))
    build: Mapping[str, str] = variables("build")


class DockerTarget(StartedTarget):
    """A server in one container: built or pulled, run, watched, and removed on every way out."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        options = self._options = read_options(spec, DockerOptions)
        super().__init__(spec, context, options)
        self.source = ImageSource(
            spec.argument,
            context.base,
            options.pull or PULL_POLICIES[0],
            options.build,
            options.wheels,
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
        if options.app is not None and source.name is not None:
            raise GrammarError(f"target docker: app={BUILT_IN} is for the packaged Dockerfile; leave out the image")

    def _check_source(self) -> None:
        """Refuse to measure the built-in environment where nobody named it and there is another one.

        Raises:
            TargetError: there is an `openenv.yaml`; the line says what to write.
        """
        manifest = self.context.root / MANIFEST
        if self.source.name is None and self._options.app is None and manifest.is_file():
            raise TargetError(
                f"target docker: no image is named, and there is {manifest}; write docker:{self.context.root} to build "
                f"that environment, docker:IMAGE, or docker,app={BUILT_IN} for the built-in one"
            )

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        self._check_source()
        return [describe_image(self.source), describe_container(self.source, self.container_options("CORES"))]

    def start(self, stack: ExitStack) -> Endpoint:
        """Build or pull the image, start a container and return once it has answered a session."""
        self._check_source()
        engine = Engine.connect()
        stack.callback(engine.close)
        # From here on: a build, too, is better interrupted than left to the engine.
        stack.enter_context(graceful_signals)
        image = obtain_image(engine, self.source, self.context.show_progress, self.context.show_status)
        began, cores = time.monotonic(), engine.cores_within(self._options.cpus)
        container = Container(engine, image, self.container_options(cores), log_path=self.context.log_path)
        stack.enter_context(container)
        limits = self._limits(engine, container, image)
        endpoint = self.endpoint([container.url], "local-docker", container, cores=cores, hosts=1, limits=limits)
        remedy = ": write port= if it listens elsewhere"
        wait_for_container(
            container,
            endpoint.headers,
            self.context,
            target=self.spec,
            start_timeout=self._options.start_timeout,
            remedy=remedy,
        )
        return replace(endpoint, startup_s=time.monotonic() - began)

    def container_options(self, cores: int | str) -> ContainerOptions:
        """Return how the container is run on an engine of `cores` processors."""
        options = self._options
        # Inside, the server would see every processor of the machine, whatever it may use of them.
        default = {"workers": cores} if self.source.name is None else {}
        environment = {**variables_for(**{**default, **options.declared}), **options.env}
        return replace(options, env=environment, run_id=self.context.run_id)

    def _limits(self, engine: Engine, container: Container, image: str) -> dict[str, str | int]:
        options = self._options
        limits: dict[str, str | int | None] = {
            **settings_of(container.env),
            "cpus": f"{options.cpus:g}" if options.cpus is not None else None,
            "memory": format_memory(options.memory) if options.memory is not None else None,
            "nofile": options.nofile,
            "network": container.network,
            "image": (engine.image_id(image) or image).removeprefix("sha256:")[:12],
        }
        return {name: limit for name, limit in limits.items() if limit is not None}


def wait_for_container(
    container: Container,
    headers: Mapping[str, str],
    context: TargetContext,
    *,
    target: str,
    start_timeout: float | None,
    name: str = "the container",
    remedy: str = "",
) -> None:
    """Return once the server in a container has answered a session.

    Raises:
        TargetError: it ended or did not answer in time; the line calls it `name` and ends with `remedy`.
    """
    try:
        wait_until_ready(
            (container.url,),
            headers,
            start_s(start_timeout, context),
            container.exit_status,
            session=context.first_session,
            watch=Watch(state=lambda: _state(container), show=context.show_status),
        )
    except NotReadyError as error:
        variables = f"HOST={container.env.get('HOST')} PORT={container.env.get('PORT')}"
        raise error.target_error(
            target,
            server=name,
            at=f"the container at {error.url}",
            hint=f"; it was told {variables}{remedy}",
            with_log=lambda text: with_log(text, container.log_tail(LOG_LINES), "the container's log"),
        ) from None


def _state(container: Container) -> str:
    return f"container alive, {log_words(container.log_tail(1))}"


def leftover_containers() -> Iterator[Leftover]:
    """Yield the containers whose run is gone; what a process may still use, here or elsewhere, is none.

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
        for container in containers:
            if not is_alive(container.labels.get(OWNER_LABEL, "")):
                run = container.labels.get(RUN_LABEL) or "unknown"
                image = container.attrs.get("Config", {}).get("Image", "")
                line = f"container {container.name} of {image} (run {run})"
                yield Leftover(line, partial(_remove_container, engine, container))


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
    """Return how a container of an image is run, as the docker command takes it."""
    request = create_request(
        source.name if source.name and not source.is_built else BENCHMARK_TAG,
        replace(options, run_id="RUN_ID"),
        network="host" if options.network == "host" else "publish",
        port=options.known_port or DEFAULT_PORT,
        bind=options.address,
        owner="PROCESS",
    )
    words = ["docker", "run", "--detach"]
    for name, text in request["labels"].items():
        words += ["--label", f"{name}={text}"]
    for port, (address, _) in request.get("ports", {}).items():
        words += ["--publish", f"{address}::{port.removesuffix('/tcp')}"]
    for name, text in shown_variables(request["environment"]).items():
        words += ["--env", f"{name}={text}"]
    for key, flag in (("network_mode", "--network"), ("mem_limit", "--memory"), ("memswap_limit", "--memory-swap")):
        words += [flag, str(request[key])] if key in request else []
    words += ["--cpus", f"{request['nano_cpus'] / 1e9:g}"] if "nano_cpus" in request else []
    for limit in request.get("ulimits", []):
        words += ["--ulimit", f"{limit['name']}={limit['soft']}:{limit['hard']}"]
    for device in request.get("device_requests", []):
        words += ["--gpus", f"device={device['device_ids'][0]}" if "device_ids" in device else "all"]
    return DescriptionPart(title, shell_command([*words, request["image"]]))
