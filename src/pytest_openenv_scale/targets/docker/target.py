"""`docker[:IMAGE|:PATH]`: an environment in a container, on the engine that DOCKER_HOST or docker's context names."""

from __future__ import annotations

import math
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import cast

from pytest_openenv_scale.core.endpoint import Endpoint, TargetError
from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, redact_target

from . import keys
from .container import Container, ContainerOptions, Network
from .context import TargetContext
from .engine import Engine
from .engine_answers import format_memory
from .images import PULL, ImageSource, obtain_image
from .ready import START_S, wait_until_ready
from .termination import orderly

_WORKERS, _MAX_ENVS = "WORKERS", "MAX_CONCURRENT_ENVS"
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)i?b?", re.IGNORECASE)
_LEAST_MEMORY = 6 * 1024**2
_BUILD_ARGUMENT = re.compile(r"build\.([A-Za-z_][A-Za-z0-9_]*)")


def cpus(value: str, what: str) -> float:
    """Parse a number of processors, of which half ones may be given too."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 4096:
        raise GrammarError(f"{what} must be a number of processors of at least 0.01, got {value!r}; write 2 or 0.5")
    return number


def memory(value: str, what: str) -> int:
    """Parse bytes as docker writes them: "512m", "2g"."""
    found = _MEMORY.fullmatch(value)
    number = float(found[1]) * 1024 ** "kmgt".index(found[2].lower()) * 1024 if found and found[2] else 0
    number = float(found[1]) if found and not found[2] else number
    if number < _LEAST_MEMORY:
        raise GrammarError(f"{what} must be at least 6m, the least an engine allows, got {value!r}; write 512m or 2g")
    return int(number)


_KEYS = {
    "workers": keys.count,
    "max_envs": keys.count,
    "port": keys.port,
    "cpus": cpus,
    "memory": memory,
    "pull": keys.one_of(*PULL),
    "nofile": keys.count,
    "network": keys.one_of("auto", "host", "publish"),
    "gpu": keys.text,
    "wheels": keys.text,
    "label": keys.text,
    "cores": keys.count,
    "hardware": keys.text,
}


class DockerTarget:
    """A server in one container: built or pulled, run, watched, and removed on every way out."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        arguments = {found[1]: text for key, text in spec.options if (found := _BUILD_ARGUMENT.fullmatch(key))}
        plain = replace(spec, options=tuple(pair for pair in spec.options if not _BUILD_ARGUMENT.fullmatch(pair[0])))
        self._given = keys.read_options(plain, _KEYS, env=True)
        self._context = context
        self.spec = redact_target(spec)
        self.source = ImageSource(
            spec.argument, context.root, self._given.text("pull") or PULL[0], arguments, self._given.text("wheels")
        )
        self._check()
        self._life = ExitStack()

    def __enter__(self) -> Endpoint:
        """Build or pull the image, start a container and return once it has answered a session; see `Target`."""
        with ExitStack() as life:
            endpoint = self._start(life)
            self._life = life.pop_all()
        return endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the container."""
        self._life.close()

    def _check(self) -> None:
        source, given = self.source, self._given
        if source.is_built and given.text("pull"):
            raise GrammarError("target docker: pull= is for images by name; a folder is always built")
        if not source.is_built and source.arguments:
            raise GrammarError("target docker: build.NAME= is for what is built; name a folder instead of an image")
        if source.wheels is not None and source.name is not None:
            raise GrammarError("target docker: wheels= is for the packaged Dockerfile; leave out the image")

    def _start(self, life: ExitStack) -> Endpoint:
        engine = Engine.connect()
        life.callback(engine.close)
        # From here on: a build, too, is better interrupted than left to the engine.
        orderly.hold()
        life.callback(orderly.release)
        image = obtain_image(engine, self.source, self._context.say)
        began = time.monotonic()
        container = Container(engine, image, self.options(self._cores(engine)), log_path=self._context.log_path)
        life.enter_context(container)
        endpoint = Endpoint(
            urls=(container.url,),
            label=self._given.text("label") or "local-docker",
            target=self.spec,
            cores=self._given.count("cores") or self._cores(engine),
            hosts=1,
            limits=self._limits(engine, container, image),
            headers=dict(self._context.headers),
            hardware=self._given.text("hardware"),
            sampler=container.sample,
            log_reader=container.log_tail,
            exit_reader=container.exit_status,
        )
        self._await(endpoint, container)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def options(self, cores: int | None = None) -> ContainerOptions:
        """Return how the container is run on an engine of `cores` processors."""
        given = self._given
        environment: dict[str, str] = {}
        workers, max_envs = given.count("workers"), given.count("max_envs")
        if workers is None and self.source.name is None:
            # Inside, the server would see every processor of the machine, whatever it may use of them.
            workers = cores
        if workers is not None:
            environment[_WORKERS] = str(workers)
        if max_envs is not None:
            environment[_MAX_ENVS] = str(max_envs)
        return ContainerOptions(
            env={**environment, **given.env},
            port=given.count("port"),
            network=cast("Network", given.text("network") or "auto"),
            cpus=given.values.get("cpus"),
            memory=given.values.get("memory"),
            nofile=given.count("nofile"),
            gpu=given.text("gpu"),
            run_id=self._context.run_id,
        )

    def _cores(self, engine: Engine) -> int:
        limit: float | None = self._given.values.get("cpus")
        return engine.cores if limit is None else min(math.ceil(limit), engine.cores)

    def _limits(self, engine: Engine, container: Container, image: str) -> dict[str, str | int]:
        limits: dict[str, str | int] = {}
        for name, variable in (("workers", _WORKERS), ("max_envs", _MAX_ENVS)):
            if container.env.get(variable, "").isdecimal() and int(container.env[variable]) > 0:
                limits[name] = int(container.env[variable])
        if (limit := self._given.values.get("cpus")) is not None:
            limits["cpus"] = f"{limit:g}"
        if (limit := self._given.values.get("memory")) is not None:
            limits["memory"] = format_memory(limit)
        if (nofile := self._given.count("nofile")) is not None:
            limits["nofile"] = nofile
        limits["network"] = container.network
        limits["image"] = (engine.image_id(image) or image).removeprefix("sha256:")[:12]
        return limits

    def _await(self, endpoint: Endpoint, container: Container) -> None:
        def still_alive() -> str | None:
            status = container.exit_status()
            return f"target {self.spec}: the container {status} before it answered a session" if status else None

        try:
            wait_until_ready(endpoint.urls, endpoint.headers, START_S, still_alive, modes=self._context.modes)
        except TargetError as error:
            message = str(error)
            if message.startswith(endpoint.urls[0]):
                told = f"HOST={container.env.get('HOST')} PORT={container.env.get('PORT')}"
                elsewhere = f"it was told {told}: write port= if it listens elsewhere"
                message = f"target {self.spec}: the container at {message}; {elsewhere}"
            raise TargetError(container.with_log(message)) from None
